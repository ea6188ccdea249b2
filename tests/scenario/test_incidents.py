"""Incidents that users of such daemons have lived through, each as a story in virtual time.

Here none of them may happen. The name says what was reported; the story asserts what happens, and
when.
"""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ollamad.app import feed_watchdog
from ollamad.config import RunnerConfig, SchedulingConfig
from ollamad.errors import DoesNotFit, LoadFailed, QueueFull, RunnerCrashed
from ollamad.modelinfo import StoredModel
from ollamad.modelpolicy import NO_POLICY, ModelPolicy
from ollamad.options import LoadOptions
from ollamad.runners.protocol import FailureCode
from ollamad.runners.states import RunnerState
from ollamad.supervisor.loop import Loop
from ollamad.supervisor.service import Supervisor
from ollamad.units import GIB, MIB
from tests.fakes.launcher import KILLED, FakeLauncher, Script
from tests.scenario.house import (
    GEMMA,
    LLAMA,
    QWEN,
    House,
    a_house,
    a_model,
    answer,
    error_of_lease,
    leased,
)
from tests.values import a_core

MONSTER = a_model("monster:400b", weights_bytes=40 * GIB)


async def wait_until_leaving(house: House, model: StoredModel) -> None:
    """Return when the model's runner is on its way out."""
    while True:
        states = {view.name: view.state for view in house.supervisor.residents()}
        if states.get(model.name.display) in {RunnerState.DRAINING, RunnerState.STOPPING}:
            return
        await trio.sleep(0.01)


async def test_victim_revived_during_eviction_never_blocks_loads(
    autojump_clock: MockClock,
) -> None:
    """A model asked for again while it was evicted stayed "Stopping…", and no other was loaded."""
    deaf = Script(ignores=frozenset({"shutdown"}))
    async with a_house(deaf, Script(), memory_bytes=4 * GIB) as house:
        async with leased(house, LLAMA):
            pass
        done: list[tuple[str, float]] = []

        async def ask(model: StoredModel) -> None:
            async with leased(house, model) as lease:
                await answer(lease)
            done.append((model.name.display, trio.current_time() - asked_at))

        asked_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, GEMMA)
            await wait_until_leaving(house, LLAMA)
            nursery.start_soon(ask, LLAMA)

        # Five seconds for the victim's stop, two for the load; the victim comes back after that.
        assert [name for name, _ in done] == [GEMMA.name.display, LLAMA.name.display]
        assert [at for _, at in done] == [pytest.approx(7.3, abs=0.1), pytest.approx(9.6, abs=0.3)]


async def test_infeasible_model_fails_fast_without_evicting_anyone(
    autojump_clock: MockClock,
) -> None:
    async with a_house(memory_bytes=GIB + 80 * MIB) as house:
        async with leased(house, LLAMA):
            pass
        asked_at = trio.current_time()

        refused = await error_of_lease(house, MONSTER)
        with pytest.raises(DoesNotFit, match=LLAMA.name.display):
            # Its own runner is no victim either, for options that can never be met.
            await house.supervisor.lease(LLAMA, LoadOptions(n_ctx=8192, n_batch=8192))

        assert isinstance(refused, DoesNotFit)
        assert "needs 40.0 GiB" in refused.message
        assert trio.current_time() == asked_at
        (view,) = house.supervisor.residents()
        assert view.state is RunnerState.READY
        assert len(house.launcher.started) == 1


async def test_stop_is_bounded_even_when_runner_ignores_term(autojump_clock: MockClock) -> None:
    deaf = Script(ignores=frozenset({"shutdown", "term"}))
    patience = RunnerConfig(ask_patience_s=5, terminate_patience_s=10)
    async with a_house(deaf, runner=patience) as house:
        async with leased(house):
            pass
        house.supervisor.unload(LLAMA.weights_id)
        asked_at = trio.current_time()

        (process,) = house.launcher.started
        assert await process.wait() == KILLED
        assert trio.current_time() - asked_at == pytest.approx(15)


