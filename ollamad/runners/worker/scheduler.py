"""Who gets a slot, and who waits for what another request is computing already.

Prompts that begin alike are computed once, also when they arrive together: the later one waits
until the earlier one has computed what both begin with, and goes on from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from ollamad.runners.protocol import MemoryKind
from ollamad.runners.worker.generation import Generation
from ollamad.runners.worker.prefixcache import OpenSequence, PrefixCache
from ollamad.runners.worker.tokens import common_prefix

WORTH_WAITING_TOKENS: Final = 16
"""Tokens that another request must be about to compute for us to wait: fewer are done sooner than
the next step of the other ends."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shared:
    """The longest beginning that a running request has in common with a waiting one."""

    owner: Generation
    n_tokens: int


def seat(
    waiting: Generation, running: Iterable[Generation], cache: PrefixCache
) -> OpenSequence | None:
    """Return a sequence for *waiting*, or `None` if it is to wait on.

    1. A running request has computed more of it than the cache offers: let others have that.
    2. A running request will: wait, and have it stop there if the memory cannot be cut.
    3. Open a sequence with what the cache offers.
    """
    partition = waiting.request.partition
    has = cache.reusable(partition, waiting.tokens)
    shared = _longest_shared(waiting, running)
    if shared is not None and shared.n_tokens >= has + WORTH_WAITING_TOKENS:
        owner = shared.owner
        if owner.n_computed >= shared.n_tokens:
            cache.publish(owner.sequence, owner.tokens, shared.n_tokens)
        elif cache.can_publish(shared.n_tokens):
            if cache.kind is not MemoryKind.WHOLE:
                owner.stops.add(shared.n_tokens)
            return None
    sequence = cache.open(partition, waiting.tokens)
    if sequence is not None and cache.kind is MemoryKind.RECURRENT:
        # Where this text leaves others, and where its answer begins, later ones may go on from.
        fork = cache.known(partition, waiting.tokens)
        waiting.stops.update(n for n in (fork, waiting.n_prompt) if n > sequence.n_tokens)
    return sequence


def _longest_shared(waiting: Generation, running: Iterable[Generation]) -> Shared | None:
    """Return who of *running* shares most with *waiting*; its last token never counts."""
    best: Shared | None = None
    prompt = waiting.tokens[:-1]
    for owner in running:
        if owner.request.partition != waiting.request.partition:
            continue
        n_tokens = common_prefix(prompt, owner.tokens)
        if n_tokens and (best is None or n_tokens > best.n_tokens):
            best = Shared(owner, n_tokens)
    return best
