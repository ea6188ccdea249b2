"""POST /v1/messages: a conversation and its next message, for Anthropic's clients."""

from __future__ import annotations

from quart import Quart, Response

from ollamad.errors import InvalidBody
from ollamad.http.anthropic.answers import blocks_of, stopped, usage_of
from ollamad.http.anthropic.counting import count_tokens, n_tokens_of
from ollamad.http.anthropic.errors import error_event
from ollamad.http.anthropic.events import EventWriter
from ollamad.http.anthropic.reading import asked_of, check_early
from ollamad.http.anthropic.wire import MessageAnswer, MessagesRequest, Stopped, Usage
from ollamad.http.chatting import ChatAsked, ChatStream, prepare, start
from ollamad.http.doors import Doors, json_answer, read_body, read_keep_alive, request_writer
from ollamad.http.ids import new_id
from ollamad.http.sse import SSE_HEADERS, SSE_TYPE
from ollamad.http.streaming import AnswerLines, stream_response
from ollamad.runners.mailbox import Piece
from ollamad.runners.protocol import Delta, Finished


def register(app: Quart, doors: Doors) -> None:
    """Add the routes."""

    @app.post("/v1/messages")
    async def messages() -> Response:
        return await _messages(doors, await read_body(MessagesRequest))

    @app.post("/v1/messages/count_tokens")
    async def count() -> Response:
        return json_answer(await count_tokens(doors, await read_body(MessagesRequest)))


async def _messages(doors: Doors, body: MessagesRequest) -> Response:
    check_early(body)
    if body.max_tokens is None or body.max_tokens <= 0:
        raise InvalidBody("max_tokens is required and must be positive")
    keep_alive = read_keep_alive(body.keep_alive)
    model = await doors.find(body.model)
    asked, load = asked_of(body, model)
    lease = await doors.lease(model, load, keep_alive)
    prepared = await prepare(doors, model, lease, asked)
    stream = start(lease, prepared)
    answer = _Answer(body, asked, stream)
    if not body.stream:
        return json_answer(await answer.whole())
    # The beginning tells the prompt's length, which the runner counts while it reads the prompt.
    answer.n_prompt = await n_tokens_of(lease, prepared.prompt)
    first = await stream.mailbox.take()
    lines = AnswerLines(
        stream.mailbox,
        first,
        answer.piece,
        answer.finish,
        request_writer(),
        on_error=error_event,
    )
    return stream_response(lines, SSE_TYPE, SSE_HEADERS)


class _Answer:
    """Turns what the runner says into one answer, whole or in events."""

    def __init__(self, body: MessagesRequest, asked: ChatAsked, stream: ChatStream) -> None:
        self.n_prompt = 0
        self._body = body
        self._asked = asked
        self._stream = stream
        self._shows_thinking = body.thinking is None or body.thinking.display != "omitted"
        self._writer = EventWriter(shows_thinking=self._shows_thinking)
        self._has_begun = False

    async def whole(self) -> MessageAnswer:
        """Return all of it. Raises the answer's error."""
        parts, _piece, finished = await self._stream.whole(await self._stream.mailbox.take())
        message = self._empty(usage_of(finished.timings))
        message.content = blocks_of(parts, shows_thinking=self._shows_thinking)
        ending = self._stopped(finished, n_calls=len(parts.calls))
        message.stop_reason, message.stop_sequence = ending.stop_reason, ending.stop_sequence
        return message

    def piece(self, piece: Piece | Delta) -> bytes:
        if not self._has_begun:
            return self._begin() + self._writer.add(self._stream.feed(piece))
        if self._stream.is_plain:
            return self._writer.text(piece.text) if piece.text else b""
        return self._writer.add(self._stream.feed(piece))

    def finish(self, finished: Finished) -> bytes:
        begun = b"" if self._has_begun else self._begin()
        rest = self._writer.add(self._stream.finish())
        ending = self._stopped(finished, n_calls=self._writer.n_calls)
        return begun + rest + self._writer.end(ending, usage_of(finished.timings))

    def _begin(self) -> bytes:
        self._has_begun = True
        return self._writer.begin(self._empty(Usage(input_tokens=self.n_prompt, output_tokens=0)))

    def _empty(self, usage: Usage) -> MessageAnswer:
        return MessageAnswer(
            id=new_id("msg_"),
            model=self._body.model,
            content=[],
            stop_reason=None,
            stop_sequence=None,
            usage=usage,
        )

    def _stopped(self, finished: Finished, *, n_calls: int) -> Stopped:
        return stopped(
            finished,
            stops=self._body.stop_sequences,
            sampling=self._asked.sampling,
            has_calls=n_calls > 0,
        )
