"""The config blob of a model being created: from the weights, the base, and the caller's `info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ollamad.errors import InvalidBody
from ollamad.modelinfo import GgufFacts
from ollamad.registry.manifest import ModelConfig
from ollamad.units import format_count

CAPABILITIES_MAX: Final = 32
INFO_TEXT_CHARS_MAX: Final = 1024

_TEXT_FIELDS: Final = {
    "model_family": "model_family",
    "base_name": "base_name",
    "quantization_level": "file_type",
    "parameter_size": "model_type",
}
_NUMBER_FIELDS: Final = ("context_length", "embedding_length")


def config_of(
    facts: GgufFacts,
    families: tuple[str, ...],
    *,
    base: ModelConfig,
    renderer: str,
    parser: str,
    requires: str,
    info: Mapping[str, Any],
) -> ModelConfig:
    """Return the config. *base* is what the model was made from, empty if from files.

    Raises InvalidBody for an `info` that cannot be meant.
    """
    stated = info_fields(info)
    config = ModelConfig(
        model_format=base.model_format or "gguf",
        model_family=facts.architecture,
        model_families=families,
        model_type=format_count(facts.n_params),
        file_type=facts.file_type,
        renderer=renderer or base.renderer,
        parser=parser or base.parser,
        requires=(requires or base.requires).removeprefix("v"),
        capabilities=base.capabilities,
    )
    if "capabilities" in stated:
        listed = (*(base.capabilities or ()), *stated.pop("capabilities"))
        stated["capabilities"] = tuple(dict.fromkeys(listed))
    if "model_family" in stated:
        stated["model_families"] = (stated["model_family"],)
    return msgspec.structs.replace(config, **stated)


def info_fields(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config fields that a request's `info` sets. Raises InvalidBody."""
    fields: dict[str, Any] = {}
    for name, field in _TEXT_FIELDS.items():
        value = info.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or len(value) > INFO_TEXT_CHARS_MAX:
            raise InvalidBody(f'info field "{name}" must be a string')
        fields[field] = value
    for name in _NUMBER_FIELDS:
        value = info.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidBody(f'info field "{name}" must be a number')
        if not 0 <= value < 2**53 or value != int(value):
            raise InvalidBody(f'info field "{name}" must be a non-negative integer')
        fields[name] = int(value)
    listed = info.get("capabilities")
    if listed is not None:
        is_texts = isinstance(listed, list | tuple) and all(isinstance(i, str) for i in listed)
        if not is_texts or len(listed) > CAPABILITIES_MAX:
            raise InvalidBody(
                f'info field "capabilities" must be a list of at most {CAPABILITIES_MAX} strings'
            )
        fields["capabilities"] = tuple(listed)
    return fields
