"""POST /v1/completions: prompts and what follows them.

As in Ollama, a prompt is a small chat for models that chat; what is `raw`, and what is given as
tokens, goes to the model as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from quart import Quart, Response

from ollamad.config import HttpConfig
from ollamad.http.chatting import ChatAsked, ChatStream, Prepared, prepare, prepare_text, start
from ollamad.http.doors import JSON_TYPE, Doors, read_body
from ollamad.http.openai.asking import TOP_LOGPROBS_MAX, asked_of, check_early, shows_usage
from ollamad.http.openai.choices import streamed
from ollamad.http.openai.chunks import DONE, chunk, text_chunks
from ollamad.http.openai.errors import refused
from ollamad.http.openai.logprobs import CompletionSteps
from ollamad.http.openai.tally import Head, Tally, usage_of
from ollamad.http.openai.wire import Completion, CompletionChoice, CompletionRequest
from ollamad.http.prompt.prompt import Prompt
from ollamad.http.prompt.render import Renderer
from ollamad.http.sse import TextEvents
from ollamad.modelinfo import StoredModel
from ollamad.runners.mailbox import Mailbox, Piece
from ollamad.runners.protocol import Delta, Finished, StepLogprob
from ollamad.supervisor.leases import Lease

TOKEN_MAX: Final = 2**31 - 1
"""The largest token id that the engine takes."""
_LOADED: Final = "load"
"""Why an answer to nothing has ended, as in Ollama."""

Asked = str | tuple[int, ...]
"""A prompt: a text, or its tokens."""


def register(app: Quart, doors: Doors) -> None:
    """Add the route."""

    @app.post("/v1/completions")
    async def completions() -> Response:
        return await _complete(doors, await read_body(CompletionRequest))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What only completions ask for."""

    prompts: Sequence[Asked]
    n: int
    """Answers to each prompt that are told."""
    n_computed: int
    """Those that are computed; the best of them are told."""
    n_top: int | None
    """Likeliest tokens to tell beside each chosen one; `None` is not even it."""
    echo: bool


async def _complete(doors: Doors, body: CompletionRequest) -> Response:
    wanted = _wanted(body, doors.config)
    model = await doors.find(body.model)
    asked = asked_of(body, model, [], verb="completion")
    head = Head.new("cmpl", doors.clock.now(), body.model)
    infill = _infill(doors, model, body, wanted.prompts)
    lease = await doors.lease(model, asked.load, asked.keep_alive)
    if not any(wanted.prompts):
        empty = [CompletionChoice(text="", index=0, finish_reason=_LOADED)]
        return _answer(head, empty, usage=usage_of([]))
    n_logprobs = wanted.n_top
    if n_logprobs is None and wanted.n_computed > wanted.n:
        n_logprobs = 0  # To know which ones are the best.
    chat = dataclasses.replace(asked.chat, n_logprobs=n_logprobs)
    ready = [
        await _prepared(doors, model, lease, chat, prompt, infill=infill, raw=body.raw)
        for prompt in wanted.prompts
    ]
    streams = [
        (number, start(lease, prepared, n=n))
        for number, prepared in enumerate(ready)
        for n in range(wanted.n_computed)
    ]
    if body.stream:
        return await _told(head, wanted, streams, is_usage_told=shows_usage(body))
    whole = [_Whole(wanted, number, stream) for number, stream in streams]
    for one in whole:
        await one.take()
    choices = [one.choice() for one in _best(whole, wanted)]
    for index, choice in enumerate(choices):
        choice.index = index
    return _answer(head, choices, usage=usage_of([one.tally for one in whole]))


