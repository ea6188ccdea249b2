"""`load_config`: defaults, then the TOML file, then the environment, then flags, read once.

Every value carries its origin, and every complaint says where the bad value stands: file and line,
variable or flag. Which settings exist is for `ollamad.config`; how a kind of value is read, for
`ollamad.configvalue`. Nothing here is written to disk.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ollamad import configvalue
from ollamad.adminwire import default_socket
from ollamad.config import MODELS, SECTIONS, SETTINGS, Config, config_from
from ollamad.configvalue import quoted
from ollamad.errors import ConfigError
from ollamad.modelconfig import read_policies, stated_policies
from ollamad.modelpolicy import PolicyBook

FILE_NAME: Final = "ollamad.toml"
SYSTEM_FILE: Final = Path("/etc/ollamad") / FILE_NAME
FILE_BYTES_MAX: Final = 1 << 20
"""A larger file is not a config file; also bounds what a device or pipe can make us read."""

UNUSED_VARIABLES: Final = frozenset(
    {
        "OLLAMA_CLOUD_BASE_URL", "OLLAMA_DEBUG_LOG_REQUESTS", "OLLAMA_GO_TEMPLATE",
        "OLLAMA_IGPU_ENABLE", "OLLAMA_LIBRARY_PATH", "OLLAMA_LLAMA_CPP_COMPAT",
        "OLLAMA_LLM_LIBRARY", "OLLAMA_MAX_TRANSFER_STREAMS", "OLLAMA_NO_CLOUD", "OLLAMA_REMOTES",
        "OLLAMA_SCHED_SPREAD", "OLLAMA_VULKAN",
    }
)  # fmt: skip
"""Variables that Ollama's server acts on and this daemon does not."""

RETIRED_VARIABLES: Final = frozenset(
    {
        "OLLAMA_EXPERIMENT", "OLLAMA_INTEL_GPU", "OLLAMA_MAX_VRAM", "OLLAMA_MULTIUSER_CACHE",
        "OLLAMA_NEW_ENGINE", "OLLAMA_RUNNERS_DIR", "OLLAMA_TMPDIR",
    }
)  # fmt: skip
"""Variables that Ollama itself no longer acts on."""

CLIENT_VARIABLES: Final = frozenset(
    {
        "OLLAMA_AGENT_DISABLE_SHELL", "OLLAMA_AGENT_DISABLE_WEBSEARCH", "OLLAMA_API_KEY",
        "OLLAMA_APP_DB_PATH", "OLLAMA_AUTH", "OLLAMA_CORS", "OLLAMA_DOT_COM_URL", "OLLAMA_EDITOR",
        "OLLAMA_NOHISTORY", "OLLAMA_NO_START", "OLLAMA_VERSION",
    }
)  # fmt: skip
"""Variables for clients and installers: no business of the daemon, and not worth a word."""

VARIABLES: Final = frozenset(known.env for known in SETTINGS.values() if known.env is not None)
"""Variables that set something here."""


class OriginKind(enum.Enum):
    """Where a value can come from, the weakest first."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where one value came from."""

    kind: OriginKind
    detail: str = ""
    """`/etc/ollamad/ollamad.toml:12`, `OLLAMA_HOST` or `--port`."""

    def __str__(self) -> str:
        return self.detail or self.kind.value


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConfig:
    """The config, where each value came from, and what the reader should know about it."""

    config: Config
    origins: Mapping[str, Origin]
    """By key, `section.field`; every setting has one, and what is stated of models."""
    warnings: tuple[str, ...] = ()
    """Lines to log once a log exists."""
    file: Path | None = None
    """The file that was read."""


_Layer = dict[str, tuple[Any, Origin]]  # Any: each setting has its own type.


