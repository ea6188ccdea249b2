"""A stored model for tests of the doors. Named arguments only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ollamad.modelinfo import ModelDetails, StoredMessage, StoredModel, WeightsId
from ollamad.names import ModelName
from tests.values import some_facts

NOON = datetime(2026, 8, 21, 12, 0, 0, tzinfo=UTC)


class FixedClock:
    """Says that it is noon."""

    def now(self) -> datetime:
        return NOON


def a_model(
    *,
    template: str | None = None,
    chat_template: str = "",
    add_bos: bool = False,
    add_eos: bool = False,
    infill_tokens: tuple[str, ...] = (),
    system: str = "",
    messages: Sequence[StoredMessage] = (),
    capabilities: Sequence[str] = ("completion",),
    parameters: Mapping[str, Any] | None = None,
) -> StoredModel:
    """Return a model with this template layer and this template inside its weights.

    Its begin and end of sequence are `<s>` and `</s>`.
    """
    facts = dataclasses.replace(
        some_facts(),
        chat_template=chat_template,
        add_bos=add_bos,
        add_eos=add_eos,
        infill_tokens=infill_tokens,
    )
    return StoredModel(
        name=ModelName.parse("tiny"),
        digest="0" * 64,
        size_bytes=1,
        modified_at=NOON,
        details=ModelDetails(
            parent_model="",
            format="gguf",
            family="llama",
            families=("llama",),
            parameter_size="1B",
            quantization_level="Q4_0",
        ),
        weights_id=WeightsId("tiny"),
        weights_path=Path("/models/tiny"),
        facts=facts,
        template=template,
        system=system,
        parameters=parameters or {},
        messages=tuple(messages),
        capabilities=tuple(capabilities),
    )
