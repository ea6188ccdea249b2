"""Varlink messages under any splitting of their bytes."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from ollamad import varlink
from ollamad.errors import ProtocolBroken
from ollamad.varlink import Call, MessageDecoder
from tests.machine.splitting import split_at, splits

EXAMPLES = 200
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
CALLS = st.builds(
    lambda method, parameters, more, oneway: Call(
        method=method, parameters=varlink.raw(parameters), more=more, oneway=oneway
    ),
    st.text(max_size=30),
    st.dictionaries(st.text(max_size=8), JSON, max_size=4),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(calls=st.lists(CALLS, max_size=6), cuts=splits())
def test_calls_are_the_same_however_their_bytes_arrive(calls: list[Call], cuts: list[int]) -> None:
    decoder, received = MessageDecoder(), list[bytes]()

    for piece in split_at(b"".join(map(varlink.encode, calls)), cuts):
        received += decoder.feed(piece)

    assert [varlink.decode_call(message) for message in received] == calls
    assert decoder.is_between_messages


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.binary(max_size=200), cuts=splits())
def test_any_bytes_are_messages_and_a_rest_and_nothing_is_lost(
    data: bytes, cuts: list[int]
) -> None:
    decoder, received = MessageDecoder(), list[bytes]()

    for piece in split_at(data, cuts):
        received += decoder.feed(piece)

    *messages, rest = data.split(b"\0")
    assert received == messages
    assert decoder.is_between_messages == (not rest)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_message_is_a_call_or_a_protocol_error(data: bytes) -> None:
    try:
        call = varlink.decode_call(data)
    except ProtocolBroken:
        return
    assert varlink.decode_call(varlink.encode(call)[:-1]) == call


@settings(max_examples=EXAMPLES, deadline=None)
@given(sizes=st.lists(st.integers(0, 300), max_size=8), piece_bytes=st.integers(1, 64))
def test_the_limit_holds_for_each_message_however_it_arrives(
    sizes: list[int], piece_bytes: int
) -> None:
    """A limit that counted what was read before it would depend on how bytes arrive."""
    data = b"".join(b"x" * size + b"\0" for size in sizes)
    limit, decoder = 128, MessageDecoder(bytes_max=128)
    received: list[int] = []
    try:
        for at in range(0, len(data), piece_bytes):
            received += map(len, decoder.feed(data[at : at + piece_bytes]))
    except ProtocolBroken:
        assert max(sizes) > limit
        assert (
            received
            == list(itertools.takewhile(lambda size: size <= limit, sizes))[: len(received)]
        )
    else:
        assert received == sizes
        assert all(size <= limit for size in sizes)
