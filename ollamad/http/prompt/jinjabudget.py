"""`Budget`: what one rendering of a Jinja template may cost.

Steps, processor time and the memory of what is made are counted here. Operations whose result can
be much larger than what goes in are judged before they run, by `jinjachecks`. Knows texts, lists
and numbers; knows no Jinja.
"""

from __future__ import annotations

import sys
import time
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    ValuesView,
)
from typing import Final, TypeVar

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
INT_BITS_MAX: Final = 4096
SPREAD_MAX: Final = 1024
"""Arguments passed by `*list`."""
MESSAGE_CHARS_MAX: Final = 500

_CONTAINERS: Final = (list, tuple, dict, set, frozenset, KeysView, ValuesView, ItemsView)


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

    @property
    def is_spent(self) -> bool:
        """Nothing more can be rendered with it."""
        return self._steps_left < 0 or self._bytes_left < 0 or self._cpu_time() > self._ends_at

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
            self.weigh(value)
            self._charge(value)
        return value

    def chained(self, value: list[T], left: list[T], right: list[T]) -> list[T]:
        """Return *value*, which is *left* and *right*, counted without going through it again.

        Templates build lists of a conversation's messages by adding one after the other.
        """
        self._remember(value, self.weigh(left) + self.weigh(right) - ITEM_CHARS)
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

    def weigh(self, value: object) -> int:
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
            weight += ITEM_CHARS + self.weigh(item)
            if isinstance(value, dict):
                weight += self.weigh(value[item])
            if weight > TEXT_CHARS_MAX:
                raise broken("it makes a list that is too long")
        return self._remember(value, weight)

    def _remember(self, value: object, weight: int) -> int:
        if weight > TEXT_CHARS_MAX:
            raise broken("it makes a list that is too long")
        self._weights[id(value)] = (value, weight)
        return weight

    def check_length(self, n_chars: int) -> None:
        """Refuse to make a text of *n_chars*."""
        if n_chars > TEXT_CHARS_MAX:
            raise broken("it makes a text that is too long")

    def check_bits(self, n_bits: int) -> None:
        """Refuse to make a whole number of *n_bits*."""
        if n_bits > INT_BITS_MAX:
            raise broken("it makes a number that is too large")
