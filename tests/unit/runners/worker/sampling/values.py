"""Logits, and plain ways to compute what the package computes cleverly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ollamad.runners.worker.sampling.candidates import Candidates


def some_logits(n_vocab: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return logits like a model's: a few likely ones above a broad rest."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(-1, 2, n_vocab)
    likely = chance.choice(n_vocab, max(n_vocab // 50, 1), replace=False)
    logits[likely] += chance.exponential(5, len(likely))
    return logits.astype(np.float32)


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the probabilities that *logits* stand for."""
    wide = logits.astype(np.float64)
    weights: npt.NDArray[np.float64] = np.exp(wide - wide.max())
    weights /= weights.sum()
    return weights


def in_order(logits: npt.NDArray[np.float32]) -> Candidates:
    """Return all tokens, likeliest first, by a plain sort."""
    order = np.lexsort((np.arange(len(logits)), -logits))
    return Candidates(order, logits[order].astype(np.float64))
