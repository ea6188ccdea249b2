from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ollamad.admin.inbox import AHEAD_BYTES_MAX, CALLS_AHEAD_MAX, RECEIVE_BYTES, Inbox
from ollamad.varlink import MESSAGE_BYTES_MAX


@pytest.mark.parametrize("message_bytes", [10, 5000, 300_000, MESSAGE_BYTES_MAX])
async def test_what_is_sent_ahead_is_bounded_in_number_and_size_and_nothing_is_lost(
    message_bytes: int, autojump_clock: MockClock
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    inbox = Inbox(theirs)
    n_sent = 6000 if message_bytes == 10 else 100 if message_bytes == 5000 else 8
    with trio.move_on_after(5):  # Nobody asks for them: the peer's call is being answered.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inbox.hung_up)
            for _ in range(n_sent):
                await ours.send_all(b"x" * message_bytes + b"\0")

    assert inbox.bytes_ahead <= max(AHEAD_BYTES_MAX + RECEIVE_BYTES, MESSAGE_BYTES_MAX)
    assert len(inbox._messages) <= CALLS_AHEAD_MAX + RECEIVE_BYTES / (message_bytes + 1)
    for _ in range(n_sent):
        assert await inbox.receive() == b"x" * message_bytes


async def test_hanging_up_is_noticed_behind_what_was_sent_ahead(
    autojump_clock: MockClock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    inbox = Inbox(theirs)
    await ours.send_all(b"one\0two\0")
    await ours.aclose()

    await inbox.hung_up()
    assert [await inbox.receive() for _ in range(3)] == [b"one", b"two", None]
