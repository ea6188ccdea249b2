"""What generate and chat share: requests are checked in Ollama's words, answers are measured."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from ollamad.errors import CapabilityMissing, InvalidBody, UnsupportedOption
from ollamad.http.ollama import answers
from ollamad.http.ollama.answers import TOP_LOGPROBS_MAX, asked_of, check_early, read_think
from ollamad.http.ollama.wire import (
    AnswerMessage,
    ChatRequest,
    ChatResponse,
    GenerateRequest,
    GenerateResponse,
    encode,
)
from ollamad.runners.protocol import (
    FinishReason,
    Grammar,
    GrammarKind,
    StepLogprob,
    Timings,
    TokenLogprob,
)
from tests.unit.http.models import a_model

THINKER = a_model(capabilities=("completion", "thinking"))
PLAIN = a_model()


# Thinking


@pytest.mark.parametrize("value", [None, True, False, "low", "medium", "high", "max"])
def test_a_think_value_is_read_as_it_is(value: Any) -> None:
    assert read_think(value) is value


@pytest.mark.parametrize("value", ["", "x", "High", "true"])
def test_another_word_for_thinking_is_refused_in_ollama_s_words(value: str) -> None:
    message = (
        f'invalid think value: "{value}" (must be "high", "medium", "low", "max", true, or false)'
    )

    with pytest.raises(InvalidBody, match=f"^{re.escape(message)}$"):
        read_think(value)


@pytest.mark.parametrize("value", [0, 1, 1.0, [], {}, ["high"]])
def test_another_type_for_thinking_is_refused_in_ollama_s_words(value: Any) -> None:
    with pytest.raises(InvalidBody, match=r"^think must be a boolean or string \(\"high\""):
        read_think(value)


def test_a_long_word_is_shown_in_short() -> None:
    with pytest.raises(InvalidBody) as caught:
        read_think("x" * 10_000)

    assert len(caught.value.message) < 300


def test_a_model_that_can_think_does_unless_told_not_to() -> None:
    asked = {think: asked_of(ChatRequest(think=think), THINKER, "chat").think for think in
             (None, False, "low")}  # fmt: skip

    assert asked == {None: True, False: False, "low": "low"}


@pytest.mark.parametrize("think", [True, "high"])
def test_a_model_that_cannot_think_refuses_to(think: Any) -> None:
    body = GenerateRequest(model="tiny", think=think)

    with pytest.raises(CapabilityMissing, match=r'^"tiny" does not support thinking$'):
        asked_of(body, PLAIN, "generate")


def test_not_thinking_is_asked_of_any_model() -> None:
    assert asked_of(ChatRequest(think=False), PLAIN, "chat").think is False
    assert asked_of(ChatRequest(), PLAIN, "chat").think is None


# Capabilities, formats, options


@pytest.mark.parametrize("verb", ["generate", "chat"])
def test_a_model_that_makes_no_text_is_refused_with_the_request_s_verb(verb: str) -> None:
    model = a_model(capabilities=("embedding",))

    with pytest.raises(CapabilityMissing, match=f'^"e:x" does not support {verb}$'):
        asked_of(ChatRequest(model="e:x"), model, verb)


@pytest.mark.parametrize("value", [None, ""])
def test_no_format_is_none(value: Any) -> None:
    assert asked_of(ChatRequest(format=value), PLAIN, "chat").grammar is None


@pytest.mark.parametrize(
    ("value", "grammar"),
    [
        ("json", Grammar(GrammarKind.JSON)),
        ({}, Grammar(GrammarKind.JSON_SCHEMA, "{}")),
        (
            {"type": "object", "properties": {"b": {}, "a": {}}},
            Grammar(GrammarKind.JSON_SCHEMA, '{"type":"object","properties":{"b":{},"a":{}}}'),
        ),
    ],
)
def test_a_format_becomes_a_grammar_with_its_keys_in_order(value: Any, grammar: Grammar) -> None:
    assert asked_of(ChatRequest(format=value), PLAIN, "chat").grammar == grammar


@pytest.mark.parametrize(
    ("asked", "architecture", "shifts"),
    [
        (None, "llama", True),
        (None, "deepseek2", False),
        (True, "deepseek2", True),
        (False, "llama", False),
    ],
)
def test_a_context_is_shifted_unless_the_request_or_the_architecture_says_no(
    asked: bool | None, architecture: str, shifts: bool
) -> None:
    facts = dataclasses.replace(PLAIN.facts, architecture=architecture)
    model = dataclasses.replace(PLAIN, facts=facts)

    assert asked_of(ChatRequest(shift=asked), model, "chat").shift is shifts


@pytest.mark.parametrize(
    ("value", "shown"), [("xml", '"xml"'), (5, "5"), ([1], "[1]"), (True, "true")]
)
def test_a_format_that_is_none_is_shown_as_it_was_sent(value: Any, shown: str) -> None:
    message = f'invalid format: {shown}; expected "json" or a valid JSON Schema object'

    with pytest.raises(InvalidBody, match=f"^{re.escape(message)}$"):
        asked_of(ChatRequest(format=value), PLAIN, "chat")


def test_a_long_format_is_shown_in_short() -> None:
    with pytest.raises(InvalidBody) as caught:
        answers.read_format(["é" * 10_000])

    assert len(caught.value.message) < 300


def test_a_request_s_options_go_before_the_model_s() -> None:
    model = a_model(parameters={"temperature": 0.1, "top_k": 5, "stop": ["a"], "num_ctx": 64})
    body = ChatRequest(options={"temperature": 0.2, "stop": ["b"], "top_k": None})

    asked = asked_of(body, model, "chat")

    assert (asked.sampling.temperature, asked.sampling.top_k) == (0.2, 5)
    assert (asked.sampling.stop, asked.load.n_ctx) == (("b",), 64)


def test_an_option_of_the_wrong_type_is_refused_in_ollama_s_words() -> None:
    with pytest.raises(UnsupportedOption, match=r'^option "num_ctx" must be of type integer$'):
        asked_of(ChatRequest(options={"num_ctx": "big"}), PLAIN, "chat")


def test_images_are_refused_by_the_model_s_full_name() -> None:
    answers.refuse_images(0, PLAIN)
    with pytest.raises(CapabilityMissing, match="library/tiny:latest does not support images"):
        answers.refuse_images(1, PLAIN)


# Log-probabilities


@pytest.mark.parametrize("n", [-1, TOP_LOGPROBS_MAX + 1, 10**30])
def test_too_many_logprobs_are_refused_before_the_model_is_looked_for(n: int) -> None:
    with pytest.raises(InvalidBody, match=r"^top_logprobs must be between 0 and 20$"):
        check_early(ChatRequest(top_logprobs=n))


def test_logprobs_are_reported_only_when_they_are_asked_for() -> None:
    for n in (0, TOP_LOGPROBS_MAX):
        check_early(ChatRequest(top_logprobs=n))
        asked = asked_of(ChatRequest(top_logprobs=n, logprobs=True), PLAIN, "chat")
        silent = asked_of(ChatRequest(top_logprobs=n), PLAIN, "chat")

        assert (asked.n_logprobs, silent.n_logprobs) == (n, None)


def test_a_token_that_is_half_a_character_has_its_bytes_and_a_replacement() -> None:
    step = StepLogprob(
        TokenLogprob(5, b"\xf0\x9f", -0.5),
        (TokenLogprob(5, b"\xf0\x9f", -0.5), TokenLogprob(6, b"", -1.0)),
    )

    (entry,) = answers.logprob_entries([step])

    assert encode(entry).decode() == (
        '{"token":"�","logprob":-0.5,"bytes":[240,159],"top_logprobs":['
        '{"token":"�","logprob":-0.5,"bytes":[240,159]},{"token":"","logprob":-1.0}]}'
    )


# The end of an answer


@pytest.mark.parametrize("last", [
    GenerateResponse(model="m", created_at="", response="", done=True),
    ChatResponse(
        model="m", created_at="", message=AnswerMessage(role="assistant", content=""), done=True
    ),
])  # fmt: skip
def test_measures_are_nanoseconds_and_count_cached_tokens(
    last: GenerateResponse | ChatResponse,
) -> None:
    timings = Timings(
        queue_s=9.0,
        prefill_s=0.25,
        decode_s=0.5,
        prompt_tokens=10,
        cached_tokens=8,
        generated_tokens=3,
    )

    answers.measure(last, timings, load_s=1.5, total_s=2.25)

    assert (last.total_duration, last.load_duration) == (2_250_000_000, 1_500_000_000)
    assert (last.prompt_eval_count, last.prompt_eval_duration) == (10, 250_000_000)
    assert (last.eval_count, last.eval_duration) == (3, 500_000_000)


def test_every_way_to_finish_has_a_word() -> None:
    assert {reason: answers.done_reason(reason) for reason in FinishReason} == {
        FinishReason.STOP: "stop",
        FinishReason.LENGTH: "length",
        FinishReason.CANCELLED: "stop",
    }
