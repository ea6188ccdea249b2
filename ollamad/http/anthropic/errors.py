"""Errors in Anthropic's shape, with its types."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

import msgspec

from ollamad.errors import OllamadError

_ID_BYTES: Final = 12
_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
"""Other statuses are ours to answer for: `api_error`."""


class _Detail(msgspec.Struct):
    type: str
    message: str


class _Body(msgspec.Struct):
    type: str
    error: _Detail
    request_id: str


def anthropic_error(status: int, message: str, _error: OllamadError | None = None) -> bytes:
    """Return an error's body."""
    detail = _Detail(_TYPES.get(status, "api_error"), message)
    return msgspec.json.encode(_Body("error", detail, f"req_{secrets.token_hex(_ID_BYTES)}"))
