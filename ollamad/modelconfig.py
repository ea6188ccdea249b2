"""The `[models."NAME"]` tables of the configuration file: what is laid down for single models.

They have settings like all others, but as many tables as there are models to say something about.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from ollamad import configdevices
from ollamad import configvalue as kinds
from ollamad.config import N_CTX_MAX, N_SLOTS_MAX, KvType
from ollamad.configvalue import Setting, quoted
from ollamad.errors import ConfigError, InvalidName
from ollamad.modelpolicy import ModelPolicy, PolicyBook
from ollamad.names import ModelName

SECTION: Final = "models"
SECTION_DOC: Final = (
    'Rules for single models, a table for each, such as `[models."llama3.2:3b"]`. Names are those '
    "that requests use; without a tag, `latest` is meant. Rules about devices bind every request; "
    "the others hold where a request states nothing. All of this can be reloaded; what is in "
    "memory then keeps what it was loaded with."
)
POLICIES_MAX: Final = 1024
"""Models that rules can be laid down for."""
PRIORITY_MAX: Final = 100

POLICY_SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(
    {
        "devices": Setting(
            kind=configdevices.DEVICES,
            doc="The devices that the model may use. Without `host` among them, all its layers "
            "are on those GPUs or it is not loaded; with it, what does not fit stays in main "
            "memory. Empty is any.",
            default=(),
            reloadable=True,
        ),
        "cpu_only": Setting(
            kind=kinds.SWITCH,
            doc="Whether the model is kept off GPUs, whatever a request asks for.",
            default=False,
            reloadable=True,
        ),
        "pinned": Setting(
            kind=kinds.SWITCH,
            doc="Whether the model stays once it is loaded: it is neither evicted for others nor "
            "unloaded because nobody uses it.",
            default=False,
            reloadable=True,
        ),
        "preload": Setting(
            kind=kinds.SWITCH,
            doc="Whether the model is loaded when the daemon starts.",
            default=False,
            reloadable=True,
        ),
        "priority": Setting(
            kind=kinds.COUNT,
            doc="Requests for a model of a higher priority go first; waiting makes up for it.",
            default=0,
            minimum=-PRIORITY_MAX,
            maximum=PRIORITY_MAX,
            reloadable=True,
        ),
        "parallel": Setting(
            kind=kinds.COUNT,
            doc="Requests that the model answers at the same time. 0 is what `runner.n_slots` "
            "says.",
            default=0,
            minimum=0,
            maximum=N_SLOTS_MAX,
            reloadable=True,
        ),
        "n_ctx": Setting(
            kind=kinds.COUNT,
            doc="Tokens of context that each request gets, unless it states a number itself. 0 is "
            "what `runner.n_ctx` says.",
            default=0,
            minimum=0,
            maximum=N_CTX_MAX,
            reloadable=True,
        ),
        "kv_type": Setting(
            kind=kinds.one_of(*typing.get_args(KvType)),
            doc="How the model's context is stored, unless a request states it.",
            default="",
            default_doc="that of `runner.kv_type`",
            reloadable=True,
        ),
        "keep_alive": Setting(
            kind=kinds.KEEP_ALIVE,
            doc="How long the model stays in memory after its last request, unless a request "
            "states it.",
            default=None,
            default_doc="that of `scheduling.keep_alive_s`",
            reloadable=True,
        ),
    }
)
"""What can be said of a model, by its name in the file."""

_FIELDS: Final = {name: name for name in POLICY_SETTINGS} | {"keep_alive": "keep_alive_s"}
"""The field of `ModelPolicy` for each setting."""

At = Callable[[Sequence[str]], str]
"""Where in the file a path of keys is set, for messages."""


def read_policies(table: object, at: At) -> tuple[PolicyBook, dict[str, str]]:
    """Return the policies of the section `models`, and where each value stands. Raises ConfigError.

    The keys of the places are as `policy_key` makes them.
    """
    if not isinstance(table, dict):
        raise ConfigError(f'{at((SECTION,))}: models is a section, write [models."NAME"]')
    if len(table) > POLICIES_MAX:
        raise ConfigError(f"{at((SECTION,))}: at most {POLICIES_MAX} models can have rules")
    policies: dict[ModelName, ModelPolicy] = {}
    places: dict[str, str] = {}
    for text, settings in table.items():
        here = at((SECTION, text))
        name = _name(text, here)
        if any(known.key == name.key for known in policies):
            raise ConfigError(f"{here}: there are rules for {name.display} already")
        if not isinstance(settings, dict):
            raise ConfigError(
                f"{here}: unknown setting {quoted(text)} in [models], its tables are for models: "
                'write [models."NAME"]'
            )
        values = {
            key: _value(key, native, text, at((SECTION, text, key)))
            for key, native in settings.items()
        }
        if values.get("cpu_only") and set(values.get("devices", ())) - {"host"}:
            raise ConfigError(f"{here}: cpu_only and the GPUs in devices contradict each other")
        policies[name] = ModelPolicy(**{_FIELDS[key]: value for key, value in values.items()})
        places |= {policy_key(name, key): at((SECTION, text, key)) for key in values}
    return PolicyBook(tuple(policies.items())), places


def policy_key(name: ModelName, setting: str) -> str:
    """Return the key of one value, as messages and `ollamad config` show it."""
    return f'{SECTION}."{name.display}".{setting}'


def stated_policies(book: PolicyBook) -> Iterator[tuple[str, object]]:
    """Yield key and value of all that is stated, the value as a TOML file would have it."""
    unstated = ModelPolicy()
    for name, policy in book.policies:
        for setting, known in POLICY_SETTINGS.items():
            value = getattr(policy, _FIELDS[setting])
            if value != getattr(unstated, _FIELDS[setting]):
                yield policy_key(name, setting), known.kind.show(value)


def _name(text: str, here: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except InvalidName as exc:
        raise ConfigError(f"{here}: {quoted(text)} is no model's name") from exc


def _value(key: str, native: object, text: str, here: str) -> Any:  # Each has its own type.
    known = POLICY_SETTINGS.get(key)
    if known is None:
        near = difflib.get_close_matches(key, POLICY_SETTINGS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(POLICY_SETTINGS)}"
        raise ConfigError(
            f"{here}: unknown setting {quoted(key)} in [models.{quoted(text)}], {hint}"
        )
    try:
        return known.read(native)
    except ValueError as exc:
        raise ConfigError(f"{here}: models.{quoted(text)}.{key} {exc}") from exc


if set(_FIELDS.values()) != {field.name for field in dataclasses.fields(ModelPolicy)}:
    raise AssertionError("every field of ModelPolicy needs its setting")
