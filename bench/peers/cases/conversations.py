"""What caches and grammars are for: shared beginnings, second turns, and answers of a shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bench.peers import clients
from bench.peers.case import Case
from bench.peers.cases.streams import FIRST, ask
from bench.peers.clients import LoadFailed
from bench.peers.figures import Better, Figure, percentile
from bench.peers.prompts import Prompts
from bench.peers.servers import Server

N_CLIENTS: Final = 8
N_SHARED: Final = 512
N_OWN: Final = 32
N_OUT_SHARED: Final = 16

N_FIRST_TURN: Final = 1500
N_ANSWER: Final = 32
N_SECOND_TURN: Final = 20

N_OBJECT_MAX: Final = 512
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
        "email": {"type": "string", "maxLength": 32},
        "city": {"type": "string", "maxLength": 24},
        "country": {"enum": ["France", "Italy", "Japan", "Kenya", "Peru"]},
        "active": {"type": "boolean"},
        "score": {"type": "integer", "minimum": 0, "maximum": 1000},
        "level": {"enum": ["beginner", "intermediate", "advanced"]},
        "team": {"type": "string", "maxLength": 16},
        "note": {"type": "string", "maxLength": 48},
    },
    "required": [
        *("name", "age", "email", "city", "country"),
        *("active", "score", "level", "team", "note"),
    ],
    "additionalProperties": False,
}
"""Any: JSON Schema has no narrower type."""

OBJECT_PROMPT: Final = "The profile of a user of our chess club, as a JSON object:\n"


def shared(server: Server, prompts: Prompts) -> Mapping[str, float]:
    """Measure the waits of clients whose prompts begin alike, when nothing is cached yet."""
    beginning = prompts.text(N_SHARED)
    texts = [beginning + prompts.words(N_OWN, n) for n in range(N_CLIENTS)]
    waits_ms = [answer.first_s * 1e3 for answer in ask(server, texts, N_OUT_SHARED)]
    return {"p50": percentile(waits_ms, 50), "p95": percentile(waits_ms, 95)}


def second_turn(server: Server, prompts: Prompts) -> Mapping[str, float]:
    """Measure the wait in a conversation that the server has just had."""
    history = prompts.text(N_FIRST_TURN)
    history += ask(server, [history], N_ANSWER)[0].text
    answer = ask(server, [history + prompts.words(N_SECOND_TURN, "second")], 1)[0]
    return {"first": answer.first_s * 1e3}


def an_object(server: Server, prompts: Prompts) -> Mapping[str, float]:
    """Measure an answer that a JSON Schema constrains, the grammar's own cost included."""
    request = server.dialect.completion(OBJECT_PROMPT, N_OBJECT_MAX, SCHEMA)
    answer = server.dialect.read_completion(clients.together(server.address, [request])[0])
    if not answer.text.rstrip().endswith("}"):
        raise LoadFailed(f"the object does not end: {answer.text[-80:]!r}")
    return {
        "whole": answer.n_tokens / answer.last_s,
        "decode": answer.n_tokens / answer.server_decode_s,
    }


CASES: Final = (
    Case(
        "shared-prefix",
        "8 clients, 512 tokens alike, nothing cached",
        (
            Figure("p50", "ms to first token, p50", Better.LOWER),
            Figure("p95", "ms to first token, p95", Better.LOWER),
        ),
        shared,
    ),
    Case("second-turn", "second turn after 1,500 tokens", (FIRST,), second_turn),
    Case(
        "json",
        "object of a JSON Schema with 10 keys",
        (
            Figure("whole", "tokens/s from the request on", Better.HIGHER),
            Figure("decode", "tokens/s by the server's clock", Better.HIGHER),
        ),
        an_object,
    ),
)
