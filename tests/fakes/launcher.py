"""`FakeLauncher`: runners that are tasks, speaking the real protocol over memory streams.

Faults are arguments. A story ends by asking for what is left: `launcher.alive == []`.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Mapping

import trio
import trio.testing

from ollamad.errors import LoadFailed as LoadFailedError
from ollamad.runners.channel import Channel, ChannelClosed
from ollamad.runners.launch import RunnerProcess, RunnerSpec
from ollamad.runners.protocol import (
    PROTOCOL_VERSION,
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
    FinishReason,
    FromRunner,
    Generate,
    Hello,
    Load,
    Loaded,
    LoadFailed,
    LoadPlan,
    MemoryUse,
    Rank,
    Ranked,
    Shutdown,
    Timings,
    Tokenize,
    Tokenized,
    ToRunner,
)
from ollamad.runners.worker.text import TextAssembler
from ollamad.units import GIB, MIB

KILLED = -9
TERMINATED = -15
NOT_A_NUMBER = "nan"
"""A text whose vector is broken."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Script:
    """How a runner behaves. Times are seconds after the step before."""

    hello_after_s: float = 0.1
    load_takes_s: float = 2.0
    load_fails: str = ""
    load_fails_with: FailureCode = FailureCode.NOT_A_MODEL
    weights_bytes: int = GIB
    """What it measures of its weights after loading."""
    word_takes_s: float = 0.05
    """Between two words of an answer."""
    dies_after_words: float = math.inf
    """Words of all its answers; also after the last one and before the answer's end."""
    dies_of: str = "\0"
    """A word of a prompt, of a question's text or of a text to be tokenized that it dies of."""
    token_bytes: int = 0
    """An answer's tokens are so many bytes of the prompt each; 0 is a word each."""
    hangs_after_words: float = math.inf
    says: str = ""
    """What it answers, cut into words or `token_bytes`; empty is the prompt itself."""
    beats: bool = True
    beats_while_hung: bool = False
    """Its socket is served on, with beats that show no progress."""
    ignores: frozenset[str] = frozenset()
    """Rungs of the stop ladder it is deaf to: `shutdown`, `term`, in a hanging kernel `kill`."""
    exits_at_start: bool = False
    says_at_start: bytes = b""
    """Lines of log before anything else."""
    launch_fails: bool = False


