"""Schemas as clients write them: which are kept to, which refused, and with which words."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pydantic
import pytest

from ollamad.errors import InvalidBody
from ollamad.http.answer import schemawords as words
from ollamad.http.answer.schemacheck import (
    SCHEMA_BYTES_MAX,
    SCHEMA_DEPTH_MAX,
    SCHEMA_NODES_MAX,
    SCHEMA_PATTERN_CHARS_MAX,
    SCHEMA_PROPERTIES_MAX,
    SCHEMA_VALUES_MAX,
    checked_schema,
)

HOSTILE_S = 2.0
"""How long the worst schema may take on a machine that is busy."""


def refusal(schema: Any) -> str:
    with pytest.raises(InvalidBody) as caught:
        checked_schema(schema)
    return caught.value.message


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": ["string", "null"], "maxLength": 3},
        {"enum": [1, "a", None, {"a": [1]}]},
        {"title": "T", "description": "d", "default": 1, "examples": [1], "$comment": "c"},
        {"type": "string", "nullable": True, "x-order": 3, "deprecated": True},
        {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
        {"type": "object", "patternProperties": {"^a": {}}, "additionalProperties": False},
        {"type": "object", "properties": {"enum": {"type": "integer"}, "not": {}, "$ref": {}}},
        {"$defs": {"unused": {"not": {}}}, "type": "string"},
        {"type": "object", "properties": {"self": {"$ref": "#"}}},
        {"$ref": "#named", "$defs": {"a": {"$anchor": "named", "type": "string"}}},
        {"$ref": "#/$defs/a~1b%25", "$defs": {"a/b%": {"type": "string"}}},
    ],
)
def test_what_can_be_kept_to_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert checked_schema(schema) == schema


def test_the_schema_true_allows_everything() -> None:
    assert checked_schema(True) == {}


def test_a_clients_schema_is_not_changed() -> None:
    schema = {"$id": "http://x/y", "type": "string", "format": "date"}

    checked_schema(schema)

    assert schema == {"$id": "http://x/y", "type": "string", "format": "date"}


@pytest.mark.parametrize("word", sorted(words.UNSUPPORTED))
def test_an_unsupported_keyword_is_named_with_its_place(word: str) -> None:
    inner = {"type": "array", word: {"x": 1} if word != "uniqueItems" else True}
    schema = {"properties": {"a/b": {"items": inner}}}

    message = f'"{word}" at "/properties/a~1b/items": it is not supported'
    assert message in refusal(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"uniqueItems": False},
        {"then": {"type": "string"}},
        {"minContains": 2},
        {"unevaluatedProperties": True},
        {"propertyNames": {"type": "string"}},
        {"dependentRequired": {}},
        {"not": False},
    ],
)
def test_an_unsupported_keyword_that_forbids_nothing_is_left_out(schema: dict[str, Any]) -> None:
    assert checked_schema(schema) == {}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (False, "no value keeps to the JSON Schema false"),
        ([], "a JSON Schema must be an object"),
        (3, "a JSON Schema must be an object"),
        ({"type": "text"}, '"type" at the root: it must be one of array, boolean'),
        ({"type": []}, '"type" at the root'),
        ({"items": 3}, '"schema" at "/items": it must be an object or a boolean'),
        ({"anyOf": []}, '"anyOf" at the root: it must be a list with something in it'),
        ({"enum": {}}, '"enum" at the root'),
        ({"properties": []}, '"properties" at the root'),
        ({"required": "a"}, '"required" at the root'),
        ({"minLength": -1}, '"minLength" at the root: it must be a whole number'),
        ({"maxItems": 1.5}, '"maxItems" at the root'),
        ({"minimum": "0"}, '"minimum" at the root: it must be a number'),
        ({"multipleOf": 0}, '"multipleOf" at the root: it must be a number above 0'),
        ({"minimum": 1 << 63}, '"minimum" at the root: only numbers of 64 bits'),
        ({"maximum": -(1 << 64)}, '"maximum" at the root: only numbers of 64 bits'),
        ({"const": (1 << 53) + 1}, '"const" at the root: 9007199254740993 has too many digits'),
        ({"pattern": "(?=a)b"}, '"pattern" at the root: (?= looks around'),
        ({"pattern": "(?<!a)b"}, '"pattern" at the root: (?<! looks around'),
        ({"pattern": r"(a)\1"}, r'"pattern" at the root: \1 refers back'),
        ({"pattern": r"\bword"}, r'"pattern" at the root: \b looks for a word'),
        ({"pattern": 3}, '"pattern" at the root: it must be a text'),
        ({"patternProperties": {"(?!a)": {}}}, '"patternProperties" at the root: (?! looks around'),
        ({"format": "regex"}, '"format" at the root: "regex" is not supported'),
        ({"format": 1}, '"format" at the root: it must be a text'),
        ({"$ref": "http://a/b"}, '"$ref" at the root: only references into the schema itself'),
        ({"$ref": "file:///etc/passwd"}, '"$ref" at the root: only references into'),
        ({"$ref": "#/$defs/a"}, '"$ref" at the root: there is no "#/$defs/a"'),
        ({"$ref": "#a"}, '"$ref" at the root: there is no $anchor "a"'),
        ({"$ref": 1}, '"$ref" at the root: it must be a text'),
        ({"minProperties": 3, "required": ["a"]}, '"minProperties" at the root'),
    ],
)
def test_what_is_wrong_is_said_and_where(schema: Any, message: str) -> None:
    assert message in refusal(schema)


@pytest.mark.parametrize("pattern", [r"a\\b", r"\\1", r"[0-9]{1}", r"^\w+\.\d+$", "(?:a|b)"])
def test_a_pattern_that_only_looks_like_the_refused_is_kept(pattern: str) -> None:
    assert checked_schema({"pattern": pattern}) == {"pattern": pattern}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        {"type": "array", "prefixItems": [{"anyOf": [{"$ref": "#"}]}], "minItems": 1},
        {"allOf": [{"type": "object"}, {"$ref": "#"}]},
    ],
)
def test_a_schema_whose_values_never_end_is_refused(schema: dict[str, Any]) -> None:
    assert "a value of it would never end" in refusal(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"next": {"$ref": "#"}}},
        {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]},
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "object", "required": ["a"], "additionalProperties": {"type": "string"}},
    ],
)
def test_recursion_that_can_end_is_fine(schema: dict[str, Any]) -> None:
    assert checked_schema(schema) == schema


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"maximum": (1 << 64) - 1}, {"maximum": (1 << 63) - (1 << 10)}),
        ({"minimum": -(1 << 70)}, {"minimum": -((1 << 63) - (1 << 10))}),
        ({"minimum": (1 << 53) + 1}, {"minimum": (1 << 53) + 2}),
        ({"maximum": (1 << 53) + 1}, {"maximum": 1 << 53}),
        ({"minimum": 1.0}, {"minimum": 1}),
        ({"minimum": 1, "exclusiveMinimum": True}, {"exclusiveMinimum": 1}),
        ({"maximum": 1, "exclusiveMaximum": False}, {"maximum": 1}),
        ({"minLength": 2.0}, {"minLength": 2}),
        ({"$id": "http://x/y", "x-guidance": {"lenient": True}}, {}),
        (
            {"items": [{"type": "string"}], "additionalItems": False},
            {"prefixItems": [{"type": "string"}], "items": False},
        ),
        ({"format": "iri"}, {"format": "uri"}),
        ({"format": "password", "type": "string"}, {"type": "string"}),
        ({"format": "int32", "type": "integer"}, {"type": "integer"}),
        ({"format": "json-pointer"}, {"pattern": "^(/([^~/]|~[01])*)*$"}),
        (
            {"propertyNames": {"pattern": "^a"}, "additionalProperties": {"type": "null"}},
            {"patternProperties": {"^a": {"type": "null"}}, "additionalProperties": False},
        ),
        (
            {"propertyNames": {"enum": ["a", "b"]}},
            {"properties": {"a": True, "b": True}, "additionalProperties": False},
        ),
    ],
)
def test_what_would_be_read_otherwise_is_said_otherwise(
    given: dict[str, Any], kept: dict[str, Any]
) -> None:
    assert checked_schema(given) == kept


@pytest.mark.parametrize(
    ("day", "is_real"),
    [
        ("2024-02-29", True),
        ("2023-02-29", False),
        ("2000-02-29", True),
        ("1900-02-29", False),
        ("0000-01-01", False),
        ("2023-12-31", True),
        ("0004-02-29", True),
    ],
)
def test_only_leap_years_have_a_29th_of_february(day: str, is_real: bool) -> None:
    pattern = checked_schema({"format": "date"})["pattern"]

    assert bool(re.search(pattern, day)) is is_real


def test_a_date_with_a_pattern_of_its_own_keeps_both() -> None:
    kept = checked_schema({"format": "date", "pattern": "^20"})

    assert kept["pattern"] == "^20"
    assert [*kept["allOf"][0]] == ["pattern"]


def test_pydantics_schemas_are_kept_to() -> None:
    class Colour(pydantic.BaseModel):
        name: str = pydantic.Field(max_length=10, description="How it is called")
        share: float = pydantic.Field(ge=0, le=1, default=0.5)

    class Picture(pydantic.BaseModel):
        title: str | None = None
        width: pydantic.PositiveInt
        colours: list[Colour] = pydantic.Field(min_length=1, max_length=3)
        tags: dict[str, int] = {}
        parts: list[Picture] = []

    schema = Picture.model_json_schema()

    assert checked_schema(schema) == schema


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def in_a_row(n_schemas: int) -> dict[str, Any]:
    parts = {f"d{n}": {"items": {"$ref": f"#/$defs/d{n + 1}"}} for n in range(n_schemas)}
    return {"$ref": "#/$defs/d0", "$defs": parts | {f"d{n_schemas}": {"type": "null"}}}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (nested(SCHEMA_DEPTH_MAX), f"deeper than {SCHEMA_DEPTH_MAX}"),
        (nested(900), f"deeper than {SCHEMA_DEPTH_MAX}"),
        ({"enum": list(range(SCHEMA_VALUES_MAX))}, f"more than {SCHEMA_VALUES_MAX} values"),
        ({"title": "x" * SCHEMA_BYTES_MAX}, f"{SCHEMA_BYTES_MAX} at most"),
        ({"anyOf": [{}] * SCHEMA_NODES_MAX}, f"more than {SCHEMA_NODES_MAX} schemas"),
        (in_a_row(SCHEMA_NODES_MAX // 2), f"more than {SCHEMA_NODES_MAX} schemas"),
        (
            {"properties": {f"p{n}": {} for n in range(SCHEMA_PROPERTIES_MAX + 1)}},
            f"it may have {SCHEMA_PROPERTIES_MAX}",
        ),
        (
            {"anyOf": [{"pattern": "a" * (SCHEMA_PATTERN_CHARS_MAX // 2 + 1)}] * 2},
            f"{SCHEMA_PATTERN_CHARS_MAX} letters",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "schema",
)
def test_each_limit_is_named_and_reached_in_time(schema: Any, words: str) -> None:
    began = time.process_time()

    message = refusal(schema)

    assert words in message
    assert time.process_time() - began < HOSTILE_S


def test_schemas_up_to_the_limits_are_taken() -> None:
    assert checked_schema(nested(SCHEMA_DEPTH_MAX - 1))
    assert checked_schema(in_a_row(SCHEMA_NODES_MAX // 2 - 1))
    assert checked_schema({"enum": list(range(SCHEMA_VALUES_MAX - 2))})


def test_a_message_repeats_only_a_little_of_what_a_client_sent() -> None:
    assert len(refusal({"$ref": "#/" + "x" * 5000})) < 300
    assert len(refusal({"properties": {"y" * 5000: {"not": {}}}})) < 300
    assert len(json.dumps(refusal({"type": "z" * 5000}))) < 300
