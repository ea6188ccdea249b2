"""Thinking first, and then what the answer must look like, in one run of the engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ollamad.http.answer.structured import after_thinking, regex_grammar, schema_grammar
from ollamad.options import SamplingOptions
from ollamad.runners.protocol import FailureCode, FinishReason, Grammar, LoadPlan
from ollamad.runners.worker.bindings import start_backends
from ollamad.runners.worker.llamaengine import LlamaEngine
from tests.process.answers import Answers, Engines

pytestmark = [pytest.mark.process, pytest.mark.model]

PERSON = schema_grammar(
    {
        "type": "object",
        "properties": {
            "first_name": {"type": "string", "maxLength": 10},
            "age_in_years": {"type": "integer", "minimum": 0, "maximum": 120},
        },
        "required": ["first_name", "age_in_years"],
        "additionalProperties": False,
    }
)
OPEN = after_thinking(PERSON, "<think>", "</think>", is_open=True)
OPTIONAL = after_thinking(PERSON, "<think>", "</think>", is_open=False)
CONTROL = after_thinking(PERSON, "<|im_start|>", "<|im_start|>", is_open=True)
"""A control token of this vocabulary stands in for the mark."""
ROOM = SamplingOptions(temperature=1.0, seed=3, num_predict=120)


@pytest.fixture(scope="module")
def engine(model_file: Path) -> Iterator[LlamaEngine]:
    start_backends()
    engines = Engines()
    plan = LoadPlan(model_path=str(model_file), n_ctx=512, n_slots=4, n_batch=128, n_threads=1)
    yield engines.load(plan)
    engines.close()


def continued(engine: LlamaEngine, grammar: Grammar, begun: str) -> Answers:
    """Return the rest of an answer that begins with *begun*."""
    answers = Answers(engine)
    tokens = engine.tokenize(begun, add_special=False)
    answers.submit(1, "Describe a person.\n", ROOM, grammar=grammar, answered=tokens)
    answers.run()
    return answers


@pytest.mark.parametrize(
    ("grammar", "thought"),
    [
        (OPEN, "Somebody old. </thin </think>\n\n"),
        (OPEN, "</think>"),
        (OPEN, '{"first_name": 7}</think>'),
        (OPTIONAL, "<think>Somebody old.</think>\n"),
        (OPTIONAL, "\n<think>\n\n</think>\n\n"),
        (OPTIONAL, ""),
        (CONTROL, "Somebody old.<|im_start|>\n"),
        (CONTROL, "<|im_start|>"),
    ],
)
def test_after_its_thinking_an_answer_keeps_to_its_grammar(
    engine: LlamaEngine, grammar: Grammar, thought: str
) -> None:
    answers = continued(engine, grammar, thought)

    assert answers.failed == {}
    assert list(json.loads(answers.text[1])) == ["first_name", "age_in_years"]
    assert answers.finished[1].reason is FinishReason.STOP
    assert answers.finished[1].timings.forced_tokens > 0


def test_while_it_thinks_an_answer_is_free_and_cannot_end(engine: LlamaEngine) -> None:
    answers = continued(engine, OPEN, "Let me see.")

    assert "{" not in answers.text[1][:1]
    assert "</think>" not in answers.text[1]
    assert answers.finished[1].reason is FinishReason.LENGTH
    assert len(answers.text[1]) > 100


def test_an_answer_that_thinks_goes_on_where_another_runner_was(engine: LlamaEngine) -> None:
    whole = continued(engine, OPTIONAL, "<think>Ada.</think>\n")

    begun = engine.tokenize("<think>Ada.</think>\n", add_special=False)
    cut = whole.tokens[1][: len(begun) + 6]
    rest = Answers(engine)
    rest.submit(1, "Describe a person.\n", ROOM, grammar=OPTIONAL, answered=tuple(cut))
    rest.run()

    answer = b"".join(map(engine._model.piece, cut)).decode() + rest.text[1]
    assert list(json.loads(answer.partition("</think>")[2])) == ["first_name", "age_in_years"]


def test_there_is_little_white_space_between_thinking_and_answer(engine: LlamaEngine) -> None:
    answers = continued(engine, OPEN, "</think>" + "\n" * 9)

    assert answers.failed[1].code is FailureCode.BAD_REQUEST


def test_any_kind_of_grammar_may_follow_thinking(engine: LlamaEngine) -> None:
    year = after_thinking(regex_grammar("[0-9]{4}/[0-9]{2}"), "<think>", "</think>", is_open=True)

    answers = continued(engine, year, "When?</think>")

    number, _, month = answers.text[1].strip().partition("/")
    assert len(number) == 4
    assert len(month) == 2


def test_a_model_chooses_to_think_by_itself(engine: LlamaEngine) -> None:
    """Nothing is given: the first token is the model's, the opening mark or the answer."""
    answers = Answers(engine)
    example = '<think>A name and an age.</think>{"first_name": "Ada", "age_in_years": 36}\n'
    greedy = SamplingOptions(temperature=0, num_predict=120)
    answers.submit(1, example * 4, greedy, grammar=OPTIONAL)
    answers.submit(2, example.partition("</think>")[2] * 4, greedy, grammar=OPTIONAL)
    answers.run()

    assert answers.text[1].startswith("<think>")
    assert answers.text[2].startswith("{")
    for number in (1, 2):
        person = json.loads(answers.text[number].rpartition("</think>")[2])
        assert list(person) == ["first_name", "age_in_years"]
