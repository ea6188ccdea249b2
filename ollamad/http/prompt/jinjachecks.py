"""What a template's operators, methods and filters are going to cost, judged before they run.

Only those are here whose result, or whose time, can be much larger than what goes in; everything
else is counted by `jinjabudget` when it is done. Each check takes the operation's own arguments,
and leaves wrong types to the operation. Knows no Jinja.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ollamad.http.prompt.jinjabudget import ITEM_CHARS, TEXT_CHARS_MAX, Budget, broken

WIDTH_MAX: Final = 1 << 16
"""A width to fill, or how often something is repeated."""
SEARCHED_MAX: Final = 1 << 26
"""Length times length, for searches whose cost is that in the worst case."""
APART_CHARS_MAX: Final = 1 << 16
"""Characters for filters that take a text apart, at many times its memory."""
DECIMALS_MAX: Final = 300
"""Digits to round to: a power of ten is computed for them, and doubles have no more."""
JSON_INDENT_MAX: Final = 16
"""Characters by which JSON may be indented for each level, and of its separators."""

_LINE_ENDS: Final = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_SPACES: Final = "".join(chr(n) for n in range(0x3001) if chr(n).isspace())
_PERCENT_WIDTHS: Final = re.compile(r"(?<=[%.) +#-])\d+")
_DIGITS: Final = re.compile(r"\d+")
_WIDTH_DIGITS_MAX: Final = 9


def check_operator(budget: Budget, operator: str, left: object, right: object) -> None:
    """Refuse an operator whose result is too large."""
    match operator, left, right:
        case "*", (str() | list() | tuple()) as what, int() as times:
            _check_repeat(times, what)
        case "*", int() as times, (str() | list() | tuple()) as what:
            _check_repeat(times, what)
        case "*", int(), int():
            budget.check_bits(left.bit_length() + right.bit_length())
        case "**", int(), int():
            budget.check_bits(left.bit_length() * max(right, 0))
        case "+", str(), str():
            budget.check_length(len(left) + len(right))
        case "%", str(), _:
            _check_percent(budget, left, right)


def check_method(budget: Budget, name: str, text: str, arguments: Sequence[Any]) -> None:
    """Refuse a call of a text's method."""
    first = arguments[0] if arguments else None
    match name:
        case "center" | "ljust" | "rjust" | "zfill":
            _check_widths(first)
        case "expandtabs":
            width = first if isinstance(first, int) else 8
            budget.check_length(len(text) + text.count("\t") * max(width, 0))
        case "replace" if len(arguments) > 1:
            _check_replace(budget, text, first, arguments[1])
        case "rfind" | "rindex" | "rpartition" | "strip" | "lstrip" | "rstrip":
            _check_search(text, first)
        case "split" | "rsplit":
            _check_split(name, text, first, arguments[1] if len(arguments) > 1 else -1)
        case "splitlines":
            _check_pieces(_count(text, _LINE_ENDS))


def check_field(spec: str) -> None:
    """Refuse a field of `str.format` whose width or precision is too large."""
    for digits in _DIGITS.findall(spec):
        _check_widths(_number(digits))


def _check_repeat(times: int, what: Sequence[object]) -> None:
    item = 1 if isinstance(what, str) else ITEM_CHARS
    if times > WIDTH_MAX or times * max(len(what), 1) * item > TEXT_CHARS_MAX:
        raise broken("it repeats something too often")


def _check_widths(*arguments: object) -> None:
    if any(isinstance(n, int) and abs(n) > WIDTH_MAX for n in arguments):
        raise broken("it asks for a text that is too wide")


def _check_percent(budget: Budget, pattern: str, values: object) -> None:
    times = pattern.count("%") if isinstance(values, Mapping) else 1
    n_chars = len(pattern) + times * budget.weigh(values)
    n_chars += sum(_number(digits) for digits in _PERCENT_WIDTHS.findall(pattern))
    if "*" in pattern and isinstance(values, tuple):
        n_chars += sum(abs(n) for n in values if isinstance(n, int))
    budget.check_length(n_chars)


