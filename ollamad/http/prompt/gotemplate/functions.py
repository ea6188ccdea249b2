"""The functions a template may call: Go's, and Ollama's `json`, dates and `toTypeScriptType`.

`and` and `or` are listed here but live in `evaluate`, because they do not look at all arguments.
A function gets values and returns one; what it cannot do is a ValueFault.
"""

from __future__ import annotations

import html
import itertools
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from ollamad.http.prompt.gotemplate.printf import sprint, sprintf, sprintln
from ollamad.http.prompt.gotemplate.text import NO_VALUE, TEXT_CHARS_MAX, json_text
from ollamad.http.prompt.gotemplate.values import (
    JsonList,
    Record,
    TypeNames,
    ValueFault,
    equal,
    is_list,
    less,
    truth,
    type_name,
)
from ollamad.wallclock import WallClock

Arguments: TypeAlias = Sequence[object]
Call: TypeAlias = Callable[[Arguments, WallClock], object]

UNION_DEPTH_MAX: Final = 50
"""Depth of `anyOf` in a tool's property."""
_SLICE_INDEXES_MAX: Final = 3

_TYPESCRIPT: Final = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}
_JS_ESCAPES: Final = {
    "\\": "\\\\",
    "'": "\\'",
    '"': '\\"',
    "<": "\\u003C",
    ">": "\\u003E",
    "&": "\\u0026",
    "=": "\\u003D",
}


def _eq(args: Arguments, _clock: WallClock) -> bool:
    if len(args) < 2:
        raise ValueFault("missing argument for comparison")
    return any(equal(args[0], other) for other in args[1:])


def _le(args: Arguments, _clock: WallClock) -> bool:
    left, right = args
    return less(left, right) or left == right


def _not_le(args: Arguments, _clock: WallClock) -> bool:
    left, right = args
    # Not `less(right, left)`: Go takes `gt` for "not lt and not eq", which NaN can tell apart.
    return not (less(left, right) or left == right)


def _len(args: Arguments, _clock: WallClock) -> int:
    match args[0]:
        case str(text):
            return len(text.encode("utf-8", "replace"))
        case None:
            raise ValueFault("len of nil pointer")
        case list() | tuple() | Mapping():
            return len(args[0])
        case other:
            raise ValueFault(f"len of type {type_name(other)}")


def _index(args: Arguments, _clock: WallClock) -> object:
    item = args[0]
    if item is None:
        raise ValueFault("index of untyped nil")
    for key in args[1:]:
        item = _item(item, key)
    return item


def _item(item: object, key: object) -> object:
    if isinstance(item, Mapping):
        if not isinstance(key, str):
            raise ValueFault(f"value has type {type_name(key)}; should be string")
        return item.get(key)
    if isinstance(item, str):
        data = item.encode("utf-8", "replace")
        return data[_position(key, len(data) - 1)]
    if is_list(item):
        return item[_position(key, len(item) - 1)]
    if item is None:
        raise ValueFault("index of nil pointer")
    raise ValueFault(f"can't index item of type {type_name(item)}")


