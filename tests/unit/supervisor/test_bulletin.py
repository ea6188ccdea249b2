from __future__ import annotations

import pytest
import trio
import trio.testing

from ollamad.supervisor.bulletin import ENTRIES_KEPT_MAX, Bulletin
from ollamad.supervisor.commands import Note, NoteKind
from tests.wire.site import NOW, FixedClock


def a_note(message: str) -> Note:
    return Note(NoteKind.READY, message)


@pytest.fixture
def bulletin() -> Bulletin:
    return Bulletin(FixedClock())


async def test_everybody_who_listens_is_told_in_order(bulletin: Bulletin) -> None:
    with bulletin.subscribed() as one, bulletin.subscribed() as other:
        bulletin.publish(Note(NoteKind.READY, "a is ready", {"model": "a"}))
        bulletin.publish(a_note("b is ready"))

        for reader in (one, other):
            entry, missed = await reader.take()
            assert (entry.note.message, entry.note.fields, entry.at, missed) == (
                "a is ready",
                {"model": "a"},
                NOW,
                0,
            )
            assert (await reader.take())[0].note.message == "b is ready"


async def test_a_reader_waits_for_what_comes(
    bulletin: Bulletin, autojump_clock: trio.testing.MockClock
) -> None:
    heard: list[str] = []

    async def read() -> None:
        with bulletin.subscribed() as reader:
            while True:
                heard.append((await reader.take())[0].note.message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        for message in ("one", "two", "three"):
            bulletin.publish(a_note(message))
            await trio.testing.wait_all_tasks_blocked()
        assert heard == ["one", "two", "three"]
        nursery.cancel_scope.cancel()


async def test_a_slow_reader_loses_the_oldest_and_is_told_how_many(bulletin: Bulletin) -> None:
    with bulletin.subscribed() as reader:
        for n in range(ENTRIES_KEPT_MAX + 3):
            bulletin.publish(a_note(str(n)))

        entry, missed = await reader.take()
        assert (entry.note.message, missed) == ("3", 3)
        entry, missed = await reader.take()
        assert (entry.note.message, missed) == ("4", 0)


async def test_a_cancelled_reader_loses_nothing(bulletin: Bulletin) -> None:
    with bulletin.subscribed() as reader:
        with trio.CancelScope() as scope:
            scope.cancel()
            await reader.take()
        bulletin.publish(a_note("kept"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await reader.take()

        assert (await reader.take())[0].note.message == "kept"


def test_nothing_is_kept_for_nobody(bulletin: Bulletin) -> None:
    with bulletin.subscribed():
        assert bulletin.n_subscribers == 1

    assert bulletin.n_subscribers == 0
    bulletin.publish(a_note("to nobody"))
