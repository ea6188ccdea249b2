"""Stories of runners that die in the middle: what is asked of them goes on, and nobody notices."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from ollamad.config import RunnerConfig, SchedulingConfig
from ollamad.errors import CoolingDown, Draining, LoadFailed, OllamadError, RunnerCrashed
from ollamad.options import SamplingOptions
from ollamad.runners.mailbox import Mailbox
from ollamad.runners.protocol import Delta, Finished
from ollamad.supervisor.healing import SUSPECTS_KEPT_S
from ollamad.supervisor.leases import Lease
from ollamad.units import GIB
from tests.fakes.launcher import KILLED, Script
from tests.scenario.house import GEMMA, LLAMA, House, a_house, answer, error_of_lease, leased

START_S = 2.1
"""From the order to start a runner to its being ready."""
WORD_S = 0.05
POISON = "xyzzy"
DIES_OF_POISON = Script(dies_of=POISON)
WORDS = "one two three four five six seven eight nine ten "


async def whole(mailbox: Mailbox) -> tuple[str, Finished]:
    """Return an answer and its end."""
    text = ""
    while not isinstance(event := await mailbox.take(), Finished):
        text += event.text
    return text, event


async def outcome(lease: Lease, prompt: str) -> str | OllamadError:
    """Return the answer to *prompt*, or what it ends with."""
    try:
        return await answer(lease, prompt)
    except OllamadError as exc:
        return exc


async def ask(house: House, prompt: str, came: list[str | OllamadError]) -> None:
    """Be a client with one request, and note what came of it."""
    try:
        async with leased(house) as lease:
            came.append(await outcome(lease, prompt))
    except OllamadError as exc:
        came.append(exc)


async def test_a_runner_that_dies_in_the_middle_of_an_answer_is_replaced_and_the_answer_goes_on(
    autojump_clock: MockClock,
) -> None:
    async with a_house(Script(dies_after_words=4), Script()) as house, leased(house) as lease:
        started_at = trio.current_time()

        text, finished = await whole(lease.generate(WORDS, SamplingOptions()))

        assert text == WORDS
        assert trio.current_time() - started_at == pytest.approx(10 * WORD_S + START_S, abs=0.1)
        first, second = house.launcher.started
        assert (first.status, len(second.generated[0].answered)) == (KILLED, 4)
        assert first.generated[0].sampling.seed == second.generated[0].sampling.seed >= 0
        assert finished.timings.healed == 1


async def test_an_answers_measures_are_of_the_whole_answer(autojump_clock: MockClock) -> None:
    async with a_house(Script(dies_after_words=4), Script()) as house, leased(house) as lease:
        _, finished = await whole(lease.generate(WORDS, SamplingOptions()))

    timings = finished.timings
    assert (timings.generated_tokens, timings.prompt_tokens) == (10, 10)
    assert timings.prefill_s == pytest.approx(2 * WORD_S)


@given(
    words=st.text(st.sampled_from("ab é🙂漢\n"), min_size=1, max_size=12),
    stop=st.text(st.sampled_from("ab é🙂"), min_size=1, max_size=3),
    token_bytes=st.integers(1, 4),
    cuts=st.lists(st.integers(0, 16), min_size=1, max_size=2),
)
@settings(deadline=None, max_examples=150)
def test_wherever_an_answer_is_cut_no_text_is_lost_or_doubled(
    words: str, stop: str, token_bytes: int, cuts: list[int]
) -> None:
    async def answered_by(scripts: list[Script]) -> tuple[str, Finished]:
        async with a_house(*scripts) as house, leased(house) as lease:
            return await whole(lease.generate(words, SamplingOptions(stop=(stop,))))

    dying = [Script(token_bytes=token_bytes, dies_after_words=cut) for cut in cuts]
    # Nobody is to be blamed here: the first death is the only one before the first word.
    if len(cuts) == 2 and 0 in cuts[1:]:
        dying = dying[:1]
    patient = Script(token_bytes=token_bytes)
    text, finished = trio.run(answered_by, [patient], clock=MockClock(autojump_threshold=0))

    healed_text, healed = trio.run(
        answered_by, [*dying, patient], clock=MockClock(autojump_threshold=0)
    )

    assert healed_text == text
    assert healed.reason is finished.reason
    assert healed.timings.generated_tokens == finished.timings.generated_tokens


async def test_what_is_written_directly_goes_on_as_well(autojump_clock: MockClock) -> None:
    written: list[str] = []

    def forward(delta: Delta) -> bool:
        written.append(delta.text)
        return True

    async with a_house(Script(dies_after_words=4), Script()) as house, leased(house) as lease:
        mailbox = lease.generate(WORDS, SamplingOptions())

        assert isinstance(await mailbox.take(forward), Finished)

    assert "".join(written) == WORDS


async def test_what_a_slow_client_has_not_taken_yet_is_not_generated_again(
    autojump_clock: MockClock,
) -> None:
    async with a_house(Script(dies_after_words=4), Script()) as house, leased(house) as lease:
        mailbox = lease.generate(WORDS, SamplingOptions())
        await trio.sleep(60)

        assert await whole(mailbox) == (WORDS, await mailbox.take())


async def test_an_answer_is_continued_only_so_many_times(autojump_clock: MockClock) -> None:
    async with a_house(Script(dies_after_words=1)) as house, leased(house) as lease:
        with pytest.raises(RunnerCrashed, match="continued 2 times already"):
            await answer(lease, WORDS)
        assert len(house.launcher.started) == 3


async def test_a_lease_that_has_ended_says_why_to_whatever_is_asked_next(
    autojump_clock: MockClock,
) -> None:
    async with a_house(Script(dies_after_words=1)) as house, leased(house) as lease:
        assert isinstance(await outcome(lease, WORDS), RunnerCrashed)
        assert isinstance(await outcome(lease, "again"), RunnerCrashed)
        with pytest.raises(RunnerCrashed):
            await lease.tokenize("again")


async def test_infected_prompt_does_not_crash_loop_the_model(autojump_clock: MockClock) -> None:
    """One client's prompt kills the runner each time; it tries again as soon as it is told so."""
    others: list[str | OllamadError] = []
    infected: list[str | OllamadError] = []

    async def try_again_and_again() -> None:
        for _ in range(5):
            await ask(house, f"say {POISON} please", infected)

    async with a_house(DIES_OF_POISON) as house:
        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(ask, house, f"{number} " + WORDS * 10, others)
            await trio.sleep(START_S + 1)
            nursery.start_soon(try_again_and_again)

        assert others == ["0 " + WORDS * 10, "1 " + WORDS * 10] or others == [
            "1 " + WORDS * 10,
            "0 " + WORDS * 10,
        ]
        assert len(infected) == 5
        for error in infected:
            assert isinstance(error, RunnerCrashed)
            assert error.blames_request
        assert "This request is the likely cause" in str(infected[0])
        assert "not tried again" in str(infected[1])
        assert len(house.launcher.started) == 3  # The first, and one after each of two deaths.
        async with leased(house) as lease:
            assert lease.waited_s == 0
            assert await answer(lease) == "one two three "


