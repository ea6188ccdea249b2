from __future__ import annotations

import pytest

from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import HOST, DeviceFacts, DeviceReading
from ollamad.gpu.estimate import MemoryDemand
from ollamad.gpu.placement import explain_misfit, place
from ollamad.units import GIB, MIB

DEMAND = MemoryDemand(
    weights_bytes=40 * GIB,
    kv_cache_bytes=2 * GIB,
    compute_bytes=448 * MIB,
    process_bytes=64 * MIB,
)


def test_everything_goes_to_main_memory() -> None:
    placement = place(DEMAND, {HOST: DEMAND.total_bytes})

    assert placement is not None

    assert placement.amounts == {HOST: DEMAND.total_bytes}
    assert placement.n_gpu_layers == 0


@pytest.mark.parametrize(
    "said",
    [
        "needs 42.5 GiB",
        "weights 40.0 GiB",
        "KV cache 2.0 GiB",
        "computing 512.0 MiB",
        "only 27.0 GiB can be had",
        "other programs use 4.0 GiB",
        "try a smaller num_ctx, a smaller model, or a smaller quantisation",
    ],
)
def test_a_misfit_is_explained_with_its_numbers_and_what_to_do(said: str) -> None:
    facts = DeviceFacts(device=HOST, name="main memory", capacity_bytes=32 * GIB)
    budget = Budget([facts], {HOST: GIB})
    budget.take_reading(DeviceReading(device=HOST, used_bytes=4 * GIB))

    assert said in explain_misfit(DEMAND, budget)


def test_a_model_that_is_a_byte_too_large_goes_nowhere() -> None:
    assert place(DEMAND, {HOST: DEMAND.total_bytes - 1}) is None
