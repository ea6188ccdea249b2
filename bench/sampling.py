"""What choosing a token costs: microseconds for each `choose` and `accept`, by options.

    .venv/bin/python -m bench.sampling

Logits are random, shaped like a model's: a few likely tokens above a broad rest. Machines are
noisy: the fastest of several rounds is shown, in CPU time of this thread.
"""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ollamad.options import SamplingOptions
from ollamad.runners.worker.sampling.logprobs import step_logprob
from ollamad.runners.worker.sampling.mask import TokenMask
from ollamad.runners.worker.sampling.sampler import TokenSampler
from ollamad.runners.worker.sampling.vocab import VocabFacts

VOCABULARIES: Final = (49_152, 262_144)
HISTORY: Final = 4096
ROUNDS: Final = 15
CHOICES: Final = 50

GREEDY: Final = SamplingOptions(temperature=0)
CASES: Final[dict[str, dict[str, Any]]] = {  # keyword arguments of SamplingOptions
    "greedy": {"temperature": 0},
    "defaults": {},
    "top_k=0 top_p=0.9": {"top_k": 0},
    "top_k=0 min_p=0.05": {"top_k": 0, "top_p": 1.0, "min_p": 0.05},
    "no truncation": {"top_k": 0, "top_p": 1.0},
    "typical_p=0.9": {"typical_p": 0.9},
    "top_n_sigma=1": {"top_n_sigma": 1.0},
    "penalties": {"repeat_penalty": 1.1, "frequency_penalty": 0.1},
    "penalties, whole context": {"repeat_penalty": 1.1, "repeat_last_n": -1},
    "DRY": {"dry_multiplier": 0.8},
    "DRY, whole context": {"dry_multiplier": 0.8, "dry_penalty_last_n": -1},
    "XTC": {"xtc_probability": 1.0},
    "mirostat 1": {"mirostat": 1},
    "mirostat 2": {"mirostat": 2},
}


def main() -> None:
    """Print a table."""
    print(f"{'':<32}" + "".join(f"{n_vocab:>12,}" for n_vocab in VOCABULARIES) + "  µs")
    for name, options in CASES.items():
        row(name, [case(n_vocab, SamplingOptions(**options)) for n_vocab in VOCABULARIES])
    for share in (0.9, 0.001):
        for name, chosen in (("greedy", GREEDY), ("defaults", SamplingOptions())):
            figures = [case(n_vocab, chosen, share) for n_vocab in VOCABULARIES]
            row(f"{name}, grammar allows {share:.1%}", figures)
    row("log-probabilities, top 20", [report(n_vocab) for n_vocab in VOCABULARIES])


def row(name: str, figures: list[float]) -> None:
    """Print one line."""
    print(f"{name:<32}" + "".join(f"{figure:>12.1f}" for figure in figures))


def model_logits(n_vocab: int) -> npt.NDArray[np.float32]:
    """Return logits as a model gives them."""
    chance = np.random.default_rng(1)
    logits = chance.normal(-2, 2.5, n_vocab)
    likely = chance.choice(n_vocab, 300, replace=False)
    logits[likely] += chance.exponential(6, 300)
    return logits.astype(np.float32)


def case(n_vocab: int, options: SamplingOptions, allowed: float | None = None) -> float:
    """Return the microseconds of one choice."""
    chance = np.random.default_rng(2)
    logits = model_logits(n_vocab)
    history = chance.integers(0, min(n_vocab, 2000), HISTORY).tolist()
    vocab = VocabFacts(n_vocab=n_vocab)
    sampler = TokenSampler(options, 3, vocab, history)
    packed = None if allowed is None else TokenMask.of(chance.random(n_vocab) < allowed).words
    best = float("inf")
    position = 0
    for _ in range(ROUNDS):
        started = time.thread_time()
        for _ in range(CHOICES):
            mask = None if packed is None else TokenMask(packed, n_vocab)
            sampler.accept(sampler.choose(logits, position, mask))
            position += 1
        best = min(best, time.thread_time() - started)
    return best / CHOICES * 1e6


def report(n_vocab: int) -> float:
    """Return the microseconds of one report of log-probabilities."""
    logits = model_logits(n_vocab)
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.thread_time()
        for _ in range(CHOICES):
            step_logprob(logits, 5, 20, lambda _token: b"x")
        best = min(best, time.thread_time() - started)
    return best / CHOICES * 1e6


if __name__ == "__main__":
    main()