def load_config(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: Path | None = None,
    *,
    home: Path | None = None,
) -> LoadedConfig:
    """Return the config that *flags*, *environ* and the config file stand for.

    *flags* has keys such as `http.port`; a text is read like a variable's, `None` is "not given".
    Without *file* the place is chosen: the service's configuration folder, the user's, `/etc`.
    Raises ConfigError.
    """
    house = home or _home(environ)
    warnings: list[str] = []
    models_path = default_models_path(environ, house)
    values: _Layer = {
        key: (known.default, Origin(OriginKind.DEFAULT)) for key, known in SETTINGS.items()
    }
    values["store.models_path"] = (models_path, Origin(OriginKind.DEFAULT))
    admin_socket = default_socket(environ, house, is_root=os.geteuid() == 0)
    values["admin.socket_path"] = (admin_socket, Origin(OriginKind.DEFAULT))
    text, path = _find_file(file, environ, house)
    models, places = PolicyBook(), dict[str, str]()
    if path is not None:
        tables = _parse_toml(text, path)
        models, places = _policies_from(tables.pop(MODELS, {}), text, path)
        values |= _from_file(tables, text, path, house)
    values |= _from_environment(environ, house, warnings)
    values |= _from_flags(flags, house)
    return LoadedConfig(
        config=config_from({key: value for key, (value, _) in values.items()}, models),
        origins={key: origin for key, (_, origin) in values.items()}
        | {key: Origin(OriginKind.FILE, place) for key, place in places.items()},
        warnings=tuple(warnings),
        file=path,
    )


# Places.


def _home(environ: Mapping[str, str]) -> Path:
    try:
        return Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    except RuntimeError as exc:
        raise ConfigError("your home folder is unknown, set HOME") from exc


def _xdg(environ: Mapping[str, str], name: str, fallback: Path) -> Path:
    """Return a folder of the XDG standard, which wants relative ones ignored."""
    given = environ.get(name, "")
    return Path(given) if given.startswith("/") else fallback


def default_models_path(environ: Mapping[str, str], home: Path) -> Path:
    """Return where models are kept if nobody says: in the service's state, or the user's data."""
    state = environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd lists all of them.
    if state:
        return Path(state) / "models"
    return _xdg(environ, "XDG_DATA_HOME", home / ".local" / "share") / "ollamad" / "models"


