"""Ids of answers, as OpenAI's and Anthropic's clients expect them."""

from __future__ import annotations

import secrets
from typing import Final

_ID_BYTES: Final = 12


def new_id(prefix: str) -> str:
    """Return an id that nothing else has. *prefix* says of what, with the sign after it."""
    return prefix + secrets.token_hex(_ID_BYTES)
