"""What the text of a template tells about thoughts and tool calls."""

from __future__ import annotations

import pytest

from ollamad.http.prompt.gotemplate.inference import infer_thinking_tags, infer_tool_tag
from ollamad.http.prompt.gotemplate.template import parse
from tests.unit.http.prompt.gotemplate.shapes import (
    CHATML,
    CHATML_LEGACY,
    LLAMA3_TOOLS,
    MISTRAL_TOOLS,
    QWEN_THINK,
)


@pytest.mark.parametrize(
    ("template", "tags"),
    [
        (QWEN_THINK, ("<think>", "</think>")),
        (CHATML, None),
        ("{{ range .Messages }}{{ if .Thinking }}<t>\n{{ .Thinking }}\n</t>{{ end }}{{ end }}",
         ("<t>", "</t>")),
        ("{{ range $i, $m := .Messages }}a {{ .Thinking }} b{{ end }}", ("a", "b")),
        ("{{ range slice .Messages 1 }}a{{ .Thinking | json }}b{{ end }}", ("a", "b")),
        ("{{ range .Others }}a{{ .Thinking }}b{{ end }}", None),
        ("{{ range .Messages }}{{ range .X }}a{{ .Thinking }}b{{ end }}{{ end }}", None),
        ("a{{ .Thinking }}b{{ range .Messages }}{{ end }}", None),
        ("{{ range .Messages }}{{ .Thinking }}b{{ end }}", None),
        ("{{ range .Messages }}a{{ .Thinking }} {{ end }}", None),
        ("{{ range .Messages }}a{{ $.Thinking }}b{{ end }}", None),
        ("{{ range .Messages }}a{{ .Thinking }}b{{ .Role }}c{{ .Thinking }}d{{ end }}", ("a", "d")),
        ("{{ range .Messages }}a{{ .Thinking }}b{{ with 1 }}c{{ .Thinking }}d{{ end }}{{ end }}",
         ("c", "d")),
    ],
)  # fmt: skip
def test_thinking_tags_stand_around_thinking_in_the_loop_over_messages(
    template: str, tags: tuple[str, str] | None
) -> None:
    assert infer_thinking_tags(parse(template)) == tags


@pytest.mark.parametrize(
    ("template", "tag"),
    [
        (QWEN_THINK, "<tool_call>"),
        (MISTRAL_TOOLS, "[TOOL_CALLS] ["),
        (LLAMA3_TOOLS, "{"),
        (CHATML_LEGACY, "{"),
        ("{{ if .ToolCalls }}{{ end }}", "{"),
        ("{{ if .ToolCalls }} {{ range .ToolCalls }}<x> {{ . }}{{ end }}{{ end }}", "<x>"),
        ("{{ if .ToolCalls }}{{ .Content }}<x>{{ end }}", "{"),
        ("{{ if .ToolCalls }}{{ if .A }}{{ .B }}{{ else }}<x>{{ end }}<y>{{ end }}", "<x>"),
        ("{{ if .A }}x{{ else }}{{ if and .B .ToolCalls }}<t>{{ end }}{{ end }}", "<t>"),
        ("{{ with .A }}{{ range .B }}{{ if .ToolCalls }}<t>{{ end }}{{ end }}{{ end }}", "<t>"),
        ("{{ range .ToolCalls }}<no>{{ end }}", "{"),
    ],
)
def test_the_tool_tag_is_the_first_text_where_calls_are_written(template: str, tag: str) -> None:
    assert infer_tool_tag(parse(template)) == tag
