"""`make kill-matrix`: a runner is killed or stopped at every point of its life, under 8 streams.

A cell is a point and a signal. In each, a real daemon serves a real model over HTTP; its first
runner stands still at the point until it is struck. Afterwards it must hold:

- every client got a complete answer or one clear error;
- no runner is left, and the struck process is gone;
- the model can be loaded again, and after unloading nothing is resident: in a budget that holds one
  model, a reservation that leaked would show;
- every blob in the store is what its name says.

How long it took until the model was ready again is printed. Patience is set short for this: a
stopped process is found by a time-out only.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import itertools
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from tests.endurance.faultyworker import SAID, Point
from tests.endurance.store import FIRST, SECOND, broken_blobs, prepare
from tests.process.daemonprocess import DaemonProcess

N_STREAMS: Final = 8
N_TOKENS: Final = 60
PATIENCE_S: Final = 60.0
"""A client that has waited so long is stuck."""
RECOVERY_MAX_S: Final = 30.0
LOOK_PERIOD_S: Final = 0.05
ROOT: Final = Path(__file__).resolve().parents[2]

CONFIG: Final = """
[runner]
spare = false
n_slots = 8
n_ctx = 1024
stall_timeout_s = 4
ask_patience_s = 1
terminate_patience_s = 1
[scheduling]
start_timeout_s = 4
load_timeout_s = 2
drain_timeout_s = 3
starvation_s = 0.3
restart_failures_max = 10
models_loaded_max = 1
[gpu]
host_headroom_bytes = "0"
host_memory_max_bytes = "1GiB"
[log]
level = "debug"
"""
"""Short patience, no spare (the first runner is the one that is struck), and room for one model."""


class Outcome(enum.Enum):
    """What a client got."""

    COMPLETE = "complete"
    ERROR = "one error"
    BROKEN = "broken"
    """Neither: it was cut off, or got two endings, or waited for ever."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One way to be struck."""

    point: Point
    blow: signal.Signals


@dataclasses.dataclass(slots=True)
class Report:
    """What came of a cell."""

    cell: Cell
    outcomes: Counter[Outcome]
    recovery_s: float
    faults: list[str]
    """What should not be; empty is a pass."""

    def line(self) -> str:
        """Return a row of the table."""
        counts = "".join(f"{self.outcomes[outcome]:>10}" for outcome in Outcome)
        verdict = "; ".join(self.faults) or "ok"
        name = f"{self.cell.point:<13} {self.cell.blow.name:<8}"
        return f"{name}{counts}{self.recovery_s:>10.2f} s  {verdict}"


HEADER: Final = (
    f"{'point':<12} {'signal':<8}{'complete':>10}{'error':>10}{'broken':>10}{'again':>12}"
)

ALL: Final = tuple(
    Cell(point, blow) for point, blow in itertools.product(Point, (signal.SIGKILL, signal.SIGSTOP))
)


def body(model: str, number: int, n_tokens: int = N_TOKENS) -> dict[str, Any]:
    """Return a request whose answer does not end before its limit."""
    return {
        "model": model,
        "prompt": f"Count on: {number}, {number + 1},",
        "raw": True,
        "options": {"temperature": 0, "num_predict": n_tokens},
    }


def stream(url: str, number: int) -> Outcome:
    """Read one answer to its end and judge it."""
    try:
        with httpx.stream(
            "POST", f"{url}/api/generate", json=body(FIRST, number), timeout=PATIENCE_S
        ) as answer:
            lines = [json.loads(line) for line in answer.iter_lines()]
    except (httpx.HTTPError, ValueError):
        return Outcome.BROKEN
    return judged(answer.status_code, lines)


def judged(status: int, lines: list[dict[str, Any]]) -> Outcome:
    """Return what the lines of an answer are: an end must be there, once, and be the last."""
    n_ends = sum("error" in line or bool(line.get("done")) for line in lines)
    if n_ends != 1 or not ("error" in lines[-1] or lines[-1].get("done")):
        return Outcome.BROKEN
    if "error" in lines[-1]:
        return Outcome.ERROR if lines[-1]["error"] else Outcome.BROKEN
    is_whole = status == 200 and lines[-1].get("eval_count", 0) > 0
    return Outcome.COMPLETE if is_whole else Outcome.BROKEN


def is_answered(url: str, model: str) -> bool:
    """Ask for a short answer, and return whether one came."""
    request = {**body(model, 1, 1), "stream": False}
    try:
        return httpx.post(f"{url}/api/generate", json=request, timeout=PATIENCE_S).is_success
    except httpx.HTTPError:
        return False


def unload(url: str, model: str) -> None:
    """Have a model leave."""
    request = {"model": model, "keep_alive": 0}
    httpx.post(f"{url}/api/generate", json=request, timeout=PATIENCE_S).raise_for_status()


def until(fact: Callable[[], bool], seconds: float) -> bool:
    """Wait for a fact of the system, which announces none."""
    ends_at = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > ends_at:
            return False
        time.sleep(LOOK_PERIOD_S)
    return True