async def test_green_health_requires_recent_progress(autojump_clock: MockClock) -> None:
    """A daemon whose scheduler was stuck went on telling its watchdog that all was well."""
    async with trio.open_nursery() as nursery:
        loop = Loop(a_core(), FakeLauncher(nursery), RunnerConfig())
        supervisor = Supervisor(loop)
        fed_at: list[float] = []
        nursery.start_soon(
            feed_watchdog, supervisor, lambda: fed_at.append(trio.current_time()), 10.0
        )

        async def run_for(seconds: float) -> None:
            with trio.move_on_after(seconds):
                await loop.run()

        await run_for(35)
        assert fed_at == [0, 10, 20, 30]
        assert supervisor.health(trio.current_time()).is_green

        # The loop hangs; a request comes, and nobody handles it.
        supervisor.unload(LLAMA.weights_id)
        await trio.sleep(40)
        assert fed_at == [0, 10, 20, 30]
        health = supervisor.health(trio.current_time())
        assert not health.is_green
        assert "events have waited" in health.why

        await run_for(10)
        assert fed_at[4:] == [75, 80]
        assert supervisor.health(trio.current_time()).is_green
        nursery.cancel_scope.cancel()


async def test_runner_death_restarts_with_backoff(autojump_clock: MockClock) -> None:
    limits = SchedulingConfig(
        restart_failures_max=10, restart_delay_s=4, restart_delay_max_s=10, heal_attempts_max=0
    )
    async with a_house(Script(dies_after_words=0), scheduling=limits) as house:
        waited: list[float] = []
        for _ in range(5):
            async with leased(house) as lease:
                waited.append(lease.waited_s)
                with pytest.raises(RunnerCrashed):
                    await answer(lease)

    # The first death is forgiven at once; the delays after it are 4, 8 and 10 seconds.
    assert waited == [pytest.approx(2.1 + delay, abs=0.01) for delay in (0, 0, 4, 8, 10)]


async def test_unstated_options_do_not_reload(autojump_clock: MockClock) -> None:
    async with a_house() as house:
        lease = await house.supervisor.lease(LLAMA, LoadOptions(n_ctx=2048, n_threads=1))
        lease.release()
        for options in (LoadOptions(), LoadOptions(n_ctx=2048)):
            lease = await house.supervisor.lease(LLAMA, options)
            lease.release()
            assert lease.waited_s == 0

        assert len(house.launcher.started) == 1


@pytest.mark.parametrize("by_policy", [True, False], ids=["by policy", "by an administrator"])
async def test_pinned_model_survives_pressure(by_policy: bool, autojump_clock: MockClock) -> None:
    def policies(name: str) -> ModelPolicy:
        is_llama = name == LLAMA.name.display
        return ModelPolicy(pinned=True) if by_policy and is_llama else NO_POLICY

    async with a_house(memory_bytes=4 * GIB, policies=policies) as house:
        async with leased(house, LLAMA):
            pass
        if not by_policy:
            assert house.supervisor.pin(LLAMA.weights_id, pinned=True)
        async with leased(house, QWEN):
            pass

        # It would fit if the pinned model left, and it never will.
        refused = await error_of_lease(house, GEMMA)
        assert isinstance(refused, DoesNotFit)
        assert f"pinned models stay: {LLAMA.name.display}" in refused.message
        two_gib = a_model("two:2b", weights_bytes=2 * GIB)
        async with leased(house, two_gib):
            names = {view.name for view in house.supervisor.residents()}
            assert names == {LLAMA.name.display, two_gib.name.display}

        await trio.sleep(80_000)
        (view,) = house.supervisor.residents()
        assert (view.name, view.is_pinned) == (LLAMA.name.display, True)
        assert math.isinf(view.expires_at)
        assert len(house.launcher.of(LLAMA.name.display)) == 1


def out_of_memory(times: int) -> tuple[Script, ...]:
    fails = Script(load_fails="cudaMalloc failed", load_fails_with=FailureCode.OUT_OF_MEMORY)
    return (*[fails] * times, Script(weights_bytes=3 * GIB))


