"""Errors in Anthropic's shape, with its types."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

import msgspec

from ollamad.errors import ContextTooLong, OllamadError
from ollamad.http.errors import status_of
from ollamad.http.sse import event

_ID_BYTES: Final = 12
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


class _Detail(msgspec.Struct):
    type: str
    message: str


class _Body(msgspec.Struct):
    type: str
    error: _Detail
    request_id: str


def anthropic_error(status: int, message: str, error: OllamadError | None = None) -> bytes:
    """Return an error's body."""
    other = "api_error" if status >= _OURS_FROM else "invalid_request_error"
    if isinstance(error, ContextTooLong) and error.n_prompt is not None:
        # By these words agents know that it is time to shorten a conversation, and by how much.
        message = f"prompt is too long: {error.n_prompt} tokens > {error.n_ctx} maximum"
    detail = _Detail(_TYPES.get(status, other), message)
    return msgspec.json.encode(_Body("error", detail, f"req_{secrets.token_hex(_ID_BYTES)}"))


def error_event(error: OllamadError) -> bytes:
    """Return the last event of an answer that ended early."""
    return event(anthropic_error(status_of(error), error.message, error), "error")
