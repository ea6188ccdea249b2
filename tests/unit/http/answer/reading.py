"""Reads an answer in pieces, as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ollamad.http.answer.format import AnswerFormat
from ollamad.http.answer.parts import Call, Parts


def a_tool(name: str, **properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool that must be given all of its parameters."""
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


ADD = a_tool("add", a={"type": "integer"}, b={"type": "integer"})
SAY = a_tool("say", what={"type": "string"})


def read(
    form: AnswerFormat,
    answer: str,
    *,
    prompt: str = "",
    tools: Sequence[Mapping[str, Any]] | None = (ADD, SAY),
    size: int = 1,
) -> Parts:
    """Return what *answer* consists of, fed in pieces of *size* characters."""
    parser = form.parser(prompt, tools)
    assert parser is not None
    parts = Parts()
    for begin in range(0, len(answer), size):
        parts.add(parser.feed(answer[begin : begin + size]))
    parts.add(parser.finish())
    return parts


def spelled(calls: Sequence[Call]) -> list[tuple[str, dict[str, Any]]]:
    """Return names and arguments."""
    return [(call.name, dict(call.arguments)) for call in calls]
