"""From a set-up checkout to a first answer: `python -m tools.firstlight run|smoke`.

`run` starts the daemon at its usual place, asks it one question and stays, so that what comes next
can be typed in another terminal. `smoke` does the same on a free port with a store of its own, and
ends it: the proof that this machine can run ollamad. Neither knows how the daemon works; both use
it as a client does.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import httpx

from tools.address import Address, AddressError, bare_environ, free_address, listener, parse_address
from tools.daemonchild import DaemonChild, shell_status

ROOT: Final = Path(__file__).resolve().parent.parent
MODEL: Final = "smollm2:135m"
QUESTION: Final = "Why is the sky blue? Answer in one sentence."
ANSWER_TOKENS_MAX: Final = 80

READY_TIMEOUT_S: Final = 90.0
ANSWER_TIMEOUT_S: Final = 600.0
STOP_TIMEOUT_S: Final = 60.0
DEATH_S: Final = 1.0
"""How long a broken answer may precede the end of the process that gave it."""

POLL_S: Final = 0.1
CALL_TIMEOUT_S: Final = 5.0
TOLD_PERIOD_S: Final = 5.0
LOG_LINES_SHOWN: Final = 20
SECOND_NS: Final = 1_000_000_000


class FirstLightError(Exception):
    """It did not work. The message says what was seen and what can be done."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What is told after the model's text."""

    text: str
    tokens: int
    eval_ns: int
    load_ns: int

    @property
    def summary(self) -> str:
        """The line in parentheses below the answer."""
        words = [f"{self.tokens} tokens"]
        if self.eval_ns > 0:
            words.append(f"{self.tokens * SECOND_NS / self.eval_ns:.1f} tokens/s")
        words.append(f"loaded in {self.load_ns / SECOND_NS:.1f} s")
        return f"({', '.join(words)})"


def say(text: str = "", end: str = "\n") -> None:
    """Print at once: the reader watches."""
    print(text, end=end, flush=True)


def check_free(address: Address) -> None:
    """Raise FirstLightError, with the likely owner, if something listens at *address*."""
    if not address.is_taken():
        return
    owner = listener(address.port)
    by = f" by {owner}" if owner else ", perhaps by Ollama or another ollamad"
    raise FirstLightError(
        f"port {address.port} is taken{by}. Stop it (for Ollama's service: systemctl stop ollama),"
        f" or choose another port: OLLAMA_HOST=127.0.0.1:{address.port + 1} make run"
    )


def wait_until_ready(daemon: DaemonChild, address: Address, client: httpx.Client) -> str:
    """Return the version of the daemon once it answers. Raises FirstLightError."""
    began = time.monotonic()
    told = began
    say(f"starting the daemon at {address.base_url}")
    while time.monotonic() - began < READY_TIMEOUT_S:
        if daemon.status is not None:
            raise FirstLightError(f"the daemon ended before it answered (status {daemon.status})")
        with contextlib.suppress(httpx.HTTPError, ValueError):
            answer = client.get(f"{address.base_url}/api/version", timeout=CALL_TIMEOUT_S)
            if answer.status_code == httpx.codes.OK:
                return str(_as_object(answer.json()).get("ollamad", "?"))
        if time.monotonic() - told >= TOLD_PERIOD_S:
            told = time.monotonic()
            say(f"waiting for {address.base_url}/api/version ({told - began:.0f} s)")
        time.sleep(POLL_S)
    raise FirstLightError(
        f"the daemon did not answer at {address.base_url} in {READY_TIMEOUT_S:.0f} s"
    )


def choose_model(tags: object) -> str:
    """Return the model to ask, from an answer of /api/tags: the first one, else the newest."""
    models = _as_object(tags).get("models")
    rows = [_as_object(row) for row in models] if isinstance(models, list) else []
    ages = {str(row["name"]): str(row.get("modified_at", "")) for row in rows if "name" in row}
    if MODEL in ages:
        return MODEL
    if not ages:
        raise FirstLightError(
            "the store holds no model. Fetch one: .venv/bin/ollamactl pull smollm2:135m"
        )
    return max(ages, key=lambda name: ages[name])


def ask(base_url: str, model: str, client: httpx.Client) -> Answer:
    """Print the model's answer as it comes and return it. Raises FirstLightError."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "options": {"num_predict": ANSWER_TOKENS_MAX, "temperature": 0, "seed": 1},
    }
    pieces: list[str] = []
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    with client.stream("POST", f"{base_url}/api/chat", json=body) as response:
        for line in response.iter_lines():
            if time.monotonic() > deadline:
                raise FirstLightError(f"the answer did not end within {ANSWER_TIMEOUT_S:.0f} s")
            if not line.strip():
                continue
            part = _parse_line(line)
            if "error" in part:
                raise FirstLightError(f"the daemon could not answer: {part['error']}")
            message = _as_object(part.get("message"))
            piece = str(message.get("content") or message.get("thinking") or "")
            pieces.append(piece)
            say(printable(piece), end="")
            if part.get("done") is True:
                say()
                return Answer(
                    "".join(pieces),
                    _number(part, "eval_count"),
                    _number(part, "eval_duration"),
                    _number(part, "load_duration"),
                )
    raise FirstLightError(f"the answer (HTTP {response.status_code}) broke off before its end")


def printable(text: str) -> str:
    """Return *text* without what would move a terminal's cursor: a model may write anything."""
    return "".join(char for char in text if char.isprintable() or char in "\n\t")


