"""`EmbeddingEngine`: vectors and scores of texts, those of many requests computed together.

Each step is one batch, in which every text is a sequence of its own (`packing.py` chooses them).
Nothing is kept from one step to the next but a text that is longer than a batch.

Also generating models can be loaded like this: then the last token's state is the text's vector.
They cannot generate meanwhile, because llama.cpp computes the output of every token in such a
context.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable

import numpy as np

from ollamad.buffersizes import BufferSizes
from ollamad.runners.protocol import (
    Embed,
    Embedded,
    EngineGauges,
    Failed,
    FailureCode,
    LoadPlan,
    MemoryKind,
    Rank,
    Ranked,
    RequestId,
    Timings,
)
from ollamad.runners.worker.batch import DecodeOutcome
from ollamad.runners.worker.bindings import buffer_log
from ollamad.runners.worker.embeddingmodel import Array, EmbeddingModel, Pooling
from ollamad.runners.worker.engine import EngineRefused, Request, StepResult
from ollamad.runners.worker.packing import share_step


@dataclasses.dataclass(slots=True)
class _Open:
    """One request that is not answered yet. Times are seconds of the worker's monotonic clock."""

    request: Embed | Rank
    texts: list[list[int]]
    """The tokens of each text."""
    vectors: Array
    """A row for each text; those of the first `n_done` texts are computed."""
    arrived_at: float
    n_tokens: int
    n_done: int = 0
    n_begun: int = 0
    """Tokens of the next text that are computed already, where it is longer than a batch."""
    n_alone: int = 0
    """How many of the next texts must be computed alone."""
    started_at: float = 0.0

    def timings(self, now: float) -> Timings:
        """Return what the request has cost until *now*."""
        return Timings(
            queue_s=self.started_at - self.arrived_at,
            prefill_s=now - self.started_at,
            prompt_tokens=self.n_tokens,
        )


