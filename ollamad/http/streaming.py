"""Streamed answers: lines or events over a mailbox, with errors after the first byte."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Final

from quart import Response
from quart.wrappers.response import ResponseBody

from ollamad.errors import OllamadError
from ollamad.http.errors import body_of
from ollamad.http.scope import PieceWriter
from ollamad.runners.mailbox import Mailbox, Piece
from ollamad.runners.protocol import Delta, Finished

NDJSON_TYPE: Final = "application/x-ndjson"

_log = logging.getLogger(__name__)


def _error_line(error: OllamadError) -> bytes:
    return body_of(error.message) + b"\n"


class AnswerLines(ResponseBody):
    """The lines of a streamed answer. An object rather than a generator: nothing to close.

    A body of Quart's own kind: any other would be wrapped into generators, for each line.

    *on_piece*, *on_finish* and *on_error* make lines (or events, or several of them), each with its
    end; nothing at all is no line.

    The first event was taken before the response began, because it decides the status; after
    that an error travels as the last line. With a *writer*, whoever brings a line writes it as long
    as the client keeps up; the others are iterated over.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        first: Piece | Finished,
        on_piece: Callable[[Piece | Delta], bytes],
        on_finish: Callable[[Finished], bytes],
        writer: PieceWriter | None = None,
        *,
        on_error: Callable[[OllamadError], bytes] = _error_line,
    ) -> None:
        self._mailbox = mailbox
        self._next: Piece | Finished | None = first
        self._on_piece = on_piece
        self._on_finish = on_finish
        self._writer = writer
        self._on_error = on_error
        self._is_over = False

    async def __aenter__(self) -> AnswerLines:
        return self

    async def __aexit__(self, exc_type: type, exc_value: BaseException, tb: TracebackType) -> None:
        pass

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._is_over:
            try:
                event, self._next = self._next or await self._take(), None
            except OllamadError as exc:
                self._is_over = True
                _log.warning("an answer ended early: %s", exc.message)
                return self._on_error(exc)
            if isinstance(event, Finished):
                self._is_over = True
                return self._on_finish(event)
            if line := self._on_piece(event):
                return line
        raise StopAsyncIteration

    async def _take(self) -> Piece | Finished:
        return await self._mailbox.take(self._forward if self._writer is not None else None)

    def _forward(self, delta: Delta) -> bool:
        """Write the line of a delta while everything before it is written."""
        if self._writer is None or not self._writer.is_free:
            return False
        self._writer.write(self._on_piece(delta))
        return True


def stream_response(
    body: ResponseBody | AsyncIterator[bytes],
    content_type: str,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a response that streams *body* for as long as it comes: a long one does not hang."""
    response = Response(body, content_type=content_type, headers=headers)
    response.timeout = None
    return response


async def whole_answer(
    mailbox: Mailbox,
    first: Piece | Finished,
    on_piece: Callable[[Piece], None] | None = None,
) -> tuple[Piece, Finished]:
    """Return all of an answer as one piece, and its end. Raises the answer's error.

    *on_piece* sees each as it comes.
    """
    pieces: list[Piece] = []
    event = first
    while not isinstance(event, Finished):
        pieces.append(event)
        if on_piece is not None:
            on_piece(event)
        event = await mailbox.take()
    return (
        Piece(
            "".join(piece.text for piece in pieces),
            tuple(token for piece in pieces for token in piece.tokens),
            tuple(step for piece in pieces for step in piece.logprobs),
        ),
        event,
    )
