"""Grammars of calls, as llguidance understands them, over a vocabulary of single bytes."""

from __future__ import annotations

import json

import pytest

from ollamad.http.answer.callformat import ANY, CallFormat, Encoding, Tags
from ollamad.http.answer.callgrammar import CALLS_MAX
from ollamad.http.answer.format import PLAIN, AnswerFormat
from ollamad.http.answer.namedformats import BEFORE_PROBES, HERMES, NamedFormat
from ollamad.http.answer.parts import Call
from ollamad.runners.protocol import Grammar, GrammarKind
from ollamad.runners.worker.larkmarks import with_control_tokens
from tests.unit.http.answer.grammars import allows
from tests.unit.http.answer.reading import ADD, SAY, a_tool

FORM = AnswerFormat(calls=HERMES)
ADDS = Call(id="a", name="add", arguments={"a": 1, "b": 2})
SAYS = Call(id="b", name="say", arguments={"what": "é \"'\n{}"})
TAGGED = AnswerFormat(
    calls=CallFormat(
        begin="<call>",
        mid="\n",
        end="</call>",
        between="</call>\n<call>",
        encoding=Encoding.TAGGED,
        tags=Tags(open="<key>", middles={ANY: "</key>"}, close="</value>"),
    )
)
BARE = AnswerFormat(
    calls=CallFormat(
        begin="<|tool_call>call:",
        mid="",
        end="<tool_call|>",
        encoding=Encoding.BARE,
        quote='<|"|>',
    )
)
BOOK = a_tool(
    "book",
    note={"type": "string", "maxLength": 8},
    kind={"enum": ["big", "small"]},
    guests={"type": "array", "items": {"type": "string"}},
    seat={"type": "object", "properties": {"row": {"type": "integer"}}},
)
del BOOK["function"]["parameters"]["required"][0]
del BOOK["function"]["parameters"]["required"][-1]


def test_a_forced_answer_is_calls_and_nothing_else() -> None:
    grammar = FORM.call_grammar([ADD, SAY])

    for calls in ([ADDS], [SAYS], [ADDS, SAYS, ADDS]):
        assert allows(grammar, HERMES.text(calls))
    assert not allows(grammar, "I add.")
    assert not allows(grammar, HERMES.text([ADDS]) + " so")
    assert not allows(grammar, HERMES.text([Call(id="", name="sub", arguments={})]))


def test_arguments_follow_the_schema() -> None:
    grammar = FORM.call_grammar([ADD])

    for arguments in ({}, {"a": 1}, {"a": 1, "b": "2"}, {"a": 1, "b": 2, "c": 3}):
        assert not allows(grammar, HERMES.text([Call(id="", name="add", arguments=arguments)]))


def test_only_the_named_tools_are_called() -> None:
    grammar = FORM.call_grammar([ADD, SAY], ["say"])

    assert allows(grammar, HERMES.text([SAYS]))
    assert not allows(grammar, HERMES.text([ADDS]))
    with pytest.raises(ValueError, match="declared"):
        FORM.call_grammar([ADD], ["say"])


def test_one_call_is_all_if_there_may_be_no_more() -> None:
    grammar = FORM.call_grammar([ADD], is_parallel=False)

    assert allows(grammar, HERMES.text([ADDS]))
    assert not allows(grammar, HERMES.text([ADDS, ADDS]))


def test_there_is_an_end_to_calls() -> None:
    grammar = FORM.call_grammar([ADD])

    assert allows(grammar, HERMES.text([ADDS] * CALLS_MAX))
    assert not allows(grammar, HERMES.text([ADDS] * (CALLS_MAX + 1)))


def test_an_answer_may_be_text_but_no_call_in_it_is_invalid() -> None:
    grammar = FORM.call_grammar([ADD], may_answer=True)

    for answer in ("", "a < b", "I add. " + HERMES.text([ADDS]), HERMES.text([ADDS, ADDS])):
        assert allows(grammar, answer)
    assert not allows(grammar, "<tool_call> is a tag")
    assert not allows(grammar, HERMES.text([SAYS]))


def test_a_model_without_a_format_calls_in_json() -> None:
    grammar = PLAIN.call_grammar([ADD, SAY])

    assert allows(grammar, '{"name": "add", "arguments": {"a": 1, "b": 2}}')
    assert not allows(grammar, '{"name": "add", "arguments": {"a": 1, "b": 2}} ')
    may_answer = PLAIN.call_grammar([ADD], may_answer=True)
    assert allows(may_answer, "It is 3 {or so}.")
    assert not allows(may_answer, '{"answer": 3}')


@pytest.mark.parametrize(
    ("arguments", "is_allowed"),
    [
        ({"note": "by <it>", "kind": "big", "guests": ["Ann"], "seat": {"row": 1}}, True),
        ({"kind": "small", "guests": []}, True),
        ({"kind": "middle", "guests": []}, False),
        ({"kind": "big"}, False),
        ({"kind": "big", "guests": [1]}, False),
        ({"note": "too long a note", "kind": "big", "guests": []}, False),
    ],
)
def test_tagged_arguments_follow_the_schema(arguments: dict[str, object], is_allowed: bool) -> None:
    assert TAGGED.calls is not None
    text = TAGGED.calls.text([Call(id="", name="book", arguments=arguments)])

    assert allows(TAGGED.call_grammar([BOOK]), text) is is_allowed


def test_bare_arguments_follow_the_schema() -> None:
    assert BARE.calls is not None
    arguments = {"note": "a", "kind": "big", "guests": ["Ann", "Bob"], "seat": {"row": 1}}
    grammar = BARE.call_grammar([BOOK])

    assert allows(grammar, BARE.calls.text([Call(id="", name="book", arguments=arguments)]))
    arguments["kind"] = "middle"
    assert not allows(grammar, BARE.calls.text([Call(id="", name="book", arguments=arguments)]))


@pytest.mark.parametrize("named", BEFORE_PROBES, ids=lambda named: named.name)
def test_messages_with_headers_are_calls_or_text(named: NamedFormat) -> None:
    assert named.channels is not None
    form = AnswerFormat(calls=named.calls, channels=named.channels, restart=named.channels.start)

    forced = form.call_grammar([ADD])
    assert allows(forced, named.calls.text([ADDS]))
    assert allows(forced, named.channels.start + named.calls.text([ADDS]))
    may_answer = form.call_grammar([ADD], may_answer=True)
    assert allows(may_answer, named.channels.text + "Three.")
    assert not allows(forced, named.channels.text + "Three.")


def test_an_unsupported_keyword_is_passed_over_unless_the_tool_is_strict() -> None:
    tool = a_tool("add", a={"type": "object", "minProperties": 1, "unevaluatedProperties": False})
    source = FORM.call_grammar([tool]).text
    assert '"lenient": true' in source

    tool["function"]["strict"] = True
    assert '"lenient": false' in FORM.call_grammar([tool]).text


def test_marks_that_are_tokens_stand_for_themselves() -> None:
    grammar = FORM.call_grammar([a_tool("say", what={"enum": ["<tool_call>"]})], may_answer=True)
    replaced = with_control_tokens(grammar, {"<tool_call>": 7, "</tool_call>": 8})

    assert "lead: TEXT <[7]>" in replaced.text
    assert '"</tool_call>"' not in replaced.text
    assert json.dumps(["<tool_call>"]) in replaced.text
    json_grammar = Grammar(GrammarKind.JSON)
    assert with_control_tokens(json_grammar, {"{": 1}) is json_grammar