def _wanted(body: CompletionRequest, limits: HttpConfig) -> _Wanted:
    """Return what *body* asks for. Raises InvalidBody."""
    prompts = _prompts(body.prompt)
    n_computed = body.n if body.best_of is None else body.best_of
    if n_computed < body.n:
        raise refused("best_of", f"must be at least n, {body.n}")
    if body.stream and n_computed > body.n:
        raise refused("best_of", "the best answers are known when all have ended: not in a stream")
    check_early(body, limits, n_computed * len(prompts))
    n_top = _n_top(body.logprobs)
    if body.echo:
        if n_top is not None:
            raise refused("echo", "log-probabilities are those of the answer, not of the prompt")
        if any(isinstance(prompt, tuple) for prompt in prompts):
            raise refused("echo", "the prompt must be a text, not tokens")
    return _Wanted(prompts=prompts, n=body.n, n_computed=n_computed, n_top=n_top, echo=body.echo)


def _prompts(value: Any) -> list[Asked]:  # a JSON value of any shape
    match value:
        case None | [] | "":
            return [""]
        case str():
            return [value]
        case [int(), *_]:
            return [_tokens("prompt", value)]
        case [str() | list(), *_]:
            return [_one_of("prompt", index, one) for index, one in enumerate(value)]
        case _:
            raise refused("prompt", "must be a string, tokens, or an array of either")


def _one_of(where: str, index: int, value: Any) -> Asked:  # a JSON value of any shape
    if not value:
        raise refused(f"{where}[{index}]", "must not be empty")
    return value if isinstance(value, str) else _tokens(f"{where}[{index}]", value)


def _tokens(where: str, value: Any) -> tuple[int, ...]:  # a JSON value of any shape
    if not isinstance(value, list) or not all(
        isinstance(token, int) and not isinstance(token, bool) and 0 <= token <= TOKEN_MAX
        for token in value
    ):
        raise refused(where, "must be a string, or an array of tokens")
    return tuple(value)


def _n_top(value: Any) -> int | None:  # a JSON value of any shape
    match value:
        case None | False:
            return None
        case True:
            return 0
        case int() if 0 <= value <= TOP_LOGPROBS_MAX:
            return value
        case _:
            raise refused("logprobs", f"must be a whole number from 0 to {TOP_LOGPROBS_MAX}")


def _infill(
    doors: Doors, model: StoredModel, body: CompletionRequest, prompts: Sequence[Asked]
) -> Prompt | None:
    """Return the prompt if a text is to be filled in. Raises InvalidBody, CapabilityMissing."""
    if not body.suffix:
        return None
    if len(prompts) > 1 or not isinstance(prompts[0], str):
        raise refused("suffix", "goes with one prompt, a text")
    return Renderer(model, doors.clock).suffix(prompts[0], body.suffix)


async def _prepared(
    doors: Doors,
    model: StoredModel,
    lease: Lease,
    chat: ChatAsked,
    prompt: Asked,
    *,
    infill: Prompt | None,
    raw: bool,
) -> Prepared:
    """Return one prompt as the model gets it. Raises ContextTooLong."""
    if isinstance(prompt, tuple):
        chat = dataclasses.replace(chat, context=prompt)
        return await prepare_text(model, lease, chat, Prompt("", add_special=False))
    if infill is not None or raw:
        return await prepare_text(model, lease, chat, infill or Prompt(prompt))
    chat = dataclasses.replace(chat, messages=[{"role": "user", "content": prompt}])
    return await prepare(doors, model, lease, chat)


def _best(whole: Sequence[_Whole], wanted: _Wanted) -> list[_Whole]:
    """Return those that are told: of each prompt's answers the likeliest by token."""
    if wanted.n_computed == wanted.n:
        return list(whole)
    told = []
    for begin in range(0, len(whole), wanted.n_computed):
        some = whole[begin : begin + wanted.n_computed]
        told += sorted(some, key=lambda one: -one.mean_logprob)[: wanted.n]
    return told


def _answer(head: Head, choices: list[CompletionChoice], **more: object) -> Response:
    data = msgspec.json.encode(msgspec.structs.replace(_object(head, choices), **more))
    return Response(data, content_type=JSON_TYPE)


