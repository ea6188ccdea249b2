"""`LlamaEngine`: continuous batching over one llama.cpp context.

A request waits for a slot, is prefilled in chunks beside the decodes of others, decodes, and leaves
what it computed in the cache for later prompts that begin the same. One step is one batch; what is
chosen after it is the next one's beginning.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from ollamad.buffersizes import GRAMMAR_TOKEN_BYTES, BufferSizes
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
)
from ollamad.runners.worker.batch import DecodeOutcome
from ollamad.runners.worker.batching import PrefillAllowance
from ollamad.runners.worker.bindings import buffer_log
from ollamad.runners.worker.engine import EngineRefused, Request, StepResult
from ollamad.runners.worker.gauges import GaugeBoard
from ollamad.runners.worker.generation import (
    Generation,
    GenerationState,
)
from ollamad.runners.worker.grammar import Grammars
from ollamad.runners.worker.larkmarks import with_control_tokens
from ollamad.runners.worker.llama import LlamaModel
from ollamad.runners.worker.prefixcache import PrefixCache
from ollamad.runners.worker.sampling.check import check
from ollamad.runners.worker.sampling.logprobs import step_logprob
from ollamad.runners.worker.sampling.sampler import TokenSampler
from ollamad.runners.worker.scheduler import seat
from ollamad.runners.worker.stepplan import StepPlan, plan_step

GENERATED_CONTEXTS_MAX: Final = 10
"""An answer has at most this many contexts' tokens, whatever is asked: Ollama's bound."""

SEED_BITS: Final = 32
GRAMMAR_PATIENCE_S: Final = 0.02
"""A wait for a grammar while there is nothing to compute: new requests are looked at after it."""


class LlamaEngine:
    """The real engine. See `ollamad.runners.worker.engine.Engine`."""

    def __init__(self, model: LlamaModel, *, prefix_reuse: bool = True) -> None:
        self._model = model
        self._cache = PrefixCache(model.memory, keeps_idle=prefix_reuse)
        self._grammars = Grammars(model)
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []
        self._allowance = PrefillAllowance()
        self._board = GaugeBoard(self._cache, model.memory.n_cells)
        self._arrivals = 0
        self._prefilling: frozenset[RequestId] = frozenset()
        """Requests whose prompt is in the batch being computed; read by `interrupt`."""

    @classmethod
    def loaded(cls, plan: LoadPlan, on_progress: Callable[[float], None]) -> LlamaEngine:
        """Return an engine with the model that *plan* names. Raises EngineRefused."""
        return cls(LlamaModel(plan, on_progress), prefix_reuse=plan.prefix_reuse)

    @property
    def n_ctx(self) -> int:
        """Context length of one sequence, in tokens."""
        return self._model.n_ctx

    @property
    def n_slots(self) -> int:
        """Sequences computed side by side."""
        return self._model.n_slots

    @property
    def is_steady(self) -> bool:
        """The next step will take about as long as the last one."""
        return not self._waiting and all(g.is_plain_decode for g in self._running)

    @property
    def buffers(self) -> BufferSizes | None:
        """See Engine."""
        return buffer_log.sizes()

    @property
    def memory_kind(self) -> MemoryKind:
        """What the model's context memory allows."""
        return self._model.memory.kind

    @property
    def has_work(self) -> bool:
        """A step would compute something."""
        return bool(self._waiting or self._running)

    @property
    def later_bytes(self) -> int:
        """See Engine: the vocabulary of grammars."""
        return self._model.n_vocab * GRAMMAR_TOKEN_BYTES

    @property
    def gauges(self) -> EngineGauges:
        """What the engine does now. May be read from another thread."""
        return self._board.gauges

    def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        """Return token ids of *text*. Raises EngineRefused."""
        return tuple(self._model.tokenize(text, add_special=add_special))

    def close(self) -> None:
        """Give all memory back. A runner need not: it ends with its model."""
        self._grammars.close()
        self._model.close()

    def use_threads(self, n_threads: int) -> None:
        """Compute with so many threads from now on."""
        self._model.use_threads(n_threads)

    def use_idle_time(self) -> None:
        """Make the vocabulary of grammars before the first one is asked for."""
        self._grammars.get_ready()

    # Requests

    def submit(self, request: Request) -> None:
        """Take a request. Raises EngineRefused."""
        if not isinstance(request, Generate):
            raise EngineRefused(
                FailureCode.BAD_REQUEST, "this model generates text, it makes no embeddings"
            )
        check(request.sampling, self._model.vocab)
        prompt = self._prompt_of(request)
        history = [*prompt, *request.answered]
        self._arrivals += 1
        shown = self._model.control_tokens(request.shown_tokens)
        constraint = None
        if request.grammar is not None:
            grammar = with_control_tokens(request.grammar, shown)
            constraint = self._grammars.constraint(grammar, request.answered)
        seed = request.sampling.seed
        if seed < 0:
            seed = secrets.randbits(SEED_BITS)
        asked, bound = request.sampling.num_predict, GENERATED_CONTEXTS_MAX * self.n_ctx
        generation = Generation(
            request,
            prompt,
            n_ctx=self.n_ctx,
            n_generated_max=min(asked if asked > 0 else bound, bound),
            sampler=TokenSampler(request.sampling, seed, self._model.vocab, history),
            constraint=constraint,
            arrival=self._arrivals,
            now=time.monotonic(),
            shown={token: text.encode() for text, token in shown.items()},
        )
        for token in request.answered:
            generation.text.feed(self._piece(generation, token))
        self._waiting.append(generation)

    def _piece(self, generation: Generation, token: int) -> bytes:
        return generation.shown.get(token) or self._model.piece(token)

    def _prompt_of(self, request: Generate) -> list[int]:
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
        if not all(0 <= t < self._model.n_vocab for t in (*request.context, *request.answered)):
            raise EngineRefused(
                FailureCode.BAD_REQUEST, "context has token ids that this model does not have"
            )
        return prompt

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
        for generation in (*self._running, *self._waiting):
            if generation.request.id == request_id:
                self._end(generation, FinishReason.CANCELLED, result)
        self._board.look(self._running, len(self._waiting), is_due=not self.has_work)
        return result

    # A step

    def step(self) -> StepResult:
        """Compute one batch.

        1. Seat waiting requests in free slots, and end those that had ended in another runner.
        2. Share the batch between the seated, and begin the masks of those with a grammar.
        3. Decode it. Aborted: nothing happened, the next step decides anew.
        4. Choose a token for every request whose logits came out.
        """
        result = StepResult()
        if self._waiting:
            self._seat_waiting(result)
        self._look_at_grammars(result)
        plan = plan_step(self._running, self._model.n_batch, self._allowance)
        if not plan.parts:
            self._wait_for_grammars()
            return result
        if not self._cache.make_room(plan.n_tokens):
            self._fail_newest(plan.generations, result)
            return result
        began = time.monotonic()
        outcome = self._decode(plan)
        now = time.monotonic()
        if outcome is not DecodeOutcome.DONE:
            self._undo(outcome, plan.generations, result)
            return result
        self._allowance.note(plan.n_decode, plan.n_prefill, now - began)
        self._board.note_step(plan.n_tokens, now - began)
        row = -1
        for part, generation in zip(plan.parts, plan.generations, strict=True):
            n_tokens = len(part.tokens)
            row += n_tokens
            generation.sequence.n_tokens += n_tokens
            if generation.stops and generation.n_computed in generation.stops:
                self._cache.publish(generation.sequence, generation.tokens, generation.n_computed)
            if part.wants_logits:
                self._choose(generation, row, result, now)
        self._board.look(self._running, len(self._waiting), is_due=not self.has_work)
        return result

    def _seat_waiting(self, result: StepResult) -> None:
        for generation in list(self._waiting):
            if (reason := generation.ending) is not None:
                self._end(generation, reason, result)
                continue
            if len(self._running) >= self.n_slots:
                return
            sequence = seat(generation, self._running, self._cache)
            if sequence is not None:
                self._waiting.remove(generation)
                self._running.append(generation)
                generation.seat(sequence, time.monotonic())
        if self._waiting and not self._running:
            # Nobody computes what they wait for, and no sequence is to be had: a bug, but theirs
            # must not become everybody's endless wait.
            self._fail(
                self._waiting[0], FailureCode.KV_FULL, "no sequence is left in the cache", result
            )

    def _look_at_grammars(self, result: StepResult) -> None:
        """Refuse grammars that turned out wrong; begin the masks of those that decode."""
        for generation in [g for g in self._running if g.constraint is not None]:
            constraint = generation.constraint
            if constraint is None or not constraint.is_ready:
                continue
            try:
                constraint.prepare()
            except EngineRefused as exc:
                self._fail(generation, exc.code, exc.detail, result)

    def _wait_for_grammars(self) -> None:
        """Wait a little, if all that is left to compute needs a grammar that is being made."""
        for generation in self._running:
            if generation.constraint is not None and not generation.constraint.is_ready:
                generation.constraint.wait(GRAMMAR_PATIENCE_S)
                return

    def _decode(self, plan: StepPlan) -> DecodeOutcome:
        """Compute *plan*; where llama.cpp finds no room after all, idle texts give way."""
        self._prefilling = plan.prefilling
        outcome = self._model.decode(plan.parts)
        while outcome is DecodeOutcome.NO_ROOM and self._cache.let_go_of_one():
            outcome = self._model.decode(plan.parts)
        self._prefilling = frozenset()
        return outcome

    # Choosing

    def _choose(self, generation: Generation, row: int, result: StepResult, now: float) -> None:
        """Choose the next token of a request and report what came of it."""
        if generation.state is GenerationState.PREFILL:
            generation.prompt_done(now)
        request, constraint = generation.request, generation.constraint
        logits = self._model.logits(row)
        position = len(generation.generated)
        logprobs: tuple[StepLogprob, ...] = ()
        forced: list[int] = []
        is_all = False
        try:
            mask = constraint.mask() if constraint is not None else None
            token = generation.sampler.choose(logits, position, mask)
            if self._model.is_end(token):
                self._end(generation, FinishReason.STOP, result)
                return
            if request.n_logprobs is not None:
                logprobs = (step_logprob(logits, token, request.n_logprobs, self._model.piece),)
            if constraint is not None:
                # Tokens that are not sampled have no logits to report.
                forced, is_all = constraint.accept(token, fast_forward=request.n_logprobs is None)
        except EngineRefused as exc:
            self._fail(generation, exc.code, exc.detail, result)
            return
        tokens = generation.answer(token, forced)
        self._board.note_answer(len(tokens), len(tokens) - 1)
        for chosen in tokens:
            generation.sampler.accept(chosen)
        text = "".join(generation.text.feed(self._piece(generation, chosen)) for chosen in tokens)
        result.deltas.append(Delta(request.id, position, text, tokens, logprobs))
        if generation.text.is_stopped or is_all:
            self._end(generation, FinishReason.STOP, result)
        elif generation.is_full or not self._make_context_for(generation, len(tokens)):
            self._end(generation, FinishReason.LENGTH, result)
        else:
            generation.extend(tokens)

    def _make_context_for(self, generation: Generation, n_tokens: int) -> bool:
        """See that *n_tokens* more fit the context of a request; drop old ones if it asks so.

        1. They fit.
        2. It does not ask to go on past the context's end: no.
        3. The dropped cells are its own and the memory can move the rest: move them.
        4. Compute anew what is left: always right, and takes as long as it takes.
        """
        if generation.has_context_for(n_tokens):
            return True
        if not generation.request.shift or n_tokens >= self.n_ctx // 2:
            return False
        begin, end = generation.shift_range()
        sequence, memory = generation.sequence, self._model.memory
        generation.drop_middle(begin, end)
        if memory.can_shift and sequence.pinned.depth <= begin:
            memory.drop_middle(sequence.id, begin, end)
            sequence.n_tokens -= end - begin
            sequence.is_genuine = False
        else:
            self._cache.restart(sequence)
            generation.restart()
        return True

    # Endings

    def _end(self, generation: Generation, reason: FinishReason, result: StepResult) -> None:
        self._leave(generation, keep=True)
        request, now = generation.request, time.monotonic()
        rest = generation.text.finish() if reason is not FinishReason.CANCELLED else ""
        timings = generation.timings(now)
        self._board.note_end(timings)
        prompt = tuple(map(int, generation.prompt)) if request.echo_tokens else ()
        result.finished.append(
            Finished(
                id=request.id,
                reason=reason,
                timings=timings,
                stop=generation.text.stop,
                prompt=prompt,
                rest=rest,
            )
        )

    def _fail(
        self, generation: Generation, code: FailureCode, detail: str, result: StepResult
    ) -> None:
        """End a request without an answer; nothing that it computed is trusted any more."""
        self._leave(generation, keep=False)
        result.failed.append(Failed(generation.request.id, code, detail))

    def _leave(self, generation: Generation, *, keep: bool) -> None:
        tokens, sequence = generation.tokens, generation.leave()
        if sequence is None:
            self._waiting.remove(generation)
        else:
            self._running.remove(generation)
            self._cache.close(sequence, tokens, keep=keep)

    def _undo(
        self, outcome: DecodeOutcome, generations: list[Generation], result: StepResult
    ) -> None:
        """Deal with a batch that was not computed; the others go on.

        1. It was aborted: each goes back to what it had, or is computed anew where the memory
           cannot be cut. Finished parts of a batch are of no use.
        2. The KV cache is full: as 1, but the newest request leaves, which makes room.
        3. The computation failed: nothing says whose fault it was, so all of the batch leave.
        """
        if outcome is DecodeOutcome.FAILED:
            for generation in generations:
                self._fail(
                    generation,
                    FailureCode.ENGINE,
                    "the model's computation failed, see the log",
                    result,
                )
            return
        for generation in generations:
            if not self._model.memory.cut(generation.sequence.id, generation.n_computed):
                self._cache.restart(generation.sequence)
                generation.restart()
        if outcome is DecodeOutcome.NO_ROOM:
            self._fail_newest(generations, result)

    def _fail_newest(self, generations: list[Generation], result: StepResult) -> None:
        self._fail(
            max(generations, key=lambda generation: generation.arrival),
            FailureCode.KV_FULL,
            "the KV cache is full; lower num_ctx or the number of parallel requests",
            result,
        )
