"""Responses are read whole, however their bytes are cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.peers.wire import BadResponse, ResponseReader, event_of, request_bytes

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;x=y\r\n world\r\nA\r\n\r\n--------\r\n0\r\n\r\n"
)
SIZED = b"HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\nnothing"


def read(data: bytes, cuts: list[int]) -> tuple[ResponseReader, bytes]:
    reader, body, at = ResponseReader(), b"", 0
    for cut in [*sorted(cuts), len(data)]:
        if cut > at:
            body += reader.feed(data[at:cut])
            at = cut
    return reader, body


@given(st.lists(st.integers(0, len(CHUNKED)), max_size=12))
def test_chunks_are_joined_wherever_they_are_cut(cuts: list[int]) -> None:
    reader, body = read(CHUNKED, cuts)

    assert (reader.status, reader.is_done) == (200, True)
    assert body == b"hello world\r\n--------"


@given(st.lists(st.integers(0, len(SIZED)), max_size=8))
def test_a_body_of_known_length_ends_with_it(cuts: list[int]) -> None:
    reader, body = read(SIZED, cuts)

    assert (reader.status, reader.is_done, body) == (404, True, b"nothing")


def test_an_empty_body_ends_with_the_head() -> None:
    reader, body = read(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", [])

    assert (reader.is_done, body) == (True, b"")


def test_a_body_without_a_length_ends_when_the_server_closes() -> None:
    reader, body = read(b"HTTP/1.1 200 OK\r\n\r\nall of it", [])

    assert not reader.is_done
    reader.closed()
    assert (reader.is_done, body) == (True, b"all of it")


def test_a_response_that_is_cut_off_is_told() -> None:
    reader, _ = read(CHUNKED[:-8], [])

    with pytest.raises(BadResponse, match="in the middle"):
        reader.closed()


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"x" * (1 << 17),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000,
    ],
)
def test_what_is_no_response_is_refused(data: bytes) -> None:
    with pytest.raises(BadResponse):
        ResponseReader().feed(data)


def test_a_request_says_how_long_its_body_is() -> None:
    head, _, body = request_bytes("POST", "/x", {"a": "é"}).partition(b"\r\n\r\n")

    assert head.startswith(b"POST /x HTTP/1.1\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert json.loads(body) == {"a": "é"}
    assert b"Content-" not in request_bytes("GET", "/x")


def test_events_are_read_from_both_kinds_of_lines() -> None:
    assert event_of(b'{"response":"a"}\r') == {"response": "a"}
    assert event_of(b'data: {"content":"a"}') == {"content": "a"}
    assert event_of(b"data: [DONE]") is None
    assert event_of(b": ping") is None
