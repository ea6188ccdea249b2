"""POST /api/generate: one prompt, one answer; also loading and unloading."""

from __future__ import annotations

import trio
from quart import Quart, Response

from ollamad.errors import InvalidBody, ModelNotFound
from ollamad.http.doors import Doors, json_answer, read_body, read_keep_alive, request_writer
from ollamad.http.ollama import answers
from ollamad.http.ollama.wire import (
    DebugInfo,
    GenerateRequest,
    GenerateResponse,
    LinePattern,
    encode,
)
from ollamad.http.prompt.fitting import fit, fit_text, room_for
from ollamad.http.prompt.prompt import Message, Prompt
from ollamad.http.prompt.render import Renderer, conversation
from ollamad.http.streaming import AnswerLines, whole_answer
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
    lease = await doors.lease(model, asked.load, keep_alive)
    if not body.prompt:
        return json_answer(_short(doors, body, "load"))
    prompt = await _prompt(doors, body, model, lease, asked)
    if body.debug_render_only:
        return json_answer(_rendered(doors, body, prompt))
    mailbox = lease.generate(
        "" if prompt.tokens else prompt.text,
        asked.sampling,
        add_special=prompt.add_special,
        context=prompt.tokens or tuple(body.context),
        n_logprobs=asked.n_logprobs,
        grammar=asked.grammar,
        shift=asked.shift,
        echo_tokens=not body.raw,
    )
    answer = _Answer(doors, body, lease, started_at)
    first = await mailbox.take()
    if body.stream:
        lines = AnswerLines(mailbox, first, answer.piece, answer.finish, request_writer())
        return answers.stream_answer(lines)
    whole, finished = await whole_answer(mailbox, first)
    answer.tokens.extend(whole.tokens)
    last = answer.last(finished)
    last.response = whole.text
    last.logprobs = answers.logprob_entries(whole.logprobs)
    return json_answer(last)


async def _prompt(
    doors: Doors, body: GenerateRequest, model: StoredModel, lease: Lease, asked: answers.Asked
) -> Prompt:
    """Return the text for the model: raw, filled in between, or as a small chat."""
    context = tuple(body.context)
    room = room_for(
        lease.n_ctx,
        asked.sampling,
        may_truncate=body.truncate,
        shift=asked.shift,
        add_bos=model.facts.add_bos,
    )
    if body.raw:
        return (await fit_text(Prompt(body.prompt), lease.tokenize, room)).prompt
    renderer = Renderer(model, doors.clock, body.template or None)
    if body.suffix:
        between = renderer.suffix(body.prompt, body.suffix)
        return (await fit_text(between, lease.tokenize, room, context=context)).prompt
    user: Message = {"role": "user", "content": body.prompt}
    system: list[Message] = [{"role": "system", "content": body.system}] if body.system else []
    messages = [*system, user]
    if not body.context:  # Else the earlier turns are in the context, the stored ones among them.
        messages = conversation(model, messages)
    fitted = await fit(
        messages,
        lambda some: renderer.chat(some, think=asked.think),
        lease.tokenize,
        room,
        context=context,
    )
    return fitted.prompt


class _Answer:
    """Turns what the runner says into the objects of one answer."""

    def __init__(
        self, doors: Doors, body: GenerateRequest, lease: Lease, started_at: float
    ) -> None:
        self.doors = doors
        self.body = body
        self.lease = lease
        self.started_at = started_at
        self.tokens: list[int] = []
        self._plain = LinePattern(
            GenerateResponse(
                model=body.model,
                created_at=LinePattern.TIME,
                response=LinePattern.TEXT,
                done=False,
            )
        )

    def piece(self, piece: Piece | Delta) -> bytes:
        self.tokens.extend(piece.tokens)
        if not piece.logprobs:
            if not piece.text:
                return b""
            return self._plain.line(self.doors.clock.now(), piece.text)
        with_logprobs = GenerateResponse(
            model=self.body.model,
            created_at=answers.now_text(self.doors),
            response=piece.text,
            done=False,
            logprobs=answers.logprob_entries(piece.logprobs),
        )
        return encode(with_logprobs) + b"\n"

    def finish(self, finished: Finished) -> bytes:
        return encode(self.last(finished)) + b"\n"

    def last(self, finished: Finished) -> GenerateResponse:
        total_s = trio.current_time() - self.started_at
        last = GenerateResponse(
            model=self.body.model,
            created_at=answers.now_text(self.doors),
            response="",
            done=True,
            done_reason=answers.done_reason(finished.reason),
            context=[] if self.body.raw else [*finished.prompt, *self.tokens],
        )
        answers.measure(last, finished.timings, self.lease.waited_s, total_s)
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
