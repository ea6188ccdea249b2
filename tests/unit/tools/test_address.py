"""Where a daemon is reached, who has its port, and what a smoke test lets it see."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tools import address
from tools.address import Address, AddressError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Address("127.0.0.1", 11434)),
        ("localhost", Address("localhost", 11434)),
        (":1234", Address("127.0.0.1", 1234)),
        ("0.0.0.0", Address("127.0.0.1", 11434)),  # noqa: S104  # Parsed, not bound.
        ("0.0.0.0:1234", Address("127.0.0.1", 1234)),
        ("http://example.test", Address("example.test", 80)),
        ("https://example.test:9/path", Address("example.test", 9)),
        ("[::1]:1234", Address("::1", 1234)),
        ("::", Address("::1", 11434)),
        ("  '127.0.0.1:5'  ", Address("127.0.0.1", 5)),
    ],
)
def test_every_form_of_ollama_host_is_read(text: str, expected: Address) -> None:
    assert address.parse_address(text) == expected


@pytest.mark.parametrize("text", ["host:port", "host:99999", "unix:///run/x", "[::1"])
def test_a_host_that_cannot_be_read_says_how_it_is_written(text: str) -> None:
    with pytest.raises(AddressError, match=r"write HOST:PORT, for example 127\.0\.0\.1:11435"):
        address.parse_address(text)


def test_an_ipv6_address_is_bracketed_in_a_url() -> None:
    assert Address("::1", 5).base_url == "http://[::1]:5"


def test_a_free_port_is_free_and_a_listener_takes_it() -> None:
    free = address.free_address()
    assert not free.is_taken()

    with socket.create_server((free.host, free.port)):
        assert free.is_taken()
        owner = address.listener(free.port)

    assert owner is not None
    assert "(pid " in owner


def test_a_port_whose_owner_cannot_be_seen_has_none(tmp_path: Path) -> None:
    assert address.listener(1, tmp_path) is None


def test_a_bare_environment_leads_to_nothing_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", "/precious")
    monkeypatch.setenv("OLLAMAD_ADMIN_SOCKET", "/precious")
    monkeypatch.setenv("XDG_DATA_HOME", "/precious")
    monkeypatch.setenv("STATE_DIRECTORY", "/precious")
    monkeypatch.setenv("HOME", "/precious")

    environ = address.bare_environ(tmp_path, Address("127.0.0.1", 5))

    assert "/precious" not in environ.values()
    assert environ["OLLAMA_HOST"] == "127.0.0.1:5"
    assert Path(environ["XDG_DATA_HOME"]).is_relative_to(tmp_path)
    assert Path(environ["XDG_CONFIG_HOME"], "ollamad", "ollamad.toml").read_bytes() == b""
