"""Constants as a template writes them: Go's numbers, characters and strings, to values.

Values only: a bad constant is a ValueError with Go's wording, and the parser adds the line.
"""

from __future__ import annotations

import math
import re
from typing import Final

_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1
_NUMBER_CHARS_MAX: Final = 100
"""Characters of one number: any more cannot be told from a 64-bit one, and cost time to convert."""

# An underscore may stand after a base prefix and between digits, nowhere else.
_DECIMAL: Final = re.compile(r"\d(?:_?\d)*")
_OCTAL: Final = re.compile(r"0(?:_?[0-7])+")
_PREFIXED: Final = re.compile(r"0(?:[xX](?:_?[\da-fA-F])+|[bB](?:_?[01])+|[oO](?:_?[0-7])+)")
_FLOAT: Final = re.compile(
    r"(?:\d(?:_?\d)*\.?(?:\d(?:_?\d)*)?|\.\d(?:_?\d)*)(?:[eE][+-]?\d(?:_?\d)*)?"
)
_HEX_FLOAT: Final = re.compile(
    r"0[xX]_?(?:[\da-fA-F](?:_?[\da-fA-F])*\.?(?:[\da-fA-F](?:_?[\da-fA-F])*)?"
    r"|\.[\da-fA-F](?:_?[\da-fA-F])*)[pP][+-]?\d(?:_?\d)*"
)

_ESCAPE: Final = re.compile(
    r"\\(?:(?P<simple>[abfnrtv\\'\"])|(?P<octal>[0-7]{3})|x(?P<byte>[0-9a-fA-F]{2})"
    r"|u(?P<short>[0-9a-fA-F]{4})|U(?P<long>[0-9a-fA-F]{8}))"
)
_SIMPLE: Final = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
}


def number(text: str) -> int | float:
    """Return the number that *text* stands for. Raises ValueError."""
    complaint = f"bad number syntax: {text[:40]!r}"
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if len(digits) > _NUMBER_CHARS_MAX:
        raise ValueError(complaint)
    if _PREFIXED.fullmatch(digits):
        return _checked(sign * int(digits.replace("_", ""), 0))
    if _OCTAL.fullmatch(digits):
        return _checked(sign * int(digits.replace("_", ""), 8))
    if _DECIMAL.fullmatch(digits):
        if len(digits) > 1 and digits.startswith("0"):
            raise ValueError(complaint)  # 08: an octal number with a digit that is none.
        return _checked(sign * int(digits.replace("_", "")))
    plain = digits.replace("_", "")
    if _HEX_FLOAT.fullmatch(digits):
        try:
            return sign * float.fromhex(plain)
        except OverflowError:
            raise ValueError(complaint) from None
    if _FLOAT.fullmatch(digits) and math.isfinite(value := float(plain)):
        return sign * value
    raise ValueError(complaint)


def _checked(value: int) -> int:
    if not _INT64_MIN <= value <= _INT64_MAX:
        raise ValueError("integer overflow")
    return value


def character(quoted_text: str) -> int:
    """Return the code of a character constant such as `'a'`. Raises ValueError."""
    body = quoted_text[1:-1]
    if body.startswith("\\"):
        found = _ESCAPE.fullmatch(body)
        if found is None or found["simple"] == '"':
            raise ValueError(f"malformed character constant: {quoted_text[:40]}")
        code = _escaped(found)
        return code[0] if isinstance(code, bytes) else ord(code)
    if len(body) != 1:
        raise ValueError(f"malformed character constant: {quoted_text[:40]}")
    return ord(body)


def string(quoted_text: str) -> str:
    """Return the text of a string in double quotes. Raises ValueError.

    Escapes may spell single bytes; what is not UTF-8 in the end becomes U+FFFD.
    """
    body = quoted_text[1:-1]
    if "\\" not in body:
        return body
    pieces, position = bytearray(), 0
    while (at := body.find("\\", position)) >= 0:
        found = _ESCAPE.match(body, at)
        if found is None or found["simple"] == "'":
            raise ValueError(f"invalid escape in string: {body[at : at + 10]!r}")
        pieces += body[position:at].encode("utf-8", "replace")
        value = _escaped(found)
        pieces += value if isinstance(value, bytes) else value.encode("utf-8")
        position = found.end()
    pieces += body[position:].encode("utf-8", "replace")
    return pieces.decode("utf-8", "replace")


def _escaped(found: re.Match[str]) -> str | bytes:
    """Return a character, or a byte for the escapes that spell one. Raises ValueError."""
    if found["simple"]:
        return _SIMPLE[found["simple"]]
    if found["octal"] or found["byte"]:
        value = int(found["octal"], 8) if found["octal"] else int(found["byte"], 16)
        if value > 0xFF:
            raise ValueError(f"invalid escape in string: {found.group()!r}")
        return bytes([value])
    code = int(found["short"] or found["long"], 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise ValueError(f"invalid escape in string: {found.group()!r}")
    return chr(code)
