"""`ModelName`: what a model is called. Parsing, defaults, validation and display.

The grammar is `[scheme://][host/][namespace/]model[:tag]`, parsed from the right, with Ollama's
defaults. Names keep their case; looking one up ignores it (`ModelName.key`).
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import PurePosixPath
from typing import Final

from ollamad.errors import InvalidName

DEFAULT_HOST: Final = "registry.ollama.ai"
DEFAULT_NAMESPACE: Final = "library"
DEFAULT_TAG: Final = "latest"

# Only ASCII, and never a leading dot or dash: each part becomes a path component of the store.
_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_MODEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """A complete, valid model name."""

    host: str = DEFAULT_HOST
    namespace: str = DEFAULT_NAMESPACE
    model: str
    tag: str = DEFAULT_TAG
    scheme: str = dataclasses.field(default="https", compare=False)
    """How the registry is reached. No part of the model's identity."""

    def __post_init__(self) -> None:
        parts = (
            (_HOST, self.host),
            (_NAMESPACE, self.namespace),
            (_MODEL, self.model),
            (_MODEL, self.tag),
        )
        if not all(pattern.fullmatch(part) for pattern, part in parts):
            raise InvalidName("invalid model name")

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Return the name that *text* stands for, with defaults filled in.

        Raises InvalidName.
        """
        rest, fields = text, {}
        before, colon, after = rest.rpartition(":")
        if colon and "/" not in after:
            rest, fields["tag"] = before, after
        rest, slash, fields["model"] = rest.rpartition("/")
        if slash:
            rest, slash, fields["namespace"] = rest.rpartition("/")
        if slash:
            scheme, separator, host = rest.rpartition("://")
            fields["host"] = host
            if separator:
                fields["scheme"] = scheme
        return cls(**fields)

    @property
    def display(self) -> str:
        """The shortest form that still has model and tag: `llama3:latest`, `me/mine:x`."""
        short = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{short}"
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{short}"
        return short

    @property
    def full(self) -> str:
        """All parts, without the scheme."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def path(self) -> PurePosixPath:
        """Where the manifest lies below the store's `manifests` folder."""
        return PurePosixPath(self.host, self.namespace, self.model, self.tag)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What two names must share to be the same model: their parts, ignoring case."""
        return (
            self.host.lower(),
            self.namespace.lower(),
            self.model.lower(),
            self.tag.lower(),
        )

    def __str__(self) -> str:
        return self.display
