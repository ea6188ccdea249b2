"""A request's body to a typed value, as leniently as Ollama, with messages people can act on."""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeVar

import msgspec

from ollamad.errors import InvalidBody

T = TypeVar("T")

_TYPE_WORDS: Final = {
    "int": "integer",
    "str": "string",
    "bool": "boolean",
    "float": "number",
    "array": "array",
    "object": "object",
    "null": "null",
}
_MISTYPED: Final = re.compile(r"Expected `(.+?)`, got `(.+?)`(?: - at `\$?(.*)`)?")
_MISSING: Final = re.compile(r"Object missing required field `(.+?)`")


def decode_body(data: bytes, kind: type[T]) -> T:
    """Return *data* as a *kind*. Raises InvalidBody.

    As in Ollama: the content type does not matter, unknown fields are ignored, `null` is the same
    as leaving a field out, names of fields match whatever their case, and what follows the first
    JSON value is not read.
    """
    if not data:
        raise InvalidBody("missing request body")
    value = _decode_json(data)
    if not isinstance(value, dict):
        raise InvalidBody(f"the body must be a JSON object, not {_word(value)}")
    try:
        return msgspec.convert(_named(value, kind), kind)
    except msgspec.ValidationError as exc:
        raise InvalidBody(_explained(str(exc))) from exc


def _decode_json(data: bytes) -> Any:  # a JSON value of any shape
    try:
        return msgspec.json.decode(data)
    except RecursionError:
        raise InvalidBody("the JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        reason = str(exc)
    if "trailing characters" in reason:
        try:
            return json.JSONDecoder().raw_decode(data.decode().lstrip())[0]
        except (ValueError, RecursionError):
            pass  # The first explanation is the better one.
    raise InvalidBody(reason.replace("JSON is malformed: ", "the JSON is malformed: "))


def _named(value: dict[str, Any], kind: type[T]) -> dict[str, Any]:
    """Return *value* without nulls, its keys in *kind*'s spelling where only the case differs."""
    fields = {field.encode_name for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]
    named: dict[str, Any] = {}
    for key, item in value.items():
        if item is None:
            continue
        if key in fields:
            named[key] = item
        elif (lower := key.lower()) in fields and lower not in value:
            named[lower] = item
    return named


def _explained(message: str) -> str:
    """Return msgspec's words in HTTP clients' terms: `messages[0].role: expected string, ...`."""
    if found := _MISTYPED.match(message):
        expected, got, path = found.groups()
        where = (path or "").lstrip(".") or "the body"
        wanted = " or ".join(
            _TYPE_WORDS.get(word.strip(), word.strip())
            for word in expected.split("|")
            if word.strip() != "null"
        )
        return f"{where}: expected {wanted}, got {_TYPE_WORDS.get(got, got)}"
    if found := _MISSING.match(message):
        return f"the field {found.group(1)} is missing"
    return message


def _word(value: object) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )
