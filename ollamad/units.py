"""Bytes and durations: parse what people and Ollama's clients write, format what they read.

Durations on the wire follow Go's syntax (`1h30m`, `300ms`), because Ollama's clients use it.
A keep-alive is seconds as a float; `math.inf` means forever.
"""

from __future__ import annotations

import math
import re
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

DURATION_CHARS_MAX: Final = 128
"""A longer text is no duration that anybody means; reading it would keep everyone waiting."""

FOREVER_S: Final = math.inf
"""The keep-alive of a model that stays until it is unloaded or evicted."""

_DURATION_UNITS_S: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,  # micro sign
    "μs": 1e-6,  # Greek mu: Go accepts both
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_DURATION_TERM: Final = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)", re.ASCII)
_BYTES: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE | re.ASCII)
_DECIMAL_UNITS: Final = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB"))
_BINARY_UNITS: Final = ((1 << 40, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))


def parse_duration_s(text: str) -> float:
    """Return the seconds that a Go duration such as `"1h30m"`, `"-1s"` or `"0"` stands for.

    Raises ValueError with Go's wording, which clients of Ollama show to people.
    """
    if len(text) > DURATION_CHARS_MAX:
        raise ValueError(f'time: invalid duration "{text[:DURATION_CHARS_MAX]}..."')
    body = text.strip()
    sign = -1.0 if body.startswith("-") else 1.0
    body = body[1:] if body[:1] in {"+", "-"} else body
    if body == "0":
        return 0.0
    if not body:
        raise ValueError(f'time: invalid duration "{text}"')
    total_s, position = 0.0, 0
    while position < len(body):
        term = _DURATION_TERM.match(body, position)
        if term is None:
            raise ValueError(f'time: invalid duration "{text}"')
        number, unit = term.groups()
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _DURATION_UNITS_S:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total_s += float(number) * _DURATION_UNITS_S[unit]
        position = term.end()
    return sign * total_s


def keep_alive_s(value: object) -> float:
    """Return a request's `keep_alive` in seconds; negative values mean forever.

    Numbers are seconds, strings are Go durations. Raises ValueError with Ollama's wording.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"Unsupported type: '{_go_type(value)}'")  # noqa: TRY004 - a caller's value
    try:
        seconds = parse_duration_s(value) if isinstance(value, str) else float(value)
    except OverflowError:
        return FOREVER_S  # JSON knows whole numbers of any size.
    if math.isnan(seconds):
        raise ValueError('time: invalid duration "NaN"')
    return FOREVER_S if seconds < 0 else seconds


def _go_type(value: object) -> str:
    match value:
        case bool():
            return "bool"
        case dict():
            return "map[string]interface {}"
        case list():
            return "[]interface {}"
        case _:
            return type(value).__name__


def parse_bytes(text: str) -> int:
    """Return the bytes that `"512MiB"`, `"2 GB"`, `"1g"` or `"1048576"` stands for.

    `K M G T` with `i` are powers of 1024, without it powers of 1000.
    """
    found = _BYTES.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'"{text}" is not an amount of memory, try 512MiB or 2GB')
    number, prefix, binary = found.groups()
    base = 1024 if binary else 1000
    n_bytes = float(number) * base ** " KMGT".index(prefix.upper() or " ")
    if math.isinf(n_bytes):
        raise ValueError("that is more than any amount of memory, try 512MiB or 2GB")
    return int(n_bytes)


def format_bytes_decimal(n_bytes: int) -> str:
    """Return bytes as Ollama's CLI prints them: `2.0 GB`, `13 GB`, `512 B`."""
    for unit_bytes, unit in _DECIMAL_UNITS:
        if n_bytes >= unit_bytes:
            value = n_bytes / unit_bytes
            if value >= 10:
                return f"{int(value)} {unit}"
            return f"{int(value)} {unit}" if value == int(value) else f"{value:.1f} {unit}"
    return f"{n_bytes} B"


def format_bytes(n_bytes: float) -> str:
    """Return bytes in binary units, for logs and explanations: `1.5 GiB`."""
    for unit_bytes, unit in _BINARY_UNITS:
        if n_bytes >= unit_bytes:
            return f"{n_bytes / unit_bytes:.1f} {unit}"
    return f"{int(n_bytes)} B"


def format_count(count: int) -> str:
    """Return a parameter count as Ollama prints it: `8.0B`, `134.52M`, `23K`."""
    if count >= 10**9:
        return f"{count // 10**9}B" if count % 10**9 == 0 else f"{count / 10**9:.1f}B"
    if count >= 10**6:
        return f"{count // 10**6}M" if count % 10**6 == 0 else f"{count / 10**6:.2f}M"
    if count >= 10**3:
        return f"{count / 10**3:.0f}K"
    return str(count)


def format_duration(seconds: float) -> str:
    """Return a duration as Go prints it: `4.883583458s`, `334.875ms`, `1m30s`, `2h0m0s`."""
    nanoseconds = round(seconds * 1e9)
    if nanoseconds == 0:
        return "0s"
    sign, n = ("-" if nanoseconds < 0 else ""), abs(nanoseconds)
    for unit_ns, unit in ((1, "ns"), (10**3, "µs"), (10**6, "ms")):
        if n < unit_ns * 1000:
            return f"{sign}{_trimmed(n / unit_ns)}{unit}"
    minutes, ns = divmod(n, 60 * 10**9)
    text = f"{_trimmed(ns / 10**9)}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
    return sign + text


def _trimmed(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".")
