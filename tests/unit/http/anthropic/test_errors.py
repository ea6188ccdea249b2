"""Errors have Anthropic's types, and are events once an answer has begun."""

from __future__ import annotations

import json

import pytest

from ollamad.errors import ContextTooLong, QueueFull
from ollamad.http.anthropic.errors import anthropic_error, error_event


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (408, "timeout_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_a_status_has_its_type(status: int, kind: str) -> None:
    assert json.loads(anthropic_error(status, "words"))["error"] == {
        "type": kind,
        "message": "words",
    }


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_agents_know() -> None:
    counted = ContextTooLong("too long", n_prompt=5000, n_ctx=4096)
    uncounted = ContextTooLong("the runner says so")

    told = [
        json.loads(anthropic_error(400, str(one), one))["error"] for one in (counted, uncounted)
    ]

    assert told[0]["message"] == "prompt is too long: 5000 tokens > 4096 maximum"
    assert told[1]["message"] == "the runner says so"


def test_an_error_in_an_answer_is_its_last_event() -> None:
    name, data, *rest = error_event(QueueFull("full")).split(b"\n")

    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: "))["error"] == {
        "type": "overloaded_error",
        "message": "full",
    }
    assert rest == [b"", b""]
