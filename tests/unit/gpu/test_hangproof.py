"""Calls that hang, in real threads: they hang on an event, so that nothing here sleeps."""

from __future__ import annotations

import threading

import pytest
import trio

from ollamad.gpu.hangproof import CallHung, ThreadCalls

FOR_EVER_S = 30.0
SOON_S = 0.01


async def test_a_call_returns_what_it_computes_and_raises_what_it_raises() -> None:
    calls = ThreadCalls()

    def fail() -> None:
        raise ValueError("from the thread")

    assert await calls.call(lambda: 42, within_s=FOR_EVER_S) == 42
    with pytest.raises(ValueError, match="from the thread"):
        await calls.call(fail, within_s=FOR_EVER_S)
    assert calls.n_hung == 0


async def test_a_call_that_hangs_is_given_up_and_counted_until_it_returns() -> None:
    returned = trio.Event()
    calls = ThreadCalls(returned.set)
    hang = threading.Event()

    with pytest.raises(CallHung, match="within"):
        await calls.call(lambda: hang.wait(FOR_EVER_S), within_s=SOON_S)
    assert calls.n_hung == 1
    assert await calls.call(lambda: 42, within_s=FOR_EVER_S) == 42

    hang.set()
    await returned.wait()
    assert calls.n_hung == 0


async def test_a_call_that_fails_after_it_was_given_up_is_over_too() -> None:
    returned = trio.Event()
    calls = ThreadCalls(returned.set)
    hang = threading.Event()

    def fail_late() -> None:
        hang.wait(FOR_EVER_S)
        raise ValueError("nobody hears this")

    with pytest.raises(CallHung):
        await calls.call(fail_late, within_s=SOON_S)
    hang.set()
    await returned.wait()

    assert calls.n_hung == 0


async def test_no_more_than_a_few_threads_hang() -> None:
    all_returned = trio.Event()
    calls = ThreadCalls(lambda: all_returned.set() if calls.n_hung == 0 else None, hung_max=2)
    hang = threading.Event()
    entered: list[int] = []

    def enter_and_hang() -> None:
        entered.append(1)
        hang.wait(FOR_EVER_S)

    for _ in range(5):
        with pytest.raises(CallHung):
            await calls.call(enter_and_hang, within_s=SOON_S)
    assert len(entered) <= 2
    assert calls.n_hung == 2

    hang.set()
    await all_returned.wait()
    assert await calls.call(lambda: 42, within_s=FOR_EVER_S) == 42


async def test_a_call_that_is_cancelled_counts_as_hung_while_it_runs() -> None:
    returned = trio.Event()
    calls = ThreadCalls(returned.set)
    hang = threading.Event()
    started = threading.Event()

    def start_and_hang() -> None:
        started.set()
        hang.wait(FOR_EVER_S)

    async with trio.open_nursery() as nursery:

        async def call() -> None:
            await calls.call(start_and_hang, within_s=FOR_EVER_S)

        nursery.start_soon(call)
        await trio.to_thread.run_sync(started.wait, FOR_EVER_S)
        nursery.cancel_scope.cancel()

    assert calls.n_hung == 1
    hang.set()
    await returned.wait()
    assert calls.n_hung == 0


def test_a_call_that_returns_after_the_end_of_everything_bothers_nobody() -> None:
    hang = threading.Event()
    ended = threading.Event()

    def hang_then_end() -> None:
        hang.wait(FOR_EVER_S)
        ended.set()

    async def main() -> None:
        with pytest.raises(CallHung):
            await ThreadCalls().call(hang_then_end, within_s=SOON_S)

    trio.run(main)
    hang.set()

    assert ended.wait(FOR_EVER_S)