async def test_oom_in_one_runner_leaves_others_loaded(autojump_clock: MockClock) -> None:
    """Every model was unloaded when one ran out of memory."""
    scripts = {GEMMA.name.display: out_of_memory(1)}
    async with a_house(memory_bytes=8 * GIB, by_label=scripts) as house, leased(house) as lease:
        async with leased(house, QWEN):
            pass

        async with leased(house, GEMMA) as other:
            # The second try has more room: who was idle made way, who was in use did not.
            assert await answer(other) == "one two three "
            assert len(house.launcher.of(GEMMA.name.display)) == 2
            assert {view.name for view in house.supervisor.residents()} == {
                LLAMA.name.display,
                GEMMA.name.display,
            }
        assert await answer(lease) == "one two three "
        assert len(house.launcher.of(LLAMA.name.display)) == 1


async def test_a_load_that_runs_out_of_memory_twice_is_an_error_and_others_stay(
    autojump_clock: MockClock,
) -> None:
    scripts = {GEMMA.name.display: out_of_memory(2)}
    async with a_house(memory_bytes=8 * GIB, by_label=scripts) as house, leased(house) as lease:
        refused = await error_of_lease(house, GEMMA)

        assert isinstance(refused, LoadFailed)
        assert "cudaMalloc failed" in refused.message
        assert len(house.launcher.of(GEMMA.name.display)) == 2
        assert await answer(lease) == "one two three "


async def test_max_queue_applies_to_a_loaded_model(autojump_clock: MockClock) -> None:
    """Requests to a loaded model waited in a queue of their own that had no end."""
    limits = SchedulingConfig(queue_length_max=2)
    one_slot = RunnerConfig(n_slots=1)
    outcomes: list[str] = []
    refusals: list[QueueFull] = []

    async with a_house(scheduling=limits, runner=one_slot) as house:
        async with leased(house) as lease:
            await answer(lease)

        async def ask() -> None:
            try:
                async with leased(house) as lease:
                    await answer(lease, "word " * 100)
            except QueueFull as exc:
                outcomes.append("refused")
                refusals.append(exc)
            else:
                outcomes.append("answered")

        async with trio.open_nursery() as nursery:
            for _ in range(7):
                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
            assert outcomes == ["refused"] * 2

    assert sorted(outcomes) == ["answered"] * 5 + ["refused"] * 2
    assert all(1 <= refusal.retry_after_s <= 60 for refusal in refusals)


async def test_loader_disconnect_does_not_abort_the_load_for_others(
    autojump_clock: MockClock,
) -> None:
    async with a_house() as house, trio.open_nursery() as nursery:
        loader = trio.CancelScope()

        async def load() -> None:
            with loader:
                async with leased(house):
                    raise AssertionError("granted after leaving")

        nursery.start_soon(load)
        await trio.sleep(1)
        loader.cancel()
        async with leased(house) as lease:
            assert lease.waited_s == pytest.approx(1.1)
        assert len(house.launcher.started) == 1


async def test_a_load_that_nobody_waits_for_any_more_is_finished_and_kept(
    autojump_clock: MockClock,
) -> None:
    async with a_house() as house:
        with trio.move_on_after(1):
            await house.supervisor.lease(LLAMA, LoadOptions())
        await trio.sleep(2)

        lease = await house.supervisor.lease(LLAMA, LoadOptions())
        assert lease.waited_s == 0
        lease.release()
        assert len(house.launcher.started) == 1


async def test_a_hung_engine_is_found_although_its_socket_is_served(
    autojump_clock: MockClock,
) -> None:
    hung = Script(hangs_after_words=1, beats_while_hung=True)
    async with a_house(hung, Script(), runner=RunnerConfig(stall_timeout_s=60)) as house:
        async with leased(house) as lease:
            hung_at = trio.current_time()
            assert await answer(lease) == "one two three "
            assert trio.current_time() - hung_at == pytest.approx(60 + 2.1, abs=1)
        assert len(house.launcher.started) == 2
