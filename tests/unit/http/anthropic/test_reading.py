"""Each field of a request has its meaning here, or an error that names it."""

from __future__ import annotations

import pytest

from ollamad.errors import CapabilityMissing, InvalidBody, UnsupportedOption
from ollamad.http.anthropic.reading import GENERATED_MAX, asked_of, check_early
from ollamad.http.anthropic.wire import MessagesRequest
from ollamad.http.chatting import ChatAsked, ToolChoice, ToolMode
from ollamad.http.decode import decode_body
from ollamad.http.prompt.gotemplate.chat import Think
from ollamad.modelinfo import StoredModel
from ollamad.options import LoadOptions
from ollamad.runners.protocol import Grammar, GrammarKind
from tests.unit.http.anthropic.bodies import WEATHER, a_body
from tests.unit.http.models import a_model

PLAIN = a_model()
ABLE = a_model(capabilities=("completion", "tools", "thinking"))


def read(model: StoredModel = ABLE, /, **fields: object) -> ChatAsked:
    return asked_of(decode_body(a_body(**fields), MessagesRequest), model)[0]


# Options


def test_limits_and_chances_are_options() -> None:
    sampling = read(temperature=0.5, top_p=0.25, top_k=7, max_tokens=9).sampling

    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.25, 7)
    assert sampling.num_predict == 9


def test_nothing_is_forced_that_is_not_said() -> None:
    model = a_model(parameters={"temperature": 0.125, "top_k": 3})

    sampling = read(model).sampling

    assert (sampling.temperature, sampling.top_k) == (0.125, 3)


def test_as_many_tokens_as_nobody_can_generate_are_as_many_as_there_can_be() -> None:
    assert read(max_tokens=10**15).sampling.num_predict == GENERATED_MAX


def test_the_models_own_stop_texts_hold_beside_the_requests() -> None:
    model = a_model(parameters={"stop": ["<end>", "Human:"]})

    assert read(model, stop_sequences=["Human:", "END"]).sampling.stop == ("<end>", "Human:", "END")


def test_ollamas_own_options_are_taken_and_the_requests_fields_win() -> None:
    body = decode_body(a_body(options={"num_ctx": 64, "top_k": 1}, top_k=2), MessagesRequest)

    asked, load = asked_of(body, PLAIN)

    assert load == LoadOptions(n_ctx=64)
    assert asked.sampling.top_k == 2


def test_an_option_of_the_wrong_size_is_named() -> None:
    with pytest.raises(UnsupportedOption, match="top_k"):
        read(top_k=2**40)


def test_nothing_is_cut_to_fit() -> None:
    asked = read()

    assert not asked.may_truncate
    assert not asked.shift


# Thinking


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, False),
        ({"thinking": {"type": "enabled"}, "output_config": {"effort": "low"}}, "low"),
        ({"output_config": {"effort": "xhigh"}}, "high"),
        ({"output_config": {"effort": "max"}}, "max"),
        ({"output_config": {"effort": "heroic"}}, True),
    ],
)
def test_a_model_that_can_thinks_as_much_as_is_asked(
    fields: dict[str, object], expected: Think
) -> None:
    assert read(**fields).think == expected


def test_a_model_that_cannot_think_is_not_asked_to() -> None:
    assert read(PLAIN, thinking={"type": "enabled", "budget_tokens": 2048}).think is None


# Tools


def test_tools_become_functions() -> None:
    (tool,) = read(tools=[WEATHER]).tools

    assert tool == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells the weather.",
            "parameters": WEATHER["input_schema"],
        },
    }


def test_a_strict_tool_says_so() -> None:
    (tool,) = read(tools=[{**WEATHER, "type": "custom", "strict": True}]).tools

    assert tool["function"]["strict"] is True


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ({"type": "auto"}, ToolChoice(ToolMode.AUTO)),
        ({"type": "any"}, ToolChoice(ToolMode.REQUIRED)),
        ({"type": "none"}, ToolChoice(ToolMode.NONE)),
        ({"type": "tool", "name": "weather"}, ToolChoice(ToolMode.NAMED, "weather")),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            ToolChoice(ToolMode.REQUIRED, is_parallel=False),
        ),
    ],
)
def test_a_choice_says_which_tools_may_or_must_be_called(
    choice: object, expected: ToolChoice
) -> None:
    assert read(tools=[WEATHER], tool_choice=choice).tool_choice == expected


@pytest.mark.parametrize("kind", ["any", "none"])
def test_a_model_without_a_format_for_calls_can_be_forced_to_call_or_not_to(kind: str) -> None:
    assert read(PLAIN, tools=[WEATHER], tool_choice={"type": kind}).tools


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            'tools[0]: "web_search_20250305" is one of Anthropic\'s own tools',
        ),
        ({"tools": [{"input_schema": {}}]}, "tools[0]: the field name is missing"),
        ({"tools": [{"name": "f"}]}, 'invalid input_schema for tool "f": it is missing'),
        ({"tools": [{**WEATHER, "input_schema": 3}]}, "tools[0].input_schema: expected object"),
        ({"tool_choice": {"type": "any"}}, 'tool_choice "any" needs tools, and there are none'),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "time"}},
            'tool_choice.name: there is no tool "time" in tools',
        ),
        ({"tool_choice": {"type": "some"}}, 'tool_choice.type: expected "auto", "any"'),
    ],
)
def test_tools_that_cannot_be_meant_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidBody) as caught:
        read(**fields)

    assert words in caught.value.message


def test_a_model_whose_template_knows_no_tools_is_not_given_any() -> None:
    with pytest.raises(CapabilityMissing, match="does not support tools"):
        read(PLAIN, tools=[WEATHER])


# The form of the answer

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    "fields",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"output_format": {"type": "json_schema", "schema": SCHEMA}},
    ],
)
def test_an_output_format_is_a_grammar(fields: dict[str, object]) -> None:
    text = '{"type":"object","properties":{"a":{"type":"integer"}}}'

    assert read(**fields).grammar == Grammar(GrammarKind.JSON_SCHEMA, text)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"type": "xml"}, 'expected "json_schema", got "xml"'),
        ({"type": "json_schema"}, "the field schema is missing"),
    ],
)
def test_a_form_that_is_none_is_refused(form: object, words: str) -> None:
    with pytest.raises(InvalidBody, match=words):
        read(output_config={"format": form})


# The rest


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": None}, "model is required"),
        ({"messages": []}, "messages is required"),
    ],
)
def test_what_is_missing_is_said_first(fields: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidBody, match=words):
        check_early(decode_body(a_body(**fields), MessagesRequest))


def test_a_model_that_only_embeds_does_not_chat() -> None:
    with pytest.raises(CapabilityMissing, match="does not support chat"):
        read(a_model(capabilities=("embedding",)))


def test_images_are_refused_while_no_model_sees() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}

    with pytest.raises(CapabilityMissing, match="does not support images"):
        read(messages=[{"role": "user", "content": [image]}])
