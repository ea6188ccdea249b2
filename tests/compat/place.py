"""Where clients are tried: a real daemon with a real model for each thing that they do.

A client's class has a method for each feature. What all of them are held to is here: the questions,
the shapes that their answers must have, and that a client which leaves holds nothing up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import ollama
from pydantic import BaseModel

from tests.process.daemonprocess import DaemonProcess, a_daemon
from tests.process.minilm import write_minilm

CHATTER: Final = "smollm2:135m"
EMBEDDER: Final = "minilm"
CALLER: Final = "caller"

ANSWER_TOKENS: Final = 24
CALL_TOKENS: Final = 200
"""Enough for a call, or for a parsed answer."""
LONG_TOKENS: Final = 1500
"""Of an answer that nobody waits for: it would take many seconds."""
LEFT_TOKENS_MAX: Final = 300
"""Tokens that may be generated of it before the daemon has noticed."""
FREE_WITHIN_S: Final = 10.0

SKY: Final = "Why is the sky blue?"
COUNT: Final = "Count from one to a thousand, in words."
NOBODY: Final = "nobody"
TEXTS: Final = (
    "The sea is blue.",
    "The ocean has the colour of the sky.",
    "Fix the null pointer in the parser.",
)

CALLS_TEMPLATE: Final = (
    "{%- if tools %}<|im_start|>system\n"
    "Tools: {{ tools | tojson }}\n"
    'Call one with <tool_call>{"name": NAME, "arguments": ARGUMENTS}</tool_call><|im_end|>\n'
    "{%- endif %}"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}"
    "{%- for call in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)
"""For APIs that cannot force a call: a template with calls, which a small model copies."""

WEATHER: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo", "Paris"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CITIES: Final = ("Rome", "Oslo", "Rome", "Oslo")
"""What was asked before, where calls are copied."""


class Country(BaseModel):
    """What an answer is parsed into."""

    name: str
    continent: Literal["Africa", "America", "Asia", "Europe", "Oceania"]
    is_island: bool


ABOUT_FRANCE: Final = "Tell me about France as JSON with name, continent and is_island."


@dataclasses.dataclass(frozen=True)
class Place:
    """A daemon's address, and what is expected of whoever talks to it."""

    url: str

    def assert_left(self) -> None:
        """A stream was left in its middle: its slot is free, long before the answer's end."""
        began = time.monotonic()
        while self._engine()["slots_busy"]:
            assert time.monotonic() - began < FREE_WITHIN_S, "the daemon goes on generating"

    @contextlib.contextmanager
    def leaving(self) -> Iterator[None]:
        """A long answer that is left inside the block is not generated to its end."""
        before = self._engine()["generated_tokens"]
        yield
        self.assert_left()
        assert self._engine()["generated_tokens"] - before < LEFT_TOKENS_MAX

    def _engine(self) -> dict[str, Any]:
        models = httpx.get(self.url + "/api/ps").json()["models"]
        # The caller has the same weights, so it is the same runner, under the name last used.
        (engine,) = [one["engine"] for one in models if not one["name"].startswith(EMBEDDER)]
        return dict(engine)


@contextlib.contextmanager
def a_place(folder: Path) -> Iterator[Place]:
    """Run a daemon with a model to chat, one to call tools and one to embed."""
    with a_daemon(folder, {"OLLAMA_CONTEXT_LENGTH": "2048"}) as daemon:
        _prepare(daemon, folder)
        yield Place(daemon.url)


def _prepare(daemon: DaemonProcess, folder: Path) -> None:
    client = ollama.Client(daemon.url)
    try:
        path = write_minilm(folder / "minilm.gguf")
        client.create(EMBEDDER, files={path.name: client.create_blob(path)})
        client.create(CALLER, from_=CHATTER, template=CALLS_TEMPLATE)
        client.generate(CHATTER, "")  # Loaded, so that its engine is shown.
    finally:
        client._client.close()


# What answers must be


def assert_answers(text: str | None) -> None:
    """*text* is about the sky."""
    assert "sky" in (text or "").lower()


def assert_streamed(parts: Sequence[str | None], whole: str | None) -> None:
    """*parts* came one after another and are the same answer as *whole*."""
    assert len(parts) > 3
    assert "".join(part or "" for part in parts) == whole


def assert_near(vectors: Sequence[Sequence[float]]) -> None:
    """The vectors of `TEXTS` have length 1, and those with one meaning are near each other."""
    assert [len(vector) for vector in vectors] == [384] * len(TEXTS)
    assert all(abs(_dot(vector, vector) - 1) < 1e-4 for vector in vectors)
    assert _dot(vectors[0], vectors[1]) > 0.4
    assert _dot(vectors[0], vectors[2]) < 0.2


def assert_calls_weather(name: str | None, arguments: object) -> None:
    """The call is one of the tool, with arguments of its schema."""
    assert name == "get_weather"
    assert isinstance(arguments, dict)
    assert arguments.keys() == {"city"}
    assert arguments["city"] in WEATHER["function"]["parameters"]["properties"]["city"]["enum"]


def assert_is_country(value: object) -> None:
    """The answer was parsed."""
    assert isinstance(value, Country)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.sumprod(a, b) if hasattr(math, "sumprod") else sum(map(lambda x, y: x * y, a, b))
