"""Grammars in llguidance's form, as text: what it makes of them is for the tests with a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from ollamad.runners.protocol import Grammar, GrammarKind
from ollamad.runners.worker.grammarsource import JSON_STYLE, MarkPart, ToLark, source_of

TO_LARK: ToLark = {
    GrammarKind.REGEX: lambda text: f"start: /{text}/",
    GrammarKind.LARK: str,
    GrammarKind.GBNF: lambda text: f"start: {text}",
}


def as_text(mark: str) -> list[MarkPart]:
    return [MarkPart(mark)]


def grammars(grammar: Grammar, split: Any = as_text) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = json.loads(source_of(grammar, split, TO_LARK))["grammars"]
    return made


def rules(grammar: Grammar, split: Any = as_text) -> Sequence[str]:
    outer: str = grammars(grammar, split)[0]["lark_grammar"]
    return outer.splitlines()


def test_a_schema_has_one_way_to_space_json_and_drops_nothing() -> None:
    schema = '{"x-guidance":{"lenient":true},"properties":{"b":{},"a":{}}}'

    (made,) = grammars(Grammar(GrammarKind.JSON_SCHEMA, schema))

    assert made["json_schema"]["x-guidance"] == JSON_STYLE
    assert JSON_STYLE["lenient"] is False
    assert list(made["json_schema"]["properties"]) == ["b", "a"]


@pytest.mark.parametrize("text", ["{", "3", "[]"])
def test_what_is_no_schema_at_all_is_an_error(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        source_of(Grammar(GrammarKind.JSON_SCHEMA, text), as_text, TO_LARK)


def test_other_kinds_become_lark() -> None:
    assert grammars(Grammar(GrammarKind.REGEX, "a+")) == [{"lark_grammar": "start: /a+/"}]


def test_thinking_that_is_open_ends_with_the_first_closing_mark() -> None:
    space, thought, start = rules(Grammar(GrammarKind.JSON, closing="</think>"))

    assert space == r"SPACE: /[ \t\r\n]{1,8}/"
    assert thought == 'thought[suffix="</think>"]: /(?s:.*)/'
    assert start == "start: thought SPACE? @answer"


def test_thinking_that_is_not_open_may_be_left_out() -> None:
    marked = Grammar(GrammarKind.JSON, opening="<think>", closing="</think>")

    assert rules(marked)[-1] == 'start: SPACE? ("<think>" thought SPACE?)? @answer'


def test_marks_that_are_control_tokens_are_asked_for_by_number() -> None:
    marked = Grammar(GrammarKind.JSON, opening="<o>", closing="<c>")

    made = rules(marked, lambda mark: [MarkPart(mark, 7 if mark == "<o>" else 8)])

    assert made[1:] == [
        "THOUGHT: /(?s:.*)/",
        "start: SPACE? (<[7]> THOUGHT <[8]> SPACE?)? @answer",
    ]


def test_what_stands_before_a_closing_control_token_is_thought_like_the_rest() -> None:
    parts = [MarkPart("\n"), MarkPart("<|end|>", 5), MarkPart("final")]

    made = rules(Grammar(GrammarKind.JSON, closing="\n<|end|>final"), lambda _mark: parts)

    assert made[-1] == 'start: THOUGHT <[5]> "final" SPACE? @answer'


def test_the_grammar_that_was_asked_for_keeps_its_own_names() -> None:
    grammar = Grammar(GrammarKind.LARK, 'start: THOUGHT\nTHOUGHT: "x"', closing="</think>")

    assert grammars(grammar)[1] == {"name": "answer", "lark_grammar": grammar.text}
