"""Where the daemon listens, by OLLAMA_HOST, and who listens there already."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

DEFAULT_PORT: Final = 11434
LOOPBACK: Final = "127.0.0.1"
CONNECT_TIMEOUT_S: Final = 2.0

_SCHEME_PORTS: Final = {"http": 80, "https": 443}
_LISTENING: Final = "0A"


class AddressError(ValueError):
    """OLLAMA_HOST cannot be read. The message says how it is written."""


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """A host and a port to connect to."""

    host: str
    port: int

    @property
    def base_url(self) -> str:
        """The API's address, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def is_default(self) -> bool:
        """Whether clients find it without being told."""
        return (self.host, self.port) == (LOOPBACK, DEFAULT_PORT)

    def is_taken(self) -> bool:
        """Return whether something accepts connections there."""
        try:
            socket.create_connection((self.host, self.port), CONNECT_TIMEOUT_S).close()
        except OSError:
            return False
        return True


def parse_address(text: str) -> Address:
    """Return where to reach a daemon that was told to listen at *text*.

    A wildcard (`0.0.0.0`) is reached by the loopback address. Raises AddressError.
    """
    text = text.strip().strip("\"'")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    if scheme and scheme not in _SCHEME_PORTS:
        raise AddressError(f'OLLAMA_HOST "{text}": write HOST:PORT, for example 127.0.0.1:11435')
    bare = rest.partition("/")[0]
    if bare.count(":") > 1 and not bare.startswith("["):
        bare = f"[{bare}]"
    try:
        parts = urlsplit(f"//{bare}")
        host, port = parts.hostname or LOOPBACK, parts.port
    except ValueError as exc:
        raise AddressError(
            f'OLLAMA_HOST "{text}": {exc}; write HOST:PORT, for example 127.0.0.1:11435'
        ) from exc
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104  # Compared, not bound.
    return Address(host, port if port is not None else _SCHEME_PORTS.get(scheme, DEFAULT_PORT))


def free_address() -> Address:
    """Return a loopback port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return Address(LOOPBACK, probe.getsockname()[1])


def listener(port: int, proc: Path = Path("/proc")) -> str | None:
    """Return the program that listens on *port* (`ollama (pid 812)`), where we may see it."""
    inodes = {
        f"socket:[{fields[9]}]"
        for name in ("tcp", "tcp6")
        for fields in _socket_rows(proc / "net" / name)
        if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port
    }
    for descriptor in proc.glob("[0-9]*/fd/*") if inodes else ():
        with contextlib.suppress(OSError):  # Another user's process, or one that just ended.
            if str(descriptor.readlink()) in inodes:
                process = descriptor.parent.parent
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None


def _socket_rows(table: Path) -> list[list[str]]:
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except (OSError, UnicodeDecodeError):
        return []
    return [fields for fields in map(str.split, lines) if len(fields) > 9]


def bare_environ(data: Path, address: Address) -> dict[str, str]:
    """Return an environment in which a daemon sees nothing of the user's: store, config, sockets.

    Every OLLAMA_* variable goes: OLLAMA_MODELS alone would lead to the user's store.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OLLAMA", "XDG_", "NOTIFY_", "LISTEN_"))
        and name not in {"STATE_DIRECTORY", "CONFIGURATION_DIRECTORY", "RUNTIME_DIRECTORY"}
    }
    homes = ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
    for name in (*homes, "XDG_RUNTIME_DIR"):
        folder = data / name.lower()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept[name] = str(folder)
    config = Path(kept["XDG_CONFIG_HOME"], "ollamad", "ollamad.toml")
    config.parent.mkdir(exist_ok=True)
    config.write_text("", encoding="utf-8")  # An empty one, or the system's would be read.
    return {**kept, "HOME": str(data), "OLLAMA_HOST": f"{address.host}:{address.port}"}
