"""Small honest values for tests of the supervisor. Named arguments only."""

from __future__ import annotations

from ollamad.config import RunnerConfig, SchedulingConfig
from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import HOST, DeviceFacts
from ollamad.modelinfo import GgufFacts, KvShape, LayerInfo, WeightsId
from ollamad.options import LoadOptions
from ollamad.runners.protocol import MemoryUse
from ollamad.supervisor.compat import PlanDefaults
from ollamad.supervisor.core import Core
from ollamad.supervisor.events import RequestArrived, Subject, TicketId
from ollamad.units import GIB, MIB

N_CTX_TRAIN = 8192


def some_facts(*, weights_bytes: int = GIB, pooling_type: int | None = None) -> GgufFacts:
    """Return facts of a model whose memory is nearly all weights."""
    return GgufFacts(
        architecture="llama",
        kind="model",
        n_params=10**9,
        file_type="Q4_0",
        file_bytes=weights_bytes,
        n_ctx_train=N_CTX_TRAIN,
        n_embd=64,
        n_vocab=256,
        layers=(LayerInfo(weights_bytes=weights_bytes, n_head_kv=1),),
        other_weights_bytes=0,
        kv_shape=KvShape(key_length=1, value_length=1),
        pooling_type=pooling_type,
        has_vision=False,
        has_audio=False,
        chat_template="",
        bos_token="<s>",
        eos_token="</s>",
        add_bos=True,
        add_eos=False,
    )


def a_subject(*, name: str = "llama:8b", weights_bytes: int = GIB) -> Subject:
    """Return a model to ask for; its name is also its weights' identity."""
    return Subject(
        weights_id=WeightsId(name),
        name=name,
        model_path=f"/models/{name}",
        facts=some_facts(weights_bytes=weights_bytes),
    )


def a_core(
    *,
    memory_bytes: int = 8 * GIB,
    scheduling: SchedulingConfig | None = None,
    runner: RunnerConfig | None = None,
) -> Core:
    """Return a core with *memory_bytes* of main memory that nobody else uses."""
    host = DeviceFacts(device=HOST, name="host", capacity_bytes=memory_bytes)
    return Core(
        scheduling or SchedulingConfig(),
        PlanDefaults(runner or RunnerConfig(), n_cores=2),
        Budget([host]),
    )


def arrival(
    ticket: int,
    subject: Subject,
    *,
    options: LoadOptions | None = None,
    keep_alive_s: float | None = None,
) -> RequestArrived:
    """Return a request for *subject*."""
    return RequestArrived(
        ticket=TicketId(ticket),
        subject=subject,
        options=options or LoadOptions(),
        keep_alive_s=keep_alive_s,
    )


def some_memory(*, weights_bytes: int = GIB) -> MemoryUse:
    """Return what a runner measures after loading."""
    return MemoryUse(anonymous_bytes=64 * MIB, file_bytes=weights_bytes)
