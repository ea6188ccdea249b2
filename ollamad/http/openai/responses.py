"""POST /v1/responses: OpenAI's newer API for a conversation and its next message.

Nothing is kept, so whoever asks for an earlier response is told that it is not here.
"""

from __future__ import annotations

import msgspec
from quart import Quart, Response

from ollamad.errors import OllamadError, ResponseNotFound
from ollamad.http.chatting import ChatStream, prepare, start
from ollamad.http.doors import JSON_TYPE, Doors, read_body, request_writer
from ollamad.http.errors import status_of
from ollamad.http.ids import new_id
from ollamad.http.openai.errors import error_detail
from ollamad.http.openai.responsesasked import Asked, asked_of, check_early
from ollamad.http.openai.responsesevents import ResponseEvents
from ollamad.http.openai.responsesoutput import (
    COMPLETED,
    IN_PROGRESS,
    INCOMPLETE,
    Nobody,
    Output,
    OutputListener,
)
from ollamad.http.openai.responseswire import (
    CachedTokens,
    IncompleteDetails,
    ReasoningTokens,
    ResponseObject,
    ResponsesRequest,
    ResponseUsage,
)
from ollamad.http.sse import SSE_HEADERS, SSE_TYPE
from ollamad.http.streaming import AnswerLines, stream_response
from ollamad.runners.mailbox import Piece
from ollamad.runners.protocol import Delta, Finished, FinishReason

PATH = "/v1/responses"


def register(app: Quart, doors: Doors) -> None:
    """Add the routes."""

    @app.post(PATH)
    async def create_response() -> Response:
        return await _create(doors, await read_body(ResponsesRequest))

    @app.get(PATH + "/<response_id>")
    async def get_response(response_id: str) -> Response:
        raise _not_kept(response_id)

    @app.delete(PATH + "/<response_id>")
    async def delete_response(response_id: str) -> Response:
        raise _not_kept(response_id)


def _not_kept(response_id: str) -> ResponseNotFound:
    return ResponseNotFound(
        f"Response with id '{response_id}' not found: responses are not kept here"
    )


async def _create(doors: Doors, body: ResponsesRequest) -> Response:
    check_early(body)
    model = await doors.find(body.model)
    asked = asked_of(body, model)
    lease = await doors.lease(model, asked.load, None)
    prepared = await prepare(doors, model, lease, asked.chat)
    stream = start(lease, prepared)
    first = await stream.mailbox.take()
    if not body.stream:
        answer = _Answer(doors, body, asked, stream, Nobody())
        whole = await answer.whole(first)
        return Response(msgspec.json.encode(whole), content_type=JSON_TYPE)
    events = ResponseEvents()
    told = _Told(_Answer(doors, body, asked, stream, events), events)
    lines = AnswerLines(
        stream.mailbox, first, told.piece, told.finish, request_writer(), on_error=told.fail
    )
    return stream_response(lines, SSE_TYPE, SSE_HEADERS)


class _Answer:
    """One response, as far as it has come."""

    def __init__(
        self,
        doors: Doors,
        body: ResponsesRequest,
        asked: Asked,
        stream: ChatStream,
        listener: OutputListener,
    ) -> None:
        self._doors = doors
        self._stream = stream
        self._output = Output(
            listener, asked.tools.split_name, shows_encrypted=asked.shows_encrypted
        )
        self.begun = _begun(body, asked, self._now())

    def take(self, piece: Piece | Delta) -> None:
        """Take what is new."""
        self._output.feed(self._stream.feed(piece), piece.logprobs)

    async def whole(self, first: Piece | Finished) -> ResponseObject:
        """Return the response when it is complete. Raises the answer's error."""
        event = first
        while not isinstance(event, Finished):
            self.take(event)
            event = await self._stream.mailbox.take()
        return self.finish(event)

    def finish(self, finished: Finished) -> ResponseObject:
        """Return the response: there is no more of it."""
        self._output.feed(self._stream.finish())
        is_whole = finished.reason is not FinishReason.LENGTH
        status = COMPLETED if is_whole else INCOMPLETE
        self._output.close(status)
        timings = finished.timings
        return self._ended(
            status,
            completed_at=self._now() if is_whole else None,
            incomplete_details=None if is_whole else IncompleteDetails("max_output_tokens"),
            usage=ResponseUsage(
                input_tokens=timings.prompt_tokens,
                input_tokens_details=CachedTokens(cached_tokens=timings.cached_tokens),
                output_tokens=timings.generated_tokens,
                output_tokens_details=ReasoningTokens(
                    reasoning_tokens=min(self._stream.n_thinking_tokens, timings.generated_tokens)
                ),
                total_tokens=timings.prompt_tokens + timings.generated_tokens,
            ),
        )

    def fail(self) -> ResponseObject:
        """Return the response as far as it has come: there will be no more of it."""
        self._output.close(INCOMPLETE)
        return self._ended("failed")

    def _ended(self, status: str, **fields: object) -> ResponseObject:
        return msgspec.structs.replace(
            self.begun, status=status, output=self._output.items, **fields
        )

    def _now(self) -> int:
        return int(self._doors.clock.now().timestamp())


class _Told:
    """Tells a response's events while it comes."""

    def __init__(self, answer: _Answer, events: ResponseEvents) -> None:
        self._answer = answer
        self._events = events
        self._has_begun = False

    def piece(self, piece: Piece | Delta) -> bytes:
        self._begin()
        self._answer.take(piece)
        return self._events.take()

    def finish(self, finished: Finished) -> bytes:
        self._begin()
        self._events.ended(self._answer.finish(finished))
        return self._events.take()

    def fail(self, error: OllamadError) -> bytes:
        self._begin()
        detail = error_detail(status_of(error), error.message, error)
        self._events.failed(self._answer.fail(), detail)
        return self._events.take()

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._events.began(self._answer.begun)


def _begun(body: ResponsesRequest, asked: Asked, created_at: int) -> ResponseObject:
    """Return the response before there is anything of it: mostly what was asked."""
    sampling = asked.chat.sampling
    return ResponseObject(
        id=new_id("resp_"),
        created_at=created_at,
        status=IN_PROGRESS,
        model=body.model,
        instructions=body.instructions,
        tools=body.tools,
        tool_choice=body.tool_choice,
        truncation=body.truncation,
        parallel_tool_calls=body.parallel_tool_calls,
        text=body.text,
        top_p=sampling.top_p,
        top_logprobs=body.top_logprobs,
        temperature=sampling.temperature,
        reasoning=body.reasoning,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        metadata=body.metadata,
        safety_identifier=body.safety_identifier,
        prompt_cache_key=body.prompt_cache_key,
        user=body.user,
    )
