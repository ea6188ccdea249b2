from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamactl.errors import CtlError
from ollamactl.host import parse_host


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("  ", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        ("example.com", "http://example.com:11434"),
        ("'example.com'", "http://example.com:11434"),
        ('" example.com "', "http://example.com:11434"),
        (":5000", "http://127.0.0.1:5000"),
        ("1.2.3.4:5000", "http://1.2.3.4:5000"),
        ("0.0.0.0:5000", "http://127.0.0.1:5000"),
        ("[::]:5000", "http://[::1]:5000"),
        ("http://host", "http://host:80"),
        ("https://host", "https://host:443"),
        ("https://host:8443/", "https://host:8443"),
        ("host/path", "http://host:11434/path"),
        ("https://host/a/b/", "https://host:443/a/b"),
        ("ollama.com", "https://ollama.com:443"),
        ("http://ollama.com", "http://ollama.com:80"),
        ("[::1]", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_the_variable_is_read_as_ollama_reads_it(variable: str, url: str) -> None:
    address = parse_host(variable)

    assert address.text == url
    assert address.warnings == ()


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("host:65536", "http://host:11434"),
        ("host:abc", "http://host:11434"),
        ("host:-1", "http://host:11434"),
        ("host:", "http://host:11434"),
        ("http://host:99999999999999", "http://host:80"),
        ("https://host:x", "https://host:443"),
    ],
)
def test_a_port_that_is_none_becomes_the_default_with_a_warning(variable: str, url: str) -> None:
    address = parse_host(variable)

    assert address.text == url
    assert "invalid port" in address.warnings[0]


@pytest.mark.parametrize(
    ("variable", "is_loopback"),
    [
        ("", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("0.0.0.0", True),  # noqa: S104 - nothing is bound
        ("10.0.0.1", False),
        ("example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_loopback_is_told_from_elsewhere(variable: str, is_loopback: bool) -> None:
    assert parse_host(variable).is_loopback is is_loopback


@pytest.mark.parametrize("variable", ["ftp://host", "us er@host", "ho\x00st", "a?b", "host%20"])
def test_what_is_no_address_is_refused_with_an_example(variable: str) -> None:
    with pytest.raises(CtlError, match=r"write for example http://127\.0\.0\.1:11434"):
        parse_host(variable)


@given(st.text())
def test_any_text_is_an_address_or_refused(variable: str) -> None:
    try:
        address = parse_host(variable)
    except CtlError:
        return
    assert 0 <= address.port <= 65535
    assert address.host
