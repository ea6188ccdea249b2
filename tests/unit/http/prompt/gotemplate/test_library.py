"""Templates in the style of Ollama's library, with the prompts that Go's rules make of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollamad.errors import TemplateBroken
from ollamad.http.prompt.gotemplate.chat import ChatMessage, Think, render_chat, render_suffix
from ollamad.http.prompt.gotemplate.template import parse
from ollamad.http.prompt.gotemplate.text import TEXT_CHARS_MAX
from ollamad.http.prompt.gotemplate.tools import Tool, ToolCall
from tests.unit.http.prompt.gotemplate.shapes import LLAMA_3_2


class FixedClock:
    def now(self) -> datetime:
        return datetime(2025, 3, 1, 12, 0, tzinfo=UTC)


CLOCK: Final = FixedClock()
TOOL: Final = Tool(
    name="get_weather",
    description="Tells the weather",
    parameters={
        "type": "object",
        "required": ["city"],
        "properties": {
            "unit": {"type": ["string", "null"], "enum": ["C", "F"]},
            "city": {"type": "string", "description": "Where"},
        },
    },
)
SYSTEM: Final = ChatMessage(role="system", content="S")
ASKED: Final = ChatMessage(role="user", content="Q")
ANSWERED: Final = ChatMessage(role="assistant", content="A")
ASKED_AGAIN: Final = ChatMessage(role="user", content="R")
CALLED: Final = ChatMessage(
    role="assistant",
    tool_calls=(ToolCall(name="get_weather", arguments={"unit": "C", "city": "<Rio>"}, id="1"),),
)
RESULT: Final = ChatMessage(role="tool", content="30", tool_name="get_weather", tool_call_id="1")


def rendered(
    template: str, *messages: ChatMessage, tools: tuple[Tool, ...] = (), think: Think = None
) -> str:
    return render_chat(parse(template), messages, clock=CLOCK, tools=tools, think=think)


GEMMA: Final = """{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if or (eq .Role "user") (eq .Role "system") }}<start_of_turn>user
{{ .Content }}<end_of_turn>
{{ if $last }}<start_of_turn>model
{{ end }}
{{- else if eq .Role "assistant" }}<start_of_turn>model
{{ .Content }}{{ if not $last }}<end_of_turn>
{{ end }}
{{- end }}
{{- end }}"""


def test_gemma_s_shape() -> None:
    assert rendered(GEMMA, SYSTEM, ASKED, ANSWERED, ASKED_AGAIN) == (
        "<start_of_turn>user\nS<end_of_turn>\n<start_of_turn>user\nQ<end_of_turn>\n"
        "<start_of_turn>model\nA<end_of_turn>\n<start_of_turn>user\nR<end_of_turn>\n"
        "<start_of_turn>model\n"
    )
    assert rendered(GEMMA, ASKED, ANSWERED).endswith("<start_of_turn>model\nA")


GEMMA_LEGACY: Final = """<start_of_turn>user
{{ if .System }}{{ .System }} {{ end }}{{ .Prompt }}<end_of_turn>
<start_of_turn>model
{{ .Response }}<end_of_turn>
"""


def test_the_older_gemma_s_shape() -> None:
    assert rendered(GEMMA_LEGACY, SYSTEM, ASKED, ANSWERED, ASKED_AGAIN) == (
        "<start_of_turn>user\nS Q<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
        "<start_of_turn>user\nR<end_of_turn>\n<start_of_turn>model\n"
    )


TOOL_JSON: Final = (
    '{"type":"function","function":{"name":"get_weather","description":"Tells the weather",'
    '"parameters":{"type":"object","required":["city"],"properties":{'
    '"city":{"type":"string","description":"Where"},'
    '"unit":{"type":["string","null"],"enum":["C","F"]}}}}}'
)
HEAD: Final = "<|start_header_id|>{}<|end_header_id|>"


def test_llama_3_2_s_shape() -> None:
    begin = HEAD.format("system") + "\n\nCutting Knowledge Date: December 2023\n\n"

    assert rendered(LLAMA_3_2, ASKED, tools=(TOOL,)) == (
        begin + "When you receive a tool call response, use the output to format an answer."
        "<|eot_id|>"
        + HEAD.format("user")
        + "\n\nGiven the following functions, please respond with a JSON for a function call.\n"
        + TOOL_JSON
        + "\n\nQ<|eot_id|>"
        + HEAD.format("assistant")
        + "\n\n"
    )
    assert rendered(LLAMA_3_2, SYSTEM, ASKED, CALLED, RESULT) == (
        begin
        + "S<|eot_id|>"
        + HEAD.format("user")
        + "\n\nQ<|eot_id|>"
        + HEAD.format("assistant")
        + '\n\n{"name": "get_weather", "parameters": {"city":"\\u003cRio\\u003e","unit":"C"}}'
        + "<|eot_id|>"
        + HEAD.format("ipython")
        + "\n\n30<|eot_id|>"
        + HEAD.format("assistant")
        + "\n\n"
    )


QWEN25: Final = """{{- if .Suffix }}<|fim_prefix|>{{ .Prompt }}<|fim_suffix|>{{ .Suffix }}<|fim_middle|>
{{- else if .Messages }}
{{- if or .System .Tools }}<|im_start|>system
{{- if .System }}
{{ .System }}
{{- end }}
{{- if .Tools }}

