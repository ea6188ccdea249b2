"""From options to a plan, and whether a running plan serves other options. Pure.

An option that a request does not state never forces a reload. A model's policy is of two kinds:
where it may run (`devices`, `cpu_only`) binds every request; what it is loaded with (`n_ctx`,
`kv_type`, `parallel`) holds where a request states nothing, like the runner's settings, and goes
before those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from ollamad.config import RunnerConfig
from ollamad.gpu.devices import HOST, DeviceFacts
from ollamad.gpu.estimate import ContextSettings, MemoryDemand, demand_of
from ollamad.gpu.learned import LearnedDemand
from ollamad.gpu.placement import Placement, PlacementRules
from ollamad.options import LoadOptions
from ollamad.runners.protocol import LoadPlan, MemoryUse, RopeOverrides, TensorOverride
from ollamad.runners.sequences import SEQUENCES_MAX, n_sequences
from ollamad.supervisor.events import Subject
from ollamad.units import GIB

N_CTX_MIN: Final = 4
N_CTX_AUTO: Final = 4096
N_SLOTS_AUTO: Final = 4
N_BATCH_AUTO: Final = 512
N_BATCH_MIN: Final = 2
"""Smaller batches end llama.cpp in failed assertions, and are of no use to anybody."""

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
    learned: LearnedDemand = dataclasses.field(default_factory=LearnedDemand)
    """What loads and dry runs have taught."""


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
    runner, policy = defaults.runner, subject.policy
    rope = _rope(options)
    embedding = _is_for_embedding(subject, options)
    n_ctx_auto = policy.n_ctx or runner.n_ctx or N_CTX_AUTO
    if embedding:
        n_ctx_auto = min(n_ctx_auto, N_CTX_EMBEDDING_AUTO)
    n_ctx = clamp_n_ctx(options.n_ctx or n_ctx_auto, subject, rope)
    n_batch = _n_batch(options.n_batch or runner.n_batch or N_BATCH_AUTO, n_ctx, subject, embedding)
    fixed_slots = policy.parallel or runner.n_slots
    wanted_slots = N_SLOTS_EMBEDDING if embedding else fixed_slots or N_SLOTS_AUTO
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
            n_ubatch=min(options.n_ubatch or 0, n_batch),
            n_gpu_layers_asked=_layers_asked(subject, options),
            main_gpu=options.main_gpu or 0,
            tensor_split=options.tensor_split or (),
            tensor_overrides=_overrides(options.tensor_overrides or ()),
            n_threads=options.n_threads or runner.n_threads or defaults.n_cores,
            kv_type=options.kv_type or policy.kv_type or runner.kv_type,
            flash_attention=options.flash_attention or runner.flash_attention,
            swa_full=options.swa_full if options.swa_full is not None else True,
            use_mmap=use_mmap if use_mmap is not None else True,
            use_mlock=options.use_mlock or False,
            rope=rope,
            embedding=embedding,
        )
        demand = _demand(plan, subject, defaults.learned)
        if options.swa_full is None and demand.kv_cache_bytes > SWA_FULL_BYTES_MAX:
            plan = msgspec.structs.replace(plan, swa_full=False)
            demand = _demand(plan, subject, defaults.learned)
        yield plan, demand
        if fixed_slots or embedding:
            return
        n_slots //= 2


def _demand(plan: LoadPlan, subject: Subject, learned: LearnedDemand) -> MemoryDemand:
    demand = demand_of(
        subject.facts, _context_settings(plan, subject), extra_bytes=subject.extra_bytes
    )
    return learned.applied(plan.model_path, options_key(plan), demand)


def _context_settings(plan: LoadPlan, subject: Subject) -> ContextSettings:
    facts = subject.facts
    if plan.embedding:
        # What a text leaves is forgotten at once: all share the room of one.
        n_seqs = min(plan.n_slots, plan.n_batch, SEQUENCES_MAX)
    else:
        n_seqs = n_sequences(
            plan.n_slots,
            plan.n_batch,
            has_states=any(layer.state_elements for layer in facts.layers),
            has_small_windows=bool(facts.window) and not plan.swa_full,
        )
    return ContextSettings(
        n_ctx=max(plan.n_ctx, plan.n_batch) if plan.embedding else plan.n_ctx,
        n_slots=1 if plan.embedding else plan.n_slots,
        n_batch=plan.n_batch,
        n_ubatch=0 if plan.embedding else plan.n_ubatch,
        n_sequences=n_seqs,
        kv_type=plan.kv_type,
        swa_full=plan.swa_full or plan.embedding,
        has_flash_attention=plan.flash_attention != "off",
        is_mapped=plan.use_mmap,
        embedding=plan.embedding,
    )


def options_key(plan: LoadPlan) -> str:
    """Return a text that two plans share if they need the same memory, wherever they are placed."""
    return "|".join(
        map(
            str,
            (
                plan.model_path,
                plan.adapter_paths,
                plan.n_ctx,
                plan.n_slots,
                plan.n_batch,
                plan.n_ubatch or plan.n_batch,
                plan.kv_type,
                plan.flash_attention,
                plan.swa_full,
                plan.use_mmap,
                plan.embedding,
            ),
        )
    )


def learn(learned: LearnedDemand, plan: LoadPlan, demand: MemoryDemand, memory: MemoryUse) -> None:
    """Remember what a load of *plan* measured, for whom *demand* was reserved."""
    if plan.n_gpu_layers:
        # Main memory tells nothing of what is on GPUs; the sizes of buffers do.
        if memory.buffers is not None:
            learned.note_buffers(options_key(plan), memory.buffers)
        return
    learned.learn(
        plan.model_path,
        options_key(plan),
        demand,
        held_bytes=memory.held_bytes,
        sizes=memory.buffers,
    )


def rules_for(
    subject: Subject, options: LoadOptions, devices: Iterable[DeviceFacts]
) -> PlacementRules:
    """Return where *subject* may go: by its policy, and within that as *options* ask.

    A policy that names devices means those and no others: main memory only if it is named, too.
    """
    policy = subject.policy
    gpus = [facts for facts in devices if facts.device != HOST]
    if policy.cpu_only:
        return PlacementRules(allowed=frozenset(), n_gpu_layers=0)
    allowed = None
    if policy.devices:
        allowed = frozenset(
            facts.device
            for facts in gpus
            if facts.device in policy.devices or str(facts.index) in policy.devices
        )
    may_use_host = not policy.devices or HOST in policy.devices
    return PlacementRules(
        allowed=allowed,
        n_gpu_layers=_layers_asked(subject, options),
        may_use_host=may_use_host,
    )


def _layers_asked(subject: Subject, options: LoadOptions) -> int | None:
    """Return how many layers a request wants offloaded, `None` if that is not for it to say.

    1. Nothing is stated, or automatic (a negative number).
    2. The policy says already that all of it is in main memory, or none of its layers.
    3. What is stated.
    """
    asked, policy = options.n_gpu_layers, subject.policy
    if asked is None or asked < 0:
        return None
    is_settled = policy.cpu_only or (policy.devices and HOST not in policy.devices)
    return None if is_settled else asked


def with_placement(plan: LoadPlan, placement: Placement) -> LoadPlan:
    """Return *plan* as a runner needs it that sees the devices of *placement*, and only those.

    A `tensor_split` that was asked for stays, and with it what it says about devices.
    """
    return msgspec.structs.replace(
        plan,
        n_gpu_layers=placement.n_gpu_layers,
        tensor_split=plan.tensor_split or placement.tensor_split,
    )


def _is_for_embedding(subject: Subject, options: LoadOptions) -> bool:
    return subject.facts.is_embedding or bool(options.embedding)


def _n_batch(asked: int, n_ctx: int, subject: Subject, embedding: bool) -> int:
    """Return the batch for *asked*: no larger than the context, which nothing would fill.

    For embeddings it is no smaller either, where the model may read a text only as a whole.
    """
    reads_on = subject.facts.pooling_type in {None, _POOLING_LAST}
    return n_ctx if embedding and not reads_on else max(min(asked, n_ctx), N_BATCH_MIN)


def serves(plan: LoadPlan, subject: Subject, options: LoadOptions) -> bool:
    """Return whether a runner with *plan* can answer a request with *options*."""
    return (
        plan.model_path == subject.model_path
        and plan.adapter_paths == subject.adapter_paths
        and plan.embedding == _is_for_embedding(subject, options)
        and _serves_sizes(plan, subject, options)
        and _serves_layers(plan, subject, options)
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


def _serves_layers(plan: LoadPlan, subject: Subject, options: LoadOptions) -> bool:
    """Return whether as many layers are offloaded as asked, or as many as there can be.

    On a machine without GPUs none are, whatever is asked: asking again must not load again.
    """
    asked = _layers_asked(subject, options)
    n_units = len(subject.facts.layers) + 1
    return (
        asked is None
        or asked == plan.n_gpu_layers_asked
        or min(asked, n_units) == plan.n_gpu_layers
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
