"""How fast a model runs on a daemon: the requests that measure it, each bounded in time.

Reads the daemon's own timings where it states them, and our clock where only a client can know.
Shows nothing; `commands/bench.py` does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ollamactl.errors import ApiError, ConnectionLost, CtlError
from ollamactl.http import READ_TIMEOUT_S, Client
from ollamactl.wire import JsonObject, Piece, RunningModel, RunningModels, read_as

LOAD_TIMEOUT_S: Final = 600.0
UNLOAD_PATIENCE_S: Final = 10.0
"""How long a model may take to leave. One that others use stays, and its load is not measured."""

POLL_S: Final = 0.02
N_FIRST: Final = 3
"""Short requests whose middle wait is the time to the first token."""

SHORT_WORDS: Final = 24
WORDS: Final = tuple(
    "the sea and wind of old light house where people work over long night by water".split()  # noqa: SIM905  # Read as words.
)
"""Common words, which are one token each in most vocabularies."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how long each step may take."""

    prefill_tokens: tuple[int, ...]
    n_streams: tuple[int, ...]
    n_tokens: int
    step_s: float

    @property
    def longest_s(self) -> float:
        """The most that all steps together take once the model is loaded."""
        return (N_FIRST + len(self.prefill_tokens) + len(self.n_streams)) * self.step_s


