from __future__ import annotations

import pytest

from ollamad.errors import ProtocolBroken
from ollamad.runners.framing import FRAME_BYTES_MAX, HEADER_BYTES, FrameDecoder, encode_frame


@pytest.mark.parametrize("payload", [b"", b"x", b"\x00" * 300], ids=["empty", "one", "long"])
def test_a_frame_comes_back_whole(payload: bytes) -> None:
    decoder = FrameDecoder()

    assert decoder.feed(encode_frame(payload)) == [payload]
    assert decoder.is_between_frames


def test_a_frame_is_its_big_endian_length_and_its_bytes() -> None:
    assert encode_frame(b"abc") == b"\x00\x00\x00\x03abc"


def test_several_frames_in_one_piece_come_in_their_order() -> None:
    assert FrameDecoder().feed(encode_frame(b"a") + encode_frame(b"b")) == [b"a", b"b"]


@pytest.mark.parametrize("cut", range(1, HEADER_BYTES + 3))
def test_part_of_a_frame_is_kept_until_its_rest_comes(cut: int) -> None:
    decoder, frame = FrameDecoder(), encode_frame(b"abc")

    assert decoder.feed(frame[:cut]) == []
    assert not decoder.is_between_frames
    assert decoder.feed(frame[cut:]) == [b"abc"]


@pytest.mark.parametrize("data", [b"\x00\x00\x00\x00", bytearray(4), memoryview(bytes(4))])
def test_any_kind_of_bytes_is_taken(data: bytes | bytearray | memoryview) -> None:
    assert FrameDecoder().feed(data) == [b""]


def test_an_absurd_length_is_refused_before_anything_is_allocated_for_it() -> None:
    announced = (FRAME_BYTES_MAX + 1).to_bytes(HEADER_BYTES, "big")

    with pytest.raises(ProtocolBroken, match=str(FRAME_BYTES_MAX + 1)):
        FrameDecoder().feed(announced)


def test_the_longest_frame_is_legal() -> None:
    decoder = FrameDecoder()

    assert decoder.feed(FRAME_BYTES_MAX.to_bytes(HEADER_BYTES, "big")) == []
    assert not decoder.is_between_frames


def test_what_no_frame_can_hold_is_not_sent() -> None:
    with pytest.raises(ProtocolBroken, match=f"at most {FRAME_BYTES_MAX}"):
        encode_frame(bytes(FRAME_BYTES_MAX + 1))
