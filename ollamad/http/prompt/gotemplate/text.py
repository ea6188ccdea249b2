"""Values to text: Go's `%v`, and JSON as Go's encoder writes it (compact, keys of maps sorted).

Both go through a value to a bounded depth and write a bounded text, because values are a client's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from ollamad.http.prompt.gotemplate.values import (
    VALUE_DEPTH_MAX,
    JsonList,
    JsonMap,
    Record,
    TypeNames,
    ValueFault,
    type_name,
)

TEXT_CHARS_MAX: Final = 16 << 20
"""Characters that one value may print as, and that one rendering may produce."""

_PLAIN_EXPONENT_MAX: Final = 5
"""Above it, `%v` writes an exponent: a million is `1e+06`."""
NIL_TEXT: Final = "<nil>"
"""How nil prints inside other values, and as an argument of `print`."""
NO_VALUE: Final = "<no value>"
"""How nil prints by itself."""
_HTML_SAFE: Final = str.maketrans(
    {
        "<": "\\u003c",
        ">": "\\u003e",
        "&": "\\u0026",
        "\u2028": "\\u2028",
        "\u2029": "\\u2029",
    }
)


def json_text(value: object) -> str:
    """Return *value* as Go's `json.Marshal` writes it. Raises ValueFault."""
    pieces: list[str] = []
    _write_json(value, pieces, _Room(), 0)
    return "".join(pieces)


def plain_text(value: object) -> str:
    """Return *value* as Go's `%v` prints it; `None` is `<nil>`. Raises ValueFault."""
    if isinstance(value, str):
        return value
    pieces: list[str] = []
    _write_plain(value, pieces, _Room(), 0)
    return "".join(pieces)


def stringer_text(value: object) -> str | None:
    """Return the text of a value that has its own way to print, or None for any other."""
    match value:
        case TypeNames():
            return value[0] if len(value) == 1 else f"[{' '.join(value)}]" if value else ""
        case Record() | JsonMap() | JsonList():
            return json_text(value)
        case _:
            return None


def float_text(value: float, *, precision: int | None = None) -> str:
    """Return *value* as Go's `%g` writes it; without a precision, with the fewest digits."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    if precision is not None:
        return f"{value:.{max(precision, 1)}g}"
    return _shortest(value, lowest=-4, highest=_PLAIN_EXPONENT_MAX)


def _shortest(value: float, *, lowest: int, highest: int) -> str:
    """Return the fewest digits that are *value*, with an exponent outside these bounds."""
    number = Decimal(repr(value))
    exponent = number.adjusted()
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    if lowest <= exponent <= highest:
        text = f"{number:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    sign, digits, _ = number.as_tuple()
    figures = "".join(map(str, digits)).rstrip("0")
    mantissa = f"{'-' if sign else ''}{figures[0]}{'.' if figures[1:] else ''}{figures[1:]}"
    return f"{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


class _Room:
    """What may still be written."""

    def __init__(self) -> None:
        self._left = TEXT_CHARS_MAX

    def take(self, piece: str) -> str:
        self._left -= len(piece)
        if self._left < 0:
            raise ValueFault(f"a value prints as more than {TEXT_CHARS_MAX} characters")
        return piece


def _check_depth(depth: int) -> None:
    if depth > VALUE_DEPTH_MAX:
        raise ValueFault(f"a value is nested deeper than {VALUE_DEPTH_MAX}")


def _write_plain(value: object, pieces: list[str], room: _Room, depth: int) -> None:
    _check_depth(depth)
    own = stringer_text(value)
    if own is not None:
        pieces.append(room.take(own))
        return
    match value:
        case None:
            pieces.append(room.take(NIL_TEXT))
        case bool():
            pieces.append(room.take("true" if value else "false"))
        case int():
            pieces.append(room.take(_int_text(value)))
        case float():
            pieces.append(room.take(float_text(value)))
        case str():
            pieces.append(room.take(value))
        case Mapping():
            pieces.append(room.take("map["))
            for index, key in enumerate(sorted(value)):
                pieces.append(room.take(f"{' ' if index else ''}{key}:"))
                _write_plain(value[key], pieces, room, depth + 1)
            pieces.append(room.take("]"))
        case list() | tuple():
            pieces.append(room.take("["))
            for index, element in enumerate(value):
                pieces.append(room.take(" " if index else ""))
                _write_plain(element, pieces, room, depth + 1)
            pieces.append(room.take("]"))
        case _:
            raise ValueFault(f"can't print a value of type {type_name(value)}")


def _write_json(value: object, pieces: list[str], room: _Room, depth: int) -> None:
    _check_depth(depth)
    match value:
        case None:
            pieces.append(room.take("null"))
        case bool():
            pieces.append(room.take("true" if value else "false"))
        case int():
            pieces.append(room.take(_int_text(value)))
        case float():
            pieces.append(room.take(_json_float(value)))
        case str():
            pieces.append(room.take(_json_string(value)))
        case TypeNames() if len(value) == 1:
            pieces.append(room.take(_json_string(value[0])))
        case Record():
            _write_object(value.json.items(), pieces, room, depth)
        case Mapping():
            keys = sorted(value)
            _write_object(((key, value[key]) for key in keys), pieces, room, depth)
        case list() | tuple():
            pieces.append(room.take("["))
            for index, element in enumerate(value):
                pieces.append(room.take("," if index else ""))
                _write_json(element, pieces, room, depth + 1)
            pieces.append(room.take("]"))
        case _:
            raise ValueFault(f"json: unsupported type: {type_name(value)}")


def _write_object(
    items: Iterable[tuple[str, object]], pieces: list[str], room: _Room, depth: int
) -> None:
    pieces.append(room.take("{"))
    for index, (key, value) in enumerate(items):
        pieces.append(room.take(f"{',' if index else ''}{_json_string(key)}:"))
        _write_json(value, pieces, room, depth + 1)
    pieces.append(room.take("}"))


def _json_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_HTML_SAFE)


def _json_float(value: float) -> str:
    if not math.isfinite(value):
        raise ValueFault("json: unsupported value: a number that is not finite")
    text = _shortest(value, lowest=-6, highest=20)
    return text.replace("e-0", "e-")


def _int_text(value: int) -> str:
    if value.bit_length() > 1024:
        raise ValueFault("an integer is too large to print")
    return str(value)
