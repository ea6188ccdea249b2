"""Small honest values for tests of the supervisor. Named arguments only."""

from __future__ import annotations

from collections.abc import Mapping

from ollamad.config import RunnerConfig, SchedulingConfig
from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import (
    HOST,
    DeviceFacts,
    DeviceHealth,
    DeviceId,
    DeviceKind,
    SeenDevice,
)
from ollamad.gpu.placement import place
from ollamad.modelinfo import GgufFacts, KvShape, LayerInfo, WeightsId
from ollamad.modelpolicy import NO_POLICY, ModelPolicy
from ollamad.options import LoadOptions
from ollamad.runners.protocol import MemoryUse
from ollamad.supervisor.compat import PlanDefaults
from ollamad.supervisor.core import Core
from ollamad.supervisor.decisions import PlaceFunction
from ollamad.supervisor.events import DevicesSeen, RequestArrived, Subject, TicketId
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


def a_subject(
    *, name: str = "llama:8b", weights_bytes: int = GIB, policy: ModelPolicy = NO_POLICY
) -> Subject:
    """Return a model to ask for; its name is also its weights' identity."""
    return Subject(
        weights_id=WeightsId(name),
        name=name,
        model_path=f"/models/{name}",
        facts=some_facts(weights_bytes=weights_bytes),
        policy=policy,
    )


def a_core(
    *,
    memory_bytes: int = 8 * GIB,
    scheduling: SchedulingConfig | None = None,
    runner: RunnerConfig | None = None,
    place: PlaceFunction = place,
) -> Core:
    """Return a core with *memory_bytes* of main memory that nobody else uses."""
    host = DeviceFacts(device=HOST, name="host", capacity_bytes=memory_bytes)
    return Core(
        scheduling or SchedulingConfig(),
        PlanDefaults(runner or RunnerConfig(), n_cores=2),
        Budget([host]),
        place,
    )


def a_reading(used_bytes: int, *, memory_bytes: int = 8 * GIB) -> DevicesSeen:
    """Return a look at a machine without GPUs, *used_bytes* of whose memory are in use."""
    host = DeviceFacts(device=HOST, name="host", capacity_bytes=memory_bytes)
    return DevicesSeen((SeenDevice(facts=host, used_bytes=used_bytes),))


def a_gpu(
    number: int,
    *,
    capacity_bytes: int = 4 * GIB,
    used_bytes: int = 0,
    health: DeviceHealth = DeviceHealth.HEALTHY,
    by_process: Mapping[int, int] | None = None,
) -> SeenDevice:
    """Return a GPU as it was last seen: `GPU-number`."""
    facts = DeviceFacts(
        device=DeviceId(f"GPU-{number}"),
        name=f"Test GPU {number}",
        capacity_bytes=capacity_bytes,
        kind=DeviceKind.CUDA,
        index=number,
    )
    return SeenDevice(
        facts=facts, used_bytes=used_bytes, by_process=by_process or {}, health=health
    )


def devices(*gpus: SeenDevice, memory_bytes: int = 8 * GIB) -> DevicesSeen:
    """Return a look at a machine with these GPUs, whose main memory nobody uses."""
    return DevicesSeen((*a_reading(0, memory_bytes=memory_bytes).devices, *gpus))


def arrival(
    ticket: int,
    subject: Subject,
    *,
    options: LoadOptions | None = None,
    keep_alive_s: float | None = None,
    client: str = "",
) -> RequestArrived:
    """Return a request for *subject*."""
    return RequestArrived(
        ticket=TicketId(ticket),
        subject=subject,
        options=options or LoadOptions(),
        keep_alive_s=keep_alive_s,
        client=client,
    )


def some_memory(*, weights_bytes: int = GIB) -> MemoryUse:
    """Return what a runner measures after loading."""
    return MemoryUse(anonymous_bytes=64 * MIB, file_bytes=weights_bytes)
