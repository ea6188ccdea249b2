"""POST /api/chat: a conversation and its next message; also loading and unloading."""

from __future__ import annotations

import dataclasses

import msgspec
import trio
from quart import Quart, Response

from ollamad.errors import InvalidBody
from ollamad.http.answer.parts import Parts
from ollamad.http.chatting import ChatStream, ToolChoice, check_tools, prepare, start
from ollamad.http.doors import Doors, json_answer, read_body, read_keep_alive, request_writer
from ollamad.http.ollama import answers
from ollamad.http.ollama.wire import (
    AnswerMessage,
    ChatRequest,
    ChatResponse,
    DebugInfo,
    LinePattern,
    encode,
)
from ollamad.http.prompt.fitting import Truncation
from ollamad.http.prompt.prompt import Message
from ollamad.http.streaming import NDJSON_TYPE, AnswerLines, stream_response
from ollamad.runners.mailbox import Piece
from ollamad.runners.protocol import Delta, Finished
from ollamad.supervisor.leases import Lease


def register(app: Quart, doors: Doors) -> None:
    """Add the route."""

    @app.post("/api/chat")
    async def chat() -> Response:
        return await _chat(doors, await read_body(ChatRequest))


async def _chat(doors: Doors, body: ChatRequest) -> Response:
    started_at = trio.current_time()
    answers.check_early(body)
    if not body.model:
        raise InvalidBody("model is required")
    model = await doors.find(body.model)
    keep_alive = read_keep_alive(body.keep_alive)
    if not body.messages and keep_alive == 0:
        doors.supervisor.unload(model.weights_id)
        return json_answer(_short(doors, body, "unload"))
    asked = answers.asked_of(body, model, "chat")
    check_tools(model, body.tools, ToolChoice(), model.name.full)
    answers.refuse_images(sum(len(m.images or ()) for m in body.messages), model)
    lease = await doors.lease(model, asked.load, keep_alive)
    if not body.messages:
        return json_answer(_short(doors, body, "load"))
    chat = dataclasses.replace(
        answers.chat_asked(body, asked, [_plain(message) for message in body.messages]),
        tools=body.tools,
    )
    prepared = await prepare(doors, model, lease, chat)
    if body.debug_render_only:
        return json_answer(_rendered(doors, body, prepared.prompt.text))
    stream = start(lease, prepared)
    answer = _Answer(doors, body, lease, stream, started_at, truncation=prepared.truncation)
    first = await stream.mailbox.take()
    if body.stream:
        lines = AnswerLines(stream.mailbox, first, answer.piece, answer.finish, request_writer())
        return stream_response(lines, NDJSON_TYPE)
    parts, piece, finished = await stream.whole(first)
    last = answer.last(finished)
    last.message = answer.message(parts)
    last.logprobs = answers.logprob_entries(piece.logprobs)
    return json_answer(last)


def _plain(message: msgspec.Struct) -> Message:
    """Return a message as templates get it: without what it does not have."""
    plain: dict[str, object] = msgspec.to_builtins(message)
    plain["role"] = str(plain["role"]).lower()
    return plain


class _Answer:
    """Turns what the runner says into the objects of one answer."""

    def __init__(
        self,
        doors: Doors,
        body: ChatRequest,
        lease: Lease,
        stream: ChatStream,
        started_at: float,
        *,
        truncation: Truncation | None,
    ) -> None:
        self.doors = doors
        self.body = body
        self.lease = lease
        self.stream = stream
        self.truncation = truncation
        self.n_calls = 0
        self.started_at = started_at
        self._plain = LinePattern(
            ChatResponse(
                model=body.model,
                created_at=LinePattern.TIME,
                message=AnswerMessage(role="assistant", content=LinePattern.TEXT),
                done=False,
            )
        )

    def piece(self, piece: Piece | Delta) -> bytes:
        if self.stream.is_plain and not piece.logprobs:
            return self._plain.line(self.doors.clock.now(), piece.text) if piece.text else b""
        parts = self.stream.feed(piece)
        if not (piece.logprobs or parts.thinking or parts.calls):
            if not parts.text:
                return b""
            return self._plain.line(self.doors.clock.now(), parts.text)
        return self._line(parts, piece)

    def finish(self, finished: Finished) -> bytes:
        rest = self.stream.finish()
        return (self._line(rest) if rest else b"") + encode(self.last(finished)) + b"\n"

    def _line(self, parts: Parts, piece: Piece | Delta | None = None) -> bytes:
        line = ChatResponse(
            model=self.body.model,
            created_at=answers.now_text(self.doors),
            message=self.message(parts),
            done=False,
            logprobs=answers.logprob_entries(piece.logprobs) if piece is not None else [],
        )
        return encode(line) + b"\n"

    def message(self, parts: Parts) -> AnswerMessage:
        """Return what is new as a message. Calls are numbered through the answer."""
        first, self.n_calls = self.n_calls, self.n_calls + len(parts.calls)
        calls = answers.tool_calls(parts.calls, first)
        return AnswerMessage(
            role="assistant", content=parts.text, thinking=parts.thinking, tool_calls=calls
        )

    def last(self, finished: Finished) -> ChatResponse:
        total_s = trio.current_time() - self.started_at
        last = ChatResponse(
            model=self.body.model,
            created_at=answers.now_text(self.doors),
            message=AnswerMessage(role="assistant", content=""),
            done=True,
            done_reason=answers.done_reason(finished.reason),
        )
        answers.measure(last, finished.timings, self.lease.waited_s, total_s, self.truncation)
        return last


def _short(doors: Doors, body: ChatRequest, reason: str) -> ChatResponse:
    return ChatResponse(
        model=body.model,
        created_at=answers.now_text(doors),
        message=AnswerMessage(role="assistant", content=""),
        done=True,
        done_reason=reason,
    )


def _rendered(doors: Doors, body: ChatRequest, text: str) -> ChatResponse:
    return ChatResponse(
        model=body.model,
        created_at=answers.now_text(doors),
        message=AnswerMessage(role="assistant", content=""),
        done=False,
        debug_info=DebugInfo(rendered_template=text),
    )
