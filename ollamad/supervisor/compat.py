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
from ollamad.runners.protocol import LoadPlan, RopeOverrides, TensorOverride
from ollamad.supervisor.events import Subject
from ollamad.units import GIB

N_CTX_MIN: Final = 4
N_CTX_AUTO: Final = 4096
N_SLOTS_AUTO: Final = 4
N_BATCH_AUTO: Final = 512

_OWN_ROPE: Final = RopeOverrides()
SWA_FULL_BYTES_MAX: Final = GIB
"""A KV cache up to this size keeps all tokens also in layers that look at a window only. That is
what lets requests share beginnings; in a larger cache, the memory is worth more."""
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


def clamp_n_ctx(n_ctx: int, subject: Subject, rope: RopeOverrides = _OWN_ROPE) -> int:
    """Return *n_ctx* within what the model was trained for.

    Another position encoding than the model's own is there to reach beyond that.
    """
    trained = subject.facts.n_ctx_train if rope == _OWN_ROPE else 0
    return max(min(n_ctx, trained) if trained else n_ctx, N_CTX_MIN)


def plans(
    subject: Subject, options: LoadOptions, defaults: PlanDefaults
) -> Iterator[tuple[LoadPlan, MemoryDemand]]:
    """Yield plans for *subject* with what they need, the most generous first.

    The number of slots is halved from one to the next, unless the configuration fixes it.
    """
    runner = defaults.runner
    rope = _rope(options)
    embedding = _is_for_embedding(subject, options)
    n_ctx_auto = runner.n_ctx or N_CTX_AUTO
    if embedding:
        n_ctx_auto = min(n_ctx_auto, N_CTX_EMBEDDING_AUTO)
    n_ctx = clamp_n_ctx(options.n_ctx or n_ctx_auto, subject, rope)
    n_batch = _n_batch(options.n_batch or runner.n_batch or N_BATCH_AUTO, n_ctx, subject, embedding)
    wanted_slots = N_SLOTS_EMBEDDING if embedding else runner.n_slots or N_SLOTS_AUTO
    # A slot that finds no token's room in any batch would wait for others' answers to end.
    n_slots = min(wanted_slots, n_batch)
    use_mmap = options.use_mmap if options.use_mmap is not None else runner.use_mmap
    kv_type = options.kv_type or runner.kv_type
    while n_slots >= 1:
        demand = demand_of(
            subject.facts,
            n_ctx=max(n_ctx, n_batch) if embedding else n_ctx,
            n_slots=1 if embedding else n_slots,
            n_batch=n_batch,
            kv_type=kv_type,
            embedding=embedding,
        )
        swa_full = options.swa_full
        if swa_full is None:
            swa_full = demand.kv_cache_bytes <= SWA_FULL_BYTES_MAX
        plan = LoadPlan(
            model_path=subject.model_path,
            adapter_paths=subject.adapter_paths,
            n_ctx=n_ctx,
            n_slots=n_slots,
            n_batch=n_batch,
            n_ubatch=min(options.n_ubatch or 0, n_batch),
            main_gpu=options.main_gpu or 0,
            tensor_split=options.tensor_split or (),
            tensor_overrides=_overrides(options.tensor_overrides or ()),
            n_threads=options.n_threads or runner.n_threads or defaults.n_cores,
            kv_type=kv_type,
            flash_attention=options.flash_attention or runner.flash_attention,
            swa_full=swa_full,
            use_mmap=use_mmap if use_mmap is not None else True,
            use_mlock=options.use_mlock or False,
            rope=rope,
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
    return (
        plan.model_path == subject.model_path
        and plan.adapter_paths == subject.adapter_paths
        and plan.embedding == _is_for_embedding(subject, options)
        and _serves_sizes(plan, subject, options)
        and (not options.n_threads or options.n_threads == plan.n_threads)
        and (
            options.tensor_overrides is None
            or _overrides(options.tensor_overrides) == plan.tensor_overrides
        )
        and all(getattr(options, name) in {None, getattr(plan, name)} for name in _SAME_IN_THE_PLAN)
        and all(
            getattr(options, name) in {None, getattr(plan.rope, field)}
            for name, field in _ROPE_FIELDS.items()
        )
    )


def _serves_sizes(plan: LoadPlan, subject: Subject, options: LoadOptions) -> bool:
    n_ctx, n_batch, n_ubatch = options.n_ctx, options.n_batch, options.n_ubatch
    return (
        (n_ctx is None or clamp_n_ctx(n_ctx, subject, plan.rope) == plan.n_ctx)
        and (
            n_batch is None
            or _n_batch(n_batch, plan.n_ctx, subject, plan.embedding) == plan.n_batch
        )
        and (not n_ubatch or min(n_ubatch, plan.n_batch) == (plan.n_ubatch or plan.n_batch))
    )


_SAME_IN_THE_PLAN: Final = (
    "main_gpu",
    "tensor_split",
    "kv_type",
    "flash_attention",
    "swa_full",
    "use_mmap",
    "use_mlock",
)
"""Options that a plan has under the same name, with the same values."""

_ROPE_FIELDS: Final = {
    "rope_frequency_base": "frequency_base",
    "rope_frequency_scale": "frequency_scale",
    "rope_scaling": "scaling",
    "yarn_ext_factor": "yarn_ext_factor",
    "yarn_attn_factor": "yarn_attn_factor",
    "yarn_beta_fast": "yarn_beta_fast",
    "yarn_beta_slow": "yarn_beta_slow",
    "yarn_orig_ctx": "yarn_orig_ctx",
}


def _rope(options: LoadOptions) -> RopeOverrides:
    return RopeOverrides(**{field: getattr(options, name) for name, field in _ROPE_FIELDS.items()})


def _overrides(texts: tuple[str, ...]) -> tuple[TensorOverride, ...]:
    """Return what `PATTERN=DEVICE` texts say. A pattern may have a `=` of its own."""
    return tuple(TensorOverride(*text.rsplit("=", 1)) for text in texts)
