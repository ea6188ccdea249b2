"""Stories of machines with GPUs, in virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ollamad.gpu.devices import DeviceHealth, DeviceId
from ollamad.options import LoadOptions
from ollamad.runners.states import RunnerState
from tests.fakes.placing import place_simply
from tests.scenario.house import GEMMA, LLAMA, QWEN, House, a_house, answer, leased
from tests.values import a_gpu

GPU0, GPU1 = DeviceId("GPU-0"), DeviceId("GPU-1")


def where(house: House) -> dict[str, tuple[DeviceId, ...]]:
    """On which GPUs each model is."""
    return {view.name: view.placement.devices for view in house.supervisor.residents()}


async def test_two_models_are_loaded_side_by_side_on_two_gpus(autojump_clock: MockClock) -> None:
    async with a_house(place=place_simply) as house:
        await house.see(a_gpu(0), a_gpu(1))
        asked_at = trio.current_time()

        async with trio.open_nursery() as nursery:
            for model in (LLAMA, QWEN):
                nursery.start_soon(house.supervisor.preload, model, LoadOptions())

        assert trio.current_time() - asked_at == pytest.approx(2.1)
        assert set(where(house).values()) == {(GPU0,), (GPU1,)}


async def test_a_model_on_a_gpu_that_turns_bad_answers_to_the_end_and_moves(
    autojump_clock: MockClock,
) -> None:
    async with a_house(place=place_simply) as house:
        await house.see(a_gpu(0), a_gpu(1))
        async with leased(house) as lease:
            (gpu,) = where(house)[LLAMA.name.display]
            bad = a_gpu(int(gpu[-1]), health=DeviceHealth.QUARANTINED)
            good = a_gpu(1 - int(gpu[-1]))
            await house.see(bad, good)
            assert await answer(lease) == "one two three "

        async with leased(house):
            assert where(house) == {LLAMA.name.display: (good.facts.device,)}


async def test_what_runs_on_a_lost_gpu_goes_on_elsewhere_and_the_rest_is_untouched(
    autojump_clock: MockClock,
) -> None:
    async with a_house(place=place_simply) as house:
        await house.see(a_gpu(0), a_gpu(1))
        async with leased(house, LLAMA) as llama, leased(house, GEMMA) as gemma:
            (lost,) = where(house)[LLAMA.name.display]
            await house.see(a_gpu(1 - int(lost[-1])))

            assert await answer(llama, "word " * 10) == "word " * 10
            assert where(house)[LLAMA.name.display] != (lost,)
            assert await answer(gemma) == "one two three "


async def test_the_next_model_waits_until_a_gpu_shows_its_memory_to_be_back(
    autojump_clock: MockClock,
) -> None:
    async with a_house(place=place_simply) as house:
        await house.see(a_gpu(0))
        await house.supervisor.preload(GEMMA, LoadOptions())
        (view,) = house.supervisor.residents()
        await house.see(
            a_gpu(0, used_bytes=view.vram_bytes, by_process={view.pid: view.vram_bytes})
        )

        async with trio.open_nursery() as nursery:
            other = LoadOptions(n_ctx=2048)
            nursery.start_soon(house.supervisor.preload, GEMMA, other)
            await house.launcher.started[0].exited.wait()
            await trio.sleep(1)
            (view,) = house.supervisor.residents()
            assert view.state is RunnerState.RECLAIMING
            assert len(house.reads_asked_at) == 1
            back_at = trio.current_time()
            await house.see(a_gpu(0))
        assert trio.current_time() - back_at == pytest.approx(2.1)