class EmbeddingEngine:
    """Makes vectors or scores. See `ollamad.runners.worker.engine.Engine`."""

    def __init__(self, model: EmbeddingModel) -> None:
        self._model = model
        self._open: dict[RequestId, _Open] = {}
        self._computing: frozenset[RequestId] = frozenset()
        """Requests with a text in the batch being computed; read by `interrupt`."""
        self._gauges = EngineGauges()
        self._steps = self._batch_tokens = 0
        self._step_s = 0.0

    @classmethod
    def loaded(cls, plan: LoadPlan, on_progress: Callable[[float], None]) -> EmbeddingEngine:
        """Return an engine with the model that *plan* names. Raises EngineRefused."""
        model = EmbeddingModel(plan, on_progress)
        # One small text, computed and forgotten: whatever cannot compute here must show before
        # the first request does.
        outcome = model.compute([(0, model.text_tokens("", truncate=True))])
        if outcome is not DecodeOutcome.DONE or not np.isfinite(model.vector(0)).all():
            raise EngineRefused(FailureCode.ENGINE, "the model cannot compute a first token")
        model.forget()
        return cls(model)

    @property
    def n_ctx(self) -> int:
        """Context length of one sequence, in tokens."""
        return self._model.n_ctx

    @property
    def n_slots(self) -> int:
        """Sequences computed side by side."""
        return self._model.n_seqs

    @property
    def has_work(self) -> bool:
        """A step would compute something."""
        return bool(self._open)

    @property
    def is_steady(self) -> bool:
        """It streams nothing."""
        return False

    @property
    def buffers(self) -> BufferSizes | None:
        """See Engine."""
        return buffer_log.sizes()

    @property
    def memory_kind(self) -> MemoryKind:
        """What the model's context memory allows."""
        return self._model.memory_kind

    @property
    def later_bytes(self) -> int:
        """See Engine: nothing."""
        return 0

    @property
    def gauges(self) -> EngineGauges:
        """What the engine does now."""
        return self._gauges

    def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        """Return token ids of *text*. Raises EngineRefused."""
        return tuple(self._model.tokenize(text, add_special=add_special))

    def submit(self, request: Request) -> None:
        """Take a request. Raises EngineRefused."""
        arrived_at = time.monotonic()
        match request:
            case Embed():
                texts = self._texts_of(request)
            case Rank():
                texts = self._pairs_of(request)
            case _:
                raise EngineRefused(
                    FailureCode.BAD_REQUEST, "this model only makes embeddings, it cannot generate"
                )
        if not texts:
            raise EngineRefused(FailureCode.BAD_REQUEST, "there is no text to compute")
        self._open[request.id] = _Open(
            request,
            texts,
            np.empty((len(texts), self._model.n_dims), dtype=np.float32),
            arrived_at,
            n_tokens=sum(map(len, texts)),
        )
        self._note()

    def _texts_of(self, request: Embed) -> list[list[int]]:
        if self._model.pooling is Pooling.RANK:
            raise EngineRefused(
                FailureCode.BAD_REQUEST, "this model ranks documents, it makes no embeddings"
            )
        return [self._model.text_tokens(text, truncate=request.truncate) for text in request.texts]

    def _pairs_of(self, request: Rank) -> list[list[int]]:
        if self._model.pooling is not Pooling.RANK:
            raise EngineRefused(FailureCode.BAD_REQUEST, "this model has no rank head")
        return [
            self._model.pair_tokens(request.query, document, truncate=request.truncate)
            for document in request.documents
        ]

    def use_threads(self, n_threads: int) -> None:
        """Compute with so many threads from now on."""
        self._model.use_threads(n_threads)

    def use_idle_time(self) -> None:
        """Nothing can be made in advance."""

    def interrupt(self, request_id: RequestId) -> None:
        """End the running step early if only *request_id* is computed in it.

        Redoing a step would cost the others more than it saves, and a step is short.
        """
        if self._computing == {request_id}:
            self._model.abort()

    def cancel(self, request_id: RequestId) -> StepResult:
        """Drop a request. Unknown ids are ignored."""
        gone = self._open.pop(request_id, None)
        if gone is not None and gone.n_begun:
            self._model.forget()
        self._note()
        return StepResult()

    def step(self) -> StepResult:
        """Compute one batch.

        1. Choose texts: the next part of a text that is longer than a batch, or whole ones.
        2. Compute them. Aborted: nothing happened, the next step decides anew. Failed: nothing
           says whose fault it was, so all requests of the batch end.
        3. Keep each whole text's vector, and answer the requests that have all of theirs.
        """
        result = StepResult()
        began_at = time.monotonic()
        chosen = self._chosen()
        parts = [part for request, count in chosen for part in self._parts_of(request, count)]
        for request, _ in chosen:
            request.started_at = request.started_at or began_at
        self._computing = frozenset(request.request.id for request, _ in chosen)
        outcome = self._model.compute(parts)
        self._computing = frozenset()
        self._steps += 1
        if outcome is DecodeOutcome.DONE:
            self._batch_tokens += sum(len(tokens) for _, tokens in parts)
            self._keep(chosen, len(parts[0][1]), result)
        elif outcome is DecodeOutcome.ABORTED:
            if not self._model.forget(parts[0][0]):
                # A recurrent memory cannot be cut in the middle: begin the text again.
                chosen[0][0].n_begun = 0
                self._model.forget()
        else:
            self._give_up(chosen, result)
        self._step_s += time.monotonic() - began_at
        self._note()
        return result

    def _chosen(self) -> list[tuple[_Open, int]]:
        """Return the requests whose texts are computed now, and how many of each."""
        model = self._model
        requests = list(itertools.islice(self._open.values(), model.n_seqs))
        for request in requests:
            if request.n_begun or request.n_alone:
                return [(request, 1)]
        first = requests[0]
        if len(first.texts[first.n_done]) > model.n_packed:
            return [(first, 1)]
        counts = share_step(
            [
                [
                    len(text)
                    for text in request.texts[request.n_done : request.n_done + model.n_seqs]
                ]
                for request in requests
            ],
            n_tokens_max=model.n_packed,
            n_texts_max=model.n_seqs,
        )
        return [(request, count) for request, count in zip(requests, counts, strict=True) if count]

    def _parts_of(self, request: _Open, count: int) -> list[tuple[int, list[int]]]:
        begun, n_batch = request.n_begun, self._model.n_batch
        texts = request.texts[request.n_done : request.n_done + count]
        if len(texts) > 1:
            return [(0, text) for text in texts]
        return [(begun, texts[0][begun : begun + n_batch])]

    def _keep(self, chosen: list[tuple[_Open, int]], n_first: int, result: StepResult) -> None:
        """Keep what was computed; *n_first* is how many tokens of the first text were."""
        first = chosen[0][0]
        if first.n_begun + n_first < len(first.texts[first.n_done]):
            first.n_begun += n_first
            return
        first.n_begun = 0
        n_texts = sum(count for _, count in chosen)
        vectors = np.stack([self._model.vector(sequence) for sequence in range(n_texts)])
        self._model.forget()
        if n_texts > 1 and not np.isfinite(vectors).all():
            # Attention multiplies what it masks by zero, and zero times NaN is NaN: one bad text
            # spoils those it was computed with. Each alone shows which it was.
            for request, count in chosen:
                request.n_alone = count
            return
        begin = 0
        for request, count in chosen:
            request.vectors[request.n_done : request.n_done + count] = vectors[
                begin : begin + count
            ]
            begin += count
            request.n_done += count
            request.n_alone = max(request.n_alone - count, 0)
            if request.n_done == len(request.texts):
                del self._open[request.request.id]
                self._answer(request, result)

    def _answer(self, request: _Open, result: StepResult) -> None:
        asked = request.request
        vectors, timings = request.vectors, request.timings(time.monotonic())
        if not np.isfinite(vectors).all():
            what = "embedding" if isinstance(asked, Embed) else "score"
            detail = f"{what} contains NaN or Inf values"
            result.failed.append(Failed(asked.id, FailureCode.ENGINE, detail))
        elif isinstance(asked, Rank):
            scores = tuple(vectors[:, 0].tolist())
            result.answers.append(
                Ranked(id=asked.id, scores=scores, prompt_tokens=request.n_tokens, timings=timings)
            )
        else:
            if 0 < asked.dimensions < self._model.n_dims:
                vectors = vectors[:, : asked.dimensions]
            if asked.normalize:
                vectors = unit_length(vectors)
            result.answers.append(
                Embedded(
                    id=asked.id,
                    vectors=vectors.astype("<f4", copy=False).tobytes(),
                    n_dims=vectors.shape[1],
                    prompt_tokens=request.n_tokens,
                    timings=timings,
                )
            )

    def _give_up(self, chosen: list[tuple[_Open, int]], result: StepResult) -> None:
        self._model.forget()
        for request, _ in chosen:
            request_id = request.request.id
            del self._open[request_id]
            detail = "the model's computation failed, see the log"
            result.failed.append(Failed(request_id, FailureCode.ENGINE, detail))

    def _note(self) -> None:
        """Renew the gauges, which another thread reads: it must not walk what changes here."""
        busy = min(len(self._open), self._model.n_seqs)
        self._gauges = EngineGauges(
            slots_busy=busy,
            waiting=len(self._open) - busy,
            steps=self._steps,
            step_s=self._step_s,
            batch_tokens=self._batch_tokens,
            prompt_tokens=self._batch_tokens,
        )


def unit_length(vectors: Array) -> Array:
    """Return the rows scaled to length 1; a row of zeros stays one."""
    lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
    scaled: Array = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return scaled
