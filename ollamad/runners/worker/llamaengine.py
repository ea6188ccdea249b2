"""`LlamaEngine`: continuous batching over one llama.cpp context.

Requests wait until a slot is free, are prefilled in chunks beside the decodes of others, and leave
their KV cache in the slot for a later prompt that begins the same.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np

from ollamad.runners.protocol import (
    Delta,
    EngineGauges,
    Failed,
    FailureCode,
    Finished,
    FinishReason,
    Generate,
    LoadPlan,
    MemoryKind,
    RequestId,
    StepLogprob,
    Timings,
)
from ollamad.runners.worker import slots
from ollamad.runners.worker.batching import Need, share_batch
from ollamad.runners.worker.engine import EngineRefused, Request, StepResult
from ollamad.runners.worker.llama import DecodeOutcome, LlamaModel
from ollamad.runners.worker.prefixcache import IdleSlot, choose_slot
from ollamad.runners.worker.sampling.check import check
from ollamad.runners.worker.sampling.logprobs import step_logprob
from ollamad.runners.worker.sampling.sampler import TokenSampler
from ollamad.runners.worker.slots import Slot, SlotEvent, SlotState
from ollamad.runners.worker.text import TextAssembler

GENERATED_CONTEXTS_MAX: Final = 10
"""An answer has at most this many contexts' tokens, whatever is asked: Ollama's bound."""

_SEED_BITS: Final = 32

_Waiting = tuple[Generate, list[int], float, int]
"""A request without a slot: request, prompt tokens, arrival time, arrival number."""


class LlamaEngine:
    """The real engine. See `ollamad.runners.worker.engine.Engine`."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        self._slots = [Slot(number) for number in range(model.n_slots)]
        self._waiting: deque[_Waiting] = deque()
        self._tick = 0
        self._steps = 0
        self._prefilling: frozenset[RequestId] = frozenset()
        """Requests whose prompt is in the batch being computed; read by `interrupt`."""

    @classmethod
    def loaded(cls, plan: LoadPlan, on_progress: Callable[[float], None]) -> LlamaEngine:
        """Return an engine with the model that *plan* names. Raises EngineRefused."""
        model = LlamaModel(plan, on_progress)
        # One token, computed and forgotten: whatever cannot compute here (an instruction the
        # processor lacks, broken weights) must show before the first request does.
        outcome = model.decode([(0, 0, [model.first_token], True)])
        if outcome is not DecodeOutcome.DONE or not np.isfinite(model.logits(0)).all():
            raise EngineRefused(FailureCode.ENGINE, "the model cannot compute a first token")
        model.forget(0, 0)
        return cls(model)

    @property
    def n_ctx(self) -> int:
        """Context length of one sequence, in tokens."""
        return self._model.n_ctx

    @property
    def n_slots(self) -> int:
        """Sequences computed side by side."""
        return self._model.n_slots

    @property
    def has_work(self) -> bool:
        """A step would compute something."""
        return bool(self._waiting) or any(slot.sequence for slot in self._slots)

    @property
    def memory_kind(self) -> MemoryKind:
        """What the model's context memory allows."""
        return MemoryKind.WHOLE

    @property
    def gauges(self) -> EngineGauges:
        """What the engine does now."""
        return EngineGauges(
            slots_busy=sum(slot.sequence is not None for slot in self._slots),
            waiting=len(self._waiting),
            kv_used=sum(len(slot.cached) for slot in self._slots),
            steps=self._steps,
        )

    def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        """Return token ids of *text*. Raises EngineRefused."""
        return tuple(self._model.tokenize(text, add_special=add_special))

    def submit(self, request: Request) -> None:
        """Take a request. Raises EngineRefused."""
        if not isinstance(request, Generate):
            raise EngineRefused(FailureCode.BAD_REQUEST, "this model makes no embeddings")
        check(request.sampling, self._model.vocab)
        add_special = request.add_special and not request.context
        prompt = [
            *request.context,
            *self._model.tokenize(request.prompt, add_special=add_special),
        ]
        if not prompt:
            raise EngineRefused(FailureCode.BAD_REQUEST, "the prompt is empty: it has no tokens")
        if len(prompt) >= self.n_ctx:
            raise EngineRefused(
                FailureCode.CONTEXT_TOO_LONG,
                f"the prompt has {len(prompt)} tokens, but the context holds {self.n_ctx}; shorten "
                "the prompt, or raise num_ctx if the model allows it",
            )
        if any(not 0 <= token < self._model.n_vocab for token in request.context):
            raise EngineRefused(
                FailureCode.BAD_REQUEST, "context has token ids that this model does not have"
            )
        self._tick += 1
        self._waiting.append((request, prompt, time.monotonic(), self._tick))

    def interrupt(self, request_id: RequestId) -> None:
        """End the running step early if *request_id*'s prompt is being computed in it.

        A step that only decodes is over in milliseconds, and redoing it would cost the others
        more than it saves.
        """
        if request_id in self._prefilling:
            self._model.abort()

    def cancel(self, request_id: RequestId) -> StepResult:
        """Drop a request, wherever it is, and return its ending. Unknown ids are ignored."""
        result = StepResult()
        for slot in self._slots:
            if slot.sequence is not None and slot.sequence.request.id == request_id:
                self._end(slot, FinishReason.CANCELLED, result)
        for entry in list(self._waiting):
            request, prompt, arrived_at, _ = entry
            if request.id == request_id:
                self._waiting.remove(entry)
                waited = Timings(queue_s=time.monotonic() - arrived_at, prompt_tokens=len(prompt))
                result.finished.append(
                    Finished(id=request_id, reason=FinishReason.CANCELLED, timings=waited)
                )
        return result

    def step(self) -> StepResult:
        """Compute one batch.

        1. Seat waiting requests in free slots.
        2. Share the batch between the seated.
        3. Decode it. Aborted: nothing happened, the next step decides anew.
        4. Choose a token for every sequence whose logits came out.
        """
        result = StepResult()
        self._steps += 1
        self._seat_waiting()
        needs = [
            Need(
                slot.number,
                len(slot.pending),
                slot.state is SlotState.DECODE,
                slot.sequence.arrival,
            )
            for slot in self._slots
            if slot.sequence is not None
        ]
        shares = share_batch(needs, self._model.n_batch)
        if not shares:
            return result
        parts = []
        for share in shares:
            slot = self._slots[share.slot]
            pending = slot.pending
            is_whole = share.n_tokens == len(pending)
            parts.append((slot.number, len(slot.cached), pending[: share.n_tokens], is_whole))
        self._prefilling = frozenset(
            slot.sequence.request.id
            for slot in (self._slots[share.slot] for share in shares)
            if slot.sequence is not None and slot.state is SlotState.PREFILL
        )
        outcome = self._model.decode(parts)
        self._prefilling = frozenset()
        if outcome is DecodeOutcome.ABORTED:
            return result
        if outcome is not DecodeOutcome.DONE:
            self._give_up(outcome, [self._slots[share.slot] for share in shares], result)
            return result
        row = -1
        for number, _position, tokens, has_logits in parts:
            row += len(tokens)
            slot = self._slots[number]
            slot.cached.extend(tokens)
            if has_logits:
                self._choose(slot, row, result)
        return result

    def _seat_waiting(self) -> None:
        while self._waiting:
            idle = [
                IdleSlot(slot.number, slot.cached, slot.last_used)
                for slot in self._slots
                if slot.sequence is None
            ]
            if not idle:
                return
            request, prompt, arrived_at, arrival = self._waiting.popleft()
            number, n_cached = choose_slot(idle, prompt)
            if not self._model.forget(number, n_cached):
                # A recurrent memory cannot be cut in the middle: start from nothing.
                n_cached = 0
                self._model.forget(number, 0)
            self._slots[number].seat(self._sequence(request, prompt, arrived_at, arrival), n_cached)

    def _sequence(
        self, request: Generate, prompt: list[int], arrived_at: float, arrival: int
    ) -> slots.Sequence:
        options = request.sampling
        bound = GENERATED_CONTEXTS_MAX * self.n_ctx
        seed = options.seed if options.seed >= 0 else secrets.randbits(_SEED_BITS)
        asked = options.num_predict if options.num_predict > 0 else bound
        return slots.Sequence(
            request=request,
            prompt=prompt,
            text=TextAssembler(options.stop),
            sampler=TokenSampler(options, seed, self._model.vocab, prompt),
            n_generated_max=min(asked, bound),
            arrived_at=arrived_at,
            seated_at=time.monotonic(),
            arrival=arrival,
        )

    def _choose(self, slot: Slot, row: int, result: StepResult) -> None:
        """Choose the next token of *slot* and report what came of it."""
        sequence = slot.sequence
        assert sequence is not None  # noqa: S101 - it was in the batch
        if slot.state is SlotState.PREFILL:
            slot.state = slots.advance(slot.state, SlotEvent.PROMPT_DONE)
            sequence.prefilled_at = time.monotonic()
        logits = self._model.logits(row)
        try:
            token = sequence.sampler.choose(logits, len(sequence.generated))
        except EngineRefused as exc:
            self._fail(slot, exc.code, exc.detail, result)
            return
        if self._model.is_end(token):
            self._end(slot, FinishReason.STOP, result)
            return
        sequence.sampler.accept(token)
        request = sequence.request
        logprobs: tuple[StepLogprob, ...] = ()
        if request.n_logprobs is not None:
            logprobs = (step_logprob(logits, token, request.n_logprobs, self._model.piece),)
        offset = len(sequence.generated)
        sequence.generated.append(token)
        text = sequence.text.feed(self._model.piece(token))
        result.deltas.append(Delta(request.id, offset, text, (token,), logprobs))
        if sequence.text.is_stopped:
            self._end(slot, FinishReason.STOP, result)
        elif reason := slots.limit_reached(sequence, len(slot.cached), self.n_ctx):
            self._end(slot, reason, result)

    def _end(self, slot: Slot, reason: FinishReason, result: StepResult) -> None:
        self._tick += 1
        sequence = slot.leave(self._tick)
        request = sequence.request
        rest = sequence.text.finish() if reason is not FinishReason.CANCELLED else ""
        if rest:
            result.deltas.append(Delta(request.id, len(sequence.generated), rest, ()))
        result.finished.append(
            Finished(
                id=request.id,
                reason=reason,
                timings=sequence.timings(time.monotonic()),
                prompt=tuple(sequence.prompt) if request.echo_tokens else (),
            )
        )

    def _give_up(self, outcome: DecodeOutcome, slots_: list[Slot], result: StepResult) -> None:
        """End the requests of a batch that cannot be computed; the others go on.

        1. The KV cache is full: the newest request leaves, which makes room for the others.
        2. The computation failed: nothing says whose fault it was, so all of the batch leave.
        """
        leaving = slots_
        detail = "the model's computation failed, see the log"
        if outcome is DecodeOutcome.NO_ROOM:
            leaving = [max(slots_, key=_arrival)]
            detail = "the KV cache is full; lower num_ctx or the number of parallel requests"
        for slot in leaving:
            self._fail(slot, FailureCode.ENGINE, detail, result)

    def _fail(self, slot: Slot, code: FailureCode, detail: str, result: StepResult) -> None:
        """End a request without an answer; nothing that it computed is trusted any more."""
        self._tick += 1
        sequence = slot.leave(self._tick)
        self._model.forget(slot.number, 0)
        slot.cached.clear()
        result.failed.append(Failed(sequence.request.id, code, detail))


def _arrival(slot: Slot) -> int:
    return slot.sequence.arrival if slot.sequence is not None else -1
