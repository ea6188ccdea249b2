"""Go's `fmt` as templates use it: `print`, `println` and `printf`.

Mistakes in a format do not fail; like Go, they show in the text (`%!d(string=x)`, `%!s(MISSING)`).
Not here: `%p` and `%w`, which need pointers and errors; complex numbers; floats in base 2 and 16;
and `%#v`, Go's own syntax for values, which quotes strings and is `%v` for the rest.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ollamad.http.prompt.gotemplate.text import (
    NIL_TEXT,
    TEXT_CHARS_MAX,
    float_text,
    plain_text,
    stringer_text,
)
from ollamad.http.prompt.gotemplate.values import (
    VALUE_DEPTH_MAX,
    ValueFault,
    is_list,
    type_name,
)

WIDTH_MAX: Final = 100_000
"""The widest padding and the most digits of one verb; more is Go's `%!(BADWIDTH)`."""

_DIRECTIVE: Final = re.compile(
    r"%(?P<flags>[-+# 0]*+)"
    r"(?:(?:\[(?P<width_index>\d{1,9})\])?(?P<width>\*|\d++)?)"
    r"(?:\.(?:\[(?P<precision_index>\d{1,9})\])?(?P<precision>\*|\d*+))?"
    r"(?:\[(?P<index>\d{1,9})\])?"
    r"(?P<verb>.)?",
    re.DOTALL,
)
_QUOTE_ESCAPES: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
}


def sprint(values: Sequence[object]) -> str:
    """Return Go's `Sprint`: a blank between two values of which neither is a string."""
    pieces = _Pieces()
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            pieces.add(" ")
        pieces.add(plain_text(value))
    return pieces.text


def sprintln(values: Sequence[object]) -> str:
    """Return Go's `Sprintln`: blanks between all values, and a line end."""
    pieces = _Pieces()
    for index, value in enumerate(values):
        pieces.add(" " if index else "")
        pieces.add(plain_text(value))
    pieces.add("\n")
    return pieces.text


def sprintf(form: str, values: Sequence[object]) -> str:
    """Return Go's `Sprintf`. Raises ValueFault when the text grows too large."""
    return _Formatting(form, values).run()


class _Pieces:
    """A text that grows up to its limit."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._left = TEXT_CHARS_MAX

    def add(self, piece: str) -> None:
        self._left -= len(piece)
        if self._left < 0:
            raise ValueFault(f"a text has more than {TEXT_CHARS_MAX} characters")
        self._pieces.append(piece)

    @property
    def text(self) -> str:
        return "".join(self._pieces)


@dataclasses.dataclass(frozen=True, slots=True)
class _Verb:
    char: str
    flags: str
    width: int
    precision: int | None

    def padded(self, text: str, *, numeric: bool = False) -> str:
        """Return *text* at its width; zeros go behind the sign."""
        missing = self.width - len(text)
        if missing <= 0:
            return text
        if "-" in self.flags:
            return text + " " * missing
        if "0" not in self.flags:
            return " " * missing + text
        signed = numeric and text[:1] in {"+", "-", " "}
        sign, digits = (text[0], text[1:]) if signed else ("", text)
        return sign + "0" * missing + digits

    def signed(self, text: str) -> str:
        """Return a number's *text* with the sign that the flags ask for."""
        if text[:1] in {"-", "+"}:
            return text
        return ("+" if "+" in self.flags else " " if " " in self.flags else "") + text