def _check_replace(budget: Budget, text: object, old: object, new: object) -> None:
    whole, wanted = str(text), str(old)
    budget.check_length(len(whole) + whole.count(wanted) * len(str(new)))


def _check_search(text: object, wanted: object) -> None:
    if isinstance(text, str) and isinstance(wanted, str) and len(text) * len(wanted) > SEARCHED_MAX:
        raise broken("it searches for a text that is too long")


def _check_split(name: str, text: str, separator: object, most: object) -> None:
    if name == "rsplit":  # Unlike split, it compares every place with all of the separator.
        _check_search(text, separator)
    is_text = isinstance(separator, str) and separator != ""
    n_cuts = text.count(str(separator)) if is_text else _count(text, _SPACES)
    _check_pieces(min(n_cuts, most) if isinstance(most, int) and most >= 0 else n_cuts)


def _check_pieces(n_pieces: int) -> None:
    if n_pieces * ITEM_CHARS > TEXT_CHARS_MAX:
        raise broken("it makes a list that is too long")


def _check_width_filter(_budget: Budget, _value: object, width: object = 0, *_rest: object) -> None:
    _check_widths(width)


def _check_format(budget: Budget, value: object, *values: object, **named: object) -> None:
    _check_percent(budget, str(value), named or values)


def _check_indent(
    budget: Budget, s: object, width: object = 4, first: object = False, blank: object = False
) -> None:
    _check_widths(width)
    text = str(s)
    n_chars = len(width) if isinstance(width, str) else width if isinstance(width, int) else 0
    n_lines = 1 + _count(text, _LINE_ENDS)
    _check_pieces(n_lines)
    budget.check_length(len(text) + n_lines * n_chars)


def _check_replace_filter(
    budget: Budget, s: object, old: object, new: object, count: object = None
) -> None:
    _check_replace(budget, s, old, new)


def _check_round(
    _budget: Budget, value: object, precision: object = 0, method: object = "common"
) -> None:
    if isinstance(precision, int) and abs(precision) > DECIMALS_MAX:
        raise broken("it rounds to too many digits")


def _check_sum(
    _budget: Budget, iterable: object, attribute: object = None, start: object = 0
) -> None:
    if not isinstance(start, int | float):
        raise broken("sum adds numbers only")  # Lists would be copied again for every item.


def _check_json(  # The filter's parameters, in their order.
    _budget: Budget,
    value: object,
    ensure_ascii: object = False,
    indent: object = None,
    separators: object = None,
    sort_keys: object = False,
) -> None:
    is_small = indent is None or (isinstance(indent, int) and indent <= JSON_INDENT_MAX)
    marks = separators if isinstance(separators, list | tuple) else ()
    if not is_small or any(isinstance(m, str) and len(m) > JSON_INDENT_MAX for m in marks):
        raise broken(f"tojson indents by a number of at most {JSON_INDENT_MAX}")


def _check_trim(_budget: Budget, value: object, chars: object = None) -> None:
    _check_search(value, chars)


def _check_apart(budget: Budget, value: object) -> None:
    if len(str(value)) > APART_CHARS_MAX:
        raise broken("it takes a text apart that is too long")


FILTER_CHECKS: Final[Mapping[str, Callable[..., None]]] = {
    "batch": _check_width_filter,
    "center": _check_width_filter,
    "format": _check_format,
    "indent": _check_indent,
    "replace": _check_replace_filter,
    "round": _check_round,
    "slice": _check_width_filter,
    "sum": _check_sum,
    "title": _check_apart,
    "tojson": _check_json,
    "trim": _check_trim,
    "urlencode": _check_apart,
}
"""A check for each filter that needs one. It takes the budget, then the filter's arguments."""


def _number(digits: str) -> int:
    return int(digits) if len(digits) <= _WIDTH_DIGITS_MAX else 10**_WIDTH_DIGITS_MAX


def _count(text: str, chars: str) -> int:
    return sum(text.count(char) for char in chars)
