from __future__ import annotations

import pytest

from ollamad.runners.worker.text import TextAssembler


def fed(pieces: list[bytes], stops: list[str]) -> tuple[list[str], str, bool]:
    assembler = TextAssembler(stops)
    sent = [assembler.feed(piece) for piece in pieces]
    return sent, assembler.finish(), assembler.is_stopped


@pytest.mark.parametrize(
    ("pieces", "stops", "sent", "rest", "is_stopped"),
    [
        ([b"one ", b"two"], [], ["one ", "two"], "", False),
        ([b"one", b" END two"], [" END"], ["one", ""], "", True),
        ([b"one EN", b"D two"], [" END"], ["one", ""], "", True),
        ([b"one EN", b"ough"], [" END"], ["one", " ENough"], "", False),
        ([b"one EN"], [" END"], ["one"], " EN", False),
        ([b"END"], ["END"], [""], "", True),
        ([b"aab"], ["ab"], ["a"], "", True),
        ([b"aa", b"b"], ["ab"], ["a", ""], "", True),
        ([b"xyz"], ["z", "yz"], ["x"], "", True),
        ([b"xyz"], ["xyzz", "y"], ["x"], "", True),
        ([b"\xe2\x82", b"\xac"], [], ["", "€"], "", False),
        ([b"\xe2\x82", b"\xac!"], ["€"], ["", ""], "", True),
        ([b"a\xffb"], [], ["a\ufffdb"], "", False),
        ([b"a\xe2\x82"], [], ["a"], "", False),
        ([b"END", b" more", b" END"], ["END"], ["", "", ""], "", True),
    ],
    ids=[
        "no-stops", "whole-stop", "split-stop", "no-stop-after-all", "held-at-the-end",
        "only-a-stop", "false-start", "false-start-split", "same-end-longest", "first-complete",
        "split-character", "split-character-stop", "no-utf8", "incomplete-character",
        "nothing-after-a-stop",
    ],
)  # fmt: skip
def test_text_is_sent_as_soon_as_it_is_certain(
    pieces: list[bytes], stops: list[str], sent: list[str], rest: str, is_stopped: bool
) -> None:
    assert fed(pieces, stops) == (sent, rest, is_stopped)


def test_what_was_held_back_is_given_out_once() -> None:
    assembler = TextAssembler(["END"])
    assembler.feed(b"E")

    assert [assembler.finish(), assembler.finish()] == ["E", ""]
