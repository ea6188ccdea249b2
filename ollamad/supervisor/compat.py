"""From options to a plan, and whether a running plan serves other options. Pure.

An option that a request does not state never forces a reload.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

from ollamad.config import RunnerConfig
from ollamad.gpu.estimate import MemoryDemand, demand_of
from ollamad.options import LoadOptions
from ollamad.runners.protocol import LoadPlan
from ollamad.supervisor.events import Subject

N_CTX_MIN: Final = 4
N_CTX_AUTO: Final = 4096
N_SLOTS_AUTO: Final = 4
N_BATCH_AUTO: Final = 512

N_CTX_EMBEDDING_AUTO: Final = 2048
"""Texts to embed are cut here if nobody says otherwise. More would cost memory with every load: a
model that reads its input at once needs a batch as large as its context."""
N_SLOTS_EMBEDDING: Final = 32
"""Requests for vectors that a runner takes at once. They cost it nothing: what a text leaves in the
context's memory is forgotten at once, so all share the room of one."""
_POOLING_LAST: Final = 3
"""llama.cpp's number of the pooling that takes the last token's state."""


@dataclasses.dataclass(frozen=True, slots=True)
class PlanDefaults:
    """What a plan takes where a request says nothing."""

    runner: RunnerConfig
    n_cores: int
    """Physical cores the daemon may use."""


def clamp_n_ctx(n_ctx: int, subject: Subject) -> int:
    """Return *n_ctx* within what the model was trained for."""
    trained = subject.facts.n_ctx_train
    return max(min(n_ctx, trained) if trained else n_ctx, N_CTX_MIN)


def plans(
    subject: Subject, options: LoadOptions, defaults: PlanDefaults
) -> Iterator[tuple[LoadPlan, MemoryDemand]]:
    """Yield plans for *subject* with what they need, the most generous first.

    The number of slots is halved from one to the next, unless the configuration fixes it.
    """
    runner = defaults.runner
    embedding = _is_for_embedding(subject, options)
    n_ctx_auto = runner.n_ctx or N_CTX_AUTO
    if embedding:
        n_ctx_auto = min(n_ctx_auto, N_CTX_EMBEDDING_AUTO)
    n_ctx = clamp_n_ctx(options.n_ctx or n_ctx_auto, subject)
    n_batch = _n_batch(options.n_batch or runner.n_batch or N_BATCH_AUTO, n_ctx, subject, embedding)
    wanted_slots = N_SLOTS_EMBEDDING if embedding else runner.n_slots or N_SLOTS_AUTO
    # A slot that finds no token's room in any batch would wait for others' answers to end.
    n_slots = min(wanted_slots, n_batch)
    use_mmap = options.use_mmap if options.use_mmap is not None else runner.use_mmap
    while n_slots >= 1:
        plan = LoadPlan(
            model_path=subject.model_path,
            adapter_paths=subject.adapter_paths,
            n_ctx=n_ctx,
            n_slots=n_slots,
            n_batch=n_batch,
            n_threads=options.n_threads or runner.n_threads or defaults.n_cores,
            kv_type=runner.kv_type,
            flash_attention=runner.flash_attention,
            use_mmap=use_mmap if use_mmap is not None else True,
            embedding=embedding,
        )
        demand = demand_of(
            subject.facts,
            n_ctx=max(n_ctx, n_batch) if embedding else n_ctx,
            n_slots=1 if embedding else n_slots,
            n_batch=n_batch,
            kv_type=runner.kv_type,
            embedding=embedding,
        )
        yield plan, demand
        if runner.n_slots or embedding:
            return
        n_slots //= 2


def _is_for_embedding(subject: Subject, options: LoadOptions) -> bool:
    return subject.facts.is_embedding or bool(options.embedding)


def _n_batch(asked: int, n_ctx: int, subject: Subject, embedding: bool) -> int:
    """Return the batch for *asked*: no larger than the context, which nothing would fill.

    For embeddings it is no smaller either, where the model may read a text only as a whole.
    """
    reads_on = subject.facts.pooling_type in {None, _POOLING_LAST}
    return n_ctx if embedding and not reads_on else min(asked, n_ctx)


def serves(plan: LoadPlan, subject: Subject, options: LoadOptions) -> bool:
    """Return whether a runner with *plan* can answer a request with *options*."""
    embedding = _is_for_embedding(subject, options)
    wanted_n_ctx = plan.n_ctx if options.n_ctx is None else clamp_n_ctx(options.n_ctx, subject)
    return (
        plan.model_path == subject.model_path
        and plan.adapter_paths == subject.adapter_paths
        and wanted_n_ctx == plan.n_ctx
        and plan.embedding == embedding
        and (
            options.n_batch is None
            or _n_batch(options.n_batch, plan.n_ctx, subject, embedding) == plan.n_batch
        )
        and (not options.n_threads or options.n_threads == plan.n_threads)
        and (options.use_mmap is None or options.use_mmap == plan.use_mmap)
    )
