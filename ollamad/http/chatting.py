"""A conversation and its next message, whichever API asks for it.

Each API reads its own request into `ChatAsked` and writes its own answer from `Parts`; in between,
all of them are the same: a prompt that fits, a generation, and a parser of what the model says.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from ollamad.errors import CapabilityMissing, InvalidBody
from ollamad.http.answer.declared import tools_as_text
from ollamad.http.answer.format import PLAIN, AnswerFormat, format_of
from ollamad.http.answer.namedformats import DEFAULT_CALLS
from ollamad.http.answer.parts import AnswerParser, Marks, Parts
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

    @property
    def is_forced(self) -> bool:
        """The answer has to be a call."""
        return self in {ToolMode.REQUIRED, ToolMode.NAMED}


_SHOWN_CHARS_MAX: Final = 100
N_SEEDS: Final = 1 << 32
"""Seeds that the engine knows; after the last one comes the first."""


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


def check_tools(
    model: StoredModel, tools: Sequence[Mapping[str, Any]], choice: ToolChoice, shown_name: str
) -> None:
    """Raise what is wrong with *tools* and the choice of them, before a model is loaded.

    A model whose template knows no tools can be made to call one, but not left to choose.
    """
    if choice.mode.is_forced:
        _callable(tools, choice)
    elif tools and choice.mode is ToolMode.AUTO and "tools" not in model.capabilities:
        raise CapabilityMissing(f"{shown_name} does not support tools")


def _callable(
    tools: Sequence[Mapping[str, Any]], choice: ToolChoice
) -> Sequence[Mapping[str, Any]]:
    """Return those of *tools* that a choice leaves. Raises InvalidBody if that is none."""
    left = tools
    if choice.mode is ToolMode.NAMED:
        left = [tool for tool in tools if _function(tool).get("name") == choice.name]
    if not left:
        named = choice.mode is ToolMode.NAMED
        what = f'the tool "{choice.name[:_SHOWN_CHARS_MAX]}"' if named else "at least one tool"
        raise InvalidBody(f"tool_choice needs {what} among the tools")
    return left


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    return function if isinstance(function, Mapping) else {}


def render(doors: Doors, model: StoredModel, asked: ChatAsked) -> Prompt:
    """Return all of *asked* as a prompt, whether it fits or not. Raises TemplateBroken."""
    scene = _scene(doors, model, asked)
    return scene.render(scene.messages)


async def prepare(doors: Doors, model: StoredModel, lease: Lease, asked: ChatAsked) -> Prepared:
    """Return *asked* as a prompt for *model*. Raises TemplateBroken, ContextTooLong."""
    scene = _scene(doors, model, asked)
    fitted = await fit(
        scene.messages,
        scene.render,
        lease.tokenize,
        room_of(model, lease, asked),
        context=asked.context,
    )
    return Prepared(
        asked=asked, prompt=fitted.prompt, format=scene.format, truncation=fitted.truncation
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Scene:
    """What is rendered, and how the answer is going to look."""

    messages: Sequence[Message]
    render: Callable[[Sequence[Message]], Prompt]
    format: AnswerFormat


def _scene(doors: Doors, model: StoredModel, asked: ChatAsked) -> _Scene:
    """Return what *asked* makes of a model's template.

    A template that knows no calls gets the tools in words, if one has to be called.
    """
    renderer = Renderer(model, doors.clock, asked.template or None)
    answer_format = format_of(asked.template or template_of(model))
    # A conversation that goes on has what is stored with the model in its context already.
    messages = asked.messages if asked.context else conversation(model, asked.messages)
    tools = _tools_of(asked)
    if asked.tool_choice.mode.is_forced and answer_format.calls is None:
        answer_format = dataclasses.replace(answer_format, calls=DEFAULT_CALLS, origin="json")
        told = tools_as_text(_callable(tools, asked.tool_choice))
        messages, tools = _with_system(messages, told), ()
    if answer_format.thinking is not None:
        messages = _without_old_thoughts(messages, answer_format.thinking)
    return _Scene(
        messages,
        lambda some: renderer.chat(some, tools=tools, think=asked.think),
        answer_format,
    )


def _without_old_thoughts(messages: Sequence[Message], marks: Marks) -> Sequence[Message]:
    """Return *messages* without what the model thought before the last question.

    Programs that know nothing of thinking send it back in the text. It is of no use any more, and
    as Ollama does for some models, so we do for all whose marks are known.
    """
    last_question = max((n for n, m in enumerate(messages) if m["role"] == "user"), default=0)
    opening, closing = marks.open.strip(), marks.close.strip()
    kept: list[Message] = []
    for number, message in enumerate(messages):
        text = message.get("content")
        if (
            number < last_question
            and message["role"] == "assistant"
            and isinstance(text, str)
            and text.lstrip().startswith(opening)
            and closing in text
        ):
            kept.append({**message, "content": text.partition(closing)[2].lstrip()})
        else:
            kept.append(message)
    return kept


def _with_system(messages: Sequence[Message], text: str) -> Sequence[Message]:
    """Return *messages* with *text* in their system message: many templates take only one."""
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0].get('content') or ''}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


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
        self.n_thinking_tokens = 0
        """Tokens of its thinking, so far. Where one piece brings both, they are shared out."""
        self._n_held = 0
        """Tokens that have come and are neither thinking nor text yet."""
        self._parser = parser
        self._hides_thinking = hides_thinking

    def feed(self, piece: Piece | Delta) -> Parts:
        """Return what is certain after *piece*."""
        if self._parser is None:
            return Parts(text=piece.text)
        parts = self._parser.feed(piece.text)
        self._n_held += len(piece.tokens)
        if parts:
            self._count(parts)
        return self._shown(parts)

    def finish(self) -> Parts:
        """Return what was held back until the end."""
        return Parts() if self._parser is None else self._shown(self._parser.finish())

    def _count(self, parts: Parts) -> None:
        n_held, self._n_held = self._n_held, 0
        n_thought = len(parts.thinking)
        if parts.text or parts.calls:
            n_held = n_held * n_thought // max(n_thought + len(parts.text), 1)
        self.n_thinking_tokens += n_held if n_thought else 0

    def _shown(self, parts: Parts) -> Parts:
        if self._hides_thinking:
            parts.thinking = ""
        return parts

    async def whole(self, first: Piece | Finished) -> tuple[Parts, Piece, Finished]:
        """Return all of the answer: taken apart, as it came, and how it ended."""
        if self._parser is None:
            piece, finished = await whole_answer(self.mailbox, first)
            return Parts(text=piece.text), piece, finished
        fed: list[Parts] = []
        piece, finished = await whole_answer(
            self.mailbox, first, lambda some: fed.append(self.feed(some))
        )
        fed.append(self.finish())
        parts = Parts(
            thinking="".join(one.thinking for one in fed),
            text="".join(one.text for one in fed),
            calls=tuple(call for one in fed for call in one.calls),
        )
        return parts, piece, finished


def start(lease: Lease, prepared: Prepared, *, n: int = 0) -> ChatStream:
    """Start the *n*-th answer to a prompt: each has a chance of its own, which a seed fixes."""
    asked, prompt = prepared.asked, prepared.prompt
    sampling = asked.sampling
    if n and sampling.seed >= 0:
        sampling = msgspec.structs.replace(sampling, seed=(sampling.seed + n) % N_SEEDS)
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
        shown_tokens=answer_format.shown_tokens(_tools_of(asked)),
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
    is_bound = asked.grammar is not None or asked.tool_choice.mode.is_forced
    if answer_format.channels is not None or (is_bound and opened):  # 2
        return answer_format, True
    return dataclasses.replace(answer_format, thinking=None), False  # 3


def _grammar(prepared: Prepared, answer_format: AnswerFormat) -> Grammar | None:
    """Return what the whole answer must look like: thoughts, if it may think, come before."""
    grammar, marks = _text_grammar(prepared.asked, answer_format), answer_format.thinking
    if grammar is None or marks is None:
        return grammar
    closing = marks.close
    if grammar is prepared.asked.grammar:
        # In some formats a text has a mark of its own in front; a grammar of calls has its own.
        closing += answer_format.restart + _text_header(answer_format)
    is_open = answer_format.begins_thinking(prepared.prompt.text)
    return after_thinking(grammar, marks.open, closing, is_open=is_open)


def _text_header(answer_format: AnswerFormat) -> str:
    channels = answer_format.channels
    return channels.text if channels is not None else answer_format.text_mark


def _text_grammar(asked: ChatAsked, answer_format: AnswerFormat) -> Grammar | None:
    """Return what an answer must look like behind its thoughts.

    1. A tool has to be called: it is nothing but calls, whatever the text should look like.
    2. The text has a form of its own: nothing but that. A call would be none.
    3. It may call tools, which want to be called as they say, or one at a time: text, or such
       calls. Only what is strict is held to its parameters; not everything that people write
       there can be.
    4. Anything.
    """
    choice, tools = asked.tool_choice, _tools_of(asked)
    if choice.mode.is_forced:  # 1
        left = _callable(tools, choice)
        return answer_format.call_grammar(left, is_parallel=choice.is_parallel)
    if asked.grammar is not None or not tools or answer_format.calls is None:  # 2, 4
        return asked.grammar
    if choice.is_parallel and not any(_is_strict(tool) for tool in tools):  # 4
        return None
    return answer_format.call_grammar(  # 3
        [tool if _is_strict(tool) else _loose(tool) for tool in tools],
        is_parallel=choice.is_parallel,
        may_answer=True,
    )


def _is_strict(tool: Mapping[str, Any]) -> bool:
    return _function(tool).get("strict") is True


def _loose(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**tool, "function": {**_function(tool), "parameters": {"type": "object"}}}
