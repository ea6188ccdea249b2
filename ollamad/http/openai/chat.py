"""POST /v1/chat/completions: a conversation and its next message, or several of them."""

from __future__ import annotations

import msgspec
from quart import Quart, Response

from ollamad.http.answer.parts import Call, Parts
from ollamad.http.chatting import ChatStream, prepare, start
from ollamad.http.doors import JSON_TYPE, Doors, read_body
from ollamad.http.openai.asking import chat_asked, check_early, shows_usage
from ollamad.http.openai.choices import streamed
from ollamad.http.openai.chunks import DONE, chunk, text_chunks
from ollamad.http.openai.logprobs import some_logprobs
from ollamad.http.openai.tally import Head, Tally, usage_of
from ollamad.http.openai.wire import (
    CalledFunction,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    ChatRequest,
    DebugInfo,
    MadeCall,
)
from ollamad.http.sse import TextEvents
from ollamad.runners.mailbox import Mailbox, Piece
from ollamad.runners.protocol import Delta, Finished, StepLogprob

_ROLE = "assistant"


def register(app: Quart, doors: Doors) -> None:
    """Add the route."""

    @app.post("/v1/chat/completions")
    async def chat_completions() -> Response:
        return await _chat(doors, await read_body(ChatRequest))


async def _chat(doors: Doors, body: ChatRequest) -> Response:
    check_early(body, doors.config, body.n)
    model = await doors.find(body.model)
    asked = chat_asked(body, model)
    lease = await doors.lease(model, asked.load, asked.keep_alive)
    prepared = await prepare(doors, model, lease, asked.chat)
    head = Head.new("chatcmpl", doors.clock.now(), body.model)
    if body.debug_render_only:
        return _answer(head, [], debug_info=DebugInfo(rendered_template=prepared.prompt.text))
    streams = [start(lease, prepared, n=n) for n in range(body.n)]
    if not body.stream:
        whole = [_Whole(stream) for stream in streams]
        choices = [await answer.choice(index) for index, answer in enumerate(whole)]
        return _answer(head, choices, usage=usage_of([answer.tally for answer in whole]))
    told = [_Told(head, index, stream) for index, stream in enumerate(streams)]

    def tail() -> bytes:
        if not shows_usage(body):
            return DONE
        return _event(head, [], usage=usage_of([one.tally for one in told])) + DONE

    return await streamed(told, tail)


def _answer(head: Head, choices: list[ChatChoice], **more: object) -> Response:
    whole = ChatCompletion(id=head.id, created=head.created, model=head.model, choices=choices)
    data = msgspec.json.encode(msgspec.structs.replace(whole, **more))
    return Response(data, content_type=JSON_TYPE)


class _Whole:
    """One answer that is told when all of it is there."""

    def __init__(self, stream: ChatStream) -> None:
        self.tally = Tally()
        self._stream = stream

    async def choice(self, index: int) -> ChatChoice:
        """Return the answer. Raises its error."""
        first = await self._stream.mailbox.take()
        parts, piece, finished = await self._stream.whole(first)
        self.tally.n_calls = len(parts.calls)
        return ChatChoice(
            index=index,
            message=ChatMessage(
                role=_ROLE,
                content=parts.text,
                reasoning=parts.thinking,
                tool_calls=_calls(parts.calls, 0),
            ),
            logprobs=some_logprobs(piece.logprobs),
            finish_reason=self.tally.end(finished, self._stream.n_thinking_tokens),
        )


class _Told:
    """One answer that is told in events while it comes."""

    def __init__(self, head: Head, index: int, stream: ChatStream) -> None:
        self.tally = Tally()
        self._head = head
        self._index = index
        self._stream = stream
        self._is_plain = stream.is_plain
        self._has_begun = False
        example = self._choice(ChatDelta(content=TextEvents.TEXT))
        self._plain = text_chunks(_chunk(head, [example]))

    @property
    def mailbox(self) -> Mailbox:
        """Where it comes from."""
        return self._stream.mailbox

    def piece(self, piece: Piece | Delta) -> bytes:
        """Return the events of what is new."""
        if self._is_plain and self._has_begun and not piece.logprobs:
            return self._plain.event(piece.text) if piece.text else b""
        parts = self._stream.feed(piece)
        if self._has_begun and not (piece.logprobs or parts.thinking or parts.calls):
            return self._plain.event(parts.text) if parts.text else b""
        return self._events(parts, piece.logprobs)

    def finish(self, finished: Finished) -> bytes:
        """Return the last events."""
        events = self._events(self._stream.finish(), ())
        if not self._has_begun:
            events = self._event(ChatDelta(content=""))
        reason = self.tally.end(finished, self._stream.n_thinking_tokens)
        return events + _event(self._head, [self._choice(ChatDelta(), reason)])

    def _events(self, parts: Parts, steps: tuple[StepLogprob, ...]) -> bytes:
        """Return an event for thoughts, and one for what else there is.

        Log-probabilities go with the last one, or in one of their own.
        """
        events = b""
        if parts.thinking:
            only = not (parts.text or parts.calls)
            delta = ChatDelta(content="", reasoning=parts.thinking)
            events = self._event(delta, steps if only else ())
            if only:
                return events
        if parts.text or parts.calls or steps:
            calls = _calls(parts.calls, self.tally.n_calls)
            self.tally.n_calls += len(calls)
            events += self._event(ChatDelta(content=parts.text, tool_calls=calls), steps)
        return events

    def _event(self, delta: ChatDelta, steps: tuple[StepLogprob, ...] = ()) -> bytes:
        if not self._has_begun:
            self._has_begun = True
            delta.role = _ROLE
        choice = self._choice(delta)
        choice.logprobs = some_logprobs(steps)
        return _event(self._head, [choice])

    def _choice(self, delta: ChatDelta, finish_reason: str | None = None) -> ChatChunkChoice:
        return ChatChunkChoice(index=self._index, delta=delta, finish_reason=finish_reason)


def _chunk(head: Head, choices: list[ChatChunkChoice]) -> ChatChunk:
    return ChatChunk(id=head.id, created=head.created, model=head.model, choices=choices)


def _event(head: Head, choices: list[ChatChunkChoice], **more: object) -> bytes:
    whole = _chunk(head, choices)
    return chunk(msgspec.structs.replace(whole, **more) if more else whole)


def _calls(calls: tuple[Call, ...], first_index: int) -> list[MadeCall]:
    return [
        MadeCall(
            id=call.id,
            index=index,
            function=CalledFunction(
                name=call.name, arguments=msgspec.json.encode(dict(call.arguments)).decode()
            ),
        )
        for index, call in enumerate(calls, start=first_index)
    ]
