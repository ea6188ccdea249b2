"""Calls of tools from a real model: a grammar makes even a small one write them as it should."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ollamad.http.answer.declared import tools_as_text
from ollamad.http.answer.format import AnswerFormat, format_of
from ollamad.http.answer.namedformats import DEFAULT_CALLS, HERMES
from ollamad.http.answer.parts import Parts
from ollamad.options import SamplingOptions
from ollamad.runners.protocol import FinishReason, Grammar, GrammarKind, LoadPlan
from ollamad.runners.worker.bindings import start_backends
from ollamad.runners.worker.llamaengine import LlamaEngine
from tests.process.answers import Answers, Engines

pytestmark = [pytest.mark.process, pytest.mark.model]

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tells the weather.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 20},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                    "days": {"type": "integer", "minimum": 1, "maximum": 9},
                },
                "required": ["city", "unit"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}},
    },
]
TAGGED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or"
    " [] %}<call={{ c.function.name }}>{% for k, v in c.function.arguments.items() %}<arg={{ k }}>"
    "{{ v if v is string else v|tojson }}</arg>{% endfor %}</call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPT = (
    f"<|im_start|>system\n{tools_as_text(TOOLS)}<|im_end|>\n"
    "<|im_start|>user\nHow warm is it in Rome?<|im_end|>\n<|im_start|>assistant\n"
)
SEEDS = range(3)
ROOM = SamplingOptions(temperature=0, num_predict=60)


@pytest.fixture(scope="module")
def engine(model_file: Path) -> Iterator[LlamaEngine]:
    start_backends()
    engines = Engines()
    yield engines.load(
        LoadPlan(model_path=str(model_file), n_ctx=1024, n_slots=4, n_batch=128, n_threads=2)
    )
    engines.close()


def answered(
    engine: LlamaEngine, form: AnswerFormat, grammar: Grammar, prompt: str = PROMPT
) -> list[Parts]:
    """Return what the model says for each seed, taken apart."""
    answers = Answers(engine)
    for seed in SEEDS:
        answers.submit(
            seed,
            prompt,
            SamplingOptions(temperature=1.0, num_predict=160, seed=seed),
            grammar=grammar,
            shown_tokens=form.shown_tokens(TOOLS),
        )
    answers.run()
    assert not answers.failed
    assert {one.reason for one in answers.finished.values()} == {FinishReason.STOP}
    return [read(form, prompt, answers.text[seed]) for seed in SEEDS]


def read(form: AnswerFormat, prompt: str, text: str) -> Parts:
    parser = form.parser(prompt, TOOLS)
    assert parser is not None, text
    parts = parser.feed(text)
    parts.add(parser.finish())
    return parts


def check_calls(parts: Parts) -> None:
    """Every call is of a declared tool, with arguments that its schema allows."""
    assert parts.calls
    assert not parts.text
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    for call in parts.calls:
        jsonschema.validate(call.arguments, schemas[call.name])


@pytest.mark.parametrize(
    "form",
    [AnswerFormat(calls=DEFAULT_CALLS), AnswerFormat(calls=HERMES), format_of(TAGGED)],
    ids=["no format of its own", "hermes", "tagged"],
)
def test_forced_calls_are_valid(engine: LlamaEngine, form: AnswerFormat) -> None:
    assert form.calls is not None
    for parts in answered(engine, form, form.call_grammar(TOOLS, is_parallel=False)):
        check_calls(parts)


def test_a_named_tool_is_the_one_that_is_called(engine: LlamaEngine) -> None:
    form = AnswerFormat(calls=DEFAULT_CALLS)

    for parts in answered(engine, form, form.call_grammar(TOOLS, ["get_weather"])):
        check_calls(parts)
        assert {call.name for call in parts.calls} == {"get_weather"}


def test_marks_that_are_control_tokens_are_written_and_read(engine: LlamaEngine) -> None:
    """Control tokens of this model stand in for another one's marks."""
    marked = dataclasses.replace(
        HERMES,
        begin=HERMES.begin.replace("<tool_call>", "<|im_start|>"),
        end=HERMES.end.replace("</tool_call>", "<reponame>"),
        between=None,
    )
    form = AnswerFormat(calls=marked)
    assert {"<|im_start|>", "<reponame>"} <= set(form.shown_tokens(TOOLS))

    for parts in answered(engine, form, form.call_grammar(TOOLS)):
        check_calls(parts)


def test_control_tokens_have_a_text_only_where_it_is_asked_for(engine: LlamaEngine) -> None:
    grammar = Grammar(GrammarKind.LARK, 'start: "a" "<|im_start|>" "b" "<reponame>" "c"')
    answers = Answers(engine)

    for number, shown in enumerate(((), ("<|im_start|>",), ("<|im_start|>", "<reponame>", "b"))):
        answers.submit(number, "x", ROOM, grammar=grammar, shown_tokens=shown)
    answers.run()

    assert set(answers.text.values()) == {"a<|im_start|>b<reponame>c"}
    control = engine._model.control_tokens(["<|im_start|>", "b", "<nothing>"])
    assert list(control) == ["<|im_start|>"]
    assert control["<|im_start|>"] not in answers.tokens[0]
    assert control["<|im_start|>"] in answers.tokens[1]
