"""POST /api/chat: a conversation and its next message; also loading and unloading."""

from __future__ import annotations

import msgspec
import trio
from quart import Quart, Response

from ollamad.errors import CapabilityMissing, InvalidBody
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
from ollamad.http.prompt.render import Message, Renderer, conversation, fit
from ollamad.http.streaming import AnswerLines, whole_answer
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
    if body.tools and "tools" not in model.capabilities:
        raise CapabilityMissing(f"{model.name.full} does not support tools")
    answers.refuse_images(sum(len(m.images or ()) for m in body.messages), model)
    lease = await doors.lease(model, asked.load, keep_alive)
    if not body.messages:
        return json_answer(_short(doors, body, "load"))
    renderer = Renderer(model, doors.clock)
    prompt, _ = await fit(
        conversation(model, [_plain(message) for message in body.messages]),
        lambda some: renderer.chat(some, tools=body.tools, think=asked.think),
        lease.tokenize,
        n_ctx=lease.n_ctx,
        may_truncate=body.truncate,
    )
    if body.debug_render_only:
        return json_answer(_rendered(doors, body, prompt.text))
    mailbox = lease.generate(
        prompt.text,
        asked.sampling,
        add_special=prompt.add_special,
        n_logprobs=asked.n_logprobs,
        grammar=asked.grammar,
        shift=asked.shift,
    )
    answer = _Answer(doors, body, lease, started_at)
    first = await mailbox.take()
    if body.stream:
        lines = AnswerLines(mailbox, first, answer.piece, answer.finish, request_writer())
        return answers.stream_answer(lines)
    whole, finished = await whole_answer(mailbox, first)
    last = answer.last(finished)
    last.message.content = whole.text
    last.logprobs = answers.logprob_entries(whole.logprobs)
    return json_answer(last)


def _plain(message: msgspec.Struct) -> Message:
    """Return a message as templates get it: without what it does not have."""
    plain: dict[str, object] = msgspec.to_builtins(message)
    plain["role"] = str(plain["role"]).lower()
    return plain


class _Answer:
    """Turns what the runner says into the objects of one answer."""

    def __init__(self, doors: Doors, body: ChatRequest, lease: Lease, started_at: float) -> None:
        self.doors = doors
        self.body = body
        self.lease = lease
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
        if not piece.logprobs:
            if not piece.text:
                return b""
            return self._plain.line(self.doors.clock.now(), piece.text)
        with_logprobs = ChatResponse(
            model=self.body.model,
            created_at=answers.now_text(self.doors),
            message=AnswerMessage(role="assistant", content=piece.text),
            done=False,
            logprobs=answers.logprob_entries(piece.logprobs),
        )
        return encode(with_logprobs) + b"\n"

    def finish(self, finished: Finished) -> bytes:
        return encode(self.last(finished)) + b"\n"

    def last(self, finished: Finished) -> ChatResponse:
        total_s = trio.current_time() - self.started_at
        last = ChatResponse(
            model=self.body.model,
            created_at=answers.now_text(self.doors),
            message=AnswerMessage(role="assistant", content=""),
            done=True,
            done_reason=answers.done_reason(finished.reason),
        )
        answers.measure(last, finished.timings, self.lease.waited_s, total_s)
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
