"""`Digest`: what a blob is called. Only SHA-256, as in Ollama's store and registry."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import Final

from ollamad.errors import InvalidDigest

_HEX: Final = re.compile(r"[0-9a-f]{64}")
_TEXT: Final = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The SHA-256 of some content. Make one with `parse` or `of`."""

    hex: str
    """64 lower-case hexadecimal digits."""

    def __post_init__(self) -> None:
        # It becomes a file name: nothing else may ever be in it, however it was made.
        if _HEX.fullmatch(self.hex) is None:
            raise InvalidDigest("invalid digest format")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Return the digest that `sha256:<hex>` or `sha256-<hex>` stands for.

        Raises InvalidDigest.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise InvalidDigest("invalid digest format")
        return cls(found[1].lower())

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Return the digest of *data*."""
        return cls(hashlib.sha256(data).hexdigest())

    @property
    def file_name(self) -> str:
        """The blob's name in the store's `blobs` folder."""
        return f"sha256-{self.hex}"

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
