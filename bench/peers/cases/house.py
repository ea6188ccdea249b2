"""What serving costs beside tokens: starting, idling, small requests, and embeddings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from bench.peers import clients, proctree
from bench.peers.case import Case, Needs
from bench.peers.figures import Better, Figure
from bench.peers.prompts import Prompts
from bench.peers.servers import Server

IDLE_S: Final = 10.0
CALM_S: Final = 6.0
"""How long the last request is over before idling counts. What is done once after a load is over
by then, too: a spare runner, the vocabulary of grammars."""

HAMMER_S: Final = 3.0
HAMMER_CONNECTIONS: Final = 4
N_TEXTS: Final = 256
N_TEXT_WORDS: Final = 64
BATCH: Final = 32


def cold_start(server: Server, prompts: Prompts) -> Mapping[str, float]:
    """Measure the way from nothing loaded to the first token."""
    return {"first": server.cold_start_s() * 1e3}


def ping(server: Server, prompts: Prompts) -> Mapping[str, float]:
    """Measure how many of the cheapest requests are answered."""
    per_s = clients.hammer(
        server.address,
        server.dialect.ping,
        n_connections=HAMMER_CONNECTIONS,
        duration_s=HAMMER_S,
    )
    return {"requests": per_s}


def idle(server: Server, prompts: Prompts) -> Mapping[str, float]:
    """Measure what all processes hold and do while a model is loaded and nobody asks."""
    time.sleep(CALM_S)
    pids = server.pids()
    before, cpu_before_s = proctree.wakeups(pids), sum(map(proctree.cpu_s, pids))
    time.sleep(IDLE_S)
    after, cpu_after_s = proctree.wakeups(pids), sum(map(proctree.cpu_s, pids))
    held = proctree.memory_bytes(pids)
    return {
        "rss": held["Rss"] / 2**20,
        "pss": held["Pss"] / 2**20,
        "wakeups": proctree.grown(before, after) / IDLE_S,
        "cpu": (cpu_after_s - cpu_before_s) / IDLE_S * 1e3,
    }


def embeddings(server: Server, prompts: Prompts) -> Mapping[str, float]:
    """Measure texts one at a time, and many in one request."""
    texts = [prompts.words(N_TEXT_WORDS, n).strip() for n in range(2 * N_TEXTS)]
    alone, batched = texts[:N_TEXTS], texts[N_TEXTS:]
    return {
        "alone": _texts_per_s(server, [[text] for text in alone]),
        "batched": _texts_per_s(server, [batched[i : i + BATCH] for i in range(0, N_TEXTS, BATCH)]),
    }


def _texts_per_s(server: Server, groups: list[list[str]]) -> float:
    requests = [server.dialect.embedding(group) for group in groups]
    answers = clients.one_by_one(server.address, requests)
    return sum(map(len, groups)) / (answers[-1].finished_s - answers[0].started_s)


CASES: Final = (
    Case(
        "cold-start",
        "cold start (peer: program start; ours: load)",
        (Figure("first", "ms to first token", Better.LOWER),),
        cold_start,
        is_fresh=False,
    ),
    Case(
        "ping",
        "/api/version against /health, 4 connections",
        (Figure("requests", "requests/s", Better.HIGHER),),
        ping,
        is_fresh=False,
    ),
    Case(
        "idle",
        "a loaded model, nobody asks",
        (
            Figure("rss", "MiB resident", Better.LOWER),
            Figure("pss", "MiB proportional", Better.LOWER),
            Figure("wakeups", "wake-ups/s", Better.LOWER),
            Figure("cpu", "ms of CPU per s", Better.LOWER),
        ),
        idle,
    ),
    Case(
        "embeddings",
        "256 texts of 64 words",
        (
            Figure("alone", "texts/s, one at a time", Better.HIGHER),
            Figure("batched", "texts/s, 32 at a time", Better.HIGHER),
        ),
        embeddings,
        needs=Needs.EMBEDDING,
    ),
)
