from __future__ import annotations

import math

import pytest

from ollamad.units import (
    DURATION_CHARS_MAX,
    FOREVER_S,
    GIB,
    KIB,
    MIB,
    format_bytes,
    format_bytes_decimal,
    format_count,
    format_duration,
    keep_alive_s,
    parse_bytes,
    parse_duration_s,
)

HUGE = 10**5000
"""JSON knows whole numbers of any size; no float does, and Python does not print them."""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("-0", 0),
        ("+0", 0),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h30m5.5s", 5405.5),
        ("300ms", 0.3),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1.s", 1),
        ("-1s", -1),
        ("+1s", 1),
        ("-1h30m", -5400),
        ("7ns", 7e-9),
        ("7us", 7e-6),
        ("7µs", 7e-6),
        ("7μs", 7e-6),
        (" 5m ", 300),
        ("9" * 100 + "h", 3600e100),
    ],
)
def test_a_duration_is_read_as_go_reads_it(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", 'time: invalid duration ""'),
        ("abc", 'time: invalid duration "abc"'),
        ("-", 'time: invalid duration "-"'),
        (".", 'time: invalid duration "."'),
        ("s", 'time: invalid duration "s"'),
        ("--1s", 'time: invalid duration "--1s"'),
        ("+-1s", 'time: invalid duration "+-1s"'),
        ("1s-1s", 'time: unknown unit "s-" in duration "1s-1s"'),
        ("٣s", 'time: invalid duration "٣s"'),
        ("inf", 'time: invalid duration "inf"'),
        ("5", 'time: missing unit in duration "5"'),
        ("-1", 'time: missing unit in duration "-1"'),
        ("00", 'time: missing unit in duration "00"'),
        ("5m3", 'time: missing unit in duration "5m3"'),
        ("5d", 'time: unknown unit "d" in duration "5d"'),
        ("5M", 'time: unknown unit "M" in duration "5M"'),
        ("5 m", 'time: unknown unit " m" in duration "5 m"'),
    ],
)
def test_what_is_no_duration_is_refused_in_gos_words(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^time: ") as caught:
        parse_duration_s(text)

    assert str(caught.value) == said


def test_an_endless_duration_is_refused_without_reading_it() -> None:
    """A body full of it once kept the daemon busy for half a minute."""
    assert parse_duration_s("1s" * (DURATION_CHARS_MAX // 2)) == DURATION_CHARS_MAX // 2

    with pytest.raises(ValueError, match="invalid duration") as caught:
        parse_duration_s("1s" * 10_000_000)

    assert len(str(caught.value)) < 2 * DURATION_CHARS_MAX


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (90, 90),
        (1.5, 1.5),
        (-1, FOREVER_S),
        (-0.5, FOREVER_S),
        ("0", 0),
        ("10m", 600),
        ("-1s", FOREVER_S),
        ("-0s", 0),
        (math.inf, FOREVER_S),
        (-math.inf, FOREVER_S),
        (HUGE, FOREVER_S),
        (-HUGE, FOREVER_S),
    ],
    ids=lambda value: repr(value) if not isinstance(value, int) or abs(value) < 1000 else "huge",
)
def test_a_keep_alive_is_seconds_or_a_duration_and_negative_is_forever(
    value: object, seconds: float
) -> None:
    assert keep_alive_s(value) == seconds


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, "Unsupported type: 'bool'"),
        ({}, "Unsupported type: 'map[string]interface {}'"),
        ([], "Unsupported type: '[]interface {}'"),
        ("5", 'time: missing unit in duration "5"'),
        ("abc", 'time: invalid duration "abc"'),
        (math.nan, 'time: invalid duration "NaN"'),
    ],
)
def test_what_is_no_keep_alive_is_refused_in_ollamas_words(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=r"^\w+") as caught:
        keep_alive_s(value)

    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("0", 0),
        ("1048576", MIB),
        ("512MiB", 512 * MIB),
        ("1.5 GiB", 3 * GIB // 2),
        ("1KiB", KIB),
        ("2 GB", 2 * 10**9),
        ("1g", 10**9),
        ("1gi", GIB),
        ("3b", 3),
        ("1TB", 10**12),
        (" 7 ", 7),
    ],
)
def test_an_amount_of_memory_is_read(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize(
    "text",
    ["", "MiB", "-1", "1.", ".5G", "1PB", "1 2", "1e9", "٣", "inf", "9" * 400, "9" * 305 + "TiB"],
    ids=lambda text: text[:8],
)
def test_what_is_no_amount_of_memory_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="try 512MiB or 2GB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1500, "1.5 KB"),
        (10_900, "10 KB"),
        (2 * 10**9, "2 GB"),
        (2_019_393_189, "2.0 GB"),
        (13_999_999_999, "13 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_bytes_are_shown_as_ollamas_cli_shows_them(n_bytes: int, text: str) -> None:
    assert format_bytes_decimal(n_bytes) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (1023.9, "1023 B"),
        (KIB, "1.0 KiB"),
        (3 * GIB // 2, "1.5 GiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_bytes_are_explained_in_binary_units(n_bytes: float, text: str) -> None:
    assert format_bytes(n_bytes) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (999, "999"),
        (1000, "1K"),
        (22_700, "23K"),
        (134_515_008, "134.52M"),
        (7_000_000, "7M"),
        (8_030_261_312, "8.0B"),
        (7_000_000_000, "7B"),
        (70_553_706_496, "70.6B"),
    ],
)
def test_a_number_of_parameters_is_shown_as_ollama_shows_it(count: int, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1e-10, "0s"),
        (7e-9, "7ns"),
        (1.5e-6, "1.5µs"),
        (0.334875, "334.875ms"),
        (0.9999999999, "1s"),
        (4.883583458, "4.883583458s"),
        (59.999, "59.999s"),
        (60, "1m0s"),
        (90, "1m30s"),
        (60.5, "1m0.5s"),
        (7200, "2h0m0s"),
        (-1.5, "-1.5s"),
    ],
)
def test_a_duration_is_shown_as_go_shows_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [7e-9, 0.25, 1.5, 61.001, 3723.000000004])
def test_a_duration_that_was_shown_is_read_back(seconds: float) -> None:
    assert parse_duration_s(format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)
