"""Whether a client notices that its runner was killed: `python -m bench.healing --trials 20`.

Starts a daemon of its own with the installed model. In each trial a greedy answer of 200 tokens is
streamed; after 50 pieces its runner is killed with SIGKILL. Shown are the pause that the client
sees, whether all tokens came, and whether the text is that of the same answer without a kill.

It need not be the same: the new runner computes what was answered as one batch and not token by
token, which rounds differently, and where two tokens are nearly equally likely another one may win.
How often two answers differ without any kill is shown beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import trio

from bench.equality import PROMPTS
from ollamad.app import Daemon
from ollamad.configfile import LoadedConfig, load_config

MODEL: Final = "smollm2:135m"
N_TOKENS: Final = 200
PIECES_BEFORE: Final = 50
PATIENCE_S: Final = 120.0
RUNNER_NAME: Final = "ollamad-runner"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One streamed answer, as its client saw it."""

    text: str
    n_tokens: int
    n_healed: int
    error: str
    pause_s: float
    """The longest time between two pieces."""
    n_chars_before: int
    """Characters that came before the kill."""


def serve(folder: Path, n_trials: int) -> None:
    """Be the daemon. Prints its port."""
    variables = {"OLLAMA_NUM_PARALLEL": "1", "OLLAMA_CONTEXT_LENGTH": "2048", "HOME": str(folder)}
    flags: dict[str, str | None] = {
        "http.port": "0",
        "store.models_path": str(folder / "models"),
        # So many kills in so short a time would be a broken model's.
        "scheduling.restart_failures_max": str(n_trials + 1),
        "scheduling.restart_delay_s": "0",
    }

    def read() -> LoadedConfig:
        return load_config(flags, variables, None)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            print(await nursery.start(Daemon(read(), read).run), flush=True)

    trio.run(main)


@contextmanager
def a_daemon(n_trials: int) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """Run a daemon for the block."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bench.healing", "--serve", folder]
        command += ["--trials", str(n_trials)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None  # noqa: S101 - asked for above
            try:
                url = f"http://127.0.0.1:{int(process.stdout.readline())}"
                with httpx.Client(base_url=url, timeout=PATIENCE_S) as web:
                    yield web, psutil.Process(process.pid)
            finally:
                process.terminate()


def kill_runner(daemon: psutil.Process) -> None:
    """Kill the one process that has a model."""
    (runner,) = (child for child in daemon.children() if child.name() == RUNNER_NAME)
    os.kill(runner.pid, signal.SIGKILL)


def ask(web: httpx.Client, prompt: str, killing: psutil.Process | None = None) -> Answer:
    """Stream an answer; kill the runner of *killing* in the middle of it."""
    options = {"num_predict": N_TOKENS, "temperature": 0, "seed": 1, "ignore_eos": True}
    body = {"model": MODEL, "prompt": prompt, "raw": True, "options": options}
    text, pause_s, n_pieces, n_chars_before = "", 0.0, 0, 0
    last: dict[str, Any] = {}
    with web.stream("POST", "/api/generate", json=body) as answer:
        at = 0.0
        for line in answer.iter_lines():
            now, last = time.perf_counter(), json.loads(line)
            pause_s, at = max(pause_s, now - at if at else 0.0), now
            text += last.get("response", "")
            n_pieces += 1
            if n_pieces == PIECES_BEFORE and killing is not None:
                n_chars_before = len(text)
                kill_runner(killing)
    return Answer(
        text,
        last.get("eval_count", 0),
        last.get("healed_count", 0),
        last.get("error", ""),
        pause_s,
        n_chars_before,
    )


def n_alike(one: str, other: str) -> int:
    """Return how many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def measure(n_trials: int) -> int:
    """Run the trials and print; return how many answers had an error or missed a token."""
    n_failed = n_same = n_same_unharmed = 0
    pauses_s: list[float] = []
    with a_daemon(n_trials) as (web, daemon):
        for number in range(n_trials):
            prompt = PROMPTS[number % len(PROMPTS)]
            ask(web, prompt)
            one, other = ask(web, prompt), ask(web, prompt)
            healed = ask(web, prompt, killing=daemon)
            is_whole = not healed.error and (healed.n_tokens, healed.n_healed) == (N_TOKENS, 1)
            n_failed += not is_whole
            n_same_unharmed += one.text == other.text
            n_same += healed.text == one.text
            pauses_s.append(healed.pause_s)
            alike = n_alike(healed.text, one.text)
            print(
                f"{number + 1:3} {prompt[:32]!r:<36} {healed.n_tokens:4} tokens, "
                f"pause {healed.pause_s:5.2f} s, "
                + ("the same" if healed.text == one.text else f"{alike} characters the same")
                + f" (killed after {healed.n_chars_before}) {healed.error}",
                flush=True,
            )
    print(
        f"{n_trials - n_failed} of {n_trials} came whole; {n_same} are the text of an answer "
        f"without a kill ({n_same_unharmed} of {n_trials} such pairs are alike)"
    )
    print(
        f"pause: median {statistics.median(pauses_s):.2f} s, "
        f"{min(pauses_s):.2f} to {max(pauses_s):.2f} s"
    )
    return n_failed


def main() -> int:
    """Measure; return 1 if an answer did not come whole."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve, arguments.trials)
        return 0
    return 1 if measure(arguments.trials) else 0


if __name__ == "__main__":
    sys.exit(main())