class _Formatting:
    def __init__(self, form: str, values: Sequence[object]) -> None:
        self._form = form
        self._values = values
        self._next = 0
        self._reordered = False
        self._index_is_good = True
        self._pieces = _Pieces()

    def run(self) -> str:
        position = 0
        for found in _DIRECTIVE.finditer(self._form):
            self._pieces.add(self._form[position : found.start()])
            self._directive(found)
            position = found.end()
        self._pieces.add(self._form[position:])
        if not self._reordered and self._next < len(self._values):
            self._extra()
        return self._pieces.text

    def _extra(self) -> None:
        shown = [
            NIL_TEXT if value is None else f"{type_name(value)}={plain_text(value)}"
            for value in self._values[self._next :]
        ]
        self._pieces.add(f"%!(EXTRA {', '.join(shown)})")

    def _directive(self, found: re.Match[str]) -> None:
        verb = found["verb"]
        if verb is None:
            self._pieces.add("%!(NOVERB)")
            return
        # `%+v` asks for the names of a struct's fields, which all print as JSON; not for signs.
        flags = found["flags"].replace("+", "") if verb == "v" else found["flags"]
        self._index_is_good = True
        self._go_to(found["width_index"])
        width = self._number(found["width"], "BADWIDTH")
        if width is not None and width < 0:
            flags, width = flags + "-", -width
        precision = None
        if found["precision"] is not None:
            self._go_to(found["precision_index"])
            precision = self._number(found["precision"] or "0", "BADPREC")
            precision = precision if precision is None or precision >= 0 else None
        self._go_to(found["index"])
        if verb == "%":
            self._pieces.add("%")
        elif not self._index_is_good:
            self._pieces.add(f"%!{verb}(BADINDEX)")
        elif self._next >= len(self._values):
            self._pieces.add(f"%!{verb}(MISSING)")
        else:
            value = self._values[self._next]
            self._next += 1
            self._pieces.add(_formatted(_Verb(verb, flags, width or 0, precision), value, 0))

    def _go_to(self, index: str | None) -> None:
        """Take the next value from here, counted from 1; a bad index leaves the place as it was."""
        if index is None:
            return
        self._reordered = True
        if 1 <= int(index) <= len(self._values):
            self._next = int(index) - 1
        else:
            self._index_is_good = False

    def _number(self, text: str | None, complaint: str) -> int | None:
        """Return a width or precision; `*` takes it from the values."""
        if text is None:
            return None
        value: object = None
        if text != "*":
            value = int(text) if len(text) < 10 else None
        elif self._next < len(self._values):
            value = self._values[self._next]
            self._next += 1
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= WIDTH_MAX:
            return value
        self._pieces.add(f"%!({complaint})")
        return None


def _formatted(verb: _Verb, value: object, depth: int) -> str:
    if depth > VALUE_DEPTH_MAX:
        raise ValueFault(f"a value is nested deeper than {VALUE_DEPTH_MAX}")
    if verb.char == "T":
        return verb.padded(type_name(value))
    if verb.char in "vsxXq" and (own := stringer_text(value)) is not None:
        return _of_string(verb, own, depth)
    match value:
        case None if depth:
            return NIL_TEXT
        case None:
            return verb.padded(NIL_TEXT) if verb.char == "v" else _bad(verb, value, depth)
        case bool():
            known = verb.char in {"v", "t"}
            return verb.padded(plain_text(value)) if known else _bad(verb, value, depth)
        case int():
            return _of_int(verb, value, depth)
        case float():
            return _of_float(verb, value, depth)
        case str():
            return _of_string(verb, value, depth)
        case Mapping():
            keys = sorted(value)
            named = [(f"{_formatted(verb, key, depth + 1)}:", value[key]) for key in keys]
            return _of_many(verb, named, "map[", depth)
        case _ if is_list(value):
            return _of_many(verb, [("", element) for element in value], "[", depth)
        case _:
            return _bad(verb, value, depth)


def _bad(verb: _Verb, value: object, depth: int) -> str:
    """Return how Go shows that this verb does not suit *value*; width and flags go on to it."""
    if value is None:
        return f"%!{verb.char}({NIL_TEXT})"
    shown = _formatted(dataclasses.replace(verb, char="v"), value, depth)
    return f"%!{verb.char}({type_name(value)}={shown})"


def _of_many(verb: _Verb, elements: list[tuple[str, object]], opening: str, depth: int) -> str:
    pieces = _Pieces()
    pieces.add(opening)
    for index, (prefix, element) in enumerate(elements):
        pieces.add(f"{' ' if index else ''}{prefix}")
        pieces.add(_formatted(verb, element, depth + 1))
    pieces.add("]")
    return pieces.text


