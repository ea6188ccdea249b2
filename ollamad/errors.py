"""The error tree. Every class says whose fault it is; `ollamad.http.errors` maps each to a status.

The first axis is fault: the caller's (`BadRequest`, `NotFound`, `NotOffered`), ours but passing
(`CannotServeNow`), ours and lasting (`CannotServe`), or a bug (`ProtocolBroken`).
Messages are for the person who reads them: they say what to do next where something can be done.
Cancellation is not an error and has no class: the client is gone.
"""

from __future__ import annotations


class OllamadError(Exception):
    """Something that a client of the daemon may be told."""

    @property
    def message(self) -> str:
        """The text a client sees."""
        return str(self)


class BadRequest(OllamadError):
    """The caller asked for something that cannot be meant."""


class InvalidBody(BadRequest):
    """The body is missing, is not JSON, or has a field of the wrong type."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        """The field that is wrong, where it is one."""
        self.code = code
        """A word for programs, in APIs that have such words."""


class BodyTooLarge(BadRequest):
    """The body is larger than this route takes."""


class InvalidName(BadRequest):
    """A model name does not follow the grammar of `ollamad.names`."""


class InvalidDigest(BadRequest):
    """A digest is not `sha256:` and 64 hexadecimal digits, or does not match the content."""


class UnsupportedOption(BadRequest):
    """An option has a value of the wrong type or out of range, or asks for what is not there."""


class TemplateBroken(BadRequest):
    """A prompt template does not parse, or fails on these messages."""


class ContextTooLong(BadRequest):
    """The prompt has more tokens than the model's context holds."""

    def __init__(
        self, message: str, *, n_prompt: int | None = None, n_ctx: int | None = None
    ) -> None:
        super().__init__(message)
        self.n_prompt = n_prompt
        """Tokens of the prompt; `None` where they were counted in the runner only."""
        self.n_ctx = n_ctx
        """Tokens that the context holds."""


class CapabilityMissing(BadRequest):
    """The model cannot do this at all (for example think, or call tools)."""


class NotGguf(BadRequest):
    """The supplied file is not GGUF, or a broken one."""


class NotFound(OllamadError):
    """The caller named something that is not here."""


class ModelNotFound(NotFound):
    """No model of that name is stored."""


class BlobNotFound(NotFound):
    """No blob of that digest is stored."""


class ResponseNotFound(NotFound):
    """No earlier response is kept, whatever its id."""


class NotOffered(OllamadError):
    """The caller asked for a service of ollama.com: here, nothing leaves this machine."""


class CloudDisabled(NotOffered):
    """What runs on ollama.com only: its models, searching the web."""


class SignedOut(NotOffered):
    """What needs an account: there are none here."""


class CannotServeNow(OllamadError):
    """We cannot serve this at the moment; the same request may succeed later."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds after which trying again makes sense; becomes `Retry-After`."""


class QueueFull(CannotServeNow):
    """As many requests wait as may wait."""


class Draining(CannotServeNow):
    """The daemon is stopping or taking no new work."""


class CoolingDown(CannotServeNow):
    """The model's runner failed repeatedly; it is not restarted before a pause is over."""


class CannotServe(OllamadError):
    """We cannot serve this, and trying again will not help by itself."""


class DoesNotFit(CannotServe):
    """The model needs more memory than any device can ever give it."""


class LoadFailed(CannotServe):
    """The runner could not load the model."""


class LoadTimedOut(CannotServe):
    """Loading made no progress for longer than the load timeout."""


class RunnerCrashed(CannotServe):
    """The runner's process ended under a request."""

    def __init__(self, message: str, *, blames_request: bool = False) -> None:
        super().__init__(message)
        self.blames_request = blames_request
        """The request itself is what runners probably die of: it should not be tried again."""


class RunnerStalled(CannotServe):
    """The runner's engine made no progress for too long and was stopped."""


class GenerationFailed(CannotServe):
    """The engine could not finish this one request; other requests go on."""


class ModelCorrupt(CannotServe):
    """A stored model's files are damaged or incomplete."""


class StorageFailed(CannotServe):
    """The disk refused to read or write (full, read-only, permissions)."""


class ProtocolBroken(OllamadError):
    """A bug: one side of an internal protocol did what it must not."""


class StartupError(Exception):
    """The daemon cannot start. Told to the person who starts it, never to an HTTP client."""


class ConfigError(StartupError):
    """A setting is unknown or has a bad value; the message names where it came from."""
