"""Errors in Anthropic's shape, with its types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from ollamad.errors import ContextTooLong, OllamadError
from ollamad.http.errors import status_of
from ollamad.http.ids import new_id
from ollamad.http.sse import event

_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Others below 500 are the caller's, `invalid_request_error`; the rest is ours, `api_error`."""

_OURS_FROM: Final = 500


class ErrorDetail(msgspec.Struct):
    """What went wrong."""

    type: str
    message: str


class ErrorBody(msgspec.Struct, kw_only=True):
    """What Anthropic's clients expect of an error."""

    type: Literal["error"] = "error"
    error: ErrorDetail
    request_id: str


def anthropic_error(status: int, message: str, error: OllamadError | None = None) -> bytes:
    """Return an error's body."""
    other = "api_error" if status >= _OURS_FROM else "invalid_request_error"
    if isinstance(error, ContextTooLong) and error.n_prompt is not None:
        # By these words agents know that it is time to shorten a conversation, and by how much.
        message = f"prompt is too long: {error.n_prompt} tokens > {error.n_ctx} maximum"
    detail = ErrorDetail(_TYPES.get(status, other), message)
    request_id = new_id("req_")
    return msgspec.json.encode(ErrorBody(error=detail, request_id=request_id))


def error_event(error: OllamadError) -> bytes:
    """Return the last event of an answer that ended early."""
    return event(anthropic_error(status_of(error), error.message, error), "error")
