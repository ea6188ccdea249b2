"""Formats are derived from templates: Jinja's in the matrix, small ones and Go's here."""

from __future__ import annotations

import pytest

from ollamad.http.answer.format import PLAIN, format_of
from ollamad.http.answer.parts import Call, Marks
from ollamad.http.prompt.jinja import TEMPLATE_CHARS_MAX
from tests.unit.http.answer.reading import ADD, read, spelled
from tests.unit.http.prompt.gotemplate.shapes import LLAMA_3_2

CALLS = [
    Call(id="abcdefgh1", name="add", arguments={"a": 1, "b": 2}),
    Call(id="abcdefgh2", name="say", arguments={"what": 'a "b" {c}'}),
]

QWEN_3 = """
{{- $lastUserIdx := -1 -}}
{{- range $idx, $msg := .Messages -}}
{{- if eq $msg.Role "user" }}{{ $lastUserIdx = $idx }}{{ end -}}
{{- end }}
{{- if or .System .Tools }}<|im_start|>system
{{ if .System }}{{ .System }}{{ end }}
{{- if .Tools }}

# Tools

<tools>
{{- range .Tools }}
{"type": "function", "function": {{ .Function }}}
{{- end }}
</tools>

For each function call, return a json object within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>
{{- end -}}
<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if (and $.IsThinkSet (and .Thinking (or $last (gt $i $lastUserIdx)))) -}}
<think>{{ .Thinking }}</think>
{{ end -}}
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
{{ if and $.IsThinkSet (not $.Think) -}}
<think>

</think>

{{ end -}}
{{ end }}
{{- end }}"""

MISTRAL = """{{- range $index, $_ := .Messages }}
{{- if eq .Role "user" }}
{{- if and (eq (len (slice $.Messages $index)) 1) $.Tools }}[AVAILABLE_TOOLS] {{ $.Tools }}[/AVAILABLE_TOOLS]
{{- end }}[INST] {{ if and $.System (eq (len (slice $.Messages $index)) 1) }}{{ $.System }}

{{ end }}{{ .Content }}[/INST]
{{- else if eq .Role "assistant" }}
{{- if .Content }} {{ .Content }}
{{- else if .ToolCalls }}[TOOL_CALLS] [
{{- range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{- end }}]
{{- end }}</s>
{{- else if eq .Role "tool" }}[TOOL_RESULTS] {"content": {{ .Content }}} [/TOOL_RESULTS]
{{- end }}
{{- end }}"""  # noqa: E501 - a line break would be part of it

HERMES = """{{- if .Messages }}
{{- range .Messages }}<|im_start|>{{ if eq .Role "tool" }}user{{ else }}{{ .Role }}{{ end }}
{{ .Content }}{{ if .ToolCalls }}
{{- range .ToolCalls }}<tool_call>
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
</tool_call>
{{ end }}{{ end }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ end }}"""


@pytest.mark.parametrize(
    ("template", "trigger", "n_calls", "thinking"),
    [
        (LLAMA_3_2, "", 2, None),
        (QWEN_3, "<tool_call>", 2, Marks("<think>", "</think>")),
        (MISTRAL, "[TOOL_CALLS]", 2, None),
        (HERMES, "<tool_call>", 2, None),
    ],
    ids=["llama3.2", "qwen3", "mistral", "hermes"],
)
def test_templates_as_in_the_library_of_ollama(
    template: str, trigger: str, n_calls: int, thinking: Marks | None
) -> None:
    form = format_of(template)

    assert form.calls is not None
    assert (form.origin, form.calls.trigger, form.thinking) == ("derived", trigger, thinking)
    calls = CALLS[:n_calls]
    parts = read(form, form.calls.text(calls))
    assert spelled(parts.calls) == spelled(calls)
    assert parts.text == ""


