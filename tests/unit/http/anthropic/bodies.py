"""Requests of Anthropic's API for tests. Named arguments only."""

from __future__ import annotations

import json
from typing import Any

HELLO = {"role": "user", "content": "hi"}
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def a_body(**fields: object) -> bytes:
    """Return a body that asks `tiny` for sixteen tokens."""
    return json.dumps({"model": "tiny", "max_tokens": 16, "messages": [HELLO], **fields}).encode()
