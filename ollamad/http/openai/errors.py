"""Errors in OpenAI's shape, with its types and codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from ollamad import errors
from ollamad.errors import InvalidBody, OllamadError

_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "invalid_request_error",
}
"""Other statuses are ours to answer for: `api_error`."""

_CODES: Final[Mapping[type[OllamadError], str]] = {
    errors.ContextTooLong: "context_length_exceeded",
    errors.ModelNotFound: "model_not_found",
    errors.QueueFull: "rate_limit_exceeded",
}
"""What clients look for to decide what to do next."""


_ABSENT: Final[Mapping[str, str]] = {
    "/v1/audio/": "models that hear or speak are not supported",
    "/v1/images/": "models that make images are not supported",
}
"""Why there are no such routes, where it can be said."""

_SHOWN_CHARS_MAX: Final = 100


class ErrorDetail(msgspec.Struct):
    """What went wrong, for people and for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct):
    """What OpenAI's clients expect of an error."""

    error: ErrorDetail


def refused(param: str, words: str, code: str | None = None) -> InvalidBody:
    """Return an error about the field *param*."""
    return InvalidBody(f"{param}: {words}", param=param, code=code)


def unknown_route(method: str, path: str) -> str:
    """Return what is said of a route that is not there."""
    told = f"Unknown request URL: {method} {path[:_SHOWN_CHARS_MAX]}"
    reason = next((words for prefix, words in _ABSENT.items() if path.startswith(prefix)), None)
    return f"{told}: {reason}" if reason else told


def openai_error(status: int, message: str, error: OllamadError | None = None) -> bytes:
    """Return an error's body."""
    return msgspec.json.encode(ErrorBody(error_detail(status, message, error)))


def error_detail(status: int, message: str, error: OllamadError | None = None) -> ErrorDetail:
    """Return what a body, or an event, says of an error."""
    code = next((_CODES[cls] for cls in type(error).__mro__ if cls in _CODES), None)
    param = None
    if isinstance(error, InvalidBody):
        param, code = error.param, error.code
    return ErrorDetail(message, _TYPES.get(status, "api_error"), param, code)
