"""Stories: the real supervisor on fake runners, in virtual time. Each asserts what and when."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ollamad.config import RunnerConfig, SchedulingConfig
from ollamad.errors import (
    CoolingDown,
    Draining,
    LoadFailed,
    LoadTimedOut,
    RunnerCrashed,
)
from ollamad.options import LoadOptions, SamplingOptions
from ollamad.runners.states import RunnerState
from ollamad.runners.stopping import KILL_PATIENCE_S
from ollamad.units import GIB
from tests.fakes.launcher import KILLED, TERMINATED, Script
from tests.scenario.house import GEMMA, LLAMA, QWEN, a_house, answer, error_of_lease, leased


async def test_a_first_request_loads_the_model_and_is_answered(autojump_clock: MockClock) -> None:
    async with a_house() as house, leased(house) as lease:
        assert lease.waited_s == pytest.approx(2.1)
        assert await answer(lease) == "one two three "


async def test_an_idle_model_leaves_after_its_keep_alive(autojump_clock: MockClock) -> None:
    async with a_house() as house:
        async with leased(house) as lease:
            await answer(lease)
        released_at = trio.current_time()

        await house.launcher.started[0].exited.wait()

        assert trio.current_time() - released_at == pytest.approx(300)


async def test_a_model_in_use_stays_for_as_long_as_it_takes(autojump_clock: MockClock) -> None:
    async with a_house() as house, leased(house):
        await trio.sleep(10_000)
        assert len(house.launcher.alive) == 1


async def test_ten_requests_for_a_cold_model_share_one_load(autojump_clock: MockClock) -> None:
    texts: list[str] = []

    async def ask(number: int) -> None:
        async with leased(house) as lease:
            texts.append(await answer(lease, f"request {number}"))

    async with a_house() as house:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(ask, number)
        assert len(house.launcher.started) == 1
    assert sorted(texts) == [f"request {number} " for number in range(10)]


async def test_a_client_that_leaves_in_the_middle_cancels_its_generation(
    autojump_clock: MockClock,
) -> None:
    async with a_house() as house:
        async with leased(house) as lease:
            mailbox = lease.generate("word " * 100, SamplingOptions())
            await mailbox.take()
        await trio.testing.wait_all_tasks_blocked()
        (process,) = house.launcher.started
        assert process.cancelled == [1]
        await trio.sleep(1)
        assert process.generating == set()


@pytest.mark.parametrize("leaves_after_s", [0.0, 0.05, 0.1, 1.0, 2.1, 2.2])
async def test_leaving_at_any_moment_leaves_nothing_behind(
    leaves_after_s: float, autojump_clock: MockClock
) -> None:
    async with a_house() as house:
        with trio.move_on_after(leaves_after_s):
            async with leased(house) as lease:
                await answer(lease)
        await trio.sleep(310)
        house.assert_nothing_is_left()


async def test_without_healing_a_killed_runner_ends_its_streams_with_one_clear_error(
    autojump_clock: MockClock,
) -> None:
    never = SchedulingConfig(heal_attempts_max=0)
    async with a_house(Script(dies_after_words=2), Script(), scheduling=never) as house:
        async with leased(house) as lease:
            with pytest.raises(RunnerCrashed, match="SIGKILL"):
                await answer(lease, "one two three four")

        async with leased(house) as lease:
            assert await answer(lease) == "one two three "
        assert len(house.launcher.started) == 2


async def test_a_crash_of_one_model_does_not_touch_another(autojump_clock: MockClock) -> None:
    async with a_house(Script(), Script(dies_after_words=0)) as house:
        async with leased(house, LLAMA) as llama, leased(house, QWEN) as qwen:
            with pytest.raises(RunnerCrashed):
                await answer(qwen)
            assert await answer(llama) == "one two three "


async def test_a_model_that_crashes_every_time_cools_down(autojump_clock: MockClock) -> None:
    never = SchedulingConfig(heal_attempts_max=0)
    async with a_house(Script(dies_after_words=0), scheduling=never) as house:
        for _ in range(3):
            async with leased(house) as lease:
                with pytest.raises(RunnerCrashed):
                    await answer(lease)

        refused = await error_of_lease(house, LLAMA)

        assert isinstance(refused, CoolingDown)
        assert refused.retry_after_s == pytest.approx(30, abs=3)
        assert len(house.launcher.started) == 3


async def test_a_model_that_cannot_be_loaded_says_why(autojump_clock: MockClock) -> None:
    async with a_house(Script(load_fails="unknown architecture 'foo'")) as house:
        refused = await error_of_lease(house, LLAMA)

        assert isinstance(refused, LoadFailed)
        assert "unknown architecture 'foo'" in refused.message


async def test_a_runner_that_dies_before_it_speaks_says_its_last_words(
    autojump_clock: MockClock,
) -> None:
    async with a_house(Script(exits_at_start=True)) as house:
        refused = await error_of_lease(house, LLAMA)

        assert isinstance(refused, LoadFailed)
        assert "exit status 1: cannot open the GPU" in refused.message


async def test_a_process_that_cannot_be_started_is_an_error_not_a_hang(
    autojump_clock: MockClock,
) -> None:
    async with a_house(Script(launch_fails=True)) as house:
        refused = await error_of_lease(house, LLAMA)

        assert "no more processes" in refused.message


async def test_a_load_that_hangs_times_out(autojump_clock: MockClock) -> None:
    scheduling = SchedulingConfig(load_timeout_s=60)
    async with a_house(Script(load_takes_s=math.inf), scheduling=scheduling) as house:
        asked_at = trio.current_time()

        refused = await error_of_lease(house, LLAMA)

        assert isinstance(refused, LoadTimedOut)
        assert trio.current_time() - asked_at == pytest.approx(60.1)


async def test_a_runner_that_not_even_killing_ends_is_left_and_its_memory_written_off(
    autojump_clock: MockClock,
) -> None:
    """Waiting for a process that hangs in the kernel would hang whoever waits for its place."""
    stuck = Script(ignores=frozenset({"shutdown", "term", "kill"}))
    patience = RunnerConfig(ask_patience_s=5, terminate_patience_s=10)
    async with a_house(stuck, Script(), runner=patience) as house:
        async with leased(house):
            pass
        house.supervisor.unload(LLAMA.weights_id)
        asked_at = trio.current_time()
        async with leased(house) as lease:
            assert await answer(lease)
            took_s = trio.current_time() - asked_at
        house.launcher.started[0].end(KILLED)

    # The ladder, the patience with SIGKILL and that with the memory; then the model is loaded anew.
    assert took_s == pytest.approx(5 + 10 + KILL_PATIENCE_S + 5, abs=3)


async def test_a_runner_deaf_to_its_protocol_is_terminated(autojump_clock: MockClock) -> None:
    async with a_house(Script(ignores=frozenset({"shutdown"}))) as house:
        async with leased(house):
            pass
        house.supervisor.unload(LLAMA.weights_id)

        assert await house.launcher.started[0].wait() == TERMINATED


async def test_a_hung_engine_is_found_and_replaced(autojump_clock: MockClock) -> None:
    hung = Script(hangs_after_words=1)
    async with a_house(hung, Script(), runner=RunnerConfig(stall_timeout_s=120)) as house:
        async with leased(house) as lease:
            started_at = trio.current_time()

            assert await answer(lease) == "one two three "

            assert trio.current_time() - started_at == pytest.approx(120 + 2.1, abs=1)
        assert len(house.launcher.started) == 2


async def test_an_idle_runner_is_not_taken_for_a_hung_one(autojump_clock: MockClock) -> None:
    config = RunnerConfig(stall_timeout_s=10)
    async with a_house(runner=config) as house:
        async with leased(house) as lease:
            await trio.sleep(1_000)
            assert await answer(lease) == "one two three "
            # The request came long after the last sign of progress.
            await trio.sleep(9.99)
            assert await answer(lease) == "one two three "


async def test_an_idle_model_makes_room_for_a_larger_one(autojump_clock: MockClock) -> None:
    async with a_house(memory_bytes=4 * GIB) as house:
        async with leased(house, LLAMA):
            pass
        async with leased(house, GEMMA) as lease:
            assert await answer(lease) == "one two three "
        assert [p.spec.label for p in house.launcher.alive] == [GEMMA.name.display]


async def test_a_busy_model_makes_room_in_the_end(autojump_clock: MockClock) -> None:
    async with a_house(memory_bytes=4 * GIB) as house, trio.open_nursery() as nursery:

        async def long_chat() -> None:
            async with leased(house, LLAMA) as lease:
                await answer(lease, "word " * 1000)  # 50 s

        nursery.start_soon(long_chat)
        await trio.sleep(5)
        asked_at = trio.current_time()
        async with leased(house, GEMMA):
            assert trio.current_time() - asked_at == pytest.approx(50, abs=5)


async def test_a_reload_for_other_options_happens_when_nobody_is_disturbed(
    autojump_clock: MockClock,
) -> None:
    async with a_house() as house:
        async with leased(house):
            pass
        lease = await house.supervisor.lease(LLAMA, LoadOptions(n_ctx=2048))
        lease.release()

        assert [p.plan.n_ctx for p in house.launcher.started if p.plan] == [4096, 2048]


async def test_draining_lets_answers_end_and_refuses_newcomers(autojump_clock: MockClock) -> None:
    async with a_house() as house, trio.open_nursery() as nursery:
        async with leased(house) as lease:
            nursery.start_soon(house.supervisor.drain)
            await trio.testing.wait_all_tasks_blocked()

            assert isinstance(await error_of_lease(house, LLAMA), Draining)
            assert await answer(lease) == "one two three "
        await house.launcher.started[0].exited.wait()


async def test_a_cancelled_supervisor_leaves_no_process(autojump_clock: MockClock) -> None:
    async with a_house() as house:
        async with leased(house):
            pass
        assert house.core.residents
        # The house's own end drains; here the loop is simply cancelled, as in a crash.
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert house.launcher.alive == []


async def test_a_slow_reader_gets_everything_merged(autojump_clock: MockClock) -> None:
    async with a_house() as house, leased(house) as lease:
        mailbox = lease.generate("a b c d", SamplingOptions())
        await trio.sleep(10)
        piece = await mailbox.take()
        assert getattr(piece, "text", None) == "a b c d "


async def test_what_users_see_of_a_model_follows_its_life(autojump_clock: MockClock) -> None:
    async with a_house() as house:
        assert house.supervisor.residents() == ()
        async with leased(house):
            (view,) = house.supervisor.residents()
            assert view.state is RunnerState.READY
            assert view.n_leases == 1
            assert view.n_ctx == 4096
        await trio.testing.wait_all_tasks_blocked()
        (view,) = house.supervisor.residents()
        assert view.expires_at - trio.current_time() == pytest.approx(300, abs=1)


class SlowDisk:
    """Reads ahead without end."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, tuple[str, ...]]] = []
        self.given_up_at: list[float] = []

    async def read(self, paths: Iterable[str]) -> None:
        self.asked.append((trio.current_time(), tuple(paths)))
        try:
            await trio.sleep_forever()
        finally:
            self.given_up_at.append(trio.current_time())


async def test_a_models_file_is_read_while_its_runner_still_starts(
    autojump_clock: MockClock,
) -> None:
    disk = SlowDisk()
    async with a_house(Script(hello_after_s=5), read_ahead=disk.read) as house:
        async with leased(house) as lease:
            assert lease.waited_s == pytest.approx(7)
        assert disk.asked == [(0, (str(LLAMA.weights_path),))]
    assert len(disk.given_up_at) == 1


async def test_nobody_reads_for_a_load_that_has_failed(autojump_clock: MockClock) -> None:
    disk = SlowDisk()
    async with a_house(Script(load_fails="no model"), read_ahead=disk.read) as house:
        assert isinstance(await error_of_lease(house, LLAMA), LoadFailed)
        await trio.sleep(1)
        assert disk.given_up_at == [pytest.approx(2.1)]


async def test_nobody_reads_for_a_runner_that_could_not_be_started(
    autojump_clock: MockClock,
) -> None:
    disk = SlowDisk()
    async with a_house(Script(launch_fails=True), read_ahead=disk.read) as house:
        assert isinstance(await error_of_lease(house, LLAMA), LoadFailed)
        await trio.sleep(1)
        assert disk.given_up_at == [0] * len(disk.asked)