def test_a_go_template_tells_whether_its_prompt_has_closed_thinking() -> None:
    form = format_of(QWEN_3)

    assert form.begins_thinking("<|im_start|>assistant\n<think>\n")
    assert not form.begins_thinking("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_only_the_beginning_of_an_answer_is_a_call_without_marks() -> None:
    form = format_of(LLAMA_3_2)
    call = '{"name": "add", "parameters": {"a": 1}}'

    assert spelled(read(form, f"\n{call}").calls) == [("add", {"a": 1})]
    assert read(form, f"So: {call}").text == f"So: {call}"


@pytest.mark.parametrize("answer", ['{"name": "Ann", "parameters": {}}', "[1, 2]", '{"a": [}'])
def test_json_that_calls_no_declared_tool_is_text(answer: str) -> None:
    assert read(format_of(LLAMA_3_2), answer, tools=[ADD]).text == answer


PYTHONIC = """{%- for message in messages -%}<|{{ message.role }}|>{{ message.content }}
{%- if message.tool_calls -%}[
{%- for call in message.tool_calls -%}
{{ call.function.name }}(
{%- for key, value in call.function.arguments.items() -%}
{{ key }}={% if value is string %}'{{ value }}'{% else %}{{ value }}{% endif %}
{%- if not loop.last %}, {% endif -%}
{%- endfor %}){% if not loop.last %}, {% endif -%}
{%- endfor -%}]{%- endif -%}<|end|>{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|>{% endif -%}"""


def test_pythons_calls_without_marks_are_derived() -> None:
    form = format_of(PYTHONIC)

    assert form.calls is not None
    assert (form.origin, form.calls.trigger) == ("derived", "")
    parts = read(form, "[add(a=1, b=-2), say(what='a \\'b\\'')]")
    assert spelled(parts.calls) == [("add", {"a": 1, "b": -2}), ("say", {"what": "a 'b'"})]
    assert read(form, "[1, 2]").text == "[1, 2]"


OLMO_3 = """{%- for message in messages -%}<|im_start|>{{ message.role }}
{{ message.content }}{% if message.tool_calls %}<function_calls>
{%- for call in message.tool_calls -%}
{{ call.function.name }}(
{%- for key, value in call.function.arguments.items() -%}
{{ key }}={{ value | tojson }}{% if not loop.last %}, {% endif -%}
{%- endfor %}){% if not loop.last %}{{ "\\n" }}{% endif -%}
{%- endfor -%}</function_calls>{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""

FUNCTION_GEMMA = """{%- for message in messages -%}<start_of_turn>{{ message.role }}
{{ message.content }}{% for call in message.tool_calls or [] %}<start_function_call>call:
{{- call.function.name }}{
{%- for key, value in call.function.arguments | dictsort -%}
{{ key }}:{% if value is string %}<escape>{{ value }}<escape>{% else %}{{ value }}{% endif %}
{%- if not loop.last %},{% endif %}{% endfor %}}<end_function_call>{% endfor %}<end_of_turn>
{% endfor -%}
{%- if add_generation_prompt %}<start_of_turn>model
{% endif -%}"""


@pytest.mark.parametrize("template", [OLMO_3, FUNCTION_GEMMA], ids=["olmo3", "functiongemma"])
def test_forms_that_are_neither_json_nor_tags_are_derived(template: str) -> None:
    form = format_of(template)

    assert form.calls is not None
    assert form.origin == "derived"
    parts = read(form, f"So: {form.calls.text(CALLS)}")
    assert (parts.text, spelled(parts.calls)) == ("So:", spelled(CALLS))


def test_a_template_that_only_asks_for_calls_in_a_known_form_has_that_form() -> None:
    form = format_of("{% for m in messages %}{{ m.content }}{% endfor %}{# <tool_call> #}")

    assert form.origin == "hermes"
    assert spelled(read(form, form.calls.text(CALLS) if form.calls else "").calls) == spelled(CALLS)


@pytest.mark.parametrize(
    "template",
    [
        "{{ .Prompt }}",
        "",
        "{% if %}",
        "{{ if }}",
        "{% for m in messages %}{{ raise_exception('no') }}{% endfor %}",
        "{% for m in messages %}{% for n in range(99999999) %}{% endfor %}{% endfor %}",
        "{% for m in messages %}" + " " * TEMPLATE_CHARS_MAX,
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}",
    ],
    ids=["text", "empty", "broken", "broken go", "refusing", "endless", "long", "plain"],
)
def test_a_template_that_tells_nothing_makes_all_of_an_answer_text(template: str) -> None:
    assert format_of(template) == PLAIN
    assert PLAIN.parser("prompt", [ADD]) is None
