"""Values within values between tags of their names."""

from __future__ import annotations

import pytest

from ollamad.http.answer.callformat import ANY, KEY, Tags
from ollamad.http.answer.nestedtags import DEPTH_MAX, nested_value

TAGS = Tags(open="<", middles={ANY: ">"}, close=f"</{KEY}>")
ROWS = {"type": "object", "properties": {"rows": {"type": "array", "items": {"type": "string"}}}}


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("4", {"type": "integer"}, 4),
        ("a < b", {"type": "string"}, "a < b"),
        ("<item>1</item>\n<item>x</item>", None, [1, "x"]),
        ("<rows><r>1</r><r>2</r></rows>", ROWS, {"rows": ["1", "2"]}),
        ("<a><a>1</a><a>2</a></a>", None, {"a": {"a": 2}}),
        ("<a>1</b>", None, "<a>1</b>"),
        ("<a>1</a> and", None, "<a>1</a> and"),
        ("<a", None, "<a"),
    ],
)
def test_a_text_of_tags_is_what_they_hold(text: str, schema: object, value: object) -> None:
    assert nested_value(text, TAGS, schema) == value


def test_tags_go_to_a_limit() -> None:
    value = nested_value("<a>" * 100 + "</a>" * 100, TAGS, None)
    depth = 0
    while isinstance(value, dict):
        value, depth = value["a"], depth + 1

    assert depth == DEPTH_MAX
    assert value == "<a>" * (100 - DEPTH_MAX) + "</a>" * (100 - DEPTH_MAX)
