"""The one table from the daemon's errors to those of the admin interface. A test walks the tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ollamad import adminwire as wire
from ollamad.errors import (
    BadRequest,
    CannotServe,
    CannotServeNow,
    NotFound,
    NotOffered,
    OllamadError,
    ProtocolBroken,
)


class Refused(Exception):
    """A call is answered with an error of the interface."""

    def __init__(self, error: wire.AdminError) -> None:
        super().__init__(error.message)
        self.error = error


class InvalidParameter(Exception):
    """A call has a parameter that the interface does not know, or of another type."""

    def __init__(self, parameter: str) -> None:
        super().__init__(parameter)
        self.parameter = parameter


Translate = Callable[[Any, str], wire.AdminError]
"""From an error (Any: of the class in the table) and the model that was asked for."""

FAMILIES: Final[Mapping[type[OllamadError], Translate]] = {
    BadRequest: lambda error, _: wire.BadRequest(message=error.message),
    NotFound: lambda error, model: wire.ModelNotFound(model=model, message=error.message),
    NotOffered: lambda error, _: wire.BadRequest(message=error.message),
    CannotServeNow: lambda error, _: wire.CannotServeNow(
        message=error.message, retry_after_s=error.retry_after_s
    ),
    CannotServe: lambda error, _: wire.CannotServe(message=error.message),
    ProtocolBroken: lambda error, _: wire.Failed(message=error.message),
}
"""What each family becomes; the classes below it are told apart by their messages."""


def refused(error: OllamadError, model: str) -> Refused:
    """Return *error*, met on behalf of *model*, as what the caller is told."""
    for family, translate in FAMILIES.items():
        if isinstance(error, family):
            return Refused(translate(error, model))
    raise AssertionError(f"{type(error).__name__} belongs to no family of errors") from error
