"""Stories of the spare runner, on fake processes in virtual time. Each asserts what and when."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ollamad.config import RunnerConfig, SchedulingConfig
from ollamad.errors import RunnerCrashed
from ollamad.runners.launch import RunnerProcess, RunnerSpec
from ollamad.runners.spare import RESTOCK_AFTER_S, STEADY_S, SpareLauncher
from ollamad.units import GIB, MIB
from tests.fakes.launcher import KILLED, FakeLauncher, FakeProcess, Script
from tests.scenario.house import LLAMA, QWEN, a_house, answer, leased

GPU_1 = {"CUDA_VISIBLE_DEVICES": "1"}
UP_AFTER_S = 0.1
"""When a fake runner says hello."""


@dataclasses.dataclass
class Stand:
    """A spare launcher on fake processes, and who got what."""

    spare: SpareLauncher
    fakes: FakeLauncher
    keeping: trio.CancelScope
    """The task that keeps the spare."""
    taken: list[int] = dataclasses.field(default_factory=list)

    async def launch(self, environment: Mapping[str, str] | None = None) -> RunnerProcess:
        process = await self.spare.launch(RunnerSpec(label="llama", environment=environment or {}))
        self.taken.append(process.pid)
        return process

    @property
    def starts(self) -> list[float]:
        """When each process was started."""
        return [process.started_at for process in self.fakes.started]

    @property
    def standing(self) -> list[FakeProcess]:
        """The processes that nobody has got."""
        return [process for process in self.fakes.alive if process.pid not in self.taken]


@contextlib.asynccontextmanager
async def a_stand(
    *scripts: Script,
    config: RunnerConfig | None = None,
    own_bytes: Callable[[int], int] = lambda _pid: 25 * MIB,
) -> AsyncIterator[Stand]:
    """Keep a spare for the block; at the end nothing is left but what was taken."""
    async with trio.open_nursery() as processes:
        fakes = FakeLauncher(processes, *scripts)
        spare = SpareLauncher(fakes, config or RunnerConfig(), own_bytes=own_bytes)
        async with trio.open_nursery() as nursery:
            stand = Stand(spare, fakes, nursery.cancel_scope)
            nursery.start_soon(spare.run)
            yield stand
            nursery.cancel_scope.cancel()
        assert stand.standing == []
        assert spare.held_bytes == 0
        processes.cancel_scope.cancel()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


async def test_a_load_does_not_wait_for_a_process_to_start(autojump_clock: MockClock) -> None:
    async with a_house(Script(hello_after_s=1, load_takes_s=2), has_spare=True) as house:
        await trio.sleep(10)
        async with leased(house) as lease:
            assert lease.waited_s == pytest.approx(2)
            assert await answer(lease) == "one two three "


async def test_a_spare_is_held_to_the_memory_of_the_plan_when_it_gets_one(
    autojump_clock: MockClock,
) -> None:
    async with a_house(has_spare=True) as house:
        await trio.sleep(10)
        (spare,) = house.launcher.started
        assert spare.limits_bytes == []
        async with leased(house):
            (limit_bytes,) = spare.limits_bytes
            assert limit_bytes > GIB  # The weights alone.


async def test_a_request_soon_after_the_start_waits_for_the_rest_of_the_spares_start(
    autojump_clock: MockClock,
) -> None:
    async with a_house(Script(hello_after_s=10, load_takes_s=2), has_spare=True) as house:
        await trio.sleep(7)
        async with leased(house) as lease:
            assert lease.waited_s == pytest.approx(5)
        assert house.launcher.started[0].plan is not None


async def test_the_next_spare_is_started_when_the_load_has_had_its_time(
    autojump_clock: MockClock,
) -> None:
    async with a_stand() as stand:
        await trio.sleep(10)
        await stand.launch()
        await trio.sleep(RESTOCK_AFTER_S - 0.01)
        assert stand.standing == []
        await trio.sleep(0.02)
        assert len(stand.standing) == 1


async def test_one_load_gets_the_spare_and_a_second_one_a_fresh_runner(
    autojump_clock: MockClock,
) -> None:
    async with a_stand() as stand:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stand.launch)
            nursery.start_soon(stand.launch)

        assert stand.starts == [0, 10]
        assert len(set(stand.taken)) == 2


async def test_a_series_of_loads_puts_the_next_spare_off(autojump_clock: MockClock) -> None:
    async with a_stand() as stand:
        for _ in range(5):
            await trio.sleep(RESTOCK_AFTER_S / 2)
            await stand.launch()
        await trio.sleep(100)

        last_launch = 5 * RESTOCK_AFTER_S / 2
        assert stand.starts[-1] == pytest.approx(last_launch + RESTOCK_AFTER_S)
        assert len(stand.starts) == 6


async def test_never_is_there_more_than_one(autojump_clock: MockClock) -> None:
    async with a_stand() as stand:
        for _ in range(20):
            await trio.sleep(1.7)
            await stand.launch()
            assert len(stand.standing) <= 1


async def test_a_spare_that_is_killed_is_replaced(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_stand() as stand:
        await trio.sleep(10)
        stand.fakes.started[0].end(KILLED)
        await trio.sleep(5)

        assert stand.starts == [0, pytest.approx(11)]
        assert len(stand.standing) == 1
    assert warnings_of(caplog) == [
        "the spare runner ended (killed by SIGKILL); another one is started in 1 s"
    ]


async def test_a_spare_that_dies_in_the_moment_of_its_load_costs_a_start_and_no_error(
    autojump_clock: MockClock,
) -> None:
    async with a_stand() as stand:
        await trio.sleep(10)
        stand.fakes.started[0].end(KILLED)
        process = await stand.launch()

        assert not process.has_ended
        assert stand.starts == [0, 10]
        await trio.sleep(100)
        assert len(stand.standing) == 1


async def test_one_that_dies_after_it_was_handed_over_is_its_models_failure(
    autojump_clock: MockClock,
) -> None:
    never = SchedulingConfig(heal_attempts_max=0)
    dying = Script(dies_after_words=2)
    async with a_house(dying, Script(), has_spare=True, scheduling=never) as house:
        await trio.sleep(10)
        async with leased(house) as lease:
            with pytest.raises(RunnerCrashed, match="killed by SIGKILL"):
                await answer(lease)
        async with leased(house) as lease:
            assert await answer(lease) == "one two three "


async def test_spares_that_cannot_live_are_tried_ever_more_rarely(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_stand(Script(exits_at_start=True)) as stand:
        await trio.sleep(3600)

        assert stand.starts[:5] == pytest.approx([0, 1, 3, 7, 15])
        assert stand.starts[-1] - stand.starts[-2] == pytest.approx(300)
        assert len(stand.starts) == 20
    assert "the spare runner: cannot open the GPU" in caplog.text
    assert "ended (exit status 1: cannot open the GPU)" in caplog.text


async def test_a_system_that_refuses_processes_is_asked_ever_more_rarely(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_stand(Script(launch_fails=True)):
        await trio.sleep(60)

    assert len(warnings_of(caplog)) == 6  # At 0, 1, 3, 7, 15 and 31 s.


async def test_the_failures_before_a_spare_that_stood_are_forgotten(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    scripts = [Script(exits_at_start=True)] * 3 + [Script()]
    async with a_stand(*scripts) as stand:
        await trio.sleep(7 + STEADY_S)
        stand.fakes.started[-1].end(KILLED)
        await trio.sleep(5)

        assert len(stand.starts) == 5
    assert warnings_of(caplog)[-1].endswith("another one is started in 1 s")


async def test_a_load_between_failures_gets_a_fresh_runner_and_hurries_no_spare(
    autojump_clock: MockClock,
) -> None:
    async with a_stand(*[Script(exits_at_start=True)] * 5, Script()) as stand:
        await trio.sleep(16)
        await stand.launch()
        assert stand.starts[-2:] == pytest.approx([15, 16])
        await trio.sleep(14.9)
        assert len(stand.starts) == 6
        await trio.sleep(0.2)
        assert stand.starts[-1] == pytest.approx(31)


async def test_a_spare_that_does_not_start_is_stopped_and_replaced(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_stand(Script(hello_after_s=1e6), Script()) as stand:
        await trio.sleep(80)

        assert stand.fakes.started[0].exited.is_set()
        assert len(stand.standing) == 1
    # It reads no socket before it is up, so asking is in vain and the signal ends it.
    assert "did not start within 60 s (killed by SIGTERM)" in caplog.text


async def test_a_load_with_another_environment_gets_a_fresh_runner_and_its_like_stands_by(
    autojump_clock: MockClock,
) -> None:
    async with a_stand() as stand:
        await trio.sleep(10)
        await stand.launch(GPU_1)
        await wait_all_tasks_blocked()
        assert stand.fakes.started[0].exited.is_set()
        assert stand.fakes.started[1].spec.environment == GPU_1

        await trio.sleep(10)
        process = await stand.launch(GPU_1)

        assert stand.starts == [0, 10, 12]
        assert process.pid == stand.fakes.started[2].pid


async def test_a_load_that_is_cancelled_loses_no_process(autojump_clock: MockClock) -> None:
    async with a_stand() as stand:
        await trio.sleep(10)
        with trio.CancelScope() as leaving:
            leaving.cancel()
            await stand.launch()

        assert stand.taken == [stand.fakes.started[0].pid]


async def test_a_load_that_meets_the_end_of_the_daemon_gets_a_living_runner_or_none(
    autojump_clock: MockClock,
) -> None:
    async with a_stand() as stand:
        await trio.sleep(10)
        stand.keeping.cancel()
        with trio.CancelScope(shield=True):
            process = await stand.launch()
            assert not process.has_ended


async def test_what_it_said_before_it_had_a_model_is_logged_under_its_model(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_house(Script(says_at_start=b"W no huge pages\n"), has_spare=True) as house:
        await trio.sleep(10)
        assert "no huge pages" not in caplog.text
        async with leased(house):
            pass
    assert f"{LLAMA.name.display}: no huge pages" in caplog.text


async def test_a_spare_that_takes_too_much_memory_is_given_up_with_one_warning(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    small = RunnerConfig(spare_memory_max_bytes=24 * MIB)
    async with a_stand(config=small) as stand:
        await trio.sleep(10)
        assert stand.standing == []
        await stand.launch()
        await trio.sleep(1000)
        assert stand.starts == [0, 10]
    (warning,) = warnings_of(caplog)
    assert "25.0 MiB" in warning
    assert "runner.spare_memory_max_bytes (24.0 MiB)" in warning


async def test_turned_off_there_is_none(autojump_clock: MockClock) -> None:
    async with a_stand(config=RunnerConfig(spare=False)) as stand:
        await trio.sleep(100)
        assert stand.starts == []
        process = await stand.launch()
        assert process is stand.fakes.started[0]


async def test_its_memory_is_told_while_it_stands_by(autojump_clock: MockClock) -> None:
    async with a_stand() as stand:
        assert stand.spare.held_bytes == 0
        await trio.sleep(UP_AFTER_S + 0.01)
        assert stand.spare.held_bytes == 25 * MIB
        await stand.launch()
        assert stand.spare.held_bytes == 0


@pytest.mark.parametrize(
    ("ignores", "takes_s"),
    [((), 0), (("shutdown",), 5), (("shutdown", "term"), 8)],
    ids=["asked", "terminated", "killed"],
)
async def test_at_the_end_it_climbs_the_same_ladder_as_any_runner(
    autojump_clock: MockClock, ignores: Iterable[str], takes_s: float
) -> None:
    async with a_stand(Script(ignores=frozenset(ignores))):
        await trio.sleep(10)
        ends_at = trio.current_time()

    assert trio.current_time() - ends_at == pytest.approx(takes_s)


async def test_a_daemon_that_stops_while_a_spare_starts_leaves_none(
    autojump_clock: MockClock,
) -> None:
    async with a_stand(Script(hello_after_s=5)) as stand:
        await wait_all_tasks_blocked()
        assert len(stand.standing) == 1


async def test_models_take_turns_with_one_spare(autojump_clock: MockClock) -> None:
    async with a_house(has_spare=True) as house:
        for model in (LLAMA, QWEN):
            await trio.sleep(10)
            async with leased(house, model) as lease:
                assert lease.waited_s == pytest.approx(2)
                assert await answer(lease) == "one two three "
        await trio.sleep(10)
        assert len(house.launcher.alive) == 3
