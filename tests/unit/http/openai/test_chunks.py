"""Events of streams, what answers cost, and log-probabilities in two forms."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ollamad.errors import QueueFull
from ollamad.http.openai.chunks import chunk, failure, text_chunks
from ollamad.http.openai.logprobs import CompletionSteps, token_logprobs
from ollamad.http.openai.tally import Tally, usage_of
from ollamad.http.openai.wire import ChatChunk, ChatChunkChoice, ChatDelta
from ollamad.http.sse import TextEvents
from ollamad.runners.protocol import (
    Finished,
    FinishReason,
    StepLogprob,
    Timings,
    TokenLogprob,
)


def a_chunk(text: str) -> ChatChunk:
    choice = ChatChunkChoice(index=1, delta=ChatDelta(content=text), finish_reason=None)
    return ChatChunk(id="chatcmpl-1", created=5, model='a"b\\', choices=[choice])


def an_end(prompt: int, generated: int, cached: int = 0) -> Finished:
    timings = Timings(prompt_tokens=prompt, generated_tokens=generated, cached_tokens=cached)
    return Finished(id=1, reason=FinishReason.STOP, timings=timings)


@given(st.text())
def test_a_pattern_makes_what_encoding_would_make(text: str) -> None:
    pattern = text_chunks(a_chunk(TextEvents.TEXT))

    assert pattern.event(text) == chunk(a_chunk(text))
    assert json.loads(pattern.event(text)[6:])["choices"][0]["delta"] == {"content": text}


def test_an_event_is_one_line_and_an_empty_one() -> None:
    event = chunk(a_chunk("a\nb\r\n"))

    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2


def test_a_failure_has_the_type_and_the_code_of_its_error() -> None:
    error = json.loads(failure(QueueFull("busy"))[6:])["error"]

    assert error == {
        "message": "busy",
        "type": "api_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }


# What answers cost


def test_several_answers_to_one_prompt_have_read_it_once() -> None:
    tallies = [Tally(prompt=0), Tally(prompt=0), Tally(prompt=1)]
    for tally, end in zip(
        tallies, (an_end(10, 3), an_end(10, 4, cached=9), an_end(7, 5, cached=2)), strict=True
    ):
        tally.end(end)

    usage = usage_of(tallies)

    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (17, 12, 29)
    assert usage.prompt_tokens_details.cached_tokens == 2


def test_thinking_costs_no_more_than_was_generated() -> None:
    tally = Tally()
    tally.end(an_end(1, 4), thinking_tokens=9)

    assert usage_of([tally]).completion_tokens_details.reasoning_tokens == 4


def test_an_answer_with_calls_ends_for_them_unless_it_was_cut() -> None:
    cut = Finished(id=1, reason=FinishReason.LENGTH, timings=Timings())

    assert Tally(n_calls=1).end(an_end(1, 1)) == "tool_calls"
    assert Tally(n_calls=1).end(cut) == "length"
    assert Tally().end(an_end(1, 1)) == "stop"


# Log-probabilities


def a_step(piece: bytes, logprob: float, *top: tuple[bytes, float]) -> StepLogprob:
    return StepLogprob(
        TokenLogprob(1, piece, logprob), tuple(TokenLogprob(2, p, value) for p, value in top)
    )


def test_a_chat_s_tokens_have_their_bytes() -> None:
    (entry,) = token_logprobs([a_step("é".encode()[:1], -0.5, (b"a", -0.1))])

    assert (entry.token, entry.bytes) == ("\ufffd", [0xC3])
    assert [(top.token, top.bytes) for top in entry.top_logprobs] == [("a", [97])]


def test_a_completion_s_tokens_are_placed_in_its_text_through_all_pieces() -> None:
    steps = CompletionSteps(has_top=True)
    first = steps.take([a_step(b"ab", -1.0, (b"ab", -1.0), (b"c", -2.0)), a_step(b"c", -0.5)])
    second = steps.take([a_step(b"d", -0.25)])

    assert first is not None
    assert second is not None
    assert (first.tokens, first.token_logprobs) == (["ab", "c"], [-1.0, -0.5])
    assert first.top_logprobs == [{"ab": -1.0, "c": -2.0}, {}]
    assert (first.text_offset, second.text_offset) == ([0, 2], [3])
    assert steps.take([]) is None


def test_of_two_tokens_with_one_text_the_likelier_one_is_told() -> None:
    told = CompletionSteps(has_top=True).take([a_step(b"a", -1.0, (b"a", -0.1), (b"a", -3.0))])

    assert told is not None
    assert told.top_logprobs == [{"a": -0.1}]
