"""Values that stand between tags get the types that tools declare for them."""

from __future__ import annotations

from typing import Any

import pytest

from ollamad.http.answer.declared import DeclaredTools, tools_as_text, typed
from tests.unit.http.answer.reading import ADD, a_tool

UNION = {"anyOf": [{"type": "integer"}, {"type": "null"}]}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "41", "41"),
        ({"type": "string"}, "null", "null"),
        ({"type": "integer"}, "41", 41),
        ({"type": "integer"}, "many", "many"),
        ({"type": "number"}, "40.50", 40.5),
        ({"type": "number"}, "4e1", 40),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, "perhaps", False),
        ({"type": ["boolean", "string"]}, "perhaps", "perhaps"),
        ({"type": ["integer", "null"]}, "None", None),
        (UNION, "Null", None),
        (UNION, "3", 3),
        ({"type": "array"}, '["a", 1]', ["a", 1]),
        ({"type": "array"}, "['a', True]", ["a", True]),
        ({"type": "array"}, "a, b", "a, b"),
        ({"type": "object"}, '{"a": {"b": 1}}', {"a": {"b": 1}}),
        ({"enum": [1, 2]}, "2", 2),
        ({}, "41", "41"),
        ("odd", "41", "41"),
    ],
)
def test_a_text_is_the_first_type_that_it_can_be(schema: Any, text: str, value: object) -> None:
    declared = DeclaredTools([a_tool("f", p=schema)])

    found = typed(declared.schema("f", "p"), text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("text", "value"), [("41", 41), ("x", "x"), ("[" * 10_000, "[" * 10_000)])
def test_of_an_unknown_parameter_a_text_is_what_it_is_as_json(text: str, value: object) -> None:
    assert typed(DeclaredTools([ADD]).schema("add", "c"), text) == value


@pytest.mark.parametrize("tools", [[{}], [{"function": None}], [{"function": {"name": 3}}]])
def test_tools_without_names_are_none(tools: list[dict[str, Any]]) -> None:
    assert not DeclaredTools(tools)


def test_a_namespace_before_a_name_is_left_out() -> None:
    declared = DeclaredTools([ADD])

    assert declared.resolve(" functions.add ") == "add"
    assert declared.resolve("functions.sub") == "functions.sub"


def test_tools_are_described_in_a_few_words() -> None:
    text = tools_as_text([ADD])

    assert '"name": "add"' in text
    assert '{"name": FUNCTION, "arguments": OBJECT}' in text
