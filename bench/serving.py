"""What serving costs: tokens per second, time to the first token, CPU of the daemon per token.

    .venv/bin/python -m bench serving [--url http://127.0.0.1:11434] [--model NAME] [--json]

Talks to a running daemon (any server with Ollama's API) from this machine. Machines are noisy:
compare figures of one run, or of runs side by side, never of two days. CPU is read from /proc if
the server is a process of this machine that we may look at.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
import psutil

PROMPT: Final = "Write a long story about a lighthouse keeper and the sea."
TOKENS: Final = 128
STREAMS: Final = (1, 4, 8)
PATIENCE_S: Final = 600.0
LONG_PROMPT_WORDS: Final = 1200


def stream(url: str, model: str, prompt: str, n_tokens: int) -> dict[str, float]:
    """Stream one answer; return its tokens, the wait for the first, the gaps and the total."""
    body = {
        "model": model,
        "prompt": prompt,
        "options": {"temperature": 0, "num_predict": n_tokens},
    }
    started = time.perf_counter()
    arrivals: list[float] = []
    last: dict[str, Any] = {}
    with (
        httpx.Client(timeout=PATIENCE_S, trust_env=False) as client,
        client.stream("POST", f"{url}/api/generate", json=body) as answer,
    ):
        answer.raise_for_status()
        for line in answer.iter_lines():
            arrivals.append(time.perf_counter())
            last = json.loads(line)
            if "error" in last:
                raise RuntimeError(last["error"])
    gaps = [b - a for a, b in itertools.pairwise(arrivals)] or [0.0]
    return {
        "tokens": last.get("eval_count", 0),
        "first_s": arrivals[0] - started,
        "gap_p50_s": statistics.median(gaps),
        "gap_p95_s": sorted(gaps)[int(len(gaps) * 0.95)],
        "total_s": arrivals[-1] - started,
        "prefill_per_s": last["prompt_eval_count"] / (last["prompt_eval_duration"] / 1e9),
    }


def listener(port: int) -> psutil.Process | None:
    """Return the process that listens on *port*, if it can be seen."""
    for connection in psutil.net_connections("tcp"):
        here = connection.laddr
        if here and connection.status == "LISTEN" and here.port == port and connection.pid:
            return psutil.Process(connection.pid)
    return None


def cpu_s(process: psutil.Process | None) -> float:
    """Return the CPU time that *process* has used, without its children's."""
    return sum(process.cpu_times()[:2]) if process is not None else 0.0


def measure(url: str, model: str) -> list[dict[str, float]]:
    """Return a row for each number of streams, and one for a long prompt."""
    server = listener(httpx.URL(url).port or 80)
    stream(url, model, PROMPT, 8)  # The load is not part of it.
    rows: list[dict[str, float]] = []
    for n_streams in STREAMS:
        cpu_before, started = cpu_s(server), time.perf_counter()
        with ThreadPoolExecutor(n_streams) as pool:
            answers = list(
                pool.map(lambda n: stream(url, model, f"{n}. {PROMPT}", TOKENS), range(n_streams))
            )
        elapsed_s = time.perf_counter() - started
        tokens = sum(answer["tokens"] for answer in answers)
        rows.append(
            {
                "streams": n_streams,
                "tokens_per_s": tokens / elapsed_s,
                "first_p50_ms": statistics.median(a["first_s"] for a in answers) * 1e3,
                "gap_p50_ms": statistics.median(a["gap_p50_s"] for a in answers) * 1e3,
                "gap_p95_ms": max(a["gap_p95_s"] for a in answers) * 1e3,
                "daemon_us_per_token": (cpu_s(server) - cpu_before) / tokens * 1e6,
            }
        )
    long_prompt = f"{time.time()} " + "sea " * LONG_PROMPT_WORDS
    rows.append({"prefill_per_s": stream(url, model, long_prompt, 1)["prefill_per_s"]})
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--url", default="http://127.0.0.1:11434")
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; return the exit status."""
    rows = measure(arguments.url.rstrip("/"), arguments.model)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        print("  ".join(f"{name} {value:.1f}" for name, value in row.items()))
    return 0
