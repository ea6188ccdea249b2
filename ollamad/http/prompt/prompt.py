"""`Prompt` and `Message`: what goes into a template, and what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]
"""One message as the API has it: `role`, `content` and what else there is."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """Text for the model."""

    text: str
    add_special: bool = True
    """Let the tokenizer put its begin-of-sequence token in front."""
    tokens: tuple[int, ...] = ()
    """What is sent instead of the text, when its middle was cut out. The text is still the whole
    one: its end tells in which state an answer begins."""
