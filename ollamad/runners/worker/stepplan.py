"""What one step computes, and whose it is. Pure.

Most steps are one token for each running request; those are planned without looking further.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ollamad.runners.protocol import RequestId
from ollamad.runners.worker.batch import Part
from ollamad.runners.worker.batching import Need, PrefillAllowance, share_batch
from ollamad.runners.worker.generation import Generation, GenerationState


@dataclasses.dataclass(slots=True)
class StepPlan:
    """The parts of a batch, and the request each belongs to."""

    parts: list[Part] = dataclasses.field(default_factory=list)
    generations: list[Generation] = dataclasses.field(default_factory=list)
    n_tokens: int = 0
    n_decode: int = 0
    """Requests that decode."""
    prefilling: frozenset[RequestId] = frozenset()
    """Requests whose prompt is in it."""

    @property
    def n_prefill(self) -> int:
        """Tokens of prompts, if there are any; forced tokens beside them count as well."""
        return self.n_tokens - self.n_decode if self.prefilling else 0

    def add(self, generation: Generation, n_tokens: int) -> None:
        """Let *generation* compute its next *n_tokens*."""
        is_whole = n_tokens == generation.n_pending
        self.parts.append(
            Part(
                generation.sequence.id,
                generation.n_computed,
                generation.next_tokens(n_tokens),
                is_whole,
            )
        )
        self.generations.append(generation)
        self.n_tokens += n_tokens
        self.n_decode += generation.state is GenerationState.DECODE


def plan_step(running: Sequence[Generation], n_batch: int, allowance: PrefillAllowance) -> StepPlan:
    """Return a batch of at most *n_batch* tokens; *allowance* is for prompts beside decodes."""
    plan = StepPlan()
    if len(running) <= n_batch and all(generation.is_plain_decode for generation in running):
        for generation in running:
            plan.add(generation, 1)
        return plan
    needs = [
        Need(index, n_tokens, generation.state is GenerationState.DECODE, generation.arrival)
        for index, generation in enumerate(running)
        if (n_tokens := generation.n_computable) > 0
    ]
    n_wanted = sum(need.n_tokens for need in needs if not need.is_decode)
    for share in share_batch(needs, n_batch, allowance.allow(n_wanted)):
        plan.add(running[share.who], share.n_tokens)
    plan.prefilling = frozenset(
        generation.request.id
        for generation in plan.generations
        if generation.state is GenerationState.PREFILL
    )
    return plan