def _object(head: Head, choices: list[CompletionChoice]) -> Completion:
    return Completion(id=head.id, created=head.created, model=head.model, choices=choices)


def _echoed(wanted: _Wanted, number: int) -> str:
    """Return what comes before an answer: its prompt, if that is wanted."""
    prompt = wanted.prompts[number]
    return prompt if wanted.echo and isinstance(prompt, str) else ""


class _Whole:
    """One answer that is told when all of it is there. What was thought is left out."""

    def __init__(self, wanted: _Wanted, number: int, stream: ChatStream) -> None:
        self.tally = Tally(prompt=number)
        self.mean_logprob = 0.0
        self._wanted = wanted
        self._stream = stream
        self._text = _echoed(wanted, number)
        self._steps: tuple[StepLogprob, ...] = ()
        self._reason = ""

    async def take(self) -> None:
        """Wait for all of it. Raises the answer's error."""
        first = await self._stream.mailbox.take()
        parts, piece, finished = await self._stream.whole(first)
        self._text += parts.text
        self._reason = self.tally.end(finished, self._stream.n_thinking_tokens)
        self._steps = piece.logprobs
        if self._steps:
            total = sum(step.chosen.logprob for step in self._steps)
            self.mean_logprob = total / len(self._steps)

    def choice(self) -> CompletionChoice:
        """Return it, once it is there."""
        logprobs = None
        if self._wanted.n_top is not None:
            counted = CompletionSteps(has_top=self._wanted.n_top > 0)
            logprobs = counted.take(self._steps)
        return CompletionChoice(
            text=self._text, index=0, logprobs=logprobs, finish_reason=self._reason
        )


async def _told(
    head: Head,
    wanted: _Wanted,
    streams: Sequence[tuple[int, ChatStream]],
    *,
    is_usage_told: bool,
) -> Response:
    told = [
        _Told(head, wanted, index, number, stream) for index, (number, stream) in enumerate(streams)
    ]

    def tail() -> bytes:
        if not is_usage_told:
            return DONE
        usage = usage_of([one.tally for one in told])
        return chunk(msgspec.structs.replace(_object(head, []), usage=usage)) + DONE

    return await streamed(told, tail)


class _Told:
    """One answer that is told in events while it comes. What was thought is left out."""

    def __init__(
        self, head: Head, wanted: _Wanted, index: int, number: int, stream: ChatStream
    ) -> None:
        self.tally = Tally(prompt=number)
        self._head = head
        self._index = index
        self._stream = stream
        self._before = _echoed(wanted, number)
        """What has to be told before the answer."""
        self._steps = CompletionSteps(has_top=bool(wanted.n_top))
        self._plain = text_chunks(_object(head, [self._choice(TextEvents.TEXT)]))

    @property
    def mailbox(self) -> Mailbox:
        """Where it comes from."""
        return self._stream.mailbox

    def piece(self, piece: Piece | Delta) -> bytes:
        """Return the event of what is new."""
        text = piece.text if self._stream.is_plain else self._stream.feed(piece).text
        if self._before:
            text, self._before = self._before + text, ""
        if piece.logprobs:
            return self._event(text, piece.logprobs)
        return self._plain.event(text) if text else b""

    def finish(self, finished: Finished) -> bytes:
        """Return the last event, which has the reason."""
        rest = self._before + self._stream.finish().text
        reason = self.tally.end(finished, self._stream.n_thinking_tokens)
        return self._event(rest, (), reason)

    def _event(
        self, text: str, steps: tuple[StepLogprob, ...], finish_reason: str | None = None
    ) -> bytes:
        choice = self._choice(text, finish_reason)
        choice.logprobs = self._steps.take(steps)
        return chunk(_object(self._head, [choice]))

    def _choice(self, text: str, finish_reason: str | None = None) -> CompletionChoice:
        return CompletionChoice(text=text, index=self._index, finish_reason=finish_reason)
