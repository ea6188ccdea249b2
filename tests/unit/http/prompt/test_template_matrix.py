"""Larger models' templates render as in Hugging Face's library; what does not is explained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from ollamad.http.prompt.jinjaprobe import expectations_of
from tests.matrix.templates import CASES, Verdict, compare, hugging_face_form, matrix, raw, theirs
from tests.templatefolder import FETCH_TIMEOUT_S

pytestmark = pytest.mark.timeout(FETCH_TIMEOUT_S)

EXPLAINED: Final[Mapping[str, str]] = {
    "CohereForAI-c4ai-command-r-plus-tool_use": "it fails without tools, unless they are undefined",
    "GigaChat3-10B-A1.8B": "it shows only the first of several calls",
    "GigaChat3.1-10B-A1.8B": "it shows only the first of several calls",
    "Kimi-K2-Instruct": "it appends to a list, which the sandbox of both refuses",
    "Kimi-K2-Thinking": "it appends to a list, which the sandbox of both refuses",
    "Mistral-Small-3.2-24B-Instruct-2506": "it refuses two questions in a row",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "it fails without tools, unless undefined",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": "it fails without tools, unless undefined",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "it wants arguments as text, and no content",
    "google-gemma-2-2b-it": "it refuses system messages, tools, and two questions in a row",
    "llama-cpp-deepseek-r1": "it writes a generator as JSON, which fails in both",
    "meetkai-functionary-medium-v3.2": "it wants arguments as text",
    "meta-llama-Llama-3.1-8B-Instruct": "it refuses several calls in one message",
    "meta-llama-Llama-3.2-3B-Instruct": "it refuses several calls in one message",
    "meta-llama-Llama-3.3-70B-Instruct": "it refuses several calls in one message",
    "mistralai-Ministral-3-14B-Reasoning-2512": "it refuses two questions in a row",
    "mistralai-Mistral-Nemo-Instruct-2407": "it refuses two questions in a row",
    "openai-gpt-oss-120b": "it shows only the first of several calls",
}
"""Templates that do not make the same of every chat, when it is written in the usual form."""


def test_all_chats_render_as_in_hugging_face_s_library_but_for_what_is_explained(
    chat_templates: dict[str, str],
) -> None:
    rows = matrix(chat_templates)
    chats = {
        name: {title: row[title] for title, case in CASES.items() if not case.is_raw}
        for name, row in rows.items()
    }

    assert len(rows) >= 70
    assert [name for name, row in rows.items() if Verdict.DIFFERENT in row.values()] == []
    differing = {name for name, row in chats.items() if set(row.values()) != {Verdict.SAME}}
    assert differing == set(EXPLAINED)


def test_the_language_is_the_same_for_messages_as_they_come(
    chat_templates: dict[str, str],
) -> None:
    """Without what we do for templates that expect something else: failures are the same, too."""
    verdicts = {
        (name, title): compare(
            raw(text, case), theirs(text, case, hugging_face_form(case.messages))
        )
        for name, text in chat_templates.items()
        for title, case in CASES.items()
        if not case.continues
    }

    assert len(verdicts) == len(chat_templates) * (len(CASES) - 1)
    assert [key for key, verdict in verdicts.items() if verdict is Verdict.DIFFERENT] == []


def test_what_templates_expect_is_found_by_trying(chat_templates: dict[str, str]) -> None:
    expected = {name: expectations_of(text) for name, text in chat_templates.items()}

    def names(attribute: str, value: object) -> set[str]:
        return {name for name, one in expected.items() if getattr(one, attribute) == value}

    assert names("takes_system", False) == {"google-gemma-2-2b-it"}
    assert names("ids_are_short", True) == {
        "Mistral-Small-3.2-24B-Instruct-2506",
        "mistralai-Mistral-Nemo-Instruct-2407",
    }
    assert names("needs_ids", True) > names("ids_are_short", True)
    assert names("arguments_are_text", True) == {
        "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
        "meetkai-functionary-medium-v3.2",
    }
    assert "openai-gpt-oss-120b" in names("takes_calls_together", False)
