from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from ollamad.runners.stopping import KILL_PATIENCE_S, Patience, Rung, stop

PATIENCE = Patience(ask_s=5, terminate_s=10)


class FakeProcess:
    """A process that ends some time after the first push it heeds."""

    def __init__(self, *, heeds: Rung, dies_after_s: float = 0.0) -> None:
        self._heeds = heeds
        self._dies_after_s = dies_after_s
        self._dies_at = math.inf
        self._pushed = trio.Event()
        self.pushes: list[tuple[Rung, float]] = []
        self.pid = 1
        stream, _ = memory_stream_pair()
        self.stream: trio.abc.Stream = stream
        self.output: trio.abc.ReceiveStream = stream

    @property
    def has_ended(self) -> bool:
        return self._dies_at <= trio.current_time()

    def limit_memory(self, planned_bytes: int) -> None:
        raise AssertionError("stopping plans nothing")

    def ask(self) -> None:
        self._push(Rung.ASK)

    def terminate(self) -> None:
        self._push(Rung.TERMINATE)

    def kill(self) -> None:
        self._push(Rung.KILL)

    def _push(self, rung: Rung) -> None:
        self.pushes.append((rung, trio.current_time()))
        if rung is self._heeds:
            self._dies_at = trio.current_time() + self._dies_after_s
            self._pushed.set()

    async def wait(self) -> int:
        await self._pushed.wait()
        await trio.sleep_until(self._dies_at)
        return 0


async def climb(process: FakeProcess, patience: Patience = PATIENCE) -> tuple[Rung, float]:
    started_at = trio.current_time()
    rung = await stop(process, process.ask, patience)
    return rung, trio.current_time() - started_at


@pytest.mark.parametrize(
    ("heeds", "dies_after_s", "rung", "takes_s"),
    [
        (Rung.ASK, 0, Rung.ASK, 0),
        (Rung.ASK, 4.5, Rung.ASK, 4.5),
        (Rung.ASK, 6, Rung.TERMINATE, 6),
        (Rung.TERMINATE, 0, Rung.TERMINATE, 5),
        (Rung.TERMINATE, 9.5, Rung.TERMINATE, 14.5),
        (Rung.KILL, 0, Rung.KILL, 15),
        (Rung.KILL, 20, Rung.KILL, 35),
        (Rung.KILL, 40, Rung.LEFT, 45),
    ],
)
async def test_each_rung_is_given_its_patience_and_no_more(
    autojump_clock: MockClock, heeds: Rung, dies_after_s: float, rung: Rung, takes_s: float
) -> None:
    process = FakeProcess(heeds=heeds, dies_after_s=dies_after_s)

    reached, took_s = await climb(process)

    assert reached is rung
    assert took_s == takes_s
    assert autojump_clock.current_time() == takes_s


async def test_a_deaf_process_is_asked_then_terminated_then_killed_after_15_s_exactly(
    autojump_clock: MockClock,
) -> None:
    process = FakeProcess(heeds=Rung.KILL)

    rung, took_s = await climb(process)

    assert rung is Rung.KILL
    assert took_s == autojump_clock.current_time() == 15
    assert process.pushes == [(Rung.ASK, 0), (Rung.TERMINATE, 5), (Rung.KILL, 15)]


async def test_cancellation_neither_shortens_the_ladder_nor_leaves_the_process(
    autojump_clock: MockClock,
) -> None:
    process = FakeProcess(heeds=Rung.KILL)

    with trio.CancelScope() as scope:
        scope.cancel()
        await stop(process, process.ask, PATIENCE)

    assert autojump_clock.current_time() == 15
    assert [push for push, _ in process.pushes] == [Rung.ASK, Rung.TERMINATE, Rung.KILL]


async def test_without_patience_a_process_is_killed_at_once(autojump_clock: MockClock) -> None:
    rung, took_s = await climb(FakeProcess(heeds=Rung.KILL), Patience(ask_s=0, terminate_s=0))

    assert (rung, took_s) == (Rung.KILL, 0)
    assert autojump_clock.current_time() == 0


async def test_a_process_that_hangs_in_the_kernel_is_left_after_its_patience(
    autojump_clock: MockClock,
) -> None:
    process = FakeProcess(heeds=Rung.LEFT)

    rung, took_s = await climb(process)

    assert rung is Rung.LEFT
    assert took_s == autojump_clock.current_time() == 15 + KILL_PATIENCE_S


def test_killing_is_the_last_rung_and_has_a_limit() -> None:
    assert list(PATIENCE.rungs()) == [
        (Rung.ASK, 5),
        (Rung.TERMINATE, 10),
        (Rung.KILL, KILL_PATIENCE_S),
    ]
