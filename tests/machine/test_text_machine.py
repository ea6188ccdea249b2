"""Text under any splitting of its bytes and any stop texts."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ollamad.runners.worker.text import TextAssembler
from tests.machine.splitting import split_at, splits

EXAMPLES = 400
# Few letters, so that stops overlap themselves, each other and the text; some of several bytes.
TEXTS = st.text(alphabet="abé€🦙", max_size=60)
STOPS = st.lists(st.text(alphabet="abé€🦙", min_size=1, max_size=5), max_size=4)
# No text at all: broken and overlong characters, half surrogates, lone continuations.
BYTES = st.lists(
    st.sampled_from([b"a", b"b", "é".encode(), "🦙".encode(), b"\xf0\x9f", b"\xed\xa0", b"\x80"]),
    max_size=40,
).map(b"".join)


def decoded(data: bytes) -> str:
    """Return *data* as text, without a last character that is incomplete."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(data)


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Return where the stop begins that is complete first, trying every end: slow and plain."""
    for end in range(len(text) + 1):
        begins = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if begins:
            return min(begins)
    return None


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.one_of(TEXTS.map(str.encode), BYTES), stops=STOPS, cuts=splits())
@example(data=b"abab", stops=["abab", "ba"], cuts=[1, 2, 3])
@example(data=b"abab", stops=["abab", "ba"], cuts=[])
@example(data=b"aab", stops=["aab", "ab", "b"], cuts=[2])
def test_the_answer_is_what_searching_the_whole_text_gives(
    data: bytes, stops: list[str], cuts: list[int]
) -> None:
    """So no part of the stop that ends the answer is ever sent: what is sent cannot be unsent."""
    whole = decoded(data)
    begin = first_stop(whole, stops)
    assembler, sent = TextAssembler(stops), ""

    for piece in split_at(data, cuts):
        sent += assembler.feed(piece)
    sent += assembler.finish()

    assert assembler.is_stopped == (begin is not None)
    assert sent == whole[:begin]


@settings(max_examples=EXAMPLES, deadline=None)
@given(text=TEXTS, stops=STOPS, cuts=splits())
def test_what_is_held_back_is_exactly_what_could_become_a_stop(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    assembler, sent, fed = TextAssembler(stops), "", b""

    for piece in split_at(text.encode(), cuts):
        sent += assembler.feed(piece)
        fed += piece
        if assembler.is_stopped:
            break
        so_far = decoded(fed)
        held = so_far[len(sent) :]
        beginnings = {stop[:n] for stop in stops for n in range(1, len(stop))}
        longest = max((b for b in beginnings if so_far.endswith(b)), key=len, default="")
        assert so_far == sent + held
        assert held == longest
