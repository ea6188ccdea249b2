"""A conversation and its next message, whichever API asks for it.

Each API reads its own request into `ChatAsked` and writes its own answer from `Parts`; in between,
all of them are the same: a prompt that fits, a generation, and a parser of what the model says.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ollamad.errors import CapabilityMissing
from ollamad.http.answer.format import AnswerFormat, format_of
from ollamad.http.answer.parts import AnswerParser, Parts
from ollamad.http.doors import Doors
from ollamad.http.prompt.fitting import Truncation, fit, room_for
from ollamad.http.prompt.gotemplate.chat import Think
from ollamad.http.prompt.prompt import Message, Prompt
from ollamad.http.prompt.render import Renderer, conversation, template_of
from ollamad.http.streaming import whole_answer
from ollamad.modelinfo import StoredModel
from ollamad.options import SamplingOptions
from ollamad.runners.mailbox import Mailbox, Piece
from ollamad.runners.protocol import Delta, Finished, Grammar
from ollamad.supervisor.leases import Lease


class ToolMode(enum.Enum):
    """Whether the model has to call a tool."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    """Any of them."""
    NAMED = "named"


@dataclasses.dataclass(frozen=True, slots=True)
class ToolChoice:
    """Which tools the model may or must call."""

    mode: ToolMode = ToolMode.AUTO
    name: str = ""
    """The one that must be called, for NAMED."""
    is_parallel: bool = True
    """There may be several calls in one answer."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChatAsked:
    """What a chat asks for, checked against its model as far as its API can."""

    messages: Sequence[Message]
    """In the form of Ollama's API."""
    think: Think
    sampling: SamplingOptions
    tools: Sequence[Mapping[str, Any]] = ()
    """In the form that Ollama's and OpenAI's APIs share: `type` and `function`."""
    tool_choice: ToolChoice = ToolChoice()
    n_logprobs: int | None = None
    grammar: Grammar | None = None
    """What the answer's text must look like."""
    shift: bool = False
    may_truncate: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A conversation that is ready to be answered."""

    asked: ChatAsked
    prompt: Prompt
    format: AnswerFormat
    truncation: Truncation | None = None
    """What did not fit and was left out."""


def resolve_think(model: StoredModel, think: Think, shown_name: str) -> Think:
    """Return how to think: models that can do by default. Raises CapabilityMissing."""
    can_think = "thinking" in model.capabilities
    if think and not can_think:
        raise CapabilityMissing(f'"{shown_name}" does not support thinking')
    return True if think is None and can_think else think


async def prepare(doors: Doors, model: StoredModel, lease: Lease, asked: ChatAsked) -> Prepared:
    """Return *asked* as a prompt for *model*. Raises TemplateBroken, ContextTooLong."""
    fitted = await fit(
        conversation(model, asked.messages),
        _rendering(doors, model, asked),
        lease.tokenize,
        room_for(
            lease.n_ctx,
            asked.sampling,
            may_truncate=asked.may_truncate,
            shift=asked.shift,
            add_bos=model.facts.add_bos,
        ),
    )
    return Prepared(
        asked=asked,
        prompt=fitted.prompt,
        format=format_of(template_of(model)),
        truncation=fitted.truncation,
    )


def render(doors: Doors, model: StoredModel, asked: ChatAsked) -> Prompt:
    """Return all of *asked* as a prompt, whether it fits or not. Raises TemplateBroken."""
    return _rendering(doors, model, asked)(conversation(model, asked.messages))


def _rendering(
    doors: Doors, model: StoredModel, asked: ChatAsked
) -> Callable[[Sequence[Message]], Prompt]:
    renderer = Renderer(model, doors.clock)
    tools = () if asked.tool_choice.mode is ToolMode.NONE else asked.tools
    return lambda some: renderer.chat(some, tools=tools, think=asked.think)


class ChatStream:
    """One answer on its way."""

    def __init__(self, mailbox: Mailbox, parser: AnswerParser | None) -> None:
        self.mailbox = mailbox
        self.is_plain = parser is None
        """All of the answer is text."""
        self._parser = parser

    def feed(self, piece: Piece | Delta) -> Parts:
        """Return what is certain after *piece*."""
        if self._parser is None:
            return Parts(text=piece.text)
        return self._parser.feed(piece.text)

    def finish(self) -> Parts:
        """Return what was held back until the end."""
        return Parts() if self._parser is None else self._parser.finish()

    async def whole(self, first: Piece | Finished) -> tuple[Parts, Piece, Finished]:
        """Return all of the answer: taken apart, as it came, and how it ended."""
        piece, finished = await whole_answer(self.mailbox, first)
        parts = self.feed(piece)
        parts.add(self.finish())
        return parts, piece, finished


def start(lease: Lease, prepared: Prepared, *, n: int = 0) -> ChatStream:
    """Start the *n*-th answer to a prompt: each has a chance of its own, which a seed fixes."""
    asked = prepared.asked
    sampling = asked.sampling
    if n and sampling.seed >= 0:
        sampling = msgspec.structs.replace(sampling, seed=sampling.seed + n)
    prompt = prepared.prompt
    mailbox = lease.generate(
        "" if prompt.tokens else prompt.text,
        sampling,
        context=prompt.tokens,
        add_special=prompt.add_special,
        n_logprobs=asked.n_logprobs,
        grammar=asked.grammar,
        shift=asked.shift,
    )
    return ChatStream(mailbox, prepared.format.parser(prepared.prompt.text))
