"""Pages of strangers reach nothing, by their origin or by a name that resolves to us."""

from __future__ import annotations

import socket

import pytest

from ollamad.http.origins import Origins, host_is_allowed, origin_is_allowed
from tests.unit.http.asgi import Exchange, a_scope, ask, ok


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "https://localhost",
        "http://localhost:3000",
        "HTTP://LocalHost:3000",
        "http://127.0.0.1:8080",
        "https://0.0.0.0:1",
        "app://obsidian.md",
        "file://",
        "tauri://localhost",
        "vscode-webview://1a2b",
        "vscode-file://vscode-app",
    ],
)
def test_ollama_s_own_list_of_origins_is_always_allowed(origin: str) -> None:
    assert origin_is_allowed(origin, ())


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://example.com",
        "http://localhost.example.com",
        "http://localhost.example.com:80",
        "http://127.0.0.1.example.com",
        "http://127.0.0.2",
        "http://my-localhost",
        "ftp://localhost",
        "http://[::1]",
        "chrome-extension://abc",
        "xapp://a",
    ],
)
def test_other_origins_are_refused(origin: str) -> None:
    assert not origin_is_allowed(origin, ())


@pytest.mark.parametrize(
    ("entry", "origin", "allowed"),
    [
        ("http://a.example", "http://a.example", True),
        ("http://A.Example", "http://a.eXample", True),
        ("http://a.example", "http://a.example:80", False),
        ("http://*.example", "http://b.example", True),
        ("http://*.example", "http://b.example.org", False),
        ("chrome-extension://*", "chrome-extension://abc", True),
        ("http://[::1]:*", "http://[::1]:3000", True),
        ("http://[::1]", "http://:", False),
        ("http://a?c", "http://abc", False),
        ("http://a?c", "http://a?c", True),
        ("*", "http://anything.example", True),
        ("*", "null", True),
    ],
)
def test_only_a_star_of_an_entry_stands_for_other_text(
    entry: str, origin: str, allowed: bool
) -> None:
    assert origin_is_allowed(origin, ("http://other.example", entry)) is allowed


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "LOCALHOST:11434",
        "localhost:",
        "my-machine",
        "My-Machine:80",
        "a.localhost",
        "printer.local:631",
        "host.docker.internal:11434",
        "127.0.0.1",
        "127.8.8.8:11434",
        "0.0.0.0:11434",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.5:11434",
        "[::1]",
        "[::1]:11434",
        "[::]:11434",
        "[fd00::1]:11434",
        "[::ffff:127.0.0.1]",
        " localhost ",
    ],
)
def test_names_and_addresses_of_this_machine_are_allowed(host: str) -> None:
    assert host_is_allowed(host, "my-machine")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:11434",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "notlocalhost",
        "local",
        "internal",
        "8.8.8.8",
        "[2606:4700::1111]:80",
        "[localhost.evil]",
        "localhost:80:80",
        "localhost:port",
        "localhost/@evil",
        "[::1",
        "[::1]x",
        "user@localhost",
        "my-machine.evil.example",
    ],
)
def test_other_hosts_are_refused(host: str) -> None:
    assert not host_is_allowed(host, "my-machine")


# The wrapper


def origins(*extra: str, is_loopback: bool = True) -> Origins:
    return Origins(ok, extra=extra, is_loopback=is_loopback)


async def test_a_request_without_an_origin_passes_untouched() -> None:
    answer = await ask(origins(), a_scope(host="localhost:11434"))

    assert (answer.status, answer.headers, answer.body) == (200, {"x-mine": "1"}, b"fine")


async def test_a_foreign_origin_is_refused_with_an_empty_body() -> None:
    for method in ("GET", "POST", "OPTIONS"):
        scope = a_scope(method=method, host="localhost", origin="http://evil.example")
        answer = await ask(origins(), scope)

        assert (answer.status, answer.headers, answer.body) == (403, {}, b"")