def _position(value: object, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueFault(f"cannot index slice/array with type {type_name(value)}")
    if not 0 <= value <= highest:
        raise ValueFault(f"index out of range: {value}")
    return value


def _slice(args: Arguments, _clock: WallClock) -> object:
    item, indexes = args[0], args[1:]
    if item is None:
        raise ValueFault("slice of untyped nil")
    if len(indexes) > _SLICE_INDEXES_MAX:
        raise ValueFault(f"too many slice indexes: {len(indexes)}")
    if isinstance(item, str):
        if len(indexes) == _SLICE_INDEXES_MAX:
            raise ValueFault("cannot 3-index slice a string")
        data = item.encode("utf-8", "replace")
        first, last = _bounds(indexes, len(data))
        return data[first:last].decode("utf-8", "replace")
    if not is_list(item):
        raise ValueFault(f"can't slice item of type {type_name(item)}")
    first, last = _bounds(indexes, len(item))
    kept = item[first:last]
    # Slices keep their type, so that a part of the tools still prints as JSON.
    match item:
        case JsonList():
            return JsonList(kept)
        case TypeNames():
            return TypeNames(str(name) for name in kept)
        case _:
            return kept


def _bounds(indexes: Arguments, length: int) -> tuple[int, int]:
    positions = [_position(index, length) for index in indexes]
    ends = positions if len(positions) > 1 else [*(positions or [0]), length]
    for before, after in itertools.pairwise(ends):
        if before > after:
            raise ValueFault(f"invalid slice index: {before} > {after}")
    return ends[0], ends[1]


def _call(args: Arguments, _clock: WallClock) -> object:
    what = "nil" if args[0] is None else f"non-function of type {type_name(args[0])}"
    raise ValueFault(f"call of {what}")


def _printf(args: Arguments, _clock: WallClock) -> str:
    if not isinstance(args[0], str):
        raise ValueFault(f"wrong type for value; expected string; got {type_name(args[0])}")
    return sprintf(args[0], args[1:])


def _text_of(args: Arguments) -> str:
    """Return the text that an escaping function works on: as printed, with nil as in a text."""
    return sprint([NO_VALUE if value is None else value for value in args])


def _html(args: Arguments, _clock: WallClock) -> str:
    escaped = html.escape(_text_of(args), quote=True)
    return escaped.replace("&quot;", "&#34;").replace("&#x27;", "&#39;").replace("\0", "\ufffd")


def _js(args: Arguments, _clock: WallClock) -> str:
    return "".join(map(_js_char, _text_of(args)))


def _js_char(char: str) -> str:
    if (known := _JS_ESCAPES.get(char)) is not None:
        return known
    return char if char.isprintable() else f"\\u{ord(char):04X}"


def _urlquery(args: Arguments, _clock: WallClock) -> str:
    return urllib.parse.quote_plus(_text_of(args), safe="", errors="replace")


def _today(clock: WallClock) -> datetime:
    return clock.now().astimezone()


def _current_date(_args: Arguments, clock: WallClock) -> str:
    return _today(clock).strftime("%Y-%m-%d")


def _yesterday_date(_args: Arguments, clock: WallClock) -> str:
    return (_today(clock) - timedelta(days=1)).strftime("%Y-%m-%d")


def _typescript(value: object, depth: int = 0) -> str:
    """Return the TypeScript type of a tool's property; of anything else, `any`."""
    if depth > UNION_DEPTH_MAX:
        raise ValueFault(f"anyOf is nested deeper than {UNION_DEPTH_MAX}")
    if not isinstance(value, Record):
        return "any"
    choices, names = value.fields.get("AnyOf"), value.fields.get("Type")
    if is_list(choices) and choices:
        return " | ".join(_typescript(choice, depth + 1) for choice in choices)
    if isinstance(names, TypeNames) and names:
        return " | ".join(_TYPESCRIPT.get(name, "any") for name in names)
    return "any"


def _unevaluated(_args: Arguments, _clock: WallClock) -> object:
    raise AssertionError("`and` and `or` are evaluated argument by argument")


_ANY: Final = -1
"""Any number of arguments, from the lowest on."""

_TABLE: Final[Mapping[str, tuple[int, int, Call]]] = {
    "and": (1, _ANY, _unevaluated),
    "or": (1, _ANY, _unevaluated),
    "not": (1, 1, lambda args, _clock: not truth(args[0])),
    "eq": (1, _ANY, _eq),
    "ne": (2, 2, lambda args, _clock: not equal(args[0], args[1])),
    "lt": (2, 2, lambda args, _clock: less(args[0], args[1])),
    "le": (2, 2, _le),
    "gt": (2, 2, _not_le),
    "ge": (2, 2, lambda args, _clock: not less(args[0], args[1])),
    "len": (1, 1, _len),
    "index": (1, _ANY, _index),
    "slice": (1, _ANY, _slice),
    "call": (1, _ANY, _call),
    "print": (0, _ANY, lambda args, _clock: sprint(args)),
    "println": (0, _ANY, lambda args, _clock: sprintln(args)),
    "printf": (1, _ANY, _printf),
    "html": (0, _ANY, _html),
    "js": (0, _ANY, _js),
    "urlquery": (0, _ANY, _urlquery),
    "json": (1, 1, lambda args, _clock: json_text(args[0])),
    "currentDate": (0, _ANY, _current_date),
    "yesterdayDate": (0, _ANY, _yesterday_date),
    "toTypeScriptType": (1, 1, lambda args, _clock: _typescript(args[0])),
}

NAMES: Final = frozenset(_TABLE)
"""The functions that exist."""


def check_count(name: str, count: int) -> None:
    """Raise ValueFault unless the function takes this many arguments."""
    lowest, highest, _ = _TABLE[name]
    if highest == _ANY:
        if count < lowest:
            raise ValueFault(f"wrong number of args for {name}: want at least {lowest} got {count}")
    elif count != lowest:
        raise ValueFault(f"wrong number of args for {name}: want {lowest} got {count}")


def call(name: str, args: Arguments, clock: WallClock) -> object:
    """Return what the function *name* makes of *args*. Raises ValueFault."""
    check_count(name, len(args))
    result = _TABLE[name][2](args, clock)
    if isinstance(result, str) and len(result) > TEXT_CHARS_MAX:
        raise ValueFault(f"{name} made a text of more than {TEXT_CHARS_MAX} characters")
    return result
