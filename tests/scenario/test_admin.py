"""The admin door on the real supervisor: what it shows and does, in virtual time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import trio
import trio.testing
from trio.testing import MockClock

from ollamad.admin.methods import Methods
from ollamad.supervisor.service import Supervisor
from tests.fakes.launcher import Script
from tests.fakes.steering import FakeModels
from tests.scenario.house import GEMMA, LLAMA, QWEN, House, a_house, answer, leased
from tests.wire.adminsite import Desk, Line, a_line

EVENTS = {"method": "io.ollamad.Admin.Events", "more": True}


@contextlib.asynccontextmanager
async def an_administered_house(*scripts: Script) -> AsyncIterator[tuple[House, Line, Line]]:
    """Run a supervisor with an admin door; yield a line for calls, and one for events."""
    desk = Desk()
    async with a_house(*scripts, publish=desk.bulletin.publish) as house:
        steered_by = house.supervisor
        assert isinstance(steered_by, Supervisor)
        desk.methods = Methods(steered_by, FakeModels(LLAMA, QWEN, GEMMA), desk.around, 1)
        async with a_line(desk) as line, a_line(desk) as watching:
            await watching.send(EVENTS)
            await watching.receive()
            yield house, line, watching


async def parameters_of(line: Line, method: str, **parameters: Any) -> Any:
    reply = await line.ask(method, **parameters)
    assert reply is not None
    assert "error" not in reply, reply
    return reply["parameters"]


async def next_kinds(watching: Line, last: str) -> list[str]:
    """Return the kinds of the events up to the first *last*, which must come."""
    kinds: list[str] = []
    with trio.fail_after(3600):
        while not kinds or kinds[-1] != last:
            reply = await watching.receive()
            assert reply is not None
            kinds.append(reply["parameters"]["event"]["kind"])
    return kinds


async def test_a_preloaded_model_is_there_is_pinned_and_leaves_when_it_is_told_to(
    autojump_clock: MockClock,
) -> None:
    async with an_administered_house() as (house, line, watching):
        await parameters_of(line, "Preload", model="llama:8b")
        (runner,) = (await parameters_of(line, "Runners"))["runners"]
        assert (runner["model"], runner["state"], runner["progress"]) == ("llama:8b", "ready", 1.0)
        assert (runner["is_pinned"], runner["expires_in_s"]) == (False, 300.0)
        assert await next_kinds(watching, "ready") == ["loading", "queued", "ready"]

        await parameters_of(line, "Pin", model="llama:8b")
        await next_kinds(watching, "pinned")
        await trio.sleep(500)  # Its keep-alive is 300 s.
        (runner,) = (await parameters_of(line, "Runners"))["runners"]
        assert (runner["is_pinned"], runner["expires_in_s"]) == (True, None)

        await parameters_of(line, "Evict", model="llama:8b")
        assert await next_kinds(watching, "unloaded") == ["evicting", "unloaded"]
        assert (await parameters_of(line, "Runners"))["runners"] == []
        assert house.launcher.alive == []


async def test_who_waits_is_shown_with_place_and_reason(autojump_clock: MockClock) -> None:
    async with an_administered_house(Script(load_takes_s=100)) as (house, line, _):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                async with leased(house, QWEN):
                    pass

            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await trio.sleep(10)
            queue = await parameters_of(line, "Queue")
            assert queue["total"] == 2
            assert [each["place"] for each in queue["waiting"]] == [1, 2]
            assert queue["waiting"][0]["waited_s"] == 10.0
            assert queue["waiting"][0]["waits_for"]
            status = await parameters_of(line, "Status")
            assert (status["waiting"], status["runners"], status["state"]) == (2, 1, "serving")


async def test_explain_changes_nothing(autojump_clock: MockClock) -> None:
    async with an_administered_house() as (house, line, _):
        explained = await parameters_of(line, "Explain", model="llama:8b")

        assert explained["verdict"] == "start"
        assert explained["lines"]
        demand = sum(part["bytes"] for part in explained["demand"])
        assert demand > 0
        assert [room["device"] for room in explained["room"]] == ["host"]
        assert house.launcher.started == []
        assert explained["room"][0]["needed_bytes"] == demand


async def test_a_drained_daemon_refuses_until_it_is_resumed(autojump_clock: MockClock) -> None:
    async with an_administered_house() as (_, line, watching):
        await parameters_of(line, "Preload", model="llama:8b")
        await parameters_of(line, "Drain")
        await next_kinds(watching, "unloaded")
        assert (await parameters_of(line, "Status"))["state"] == "paused"
        reply = await line.ask("Preload", model="llama:8b")
        assert reply is not None
        assert reply["error"] == "io.ollamad.Admin.CannotServeNow"

        await parameters_of(line, "Resume")
        await parameters_of(line, "Preload", model="llama:8b")


async def test_a_crash_is_told_and_its_failures_can_be_forgotten(
    autojump_clock: MockClock,
) -> None:
    async with an_administered_house(Script(load_fails="no such tensor")) as (_, line, watching):
        for _attempt in range(3):
            reply = await line.ask("Preload", model="llama:8b")
            assert reply is not None
            assert reply["error"] == "io.ollamad.Admin.CannotServe"
        await next_kinds(watching, "cooling")
        (cooling,) = (await parameters_of(line, "Status"))["cooling"]
        assert cooling["model"] == "llama:8b"
        assert "no such tensor" in cooling["reason"]
        assert 0 < cooling["retry_after_s"] <= 30

        assert (await parameters_of(line, "Reset", model="llama:8b"))["was_cooling"] is True
        await next_kinds(watching, "reset")
        assert (await parameters_of(line, "Status"))["cooling"] == []


async def test_a_restarted_model_gets_another_runner(autojump_clock: MockClock) -> None:
    async with an_administered_house() as (house, line, watching):
        async with leased(house, LLAMA) as lease:
            await parameters_of(line, "Restart", model="llama:8b")
            assert await answer(lease, "still here") == "still here "
        await next_kinds(watching, "unloaded")
        await next_kinds(watching, "ready")
        (runner,) = (await parameters_of(line, "Runners"))["runners"]
        assert runner["runner"] == 2
