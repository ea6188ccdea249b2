"""Which API a path belongs to, and so what the body of an error looks like there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quart import Response

from ollamad.errors import OllamadError
from ollamad.http import errors
from ollamad.http.anthropic.errors import anthropic_error
from ollamad.http.doors import JSON_TYPE
from ollamad.http.openai.errors import openai_error

ErrorBody = Callable[[int, str, OllamadError | None], bytes]
"""Makes a body of a status and a message, and of the error itself where there is one."""


def _ollama_error(_status: int, message: str, _error: OllamadError | None = None) -> bytes:
    return errors.body_of(message)


_BODIES: Final[tuple[tuple[str, ErrorBody], ...]] = (
    ("/v1/messages", anthropic_error),
    ("/v1/", openai_error),
    ("/", _ollama_error),
)
"""By the beginning of the path, the first that fits."""


def error_body(path: str, status: int, message: str, error: OllamadError | None = None) -> bytes:
    """Return the body of an error for *path*."""
    make = next(make for prefix, make in _BODIES if path.startswith(prefix))
    return make(status, message, error)


def error_answer(path: str, error: OllamadError) -> Response:
    """Return *error* as a response in the shape that *path*'s clients know."""
    status = errors.status_of(error)
    return Response(
        error_body(path, status, error.message, error),
        status,
        headers=errors.headers_of(error),
        content_type=JSON_TYPE,
    )
