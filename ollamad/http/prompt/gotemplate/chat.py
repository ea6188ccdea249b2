"""A conversation through a Go template: Ollama's three ways to execute one. Pure.

1. *Suffix*: prompt and suffix, one execution (`render_suffix`).
2. *Messages*, when the template mentions `.Messages`: one execution over the whole conversation.
3. *Legacy*, for templates of System, Prompt and Response: one execution for each turn.

Not here: which messages are sent at all (truncation, a model's own system text), and the image tags
in their contents; the caller has put those in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

from ollamad.http.prompt.gotemplate.evaluate import Budget
from ollamad.http.prompt.gotemplate.nodes import Action, Block, Command, Field, Pipe
from ollamad.http.prompt.gotemplate.template import Template
from ollamad.http.prompt.gotemplate.tools import Tool, ToolCall, tool_call, tool_list
from ollamad.http.prompt.gotemplate.trees import cut_after
from ollamad.http.prompt.gotemplate.values import JsonList, Record
from ollamad.wallclock import WallClock

Think: TypeAlias = bool | Literal["low", "medium", "high", "max"] | None
"""What a request says of thinking; `None` is nothing."""

_BETWEEN_MERGED: Final = "\n\n"
_RESPONSE: Final = Action(1, Pipe(1, (Command(1, (Field(1, ("Response",)),)),)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """One message, as templates need it."""

    role: str
    content: str = ""
    thinking: str = ""
    images: int = 0
    """How many images it has. Templates can count them; the pixels go another way."""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class _Turn:
    """What one execution of a legacy template is about."""

    system: str = ""
    prompt: str = ""
    response: str = ""

    @property
    def fields(self) -> dict[str, object]:
        return {"System": self.system, "Prompt": self.prompt, "Response": self.response}


def render_chat(
    template: Template,
    messages: Sequence[ChatMessage],
    *,
    clock: WallClock,
    tools: Sequence[Tool] = (),
    think: Think = None,
) -> str:
    """Return the prompt that *template* makes of the conversation.

    Raises TemplateBroken, and InvalidBody for a tool whose schema has the wrong shape.
    """
    collated = collate(messages)
    if "messages" not in template.identifiers:
        return _render_legacy(template, collated, _think_fields(think), clock)
    data: dict[str, object] = {
        "System": _BETWEEN_MERGED.join(m.content for m in messages if m.role == "system"),
        "Messages": tuple(_message(message) for message in collated),
        "Tools": tool_list(tools),
        "Response": "",
        **_think_fields(think),
    }
    return template.render(data, clock=clock)


def render_suffix(
    template: Template, prompt: str, suffix: str, *, clock: WallClock, think: Think = None
) -> str:
    """Return the prompt for text to be filled in between *prompt* and *suffix*.

    Raises TemplateBroken.
    """
    data = {"Prompt": prompt, "Suffix": suffix, "Response": "", **_think_fields(think)}
    return template.render(data, clock=clock)


def collate(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return *messages* with neighbours of one role merged; tools' results stay apart.

    Contents are joined by a blank line, as in Ollama. Calls, images and thinking of the later
    message are kept too: Ollama loses them, and with a call also the sense of the result after it.
    """
    collated: list[ChatMessage] = []
    for message in messages:
        last = collated[-1] if collated else None
        if last is not None and last.role == message.role != "tool":
            thoughts = (last.thinking, message.thinking)
            collated[-1] = dataclasses.replace(
                last,
                content=last.content + _BETWEEN_MERGED + message.content,
                thinking=_BETWEEN_MERGED.join(filter(None, thoughts)),
                images=last.images + message.images,
                tool_calls=last.tool_calls + message.tool_calls,
            )
        else:
            collated.append(message)
    return collated


def _render_legacy(
    template: Template,
    messages: Sequence[ChatMessage],
    think: Mapping[str, object],
    clock: WallClock,
) -> str:
    """Execute once for each finished turn, and once more, cut after the response, for the next one.

    1. A system message ends a turn that has a prompt or a response.
    2. A user's message ends a turn that has a response.
    3. An assistant's message is the response of the turn; it ends nothing.
    4. Anything else, such as a tool's result, has no place here and is left out.
    """
    whole = template
    if "response" not in template.identifiers:
        whole = dataclasses.replace(template, root=(*template.root, _RESPONSE))
    budget = Budget()  # One for the prompt: many turns must not cost many budgets.
    pieces: list[str] = []
    turn = _Turn()

    def finished(turn: _Turn, root: Block) -> None:
        part = dataclasses.replace(whole, root=root)
        pieces.append(part.render({**turn.fields, **think}, clock=clock, budget=budget))

    for message in messages:
        if message.role == "system":
            if turn.prompt or turn.response:
                finished(turn, whole.root)
                turn = _Turn()
            turn = dataclasses.replace(turn, system=message.content)
        elif message.role == "user":
            if turn.response:
                finished(turn, whole.root)
                turn = _Turn()
            turn = dataclasses.replace(turn, prompt=message.content)
        elif message.role == "assistant":
            turn = dataclasses.replace(turn, response=message.content)
    finished(turn, cut_after(whole.root, "Response"))
    return "".join(pieces)


def _think_fields(think: Think) -> dict[str, object]:
    level = think if isinstance(think, str) else "medium" if think else ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}


def _message(message: ChatMessage) -> Record:
    calls = JsonList(tool_call(call) for call in message.tool_calls)
    images = ("",) * message.images
    shown: dict[str, object] = {"role": message.role, "content": message.content}
    optional: dict[str, object] = {
        "thinking": message.thinking,
        "tool_calls": calls,
        "tool_name": message.tool_name,
        "tool_call_id": message.tool_call_id,
    }
    return Record(
        "Message",
        {
            "Role": message.role,
            "Content": message.content,
            "Thinking": message.thinking,
            "Images": images,
            "ToolCalls": calls,
            "ToolName": message.tool_name,
            "ToolCallID": message.tool_call_id,
        },
        {**shown, **{name: value for name, value in optional.items() if value}},
    )
