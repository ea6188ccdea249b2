"""Stories of administrators: what they ask of a supervisor, and what they are shown."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ollamad.config import RunnerConfig, SchedulingConfig
from ollamad.errors import CoolingDown, Draining, OllamadError, RunnerCrashed
from ollamad.modelpolicy import NO_POLICY, ModelPolicy
from ollamad.options import LoadOptions
from ollamad.runners.states import RunnerState
from ollamad.supervisor.daemonstate import DaemonState
from ollamad.supervisor.decisions import Verdict
from ollamad.supervisor.service import CLIENT_LETTERS_MAX
from ollamad.units import GIB
from tests.fakes.launcher import Script
from tests.scenario.house import GEMMA, LLAMA, QWEN, a_house, answer, error_of_lease, leased

NO_OPTIONS = LoadOptions()


async def test_a_preloaded_model_waits_for_its_first_request(autojump_clock: MockClock) -> None:
    async with a_house() as house:
        await house.supervisor.preload(LLAMA, NO_OPTIONS)

        async with leased(house) as lease:
            assert lease.waited_s == 0


async def test_an_evicted_runner_finishes_its_answer_first(autojump_clock: MockClock) -> None:
    async with a_house() as house:
        async with leased(house) as lease:
            assert house.supervisor.evict(LLAMA.weights_id)
            assert await answer(lease) == "one two three "
        await house.launcher.started[0].exited.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert house.supervisor.residents() == ()
        assert not house.supervisor.evict(LLAMA.weights_id)


async def test_by_force_it_does_not(autojump_clock: MockClock) -> None:
    async with a_house() as house, leased(house) as lease:
        house.supervisor.evict(LLAMA.weights_id, force=True)
        with pytest.raises(RunnerCrashed):
            await answer(lease, "word " * 1000)


async def test_a_restarted_model_has_another_process(autojump_clock: MockClock) -> None:
    async with a_house() as house:
        await house.supervisor.preload(LLAMA, NO_OPTIONS)
        assert house.supervisor.restart(LLAMA.weights_id)
        await trio.sleep(10)

        (view,) = house.supervisor.residents()
        assert view.state is RunnerState.READY
        assert [process.pid for process in house.launcher.alive] == [view.pid]
        assert len(house.launcher.started) == 2


async def test_a_cooling_model_is_shown_and_reset(autojump_clock: MockClock) -> None:
    limits = SchedulingConfig(restart_failures_max=1)
    async with a_house(Script(load_fails="no"), Script(), scheduling=limits) as house:
        await error_of_lease(house, LLAMA)
        assert isinstance(await error_of_lease(house, LLAMA), CoolingDown)
        (view,) = house.supervisor.cooling()
        assert view.name == LLAMA.name.display
        assert "cannot be loaded: no" in view.reason

        assert house.supervisor.reset(LLAMA.weights_id)
        async with leased(house):
            assert house.supervisor.cooling() == ()
        assert not house.supervisor.reset(LLAMA.weights_id)


async def test_a_drained_daemon_serves_again_when_it_is_resumed(autojump_clock: MockClock) -> None:
    async with a_house() as house:
        await house.supervisor.preload(LLAMA, NO_OPTIONS)
        house.supervisor.drain_begin()

        assert isinstance(await error_of_lease(house, LLAMA), Draining)
        await trio.sleep(10)
        assert house.supervisor.state is DaemonState.PAUSED
        assert house.launcher.alive == []
        house.supervisor.resume()
        async with leased(house) as lease:
            assert await answer(lease) == "one two three "


async def test_who_waits_is_shown_in_turn_with_what_it_waits_for(
    autojump_clock: MockClock,
) -> None:
    one_slot = RunnerConfig(n_slots=1)
    async with a_house(memory_bytes=4 * GIB, runner=one_slot) as house, leased(house):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                house.supervisor.lease, GEMMA, NO_OPTIONS, None, "x" * 2 * CLIENT_LETTERS_MAX
            )
            await trio.sleep(5)

            (view,) = house.supervisor.waiting()
            assert (view.place, view.waited_s) == (1, 5)
            assert view.client == "x" * CLIENT_LETTERS_MAX
            assert view.waits_for.startswith("room: gemma:27b needs 3.0 GiB, ")
            told = house.supervisor.explain(QWEN, NO_OPTIONS)
            assert told.verdict is Verdict.WAIT
            nursery.cancel_scope.cancel()


async def test_a_policy_is_looked_up_for_each_request(autojump_clock: MockClock) -> None:
    kept = ModelPolicy(keep_alive_s=7, priority=2)

    def policies(name: str) -> ModelPolicy:
        return kept if name == LLAMA.name.display else NO_POLICY

    async with a_house(policies=policies) as house:
        await house.supervisor.preload(LLAMA, NO_OPTIONS)
        (view,) = house.supervisor.residents()
        assert view.priority == 2
        assert view.expires_at - trio.current_time() == 7
        await trio.sleep(8)
        assert house.supervisor.residents() == ()


async def test_signs_are_given_while_the_loop_runs(autojump_clock: MockClock) -> None:
    async with a_house() as house:
        asked_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(house.supervisor.give_sign)
        assert trio.current_time() == asked_at
        assert house.supervisor.health(asked_at).is_green


async def test_an_error_of_a_preload_is_the_leases(autojump_clock: MockClock) -> None:
    async with a_house(Script(load_fails="no")) as house:
        with pytest.raises(OllamadError, match="cannot be loaded"):
            await house.supervisor.preload(LLAMA, NO_OPTIONS)