# Tools

<tools>
{{- range .Tools }}
{"type": "function", "function": {{ .Function }}}
{{- end }}
</tools>
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Content }}{{ .Content }}
{{- else if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<|im_start|>user
<tool_response>
{{ .Content }}
</tool_response><|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}
{{- else }}
{{- if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ end }}{{ .Response }}{{ if .Response }}<|im_end|>{{ end }}"""  # noqa: E501 - as published


def test_qwen_2_5_s_shape() -> None:
    function = TOOL_JSON.removeprefix('{"type":"function","function":').removesuffix("}")

    assert rendered(QWEN25, SYSTEM, ASKED, CALLED, RESULT, tools=(TOOL,)) == (
        "<|im_start|>system\nS\n\n# Tools\n\n<tools>\n"
        f'{{"type": "function", "function": {function}}}\n</tools><|im_end|>\n'
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<tool_call>\n"
        '{"name": "get_weather", "arguments": {"city":"\\u003cRio\\u003e","unit":"C"}}\n'
        "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n30\n</tool_response><|im_end|>"
        "\n<|im_start|>assistant\n"
    )
    assert render_suffix(parse(QWEN25), "a(", ")", clock=CLOCK) == (
        "<|fim_prefix|>a(<|fim_suffix|>)<|fim_middle|>"
    )


HARMONY: Final = """<|start|>system<|message|>Current date: {{ currentDate }}
{{- $hasTools := gt (len .Tools) 0 }}
{{- $level := "medium" }}
{{- if .ThinkLevel }}{{ $level = .ThinkLevel }}{{ end }}

Reasoning: {{ $level }}<|end|>
{{- if $hasTools }}<|start|>developer<|message|>namespace functions {
{{- range .Tools }}
{{- if .Function.Description }}
// {{ .Function.Description }}
{{- end }}
type {{ .Function.Name }} = (_: {
{{- range $name, $prop := .Function.Parameters.Properties }}
{{- if $prop.Description }}
// {{ $prop.Description }}
{{- end }}
{{ $name }}: {{ toTypeScriptType $prop }}{{ if $prop.Enum }} /* {{ range $i, $e := $prop.Enum }}
{{- if $i }} | {{ end }}{{ $e }}{{ end }} */{{ end }},
{{- end }}
}) => any;
{{- end }}
}<|end|>
{{- end }}
{{- define "content" }}<|message|>{{ .Content }}<|end|>{{ end }}
{{- range .Messages }}
{{- if eq .Role "system" }}{{ continue }}{{ end }}<|start|>{{ .Role }}{{ template "content" . }}
{{- end }}<|start|>assistant"""


def test_gpt_oss_s_shape() -> None:
    date = CLOCK.now().astimezone().strftime("%Y-%m-%d")

    assert rendered(HARMONY, SYSTEM, ASKED, tools=(TOOL,), think="low") == (
        f"<|start|>system<|message|>Current date: {date}\n\nReasoning: low<|end|>"
        "<|start|>developer<|message|>namespace functions {\n// Tells the weather\n"
        "type get_weather = (_: {\n// Where\ncity: string,\nunit: string | null /* C | F */,\n"
        "}) => any;\n}<|end|><|start|>user<|message|>Q<|end|><|start|>assistant"
    )
    assert rendered(HARMONY, ASKED).endswith(
        "Reasoning: medium<|end|><|start|>user<|message|>Q<|end|><|start|>assistant"
    )


MISTRAL: Final = """{{- if .Messages }}
{{- range $index, $_ := .Messages }}
{{- if eq .Role "user" }}
{{- if and (eq (len (slice $.Messages $index)) 1) $.Tools }}[AVAILABLE_TOOLS] {{ $.Tools }}[/AVAILABLE_TOOLS]
{{- end }}[INST] {{ if and $.System (eq (len (slice $.Messages $index)) 1) }}{{ $.System }}

{{ end }}{{ .Content }}[/INST]
{{- else if eq .Role "assistant" }}
{{- if .Content }} {{ .Content }}</s>
{{- else if .ToolCalls }}[TOOL_CALLS] [
{{- range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{- end }}]</s>
{{- end }}
{{- else if eq .Role "tool" }}[TOOL_RESULTS] {"content": {{ .Content }}} [/TOOL_RESULTS]
{{- end }}
{{- end }}
{{- else }}[INST] {{ if .System }}{{ .System }}

{{ end }}{{ .Prompt }}[/INST]
{{- end }} {{ .Response }}
{{- if .Response }}</s>
{{- end }}"""  # noqa: E501 - as published


def test_mistral_s_shape() -> None:
    assert rendered(MISTRAL, SYSTEM, ASKED, ANSWERED, ASKED_AGAIN, tools=(TOOL,)) == (
        f"[INST] Q[/INST] A</s>[AVAILABLE_TOOLS] [{TOOL_JSON}][/AVAILABLE_TOOLS][INST] S\n\nR"
        "[/INST] "
    )
    assert rendered(MISTRAL, ASKED, CALLED, RESULT) == (
        '[INST] Q[/INST][TOOL_CALLS] [{"name": "get_weather", "arguments": '
        '{"city":"\\u003cRio\\u003e","unit":"C"}}]</s>[TOOL_RESULTS] {"content": 30} '
        "[/TOOL_RESULTS] "
    )


def test_templates_that_call_each_other_twice_each_run_out_of_steps() -> None:
    levels = "".join(
        f'{{{{define "a{n}"}}}}{{{{template "a{n + 1}"}}}}{{{{template "a{n + 1}"}}}}{{{{end}}}}'
        for n in range(50)
    )
    with pytest.raises(TemplateBroken, match="steps"):
        rendered(levels + '{{define "a50"}}x{{end}}{{template "a0"}}{{ .Messages }}', ASKED)


# Templates that parse, of anything that the language has, over anything that a chat has.

VALUE: Final[st.SearchStrategy[str]] = st.deferred(
    lambda: st.one_of(
        st.sampled_from(
            [
                ".", "$", ".Role", ".Content", ".ToolCalls", ".Thinking", ".System", ".Messages",
                "$.Messages", "$.Tools", ".Function.Name", ".Function.Arguments", ".Images", "$x",
                "$.Think", "$.ThinkLevel", '"<x>"', "`y`", "0", "1", "-1", "2.5", "true", "nil",
                "currentDate",
            ]
        ),
        st.tuples(
            st.sampled_from(
                ["len", "not", "json", "print", "html", "js", "toTypeScriptType", 'printf "%v %d"']
            ),
            VALUE,
        ).map(lambda parts: f"({parts[0]} {parts[1]})"),
        st.tuples(
            st.sampled_from(["eq", "ne", "lt", "ge", "and", "or", "index", "slice"]), VALUE, VALUE
        ).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
    )
)  # fmt: skip
NODE: Final[st.SearchStrategy[str]] = st.deferred(
    lambda: st.one_of(
        st.sampled_from(["text ", "\n", "<|im_start|>", "{{/* no */}}", "{{- `a` -}}"]),
        VALUE.map(lambda value: f"{{{{ {value} }}}}"),
        VALUE.map(lambda value: f"{{{{ $x = {value} }}}}"),
        st.tuples(VALUE, NODES, NODES).map(
            lambda parts: f"{{{{ if {parts[0]} }}}}{parts[1]}{{{{ else }}}}{parts[2]}{{{{ end }}}}"
        ),
        st.tuples(VALUE, NODES).map(
            lambda parts: f"{{{{- with {parts[0]} }}}}{parts[1]}{{{{ end -}}}}"
        ),
        st.tuples(VALUE, NODES).map(
            lambda parts: f"{{{{ range $i, $x := {parts[0]} }}}}{parts[1]}{{{{ end }}}}"
        ),
        st.tuples(VALUE, NODES, st.sampled_from(["break", "continue"])).map(
            lambda parts: (
                f"{{{{ range {parts[0]} }}}}{parts[1]}{{{{ if $x }}}}{{{{ {parts[2]} }}}}"
                "{{ end }}{{ else }}none{{ end }}"
            )
        ),
        st.just('{{ template "t" . }}'),
    )
)
NODES: Final[st.SearchStrategy[str]] = st.lists(NODE, max_size=3).map("".join)
MESSAGES: Final = st.lists(st.sampled_from([SYSTEM, ASKED, ANSWERED, CALLED, RESULT]), max_size=6)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(NODES, NODES, MESSAGES, st.sampled_from([None, True, False, "high"]))
def test_whatever_parses_prints_a_bounded_text_or_says_what_is_wrong(
    body: str, defined: str, messages: list[ChatMessage], think: Think
) -> None:
    template = f'{{{{ $x := 1 }}}}{{{{ define "t" }}}}{{{{ $x := 2 }}}}{defined}{{{{ end }}}}{body}'
    parsed = parse(template)

    try:
        text = render_chat(parsed, messages, clock=CLOCK, tools=(TOOL,), think=think)
    except TemplateBroken as exc:
        text = str(exc)

    assert len(text) <= TEXT_CHARS_MAX
