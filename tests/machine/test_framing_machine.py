"""Frames under any splitting of their bytes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ollamad.errors import ProtocolBroken
from ollamad.runners.framing import FRAME_BYTES_MAX, HEADER_BYTES, FrameDecoder, encode_frame
from tests.machine.splitting import split_at, splits

EXAMPLES = 200
PAYLOADS = st.lists(st.binary(max_size=40), max_size=8)


@settings(max_examples=EXAMPLES, deadline=None)
@given(payloads=PAYLOADS, cuts=splits())
def test_frames_are_the_same_however_their_bytes_arrive(
    payloads: list[bytes], cuts: list[int]
) -> None:
    decoder, received = FrameDecoder(), list[bytes]()

    for piece in split_at(b"".join(map(encode_frame, payloads)), cuts):
        received += decoder.feed(piece)

    assert received == payloads
    assert decoder.is_between_frames


@settings(max_examples=EXAMPLES, deadline=None)
@given(payloads=PAYLOADS.filter(bool), missing=st.integers(min_value=1, max_value=HEADER_BYTES))
def test_a_stream_that_breaks_off_is_known_to_be_incomplete(
    payloads: list[bytes], missing: int
) -> None:
    decoder = FrameDecoder()

    received = decoder.feed(b"".join(map(encode_frame, payloads))[:-missing])

    # Empty frames of four bytes may vanish whole: then the stream ends between two.
    assert decoder.is_between_frames == (missing == HEADER_BYTES and not payloads[-1])
    assert received == payloads[:-1]


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.binary(max_size=200), cuts=splits())
def test_any_bytes_are_frames_or_a_protocol_error_and_memory_stays_bounded(
    data: bytes, cuts: list[int]
) -> None:
    decoder, taken, given_out = FrameDecoder(), 0, 0

    for piece in split_at(data, cuts):
        taken += len(piece)
        try:
            frames = decoder.feed(piece)
        except ProtocolBroken:
            return
        given_out += sum(HEADER_BYTES + len(frame) for frame in frames)
        assert all(len(frame) <= FRAME_BYTES_MAX for frame in frames)
        assert len(decoder._buffer) == taken - given_out
