from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ollamad.convert.gguffacts import facts
from ollamad.convert.ggufheader import read_header
from ollamad.modelinfo import GgufFacts
from ollamad.registry.capabilities import (
    capabilities,
    is_jinja,
    jinja_capabilities,
    prefers_embedded,
)
from tests.builders import a_gguf

JINJA_PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
JINJA_TOOLS = "{% if tools %}{{ tools }}{% endif %}"
JINJA_RETURNS = JINJA_TOOLS + "{{ m.tool_calls }}{% if m.role == 'tool' %}{% endif %}"
JINJA_THINKS = JINJA_TOOLS + "<think></think>"
GO_PLAIN = "{{ .System }}{{ .Prompt }}"
GO_TOOLS = "{{ .Tools }}"
GO_RETURNS = '{{ .Tools }}{{ .ToolCalls }}{{ if eq .Role "tool" }}{{ end }}'


def _facts(folder: Path, **fields: Any) -> GgufFacts:
    return facts(read_header(a_gguf(folder / "a.gguf", **fields)))


@pytest.mark.parametrize(
    ("template", "embedded", "preferred"),
    [
        (None, "", False),
        (None, JINJA_PLAIN, True),
        (GO_TOOLS, "", False),
        (GO_PLAIN, JINJA_PLAIN, False),
        (GO_PLAIN, JINJA_TOOLS, True),
        (GO_RETURNS, JINJA_THINKS, False),
        (GO_TOOLS, JINJA_TOOLS, False),
        (GO_TOOLS, JINJA_RETURNS, True),
        (GO_RETURNS, JINJA_RETURNS, False),
        (GO_RETURNS, JINJA_RETURNS + "<think></think>", True),
        (GO_TOOLS, JINJA_THINKS, True),
        ("{{ .Tools }}{{ .Suffix }}", JINJA_TOOLS, False),
        (JINJA_TOOLS, JINJA_RETURNS, True),
        (JINJA_THINKS, JINJA_TOOLS, False),
    ],
)
def test_the_template_layer_wins_unless_the_embedded_one_can_do_more(
    template: str | None, embedded: str, preferred: bool
) -> None:
    assert prefers_embedded(template, embedded) is preferred


@pytest.mark.parametrize(
    "text",
    [
        "<think></think>",
        "{{ m.content.split('</think>') }}",
        "{% if enable_thinking %}<|channel>{% endif %}",
        "{{ message.reasoning_content }}",
        "{% if message.reasoning %}{% endif %}",
    ],
)
def test_a_template_with_a_switch_or_a_place_for_thoughts_is_one_of_a_thinker(text: str) -> None:
    assert jinja_capabilities(text) == ["thinking"]
    assert jinja_capabilities(JINJA_PLAIN) == []


def test_jinja_and_go_are_told_apart() -> None:
    assert is_jinja(JINJA_PLAIN)
    assert not is_jinja(GO_RETURNS)


INFILL = {f"tokenizer.ggml.fim_{part}_token_id": 3 for part in ("pre", "suf", "mid")}


@pytest.mark.parametrize(
    ("template", "fields", "expected"),
    [
        (None, {}, ("completion",)),
        (None, {"chat_template": JINJA_THINKS}, ("tools", "thinking", "completion")),
        (GO_PLAIN, {}, ("completion",)),
        (
            "{{ .Tools }}{{ .Suffix }}{{ .Thinking }}",
            {},
            ("completion", "tools", "insert", "thinking"),
        ),
        (JINJA_TOOLS, {}, ("completion", "tools")),
        (None, {"metadata": {"llama.pooling_type": 1}}, ("embedding",)),
        (JINJA_TOOLS, {"metadata": INFILL}, ("completion", "tools", "insert")),
        (None, {"metadata": {**INFILL, "llama.pooling_type": 1}}, ("embedding",)),
        (
            None,
            {"metadata": {"llama.vision.block_count": 1, "llama.audio.block_count": 1}},
            ("completion", "vision", "audio"),
        ),
    ],
)
def test_capabilities_come_in_ollamas_order(
    tmp_path: Path, template: str | None, fields: dict[str, Any], expected: tuple[str, ...]
) -> None:
    known = _facts(tmp_path, **fields)

    found = capabilities(stated=(), facts=known, projector=None, template=template, family="llama")

    assert found == expected


def test_stated_ones_come_first_and_none_comes_twice(tmp_path: Path) -> None:
    found = capabilities(
        stated=("image", "completion"),
        facts=_facts(tmp_path),
        projector=_facts(tmp_path, architecture="clip", metadata={"clip.has_audio_encoder": True}),
        template=None,
        family="gptoss",
    )

    assert found == ("image", "completion", "vision", "audio", "thinking")
