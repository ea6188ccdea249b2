"""Each API has its own shape for an error, whatever went wrong and where."""

from __future__ import annotations

import json

import pytest

from ollamad.errors import ContextTooLong, ModelNotFound, OllamadError, QueueFull
from ollamad.http.dialects import error_body


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/chat", {"error": "gone"}),
        (
            "/v1/chat/completions",
            {
                "error": {
                    "message": "gone",
                    "type": "not_found_error",
                    "param": None,
                    "code": "model_not_found",
                }
            },
        ),
    ],
)
def test_an_error_has_the_shape_of_its_path(path: str, expected: object) -> None:
    assert json.loads(error_body(path, 404, "gone", ModelNotFound("gone"))) == expected


def test_anthropics_errors_have_a_request_id() -> None:
    body = json.loads(error_body("/v1/messages/count_tokens", 503, "full", QueueFull("full")))

    assert body["type"] == "error"
    assert body["error"] == {"type": "overloaded_error", "message": "full"}
    assert body["request_id"].startswith("req_")


@pytest.mark.parametrize(
    ("status", "error", "kind", "code"),
    [
        (400, ContextTooLong("long"), "invalid_request_error", "context_length_exceeded"),
        (500, None, "api_error", None),
        (413, None, "invalid_request_error", None),
    ],
)
def test_openais_types_and_codes_say_what_to_do_next(
    status: int, error: OllamadError | None, kind: str, code: str | None
) -> None:
    detail = json.loads(error_body("/v1/completions", status, "words", error))["error"]

    assert (detail["type"], detail["code"]) == (kind, code)
