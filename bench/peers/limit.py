"""What the machine could do at best: llama.cpp's own batches, without a server around them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Final

from bench.peers.build import BATCHED_BENCH, PeerPrograms
from bench.peers.clients import LoadFailed
from bench.peers.servers import Setting

TIMEOUT_S: Final = 600.0


@dataclasses.dataclass(frozen=True, slots=True)
class BatchRate:
    """How fast a number of sequences was read and written."""

    n_in: int
    n_out: int
    n_sequences: int
    prefill_per_s: float
    decode_per_s: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens out per second of both together, which no server can exceed.

        n * out / (n * in / prefill rate + n * out / decode rate); n is in each term.
        """
        return self.n_out / (self.n_in / self.prefill_per_s + self.n_out / self.decode_per_s)


def parse_rates(output: str) -> list[BatchRate]:
    """Return the rates in what llama-batched-bench printed as JSON lines, other lines aside."""
    rates: list[BatchRate] = []
    for line in output.splitlines():
        text = line[line.find("{") :] if "{" in line else ""
        try:
            row = json.loads(text)
        except ValueError:
            continue
        if isinstance(row, dict) and {"pp", "tg", "pl", "speed_pp", "speed_tg"} <= row.keys():
            rates.append(
                BatchRate(row["pp"], row["tg"], row["pl"], row["speed_pp"], row["speed_tg"])
            )
    return rates


def measure(
    programs: PeerPrograms,
    model: Path,
    setting: Setting,
    *,
    n_in: int,
    n_out: int,
    n_sequences: tuple[int, ...],
) -> dict[int, BatchRate]:
    """Return the rate for each number of sequences. Raises LoadFailed."""
    command = [
        programs.path(BATCHED_BENCH),
        *("--model", str(model), "--output-format", "jsonl"),
        *("--threads", str(setting.n_threads), "--threads-batch", str(setting.n_threads)),
        *("--ctx-size", str(setting.n_ctx * setting.n_slots)),
        *("-npp", str(n_in), "-ntg", str(n_out), "-npl", ",".join(map(str, n_sequences))),
    ]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as exc:
        raise LoadFailed(f"{BATCHED_BENCH} did not finish in {TIMEOUT_S:.0f} s") from exc
    rates = {rate.n_sequences: rate for rate in parse_rates(done.stdout)}
    if done.returncode != 0 or set(rates) != set(n_sequences):
        raise LoadFailed(f"{BATCHED_BENCH} failed. It said last:\n{done.stdout[-2000:]}")
    return rates
