"""A conversation and its next message, whichever API asks for it.

Each API reads its own request into `ChatAsked` and writes its own answer from `Parts`; in between,
all of them are the same: a prompt that fits, a generation, and a parser of what the model says.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ollamad.errors import CapabilityMissing
from ollamad.http.answer.format import PLAIN, AnswerFormat, format_of
from ollamad.http.answer.parts import AnswerParser, Parts
from ollamad.http.answer.structured import after_thinking
from ollamad.http.doors import Doors
from ollamad.http.prompt.fitting import Room, Truncation, fit, fit_text, room_for
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
    """What the answer's text must look like; its thinking is free."""
    shift: bool = False
    may_truncate: bool = False
    template: str = ""
    """Renders this conversation in place of the model's own."""
    context: tuple[int, ...] = ()
    """Tokens of an earlier conversation that this one goes on from: it has begun there."""
    echo_tokens: bool = False
    """The end of the answer tells the prompt's tokens."""


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
    renderer = Renderer(model, doors.clock, asked.template or None)
    tools = _tools_of(asked)
    # A conversation that goes on has what is stored with the model in its context already.
    messages = asked.messages if asked.context else conversation(model, asked.messages)
    fitted = await fit(
        messages,
        lambda some: renderer.chat(some, tools=tools, think=asked.think),
        lease.tokenize,
        room_of(model, lease, asked),
        context=asked.context,
    )
    return Prepared(
        asked=asked,
        prompt=fitted.prompt,
        format=format_of(asked.template or template_of(model)),
        truncation=fitted.truncation,
    )


async def prepare_text(
    model: StoredModel, lease: Lease, asked: ChatAsked, prompt: Prompt
) -> Prepared:
    """Return *prompt* as it is, not a conversation: all of the answer is text.

    Raises ContextTooLong.
    """
    room = room_of(model, lease, asked)
    fitted = await fit_text(prompt, lease.tokenize, room, context=asked.context)
    return Prepared(asked=asked, prompt=fitted.prompt, format=PLAIN, truncation=fitted.truncation)


def room_of(model: StoredModel, lease: Lease, asked: ChatAsked) -> Room:
    """Return what the prompt of *asked* has to fit into."""
    return room_for(
        lease.n_ctx,
        asked.sampling,
        may_truncate=asked.may_truncate,
        shift=asked.shift,
        add_bos=model.facts.add_bos,
    )


class ChatStream:
    """One answer on its way."""

    def __init__(
        self, mailbox: Mailbox, parser: AnswerParser | None, *, hides_thinking: bool = False
    ) -> None:
        self.mailbox = mailbox
        self.is_plain = parser is None
        """All of the answer is text: whoever knows it need not ask `feed` for each piece."""
        self._parser = parser
        self._hides_thinking = hides_thinking

    def feed(self, piece: Piece | Delta) -> Parts:
        """Return what is certain after *piece*."""
        if self._parser is None:
            return Parts(text=piece.text)
        return self._shown(self._parser.feed(piece.text))

    def finish(self) -> Parts:
        """Return what was held back until the end."""
        return Parts() if self._parser is None else self._shown(self._parser.finish())

    def _shown(self, parts: Parts) -> Parts:
        if self._hides_thinking:
            parts.thinking = ""
        return parts

    async def whole(self, first: Piece | Finished) -> tuple[Parts, Piece, Finished]:
        """Return all of the answer: taken apart, as it came, and how it ended."""
        piece, finished = await whole_answer(self.mailbox, first)
        parts = self.feed(piece)
        parts.add(self.finish())
        return parts, piece, finished


def start(lease: Lease, prepared: Prepared, *, n: int = 0) -> ChatStream:
    """Start the *n*-th answer to a prompt: each has a chance of its own, which a seed fixes."""
    asked, prompt = prepared.asked, prepared.prompt
    sampling = asked.sampling
    if n and sampling.seed >= 0:
        sampling = msgspec.structs.replace(sampling, seed=sampling.seed + n)
    answer_format, hides_thinking = _reading(prepared)
    mailbox = lease.generate(
        "" if prompt.tokens else prompt.text,
        sampling,
        context=prompt.tokens or asked.context,
        add_special=prompt.add_special,
        n_logprobs=asked.n_logprobs,
        grammar=_grammar(prepared, answer_format),
        shift=asked.shift,
        echo_tokens=asked.echo_tokens,
    )
    parser = answer_format.parser(prompt.text, _tools_of(asked))
    return ChatStream(mailbox, parser, hides_thinking=hides_thinking)


def _tools_of(asked: ChatAsked) -> Sequence[Mapping[str, Any]]:
    return () if asked.tool_choice.mode is ToolMode.NONE else asked.tools


def _reading(prepared: Prepared) -> tuple[AnswerFormat, bool]:
    """Return how the answer is read, and whether what it thinks is kept to ourselves.

    1. It may think: its thoughts are told apart.
    2. It shall not, but a grammar or a form made of messages tells its thoughts from its text all
       the same: they are left out, or the text would not be what was asked for.
    3. It shall not: what a model thinks nevertheless stands in its text, as in Ollama.
    """
    asked, answer_format = prepared.asked, prepared.format
    if asked.think is not False or answer_format.thinking is None:  # 1
        return answer_format, asked.think is False
    opened = answer_format.begins_thinking(prepared.prompt.text)
    if answer_format.channels is not None or (asked.grammar is not None and opened):  # 2
        return answer_format, True
    return dataclasses.replace(answer_format, thinking=None), False  # 3


def _grammar(prepared: Prepared, answer_format: AnswerFormat) -> Grammar | None:
    """Return what the whole answer must look like: thoughts, if it may think, come before."""
    grammar, marks = prepared.asked.grammar, answer_format.thinking
    if grammar is None or marks is None:
        return grammar
    is_open = answer_format.begins_thinking(prepared.prompt.text)
    return after_thinking(grammar, marks.open, marks.close, is_open=is_open)
