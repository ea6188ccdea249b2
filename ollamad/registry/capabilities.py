"""What a stored model can do, in the order in which Ollama lists it, and which template it uses.

Templates are judged by simple text search, as Ollama judges Jinja ones. For Go templates that is
an approximation: `.Tools` in a comment counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ollamad.modelinfo import GgufFacts

_TOOL_ROLES: Final = ("tool_response", "tool_results", "ipython", "'tool'", '"tool"')
_THINKING: Final = ("enable_thinking", "reasoning_content", "message.reasoning")
_GPTOSS: Final = frozenset({"gptoss", "gpt-oss"})


def is_jinja(template: str) -> bool:
    """Return whether a template layer is Jinja: Go's templates have no `{%`."""
    return "{%" in template


def jinja_capabilities(text: str) -> list[str]:
    """Return what a Jinja chat template suggests, of `tools` and `thinking`."""
    found = []
    if "tools" in text or "tool_call" in text:
        found.append("tools")
    # Ollama looks for the tags only, and misses families that have other ones: Gemma 4, Seed,
    # Command. But their templates all have a switch for it, or show earlier thoughts.
    splits = "split('</think>')" in text or 'split("</think>")' in text
    if ("<think>" in text and "</think>" in text) or splits or any(m in text for m in _THINKING):
        found.append("thinking")
    return found


def go_capabilities(text: str) -> list[str]:
    """Return what a Go template suggests, of `tools`, `insert` and `thinking`."""
    marks = ((".Tools", "tools"), (".Suffix", "insert"), (".Thinking", "thinking"))
    return [capability for mark, capability in marks if mark in text]


def prefers_embedded(template: str | None, chat_template: str) -> bool:
    """Return whether the weights' own chat template is used, rather than the template layer.

    1. There is only one, or none: that one.
    2. The embedded one suggests more: it, unless only the layer can show tool results.
    3. Both suggest the same, with tools: it, if only it can show tool results.
    4. The layer: somebody chose it for this model.
    """
    if template is None or not chat_template:
        return bool(chat_template)
    embedded = set(jinja_capabilities(chat_template))
    layered = set(_layer_capabilities(template)) - {"insert"}
    embedded_returns, layer_returns = _jinja_returns(chat_template), _layer_returns(template)
    if len(embedded) > len(layered):
        return embedded_returns or not layer_returns
    if embedded == layered and "tools" in embedded:
        return embedded_returns and not layer_returns
    return False


def capabilities(
    *,
    stated: Iterable[str],
    facts: GgufFacts,
    projector: GgufFacts | None,
    template: str | None,
    family: str,
) -> tuple[str, ...]:
    """Return everything the model can do, without duplicates.

    *stated* is what its config says; *projector* is the first separate one.
    """
    found = list(stated)
    embedded = prefers_embedded(template, facts.chat_template)
    if embedded:
        found += jinja_capabilities(facts.chat_template)
    found.append("embedding" if facts.is_embedding else "completion")
    for source in (facts, projector):
        if source is not None:
            found += ["vision"] * (source.has_vision or source is projector)
            found += ["audio"] * source.has_audio
    if template is not None and not embedded:
        found += _layer_capabilities(template)
    if facts.infill_tokens and not facts.is_embedding:
        found.append("insert")
    if family in _GPTOSS:
        found.append("thinking")
    return tuple(dict.fromkeys(found))


def _layer_capabilities(template: str) -> list[str]:
    return jinja_capabilities(template) if is_jinja(template) else go_capabilities(template)


def _layer_returns(template: str) -> bool:
    return _jinja_returns(template) if is_jinja(template) else _go_returns(template)


def _jinja_returns(text: str) -> bool:
    """Whether the template can show both a call and its result."""
    calls = "tool_calls" in text or "assistant_tool_call" in text
    return calls and any(mark in text for mark in _TOOL_ROLES)


def _go_returns(text: str) -> bool:
    results = ('eq .Role "tool"', "tool_response", "TOOL_RESULTS")
    return ".Tools" in text and ".ToolCalls" in text and any(mark in text for mark in results)
