"""Who may talk to us from a browser: allowed hosts (against DNS rebinding) and origins (CORS).

An ASGI wrapper around everything, also around unknown routes. The rules are Ollama's.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import socket
from collections.abc import Sequence
from typing import Final

from ollamad.http.scope import AsgiApp, Message, Receive, Scope, Send

_ALWAYS: Final = (
    *(
        f"{scheme}://{host}{port}"
        for host in ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - an origin, not a bind
        for port in ("", ":*")
        for scheme in ("http", "https")
    ),
    "app://*",
    "file://*",
    "tauri://*",
    "vscode-webview://*",
    "vscode-file://*",
)
_STAINLESS: Final = (
    "Arch", "Async", "Custom-Poll-Interval", "Helper-Method", "Lang", "Os", "Package-Version",
    "Poll-Helper", "Retry-Count", "Runtime", "Runtime-Version", "Timeout",
)  # fmt: skip
_ALLOWED_HEADERS: Final = ",".join(
    (
        "Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With",
        "Openai-Beta", "X-Api-Key", "Anthropic-Version",
        *(f"X-Stainless-{name}" for name in _STAINLESS),
    )
)  # fmt: skip
_ALLOWED_METHODS: Final = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_PREFLIGHT_AGE_S: Final = 43200
_LOCAL_SUFFIXES: Final = (".localhost", ".local", ".internal")
_GLOB_MARKS: Final = re.compile(r"[\[?]")
_HOST_PORT: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d*)?")


def origin_is_allowed(origin: str, extra: Sequence[str]) -> bool:
    """Return whether pages of *origin* may call us. One `*` of an entry is any text."""
    low = origin.lower()
    return any(
        entry == "*" or fnmatch.fnmatchcase(low, _GLOB_MARKS.sub(r"[\g<0>]", entry.lower()))
        for entry in (*extra, *_ALWAYS)
    )


def host_is_allowed(host_header: str, host_name: str) -> bool:
    """Return whether *host_header* names this machine: the check behind a loopback bind.

    A page of a hostile site can make its own name resolve to 127.0.0.1; the browser then sends
    that name as the host.
    """
    found = _HOST_PORT.fullmatch(host_header.strip().lower())
    if found is None:
        return False
    host = found.group(1)
    if host in {"", "localhost", host_name.lower()} or host.endswith(_LOCAL_SUFFIXES):
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified


class Origins:
    """Refuse foreign hosts and origins, and answer preflight requests."""

    def __init__(self, app: AsgiApp, *, extra: Sequence[str], is_loopback: bool) -> None:
        self._app = app
        self.extra = tuple(extra)
        """Origins allowed beside Ollama's own list; may be replaced while serving."""
        self._is_loopback = is_loopback
        self._host_name = socket.gethostname()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        origin = headers.get(b"origin")
        is_cross = origin is not None and origin.lower() not in {
            f"http://{host.lower()}",
            f"https://{host.lower()}",
        }
        if is_cross and origin is not None:
            if not origin_is_allowed(origin, self.extra):
                await _answer(send, 403)
                return
            cors = self._cors_headers(origin)
            if scope["method"] == "OPTIONS":
                await _answer(send, 204, [*cors, *self._preflight_headers()])
                return
            send = _with_headers(send, cors)
        if self._is_loopback:
            if not host_is_allowed(host, self._host_name):
                await _answer(send, 403)
                return
            if scope["method"] == "OPTIONS":
                await _answer(send, 204)
                return
        await self._app(scope, receive, send)

    def _cors_headers(self, origin: str) -> list[tuple[bytes, bytes]]:
        if "*" in self.extra:
            return [(b"access-control-allow-origin", b"*")]
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"vary", b"Origin"),
        ]

    def _preflight_headers(self) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"access-control-allow-methods", _ALLOWED_METHODS.encode()),
            (b"access-control-allow-headers", _ALLOWED_HEADERS.encode()),
            (b"access-control-max-age", str(_PREFLIGHT_AGE_S).encode()),
        ]
        if "*" not in self.extra:
            headers.append(
                (b"vary", b"Access-Control-Request-Method, Access-Control-Request-Headers")
            )
        return headers


def _with_headers(send: Send, extra: list[tuple[bytes, bytes]]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return send_with_headers


async def _answer(send: Send, status: int, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": b""})
