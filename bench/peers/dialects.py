"""The two languages: how a question is put to each server, and how its answers are read.

Pure. Both are asked for the same work: the same text as it is, greedy, so many tokens. What is
counted is what each server says that it computed.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Final, Protocol

from bench.peers.clients import Answer, LoadFailed
from bench.peers.wire import event_of, request_bytes

MODEL: Final = "bench"
"""What the model is called in our store."""


@dataclasses.dataclass(frozen=True, slots=True)
class Completion:
    """One streamed answer, as the client saw it."""

    text: str
    n_tokens: int
    n_prompt_tokens: int
    started_s: float
    arrivals_s: tuple[float, ...]
    """When each piece of text was there."""

    server_decode_s: float
    """The time for the tokens by the server's own clock."""

    @property
    def first_s(self) -> float:
        """The wait for the first text."""
        return self.arrivals_s[0] - self.started_s

    @property
    def last_s(self) -> float:
        """From the request to the last text."""
        return self.arrivals_s[-1] - self.started_s

    @property
    def decode_per_s(self) -> float:
        """Tokens per second from the first to the last."""
        return (self.n_tokens - 1) / (self.arrivals_s[-1] - self.arrivals_s[0])

    def gaps_s(self, *, after_s: float = 0.0, until_s: float = float("inf")) -> list[float]:
        """Return the times between two pieces, of those that arrived in this span of the clock."""
        return [
            later - earlier
            for earlier, later in itertools.pairwise(self.arrivals_s)
            if after_s <= later <= until_s
        ]

    def gaps_across_s(self, *, after_s: float, until_s: float) -> list[float]:
        """Return the times between two pieces that have a part in this span of the clock.

        A server that stands still all along sends its next piece only after it.
        """
        return [
            later - earlier
            for earlier, later in itertools.pairwise(self.arrivals_s)
            if later >= after_s and earlier <= until_s
        ]


class Dialect(Protocol):
    """What the cases ask of a server, whichever it is."""

    ping: bytes
    """The cheapest question."""

    def completion(self, prompt: str, n_tokens: int, schema: dict[str, Any] | None = None) -> bytes:
        """Return the request for *n_tokens* after *prompt*, streamed; or for an object of
        *schema* of at most so many."""

    def read_completion(self, answer: Answer) -> Completion:
        """Return what *answer* holds. Raises LoadFailed."""

    def embedding(self, texts: list[str]) -> bytes:
        """Return the request for the embeddings of *texts*."""


def _completion(
    answer: Answer, text_field: str, events: list[tuple[float, dict[str, Any]]]
) -> tuple[str, tuple[float, ...]]:
    pieces = [(at, event[text_field]) for at, event in events if event.get(text_field)]
    if not pieces:
        raise LoadFailed(f"an answer without text: {answer.lines[-1:]!r}")
    return "".join(text for _, text in pieces), tuple(at for at, _ in pieces)


def _events(answer: Answer) -> list[tuple[float, dict[str, Any]]]:
    events: list[tuple[float, dict[str, Any]]] = []
    for at, line in zip(answer.times_s, answer.lines, strict=True):
        event = event_of(line)
        if event is None:
            continue
        if "error" in event:
            raise LoadFailed(f"the server says: {event['error']}")
        events.append((at, event))
    if not events:
        raise LoadFailed("an answer without anything in it")
    return events


class OllamaDialect:
    """Ollama's API, which ours speaks."""

    def __init__(self) -> None:
        self.ping = request_bytes("GET", "/api/version")

    def completion(self, prompt: str, n_tokens: int, schema: dict[str, Any] | None = None) -> bytes:
        """Return the request; raw, so that no template changes the text."""
        body: dict[str, Any] = {
            "model": MODEL,
            "prompt": prompt,
            "raw": True,
            "stream": True,
            "keep_alive": -1,
            "options": {"num_predict": n_tokens, "temperature": 0, "seed": 1},
        }
        if schema is None:
            body["options"]["ignore_eos"] = True
        else:
            body["format"] = schema
        return request_bytes("POST", "/api/generate", body)

    def read_completion(self, answer: Answer) -> Completion:
        """Return what the NDJSON of *answer* tells."""
        events = _events(answer)
        text, arrivals_s = _completion(answer, "response", events)
        last = events[-1][1]
        return Completion(
            text=text,
            n_tokens=last.get("eval_count", 0),
            n_prompt_tokens=last.get("prompt_eval_count", 0),
            started_s=answer.started_s,
            arrivals_s=arrivals_s,
            server_decode_s=last.get("eval_duration", 0) / 1e9,
        )

    def embedding(self, texts: list[str]) -> bytes:
        """Return the request for the embeddings of *texts*."""
        body = {"model": MODEL, "input": texts, "keep_alive": -1}
        return request_bytes("POST", "/api/embed", body)


class LlamaServerDialect:
    """llama-server's own API."""

    def __init__(self) -> None:
        self.ping = request_bytes("GET", "/health")

    def completion(self, prompt: str, n_tokens: int, schema: dict[str, Any] | None = None) -> bytes:
        """Return the request to `/completion`, which takes the text as it is."""
        body: dict[str, Any] = {
            "prompt": prompt,
            "n_predict": n_tokens,
            "stream": True,
            "cache_prompt": True,
            "temperature": 0,
            "seed": 1,
        }
        if schema is None:
            body["ignore_eos"] = True
        else:
            body["json_schema"] = schema
        return request_bytes("POST", "/completion", body)

    def read_completion(self, answer: Answer) -> Completion:
        """Return what the server-sent events of *answer* tell."""
        events = _events(answer)
        text, arrivals_s = _completion(answer, "content", events)
        last = events[-1][1]
        return Completion(
            text=text,
            n_tokens=last.get("tokens_predicted", 0),
            n_prompt_tokens=last.get("tokens_evaluated", 0),
            started_s=answer.started_s,
            arrivals_s=arrivals_s,
            server_decode_s=last.get("timings", {}).get("predicted_ms", 0) / 1e3,
        )

    def embedding(self, texts: list[str]) -> bytes:
        """Return the request for the embeddings of *texts*."""
        return request_bytes("POST", "/v1/embeddings", {"model": MODEL, "input": texts})
