from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from ollamad.errors import (
    ContextTooLong,
    GenerationFailed,
    InvalidBody,
    OllamadError,
    ProtocolBroken,
    RunnerCrashed,
    UnsupportedOption,
)
from ollamad.runners.channel import Channel
from ollamad.runners.client import LifeMessage, RunnerClient, error_of
from ollamad.runners.framing import FRAME_BYTES_MAX
from ollamad.runners.mailbox import Mailbox, Piece
from ollamad.runners.protocol import (
    Beat,
    Cancel,
    Deltas,
    EngineGauges,
    Failed,
    FailureCode,
    FinishReason,
    FromRunner,
    Generate,
    Hello,
    Load,
    Loaded,
    LoadFailed,
    LoadPlan,
    LoadProgress,
    Shutdown,
    Tokenize,
    Tokenized,
    ToRunner,
)
from tests.unit.runners.messages import a_delta, a_finish, a_request
from tests.values import some_memory

PLAN = LoadPlan(model_path="/models/llama", n_ctx=64, n_slots=1, n_batch=8)
RunnerEnd = Channel[ToRunner, FromRunner]


class House:
    """A client that runs, and the runner's end of its stream."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        ours, self.stream = memory_stream_pair()
        self.runner: RunnerEnd = Channel(self.stream, ToRunner)
        self.life: list[LifeMessage] = []
        self.client = RunnerClient(ours, self.life.append)
        self.has_ended = False

    async def run(self) -> None:
        await self.client.run()
        self.has_ended = True

    def generate(self, request: Generate) -> Mailbox:
        """Ask for an answer and return where it arrives."""
        mailbox = Mailbox()
        self.client.generate(request, mailbox)
        return mailbox

    async def say(self, *messages: FromRunner) -> None:
        """Let the runner say this, and the client hear it."""
        for message in messages:
            await self.runner.send(message)
        await wait_all_tasks_blocked()


@contextlib.asynccontextmanager
async def a_house() -> AsyncIterator[House]:
    async with trio.open_nursery() as nursery:
        house = House(nursery)
        nursery.start_soon(house.run)
        yield house
        nursery.cancel_scope.cancel()


async def test_a_request_is_answered_in_its_own_mailbox() -> None:
    async with a_house() as house:
        first, second = (house.generate(a_request(n)) for n in (1, 2))
        assert [await house.runner.receive() for _ in "12"] == [a_request(1), a_request(2)]

        await house.say(
            Deltas((a_delta(2, "b"), a_delta(1, "a"))), Deltas((a_delta(1, "a"),)), a_finish(1)
        )

        assert [await first.take(), await first.take()] == [Piece("aa", (7, 7)), a_finish(1)]
        assert await second.take() == Piece("b", (7,))
        assert house.client.n_open == 1


async def test_a_failed_request_leaves_the_others_alone() -> None:
    async with a_house() as house:
        first, second = (house.generate(a_request(n)) for n in (1, 2))

        await house.say(Failed(1, FailureCode.ENGINE, "no luck"), a_finish(2))

        with pytest.raises(GenerationFailed, match="no luck"):
            await first.take()
        assert await second.take() == a_finish(2)


async def test_answers_to_nobody_are_dropped() -> None:
    async with a_house() as house:
        await house.say(
            Deltas((a_delta(99),)),
            a_finish(99),
            Failed(99, FailureCode.ENGINE, ""),
            Tokenized(99, (1,)),
            LoadProgress(0.5),
        )

        assert house.life == [LoadProgress(0.5)]
        assert not house.has_ended


async def test_what_a_runner_says_of_itself_is_handed_on_in_order() -> None:
    said: Iterable[LifeMessage] = (
        Hello(protocol=1, pid=2, build="test"),
        LoadProgress(0.5),
        Loaded(n_ctx=64, n_slots=1, memory=some_memory()),
        LoadFailed(FailureCode.NOT_FOUND, "no file"),
    )
    async with a_house() as house:
        await house.say(*said)

    assert house.life == list(said)


async def test_loading_and_shutting_down_are_told_to_the_runner() -> None:
    async with a_house() as house:
        house.client.load(PLAN)
        house.client.shut_down()

        assert await house.runner.receive() == Load(PLAN)
        assert await house.runner.receive() == Shutdown()


async def test_cancelling_is_told_once_and_only_for_open_requests() -> None:
    async with a_house() as house:
        for request_id in (1, 2):
            house.generate(a_request(request_id))
        await house.say(a_finish(2))
        for request_id in (1, 1, 2, 99):
            house.client.cancel(request_id)
        house.client.shut_down()

        told = [await house.runner.receive() for _ in range(4)]

    assert told == [a_request(1), a_request(2), Cancel(1), Shutdown()]
    assert house.client.n_open == 0


async def test_the_answer_to_a_cancelled_request_is_dropped() -> None:
    async with a_house() as house:
        house.generate(a_request(1))
        house.client.cancel(1)

        await house.say(Deltas((a_delta(1),)), a_finish(1, FinishReason.CANCELLED))

        assert not house.has_ended


async def test_ids_are_never_used_twice() -> None:
    async with a_house() as house:
        assert len({house.client.next_id() for _ in range(100)}) == 100


async def answer_tokenize(house: House, said: FromRunner) -> None:
    """Let the runner answer the next question for tokens."""
    asked = await house.runner.receive()
    assert asked == Tokenize(id=1, text="hello", add_special=False)
    await house.say(said)


async def test_text_is_answers_by_the_runner() -> None:
    async with a_house() as house:
        house.nursery.start_soon(answer_tokenize, house, Tokenized(1, (4, 5)))

        assert await house.client.tokenize("hello", add_special=False) == (4, 5)


async def test_text_that_cannot_be_answers_raises_what_the_runner_says() -> None:
    async with a_house() as house:
        refusal = Failed(1, FailureCode.BAD_REQUEST, "no such text")
        house.nursery.start_soon(answer_tokenize, house, refusal)

        with pytest.raises(UnsupportedOption, match="no such text"):
            await house.client.tokenize("hello", add_special=False)


async def test_whoever_stops_waiting_for_tokens_is_forgotten() -> None:
    async with a_house() as house:
        with trio.move_on_after(0):
            await house.client.tokenize("x", add_special=True)

        await house.say(Tokenized(1, (1,)))

        assert house.client._answers == {}
        assert not house.has_ended


async def test_the_end_of_the_runner_ends_the_conversation_but_decides_no_request() -> None:
    """The exit status is known a little later, and is the better reason."""
    async with a_house() as house:
        mailbox = house.generate(a_request(1))
        await house.runner.aclose()
        await wait_all_tasks_blocked()

        assert house.has_ended
        assert not mailbox.is_closed

        house.client.fail_all(RunnerCrashed("killed by SIGSEGV"))
        with pytest.raises(RunnerCrashed, match="SIGSEGV"):
            await mailbox.take()


async def test_after_the_end_every_later_request_gets_the_first_reason() -> None:
    async with a_house() as house:
        house.client.fail_all(RunnerCrashed("first"))
        house.client.fail_all(RunnerCrashed("second"))

        with pytest.raises(RunnerCrashed, match="first"):
            await house.generate(a_request(1)).take()
        with pytest.raises(RunnerCrashed, match="first"):
            await house.client.tokenize("x", add_special=True)
        assert house.client.n_open == 0


async def test_a_runner_that_talks_nonsense_is_heard_no_more_and_decides_no_request() -> None:
    """It is stopped, and its requests have lost it like any other that ends."""
    async with a_house() as house:
        mailbox = house.generate(a_request(1))
        await house.stream.send_all(b"\xff" * 8)
        await wait_all_tasks_blocked()

        assert house.has_ended
        assert isinstance(house.client.broken, ProtocolBroken)
        assert not mailbox.is_closed


async def test_who_waits_for_tokens_hears_of_the_crash() -> None:
    async def crash() -> None:
        await wait_all_tasks_blocked()
        house.client.fail_all(RunnerCrashed("gone"))

    async with a_house() as house:
        house.nursery.start_soon(crash)

        with pytest.raises(RunnerCrashed, match="gone"):
            await house.client.tokenize("hello", add_special=False)


UNSENDABLE = pytest.mark.parametrize(
    "text", ["\ud800", "x" * (FRAME_BYTES_MAX + 1)], ids=["half-a-surrogate-pair", "too-long"]
)


@UNSENDABLE
async def test_a_prompt_that_no_frame_can_hold_fails_alone(text: str) -> None:
    """It once ended the connection, and with it the daemon."""
    async with a_house() as house:
        bad = house.generate(a_request(1, prompt=text))
        good = house.generate(a_request(2))
        assert await house.runner.receive() == a_request(2)
        await house.say(a_finish(2))

        with pytest.raises(InvalidBody, match="cannot be handed to the model"):
            await bad.take()
        assert await good.take() == a_finish(2)
        house.client.cancel(1)
        house.client.shut_down()
        assert await house.runner.receive() == Shutdown()


@UNSENDABLE
async def test_a_text_that_no_frame_can_hold_is_not_answers(text: str) -> None:
    async with a_house() as house:
        with pytest.raises(InvalidBody, match="cannot be handed to the model"):
            await house.client.tokenize(text, add_special=True)


async def test_a_plan_that_no_frame_can_hold_is_a_failed_load() -> None:
    async with a_house() as house:
        house.client.load(LoadPlan(model_path="/\udcff", n_ctx=64, n_slots=1, n_batch=8))
        await wait_all_tasks_blocked()

        (said,) = house.life
        assert isinstance(said, LoadFailed)
        assert said.code is FailureCode.BAD_REQUEST


def a_beat(steps: int) -> Beat:
    return Beat(EngineGauges(steps=steps, slots_busy=1))


@pytest.mark.parametrize(
    ("said", "is_progress"),
    [
        (a_beat(6), True),
        (a_beat(5), False),
        (Deltas(()), True),
        (a_finish(1), True),
        (Tokenized(9, ()), True),
        (LoadProgress(0.5), False),
    ],
    ids=["step", "no-step", "deltas", "finished", "tokenized", "loading"],
)
async def test_only_what_the_engine_computed_counts_as_its_progress(
    mock_clock: MockClock, said: FromRunner, is_progress: bool
) -> None:
    async with a_house() as house:
        house.generate(a_request(1))
        await house.say(a_beat(5))
        mock_clock.jump(10)

        await house.say(said)

        assert house.client.progress_at == (10 if is_progress else 0)


async def test_an_engine_that_had_nothing_to_do_is_late_from_its_next_request_on(
    mock_clock: MockClock,
) -> None:
    async with a_house() as house:
        mock_clock.jump(100)
        house.generate(a_request(1))
        mock_clock.jump(10)
        house.generate(a_request(2))

        assert house.client.progress_at == 100


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (FailureCode.CONTEXT_TOO_LONG, ContextTooLong),
        (FailureCode.BAD_REQUEST, UnsupportedOption),
        (FailureCode.ENGINE, GenerationFailed),
        (FailureCode.KV_FULL, GenerationFailed),
        (FailureCode.OUT_OF_MEMORY, GenerationFailed),
        (FailureCode.NOT_FOUND, GenerationFailed),
        (FailureCode.NOT_A_MODEL, GenerationFailed),
    ],
)
def test_each_failure_has_its_error(code: FailureCode, kind: type[OllamadError]) -> None:
    error = error_of(Failed(1, code, "why"))

    assert type(error) is kind
    assert error.message == "why"
