"""Conversations through templates of the published shapes, in the three modes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from ollamad.errors import InvalidBody, TemplateBroken
from ollamad.http.prompt.gotemplate.chat import (
    ChatMessage,
    Think,
    collate,
    render_chat,
    render_suffix,
)
from ollamad.http.prompt.gotemplate.template import parse
from ollamad.http.prompt.gotemplate.tools import SCHEMA_DEPTH_MAX, Tool, ToolCall
from tests.unit.http.prompt.gotemplate.shapes import (
    CHATML,
    CHATML_LEGACY,
    LLAMA2,
    LLAMA3_TOOLS,
    MISTRAL_TOOLS,
    QWEN_THINK,
)


class FixedClock:
    def now(self) -> datetime:
        return datetime(2025, 3, 1, 0, 30, tzinfo=UTC)


CLOCK = FixedClock()
WEATHER = Tool(
    name="get_weather",
    description="Tells <the> weather",
    parameters={
        "type": "object",
        "required": ["city"],
        "additionalProperties": False,
        "properties": {
            "unit": {"type": ["string", "null"], "enum": ["C", "F"], "default": "C"},
            "city": {"type": ["string"], "description": "Where"},
        },
    },
)
WEATHER_JSON = (
    '{"type":"function","function":{"name":"get_weather",'
    '"description":"Tells \\u003cthe\\u003e weather",'
    '"parameters":{"type":"object","required":["city"],"properties":{'
    '"city":{"type":"string","description":"Where"},'
    '"unit":{"type":["string","null"],"enum":["C","F"]}}}}}'
)
CALL = ToolCall(name="get_weather", arguments={"unit": "C", "city": "Rio"})
CALLING = ChatMessage(role="assistant", tool_calls=(CALL,))
ANSWERED = ChatMessage(role="tool", content='"30"', tool_name="get_weather")


def user(content: str) -> ChatMessage:
    return ChatMessage(role="user", content=content)


def system(content: str) -> ChatMessage:
    return ChatMessage(role="system", content=content)


def assistant(content: str) -> ChatMessage:
    return ChatMessage(role="assistant", content=content)


def rendered(
    template: str, *messages: ChatMessage, tools: tuple[Tool, ...] = (), think: Think = None
) -> str:
    return render_chat(parse(template), messages, clock=CLOCK, tools=tools, think=think)


def test_chatml_writes_each_turn_and_opens_the_answer() -> None:
    assert rendered(CHATML, system("S"), user("Q"), assistant("A"), user("R")) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nR<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_very_long_conversation_stays_within_the_budget() -> None:
    turns = [user("Q"), assistant("A")] * 2500
    assert rendered(CHATML, *turns).count("<|im_start|>") == 5000


def test_chatml_leaves_a_begun_answer_open() -> None:
    assert rendered(CHATML, user("Q"), assistant("It is")) == (
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nIt is"
    )


def test_a_legacy_template_is_executed_for_each_turn_and_cut_after_the_response() -> None:
    assert rendered(CHATML_LEGACY, system("S"), user("Q"), assistant("A"), user("R")) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nR<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_legacy_template_keeps_a_begun_answer_and_leaves_it_open() -> None:
    assert rendered(CHATML_LEGACY, user("Q"), assistant("It is")) == (
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nIt is"
    )


def test_a_legacy_template_without_a_response_gets_one() -> None:
    assert rendered(LLAMA2, system("S"), user("Q"), assistant("A"), user("R")) == (
        "[INST] <<SYS>>S<</SYS>>\n\nQ [/INST] A[INST] R [/INST] "
    )


def test_a_later_system_message_begins_a_turn_of_a_legacy_template() -> None:
    assert rendered(LLAMA2, user("Q"), system("S"), user("R")) == (
        "[INST] Q [/INST] [INST] <<SYS>>S<</SYS>>\n\nR [/INST] "
    )


def test_tool_results_have_no_place_in_a_legacy_template() -> None:
    assert rendered("{{ .Prompt }}|", user("Q"), ANSWERED) == "Q|"


def test_a_response_inside_an_if_cuts_what_follows_the_if_too() -> None:
    template = "{{ .Prompt }}:{{ if .Prompt }}<{{ .Response }}>{{ else }}no{{ end }}."
    assert rendered(template, user("Q"), assistant("A"), user("R")) == "Q:<A>.R:<"


def test_an_empty_conversation_still_opens_the_answer() -> None:
    assert rendered(CHATML_LEGACY) == "<|im_start|>assistant\n"
    assert rendered(CHATML) == ""


def test_the_turns_of_a_legacy_template_share_one_budget() -> None:
    turns = [user("Q"), assistant("A")] * 20
    with pytest.raises(TemplateBroken, match="steps"):
        rendered("{{ range 50000 }}{{ end }}{{ .Prompt }}{{ .Response }}", *turns)


def test_llama3_shows_tools_calls_and_results() -> None:
    prompt = rendered(LLAMA3_TOOLS, system("S"), user("Q"), CALLING, ANSWERED, tools=(WEATHER,))
    assert prompt == (
        "<|start_header_id|>system<|end_header_id|>\n\nS\n\nYou may call functions.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        '{"name": "get_weather", "parameters": {"city":"Rio","unit":"C"}}<|eot_id|>'
        '<|start_header_id|>ipython<|end_header_id|>\n\n"30"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert f"Tools: {WEATHER_JSON}\n" in rendered(LLAMA3_TOOLS, user("Q"), tools=(WEATHER,))


def test_mistral_prints_the_list_of_tools_as_json() -> None:
    prompt = rendered(MISTRAL_TOOLS, user("Q"), CALLING, ANSWERED, tools=(WEATHER,))
    assert prompt == (
        '[INST] Q[/INST][TOOL_CALLS] [{"name": "get_weather", "arguments": '
        '{"city":"Rio","unit":"C"}}]</s>[TOOL_RESULTS] {"content": "\\"30\\""} [/TOOL_RESULTS]'
    )
    assert rendered(MISTRAL_TOOLS, user("Q"), tools=(WEATHER, WEATHER)) == (
        f"[AVAILABLE_TOOLS] [{WEATHER_JSON},{WEATHER_JSON}][/AVAILABLE_TOOLS][INST] Q[/INST]"
    )


@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (None, "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"),
        (True, "<|im_start|>user\nQ /think<|im_end|>\n<|im_start|>assistant\n"),
        ("low", "<|im_start|>user\nQ /think<|im_end|>\n<|im_start|>assistant\n"),
        (
            False,
            (
                "<|im_start|>user\nQ /no_think<|im_end|>\n"
                "<|im_start|>assistant\n<think>\n\n</think>\n\n"
            ),
        ),
    ],
)
def test_qwen_is_told_whether_to_think(think: Think, expected: str) -> None:
    assert rendered(QWEN_THINK, user("Q"), think=think) == expected


def test_qwen_keeps_the_thoughts_of_a_call_after_the_last_question() -> None:
    thoughtful = ChatMessage(role="assistant", thinking="hm", tool_calls=(CALL,))
    prompt = rendered(QWEN_THINK, user("Q"), thoughtful, ANSWERED, think=True)
    assert "<|im_start|>assistant\n<think>hm</think>\n<tool_call>\n" in prompt
    assert "<think>" not in rendered(QWEN_THINK, user("Q"), thoughtful, user("R"), think=True)


@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (None, "false||false"),
        (False, "false||true"),
        (True, "true|medium|true"),
        ("max", "true|max|true"),
    ],
)
def test_the_three_think_fields_are_there_in_every_mode(think: Think, expected: str) -> None:
    fields = "{{ .Think }}|{{ .ThinkLevel }}|{{ .IsThinkSet }}"
    suffix = render_suffix(parse(fields), "p", "s", clock=CLOCK, think=think)
    assert rendered("{{ $.Messages | len | slice `` 0 }}" + fields, think=think) == expected
    assert rendered(fields, think=think) == expected
    assert suffix == expected


def test_a_suffix_template_sees_prompt_and_suffix_only() -> None:
    template = parse("{{ if .Suffix }}<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>{{ end }}")
    assert render_suffix(template, "a", "b", clock=CLOCK) == "<PRE>a<SUF>b<MID>"
    assert render_suffix(parse("{{ .System }}"), "a", "b", clock=CLOCK) == "<no value>"


def test_system_messages_are_joined_and_stay_in_the_list() -> None:
    template = "{{ .System }}|{{ range .Messages }}{{ .Role }}={{ .Content }};{{ end }}"
    assert rendered(template, system("a"), user("q"), system("b")) == (
        "a\n\nb|system=a;user=q;system=b;"
    )


def test_neighbours_of_one_role_are_merged_without_changing_what_was_given() -> None:
    first, second = user("a"), ChatMessage(role="user", content="b", images=2)
    assert collate([first, second]) == [ChatMessage(role="user", content="a\n\nb", images=2)]
    assert first == user("a")


def test_merging_keeps_calls_and_thoughts() -> None:
    thoughtful = ChatMessage(role="assistant", content="b", thinking="t", tool_calls=(CALL,))
    assert collate([assistant("a"), thoughtful]) == [
        ChatMessage(role="assistant", content="a\n\nb", thinking="t", tool_calls=(CALL,))
    ]


def test_tool_results_are_never_merged() -> None:
    assert collate([ANSWERED, ANSWERED]) == [ANSWERED, ANSWERED]


def test_all_fields_of_messages_and_calls_can_be_read() -> None:
    message = ChatMessage(
        role="tool",
        content="c",
        thinking="t",
        images=2,
        tool_name="n",
        tool_call_id="i",
        tool_calls=(ToolCall(name="f", arguments={"x": [1, 2.5]}, id="id", index=3),),
    )
    template = (
        "{{ range .Messages }}{{ .Role }}{{ .Content }}{{ .Thinking }}{{ len .Images }}"
        "{{ .ToolName }}{{ .ToolCallID }}{{ range .ToolCalls }}{{ .ID }}{{ .Function.Index }}"
        "{{ .Function.Name }}{{ range $k, $v := .Function.Arguments }}{{ $k }}{{ $v }}{{ end }}"
        "{{ . }}{{ end }}{{ . }}{{ end }}"
    )
    call = '{"id":"id","function":{"index":3,"name":"f","arguments":{"x":[1,2.5]}}}'
    assert rendered(template, message) == (
        f'toolct2niid3fx[1 2.5]{call}{{"role":"tool","content":"c","thinking":"t",'
        f'"tool_calls":[{call}],"tool_name":"n","tool_call_id":"i"}}'
    )


def test_tools_can_be_written_as_typescript() -> None:
    properties = {
        "a": {"type": "integer"},
        "b": {"type": ["array", "null"]},
        "c": {"anyOf": [{"type": "object"}, {"type": "boolean"}]},
        "d": {},
        "e": {"type": "weird"},
    }
    tool = Tool(name="f", parameters={"type": "object", "properties": properties})
    template = (
        "{{ len .Messages }}{{ range .Tools }}"
        "{{ range $name, $p := .Function.Parameters.Properties }} "
        "{{ $name }}: {{ toTypeScriptType $p }};"
        "{{ end }}{{ end }}"
    )
    assert rendered(template, tools=(tool,)) == (
        "0 a: number; b: any[] | null; c: Record<string, any> | boolean; d: any; e: any;"
    )


def test_defs_items_and_nested_properties_are_kept() -> None:
    schema = {
        "type": "object",
        "$defs": {"x": {"minimum": 1}},
        "items": {"any": "thing"},
        "properties": {
            "p": {
                "type": "object",
                "minimum": 1,
                "items": {"minimum": 1},
                "required": ["q"],
                "properties": {"q": {"type": "string", "pattern": "x"}},
            }
        },
    }
    tool = Tool(name="f", parameters=schema)
    assert rendered("{{ len .Messages }}{{ .Tools }}", tools=(tool,)) == (
        '0[{"type":"function","function":{"name":"f","parameters":{"type":"object",'
        '"$defs":{"x":{"minimum":1}},"items":{"any":"thing"},"properties":{"p":{"type":"object",'
        '"items":{"minimum":1},"properties":{"q":{"type":"string"}},"required":["q"]}}}}}]'
    )


def _nested_schema(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"p": schema}}
    return schema


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"type": 5}, "type must be a string"),
        ({"required": "x"}, "required must be an array"),
        ({"required": [1]}, "required must be an array of strings"),
        ({"properties": []}, "properties must be a JSON object"),
        ({"properties": {"p": 1}}, 'tool "f", property "p": a JSON object is expected'),
        ({"properties": {"p": {"type": 1}}}, "type must be an array"),
        ({"properties": {"p": {"anyOf": [{"anyOf": 1}]}}}, "anyOf must be an array"),
        (_nested_schema(SCHEMA_DEPTH_MAX + 1), "properties nest deeper than"),
    ],
)
def test_a_schema_of_the_wrong_shape_is_refused(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidBody) as caught:
        rendered("{{ .Messages }}", tools=(Tool(name="f", parameters=parameters),))
    assert message in str(caught.value)


def test_the_deepest_schema_that_is_taken_also_prints() -> None:
    tool = Tool(name="f", parameters=_nested_schema(SCHEMA_DEPTH_MAX))
    assert (
        rendered("{{ len .Messages }}{{ .Tools }}", tools=(tool,)).count('"p"') == SCHEMA_DEPTH_MAX
    )


@pytest.fixture
def west_of_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC+3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("west_of_greenwich")
def test_dates_are_local() -> None:
    assert os.environ["TZ"] == "UTC+3"
    template = "{{ currentDate }} {{ currentDate `ignored` }} {{ yesterdayDate }}"
    assert rendered(template) == "2025-02-28 2025-02-28 2025-02-27"