async def test_an_allowed_origin_gets_its_header_beside_the_answer_s_own() -> None:
    answer = await ask(origins(), a_scope(host="localhost:11434", origin="http://localhost:3000"))

    assert answer.status == 200
    assert answer.headers == {
        "x-mine": "1",
        "access-control-allow-origin": "http://localhost:3000",
        "vary": "Origin",
    }


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_page_of_our_own_is_let_through_untouched(scheme: str) -> None:
    """Behind a proxy the daemon does not know its own scheme."""
    app = origins(is_loopback=False)

    answer = await ask(app, a_scope(host="ai.example:8080", origin=f"{scheme}://AI.example:8080"))

    assert (answer.status, answer.headers) == (200, {"x-mine": "1"})


async def test_the_same_name_on_another_port_is_another_origin() -> None:
    app = origins(is_loopback=False)

    answer = await ask(app, a_scope(host="ai.example:8080", origin="http://ai.example:8081"))

    assert answer.status == 403


async def test_a_preflight_is_answered_without_asking_the_application() -> None:
    scope = a_scope(method="OPTIONS", host="localhost:11434", origin="http://localhost:3000")

    answer = await ask(origins(), scope)

    assert (answer.status, answer.body) == (204, b"")
    headers = answer.headers
    allowed = headers.pop("access-control-allow-headers").split(",")
    assert headers == {
        "access-control-allow-origin": "http://localhost:3000",
        "access-control-allow-methods": "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
        "access-control-max-age": "43200",
        "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }
    assert {"Authorization", "Content-Type", "X-Requested-With", "Openai-Beta"} <= set(allowed)
    assert sum(name.startswith("X-Stainless-") for name in allowed) == 12


async def test_when_all_origins_are_allowed_answers_do_not_vary() -> None:
    app = origins("*")
    scope = a_scope(method="OPTIONS", host="localhost", origin="http://any.example")

    preflight = await ask(app, scope)
    answer = await ask(app, a_scope(host="localhost", origin="http://any.example"))

    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "vary" not in preflight.headers
    assert answer.headers == {"x-mine": "1", "access-control-allow-origin": "*"}


async def test_no_origin_may_send_credentials() -> None:
    for extra in ((), ("*",)):
        scope = a_scope(method="OPTIONS", host="localhost", origin="http://localhost")
        answer = await ask(origins(*extra), scope)

        assert "access-control-allow-credentials" not in answer.headers


async def test_a_name_that_was_made_to_resolve_to_us_is_refused() -> None:
    """DNS rebinding: for the browser the page and the daemon are of one origin."""
    for headers in ({}, {"origin": "http://evil.example:11434"}):
        answer = await ask(origins(), a_scope(host="evil.example:11434", **headers))

        assert (answer.status, answer.body) == (403, b"")


async def test_an_allowed_origin_does_not_make_a_foreign_host_good() -> None:
    answer = await ask(origins(), a_scope(host="evil.example", origin="http://localhost"))

    assert answer.status == 403


async def test_this_machine_s_name_is_a_good_host() -> None:
    answer = await ask(origins(), a_scope(host=f"{socket.gethostname()}:11434"))

    assert answer.status == 200


async def test_a_daemon_open_to_the_network_answers_under_any_name() -> None:
    answer = await ask(origins(is_loopback=False), a_scope(host="ai.example"))

    assert answer.status == 200


async def test_origins_may_be_replaced_while_serving() -> None:
    app = origins()
    scope = a_scope(host="localhost", origin="http://new.example")
    before = await ask(app, scope)
    app.extra = ("http://new.example",)
    after = await ask(app, scope)

    assert (before.status, after.status) == (403, 200)


async def test_an_origin_that_is_no_ascii_is_judged_like_any_other() -> None:
    refused = await ask(origins(), a_scope(host="localhost", origin="http://\xfcber.example"))
    echoed = await ask(origins(), a_scope(host="localhost", origin="app://\xfcber"))

    assert refused.status == 403
    assert echoed.headers["access-control-allow-origin"] == "app://\xfcber"


async def test_what_is_no_request_is_passed_on() -> None:
    seen: list[str] = []

    async def app(scope: object, receive: object, send: object) -> None:
        assert isinstance(scope, dict)
        seen.append(scope["type"])

    exchange = Exchange(a_scope(kind="lifespan"))
    await Origins(app, extra=(), is_loopback=True)(exchange.scope, exchange.receive, exchange.send)

    assert (seen, exchange.sent) == (["lifespan"], [])
