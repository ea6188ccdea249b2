"""`Setting` and `ValueKind`: how a setting is described, read, checked and written.

A value comes as a TOML value, or as text (environment, flags) that is first *lifted* to what TOML
would have given. All failures are ValueErrors that end the sentence "KEY ...". Which settings
exist is for `ollamad.config`, where their values come from for `ollamad.configfile`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from ollamad.units import GIB, KIB, MIB, parse_bytes, parse_duration_s

TEXT_CHARS_MAX: Final = 4096
"""Characters of one text value: enough for any path."""
ORIGINS_MAX: Final = 256
"""Entries of a list of origins: each request with an Origin header is compared with all."""

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 11434

METADATA_KEY: Final = "ollamad.setting"
"""Where a dataclass field's metadata has its `Setting`."""

T = TypeVar("T")

_SCHEME_PORTS: Final = {"http": 80, "https": 443}
_ORIGIN_SCHEMES: Final = (
    "http://",
    "https://",
    "chrome-extension://",
    "safari-extension://",
    "moz-extension://",
    "ms-browser-extension://",
)
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TRUE: Final = frozenset({"1", "t", "true", "y", "yes", "on"})
_FALSE: Final = frozenset({"0", "f", "false", "n", "no", "off"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ValueKind:
    """One kind of value. `Any` is the type of whichever setting has this kind."""

    expects: str
    """What is accepted, for the reference: it follows "Takes"."""
    read: Callable[[object], Any]
    """From a TOML value to the setting's value. Raises ValueError."""
    show: Callable[[Any], object]
    """From the setting's value to a TOML and JSON value that reads as the same."""
    lift: Callable[[str], object] = str
    """From text to a TOML value. Raises ValueError."""


def trimmed(text: str) -> str:
    """Return an environment value as Ollama reads it: without spaces and quotes around it."""
    return text.strip().strip("\"'")


def quoted(value: object) -> str:
    """Return *value* for a message: on one line, quoted if it is text, and not endless."""
    if isinstance(value, dict | list | tuple):  # May be nested deeper than json can follow.
        return "a table" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=not str(value).isprintable(), default=str)
    return text if len(text) <= 80 else f"{text[:79]}…"


def toml_literal(native: object) -> str:
    """Return what stands behind `=` in a TOML file for a value that `ValueKind.show` gave."""
    if isinstance(native, dict):
        pairs = ", ".join(f"{_toml_key(name)} = {toml_literal(native[name])}" for name in native)
        return f"{{ {pairs} }}" if pairs else "{}"
    return json.dumps(native, ensure_ascii=False)  # For these types TOML and JSON agree.


def _toml_key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)


# Numbers, durations, bytes.


def _read_count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, not {quoted(value)}")  # noqa: TRY004 - a user's
    return value


def _lift_count(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"must be a whole number, not {quoted(text)}") from None


def _read_any_seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f'must be seconds or a duration such as "1m30s", not {quoted(value)}')  # noqa: TRY004
    try:
        seconds = parse_duration_s(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f'must be seconds or a duration such as "1m30s", not {quoted(value)}')
    return seconds


def _read_seconds(value: object) -> float:
    seconds = _read_any_seconds(value)
    if seconds < 0:
        raise ValueError(f"must not be negative, but is {quoted(value)}")
    return seconds


def _read_keep_alive(value: object) -> float:
    seconds = _read_any_seconds(value)
    return math.inf if seconds < 0 else seconds


def _read_patience(value: object) -> float:
    seconds = _read_any_seconds(value)
    return math.inf if seconds <= 0 else seconds


def _lift_seconds(text: str) -> object:
    return float(text) if _NUMBER.fullmatch(text) else text


def _show_seconds(seconds: float) -> object:
    return int(seconds) if seconds.is_integer() else seconds


def _read_bytes(value: object) -> int:
    amount = -1
    if isinstance(value, int) and not isinstance(value, bool):
        amount = value
    elif isinstance(value, str):
        try:
            amount = parse_bytes(value)
        except (ValueError, OverflowError):
            amount = -1
    if amount < 0:
        raise ValueError(f'must be bytes or an amount such as "512MiB", not {quoted(value)}')
    return amount


def _show_bytes(amount: int) -> object:
    for unit_bytes, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if amount and amount % unit_bytes == 0:
            return f"{amount // unit_bytes}{unit}"
    return amount


