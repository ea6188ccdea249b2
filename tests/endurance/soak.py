"""`make soak`: hostile clients against a budget that holds one model of two, for ten minutes.

Clients read slowly, leave in the middle, flood the line, flip options that force reloads, send
nonsense and bodies that are too large, all at the same time and for both models, so that one is
evicted for the other over and over. After the warm-up the daemon's memory, descriptors and threads
must be *flat*:

- memory: the median of the last third of the samples is at most RSS_GROWTH_MAX above that of the
  first third (medians, because a large body is in memory while it is read);
- descriptors and threads: once all clients have gone, no more than before they came, plus
  DESCRIPTORS_EXTRA and THREADS_EXTRA.

No request may wait longer than STUCK_S, none may be answered in a way that its kind does not allow,
and at the end nothing is resident and no process left. `SOAK_SECONDS` or `--seconds` says how long.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx
import psutil

from tests.endurance.killmatrix import until
from tests.endurance.store import FIRST, SECOND, broken_blobs, prepare
from tests.process.daemonprocess import DaemonProcess, a_daemon

N_CLIENTS: Final = 8
FLOOD: Final = 24
"""Requests at once, more than the line holds."""
WARM_UP_SHARE: Final = 0.25
"""Of the whole time: memory is not judged before it is over."""
SAMPLE_PERIOD_S: Final = 1.0
STUCK_S: Final = 120.0
RSS_GROWTH_MAX: Final = 0.08
DESCRIPTORS_EXTRA: Final = 2
THREADS_EXTRA: Final = 2
BODY_BYTES_MAX: Final = 1 << 20
CONFIG: Final = f"""
[http]
body_bytes_max = "{BODY_BYTES_MAX}"
[runner]
n_slots = 2
n_ctx = 512
ask_patience_s = 2
[scheduling]
queue_length_max = 16
starvation_s = 1
models_loaded_max = 2
[gpu]
host_headroom_bytes = "0"
host_memory_max_bytes = "400MiB"
"""
PHASE_S: Final = 8.0
"""So long most clients want the same model; then the other one. Else it would only be reloaded."""
UNFAITHFUL: Final = 0.1
"""Part of the clients that want the other one."""
BURST: Final = 10
"""Visits at once of those who cost the engine nothing."""
WEIGHTS: Final = MappingProxyType({"plain": 8, "leaves": 4, "floods": 1, "unload": 1})
"""How often a kind of client comes, where it is not twice."""
MODELS: Final = (FIRST, SECOND)
BUSY: Final = (200, 503)


@dataclasses.dataclass(slots=True)
class Sample:
    """What the daemon used, at a moment."""

    rss_bytes: int
    n_descriptors: int
    n_threads: int


class Hostile:
    """One client after another, from one thread."""

    def __init__(self, url: str, seed: int, counts: Counter[str], faults: list[str]) -> None:
        self._url = url
        self._chance = random.Random(seed)  # noqa: S311 - the same walk each time
        self._counts = counts
        self._faults = faults

    def run(self, ends_at: float) -> None:
        """Be hostile until then."""
        kinds = list(KINDS)
        weights = [WEIGHTS.get(kind, 2) for kind in kinds]
        while time.monotonic() < ends_at:
            (kind,) = self._chance.choices(kinds, weights)
            began = time.monotonic()
            try:
                for _ in range(BURST if kind in CHEAP else 1):
                    what = KINDS[kind](self)
                    self._counts[f"{kind} {what}"] += 1
            except httpx.TimeoutException:
                self._faults.append(f"{kind}: no answer in {STUCK_S:g} s")
            except httpx.HTTPError as exc:
                self._faults.append(f"{kind}: {exc!r}")
            took_s = time.monotonic() - began
            if took_s > STUCK_S:
                self._faults.append(f"{kind} took {took_s:.0f} s")

    def body(self, **options: Any) -> dict[str, Any]:
        """Return a request for an answer to a prompt that nobody sent before."""
        chosen = {"num_predict": self._chance.randrange(1, 24), **options}
        prompt = f"{self._chance.random()} " + "word " * self._chance.randrange(60)
        return {
            "model": self._model(),
            "prompt": prompt,
            "raw": True,
            "options": chosen,
        }

    def _model(self) -> str:
        wanted = int(time.monotonic() / PHASE_S) + (self._chance.random() < UNFAITHFUL)
        return MODELS[wanted % len(MODELS)]

    def expect(self, answer: httpx.Response, *allowed: int) -> str:
        """Return the status for the count; another one than allowed is a fault."""
        if answer.status_code not in allowed:
            self._faults.append(
                f"{answer.request.url.path} {answer.status_code}: {answer.text[:200]}"
            )
        return str(answer.status_code)

    def post(self, body: Any, path: str = "/api/generate") -> httpx.Response:
        """Post JSON on a connection of its own."""
        return httpx.post(f"{self._url}{path}", json=body, timeout=STUCK_S)

    # The kinds

    def plain(self) -> str:
        return self.expect(self.post({**self.body(), "stream": False}), *BUSY)

    def options_flip(self) -> str:
        """Another context length: the model is loaded anew."""
        n_ctx = self._chance.choice((256, 384, 512))
        return self.expect(self.post({**self.body(num_ctx=n_ctx), "stream": False}), *BUSY)

    def unload(self) -> str:
        model = self._chance.choice(MODELS)
        return self.expect(self.post({"model": model, "keep_alive": 0}), *BUSY)

    def leaves(self) -> str:
        """Leave before the answer, or in the middle of it."""
        n_lines = self._chance.randrange(6)
        with httpx.stream(
            "POST", f"{self._url}/api/generate", json=self.body(num_predict=200), timeout=STUCK_S
        ) as answer:
            for place, _line in enumerate(answer.iter_lines()):
                if place >= n_lines:
                    break
        return str(answer.status_code)

    def leaves_early(self) -> str:
        """Send half a request, or a whole one, and go without reading."""
        data = json.dumps(self.body(num_predict=200)).encode()
        head = f"POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        url = httpx.URL(self._url)
        with socket.create_connection((url.host, url.port or 0), timeout=STUCK_S) as raw:
            raw.sendall((head.replace("Host: x", "Host: localhost")).encode())
            raw.sendall(data[: self._chance.randrange(len(data) + 1)])
            time.sleep(self._chance.random() / 5)
        return "gone"

    def reads_slowly(self) -> str:
        """Take a line now and then, through a small buffer."""
        url = httpx.URL(self._url)
        data = json.dumps(self.body(num_predict=24)).encode()
        head = f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
        with socket.socket() as raw:
            raw.settimeout(STUCK_S)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect((url.host, url.port or 0))
            raw.sendall(head.encode() + b"Connection: close\r\n\r\n" + data)
            n_bytes = 0
            while piece := raw.recv(256):
                n_bytes += len(piece)
                time.sleep(0.02)
        if not n_bytes:
            self._faults.append("a slow reader got nothing")
        return "read"

    def floods(self) -> str:
        """Ask more at once than the line holds: some are refused, all are answered."""
        statuses: list[int] = []

        def ask() -> None:
            answer = self.post({**self.body(num_predict=2), "stream": False})
            statuses.append(answer.status_code)

        threads = [threading.Thread(target=ask) for _ in range(FLOOD)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(statuses) != FLOOD or not set(statuses) <= set(BUSY):
            self._faults.append(f"a flood was answered with {Counter(statuses)}")
        return "with 503" if 503 in statuses else "with 200 only"

    def bad_json(self) -> str:
        content = self._chance.choice([b"{not json", b"", b"[1]", b'{"model":5}', b'{"a":' * 9000])
        answer = httpx.post(f"{self._url}/api/chat", content=content, timeout=STUCK_S)
        return self.expect(answer, 400)

    def bad_grammar(self) -> str:
        body = {**self.body(), "stream": False, "format": {"type": "nope"}}
        return self.expect(self.post(body), 400, 503)

    def too_long(self) -> str:
        body = {**self.body(), "stream": False, "prompt": "word " * 3000}
        return self.expect(self.post(body), 200, 400, 503)

    def big_body(self) -> str:
        content = b"x" * (BODY_BYTES_MAX + self._chance.randrange(1 << 20))
        answer = httpx.post(f"{self._url}/api/generate", content=content, timeout=STUCK_S)
        return self.expect(answer, 413)

    def looks(self) -> str:
        path = self._chance.choice(["/api/ps", "/api/tags", "/api/version", "/api/nothing"])
        return self.expect(httpx.get(f"{self._url}{path}", timeout=STUCK_S), 200, 404)


KINDS: Final[Mapping[str, Callable[[Hostile], str]]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            Hostile.plain, Hostile.options_flip, Hostile.unload, Hostile.leaves,
            Hostile.leaves_early, Hostile.reads_slowly, Hostile.floods, Hostile.bad_json,
            Hostile.bad_grammar, Hostile.too_long, Hostile.big_body, Hostile.looks,
        )
    }
)  # fmt: skip


CHEAP: Final = frozenset({"leaves_early", "bad_json", "big_body", "looks"})


def sample(process: psutil.Process) -> Sample:
    """Return what the daemon uses now."""
    with process.oneshot():
        return Sample(process.memory_info().rss, process.num_fds(), process.num_threads())


def growth(samples: list[Sample]) -> float:
    """Return by which part memory grew from the first third of *samples* to the last."""
    third = max(len(samples) // 3, 1)
    first, last = (
        statistics.median(one.rss_bytes for one in part)
        for part in (samples[:third], samples[-third:])
    )
    return last / first - 1


def settle(url: str, daemon: DaemonProcess, faults: list[str]) -> None:
    """Unload everything and wait until nothing is left of it."""
    for model in MODELS:
        httpx.post(f"{url}/api/generate", json={"model": model, "keep_alive": 0}, timeout=STUCK_S)
    if not until(lambda: not httpx.get(f"{url}/api/ps").json()["models"], STUCK_S):
        faults.append("something stays resident")
    if not until(lambda: len(daemon.workers()) == 1, STUCK_S):  # The spare.
        faults.append("runners are left")


def soak(seconds: float, folder: Path) -> list[str]:
    """Run the clients, print the figures and return the faults."""
    models = folder / "models"
    prepare(models, folder)
    file = folder / "ollamad.toml"
    file.write_text(CONFIG)
    counts: Counter[str] = Counter()
    faults: list[str] = []
    samples: list[Sample] = []
    with a_daemon(folder, {"OLLAMA_MODELS": str(models)}, "--config", str(file)) as daemon:
        process = psutil.Process(daemon.process.pid)
        httpx.post(
            f"{daemon.url}/api/generate", json={"model": FIRST, "prompt": "hi"}, timeout=STUCK_S
        )
        settle(daemon.url, daemon, faults)
        before = sample(process)
        began = time.monotonic()
        clients = [Hostile(daemon.url, seed, counts, faults) for seed in range(N_CLIENTS)]
        threads = [threading.Thread(target=c.run, args=(began + seconds,)) for c in clients]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(SAMPLE_PERIOD_S)
            if time.monotonic() - began > seconds * WARM_UP_SHARE:
                samples.append(sample(process))
        settle(daemon.url, daemon, faults)
        until(lambda: process.num_fds() <= before.n_descriptors + DESCRIPTORS_EXTRA, STUCK_S)
        after = sample(process)
        broken = [r["message"] for r in daemon.records if "Traceback" in json.dumps(r)]
        n_loads = sum(r["message"].startswith("loading ") for r in daemon.records)
    grew = growth(samples)
    report(counts, samples, before, after, grew, n_loads)
    if grew > RSS_GROWTH_MAX:
        faults.append(f"memory grew by {grew:.1%}")
    if after.n_descriptors > before.n_descriptors + DESCRIPTORS_EXTRA:
        faults.append(f"{after.n_descriptors - before.n_descriptors} descriptors leaked")
    if after.n_threads > before.n_threads + THREADS_EXTRA:
        faults.append(f"{after.n_threads - before.n_threads} threads leaked")
    if broken:
        faults.append(f"{len(broken)} tracebacks in the log, the first: {broken[0][:300]}")
    if blobs := broken_blobs(models):
        faults.append(f"broken blobs: {blobs}")
    return faults


def report(
    counts: Counter[str],
    samples: list[Sample],
    before: Sample,
    after: Sample,
    grew: float,
    n_loads: int,
) -> None:
    """Print the figures."""
    for what, n in sorted(counts.items()):
        print(f"  {what:<28}{n:>7}")
    print(f"{sum(counts.values())} clients, {n_loads} loads")
    mib = [one.rss_bytes >> 20 for one in samples]
    print(f"memory after the warm-up: {min(mib)} to {max(mib)} MiB, third to third {grew:+.1%}")
    most = max(one.n_descriptors for one in samples)
    print(
        f"descriptors: {before.n_descriptors} before, {most} at most, {after.n_descriptors} after"
    )
    most = max(one.n_threads for one in samples)
    print(f"threads: {before.n_threads} before, {most} at most, {after.n_threads} after")


def main() -> int:
    """Soak and judge; return 0 if the daemon is as it was."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.partition("\n")[0])
    default = float(os.environ.get("SOAK_SECONDS", "600"))
    parser.add_argument("--seconds", type=float, default=default)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        faults = soak(seconds, Path(folder))
    for fault, n in Counter(faults).most_common():
        print(f"FAULT ({n} times): {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