class Trial:
    """One cell being tried."""

    def __init__(self, cell: Cell, daemon: DaemonProcess, models: Path) -> None:
        self._cell = cell
        self._daemon = daemon
        self._models = models
        self._faults: list[str] = []
        self._n_records = 0
        """Of the log, when it was struck."""

    def run(self) -> Report:
        """Strike, and look at what is left."""
        with ThreadPoolExecutor(N_STREAMS + 2) as pool:
            struck, futures = self._until_struck(pool)
            recovery_s = self._recovered(pool)
            outcomes = Counter(future.result() for future in futures)
        if outcomes[Outcome.BROKEN]:
            self._faults.append(f"{outcomes[Outcome.BROKEN]} clients without an end")
        if not until(lambda: not psutil.pid_exists(struck.pid), RECOVERY_MAX_S):
            self._faults.append("the struck process lives")
        self._look_for_leaks()
        return Report(self._cell, outcomes, recovery_s, self._faults)

    def _streams(self, pool: ThreadPoolExecutor) -> list[Future[Outcome]]:
        return [pool.submit(stream, self._daemon.url, n) for n in range(N_STREAMS)]

    def _until_struck(
        self, pool: ThreadPoolExecutor
    ) -> tuple[psutil.Process, list[Future[Outcome]]]:
        """Bring the first runner to the point under eight streams, and strike."""
        point = self._cell.point
        if point is Point.STOPPING:
            assert is_answered(self._daemon.url, FIRST)
            unload(self._daemon.url, FIRST)
            self._daemon.wait_for_log(self._is_paused)
            futures = self._streams(pool)
            first = self._daemon.workers()[0]
        else:
            futures = self._streams(pool)
            if point is Point.DRAINING:
                self._daemon.wait_for_log(lambda r: "is ready" in r["message"])
                pool.submit(self._ask_for_the_other)
                self._daemon.wait_for_log(lambda r: r["message"].startswith("evicting"))
            else:
                self._daemon.wait_for_log(self._is_paused)
            first = self._daemon.workers()[0]
        self._n_records = len(self._daemon.records)
        first.send_signal(self._cell.blow)
        return first, futures

    def _ask_for_the_other(self) -> None:
        if not is_answered(self._daemon.url, SECOND):
            self._faults.append("whoever waited for its place got no answer")

    @staticmethod
    def _is_paused(record: dict[str, Any]) -> bool:
        return SAID in str(record["message"])

    def _recovered(self, pool: ThreadPoolExecutor) -> float:
        """Return how long it took until the model was ready, for the others or somebody new."""
        struck_at = time.monotonic()
        answered = pool.submit(self._asked_until_answered)
        try:
            self._daemon.wait_for_log(
                lambda r: r["message"].startswith(f"{FIRST} is ready"), after=self._n_records
            )
        except AssertionError:
            self._faults.append("the model was not loaded again")
        recovery_s = time.monotonic() - struck_at
        if recovery_s > RECOVERY_MAX_S:
            self._faults.append("it took too long")
        if not answered.result():
            self._faults.append("nobody new is answered")
        return recovery_s

    def _asked_until_answered(self) -> bool:
        ends_at = time.monotonic() + RECOVERY_MAX_S
        while time.monotonic() < ends_at:
            if is_answered(self._daemon.url, FIRST):
                return True
            time.sleep(LOOK_PERIOD_S)
        return False

    def _look_for_leaks(self) -> None:
        url = self._daemon.url
        for model in (SECOND, FIRST):  # One after the other: each needs the place of the other.
            if not is_answered(url, model):
                self._faults.append(f"{model} cannot be loaded afterwards")
        for model in (SECOND, FIRST):
            unload(url, model)
        if not until(lambda: not httpx.get(f"{url}/api/ps").json()["models"], PATIENCE_S):
            self._faults.append("something stays resident")
        if not until(lambda: not self._daemon.workers(), RECOVERY_MAX_S):
            self._faults.append("a runner is left")
        if broken := broken_blobs(self._models):
            self._faults.append(f"broken blobs: {broken}")


@contextmanager
def a_faulty_daemon(point: Point, data: Path, work: Path) -> Iterator[DaemonProcess]:
    """Run a daemon whose first runner pauses at *point*."""
    file = work / "ollamad.toml"
    file.write_text(CONFIG)
    daemon = DaemonProcess(
        work,
        {"OLLAMA_MODELS": str(data), "PYTHONPATH": str(ROOT)},
        point,
        str(file),
        program=("tests.endurance.faultydaemon",),
    )
    try:
        yield daemon
    finally:
        daemon.stop()


def try_cells(cells: Iterable[Cell], work: Path) -> Iterator[Report]:
    """Try one cell after the other, on one store."""
    models = work / "models"
    prepare(models, work)
    for cell in cells:
        with a_faulty_daemon(cell.point, models, work) as daemon:
            yield Trial(cell, daemon, models).run()


def main() -> int:
    """Try the whole matrix and print it; return 0 if all is as promised."""
    parser = argparse.ArgumentParser(prog="kill-matrix", description=__doc__.partition("\n")[0])
    parser.add_argument("--point", type=Point, choices=tuple(Point), help="this row only")
    chosen = parser.parse_args().point
    cells = [cell for cell in ALL if chosen in {None, cell.point}]
    n_faulty = 0
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory(prefix="killmatrix") as folder:
        for report in try_cells(cells, Path(folder)):
            n_faulty += bool(report.faults)
            print(report.line(), flush=True)
    print(f"{len(cells)} cells, {n_faulty} with faults")
    return 1 if n_faulty else 0


if __name__ == "__main__":
    sys.exit(main())
