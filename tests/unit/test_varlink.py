from __future__ import annotations

import msgspec
import pytest

from ollamad import varlink
from ollamad.errors import ProtocolBroken
from ollamad.varlink import MESSAGE_BYTES_MAX, Call, MessageDecoder, Reply


def test_a_call_and_its_reply_survive_the_wire() -> None:
    call = Call(method="io.ollamad.Admin.Evict", parameters=varlink.raw({"model": "m"}), more=True)
    reply = Reply(parameters=varlink.raw({"n": 1}), continues=True, error="x.Y")

    (sent_call, sent_reply) = MessageDecoder().feed(varlink.encode(call) + varlink.encode(reply))

    assert varlink.decode_call(sent_call) == call
    assert varlink.decode_reply(sent_reply) == reply


def test_what_says_nothing_is_not_sent() -> None:
    assert varlink.encode(Call(method="a.b.C")) == b'{"method":"a.b.C"}\0'
    assert varlink.encode(Reply()) == b"{}\0"


@pytest.mark.parametrize(
    "message",
    [b"", b"nonsense", b"[]", b"{}", b'{"method":1}', b"\xff\xfe", b"[" * 5000, b'{"method":"a"'],
)
def test_nonsense_is_no_call(message: bytes) -> None:
    with pytest.raises(ProtocolBroken, match="not a Varlink message"):
        varlink.decode_call(message)


def test_flags_that_are_null_are_not_set() -> None:
    call = varlink.decode_call(b'{"method":"a.b.C","oneway":null,"more":null,"parameters":null}')

    assert not call.oneway
    assert not call.more
    assert bytes(call.parameters) == b"null"


def test_a_message_may_be_as_long_as_the_limit_and_no_longer() -> None:
    decoder = MessageDecoder()

    assert len(decoder.feed(b"x" * MESSAGE_BYTES_MAX + b"\0")[0]) == MESSAGE_BYTES_MAX
    with pytest.raises(ProtocolBroken, match="more than 1048576 bytes"):
        decoder.feed(b"x" * (MESSAGE_BYTES_MAX + 1) + b"\0")


def test_a_message_without_an_end_is_given_up_at_the_limit() -> None:
    decoder = MessageDecoder()
    decoder.feed(b"x" * MESSAGE_BYTES_MAX)

    with pytest.raises(ProtocolBroken):
        decoder.feed(b"x")


def test_what_is_too_long_is_not_sent_either() -> None:
    with pytest.raises(ProtocolBroken, match="at most 1048576 are sent"):
        varlink.encode(Reply(parameters=msgspec.Raw(b'"' + b"x" * MESSAGE_BYTES_MAX + b'"')))