def _of_string(verb: _Verb, value: str, depth: int) -> str:
    kept = value if verb.precision is None else value[: verb.precision]
    match verb.char:
        case "v" if "#" in verb.flags:
            return verb.padded(quote(kept))
        case "v" | "s":
            return verb.padded(kept)
        case "q":
            backquoted = "#" in verb.flags and _can_backquote(kept)
            return verb.padded(f"`{kept}`" if backquoted else quote(kept))
        case "x" | "X":
            data = value.encode("utf-8", "replace")
            data = data if verb.precision is None else data[: verb.precision]
            digits = data.hex(" ") if " " in verb.flags else data.hex()
            prefix = "0x" if "#" in verb.flags and digits else ""
            shown = prefix + digits
            return verb.padded(shown.upper() if verb.char == "X" else shown)
        case _:
            return _bad(verb, value, depth)


_INT_BASES: Final[Mapping[str, Callable[[int], str]]] = {
    "b": lambda value: f"{value:b}",
    "o": lambda value: f"{value:o}",
    "d": lambda value: f"{value:d}",
    "v": lambda value: f"{value:d}",
    "x": lambda value: f"{value:x}",
    "X": lambda value: f"{value:X}",
    "O": lambda value: f"{value:o}",
}
_INT_PREFIXES: Final = {"b": "0b", "o": "0", "x": "0x", "X": "0X"}


def _of_int(verb: _Verb, value: int, depth: int) -> str:
    match verb.char:
        case "b" | "o" | "d" | "v" | "x" | "X" | "O":
            digits = _INT_BASES[verb.char](abs(value))
            if verb.precision is not None:
                digits = "" if not verb.precision and not value else digits.zfill(verb.precision)
            prefix = _INT_PREFIXES.get(verb.char, "") if "#" in verb.flags else ""
            prefix = "0o" if verb.char == "O" else prefix
            text = verb.signed(f"{'-' if value < 0 else ''}{prefix}{digits}")
            return verb.padded(text, numeric=True) if verb.precision is None else _blank(verb, text)
        case "c":
            return verb.padded(_char(value))
        case "q":
            return verb.padded(_quoted_char(_char(value)))
        case "U":
            shown = f"U+{value:04X}" if value >= 0 else f"U+{value & 0xFFFFFFFFFFFFFFFF:04X}"
            shown += f" '{_char(value)}'" if "#" in verb.flags else ""
            return verb.padded(shown)
        case _:
            return _bad(verb, value, depth)


def _blank(verb: _Verb, text: str) -> str:
    """Pad with blanks: a precision switches zeros off, as in C."""
    return dataclasses.replace(verb, flags=verb.flags.replace("0", "")).padded(text)


def _of_float(verb: _Verb, value: float, depth: int) -> str:
    precision = verb.precision
    match verb.char:
        case "v" | "g" | "G":
            text = float_text(value, precision=precision)
        case "e" | "E":
            text = f"{value:.{6 if precision is None else precision}e}"
        case "f" | "F":
            text = f"{value:.{6 if precision is None else precision}f}"
        case _:
            return _bad(verb, value, depth)
    text = text.upper() if verb.char in "GE" else text
    special = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf", "+inf": "+Inf"}.get(text.lower())
    if special is not None:
        return _blank(verb, special)
    return verb.padded(verb.signed(text), numeric=True)


def _char(value: int) -> str:
    legal = 0 <= value <= 0x10FFFF and not 0xD800 <= value <= 0xDFFF
    return chr(value) if legal else "\ufffd"


def _quoted_char(char: str) -> str:
    if char == '"':
        return "'\"'"
    return "'\\''" if char == "'" else f"'{quote(char)[1:-1]}'"


def _can_backquote(text: str) -> bool:
    return all(char == "\t" or (char >= " " and char not in "`\x7f\ufeff") for char in text)


def quote(text: str) -> str:
    """Return *text* as Go's `%q` quotes it."""
    if text.isascii() and text.isprintable():
        return json.dumps(text)
    return f'"{"".join(_quoted(char) for char in text)}"'


def _quoted(char: str) -> str:
    if char == '"':
        return '\\"'
    if (known := _QUOTE_ESCAPES.get(char)) is not None:
        return known
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
