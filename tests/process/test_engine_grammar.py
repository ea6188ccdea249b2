"""Answers that must look like something: real grammars on a real model, in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ollamad.options import SamplingOptions
from ollamad.runners.protocol import (
    FailureCode,
    FinishReason,
    Grammar,
    GrammarKind,
    LoadPlan,
)
from ollamad.runners.worker.bindings import start_backends
from ollamad.runners.worker.llamaengine import LlamaEngine
from tests.process.answers import GREEDY, Answers, Engines

pytestmark = [pytest.mark.process, pytest.mark.model]

PERSON = {
    "type": "object",
    "properties": {
        "first_name": {"type": "string", "maxLength": 10},
        "age_in_years": {"type": "integer", "minimum": 0, "maximum": 120},
        "is_a_student": {"type": "boolean"},
        "favourite_colour": {"enum": ["red", "green", "blue"]},
    },
    "required": ["first_name", "age_in_years", "is_a_student", "favourite_colour"],
    "additionalProperties": False,
}
SCHEMA = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(PERSON))
ROOM = SamplingOptions(temperature=0.7, seed=1, num_predict=200)


@pytest.fixture(scope="module")
def engine(model_file: Path) -> Iterator[LlamaEngine]:
    start_backends()
    engines = Engines()
    yield engines.load(
        LoadPlan(model_path=str(model_file), n_ctx=512, n_slots=4, n_batch=128, n_threads=2)
    )
    engines.close()


def answered(engine: LlamaEngine, grammar: Grammar, sampling: SamplingOptions = ROOM) -> Answers:
    answers = Answers(engine)
    answers.submit(1, "Describe a person.\n", sampling, grammar=grammar)
    answers.run()
    return answers


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_keeps_to_its_schema(engine: LlamaEngine, seed: int) -> None:
    sampling = SamplingOptions(temperature=1.5, top_k=0, top_p=1.0, seed=seed, num_predict=200)

    answers = answered(engine, SCHEMA, sampling)

    person = json.loads(answers.text[1])
    assert list(person) == PERSON["required"]
    assert len(person["first_name"]) <= 10
    assert 0 <= person["age_in_years"] <= 120
    assert person["favourite_colour"] in {"red", "green", "blue"}
    assert answers.finished[1].reason is FinishReason.STOP


def test_what_the_schema_leaves_no_choice_of_is_not_sampled(engine: LlamaEngine) -> None:
    answers = answered(engine, SCHEMA)

    timings = answers.finished[1].timings
    assert timings.generated_tokens == len(answers.tokens[1])
    assert timings.forced_tokens > timings.generated_tokens / 3
    assert engine.gauges.forced_tokens >= timings.forced_tokens


def test_log_probabilities_are_reported_for_every_token_also_with_a_grammar(
    engine: LlamaEngine,
) -> None:
    answers = Answers(engine)
    answers.submit(1, "Describe a person.\n", ROOM, grammar=SCHEMA, n_logprobs=1)
    answers.run()

    chosen = [step.chosen.token for step in answers.logprobs[1]]
    assert chosen == answers.tokens[1]
    assert answers.finished[1].timings.forced_tokens == 0


def test_forced_tokens_end_at_the_limit_of_an_answer(engine: LlamaEngine) -> None:
    limited = SamplingOptions(temperature=0, num_predict=5)

    answers = answered(engine, SCHEMA, limited)

    assert len(answers.tokens[1]) == 5
    assert answers.finished[1].reason is FinishReason.LENGTH


def test_a_stop_text_ends_an_answer_also_among_forced_tokens(engine: LlamaEngine) -> None:
    stopping = SamplingOptions(temperature=0, num_predict=99, stop=("age_in",))

    answers = answered(engine, SCHEMA, stopping)

    assert answers.text[1].endswith(', "')
    assert answers.finished[1].reason is FinishReason.STOP


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        (Grammar(GrammarKind.REGEX, r"[0-9]{4}-[0-9]{2}"), r"\d{4}-\d{2}"),
        (Grammar(GrammarKind.LARK, 'start: "yes" | "no"'), "yes|no"),
        (Grammar(GrammarKind.GBNF, 'root ::= "a" [b-c]+ "d"'), "a[bc]+d"),
        (Grammar(GrammarKind.JSON), r"\{.*\}"),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Grammar) else "",
)
def test_every_kind_of_grammar_is_kept_to(
    engine: LlamaEngine, grammar: Grammar, pattern: str
) -> None:
    limited = SamplingOptions(temperature=1.0, seed=5, num_predict=120)

    answers = answered(engine, grammar, limited)

    assert answers.failed == {}
    text = answers.text[1]
    if answers.finished[1].reason is FinishReason.STOP:
        assert re.fullmatch(pattern, text, re.DOTALL), text


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        (Grammar(GrammarKind.JSON_SCHEMA, '{"type": "text"}'), "json schema cannot be kept to"),
        (Grammar(GrammarKind.JSON_SCHEMA, "{"), "json schema cannot be kept to"),
        (
            Grammar(GrammarKind.JSON_SCHEMA, '{"type": "array", "uniqueItems": true}'),
            "uniqueItems",
        ),
        (
            Grammar(GrammarKind.JSON_SCHEMA, '{"oneOf": [{"type": "number"}, {"minimum": 1}]}'),
            'use "anyOf"',
        ),
        (Grammar(GrammarKind.REGEX, "(["), "cannot be kept to: unclosed character class: "),
        (Grammar(GrammarKind.LARK, "start: start"), "no answer keeps to it"),
        (Grammar(GrammarKind.LARK, "nonsense"), "lark cannot be kept to"),
        (Grammar(GrammarKind.GBNF, "root ::= )"), "gbnf cannot be kept to"),
    ],
    ids=["type", "no-json", "keyword", "one-of", "regex", "endless", "lark", "gbnf"],
)
def test_a_grammar_that_is_wrong_ends_its_request_and_no_other(
    engine: LlamaEngine, grammar: Grammar, words: str
) -> None:
    answers = Answers(engine)
    answers.submit(1, "Once upon a time", GREEDY)
    answers.submit(2, "Describe a person.\n", ROOM, grammar=grammar)
    answers.run()

    assert answers.failed[2].code is FailureCode.BAD_REQUEST
    assert words in answers.failed[2].detail
    assert len(answers.tokens[1]) == GREEDY.num_predict


def test_answers_with_and_without_grammars_go_side_by_side(engine: LlamaEngine) -> None:
    answers = Answers(engine)
    for number in range(6):
        grammar = SCHEMA if number % 2 else None
        sampling = SamplingOptions(temperature=0.7, seed=number, num_predict=120)
        answers.submit(number, "Describe a person.\n", sampling, grammar=grammar)
    answers.run()

    assert answers.failed == {}
    for number in (1, 3, 5):
        assert list(json.loads(answers.text[number])) == PERSON["required"]


def test_a_grammar_goes_on_where_another_runner_was(engine: LlamaEngine) -> None:
    whole = answered(engine, SCHEMA)
    answered_before = tuple(whole.tokens[1][:9])

    rest = Answers(engine)
    rest.submit(1, "Describe a person.\n", ROOM, grammar=SCHEMA, answered=answered_before)
    rest.run()

    begun = b"".join(map(engine._model.piece, answered_before)).decode()
    assert list(json.loads(begun + rest.text[1])) == PERSON["required"]


def test_a_request_that_is_cancelled_while_its_grammar_is_made_ends(engine: LlamaEngine) -> None:
    answers = Answers(engine)
    answers.submit(1, "Describe a person.\n", ROOM, grammar=SCHEMA)
    answers.take(engine.cancel(1))

    assert answers.finished[1].reason is FinishReason.CANCELLED
    assert not engine.has_work


def test_what_the_first_grammar_needs_is_made_in_idle_time(model_file: Path) -> None:
    engines = Engines()
    plan = LoadPlan(model_path=str(model_file), n_ctx=256, n_slots=1, n_batch=64, n_threads=1)
    fresh = engines.load(plan)
    grammars = fresh._grammars

    fresh.use_idle_time()
    grammars._compiling.submit(lambda: None).result()  # All that was ordered before is done.

    assert "_tokenizer" in vars(grammars)
    engines.close()
