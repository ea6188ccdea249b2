"""What can go wrong on the command line, apart from what `ollamad.errors` already names.

Every class ends as one line `Error: <message>` on stderr and exit code 1; see `cli.py`.
"""

from __future__ import annotations


class CtlError(Exception):
    """Something that the person at the terminal is told; the message says what to do."""


class CannotConnect(CtlError):
    """Nothing answers at the daemon's address."""


class ConnectionLost(CtlError):
    """The daemon stopped answering in the middle."""


class BadAnswer(CtlError):
    """What answers does not speak this API."""


class ApiError(CtlError):
    """The daemon refused or failed, and said why."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status, or 0 for an error in the middle of a stream."""
        self.reason = reason
        """The words of the status line, `Not Found`."""

    @property
    def with_status(self) -> str:
        """The message as streaming commands show it: `404 Not Found: model 'x' not found`."""
        return f"{self.status} {self.reason}: {self}" if self.status else str(self)


class AdminRefused(CtlError):
    """The daemon refused a call over its admin socket, and said why."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name
        """The error's name in the interface."""


class ModelfileError(CtlError):
    """A Modelfile that cannot be used; the message says which line."""
