"""POST /api/generate: one prompt, one answer; also loading and unloading."""

from __future__ import annotations

import dataclasses

import trio
from quart import Quart, Response

from ollamad.errors import InvalidBody, ModelNotFound
from ollamad.http.answer.parts import Call, Parts
from ollamad.http.chatting import ChatStream, prepare, prepare_text, start
from ollamad.http.doors import Doors, json_answer, read_body, read_keep_alive, request_writer
from ollamad.http.ollama import answers
from ollamad.http.ollama.wire import (
    DebugInfo,
    GenerateRequest,
    GenerateResponse,
    LinePattern,
    encode,
)
from ollamad.http.prompt.fitting import Truncation
from ollamad.http.prompt.prompt import Message, Prompt
from ollamad.http.prompt.render import Renderer
from ollamad.http.streaming import NDJSON_TYPE, AnswerLines, stream_response
from ollamad.modelinfo import StoredModel
from ollamad.runners.mailbox import Piece
from ollamad.runners.protocol import Delta, Finished
from ollamad.supervisor.leases import Lease


def register(app: Quart, doors: Doors) -> None:
    """Add the route."""

    @app.post("/api/generate")
    async def generate() -> Response:
        return await _generate(doors, await read_body(GenerateRequest))


async def _generate(doors: Doors, body: GenerateRequest) -> Response:
    started_at = trio.current_time()
    answers.check_early(body)
    if not body.model:
        raise ModelNotFound("model '' not found")
    model = await doors.find(body.model)
    keep_alive = read_keep_alive(body.keep_alive)
    if not body.prompt and keep_alive == 0:
        doors.supervisor.unload(model.weights_id)
        return json_answer(_short(doors, body, "unload"))
    if body.raw and (body.template or body.system or body.context):
        raise InvalidBody("raw mode does not support template, system, or context")
    asked = answers.asked_of(body, model, "generate")
    answers.refuse_images(len(body.images), model)
    text = _text(doors, body, model)
    lease = await doors.lease(model, asked.load, keep_alive)
    if not body.prompt:
        return json_answer(_short(doors, body, "load"))
    chat = dataclasses.replace(
        answers.chat_asked(body, asked, _messages(body)),
        template=body.template,
        context=tuple(body.context),
        echo_tokens=not body.raw,
    )
    if text is None:
        prepared = await prepare(doors, model, lease, chat)
    else:
        prepared = await prepare_text(model, lease, chat, text)
    if body.debug_render_only:
        return json_answer(_rendered(doors, body, prepared.prompt))
    stream = start(lease, prepared)
    answer = _Answer(doors, body, lease, stream, started_at, truncation=prepared.truncation)
    first = await stream.mailbox.take()
    if body.stream:
        lines = AnswerLines(stream.mailbox, first, answer.piece, answer.finish, request_writer())
        return stream_response(lines, NDJSON_TYPE)
    parts, piece, finished = await stream.whole(first)
    answer.note(piece, parts)
    last = answer.last(finished)
    last.response, last.thinking = parts.text, parts.thinking
    last.logprobs = answers.logprob_entries(piece.logprobs)
    return json_answer(last)


def _text(doors: Doors, body: GenerateRequest, model: StoredModel) -> Prompt | None:
    """Return the prompt if it is no conversation: raw, or what is to be filled in between.

    Needs no model in memory, so what cannot be filled in is refused before one is loaded.
    Raises CapabilityMissing.
    """
    if body.raw:
        return Prompt(body.prompt)
    if body.suffix:
        renderer = Renderer(model, doors.clock, body.template or None)
        return renderer.suffix(body.prompt, body.suffix)
    return None


def _messages(body: GenerateRequest) -> list[Message]:
    """Return the small chat that a prompt is."""
    system: list[Message] = [{"role": "system", "content": body.system}] if body.system else []
    return [*system, {"role": "user", "content": body.prompt}]


class _Answer:
    """Turns what the runner says into the objects of one answer."""

    def __init__(
        self,
        doors: Doors,
        body: GenerateRequest,
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
        self.started_at = started_at
        self.tokens: list[int] = []
        self.calls: list[Call] = []
        self._plain = LinePattern(
            GenerateResponse(
                model=body.model,
                created_at=LinePattern.TIME,
                response=LinePattern.TEXT,
                done=False,
            )
        )

    def note(self, piece: Piece | Delta, parts: Parts) -> None:
        """Keep what is told at the end only."""
        self.tokens.extend(piece.tokens)
        self.calls.extend(parts.calls)

    def piece(self, piece: Piece | Delta) -> bytes:
        if self.stream.is_plain and not piece.logprobs:
            self.tokens.extend(piece.tokens)
            return self._plain.line(self.doors.clock.now(), piece.text) if piece.text else b""
        parts = self.stream.feed(piece)
        self.note(piece, parts)
        if not (piece.logprobs or parts.thinking):
            if not parts.text:
                return b""
            return self._plain.line(self.doors.clock.now(), parts.text)
        return self._line(parts, piece)

    def finish(self, finished: Finished) -> bytes:
        rest = self.stream.finish()
        self.calls.extend(rest.calls)
        line = self._line(rest) if rest.text or rest.thinking else b""
        return line + encode(self.last(finished)) + b"\n"

    def _line(self, parts: Parts, piece: Piece | Delta | None = None) -> bytes:
        line = GenerateResponse(
            model=self.body.model,
            created_at=answers.now_text(self.doors),
            response=parts.text,
            thinking=parts.thinking,
            done=False,
            logprobs=answers.logprob_entries(piece.logprobs) if piece is not None else [],
        )
        return encode(line) + b"\n"

    def last(self, finished: Finished) -> GenerateResponse:
        total_s = trio.current_time() - self.started_at
        last = GenerateResponse(
            model=self.body.model,
            created_at=answers.now_text(self.doors),
            response="",
            done=True,
            done_reason=answers.done_reason(finished.reason),
            context=[] if self.body.raw else [*finished.prompt, *self.tokens],
            tool_calls=answers.tool_calls(self.calls, 0),
        )
        answers.measure(last, finished.timings, self.lease.waited_s, total_s, self.truncation)
        return last


def _short(doors: Doors, body: GenerateRequest, reason: str) -> GenerateResponse:
    return GenerateResponse(
        model=body.model,
        created_at=answers.now_text(doors),
        response="",
        done=True,
        done_reason=reason,
    )


def _rendered(doors: Doors, body: GenerateRequest, prompt: Prompt) -> GenerateResponse:
    return GenerateResponse(
        model=body.model,
        created_at=answers.now_text(doors),
        response="",
        done=False,
        debug_info=DebugInfo(rendered_template=prompt.text),
    )