def config_candidates(environ: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """Return where a config file is looked for if none is named; the first that exists counts."""
    service = environ.get("CONFIGURATION_DIRECTORY", "").partition(":")[0]
    if service:
        return (Path(service) / FILE_NAME,)
    user = _xdg(environ, "XDG_CONFIG_HOME", home / ".config")
    return (user / "ollamad" / FILE_NAME, SYSTEM_FILE)


def _find_file(
    file: Path | None, environ: Mapping[str, str], home: Path
) -> tuple[str, Path | None]:
    for candidate in (file,) if file else config_candidates(environ, home):
        try:
            with candidate.open("rb") as opened:
                content = opened.read(FILE_BYTES_MAX + 1)
        except (FileNotFoundError, NotADirectoryError) as exc:
            if file:
                raise ConfigError(f"{file}: there is no such config file") from exc
            continue
        except (OSError, ValueError) as exc:  # ValueError: a NUL in the name.
            raise ConfigError(f"{candidate}: cannot read the config file: {exc}") from exc
        if len(content) > FILE_BYTES_MAX:
            raise ConfigError(f"{candidate}: a config file has {FILE_BYTES_MAX} bytes at most")
        try:
            return content.decode(), candidate
        except UnicodeDecodeError as exc:
            line = content.count(b"\n", 0, exc.start) + 1
            raise ConfigError(f"{candidate}:{line}: the file is not UTF-8 text") from exc
    return "", None


# The file.


def _policies_from(table: object, text: str, path: Path) -> tuple[PolicyBook, dict[str, str]]:
    return read_policies(table, lambda keys: f"{path}:{line_of(text, keys)}")


def _from_file(tables: Mapping[str, object], text: str, path: Path, home: Path) -> _Layer:
    layer: _Layer = {}
    for section, table in tables.items():
        at = f"{path}:{line_of(text, (section,))}"
        if section not in SECTIONS:
            raise ConfigError(f"{at}: {_unknown_section(section, table)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{at}: {section} is a section, write [{section}] above its settings")
        for name, native in table.items():
            at = f"{path}:{line_of(text, (section, name))}"
            key = f"{section}.{name}"
            if key not in SETTINGS:
                raise ConfigError(f"{at}: {_unknown_key(section, name)}")
            try:
                value = _resolved(SETTINGS[key].read(native), home, from_file=True)
            except ValueError as exc:
                raise ConfigError(f"{at}: {key} {exc}") from exc
            layer[key] = (value, Origin(OriginKind.FILE, at))
    return layer


def _parse_toml(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(exc))
        if found is None:
            raise ConfigError(f"{path}: {exc}") from exc
        line = found[2] or str(len(text.rstrip().split("\n")))
        raise ConfigError(f"{path}:{line}: {found[1]}") from exc
    except (ValueError, RecursionError) as exc:
        # Numbers of thousands of digits and arrays a thousand deep are the reader's limits.
        raise ConfigError(f"{path}: cannot be read as TOML: {exc}") from exc


_PART: Final = r"""(?:[A-Za-z0-9_-]+|"[^"\\]*"|'[^']*')"""
_DOTTED: Final = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_HEADER: Final = re.compile(rf"[ \t]*\[{{1,2}}[ \t]*({_DOTTED})[ \t]*\]")
_LONG_QUOTES: Final = ('"""', "'''")
_KEY: Final = re.compile(rf"[ \t]*({_DOTTED})[ \t]*=")


def line_of(text: str, path: Sequence[str]) -> int:
    """Return the line of valid TOML *text* that sets *path*, for messages.

    `tomllib` keeps no positions. Where the key is written in a way that this scan does not know
    (escapes in its name), the line of its section is returned, or 1.
    """
    wanted, best, until = tuple(path), 1, ""
    section: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), 1):
        if until:  # Inside a text of several lines.
            until = "" if until in line else until
            continue
        if not line.lstrip().startswith("#"):
            until = next((quotes for quotes in _LONG_QUOTES if line.count(quotes) % 2), "")
        if found := _HEADER.match(line):
            section = _parts(found[1])
            here = section
        elif found := _KEY.match(line):
            here = section + _parts(found[1])
        else:
            continue
        if here[: len(wanted)] == wanted:
            return number
        if best == 1 and here == wanted[: len(here)]:
            best = number
    return best


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_PART, dotted))


def _unknown_section(section: str, table: object) -> str:
    if not isinstance(table, dict):
        owners = [key for key in SETTINGS if key.endswith(f".{section}")]
        if owners:
            owner = owners[0].partition(".")[0]
            return f"{quoted(section)} stands outside a section, move it below [{owner}]"
    known = [*SECTIONS, MODELS]
    near = difflib.get_close_matches(section, known, n=1)
    hint = f"did you mean [{near[0]}]?" if near else f"known are {', '.join(known)}"
    return f"unknown section {quoted(section)}, {hint}"


def _unknown_key(section: str, name: str) -> str:
    siblings = [key.partition(".")[2] for key in SETTINGS if key.startswith(f"{section}.")]
    others = [key for key in SETTINGS if key.endswith(f".{name}")]
    near = difflib.get_close_matches(name, siblings, n=1)
    if others:
        hint = f"did you mean the one of [{others[0].partition('.')[0]}]?"
    elif near:
        hint = f"did you mean {near[0]}?"
    else:
        hint = f"known are {', '.join(siblings)}"
    return f"unknown setting {quoted(name)} in [{section}], {hint}"


# The environment and flags.