COUNT: Final = ValueKind(expects="a whole number", read=_read_count, show=int, lift=_lift_count)
SECONDS: Final = ValueKind(
    expects='seconds, or a duration such as `"1m30s"`',
    read=_read_seconds,
    show=_show_seconds,
    lift=_lift_seconds,
)
KEEP_ALIVE: Final = ValueKind(
    expects='seconds, or a duration such as `"5m"`; negative is forever',
    read=_read_keep_alive,
    show=lambda seconds: -1 if math.isinf(seconds) else _show_seconds(seconds),
    lift=_lift_seconds,
)
PATIENCE: Final = ValueKind(
    expects='seconds, or a duration such as `"5m"`; 0 or negative is without end',
    read=_read_patience,
    show=lambda seconds: 0 if math.isinf(seconds) else _show_seconds(seconds),
    lift=_lift_seconds,
)
BYTES: Final = ValueKind(
    expects='bytes, or an amount such as `"512MiB"`', read=_read_bytes, show=_show_bytes
)


# Switches and choices.


def _switch_of(text: str) -> bool | None:
    lowered = text.lower()
    return True if lowered in _TRUE else False if lowered in _FALSE else None


def _read_switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {quoted(value)}")  # noqa: TRY004 - a user's
    return value


def lift_switch(text: str) -> bool:
    """Return the boolean that *text* stands for. Raises ValueError.

    Ollama takes any other text for true, also `off`: here that is an error or means what it says.
    """
    found = _switch_of(text)
    if found is None:
        raise ValueError(f"must be true or false (or 1 or 0), not {quoted(text)}")
    return found


def _read_maybe_switch(value: object) -> bool | None:
    if value == "auto" or isinstance(value, bool):
        return None if value == "auto" else bool(value)
    raise ValueError(f'must be true, false or "auto", not {quoted(value)}')


def _lift_maybe_switch(text: str) -> object:
    found = _switch_of(text)
    return text.lower() if found is None else found


SWITCH: Final = ValueKind(expects="true or false", read=_read_switch, show=bool, lift=lift_switch)
MAYBE_SWITCH: Final = ValueKind(
    expects='true, false or `"auto"`',
    read=_read_maybe_switch,
    show=lambda value: "auto" if value is None else value,
    lift=_lift_maybe_switch,
)


def one_of(*choices: str, booleans: bool = False) -> ValueKind:
    """Return the kind of a text that is one of *choices*, in any case.

    With *booleans*, true is `on` and false is `off`.
    """
    listed = ", ".join(choices[:-1]) + f" or {choices[-1]}"

    def read(value: object) -> str:
        if booleans and isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, str) and value.lower() in choices:
            return value.lower()
        raise ValueError(f"must be {listed}, not {quoted(value)}")

    def lift(text: str) -> object:
        found = _switch_of(text) if booleans else None
        return text if found is None else found

    return ValueKind(expects=listed, read=read, show=str, lift=lift)


# Texts, paths, addresses.


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a text, not {quoted(value)}")  # noqa: TRY004 - a user's value
    if len(value) > TEXT_CHARS_MAX or _CONTROL.search(value):
        raise ValueError(f"must be at most {TEXT_CHARS_MAX} characters without control characters")
    return value


def _read_path(value: object) -> Path:
    text = _read_text(value)
    if not text:
        raise ValueError("must not be empty")
    return Path(text)


