"""The one table from errors to HTTP, and Ollama's error body.

The bodies of the other APIs are in their rooms; `ollamad.http.dialects` says which is whose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from ollamad import errors
from ollamad.errors import CannotServeNow, OllamadError
from ollamad.http.ollama.wire import encode

STATUS: Final[Mapping[type[OllamadError], int]] = {
    errors.InvalidBody: 400,
    errors.BodyTooLarge: 413,
    errors.InvalidName: 400,
    errors.InvalidDigest: 400,
    errors.UnsupportedOption: 400,
    errors.TemplateBroken: 400,
    errors.ContextTooLong: 400,
    errors.CapabilityMissing: 400,
    errors.NotGguf: 400,
    errors.ModelNotFound: 404,
    errors.BlobNotFound: 404,
    errors.ResponseNotFound: 404,
    errors.CloudDisabled: 403,
    errors.SignedOut: 401,
    errors.QueueFull: 503,
    errors.Draining: 503,
    errors.CoolingDown: 503,
    errors.DoesNotFit: 500,
    errors.LoadFailed: 500,
    errors.LoadTimedOut: 500,
    errors.RunnerCrashed: 500,
    errors.RunnerStalled: 500,
    errors.GenerationFailed: 500,
    errors.ModelCorrupt: 500,
    errors.StorageFailed: 500,
    errors.ProtocolBroken: 500,
}
"""Every leaf of the error tree has a row (a test walks the tree)."""


class ErrorBody(msgspec.Struct):
    """What Ollama's clients expect of an error."""

    error: str


def status_of(error: OllamadError) -> int:
    """Return the HTTP status for *error*: its class's, or the nearest ancestor's."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def headers_of(error: OllamadError) -> dict[str, str]:
    """Return the headers that go with *error*."""
    if isinstance(error, CannotServeNow):
        return {"Retry-After": str(max(math.ceil(error.retry_after_s), 1))}
    return {}


def body_of(message: str) -> bytes:
    """Return Ollama's error body, its text escaped like that of answers."""
    return encode(ErrorBody(message))


def only_error(exc: BaseException) -> BaseException:
    """Return the one error inside (nested) groups, or *exc* itself.

    Cancellation of a handler's neighbours can wrap its error in a group; the client is told
    about the error.
    """
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc
