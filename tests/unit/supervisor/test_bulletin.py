from __future__ import annotations

import pytest
import trio
import trio.testing

from ollamad.supervisor.bulletin import ENTRIES_KEPT_MAX, Bulletin
from tests.wire.site import NOW, FixedClock


@pytest.fixture
def bulletin() -> Bulletin:
    return Bulletin(FixedClock())


async def test_everybody_who_listens_is_told_in_order(bulletin: Bulletin) -> None:
    with bulletin.subscribed() as one, bulletin.subscribed() as other:
        bulletin.publish("ready", "a is ready", {"model": "a"})
        bulletin.publish("ready", "b is ready")

        for reader in (one, other):
            entry, missed = await reader.take()
            assert (entry.message, entry.fields, entry.at, missed) == (
                "a is ready",
                {"model": "a"},
                NOW,
                0,
            )
            assert (await reader.take())[0].message == "b is ready"


async def test_a_reader_waits_for_what_comes(
    bulletin: Bulletin, autojump_clock: trio.testing.MockClock
) -> None:
    heard: list[str] = []

    async def read() -> None:
        with bulletin.subscribed() as reader:
            while True:
                heard.append((await reader.take())[0].kind)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        for kind in ("queued", "loading", "ready"):
            bulletin.publish(kind, "")
            await trio.testing.wait_all_tasks_blocked()
        assert heard == ["queued", "loading", "ready"]
        nursery.cancel_scope.cancel()


async def test_a_slow_reader_loses_the_oldest_and_is_told_how_many(bulletin: Bulletin) -> None:
    with bulletin.subscribed() as reader:
        for n in range(ENTRIES_KEPT_MAX + 3):
            bulletin.publish("ready", str(n))

        entry, missed = await reader.take()
        assert (entry.message, missed) == ("3", 3)
        entry, missed = await reader.take()
        assert (entry.message, missed) == ("4", 0)


async def test_a_cancelled_reader_loses_nothing(bulletin: Bulletin) -> None:
    with bulletin.subscribed() as reader:
        with trio.CancelScope() as scope:
            scope.cancel()
            await reader.take()
        bulletin.publish("ready", "kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            await reader.take()

        assert (await reader.take())[0].message == "kept"


def test_nothing_is_kept_for_nobody(bulletin: Bulletin) -> None:
    with bulletin.subscribed():
        assert bulletin.n_subscribers == 1

    assert bulletin.n_subscribers == 0
    bulletin.publish("ready", "to nobody")