def _read_origins(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > ORIGINS_MAX:
        raise ValueError(f"must be a list of at most {ORIGINS_MAX} texts, not {quoted(value)}")
    origins = tuple(_read_text(item).strip() for item in value)
    for origin in origins:
        if origin.count("*") > 1:
            raise ValueError(f"may have one * in an origin, not {quoted(origin)}")
        if "*" not in origin and not origin.lower().startswith(_ORIGIN_SCHEMES):
            schemes = ", ".join(_ORIGIN_SCHEMES)
            raise ValueError(f"has {quoted(origin)}, which must contain * or start with {schemes}")
    return origins


def _read_host(value: object) -> str:
    text = _read_text(value)
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in host and not _is_ip(host):
        raise ValueError(f"must be a host without a port (set that as port), not {quoted(text)}")
    if any(char.isspace() or char in "/[]@?#" for char in host):
        raise ValueError(f"must be a host name or an IP address, not {quoted(text)}")
    return host


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """What a value of `OLLAMA_HOST` stands for."""

    host: str
    """Empty means all interfaces."""
    port: int
    complaint: str = ""
    """Why the port is not the one that was written; empty if it is."""


def parse_address(text: str) -> Address:
    """Return the address that `OLLAMA_HOST` gives, with Ollama's defaults.

    A port that is none is replaced by the default, as Ollama does. Raises ValueError if the host
    is none. A path is ignored: only clients use it.
    """
    scheme, separator, rest = text.partition("://")
    port = _SCHEME_PORTS.get(scheme, DEFAULT_PORT) if separator else DEFAULT_PORT
    if text == "ollama.com":
        port = _SCHEME_PORTS["https"]
    host_port = (rest if separator else text).partition("/")[0]
    host, port_text = _split_port(host_port)
    if port_text is None:
        return Address(_read_host(host) or DEFAULT_HOST, port)
    if not re.fullmatch(r"\d{1,5}", port_text, re.ASCII) or int(port_text) > 65535:
        complaint = f"{quoted(port_text)} is not a port, using {port}"
        return Address(_read_host(host), port, complaint)
    return Address(_read_host(host), int(port_text))


def _split_port(host_port: str) -> tuple[str, str | None]:
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", host_port)
    if bracketed is not None:
        return bracketed[1], bracketed[2]
    if host_port.count(":") != 1:  # None, or those of an IPv6 address.
        return host_port, None
    host, _, port = host_port.partition(":")
    return host, port


TEXT: Final = ValueKind(expects="a text", read=_read_text, show=str)
HOST: Final = ValueKind(expects="a host name or an IP address", read=_read_host, show=str)
PATH: Final = ValueKind(
    expects="an absolute path; a leading `~/` is the home folder", read=_read_path, show=str
)
ORIGINS: Final = ValueKind(
    expects="a list of texts, in the environment separated by commas",
    read=_read_origins,
    show=list,
    lift=lambda text: [item.strip() for item in text.split(",") if item.strip()],
)


def inverted_switch(text: str) -> object:
    """Return the opposite of the switch that *text* is, for `OLLAMA_NOPRUNE`."""
    return not lift_switch(text)


def debug_level(text: str) -> object:
    """Return the level for `OLLAMA_DEBUG`: a boolean, or a number that grows with detail."""
    if text.isdecimal():
        return "debug" if int(text[:9]) else None
    return "debug" if lift_switch(text) else None


# Settings.


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known of one field besides its type and default."""

    kind: ValueKind
    doc: str
    env: str | None = None
    """The environment variable that sets it."""
    from_env: Callable[[str], object] | None = None
    """Reads that variable where the kind does not. `None` from it is "says nothing"."""
    flag: str | None = None
    """The flag of `ollamad serve` that sets it."""
    minimum: float | None = None
    maximum: float | None = None
    reloadable: bool = False
    """Whether a reload applies it; the others need a restart."""
    default: Any = None
    """The field's default, of the field's type. `None` with *default_doc* has to be computed."""
    default_doc: str | None = None
    """The default in words where it depends on the machine."""

    def read(self, native: object) -> Any:
        """Return the value (of the field's type) for a TOML value. Raises ValueError."""
        value = self.kind.read(native)
        if self.minimum is not None and value < self.minimum:
            raise ValueError(f"must be at least {self.minimum:g}, but is {quoted(native)}")
        if self.maximum is not None and value > self.maximum:
            raise ValueError(f"must be at most {self.maximum:g}, but is {quoted(native)}")
        return value

    def read_text(self, text: str) -> Any:
        """Return the value for what a flag says. Raises ValueError."""
        return self.read(self.kind.lift(text))

    def read_env(self, text: str) -> Any:
        """Return the value for its variable, `None` if that says nothing. Raises ValueError."""
        if self.from_env is None:
            return self.read_text(text)
        native = self.from_env(text)
        return None if native is None else self.read(native)


def setting(kind: ValueKind, default: T, doc: str, **facts: Any) -> T:
    """Return a dataclass field of this kind; *facts* are fields of `Setting`."""
    # Any: each fact has the type that Setting declares for it.
    known = Setting(kind=kind, default=default, doc=doc, **facts)
    return dataclasses.field(default=default, metadata={METADATA_KEY: known})
