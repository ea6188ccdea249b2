"""`Budget`: what one rendering of a Jinja template may cost.

Steps, processor time and memory made are counted, and operations whose result can be much larger
than what goes in are judged before they run. Knows texts, lists and numbers; knows no Jinja, which
`jinja` teaches to ask here.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    ValuesView,
)
from typing import Any, Final, TypeVar

from ollamad.errors import TemplateBroken

T = TypeVar("T")

STEPS_MAX: Final = 200_000
"""Loop rounds, calls, operators and outputs in one rendering. A long chat with many tools takes a
few thousand."""
CPU_S_MAX: Final = 1.0
"""Processor time of one rendering, which holds up the daemon meanwhile. Usual ones take 0.01 s."""
TEXT_CHARS_MAX: Final = 16 << 20
"""Characters of one text, and of a list when it would be printed."""
MADE_BYTES_MAX: Final = 256 << 20
"""Memory of all texts and lists that one rendering makes."""
ITEM_CHARS: Final = 64
"""What an item of a list counts beside its own text, so that a list has at most 262144 items."""
WIDTH_MAX: Final = 1 << 16
"""A width to fill, a count of digits, or how often something is repeated."""
INT_BITS_MAX: Final = 4096
SEARCHED_MAX: Final = 1 << 26
"""Length times length, for searches whose cost is that in the worst case."""
SPREAD_MAX: Final = 1024
"""Arguments passed by `*list`."""
MESSAGE_CHARS_MAX: Final = 500

_CONTAINERS: Final = (list, tuple, dict, set, frozenset, KeysView, ValuesView, ItemsView)
_LINE_ENDS: Final = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_SPACES: Final = "".join(chr(n) for n in range(0x3001) if chr(n).isspace())
_WIDTHS: Final = re.compile(r"(?<=[%.) +#-])\d+")
_DIGITS_MAX: Final = 9
_DECIMAL_EXPONENT_MAX: Final = 300
"""Digits that a number can be rounded to: doubles have no more."""


def broken(reason: object) -> TemplateBroken:
    """Return the error for a rendering that failed because of *reason*."""
    text = str(reason)
    short = text if len(text) <= MESSAGE_CHARS_MAX else text[:MESSAGE_CHARS_MAX] + "…"
    return TemplateBroken(f"the model's chat template failed: {short}")


class Budget:
    """What is left of one rendering's limits. Every method raises TemplateBroken at one."""

    def __init__(self, cpu_time: Callable[[], float] = time.thread_time) -> None:
        self._cpu_time = cpu_time
        self._ends_at = cpu_time() + CPU_S_MAX
        self._steps_left = STEPS_MAX
        self._bytes_left = MADE_BYTES_MAX
        # Containers are immutable to templates. Keeping each keeps its id its own.
        self._weights: dict[int, tuple[object, int]] = {}

    def tick(self) -> None:
        """Count one step."""
        self._steps_left -= 1
        if self._steps_left < 0:
            raise broken(f"it takes more than {STEPS_MAX} steps")
        if self._cpu_time() > self._ends_at:
            raise broken(f"it takes longer than {CPU_S_MAX:g} s")

    def counted(self, items: Iterable[T]) -> Iterator[T]:
        """Return *items*, each of which is a step."""
        for item in items:
            self.tick()
            yield item

    def made(self, value: T) -> T:
        """Return *value*, a result, after counting what it takes and will take when printed."""
        if isinstance(value, str):
            if len(value) > TEXT_CHARS_MAX:
                raise broken("it makes a text that is too long")
            self._charge(value)
        elif isinstance(value, int):
            self.check_bits(value.bit_length())
        elif isinstance(value, _CONTAINERS):
            self._weight(value)
            self._charge(value)
        return value

    def text(self, value: object) -> str:
        """Return *value* as it is printed."""
        return value if type(value) is str else self.made(str(value))

    def joined(self, separator: str, items: Iterable[object]) -> str:
        """Return the texts of *items* with *separator* between them."""
        texts: list[str] = []
        n_chars = 0
        for item in items:
            text = self.text(item)
            n_chars += len(text) + len(separator)
            self.check_length(n_chars)
            texts.append(text)
        return self.made(separator.join(texts))

    def spread(self, items: Iterable[T]) -> list[T]:
        """Return *items* as arguments."""
        arguments: list[T] = []
        for item in items:
            if len(arguments) == SPREAD_MAX:
                raise broken(f"it passes more than {SPREAD_MAX} arguments")
            arguments.append(item)
        return arguments

    def _charge(self, value: object) -> None:
        self._bytes_left -= sys.getsizeof(value)
        if self._bytes_left < 0:
            raise broken(f"it makes more than {MADE_BYTES_MAX >> 20} MiB of text")

    def _weight(self, value: object) -> int:
        """Return how long the text of *value* is about. Raises when that is too much.

        Lists share what they hold: forty lists, each twice in the next one, take no memory until
        somebody prints or compares the last.
        """
        if isinstance(value, str):
            return len(value)
        if not isinstance(value, _CONTAINERS):
            return 1
        if known := self._weights.get(id(value)):
            return known[1]
        weight = ITEM_CHARS
        for item in value:
            weight += ITEM_CHARS + self._weight(item)
            if isinstance(value, dict):
                weight += self._weight(value[item])
            if weight > TEXT_CHARS_MAX:
                raise broken("it makes a list that is too long")
        self._weights[id(value)] = (value, weight)
        return weight

    # What is judged before it runs.

    def check_length(self, n_chars: int) -> None:
        """Refuse to make a text of *n_chars*."""
        if n_chars > TEXT_CHARS_MAX:
            raise broken("it makes a text that is too long")

    def check_bits(self, n_bits: int) -> None:
        """Refuse to make a whole number of *n_bits*."""
        if n_bits > INT_BITS_MAX:
            raise broken("it makes a number that is too large")

    def check_widths(self, *arguments: object) -> None:
        """Refuse numbers that are no reasonable width among *arguments*."""
        if any(isinstance(n, int) and abs(n) > WIDTH_MAX for n in arguments):
            raise broken("it asks for a text that is too wide")

    def check_digits(self, n_digits: object) -> None:
        """Refuse to round to *n_digits*, for which a power of ten is computed."""
        if isinstance(n_digits, int) and abs(n_digits) > _DECIMAL_EXPONENT_MAX:
            raise broken("it rounds to too many digits")

    def check_operator(self, operator: str, left: object, right: object) -> None:
        """Refuse an operator whose result is too large."""
        match operator, left, right:
            case "*", (str() | list() | tuple()) as what, int() as times:
                self._check_repeat(times, what)
            case "*", int() as times, (str() | list() | tuple()) as what:
                self._check_repeat(times, what)
            case "*", int(), int():
                self.check_bits(left.bit_length() + right.bit_length())
            case "**", int(), int():
                self.check_bits(left.bit_length() * max(right, 0))
            case "+", str(), str():
                self.check_length(len(left) + len(right))
            case "%", str(), _:
                self.check_percent(left, right)

    def _check_repeat(self, times: int, what: Sequence[object]) -> None:
        item = 1 if isinstance(what, str) else ITEM_CHARS
        if times > WIDTH_MAX or times * max(len(what), 1) * item > TEXT_CHARS_MAX:
            raise broken("it repeats something too often")

    def check_percent(self, pattern: str, values: object) -> None:
        """Refuse `pattern % values` when widths or values make it too long."""
        n_marks = pattern.count("%")
        n_chars = len(pattern) + self._weight(values) * (
            n_marks if isinstance(values, Mapping) else 1
        )
        for digits in _WIDTHS.findall(pattern):
            # Text that has a percent sign may also have long numbers after a space.
            n_chars += int(digits) if len(digits) <= _DIGITS_MAX else WIDTH_MAX * WIDTH_MAX
        if "*" in pattern and isinstance(values, tuple):
            n_chars += sum(abs(n) for n in values if isinstance(n, int))
        self.check_length(n_chars)

    def check_field(self, spec: str) -> None:
        """Refuse a field of `str.format` whose width or precision is too large."""
        if any(
            len(digits) > _DIGITS_MAX or int(digits) > WIDTH_MAX
            for digits in re.findall(r"\d+", spec)
        ):
            raise broken("it asks for a text that is too wide")

    def check_replace(self, text: str, old: str, new: str) -> None:
        """Refuse `text.replace(old, new)` when its result is too long."""
        self.check_length(len(text) + text.count(old) * len(new))

    def check_indent(self, text: str, width: object) -> None:
        """Refuse to indent every line of *text* when that makes it too long."""
        self.check_widths(width)
        n_chars = len(width) if isinstance(width, str) else width if isinstance(width, int) else 0
        self.check_length(len(text) + (1 + _count(text, _LINE_ENDS)) * (n_chars + ITEM_CHARS))

    def check_search(self, text: object, wanted: object) -> None:
        """Refuse a search for *wanted* that compares every place with all of it."""
        if (
            isinstance(text, str)
            and isinstance(wanted, str)
            and len(text) * len(wanted) > SEARCHED_MAX
        ):
            raise broken("it searches for a text that is too long")

    def check_pieces(self, n_pieces: int) -> None:
        """Refuse to make a list of *n_pieces*."""
        if n_pieces * ITEM_CHARS > TEXT_CHARS_MAX:
            raise broken("it makes a list that is too long")

    def check_method(self, name: str, text: str, arguments: Sequence[Any]) -> None:
        """Refuse a call of a text's method that costs too much. Its types are Python's to check."""
        first = arguments[0] if arguments else None
        match name:
            case "center" | "ljust" | "rjust" | "zfill":
                self.check_widths(first)
            case "expandtabs":
                width = first if isinstance(first, int) else 8
                self.check_length(len(text) + text.count("\t") * max(width, 0))
            case "replace":
                match arguments:
                    case [str() as old, str() as new, *_]:
                        self.check_replace(text, old, new)
            case "rfind" | "rindex" | "rpartition" | "strip" | "lstrip" | "rstrip":
                self.check_search(text, first)
            case "split" | "rsplit":
                self.check_search(text, first if name == "rsplit" else None)
                has_separator = isinstance(first, str) and first
                n_cuts = text.count(first) if has_separator else _count(text, _SPACES)
                most = arguments[1] if len(arguments) > 1 else -1
                self.check_pieces(min(n_cuts, most) if _is_natural(most) else n_cuts)
            case "splitlines":
                self.check_pieces(_count(text, _LINE_ENDS))


def _count(text: str, chars: str) -> int:
    return sum(text.count(char) for char in chars)


def _is_natural(value: object) -> bool:
    return isinstance(value, int) and value >= 0
