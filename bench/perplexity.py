"""Whether batching costs quality: perplexity of a fixed text, alone and among others.

    .venv/bin/python -m bench.perplexity [--model FILE.gguf] [--windows N] [--json]

The text is cut into windows. Each is read by one sequence token by token, with nothing beside it;
and among seven others, each at another place, as when eight clients stream. Needs no daemon.

Every batch size rounds in its own way, so single tokens differ by some hundredths of a nat either
way. Only the mean of many says whether one way is worse; its standard error is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Final

import numpy as np

from ollamad.registry.embedded import embedded_model_file
from ollamad.runners.protocol import LoadPlan
from ollamad.runners.worker.batch import DecodeOutcome, Part
from ollamad.runners.worker.bindings import start_backends
from ollamad.runners.worker.llama import LlamaModel
from ollamad.runners.worker.prefixtree import SequenceId
from ollamad.runners.worker.tokens import Tokens, tokens_of

TEXTS: Final = sorted((Path(__file__).resolve().parent.parent / "docs").glob("*.md"))
"""Texts that are always there. What they say does not matter."""
WINDOW: Final = 512
"""Tokens that are read with nothing before them."""
N_SEQUENCES: Final = 8
WINDOWS: Final = 32
"""Windows that are read, if the text has as many: enough for a standard error below 0.1 %."""


def nats(model: LlamaModel, row: int, token: int) -> float:
    """Return how surprising *token* is after the *row*-th token of the last batch."""
    logits = model.logits(row).astype(np.float64)
    peak = logits.max()
    return float(np.log(np.exp(logits - peak).sum()) + peak - logits[token])


def compute(model: LlamaModel, parts: list[Part]) -> None:
    """Compute a batch, which must succeed."""
    outcome = model.decode(parts)
    if outcome is not DecodeOutcome.DONE:
        raise RuntimeError(f"the batch was not computed: {outcome.value}")


def alone(model: LlamaModel, window: Tokens) -> list[float]:
    """Return the surprise of each of *window*'s tokens, in nats, read by one sequence."""
    surprises = []
    for at in range(len(window) - 1):
        compute(model, [Part(SequenceId(0), at, window[at : at + 1], True)])
        surprises.append(nats(model, 0, int(window[at + 1])))
    model.memory.cut(SequenceId(0), 0)
    return surprises


def among(model: LlamaModel, windows: list[Tokens]) -> list[float]:
    """Return the same of several windows that are read side by side, one after the other.

    Each begins one step after the one before.
    """
    surprises: list[list[float]] = [[] for _ in windows]
    for step in range(WINDOW - 1 + len(windows) - 1):
        reading = [n for n in range(len(windows)) if 0 <= step - n < WINDOW - 1]
        parts = [
            Part(SequenceId(n), step - n, windows[n][step - n : step - n + 1], True)
            for n in reading
        ]
        compute(model, parts)
        for row, n in enumerate(reading):
            surprises[n].append(nats(model, row, int(windows[n][step - n + 1])))
    for n in range(len(windows)):
        model.memory.cut(SequenceId(n), 0)
    return [one for window in surprises for one in window]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=embedded_model_file())
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.model is None:
        parser.error("no model: give one with --model FILE.gguf")
    start_backends()
    plan = LoadPlan(
        model_path=str(arguments.model),
        n_ctx=WINDOW,
        n_slots=N_SEQUENCES,
        n_batch=WINDOW,
        n_threads=2,
        swa_full=True,
    )
    model = LlamaModel(plan, lambda _fraction: None)
    text = "\n".join(path.read_text(encoding="utf-8") for path in TEXTS)
    tokens = tokens_of(model.tokenize(text, add_special=False))
    begins = range(0, len(tokens) - WINDOW, WINDOW)[: arguments.windows]
    windows = [tokens[begin : begin + WINDOW] for begin in begins]
    one = np.array([nat for window in windows for nat in alone(model, window)])
    groups = [windows[n : n + N_SEQUENCES] for n in range(0, len(windows), N_SEQUENCES)]
    eight = np.array([nat for group in groups for nat in among(model, group)])
    change = eight - one
    rows = {
        "tokens": float(len(one)),
        "alone": math.exp(one.mean()),
        "among_eight": math.exp(eight.mean()),
        "difference_percent": (math.exp(change.mean()) - 1) * 100,
        "standard_error_percent": change.std() / math.sqrt(len(change)) * 100,
        "usual_difference_of_a_token_nats": float(np.abs(change).mean()),
    }
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    for name, value in rows.items():
        print(f"{name} {value:.4f}")


if __name__ == "__main__":
    main()