class FakeProcess:
    """A runner that answers a prompt with its own words, and counts them as tokens."""

    def __init__(self, script: Script, pid: int, spec: RunnerSpec) -> None:
        self.script = script
        self.spec = spec
        self.pid = pid
        self.started_at = trio.current_time()
        ours, theirs = trio.testing.memory_stream_pair()
        self.stream: trio.abc.Stream = ours
        self._theirs = theirs
        self.channel: Channel[ToRunner, FromRunner] = Channel(theirs, ToRunner)
        end, self.output = trio.testing.memory_stream_one_way_pair()
        self._output_end = end
        self.exited = trio.Event()
        self.status = 0
        self.plan: LoadPlan | None = None
        self.limits_bytes: list[int] = []
        self.cancelled: list[int] = []
        self.generating: set[int] = set()
        self.generated: list[Generate] = []
        """All it was asked to generate."""
        self._scope = trio.CancelScope()
        self._words = 0

    # What the launcher's user sees

    @property
    def has_ended(self) -> bool:
        return self._scope.cancel_called

    def limit_memory(self, planned_bytes: int) -> None:
        self.limits_bytes.append(planned_bytes)

    def terminate(self) -> None:
        if "term" not in self.script.ignores:
            self.end(TERMINATED)

    def kill(self) -> None:
        if "kill" not in self.script.ignores:
            self.end(KILLED)

    async def wait(self) -> int:
        await self.exited.wait()
        return self.status

    # What it does

    def end(self, status: int) -> None:
        """The process ends now."""
        if not self.exited.is_set():
            self.status = status
            self._scope.cancel()

    async def run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                await self._live(nursery)
        with trio.CancelScope(shield=True):
            await self._theirs.aclose()
            await self._output_end.aclose()
        self.exited.set()

    async def _live(self, nursery: trio.Nursery) -> None:
        if self.script.says_at_start:
            await self._output_end.send_all(self.script.says_at_start)
        if self.script.exits_at_start:
            await self._output_end.send_all(b"E cannot open the GPU\n")
            self.end(1)
            return
        await trio.sleep(self.script.hello_after_s)
        await self.channel.send(Hello(protocol=PROTOCOL_VERSION, pid=self.pid, build="fake"))
        try:
            while True:
                await self._obey(await self.channel.receive(), nursery)
        except ChannelClosed:
            self.end(0)

    async def _obey(self, command: ToRunner, nursery: trio.Nursery) -> None:
        match command:
            case Load(plan):
                self.plan = plan
                nursery.start_soon(self._load, plan)
            case Generate():
                nursery.start_soon(self._generate, command)
            case Tokenize():
                if self.script.dies_of in command.text:
                    self.end(KILLED)
                tokens = tuple(range(len(command.text.split())))
                await self.channel.send(Tokenized(command.id, tokens))
            case Embed() | Rank():
                nursery.start_soon(self._answer, command)
            case Cancel(request_id):
                self.cancelled.append(request_id)
            case Shutdown():
                if "shutdown" not in self.script.ignores:
                    self.end(0)

    async def _load(self, plan: LoadPlan) -> None:
        await trio.sleep(self.script.load_takes_s)
        if self.script.load_fails:
            await self.channel.send(LoadFailed(self.script.load_fails_with, self.script.load_fails))
            self.end(0)
            return
        memory = MemoryUse(anonymous_bytes=64 * MIB, file_bytes=self.script.weights_bytes)
        await self.channel.send(Loaded(n_ctx=plan.n_ctx, n_slots=plan.n_slots, memory=memory))

    async def _generate(self, request: Generate) -> None:
        self.generating.add(request.id)
        self.generated.append(request)
        text = TextAssembler(request.sampling.stop)
        pieces, n_answered = self._pieces(self.script.says or request.prompt), len(request.answered)
        limit = request.sampling.num_predict
        is_cut = 0 <= limit < len(pieces)
        if is_cut:
            pieces = pieces[:limit]
        assert request.answered == tuple(range(n_answered)), "a token was lost or doubled"
        for piece in pieces[:n_answered]:
            text.feed(piece)
        for offset, piece in enumerate(pieces[n_answered:], start=n_answered):
            await trio.sleep(self.script.word_takes_s)
            if request.id in self.cancelled or text.is_stopped:
                break
            self._words += 1
            if self._words > self.script.dies_after_words or self.script.dies_of in request.prompt:
                self.end(KILLED)
            if self._words > self.script.hangs_after_words:
                await self._hang()
            delta = Delta(request.id, offset, text.feed(piece), (offset,))
            await self.channel.send(Deltas((delta,)))
            if self.script.beats:
                await self.channel.send(
                    Beat(EngineGauges(steps=self._words, slots_busy=1, kv_used=self._words))
                )
        if self._words >= self.script.dies_after_words:
            self.end(KILLED)
        self.generating.discard(request.id)
        reason = FinishReason.LENGTH if is_cut and not text.is_stopped else FinishReason.STOP
        if request.id in self.cancelled:
            reason = FinishReason.CANCELLED
        await self.channel.send(
            Finished(
                id=request.id,
                reason=reason,
                timings=Timings(
                    prompt_tokens=len(pieces),
                    prefill_s=self.script.word_takes_s,
                    generated_tokens=len(pieces) - n_answered,
                ),
                stop=text.stop,
                rest=text.finish(),
            )
        )

    def _pieces(self, prompt: str) -> list[bytes]:
        n_bytes, data = self.script.token_bytes, prompt.encode()
        if n_bytes:
            return [data[begin : begin + n_bytes] for begin in range(0, len(data), n_bytes)]
        return [f"{word} ".encode() for word in prompt.split()]

    async def _hang(self) -> None:
        while self.script.beats_while_hung:
            await trio.sleep(1)
            gauges = EngineGauges(steps=self._words - 1, slots_busy=1)
            await self.channel.send(Beat(gauges))
        await trio.sleep_forever()

    async def _answer(self, question: Embed | Rank) -> None:
        """Answer with numbers of words and characters, after the time of one word."""
        await trio.sleep(self.script.word_takes_s)
        if question.id in self.cancelled:
            return
        texts = question.texts if isinstance(question, Embed) else question.documents
        self._words += 1
        if self._words > self.script.dies_after_words or self.script.dies_of in " ".join(texts):
            self.end(KILLED)
        n_words = [len(text.split()) for text in texts]
        assert self.plan is not None
        if max(n_words) > self.plan.n_ctx and not question.truncate:
            detail = "the input length exceeds the context length"
            await self.channel.send(Failed(question.id, FailureCode.CONTEXT_TOO_LONG, detail))
        elif NOT_A_NUMBER in texts:
            detail = "embedding contains NaN or Inf values"
            await self.channel.send(Failed(question.id, FailureCode.ENGINE, detail))
        elif isinstance(question, Embed):
            rows = [(float(n), len(text) / 10) for n, text in zip(n_words, texts, strict=True)]
            n_dims = min(question.dimensions or 2, 2)
            await self.channel.send(
                Embedded(
                    id=question.id,
                    vectors=b"".join(struct.pack("<2f", *row)[: 4 * n_dims] for row in rows),
                    n_dims=n_dims,
                    prompt_tokens=sum(n_words),
                    timings=Timings(),
                )
            )
        else:
            await self.channel.send(
                Ranked(
                    id=question.id,
                    scores=tuple(map(float, n_words)),
                    prompt_tokens=sum(n_words),
                    timings=Timings(),
                )
            )


class FakeLauncher:
    """Starts fake runners, the n-th with the n-th script, then with the last one.

    A model whose name is in *by_label* has scripts of its own.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *scripts: Script,
        by_label: Mapping[str, tuple[Script, ...]] | None = None,
    ) -> None:
        self._nursery = nursery
        self._scripts = scripts or (Script(),)
        self._by_label = by_label or {}
        self.started: list[FakeProcess] = []

    @property
    def alive(self) -> list[FakeProcess]:
        """Processes that have not ended."""
        return [process for process in self.started if not process.exited.is_set()]

    def of(self, label: str) -> list[FakeProcess]:
        """Return the processes that were started for this model."""
        return [process for process in self.started if process.spec.label == label]

    async def launch(self, spec: RunnerSpec) -> RunnerProcess:
        """Return a started runner."""
        await trio.lowlevel.checkpoint()
        scripts = self._by_label.get(spec.label, self._scripts)
        so_far = self.started if scripts is self._scripts else self.of(spec.label)
        script = scripts[min(len(so_far), len(scripts) - 1)]
        if script.launch_fails:
            raise LoadFailedError("cannot start a runner process: no more processes")
        process = FakeProcess(script, pid=1000 + len(self.started), spec=spec)
        self.started.append(process)
        self._nursery.start_soon(process.run)
        return process
