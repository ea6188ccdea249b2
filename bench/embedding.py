"""What vectors cost: texts per second, CPU of the daemon and of its runners per text.

    .venv/bin/python -m bench.embedding --model NAME [--url http://127.0.0.1:11434] [--json]

Talks to a running daemon (any server with Ollama's API) from this machine, with texts of 64 words:
one in each request, one request after the other; 32 in each; and 32 clients with one in each. CPU
is read from /proc if the server is a process of this machine that we may look at. Where others use
the machine too, the quickest request (`best`) and CPU time say more than the mean.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
import psutil

WORDS: Final = (
    "sea",
    "moon",
    "old",
    "house",
    "river",
    "stone",
    "light",
    "green",
    "people",
    "music",
)
WORDS_PER_TEXT: Final = 64
MANY: Final = 32
SECONDS: Final = 8.0
PATIENCE_S: Final = 600.0


def a_text(chance: random.Random) -> str:
    """Return a text that was not asked for before."""
    return " ".join(chance.choices(WORDS, k=WORDS_PER_TEXT))


class Embedder:
    """Asks for vectors and counts texts and CPU seconds."""

    def __init__(self, url: str, model: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False)
        self._model = model
        self._port = httpx.URL(url).port
        self._chance = random.Random(1)  # noqa: S311 - no secret

    def ask(self, n_texts: int) -> int:
        """Make one request; return how many vectors came."""
        texts = [a_text(self._chance) for _ in range(n_texts)]
        answer = self._client.post("/api/embed", json={"model": self._model, "input": texts})
        answer.raise_for_status()
        return len(answer.json()["embeddings"])

    def measure(self, work: Callable[[], int]) -> dict[str, float]:
        """Repeat *work* for a while; return what a text cost."""
        work()
        daemon_s, runners_s = self._cpu()
        began, n_texts, best = time.perf_counter(), 0, 0.0
        while (now := time.perf_counter()) - began < SECONDS:
            count = work()
            n_texts += count
            best = max(best, count / (time.perf_counter() - now))
        took = time.perf_counter() - began
        daemon_end_s, runners_end_s = self._cpu()
        return {
            "texts_per_s": n_texts / took,
            "best_texts_per_s": best,
            "daemon_ms_per_text": (daemon_end_s - daemon_s) / n_texts * 1e3,
            "runner_ms_per_text": (runners_end_s - runners_s) / n_texts * 1e3,
        }

    def _cpu(self) -> tuple[float, float]:
        """Return the CPU seconds of the server and of its children; zeros if it is not ours."""
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr
            if here and connection.status == "LISTEN" and here.port == self._port:
                server = psutil.Process(connection.pid)
                runners = server.children(recursive=True)
                return _cpu_s(server), sum(map(_cpu_s, runners))
        return 0.0, 0.0


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What vectors cost.")
    parser.add_argument("--url", default="http://127.0.0.1:11434")
    parser.add_argument("--model", required=True)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    embedder = Embedder(arguments.url, arguments.model)
    results: dict[str, Any] = {
        "one text": embedder.measure(lambda: embedder.ask(1)),
        f"{MANY} texts": embedder.measure(lambda: embedder.ask(MANY)),
    }
    with ThreadPoolExecutor(MANY) as pool:
        results[f"{MANY} clients"] = embedder.measure(
            lambda: sum(pool.map(embedder.ask, [1] * MANY))
        )
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    for name, figures in results.items():
        shown = "  ".join(f"{key} {value:.2f}" for key, value in figures.items())
        print(f"{name:<12}{shown}")


if __name__ == "__main__":
    main()