async def test_a_client_with_ever_new_infected_prompts_spoils_no_stream_that_began_later(
    autojump_clock: MockClock,
) -> None:
    async with a_house(DIES_OF_POISON) as house:
        for number in range(2):
            came: list[str | OllamadError] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, house, WORDS * 10, came)
                await trio.sleep(START_S + 1)
                await ask(house, f"{number} {POISON}", [])
            assert came == [WORDS * 10]


async def test_a_model_that_dies_of_whatever_it_is_asked_cools_down(
    autojump_clock: MockClock,
) -> None:
    async with a_house(Script(dies_after_words=0)) as house:
        for number in range(3):
            async with leased(house) as lease:
                assert isinstance(await outcome(lease, f"prompt {number}"), RunnerCrashed)

        assert isinstance(await error_of_lease(house, LLAMA), CoolingDown)
        assert len(house.launcher.started) == 6


async def test_a_blamed_input_may_be_tried_again_after_a_while(autojump_clock: MockClock) -> None:
    async with a_house(DIES_OF_POISON, DIES_OF_POISON, Script()) as house:
        async with leased(house) as lease:
            assert isinstance(await outcome(lease, POISON), RunnerCrashed)
        await trio.sleep(SUSPECTS_KEPT_S)

        async with leased(house) as lease:
            assert await answer(lease, POISON) == f"{POISON} "


async def test_after_a_death_requests_come_back_one_after_the_other(
    autojump_clock: MockClock,
) -> None:
    """Each must be served before the next joins: then a second death has one possible cause."""
    came: list[str | OllamadError] = []
    async with a_house(Script(dies_after_words=0), Script()) as house:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(ask, house, f"{number} " + WORDS, came)
        _, second = house.launcher.started

    assert sorted(map(str, came)) == [f"{number} " + WORDS for number in range(3)]
    assert [request.id for request in second.generated] == [1, 2, 3]


async def test_streams_come_back_before_those_who_waited_already(
    autojump_clock: MockClock,
) -> None:
    n_seats = 3  # One slot, and two leases beyond it.
    came: list[str | OllamadError] = []
    one_slot = RunnerConfig(n_slots=1)
    async with a_house(Script(dies_after_words=10), Script(), runner=one_slot) as house:
        async with trio.open_nursery() as nursery:
            for number in range(2 * n_seats):
                nursery.start_soon(ask, house, f"{number} " + WORDS, came)
                await trio.testing.wait_all_tasks_blocked()
        first, second = house.launcher.started

    assert len(came) == 2 * n_seats
    interrupted = [request.prompt for request in first.generated]
    assert len(interrupted) == n_seats
    assert [request.prompt for request in second.generated][:n_seats] == interrupted


@pytest.mark.parametrize("leaves_after_s", [0.3, 0.35, 1.0, START_S, START_S + 0.3])
async def test_a_client_that_leaves_while_its_answer_heals_leaves_nothing_behind(
    leaves_after_s: float, autojump_clock: MockClock
) -> None:
    async with a_house(Script(dies_after_words=4), Script()) as house:
        async with leased(house) as lease:
            with trio.move_on_after(leaves_after_s):
                await answer(lease, WORDS * 100)
        await trio.sleep(310)
        house.assert_nothing_is_left()