FULL: Final = Plan(prefill_tokens=(512, 1500), n_streams=(1, 4, 8), n_tokens=128, step_s=60.0)
QUICK: Final = Plan(prefill_tokens=(512,), n_streams=(1, 4), n_tokens=32, step_s=15.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Prefill:
    """How fast a prompt was read; None if it was not read in time."""

    n_tokens: int
    tokens_per_s: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Decode:
    """How fast answers were written, all together; None if none began in time."""

    n_streams: int
    tokens_per_s: float | None
    is_cut: bool = False
    """Whether time ran out before the answers ended."""


@dataclasses.dataclass(slots=True)
class Measured:
    """What is known so far."""

    load_s: float | None = None
    first_token_s: float | None = None
    prefill: list[Prefill] = dataclasses.field(default_factory=list)
    decode: list[Decode] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class _Stream:
    """One answer as it came."""

    started_s: float
    first_s: float | None = None
    last_s: float = 0.0
    n_pieces: int = 0
    end: Piece | None = None

    @property
    def n_tokens(self) -> int:
        """The daemon's count; of a stream that was cut, its pieces, which are about as many."""
        return self.end.eval_count if self.end is not None else self.n_pieces


class Benchmark:
    """One measurement of one model."""

    def __init__(self, connect: Callable[[], Client], model: str, plan: Plan) -> None:
        self._connect = connect
        self._model = model
        self._plan = plan
        self._random = random.Random()  # noqa: S311  # Only so that no text was seen before.
        self._stopped = threading.Event()
        self.measured = Measured()

    def run(self, tell: Callable[[str], None], *, is_warm: bool) -> Measured:
        """Measure everything; *tell* is called with what comes next. Raises CtlError."""
        with self._connect() as client:
            was_unloaded = _running(client, self._model) is None
            if not was_unloaded and not is_warm:
                tell(f"unloading {self._model}")
                was_unloaded = self._unload(client)
            tell(f"loading {self._model}")
            loaded_s = self._load(client)
            self.measured.load_s = loaded_s if was_unloaded else None
            tell("waiting for first tokens")
            self._measure_first(client)
            for n_tokens in self._plan.prefill_tokens:
                tell(f"reading a prompt of about {n_tokens:,} tokens")
                self._measure_prefill(client, n_tokens)
        for n_streams in self._plan.n_streams:
            tell(f"writing {n_streams} answer{'s at once' if n_streams > 1 else ''}")
            self._measure_decode(n_streams)
        return self.measured

    def running(self) -> RunningModel | None:
        """Return how the model runs, if it does."""
        with self._connect() as client:
            return _running(client, self._model)

    def _unload(self, client: Client) -> bool:
        """Ask for the model to be unloaded; return whether that was done in time."""
        with contextlib.suppress(ApiError):
            body = {"model": self._model, "prompt": "", "keep_alive": 0, "stream": False}
            client.ask("POST", "/api/generate", body, read_timeout_s=READ_TIMEOUT_S)
        deadline = time.monotonic() + UNLOAD_PATIENCE_S
        while _running(client, self._model) is not None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _load(self, client: Client) -> float:
        """Load the model and return how long that took, by our clock."""
        began = time.perf_counter()
        body = {"model": self._model, "prompt": "", "stream": False}
        client.ask("POST", "/api/generate", body, read_timeout_s=LOAD_TIMEOUT_S)
        return time.perf_counter() - began

    def _measure_first(self, client: Client) -> None:
        streams = [self._stream(client, self._text(SHORT_WORDS), 1) for _ in range(N_FIRST)]
        waits_s = [each.first_s - each.started_s for each in streams if each.first_s is not None]
        self.measured.first_token_s = statistics.median(waits_s) if waits_s else None

    def _measure_prefill(self, client: Client, n_tokens: int) -> None:
        end = self._stream(client, self._text(n_tokens), 1).end
        if end is None or not end.prompt_eval_duration:
            self.measured.prefill.append(Prefill(n_tokens, None))
            return
        rate = end.prompt_eval_count / (end.prompt_eval_duration / 1e9)
        self.measured.prefill.append(Prefill(end.prompt_eval_count, rate))

    def _measure_decode(self, n_streams: int) -> None:
        texts = [self._text(SHORT_WORDS) for _ in range(n_streams)]
        with ThreadPoolExecutor(n_streams) as pool:
            try:
                streams = list(pool.map(self._stream_alone, texts))
            except BaseException:
                self._stopped.set()  # Ctrl-C: the other threads are to hang up too.
                raise
        begun = [each for each in streams if each.first_s is not None]
        is_cut = any(each.end is None for each in streams)
        if not begun:
            self.measured.decode.append(Decode(n_streams, None, is_cut))
            return
        if n_streams == 1 and (end := begun[0].end) is not None and end.eval_duration:
            rate = end.eval_count / (end.eval_duration / 1e9)
        else:
            first_s = min(each.first_s for each in begun if each.first_s is not None)
            span_s = max(each.last_s for each in begun) - first_s
            rate = sum(each.n_tokens for each in begun) / span_s if span_s > 0 else 0.0
        self.measured.decode.append(Decode(n_streams, rate or None, is_cut))

    def _stream_alone(self, text: str) -> _Stream:
        with self._connect() as client:
            return self._stream(client, text, self._plan.n_tokens)

    def _stream(self, client: Client, text: str, n_tokens: int) -> _Stream:
        """Stream one answer until it ends or the step's time is over."""
        body: JsonObject = {
            "model": self._model,
            "prompt": text,
            "raw": True,
            "stream": True,
            "options": {"num_predict": n_tokens, "temperature": 0, "seed": 1, "ignore_eos": True},
        }
        stream = _Stream(started_s=time.perf_counter())
        deadline_s = stream.started_s + self._plan.step_s
        pieces = client.stream("/api/generate", body, read_timeout_s=self._plan.step_s)
        try:
            with contextlib.closing(pieces):
                for answer in pieces:
                    piece, now = read_as(Piece, answer), time.perf_counter()
                    if piece.done:
                        stream.end = piece
                        break
                    if piece.response or piece.thinking:
                        stream.first_s = stream.first_s or now
                        stream.last_s = now
                        stream.n_pieces += 1
                    if now >= deadline_s or self._stopped.is_set():
                        break
        except ConnectionLost:
            if time.perf_counter() < deadline_s:
                raise
        return stream

    def _text(self, n_words: int) -> str:
        """Return a text that no cache has seen."""
        return " ".join(self._random.choices(WORDS, k=n_words))


def _running(client: Client, model: str) -> RunningModel | None:
    wanted = {model, f"{model}:latest"}
    running = read_as(RunningModels, client.get("/api/ps")).models or []
    return next((each for each in running if each.name in wanted), None)


def check_can_write(capabilities: list[str] | None, model: str) -> None:
    """Raise CtlError if *model* writes no text, which is what is measured."""
    if capabilities and "completion" not in capabilities:
        raise CtlError(f"model '{model}' writes no text ({', '.join(capabilities)}), name another")
