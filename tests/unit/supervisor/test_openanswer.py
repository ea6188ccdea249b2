from __future__ import annotations

import msgspec
import trio
import trio.testing
from trio.testing import MockClock

from ollamad.errors import RunnerCrashed
from ollamad.runners.client import RunnerClient
from ollamad.runners.protocol import Finished, FinishReason, Timings
from ollamad.supervisor.healing import Part
from ollamad.supervisor.openanswer import OpenAnswer, together
from tests.unit.runners.messages import a_delta, a_request

GONE = RunnerCrashed("gone")


class Owner:
    """Notes what it is told of an answer."""

    def __init__(self) -> None:
        self.lost: list[Part] = []
        self.n_first = 0
        self.answer = OpenAnswer(a_request(0), self.take_loss, self.take_first)

    def take_loss(self, part: Part, _error: RunnerCrashed) -> None:
        self.lost.append(part)

    def take_first(self, _answer: OpenAnswer) -> None:
        self.n_first += 1


def a_client() -> RunnerClient:
    ours, _ = trio.testing.memory_stream_pair()
    return RunnerClient(ours, lambda _message: None)


async def test_a_loss_tells_what_the_runner_had_to_do_with_it() -> None:
    owner, closed = Owner(), a_client()
    closed.fail_all(GONE)
    owner.answer.start(closed)
    for gives in (False, True):
        client = a_client()
        owner.answer.start(client)
        if gives:
            owner.answer.put(a_delta())
        client.fail_all(GONE)

    assert owner.lost == [Part.ABSENT, Part.UNSERVED, Part.SERVED]
    assert owner.answer.is_lost
    assert owner.answer.tokens == [7]


async def test_an_answer_that_is_cancelled_is_lost_no_more() -> None:
    owner, client = Owner(), a_client()
    owner.answer.start(client)
    owner.answer.cancel()
    owner.answer.cancel()
    client.fail_all(GONE)

    assert owner.lost == []


async def test_each_runners_first_word_is_told_once() -> None:
    owner = Owner()
    for _ in range(2):
        client = a_client()
        owner.answer.start(client)
        owner.answer.put(a_delta())
        owner.answer.put(a_delta())
        client.fail_all(GONE)

    assert owner.n_first == 2


async def test_what_dead_runners_cost_is_seen_from_outside(mock_clock: MockClock) -> None:
    owner, client = Owner(), a_client()
    owner.answer.start(client)
    mock_clock.jump(2)
    owner.answer.put(a_delta(tokens=(1, 2)))
    mock_clock.jump(3)
    client.fail_all(GONE)
    mock_clock.jump(100)
    owner.answer.start(a_client())
    owner.answer.put(a_delta(tokens=(3,)))
    last = Timings(prompt_tokens=9, prefill_s=1, decode_s=1, generated_tokens=1, cached_tokens=4)
    owner.answer.close(Finished(id=1, reason=FinishReason.STOP, timings=last))

    assert (await owner.answer.mailbox.take()).tokens == (1, 2, 3)  # type: ignore[union-attr]
    end = await owner.answer.mailbox.take()
    assert isinstance(end, Finished)
    assert end.timings == msgspec.structs.replace(
        last, prefill_s=3, decode_s=4, generated_tokens=3, healed=1
    )


def test_two_runners_that_cost_nothing_cost_nothing_together() -> None:
    assert together(Timings(), Timings()) == Timings()