async def test_a_question_that_dies_with_its_runner_is_asked_again(
    autojump_clock: MockClock,
) -> None:
    async with a_house(Script(dies_after_words=0), Script()) as house:
        async with leased(house) as lease:
            embedded = await lease.embed(["one two", "three"])
            assert embedded.prompt_tokens == 3
        assert len(house.launcher.started) == 2


async def test_documents_are_ranked_by_another_runner_when_one_dies(
    autojump_clock: MockClock,
) -> None:
    async with a_house(Script(dies_after_words=0), Script()) as house, leased(house) as lease:
        assert (await lease.rank("q", ["one two", "three"])).scores == (2.0, 1.0)


async def test_a_text_that_no_tokenizer_survives_is_refused(autojump_clock: MockClock) -> None:
    async with a_house(DIES_OF_POISON) as house:
        for _ in range(2):
            async with leased(house) as lease:
                with pytest.raises(RunnerCrashed) as caught:
                    await lease.tokenize(POISON)
                assert caught.value.blames_request
        assert len(house.launcher.started) <= 3
        async with leased(house) as lease:
            assert await answer(lease) == "one two three "


async def test_a_lease_whose_runner_died_before_anything_was_asked_gets_another_one(
    autojump_clock: MockClock,
) -> None:
    async with a_house() as house, leased(house) as lease:
        house.launcher.started[0].end(KILLED)
        await trio.sleep(1)

        assert await answer(lease) == "one two three "


async def test_two_requests_of_one_lease_heal_together(autojump_clock: MockClock) -> None:
    async with a_house(Script(dies_after_words=4), Script()) as house, leased(house) as lease:
        boxes = [lease.generate(f"{n} " + WORDS, SamplingOptions()) for n in range(2)]

        assert [(await whole(box))[0] for box in boxes] == [f"{n} " + WORDS for n in range(2)]
        assert len(house.launcher.started) == 2


async def test_a_hung_runner_is_replaced_and_its_streams_go_on(autojump_clock: MockClock) -> None:
    config = RunnerConfig(stall_timeout_s=60)
    async with a_house(Script(hangs_after_words=4), Script(), runner=config) as house:
        async with leased(house) as lease:
            assert await answer(lease, WORDS) == WORDS


async def test_a_model_that_cools_ends_the_stream_with_that_reason(
    autojump_clock: MockClock,
) -> None:
    once = SchedulingConfig(restart_failures_max=1)
    async with a_house(Script(dies_after_words=4), scheduling=once) as house:
        async with leased(house) as lease:
            assert isinstance(await outcome(lease, WORDS), CoolingDown)


async def test_a_model_that_cannot_be_loaded_any_more_ends_the_stream_with_that_reason(
    autojump_clock: MockClock,
) -> None:
    async with a_house(Script(dies_after_words=4), Script(load_fails="file is gone")) as house:
        async with leased(house) as lease:
            error = await outcome(lease, WORDS)

    assert isinstance(error, LoadFailed)
    assert "file is gone" in error.message


async def test_a_daemon_that_drains_starts_no_runner_to_heal_a_stream(
    autojump_clock: MockClock,
) -> None:
    async with a_house(Script(dies_after_words=4)) as house, trio.open_nursery() as nursery:
        async with leased(house) as lease:
            mailbox = lease.generate(WORDS, SamplingOptions())
            nursery.start_soon(house.supervisor.drain)

            with pytest.raises(Draining):
                await whole(mailbox)
        assert len(house.launcher.started) == 1


async def test_what_is_stopped_to_make_room_does_not_take_the_room_back(
    autojump_clock: MockClock,
) -> None:
    scheduling = SchedulingConfig(starvation_s=5, drain_timeout_s=10)
    came: list[str | OllamadError] = []
    async with a_house(memory_bytes=4 * GIB, scheduling=scheduling) as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, house, WORDS * 1000, came)
            await trio.sleep(5)
            async with leased(house, GEMMA) as lease:
                assert await answer(lease) == "one two three "

    (error,) = came
    assert isinstance(error, RunnerCrashed)
    assert "stopped to make room" in error.message


async def test_a_runner_that_talks_nonsense_is_replaced(autojump_clock: MockClock) -> None:
    async with a_house() as house, leased(house) as lease:
        mailbox = lease.generate(WORDS, SamplingOptions())
        await trio.sleep(4.5 * WORD_S)
        await house.launcher.started[0]._theirs.send_all(b"\xff" * 8)

        assert (await whole(mailbox))[0] == WORDS
        assert len(house.launcher.started) == 2


async def test_the_log_says_what_was_healed_and_no_word_of_it(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with a_house(Script(dies_after_words=4), Script()) as house, leased(house) as lease:
        await answer(lease, WORDS)

    (record,) = (record for record in caplog.records if "healed" in record.message)
    fields = record.__dict__["fields"]
    assert fields["tokens"] == 4
    assert fields["seconds"] == pytest.approx(START_S + WORD_S, abs=0.1)
    assert "seven" not in caplog.text
