from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from ollamad.errors import RunnerCrashed
from ollamad.runners.mailbox import Mailbox, Piece
from ollamad.runners.protocol import Delta, Finished, FinishReason
from tests.unit.runners.messages import a_delta, a_finish, a_logprob


async def test_a_single_delta_is_taken_as_it_came() -> None:
    box = Mailbox()
    box.put(a_delta(text="hi", tokens=(1, 2), logprobs=(a_logprob(1),)))

    assert await box.take() == Piece("hi", (1, 2), (a_logprob(1),))


async def test_deltas_merge_while_their_reader_is_slow() -> None:
    box = Mailbox()
    box.put(a_delta(text="a", tokens=(1,), logprobs=(a_logprob(1),)))
    box.put(a_delta(text="", tokens=(2,), logprobs=(a_logprob(2),)))
    box.put(a_delta(text="bc", tokens=()))

    assert await box.take() == Piece("abc", (1, 2), (a_logprob(1), a_logprob(2)))


async def test_the_outcome_comes_after_everything_else_and_again_and_again() -> None:
    box = Mailbox()
    box.put(a_delta(text="last"))
    box.close(a_finish())

    assert isinstance(await box.take(), Piece)
    assert [await box.take(), await box.take()] == [a_finish(), a_finish()]


async def test_an_error_is_raised_after_the_text_before_it() -> None:
    box = Mailbox()
    box.put(a_delta(text="half"))
    box.close(RunnerCrashed("gone"))

    taken = await box.take()

    assert isinstance(taken, Piece)
    assert taken.text == "half"
    for _ in range(2):
        with pytest.raises(RunnerCrashed, match="gone"):
            await box.take()


async def test_an_error_raised_often_does_not_grow() -> None:
    box, depths = Mailbox(), set()
    box.close(RunnerCrashed("gone"))

    for _ in range(3):
        with pytest.raises(RunnerCrashed) as caught:
            await box.take()
        depths.add(len(caught.traceback))

    assert len(depths) == 1


async def test_the_first_outcome_stands() -> None:
    box = Mailbox()
    assert not box.is_closed
    box.close(a_finish(reason=FinishReason.LENGTH))
    box.close(RunnerCrashed("too late"))

    outcome = await box.take()

    assert box.is_closed
    assert isinstance(outcome, Finished)
    assert outcome.reason is FinishReason.LENGTH


@pytest.mark.parametrize("closes", [False, True])
async def test_whoever_waits_is_woken(closes: bool) -> None:
    box, taken = Mailbox(), list[Piece | Finished]()

    async def take() -> None:
        taken.append(await box.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        assert taken == []
        if closes:
            box.close(a_finish())
        else:
            box.put(a_delta(text="x"))

    assert taken == [a_finish() if closes else Piece("x", (7,))]


async def test_taking_is_always_a_checkpoint_even_when_much_is_there() -> None:
    """A reader that never waited would keep all others from running."""
    box = Mailbox()
    box.put(a_delta())
    with assert_checkpoints():
        await box.take()
    box.close(a_finish())
    with assert_checkpoints():
        await box.take()


async def test_a_cancelled_take_loses_nothing() -> None:
    box = Mailbox()
    box.put(a_delta(text="kept"))

    with trio.CancelScope() as scope:
        scope.cancel()
        await box.take()

    assert await box.take() == Piece("kept", (7,))


# Forwarding


async def test_what_is_forwarded_wakes_nobody_and_is_not_returned() -> None:
    box, forwarded = Mailbox(), list[str]()
    taken: list[Piece | Finished] = []

    def forward(delta: Delta) -> bool:
        forwarded.append(delta.text)
        return True

    async def take() -> None:
        taken.append(await box.take(forward))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        box.put(a_delta(text="a"))
        box.put(a_delta(text="b"))
        await wait_all_tasks_blocked()
        assert taken == []
        box.close(a_finish())

    assert (forwarded, taken) == (["a", "b"], [a_finish()])


async def test_after_a_delta_that_is_not_forwarded_all_are_kept_in_their_order() -> None:
    box, offered = Mailbox(), list[str]()

    def forward(delta: Delta) -> bool:
        offered.append(delta.text)
        return delta.text == "a"

    async def put() -> None:
        await wait_all_tasks_blocked()
        for text in "abca":
            box.put(a_delta(text=text))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        piece = await box.take(forward)

    assert isinstance(piece, Piece)
    assert (offered, piece.text) == (["a", "b"], "bca")


async def test_nothing_is_forwarded_while_nobody_waits() -> None:
    box, offered = Mailbox(), list[Delta]()

    def forward(delta: Delta) -> bool:
        offered.append(delta)
        return True

    with trio.move_on_after(0):
        await box.take(forward)
    box.put(a_delta(text="later"))

    taken = await box.take(forward)
    assert isinstance(taken, Piece)
    assert (taken.text, offered) == ("later", [])


async def test_the_ends_own_text_is_one_more_piece() -> None:
    box = Mailbox()
    box.put(a_delta(text="a"))
    box.close(msgspec.structs.replace(a_finish(), rest="b"))

    taken = await box.take()

    assert isinstance(taken, Piece)
    assert (taken.text, taken.tokens) == ("ab", (7,))
    assert isinstance(await box.take(), Finished)


async def test_a_mailbox_whose_runner_has_ended_ends_with_the_reason() -> None:
    box = Mailbox()
    box.lose(RunnerCrashed("gone"))

    with pytest.raises(RunnerCrashed, match="gone"):
        await box.take()
