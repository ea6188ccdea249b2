"""Several answers in one stream: merged while the client is slow, ended together."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from ollamad.errors import RunnerCrashed
from ollamad.http.openai.choices import SideBySide
from ollamad.runners.mailbox import Mailbox, Piece
from ollamad.runners.protocol import Delta, Finished, FinishReason, Timings

END = Finished(id=1, reason=FinishReason.STOP, timings=Timings())


class AChoice:
    """An answer whose events are its texts behind its name."""

    def __init__(self, name: str) -> None:
        self.mailbox = Mailbox()
        self._name = name
        self._offset = 0

    def say(self, text: str) -> None:
        self.mailbox.put(Delta(1, self._offset, text, (self._offset,)))
        self._offset += 1

    def piece(self, piece: Piece | Delta) -> bytes:
        return f"{self._name}:{piece.text}".encode() if piece.text else b""

    def finish(self, finished: Finished) -> bytes:
        return f"{self._name}.".encode()


@pytest.fixture
def pair() -> tuple[AChoice, AChoice]:
    return AChoice("a"), AChoice("b")


def side_by_side(*choices: AChoice) -> SideBySide:
    return SideBySide(choices, Piece("first", (0,)), lambda: b"!")


async def test_what_comes_while_the_client_is_slow_is_merged(
    pair: tuple[AChoice, AChoice],
) -> None:
    one, other = pair
    told = []
    async with side_by_side(one, other) as body:
        other.say("x")
        await trio.testing.wait_all_tasks_blocked()
        for text in ("1", "2", "3"):
            one.say(text)
            other.say(text)
        one.mailbox.close(END)
        other.mailbox.close(END)
        async for line in body:
            told.append(line)
            await trio.testing.wait_all_tasks_blocked()

    assert {b"a:first", b"b:x", b"a:123", b"b:123"} < set(told)
    assert len(told) == 6
    assert told[-1].endswith(b".!")


async def test_a_piece_without_text_is_no_event(pair: tuple[AChoice, AChoice]) -> None:
    one, other = pair
    other.say("")
    one.mailbox.close(END)
    other.mailbox.close(END)
    async with side_by_side(one, other) as body:
        told = [line async for line in body]

    assert {b"a:first", b"a.", b"b."} >= set(told[:-1])
    assert len(told) == 3


async def test_the_first_that_fails_ends_all(pair: tuple[AChoice, AChoice]) -> None:
    one, other = pair
    other.mailbox.close(RunnerCrashed("gone"))
    async with side_by_side(one, other) as body:
        told = [line async for line in body]

    assert b'"message":"gone"' in told[-1]
    assert not any(line.endswith(b"!") for line in told)


async def test_a_body_that_is_left_leaves_no_task(pair: tuple[AChoice, AChoice]) -> None:
    async with side_by_side(*pair) as body:
        assert await anext(aiter(body)) == b"a:first"
        before = trio.lowlevel.current_statistics().tasks_living

    assert trio.lowlevel.current_statistics().tasks_living == before - 2
