"""How to think, and what the text must look like, in OpenAI's words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ollamad.http.openai.responsesinput import refused
from ollamad.http.prompt.gotemplate.chat import Think
from ollamad.runners.protocol import Grammar, GrammarKind

_EFFORTS: Final[Mapping[str, Think]] = {
    "": None,
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
}


def think_of(effort: str | None) -> Think:
    """Return how much to think. Raises InvalidBody."""
    if effort is None:
        return None
    if effort not in _EFFORTS:
        known = ", ".join(f'"{word}"' for word in _EFFORTS if word)
        raise refused("reasoning.effort", f"must be one of {known}")
    return _EFFORTS[effort]


def grammar_of(value: Mapping[str, Any]) -> Grammar | None:
    """Return what a request's `text.format` asks the text to be. Raises InvalidBody."""
    match value:
        case {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return Grammar(GrammarKind.JSON)
        case {"type": "json_schema", "schema": dict(schema)}:
            return Grammar(GrammarKind.JSON_SCHEMA, msgspec.json.encode(schema).decode())
        case {"type": "json_schema"}:
            raise refused("text.format.schema", "must be an object, a JSON Schema")
        case _:
            raise refused("text.format.type", 'must be "text", "json_object" or "json_schema"')
