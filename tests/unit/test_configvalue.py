from __future__ import annotations

import math
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad import configvalue as kinds
from ollamad.configvalue import Address, ValueKind, parse_address, quoted, toml_literal

ALL_KINDS = (
    kinds.COUNT, kinds.SECONDS, kinds.KEEP_ALIVE, kinds.PATIENCE, kinds.BYTES, kinds.SWITCH,
    kinds.MAYBE_SWITCH, kinds.TEXT, kinds.HOST, kinds.PATH, kinds.ORIGINS,
    kinds.one_of("auto", "on", "off", booleans=True),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2.3.4", Address("1.2.3.4", 11434)),
        ("example.com", Address("example.com", 11434)),
        (":5000", Address("", 5000)),
        ("1.2.3.4:5000", Address("1.2.3.4", 5000)),
        ("http://host", Address("host", 80)),
        ("https://host", Address("host", 443)),
        ("https://host:8443/ollama", Address("host", 8443)),
        ("host/path", Address("host", 11434)),
        ("ollama.com", Address("ollama.com", 443)),
        ("[::1]", Address("::1", 11434)),
        ("::1", Address("::1", 11434)),
        ("[::1]:5000", Address("::1", 5000)),
        ("http://", Address("127.0.0.1", 80)),
        ("1.2.3.4:0", Address("1.2.3.4", 0)),
    ],
)
def test_an_address_is_read_as_ollama_reads_it(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("port", ["70000", "-1", "http", "", "٣", "9" * 5000])
def test_a_port_that_is_none_is_replaced_with_a_complaint(port: str) -> None:
    address = parse_address(f"http://host:{port}")

    assert (address.host, address.port) == ("host", 80)
    assert "is not a port, using 80" in address.complaint


@pytest.mark.parametrize("text", ["a b", "[a", "a:b:c", "user@host", "x" * 5000])
def test_a_host_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_address(text)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (kinds.SECONDS, "1m30s", 90.0),
        (kinds.SECONDS, "2.5", 2.5),
        (kinds.SECONDS, "0", 0.0),
        (kinds.KEEP_ALIVE, "-1", math.inf),
        (kinds.KEEP_ALIVE, "-5m", math.inf),
        (kinds.KEEP_ALIVE, "0", 0.0),
        (kinds.PATIENCE, "0", math.inf),
        (kinds.PATIENCE, "-1s", math.inf),
        (kinds.BYTES, "2GiB", 2 << 30),
        (kinds.BYTES, "1024", 1024),
        (kinds.SWITCH, "T", True),
        (kinds.SWITCH, "off", False),
        (kinds.MAYBE_SWITCH, "Auto", None),
        (kinds.MAYBE_SWITCH, "1", True),
        (kinds.one_of("auto", "on", "off", booleans=True), "false", "off"),
        (kinds.one_of("f16", "q8_0"), "Q8_0", "q8_0"),
        (kinds.ORIGINS, "http://a, ,*", ("http://a", "*")),
        (kinds.HOST, "[::1]", "::1"),
    ],
)
def test_a_text_is_read_as_its_kind(kind: ValueKind, text: str, expected: object) -> None:
    assert kind.read(kind.lift(text)) == expected


@pytest.mark.parametrize(
    ("kind", "native"),
    [
        (kinds.COUNT, True),
        (kinds.COUNT, "5"),
        (kinds.COUNT, 1.5),
        (kinds.SECONDS, math.nan),
        (kinds.SECONDS, math.inf),
        (kinds.SECONDS, -1),
        (kinds.SECONDS, "5 minutes"),
        (kinds.SECONDS, False),
        (kinds.KEEP_ALIVE, math.nan),
        (kinds.BYTES, -1),
        (kinds.BYTES, "9" * 400),
        (kinds.BYTES, "much"),
        (kinds.SWITCH, 1),
        (kinds.MAYBE_SWITCH, "maybe"),
        (kinds.TEXT, "a\nb"),
        (kinds.TEXT, "a\x9bb"),
        (kinds.PATH, ""),
        (kinds.PATH, 5),
        (kinds.HOST, "1.2.3.4:80"),
        (kinds.ORIGINS, "http://a"),
        (kinds.ORIGINS, ["example.com"]),
        (kinds.ORIGINS, ["http://*.a.*"]),
        (kinds.ORIGINS, ["http://a"] * (kinds.ORIGINS_MAX + 1)),
    ],
)
def test_a_value_of_another_kind_is_refused(kind: ValueKind, native: object) -> None:
    with pytest.raises(ValueError, match=r"must|may|has"):
        kind.read(native)


def test_a_nested_value_is_named_and_not_followed() -> None:
    """A file can nest tables deeper than a JSON writer can follow."""
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"a": nested}

    assert quoted(nested) == "a table"
    assert quoted([nested]) == "a list"
    while nested:  # Taken apart by hand: the interpreter would recurse.
        nested = nested["a"]


def test_a_long_or_unprintable_value_is_quoted_harmlessly() -> None:
    assert quoted("a\x1b[2Jb\n") == '"a\\u001b[2Jb\\n"'
    assert len(quoted("x" * 10_000)) == 80


@given(st.one_of(*(st.tuples(st.just(kind), st.text(max_size=40)) for kind in ALL_KINDS)))
def test_any_text_is_read_or_refused(case: tuple[ValueKind, str]) -> None:
    kind, text = case
    try:
        value = kind.read(kind.lift(text))
    except ValueError:
        return
    shown = kind.show(value)
    assert kind.read(shown) == value
    assert kind.read(tomllib.loads(f"x = {toml_literal(shown)}")["x"]) == value


@given(st.text(max_size=40))
def test_any_address_is_read_or_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert 0 <= address.port <= 65535


@given(st.floats(allow_nan=False) | st.integers() | st.booleans() | st.none())
def test_any_number_is_read_or_refused(native: object) -> None:
    for kind in ALL_KINDS:
        try:
            value = kind.read(native)
        except ValueError:
            continue
        assert kind.read(kind.show(value)) == value
