"""Values and calls as Python writes them: `[get_weather(city="Paris", days=3)]`. Pure, bounded.

Python's own parser would do more than is wanted here, and has limits that end a process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

DEPTH_MAX: Final = 32
"""Brackets within brackets in one call."""

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<number>[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)(?![\w.])
    |(?P<name>[^\W\d][\w.\-]*)
    |(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<sign>[\[\](){},:=]))""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U(000[0-9a-fA-F]{5}|0010[0-9a-fA-F]{4})|(.))",
    re.DOTALL,
)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": ""}
_CONSTANTS: Final[Mapping[str, Any]] = {
    "True": True, "true": True, "False": False, "false": False, "None": None, "null": None,
}  # fmt: skip
_DIGITS_MAX: Final = 300


class NotPython(ValueError):
    """The text is no such call."""


def calls_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls in *text*: names and keyword arguments. Raises NotPython."""
    reader = _Reader(text)
    is_list = reader.skip("[")
    calls = [reader.call()]
    # Without brackets around them calls stand on lines of their own, without commas.
    while reader.skip(",") or (not is_list and reader.has_more):
        if is_list and reader.sees("]"):
            break
        calls.append(reader.call())
    if is_list:
        reader.expect("]")
    reader.expect_end()
    return calls


def value_of(text: str) -> Any:  # any JSON value
    """Return the value that *text* is. Raises NotPython."""
    reader = _Reader(text)
    value = reader.value()
    reader.expect_end()
    return value


class _Reader:
    """Reads tokens from the left; all its methods raise NotPython."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._kind = ""
        self._word = ""
        self._next()

    def _next(self) -> None:
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            if self._text[self._at :].strip():
                raise NotPython
            self._kind = self._word = ""
            return
        self._at = found.end()
        self._kind = found.lastgroup or ""
        self._word = found[self._kind]

    def sees(self, sign: str) -> bool:
        return self._kind == "sign" and self._word == sign

    def skip(self, sign: str) -> bool:
        if not self.sees(sign):
            return False
        self._next()
        return True

    def expect(self, sign: str) -> None:
        if not self.skip(sign):
            raise NotPython

    @property
    def has_more(self) -> bool:
        return bool(self._kind)

    def expect_end(self) -> None:
        if self.has_more:
            raise NotPython

    def _name(self) -> str:
        if self._kind != "name":
            raise NotPython
        name = self._word
        self._next()
        return name

    def call(self) -> tuple[str, dict[str, Any]]:
        name = self._name()
        self.expect("(")
        arguments: dict[str, Any] = {}
        while not self.skip(")"):
            key = self._name()
            self.expect("=")
            arguments[key] = self.value()
            if not self.skip(","):
                self.expect(")")
                break
        return name, arguments

    def value(self) -> Any:  # any JSON value
        kind, word = self._kind, self._word
        self._next()
        match kind:
            case "number":
                return _number(word)
            case "text":
                return _unescaped(word[1:-1])
            case "name" if word in _CONSTANTS:
                return _CONSTANTS[word]
            case "sign" if word in "[({":
                self._depth += 1
                if self._depth > DEPTH_MAX:
                    raise NotPython
                value = self._mapping() if word == "{" else self._items("]" if word == "[" else ")")
                self._depth -= 1
                return value
            case _:
                raise NotPython

    def _items(self, closing: str) -> list[Any]:
        items: list[Any] = []
        while not self.skip(closing):
            items.append(self.value())
            if not self.skip(","):
                self.expect(closing)
                break
        return items

    def _mapping(self) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not self.skip("}"):
            key = self.value()
            if not isinstance(key, str):
                raise NotPython
            self.expect(":")
            items[key] = self.value()
            if not self.skip(","):
                self.expect("}")
                break
        return items


def _number(token: str) -> int | float:
    if len(token) > _DIGITS_MAX:
        raise NotPython
    return int(token) if token.lstrip("+-").isdecimal() else float(token)


def _unescaped(text: str) -> str:
    def plain(found: re.Match[str]) -> str:
        code = found[1] or found[2] or found[3]
        if code:
            return chr(int(code, 16))
        return _ESCAPED.get(found[4], found[4] if found[4] in "\\'\"" else found[0])

    return _ESCAPE.sub(plain, text)
