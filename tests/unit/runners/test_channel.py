from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import (
    MemoryReceiveStream,
    MemorySendStream,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from ollamad.errors import ProtocolBroken
from ollamad.runners.channel import Channel, ChannelClosed
from ollamad.runners.framing import FRAME_BYTES_MAX, encode_frame
from ollamad.runners.protocol import (
    Cancel,
    FromRunner,
    Generate,
    LoadProgress,
    Shutdown,
    Tokenized,
    ToRunner,
)

DaemonEnd = Channel[FromRunner, ToRunner]
RunnerEnd = Channel[ToRunner, FromRunner]
MemoryStream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]
NESTED_DEEPER_THAN_PYTHON_RECURSES = 100_000


def both_ends() -> tuple[DaemonEnd, RunnerEnd]:
    ours, theirs = memory_stream_pair()
    return Channel(ours, FromRunner), Channel(theirs, ToRunner)


def one_end() -> tuple[DaemonEnd, MemoryStream]:
    ours, theirs = memory_stream_pair()
    return Channel(ours, FromRunner), theirs


def packed(**fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


async def test_messages_arrive_typed_and_in_order() -> None:
    daemon, runner = both_ends()

    await daemon.send(Cancel(3))
    await daemon.send(Shutdown())
    await runner.send(Tokenized(4, (1, 2)))

    assert await runner.receive() == Cancel(3)
    assert await runner.receive() == Shutdown()
    assert await daemon.receive() == Tokenized(4, (1, 2))


async def test_several_messages_in_one_read_are_handed_out_one_by_one() -> None:
    daemon, runner = one_end()
    frames = [packed(type="LoadProgress", fraction=part) for part in (0.25, 0.5)]

    await runner.send_all(b"".join(encode_frame(frame) for frame in frames))

    assert await daemon.receive() == LoadProgress(0.25)
    assert await daemon.receive() == LoadProgress(0.5)


async def test_a_field_that_only_a_newer_side_knows_is_ignored() -> None:
    daemon, runner = one_end()

    await runner.send_all(encode_frame(packed(type="LoadProgress", fraction=1.0, colour="blue")))

    assert await daemon.receive() == LoadProgress(1.0)


async def test_the_other_sides_end_between_frames_is_an_ordinary_close() -> None:
    daemon, runner = both_ends()
    await runner.aclose()

    for _ in range(2):
        with pytest.raises(ChannelClosed, match="closed"):
            await daemon.receive()


async def test_what_was_sent_before_the_close_is_still_received() -> None:
    daemon, runner = both_ends()
    await runner.send(LoadProgress(0.5))
    await runner.aclose()

    assert await daemon.receive() == LoadProgress(0.5)
    with pytest.raises(ChannelClosed):
        await daemon.receive()


async def test_an_end_in_the_middle_of_a_frame_breaks_the_protocol() -> None:
    daemon, runner = one_end()
    await runner.send_all(encode_frame(b"abcdef")[:-1])
    await runner.aclose()

    with pytest.raises(ProtocolBroken, match="middle of a frame"):
        await daemon.receive()
    with pytest.raises(ChannelClosed, match="middle of a frame"):
        await daemon.receive()


_FAILED = b"\x84" + b"".join(
    msgspec.msgpack.encode(item) for item in ("type", "Failed", "id", 1, "code", "engine", "detail")
)
_PROGRESS = b"\x83" + b"".join(
    msgspec.msgpack.encode(item) for item in ("type", "LoadProgress", "fraction", 1.0, "newer")
)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        packed(type="Gossip"),
        packed(type="Tokenized", id="one", tokens=[]),
        packed(type="Finished", id=1),
        _FAILED + b"\xa2\xff\xfe",
        _PROGRESS + b"\x91" * NESTED_DEEPER_THAN_PYTHON_RECURSES + b"\x00",
    ],
    ids=["empty", "no-opcode", "unknown", "mistyped", "incomplete", "no-utf8", "deep"],
)
async def test_nonsense_kills_the_channel_with_all_that_follows_it(payload: bytes) -> None:
    daemon, runner = one_end()
    good = packed(type="LoadProgress", fraction=1.0)

    await runner.send_all(encode_frame(payload) + encode_frame(good))

    with pytest.raises(ProtocolBroken, match="not a message of this protocol"):
        await daemon.receive()
    with pytest.raises(ChannelClosed):
        await daemon.receive()
    with pytest.raises(ChannelClosed):
        await daemon.send(Shutdown())


