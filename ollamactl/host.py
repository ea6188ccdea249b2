"""`HostUrl`: where the daemon is, read from OLLAMA_HOST as Ollama's own programs read it.

Pure: it takes the variable's text and returns a value with its warnings. Nothing is printed and
nothing is connected here.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from typing import Final

from ollamactl.errors import CtlError

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 11434
PORT_MAX: Final = 65535

_PORT: Final = re.compile(r"[0-9]{1,10}")
_SCHEME_PORTS: Final = {"http": 80, "https": 443}
# Addresses that mean "all interfaces" to a server; a client reaches the same machine by loopback.
_WILDCARDS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - no bind


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostUrl:
    """The daemon's address as a client uses it."""

    scheme: str = "http"
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    path: str = ""
    """What comes before `/api`, without a trailing slash: empty, or `/prefix`."""
    warnings: tuple[str, ...] = ()

    @property
    def is_loopback(self) -> bool:
        """Whether this is the same machine, so that no proxy may come between."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def text(self) -> str:
        """The address as a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def parse_host(variable: str) -> HostUrl:
    """Return the address that OLLAMA_HOST's text stands for; empty text means the default.

    A port that is no port is replaced by the default one, with a warning. Raises CtlError for a
    scheme other than http and https, and for characters that no host has.
    """
    text = variable.strip().strip("\"'").strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
        if text == "ollama.com":
            scheme, rest = "https", "ollama.com:443"
    elif scheme not in _SCHEME_PORTS:
        raise CtlError(
            f'OLLAMA_HOST: unknown scheme "{scheme}", write for example {HostUrl().text}'
        )
    default_port = _SCHEME_PORTS[scheme] if separator else DEFAULT_PORT
    hostport, _, path = rest.partition("/")
    host, port_text = _split(hostport)
    if not host.isprintable() or set(host) & set(" @?#\\[]%"):
        raise CtlError(f"OLLAMA_HOST: {host!r} is no host name, write for example {HostUrl().text}")
    port = default_port
    warnings: tuple[str, ...] = ()
    if port_text is not None:
        if _PORT.fullmatch(port_text) and int(port_text) <= PORT_MAX:
            port = int(port_text)
        else:
            warnings = (f'OLLAMA_HOST: invalid port "{port_text}", using {default_port}',)
    return HostUrl(
        scheme=scheme,
        host=_WILDCARDS.get(host, host),
        port=port,
        path=f"/{path}".rstrip("/"),
        warnings=warnings,
    )


def _split(hostport: str) -> tuple[str, str | None]:
    """Return host and port text; the port is None where none was written."""
    bare = hostport.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare)), None
    except ValueError:
        pass
    if hostport.startswith("["):
        host, bracket, after = hostport[1:].partition("]")
        if bracket and after.startswith(":"):
            return host, after[1:]
        return hostport, None
    host, colon, port = hostport.rpartition(":")
    if colon and ":" not in host:
        return host, port
    return hostport or DEFAULT_HOST, None
