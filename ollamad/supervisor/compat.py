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
    n_ctx = clamp_n_ctx(options.n_ctx or runner.n_ctx or N_CTX_AUTO, subject)
    n_batch = min(options.n_batch or runner.n_batch or N_BATCH_AUTO, max(n_ctx, 1))
    # A slot that finds no token's room in any batch would wait for others' answers to end.
    n_slots = min(runner.n_slots or N_SLOTS_AUTO, n_batch)
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
            embedding=subject.facts.is_embedding,
        )
        demand = demand_of(
            subject.facts, n_ctx=n_ctx, n_slots=n_slots, n_batch=n_batch, kv_type=runner.kv_type
        )
        yield plan, demand
        if runner.n_slots:
            return
        n_slots //= 2


def serves(plan: LoadPlan, subject: Subject, options: LoadOptions) -> bool:
    """Return whether a runner with *plan* can answer a request with *options*."""
    wanted_n_ctx = plan.n_ctx if options.n_ctx is None else clamp_n_ctx(options.n_ctx, subject)
    return (
        plan.model_path == subject.model_path
        and plan.adapter_paths == subject.adapter_paths
        and wanted_n_ctx == plan.n_ctx
        and (options.n_batch is None or min(options.n_batch, plan.n_ctx) == plan.n_batch)
        and (not options.n_threads or options.n_threads == plan.n_threads)
        and (options.use_mmap is None or options.use_mmap == plan.use_mmap)
    )