async def test_an_absurd_length_kills_the_channel() -> None:
    daemon, runner = one_end()
    await runner.send_all(b"\xff\xff\xff\xff")

    with pytest.raises(ProtocolBroken, match="announced"):
        await daemon.receive()
    with pytest.raises(ChannelClosed):
        await daemon.receive()


@pytest.mark.parametrize(
    "message",
    [
        Generate(id=1, prompt="\ud800"),
        Generate(id=1, prompt="", context=(2**70,)),
        Generate(id=1, prompt="x" * (FRAME_BYTES_MAX + 1)),
    ],
    ids=["half-a-surrogate-pair", "too-large-an-integer", "too-long"],
)
async def test_a_message_without_a_frame_is_refused_and_the_channel_lives_on(
    message: Generate,
) -> None:
    daemon, runner = both_ends()

    with pytest.raises(ProtocolBroken):
        await daemon.send(message)
    await daemon.send(Cancel(1))

    assert await runner.receive() == Cancel(1)


async def test_sending_to_a_side_that_is_gone_says_so() -> None:
    daemon, runner = both_ends()
    await runner.aclose()

    with pytest.raises(ChannelClosed, match="gone"):
        await daemon.send(Shutdown())


async def test_a_channel_closed_here_sends_and_receives_no_more() -> None:
    daemon, _runner = both_ends()
    await daemon.aclose()

    with pytest.raises(ChannelClosed, match="closed here"):
        await daemon.send(Shutdown())
    with pytest.raises(ChannelClosed, match="closed here"):
        await daemon.receive()


async def test_closing_wakes_the_one_who_receives() -> None:
    daemon, _runner = both_ends()

    async def receive() -> None:
        with pytest.raises(ChannelClosed):
            await daemon.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await daemon.aclose()


async def test_cancellation_inside_a_frame_kills_the_channel() -> None:
    ours, _theirs = lockstep_stream_pair()
    daemon: DaemonEnd = Channel(ours, FromRunner)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(daemon.send, Shutdown())
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    with pytest.raises(ChannelClosed, match="half-sent"):
        await daemon.send(Shutdown())


async def test_cancellation_before_a_frame_leaves_the_channel_alive() -> None:
    ours, theirs = lockstep_stream_pair()
    daemon: DaemonEnd = Channel(ours, FromRunner)
    runner: RunnerEnd = Channel(theirs, ToRunner)
    queued = trio.CancelScope()

    async def send_queued() -> None:
        with queued:
            await daemon.send(Cancel(2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(daemon.send, Cancel(1))
        await wait_all_tasks_blocked()
        nursery.start_soon(send_queued)
        await wait_all_tasks_blocked()
        queued.cancel()
        await wait_all_tasks_blocked()
        assert await runner.receive() == Cancel(1)
        nursery.start_soon(daemon.send, Cancel(3))
        assert await runner.receive() == Cancel(3)


async def test_frames_of_several_senders_do_not_mix() -> None:
    ours, theirs = lockstep_stream_pair()
    daemon: DaemonEnd = Channel(ours, FromRunner)
    runner: RunnerEnd = Channel(theirs, ToRunner)
    ids = range(1, 9)

    async with trio.open_nursery() as nursery:
        for request_id in ids:
            nursery.start_soon(daemon.send, Generate(id=request_id, prompt="x" * 1000))
        received = [await runner.receive() for _ in ids]

    assert sorted(m.id for m in received if isinstance(m, Generate)) == list(ids)
