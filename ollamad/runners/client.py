"""The daemon's end of a runner's channel: one reader, a sink for each request, one outbox.

The reader never waits for a consumer. Everything that sends is synchronous for the caller: a
message goes to the outbox, whose length is bounded by the open requests (each puts at most two).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Protocol, assert_never

import trio

from ollamad.errors import (
    ContextTooLong,
    GenerationFailed,
    InvalidBody,
    OllamadError,
    ProtocolBroken,
    RunnerCrashed,
    UnsupportedOption,
)
from ollamad.runners.channel import Channel, ChannelClosed
from ollamad.runners.protocol import (
    Beat,
    Cancel,
    Delta,
    Deltas,
    Embed,
    Embedded,
    EngineGauges,
    Failed,
    FailureCode,
    Finished,
    FromRunner,
    Generate,
    Hello,
    Load,
    Loaded,
    LoadFailed,
    LoadPlan,
    LoadProgress,
    Rank,
    Ranked,
    RequestId,
    Shutdown,
    Threads,
    Tokenize,
    Tokenized,
    ToRunner,
)

Question = Tokenize | Embed | Rank
"""A request with one answer, not a stream."""
Reply = Tokenized | Embedded | Ranked
LifeMessage = Hello | LoadProgress | Loaded | LoadFailed
"""What a runner says about itself rather than about a request."""


class Sink(Protocol):
    """Where the answer to one `Generate` goes. Nothing here may wait or raise."""

    def put(self, delta: Delta) -> None:
        """Take a part of the answer."""
        ...

    def close(self, outcome: Finished | OllamadError) -> None:
        """Take the end of the answer."""
        ...

    def lose(self, error: RunnerCrashed) -> None:
        """The runner has ended before the answer did."""
        ...


class RunnerClient:
    """Talks to one runner. Requests may be made from any task; `run` does the reading."""

    def __init__(self, stream: trio.abc.Stream, on_life: Callable[[LifeMessage], None]) -> None:
        self._channel: Channel[FromRunner, ToRunner] = Channel(stream, FromRunner)
        self._on_life = on_life
        self._sinks: dict[RequestId, Sink] = {}
        self._answers: dict[RequestId, _Answer] = {}
        self._ids = itertools.count(1)
        # Unbounded in type, bounded in fact: at most Generate and Cancel for each open request.
        self._outbox, self._outgoing = trio.open_memory_channel[ToRunner](math.inf)
        self._closed: RunnerCrashed | None = None
        self.broken: ProtocolBroken | None = None
        """Why the runner is not understood any more, if that is how the conversation ended."""
        self.gauges: EngineGauges | None = None
        """What the engine last said of itself; it is silent while it has nothing to do."""
        self.progress_at = trio.current_time()
        """When the engine last got on, or was given something to do after having had nothing."""

    @property
    def n_open(self) -> int:
        """Requests without an outcome."""
        return len(self._sinks) + len(self._answers)

    @property
    def is_closed(self) -> bool:
        """The runner has ended: whatever is asked of it now is lost at once."""
        return self._closed is not None

    async def run(self) -> None:
        """Read and write until the runner closes its end. Never raises for a runner's fault."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            await self._channel_closed()

    async def _channel_closed(self) -> None:
        with trio.CancelScope(shield=True):
            await self._channel.aclose()

    async def _read(self) -> None:
        while True:
            try:
                message = await self._channel.receive()
            except ChannelClosed:
                return
            except ProtocolBroken as exc:
                # Its requests are decided when its process has ended, as after any other death.
                self.broken = exc
                return
            self._dispatch(message)

    async def _write(self) -> None:
        async for message in self._outgoing:
            try:
                await self._channel.send(message)
            except ChannelClosed:
                return  # The reader sees the end of the stream as well, and says so.
            except ProtocolBroken as exc:
                self._unsendable(message, exc)

    def _dispatch(self, message: FromRunner) -> None:
        match message:
            case Deltas(items):
                self.progress_at = trio.current_time()
                for delta in items:
                    if (sink := self._sinks.get(delta.id)) is not None:
                        sink.put(delta)
            case Finished():
                self.progress_at = trio.current_time()
                if (sink := self._sinks.pop(message.id, None)) is not None:
                    sink.close(message)
            case Failed():
                self._fail(message.id, error_of(message))
            case Tokenized() | Embedded() | Ranked():
                self.progress_at = trio.current_time()
                if (answer := self._answers.pop(message.id, None)) is not None:
                    answer.set(message)
            case Beat(gauges):
                if self.gauges is None or gauges.steps != self.gauges.steps:
                    self.progress_at = trio.current_time()
                self.gauges = gauges
            case Hello() | LoadProgress() | Loaded() | LoadFailed():
                self._on_life(message)
            case _:
                assert_never(message)

    def _unsendable(self, message: ToRunner, reason: ProtocolBroken) -> None:
        """Answer in the runner's place: it never hears of what no frame can hold.

        One request's text must not end the connection that all requests use.
        """
        match message:
            case Generate() | Tokenize() | Embed() | Rank():
                text = f"the request cannot be handed to the model: {reason}"
                self._fail(message.id, InvalidBody(text))
            case Load():
                self._on_life(LoadFailed(FailureCode.BAD_REQUEST, str(reason)))
            case Cancel() | Threads() | Shutdown():
                raise reason
            case _:
                assert_never(message)

    def _fail(self, request_id: RequestId, error: OllamadError) -> None:
        if (sink := self._sinks.pop(request_id, None)) is not None:
            sink.close(error)
        elif (answer := self._answers.pop(request_id, None)) is not None:
            answer.set(error)

    def load(self, plan: LoadPlan) -> None:
        """Tell the runner which model to load. The answers are life messages."""
        self._post(Load(plan))

    def use_threads(self, n_threads: int) -> None:
        """Tell the runner with how many threads to compute from now on."""
        self._post(Threads(n_threads))

    def shut_down(self) -> None:
        """Tell the runner to exit."""
        self._post(Shutdown())

    def next_id(self) -> RequestId:
        """Return an id for a request."""
        return next(self._ids)

    def generate(self, request: Generate, sink: Sink) -> None:
        """Start a generation whose answer goes to *sink*."""
        if self._closed is not None:
            sink.lose(self._closed)
            return
        self._note_work()
        self._sinks[request.id] = sink
        self._post(request)

    def cancel(self, request_id: RequestId) -> None:
        """Nobody waits for this request any more. Synchronous and idempotent."""
        if self._sinks.pop(request_id, None) is not None:
            self._post(Cancel(request_id))

    async def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        """Return the token ids of *text*. Raises what the runner or its end says."""
        reply = await self._ask(Tokenize(id=self.next_id(), text=text, add_special=add_special))
        assert isinstance(reply, Tokenized)  # noqa: S101 - the runner answers in kind
        return reply.tokens

    async def embed(
        self, texts: tuple[str, ...], *, truncate: bool, dimensions: int, normalize: bool
    ) -> Embedded:
        """Return a vector for each text. Raises what the runner or its end says."""
        reply = await self._ask(
            Embed(
                id=self.next_id(),
                texts=texts,
                truncate=truncate,
                dimensions=dimensions,
                normalize=normalize,
            )
        )
        assert isinstance(reply, Embedded)  # noqa: S101 - the runner answers in kind
        return reply

    async def rank(self, query: str, documents: tuple[str, ...], *, truncate: bool) -> Ranked:
        """Return how well each document answers. Raises what the runner or its end says."""
        reply = await self._ask(
            Rank(id=self.next_id(), query=query, documents=documents, truncate=truncate)
        )
        assert isinstance(reply, Ranked)  # noqa: S101 - the runner answers in kind
        return reply

    async def _ask(self, question: Question) -> Reply:
        """Return the answer. Cancellation tells the runner that nobody waits for it."""
        if self._closed is not None:
            raise self._closed.with_traceback(None)
        self._note_work()
        self._answers[question.id] = answer = _Answer()
        try:
            self._post(question)
            return await answer.get()
        finally:
            if self._answers.pop(question.id, None) is not None:
                self._post(Cancel(question.id))

    def _note_work(self) -> None:
        if not self.n_open:
            self.progress_at = trio.current_time()

    def fail_all(self, error: RunnerCrashed) -> None:
        """The runner has ended: so says *error* to every open request, and to every later one."""
        self._closed = self._closed or error
        sinks, answers = list(self._sinks.values()), list(self._answers.values())
        self._sinks.clear()
        self._answers.clear()
        for sink in sinks:
            sink.lose(error)
        for answer in answers:
            answer.set(error)

    def _post(self, message: ToRunner) -> None:
        try:
            self._outbox.send_nowait(message)
        except trio.BrokenResourceError:
            self.fail_all(RunnerCrashed("the model's runner has ended"))


class _Answer:
    """One value that one task waits for."""

    def __init__(self) -> None:
        self._value: Reply | OllamadError | None = None
        self._set = trio.Event()

    def set(self, value: Reply | OllamadError) -> None:
        self._value = value
        self._set.set()

    async def get(self) -> Reply:
        await self._set.wait()
        if isinstance(self._value, OllamadError):
            raise self._value.with_traceback(None)
        assert self._value is not None  # noqa: S101 - set() is the only way out of the wait
        return self._value


def error_of(message: Failed) -> OllamadError:
    """Return the daemon's error for a runner's failure."""
    match message.code:
        case FailureCode.CONTEXT_TOO_LONG:
            return ContextTooLong(message.detail)
        case FailureCode.BAD_REQUEST:
            return UnsupportedOption(message.detail)
        case (
            FailureCode.ENGINE
            | FailureCode.KV_FULL
            | FailureCode.OUT_OF_MEMORY
            | FailureCode.NOT_FOUND
            | FailureCode.NOT_A_MODEL
        ):
            return GenerationFailed(message.detail)
        case _:
            assert_never(message.code)