def _parse_line(line: str) -> dict[str, object]:
    try:
        return _as_object(json.loads(line))
    except ValueError as exc:
        raise FirstLightError(
            f"the daemon answered something else than JSON: {line[:200]!r}"
        ) from exc


def _as_object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _number(part: Mapping[str, object], name: str) -> int:
    value = part.get(name)
    return value if isinstance(value, int) else 0


def first_question(base_url: str, client: httpx.Client) -> tuple[str, Answer]:
    """Ask the question; return the model's name and its answer. Raises FirstLightError."""
    try:
        tags = client.get(f"{base_url}/api/tags", timeout=CALL_TIMEOUT_S).json()
        model = choose_model(tags)
        say(f"\nasking {model} (loading it first)\n>>> {QUESTION}\n")
        answer = ask(base_url, model, client)
    except (httpx.HTTPError, ValueError) as exc:
        raise FirstLightError(
            f"the daemon did not answer as expected: {str(exc) or type(exc).__name__}"
        ) from exc
    if not answer.text.strip():
        raise FirstLightError(f"{model} gave an empty answer")
    say(f"\n{answer.summary}")
    return model, answer


def next_steps(address: Address, model: str) -> str:
    """Return three things to try, ready to be copied."""
    url = address.base_url
    host = "" if address.is_default else f"OLLAMA_HOST={url} "
    message = f'{{"role": "user", "content": "{QUESTION}"}}'
    return f"""
ollamad serves at {url}. Try in another terminal:

  curl {url}/api/chat -d '{{"model": "{model}", "messages": [{message}]}}'

  {host}.venv/bin/ollamactl run {model}

  # Python (pip install ollama)
  import ollama
  client = ollama.Client("{url}")
  print(client.chat("{model}", [{message}]).message.content)

Ctrl-C stops it.
"""


@contextlib.contextmanager
def started(environ: Mapping[str, str]) -> Iterator[DaemonChild]:
    """Run a daemon for the length of the block; with FirstLightError, show its last lines."""
    daemon = DaemonChild(environ, ROOT)
    try:
        yield daemon
    except FirstLightError:
        status = daemon.wait(DEATH_S)
        daemon.end()
        ended = "" if status is None else f", ended with status {status}"
        lines = [f"  {printable(line)}" for line in daemon.last_lines(LOG_LINES_SHOWN)]
        say("\n".join(["", f"the daemon's last lines{ended}:", *lines]))
        raise
    finally:
        daemon.end()


def run() -> int:
    """Serve at the usual place until a signal comes; return the daemon's own exit status."""
    address = parse_address(os.environ.get("OLLAMA_HOST", ""))
    check_free(address)
    with (
        started(os.environ) as daemon,
        daemon.signals_forwarded() as came,
        httpx.Client(timeout=ANSWER_TIMEOUT_S, trust_env=False) as client,
    ):
        model = MODEL
        try:
            wait_until_ready(daemon, address, client)
            model, _ = first_question(address.base_url, client)
        except FirstLightError as exc:
            if daemon.status is None and not came:
                say(f"\nno first answer: {exc}")
            elif not came:
                raise
        if not came:
            daemon.show_log(sys.stderr.write)
            say(next_steps(address, model))
        status = daemon.wait()
    if status and not came:
        raise FirstLightError(f"the daemon ended by itself with status {status}; its log is above")
    return shell_status(status or 0)


def smoke() -> int:
    """Start, ask and stop a daemon that touches nothing of the user's; return 0 or raise."""
    address = free_address()
    with (
        tempfile.TemporaryDirectory(prefix="ollamad-smoke-") as data,
        started(bare_environ(Path(data), address)) as daemon,
        daemon.signals_forwarded() as came,
        httpx.Client(timeout=ANSWER_TIMEOUT_S, trust_env=False) as client,
    ):
        version = wait_until_ready(daemon, address, client)
        first_question(address.base_url, client)
        daemon.signal(signal.SIGTERM)
        status = daemon.wait(STOP_TIMEOUT_S)
        if status is None:
            raise FirstLightError(
                f"the daemon did not stop within {STOP_TIMEOUT_S:.0f} s of SIGTERM"
            )
        if status != 0:
            raise FirstLightError(f"the daemon stopped with status {status}, not 0")
        if came:
            return 128 + came[0]
    say(f"smoke: ollamad {version} started, answered and stopped")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Do what is asked; return the exit status."""
    parser = argparse.ArgumentParser(prog="firstlight", description="A first answer of ollamad.")
    parser.add_argument("what", choices=["run", "smoke"])
    what = parser.parse_args(arguments).what
    try:
        return run() if what == "run" else smoke()
    except (FirstLightError, AddressError) as exc:
        print(f"{what}: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
