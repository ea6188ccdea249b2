"""OpenAI's API as tests speak it: questions to a site, and what its streams say."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.wire.site import Answer, Site

CHAT: Final = "/v1/chat/completions"
COMPLETE: Final = "/v1/completions"
DONE: Final = "[DONE]"


async def chat(site: Site, **fields: Any) -> Answer:
    """Ask one question; *fields* lie over it."""
    question = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    return await site.ask("POST", CHAT, {**question, **fields})


async def complete(site: Site, **fields: Any) -> Answer:
    """Have one prompt gone on with; *fields* lie over it."""
    return await site.ask("POST", COMPLETE, {"model": "tiny", "prompt": "one two", **fields})


def data_of(answer: Answer) -> list[str]:
    """Return what the events of a stream carry, as it stands there."""
    text = answer.body.decode()
    assert text.endswith("\n\n")
    events = text.removesuffix("\n\n").split("\n\n")
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    return [event.removeprefix("data: ") for event in events]


def events_of(answer: Answer) -> list[Any]:
    """Return the events of a stream that ends as it should."""
    *data, done = data_of(answer)
    assert done == DONE
    return [json.loads(one) for one in data]


def deltas_of(answer: Answer, index: int = 0) -> list[Any]:
    """Return the deltas of one answer of a stream, the last one included."""
    return [
        choice["delta"]
        for event in events_of(answer)
        for choice in event["choices"]
        if choice["index"] == index
    ]


def text_of(answer: Answer, index: int = 0) -> str:
    """Return all of one streamed answer's text."""
    return "".join(delta.get("content", "") for delta in deltas_of(answer, index))
