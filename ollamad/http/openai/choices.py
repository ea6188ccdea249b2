"""The answers to one request, one or several, streamed or whole."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Protocol

import trio
from quart import Response
from quart.wrappers.response import ResponseBody

from ollamad.errors import OllamadError
from ollamad.http.doors import request_writer
from ollamad.http.openai.chunks import failure
from ollamad.http.sse import SSE_HEADERS, SSE_TYPE
from ollamad.http.streaming import AnswerLines, stream_response
from ollamad.runners.mailbox import Mailbox, Piece
from ollamad.runners.protocol import Delta, Finished

_log = logging.getLogger(__name__)


class Choice(Protocol):
    """One of the answers on its way, told in events."""

    @property
    def mailbox(self) -> Mailbox:
        """Where it comes from."""
        ...

    def piece(self, piece: Piece | Delta) -> bytes:
        """Return the event of what is new; nothing if there is nothing to tell."""
        ...

    def finish(self, finished: Finished) -> bytes:
        """Return the last events of this answer."""
        ...


async def streamed(choices: Sequence[Choice], tail: Callable[[], bytes]) -> Response:
    """Return a response that streams *choices*, and when all of them have ended, *tail*.

    The first event of the first one decides the status: its error is raised.
    """
    body: ResponseBody
    first = await choices[0].mailbox.take()
    if len(choices) == 1:
        only = choices[0]
        body = AnswerLines(
            only.mailbox,
            first,
            only.piece,
            lambda finished: only.finish(finished) + tail(),
            request_writer(),
            on_error=failure,
        )
    else:
        body = SideBySide(choices, first, tail)
    return stream_response(body, SSE_TYPE, SSE_HEADERS)


_Event = Piece | Finished | OllamadError


class SideBySide(ResponseBody):
    """The events of several answers, in the order in which they come.

    Each answer has a task that hands over one event at a time: while the client is slow, the
    mailboxes merge what comes, as they do for a single answer. The tasks live as long as the body
    is being sent. The first answer that fails ends all of them.
    """

    def __init__(
        self, choices: Sequence[Choice], first: Piece | Finished, tail: Callable[[], bytes]
    ) -> None:
        self._choices = choices
        self._first = first
        self._tail = tail
        self._n_open = len(choices)
        self._send, self._receive = trio.open_memory_channel[tuple[Choice, _Event]](0)
        self._tasks = trio.open_nursery()
        self._is_over = False

    async def __aenter__(self) -> SideBySide:
        nursery = await self._tasks.__aenter__()
        self._cancel = nursery.cancel_scope.cancel
        for choice in self._choices:
            is_first = choice is self._choices[0]
            nursery.start_soon(self._read, choice, self._first if is_first else None)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._cancel()
        await self._tasks.__aexit__(exc_type, exc_value, tb)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._is_over:
            choice, event = await self._receive.receive()
            if isinstance(event, OllamadError):
                self._is_over = True
                _log.warning("an answer ended early: %s", event.message)
                return failure(event)
            if isinstance(event, Finished):
                self._n_open -= 1
                self._is_over = not self._n_open
                return choice.finish(event) + (self._tail() if self._is_over else b"")
            if line := choice.piece(event):
                return line
        raise StopAsyncIteration

    async def _read(self, choice: Choice, event: _Event | None) -> None:
        while not isinstance(event, Finished | OllamadError):
            if event is not None:
                await self._send.send((choice, event))
            try:
                event = await choice.mailbox.take()
            except OllamadError as exc:
                event = exc
        await self._send.send((choice, event))
