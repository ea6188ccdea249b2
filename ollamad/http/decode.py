"""A request's body to a typed value, as leniently as Ollama, with messages people can act on."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
import msgspec.inspect

from ollamad.config import HttpConfig
from ollamad.errors import InvalidBody
from ollamad.http.limits import DEFAULT, check_counts, check_depth, too_deep

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
_OUT_OF_RANGE: Final = re.compile(r"Expected `(.+?)` ([<>]=? .+?)(?: - at `\$?(.*)`)?")
_MISSING: Final = re.compile(r"Object missing required field `(.+?)`(?: - at `\$?(.*)`)?")
_TRAILING: Final = re.compile(r"JSON is malformed: trailing characters \(byte (\d+)\)")
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""An escape in JSON. The group is half of a character outside the 16-bit range, left alone."""


def decode_body(data: bytes, kind: type[T], limits: HttpConfig = DEFAULT) -> T:
    """Return *data* as a *kind*, a Struct, that keeps to *limits*. Raises InvalidBody.

    As in Ollama: the content type does not matter, unknown fields are ignored, `null` is the same
    as leaving a field out, names of fields match whatever their case, and what follows the first
    JSON value is not read.
    """
    if not data:
        raise InvalidBody("missing request body")
    value = _decode_json(data, limits.json_depth_max)
    if not isinstance(value, dict):
        raise InvalidBody(f"the body must be a JSON object, not {_word(value)}")
    try:
        shape = _shape_of(kind)  # type: ignore[arg-type] # mypy takes no type for hashable
        body = msgspec.convert(_shaped(value, shape), kind)
    except msgspec.ValidationError as exc:
        raise _explained(str(exc)) from exc
    check_counts(body, limits)  # type: ignore[arg-type] # the bound of T would be a Struct
    return body


def _decode_json(data: bytes, depth_max: int) -> Any:  # a JSON value of any shape
    """Return the first JSON value of *data*, nested no deeper than *depth_max*.

    Programs that cut a text in the middle of an emoji send half of it as an escape. Like Ollama we
    read a replacement character there; msgspec alone reads nothing.
    """
    try:
        return _decode_first(data, depth_max)
    except msgspec.DecodeError as exc:
        whole = _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], data)
        if whole == data:
            raise InvalidBody(_malformed(str(exc))) from exc
    try:
        return _decode_first(whole, depth_max)
    except msgspec.DecodeError as exc:
        raise InvalidBody(_malformed(str(exc))) from exc


def _decode_first(data: bytes, depth_max: int) -> Any:  # a JSON value of any shape
    try:
        try:
            value = msgspec.json.decode(data)
        except msgspec.DecodeError as exc:
            found = _TRAILING.match(str(exc))
            if found is None:
                raise
            value = msgspec.json.decode(data[: int(found[1]) - 1])
    except RecursionError:
        raise too_deep(depth_max) from None
    except UnicodeDecodeError as exc:
        raise InvalidBody("the JSON is not UTF-8 text") from exc
    check_depth(value, data, depth_max)
    return value


def _malformed(reason: str) -> str:
    if "truncated" in reason:
        return "the JSON ends too early"
    if "out of range" in reason:
        return "the JSON has a number that is out of range"
    return reason.replace("JSON is malformed: ", "the JSON is malformed: ")


_Shape = Mapping[str, Any]
"""Fields of a Struct by their names in lower case: the name, and the shape of Structs inside."""


@functools.cache
def _shape_of(kind: type) -> _Shape:
    return {
        field.encode_name.lower(): (field.encode_name, _inner_shape(field.type))
        for field in msgspec.structs.fields(kind)
    }


def _inner_shape(annotation: Any) -> _Shape | None:
    """Return the shape of the Struct that an annotation holds: itself, in a list, or optional."""
    match msgspec.inspect.type_info(annotation):
        case msgspec.inspect.StructType(cls=kind):
            return _shape_of(kind)
        case msgspec.inspect.ListType(item_type=msgspec.inspect.StructType(cls=kind)):
            return _shape_of(kind)
        case msgspec.inspect.UnionType(types=choices):
            for choice in choices:
                match choice:
                    case (
                        msgspec.inspect.StructType(cls=kind)
                        | msgspec.inspect.ListType(item_type=msgspec.inspect.StructType(cls=kind))
                    ):
                        return _shape_of(kind)
    return None


def _shaped(value: Any, shape: _Shape) -> Any:
    """Return *value* without nulls, its keys in the Struct's spelling where only the case differs.

    The exact spelling wins over another one that is also there.
    """
    if isinstance(value, list):
        return [_shaped(item, shape) for item in value]
    if not isinstance(value, dict):
        return value
    named: dict[str, Any] = {}
    for key, item in value.items():
        name, inner = shape.get(key.lower(), (None, None))
        if item is None or name is None or (key != name and value.get(name) is not None):
            continue
        named[name] = item if inner is None else _shaped(item, inner)
    return named


def _explained(message: str) -> InvalidBody:
    """Return msgspec's words in HTTP clients' terms: `messages[0].role: expected string, ...`."""
    if found := _MISTYPED.fullmatch(message):
        expected, got, path = found.groups()
        told = f"{_where(path)}: expected {_types(expected)}, got {_TYPE_WORDS.get(got, got)}"
        return InvalidBody(told, param=_param(path))
    if found := _OUT_OF_RANGE.fullmatch(message):
        expected, bound, path = found.groups()
        told = f"{_where(path)}: expected {_types(expected)} {bound}"
        return InvalidBody(told, param=_param(path))
    if found := _MISSING.fullmatch(message):
        field, path = found.groups()
        told = f"{_where(path)}: the field {field} is missing"
        return InvalidBody(told, param=".".join(filter(None, (_param(path), field))))
    return InvalidBody(message)


def _where(path: str | None) -> str:
    return _param(path) or "the body"


def _param(path: str | None) -> str | None:
    return (path or "").lstrip(".") or None


def _types(expected: str) -> str:
    words = [word.strip() for word in expected.split("|")]
    return " or ".join(_TYPE_WORDS.get(word, word) for word in words if word != "null")


def _word(value: object) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )
