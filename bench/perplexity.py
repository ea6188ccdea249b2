"""Whether batching costs quality: perplexity of a fixed text, alone and among others.

    .venv/bin/python -m bench.perplexity [--model FILE.gguf] [--json]

The text is read three ways with the engine's own model layer: one sequence token by token; one
sequence in chunks; and eight sequences side by side, each at another place, as when eight clients
stream. Needs no daemon.
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

TEXT: Final = Path(__file__).resolve().parent.parent / "docs" / "architecture.md"
"""A text that is always there. What it says does not matter."""
N_TOKENS: Final = 512
N_SEQUENCES: Final = 8
CHUNK: Final = 64


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


def token_by_token(model: LlamaModel, text: Tokens) -> float:
    """Return the mean surprise of *text*'s tokens, in nats, read by one sequence."""
    total = 0.0
    for at in range(len(text) - 1):
        compute(model, [Part(SequenceId(0), at, text[at : at + 1], True)])
        total += nats(model, 0, int(text[at + 1]))
    model.memory.cut(SequenceId(0), 0)
    return total / (len(text) - 1)


def in_chunks(model: LlamaModel, text: Tokens) -> float:
    """Return the mean surprise at the chunks' ends, in nats: as a prompt is read."""
    total, n_seen = 0.0, 0
    for at in range(0, len(text) - CHUNK, CHUNK):
        compute(model, [Part(SequenceId(0), at, text[at : at + CHUNK], True)])
        total += nats(model, CHUNK - 1, int(text[at + CHUNK]))
        n_seen += 1
    model.memory.cut(SequenceId(0), 0)
    return total / n_seen


def side_by_side(model: LlamaModel, text: Tokens) -> list[float]:
    """Return each of eight sequences' mean surprise, in nats; they begin one after the other."""
    totals = [0.0] * N_SEQUENCES
    for step in range(len(text) - 1 + N_SEQUENCES - 1):
        reading = [n for n in range(N_SEQUENCES) if 0 <= step - n < len(text) - 1]
        parts = [
            Part(SequenceId(n), step - n, text[step - n : step - n + 1], True) for n in reading
        ]
        compute(model, parts)
        for row, n in enumerate(reading):
            totals[n] += nats(model, row, int(text[step - n + 1]))
    for n in range(N_SEQUENCES):
        model.memory.cut(SequenceId(n), 0)
    return [total / (len(text) - 1) for total in totals]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=embedded_model_file())
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.model is None:
        parser.error("no model: give one with --model FILE.gguf")
    start_backends()
    plan = LoadPlan(
        model_path=str(arguments.model),
        n_ctx=N_TOKENS,
        n_slots=N_SEQUENCES,
        n_batch=N_TOKENS,
        n_threads=2,
        swa_full=True,
    )
    model = LlamaModel(plan, lambda _fraction: None)
    text = tokens_of(model.tokenize(TEXT.read_text(encoding="utf-8"), add_special=True)[:N_TOKENS])
    alone = token_by_token(model, text)
    among = side_by_side(model, text)
    rows = {
        "alone": math.exp(alone),
        "among_eight_mean": math.exp(sum(among) / len(among)),
        "among_eight_worst_percent": max(
            abs(math.exp(one) / math.exp(alone) - 1) * 100 for one in among
        ),
        "difference_percent": (math.exp(sum(among) / len(among)) / math.exp(alone) - 1) * 100,
        "chunk_ends": math.exp(in_chunks(model, text)),
    }
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    for name, value in rows.items():
        print(f"{name} {value:.4f}")


if __name__ == "__main__":
    main()
