"""What a template's own text says about its model: the tags around thoughts and before tool calls.

Guesses by Ollama's rules, from the main text only. They are wrong for templates that put a tag
together from pieces; such models have a parser of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ollamad.http.prompt.gotemplate.nodes import (
    Action,
    Block,
    Field,
    If,
    Include,
    Pipe,
    Range,
    Text,
    With,
)
from ollamad.http.prompt.gotemplate.template import Template
from ollamad.http.prompt.gotemplate.trees import fields_of, operands_of

DEFAULT_TOOL_TAG: Final = "{"
"""Calls of a model whose template shows no tag are taken for bare JSON."""


def infer_thinking_tags(template: Template) -> tuple[str, str] | None:
    """Return what the model writes before and after its thoughts, or None if it cannot be told.

    Each `.Thinking` within a range over `.Messages` suggests the first and the last text of the
    block it stands in; the last suggestion wins.
    """
    opening = closing = ""
    for block in _blocks_with_thinking(template.root, over_messages=False):
        first, last = block[0], block[-1]
        opening = first.text.strip() if isinstance(first, Text) else opening
        closing = last.text.strip() if isinstance(last, Text) else closing
    return (opening, closing) if opening and closing else None


def _blocks_with_thinking(block: Block, *, over_messages: bool) -> Iterator[Block]:
    """Yield the blocks that mention `.Thinking` themselves, in the order of the text."""
    for node in block:
        match node:
            case Action() | Include():
                if over_messages and _starts_with(node.pipe, "Thinking"):
                    yield block
            case If() | With() | Range():
                inside = over_messages
                if isinstance(node, Range):
                    inside = _starts_with(node.pipe, "Messages")
                # The condition of an `if` stands in the block around it.
                if inside and _starts_with(node.pipe, "Thinking"):
                    yield block
                yield from _blocks_with_thinking(node.body, over_messages=inside)
                yield from _blocks_with_thinking(node.otherwise, over_messages=inside)
            case _:
                pass


def _starts_with(pipe: Pipe | None, name: str) -> bool:
    return any(isinstance(part, Field) and part.path[0] == name for part in operands_of(pipe))


def infer_tool_tag(template: Template) -> str:
    """Return the text that the model writes before a tool call, such as `<tool_call>`.

    It is the first text within the first `if` that mentions `.ToolCalls`, up to a `{`.
    """
    branch = _first_if_of_calls(template.root)
    text = _first_text(branch.body) if branch is not None else ""
    return text.partition("{")[0].strip() or DEFAULT_TOOL_TAG


def _first_if_of_calls(block: Block) -> If | None:
    for node in block:
        if not isinstance(node, If | With | Range):
            continue
        if isinstance(node, If) and "ToolCalls" in fields_of(node.pipe):
            return node
        for inner in (node.body, node.otherwise):
            if (found := _first_if_of_calls(inner)) is not None:
                return found
    return None


def _first_text(block: Block) -> str:
    """Return the first text that is not blank, or nothing.

    Text behind an action or a whole `if` may stand after the call, and is not taken.
    """
    for node in block:
        match node:
            case Text() if node.text.strip():
                return node.text
            case If() | With() | Range():
                return _first_text(node.body) or _first_text(node.otherwise)
            case Action():
                return ""
            case _:
                pass
    return ""