def _from_environment(environ: Mapping[str, str], home: Path, warnings: list[str]) -> _Layer:
    layer: _Layer = {}
    given = {
        name: text
        for name in sorted(environ)
        if (name.startswith("OLLAMA_") or name in VARIABLES)
        and (text := configvalue.trimmed(environ[name]))
    }
    for key, known in SETTINGS.items():
        if known.env is None or known.env not in given:
            continue
        try:
            value = _resolved(known.read_env(given[known.env]), home)
        except ValueError as exc:
            raise ConfigError(f"{known.env} (for {key}) {exc}") from exc
        if value is not None:
            layer[key] = (value, Origin(OriginKind.ENVIRONMENT, known.env))
    if "OLLAMA_HOST" in given:
        complaint = configvalue.parse_address(given["OLLAMA_HOST"]).complaint
        warnings += [f"OLLAMA_HOST: {complaint}"] if complaint else []
    warnings += filter(None, map(_about_variable, given))
    return layer


def _about_variable(name: str) -> str:
    """Return what a user should know about a variable that sets nothing, or nothing."""
    if name in VARIABLES | CLIENT_VARIABLES:
        return ""
    if name in UNUSED_VARIABLES:
        return f"{name} is set, but has no effect in ollamad yet"
    if name in RETIRED_VARIABLES:
        return f"{name} is set, but no longer has an effect, in Ollama neither; remove it"
    near = difflib.get_close_matches(name, sorted(VARIABLES | UNUSED_VARIABLES), n=1, cutoff=0.7)
    hint = f"did you mean {near[0]}?" if near else "remove it"
    return f"{quoted(name)[1:-1]} is set, but nothing reads it, {hint}"


def _from_flags(flags: Mapping[str, object], home: Path) -> _Layer:
    layer: _Layer = {}
    for key, given in flags.items():
        if given is None:
            continue
        known = SETTINGS.get(key)
        if known is None:
            near = difflib.get_close_matches(key, SETTINGS, n=1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise ConfigError(f"unknown setting {quoted(key)}{hint}")
        detail = known.flag or f"--set {key}"
        try:
            value = known.read_text(given) if isinstance(given, str) else known.read(given)
            layer[key] = (_resolved(value, home), Origin(OriginKind.FLAG, detail))
        except ValueError as exc:
            raise ConfigError(f"{detail} {exc}") from exc
    return layer


def _resolved(value: Any, home: Path, *, from_file: bool = False) -> Any:
    """Return *value*, of any setting, and absolute if it is a path. Raises ValueError."""
    if not isinstance(value, Path):
        return value
    if value.parts[:1] == ("~",):
        return home.joinpath(*value.parts[1:])
    if value.is_absolute():
        return value
    if from_file:  # What it is relative to would depend on where the daemon is started.
        raise ValueError(f"must be an absolute path, not {quoted(str(value))}")
    try:
        return value.absolute()
    except OSError as exc:
        raise ValueError(f"is relative to a folder that is gone: {quoted(str(value))}") from exc


# Showing.


def _shown(loaded: LoadedConfig) -> Iterator[tuple[str, object, Origin]]:
    for key, known in SETTINGS.items():
        yield key, known.kind.show(loaded.config.value(key)), loaded.origins[key]
    for key, native in stated_policies(loaded.config.models):
        yield key, native, loaded.origins[key]


def render_config(loaded: LoadedConfig) -> str:
    """Return a table of all settings: key, value as a TOML file would have it, origin."""
    rows = [
        (key, configvalue.toml_literal(native), str(origin))
        for key, native, origin in _shown(loaded)
    ]
    key_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{key:<{key_width}}  {value:<{value_width}}  {at}" for key, value, at in rows]
    text = "\n".join(lines) + "\n"
    # A path from the environment may hold bytes that are no text and that no stream would take.
    return text.encode("utf-8", "backslashreplace").decode()


def config_as_json(loaded: LoadedConfig) -> str:
    """Return all settings as one JSON object: key to value and origin."""
    return json.dumps(
        {
            key: {"value": native, "origin": origin.kind.value, "detail": origin.detail}
            for key, native, origin in _shown(loaded)
        },
        indent=2,
    )
