"""What clients send as schemas, choices, expressions and grammars."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ollamad.errors import InvalidBody
from ollamad.http.answer.structured import (
    CHOICES_CHARS_MAX,
    CHOICES_MAX,
    GRAMMAR_CHARS_MAX,
    MARK_CHARS_MAX,
    REGEX_CHARS_MAX,
    after_thinking,
    choice_grammar,
    gbnf_grammar,
    guided_grammar,
    json_grammar,
    lark_grammar,
    regex_grammar,
    schema_grammar,
)
from ollamad.runners.protocol import Grammar, GrammarKind


def test_a_schema_keeps_the_order_of_its_properties() -> None:
    grammar = schema_grammar({"properties": {"z": {}, "a": {}, "m": {}}})

    assert grammar.kind is GrammarKind.JSON_SCHEMA
    assert list(json.loads(grammar.text)["properties"]) == ["z", "a", "m"]


def test_a_choice_is_one_terminal_with_its_texts_quoted() -> None:
    grammar = choice_grammar(["yes", 'say "no"\n'])

    assert grammar == Grammar(GrammarKind.LARK, 'start: CHOICE\nCHOICE: "yes" | "say \\"no\\"\\n"')


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (regex_grammar, GrammarKind.REGEX),
        (lark_grammar, GrammarKind.LARK),
        (gbnf_grammar, GrammarKind.GBNF),
    ],
)
def test_other_languages_go_to_the_runner_as_they_are(
    make: Callable[[Any], Grammar], kind: GrammarKind
) -> None:
    assert make("[a-z]+") == Grammar(kind, "[a-z]+")


@pytest.mark.parametrize(
    ("make", "value", "words"),
    [
        (choice_grammar, [], "at least one"),
        (choice_grammar, "yes", "a list of texts"),
        (choice_grammar, ["a", 1], "a list of texts"),
        (choice_grammar, [""], "none of them empty"),
        (choice_grammar, ["a"] * (CHOICES_MAX + 1), f"{CHOICES_MAX} at most"),
        (choice_grammar, ["a" * (CHOICES_CHARS_MAX + 1)], f"{CHOICES_CHARS_MAX} at most"),
        (regex_grammar, "", "not empty"),
        (regex_grammar, 5, "must be a text"),
        (regex_grammar, "a" * (REGEX_CHARS_MAX + 1), f"{REGEX_CHARS_MAX} at most"),
        (lark_grammar, "a" * (GRAMMAR_CHARS_MAX + 1), f"{GRAMMAR_CHARS_MAX} at most"),
        (gbnf_grammar, None, "must be a text"),
    ],
)
def test_what_cannot_be_meant_or_is_too_large_is_refused(
    make: Callable[[Any], Grammar], value: Any, words: str
) -> None:
    with pytest.raises(InvalidBody, match=words):
        make(value)


def test_thinking_that_the_prompt_has_opened_only_has_to_be_closed() -> None:
    grammar = after_thinking(json_grammar(), "<think>", "</think>", is_open=True)

    assert grammar == Grammar(GrammarKind.JSON, closing="</think>")


def test_thinking_that_is_not_open_has_an_opening_mark() -> None:
    grammar = after_thinking(json_grammar(), "<think>", "</think>", is_open=False)

    assert grammar == Grammar(GrammarKind.JSON, opening="<think>", closing="</think>")


@pytest.mark.parametrize("mark", ["", "x" * (MARK_CHARS_MAX + 1)])
def test_marks_have_a_length(mark: str) -> None:
    with pytest.raises(InvalidBody, match="marks of thinking"):
        after_thinking(json_grammar(), "<think>", mark, is_open=True)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"regex": "a+"}, GrammarKind.REGEX),
        ({"choice": ["a"]}, GrammarKind.LARK),
        ({"lark": 'start: "a"'}, GrammarKind.LARK),
        ({"gbnf": 'root ::= "a"'}, GrammarKind.GBNF),
    ],
)
def test_an_object_with_one_word_guides(value: dict[str, Any], kind: GrammarKind) -> None:
    grammar = guided_grammar(value)

    assert grammar is not None
    assert grammar.kind is kind


@pytest.mark.parametrize("value", [{}, {"type": "object"}, {"regex": "a", "type": "string"}])
def test_any_other_object_is_a_schema(value: dict[str, Any]) -> None:
    assert guided_grammar(value) is None
