"""Edits of a few logits, that can be taken back.

Biases and penalties concern some dozens of tokens of hundreds of thousands. They are written into
the model's own logits and taken back after the choice, because others read these too (the report
of log-probabilities), and to copy them all costs more than all the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ollamad.options import SamplingOptions
from ollamad.runners.worker.sampling.vocab import VocabFacts

Change = tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]
"""Tokens, none twice, and their new logits."""


class Editor(Protocol):
    """Changes the logits of some tokens."""

    def change(self, logits: npt.NDArray[np.float32]) -> Change:
        """Return what is to be changed in *logits*."""
        ...

    def accept(self, token: int) -> None:
        """Take note that *token* is the next one of the answer."""
        ...


@contextlib.contextmanager
def edited(
    logits: npt.NDArray[np.float32], editors: Sequence[Editor]
) -> Iterator[npt.NDArray[np.float32]]:
    """Give *logits* as all *editors* in turn have them, and take that back at the end."""
    if not logits.flags.writeable:
        logits = logits.copy()
    before: list[Change] = []
    try:
        for editor in editors:
            tokens, values = editor.change(logits)
            before.append((tokens, logits[tokens]))
            logits[tokens] = values
        yield logits
    finally:
        for tokens, values in reversed(before):
            logits[tokens] = values


class Bias:
    """Adds to the logits of fixed tokens. Those that end an answer can be forbidden."""

    def __init__(self, options: SamplingOptions, vocab: VocabFacts) -> None:
        biases = dict(options.logit_bias)
        if options.ignore_eos:
            biases.update(dict.fromkeys(vocab.end_tokens, -np.inf))
        self._tokens = np.array(list(biases), dtype=np.intp)
        self._biases = np.array(list(biases.values()), dtype=np.float32)

    @staticmethod
    def is_on(options: SamplingOptions) -> bool:
        """Return whether *options* ask for it."""
        return bool(options.logit_bias) or options.ignore_eos

    def change(self, logits: npt.NDArray[np.float32]) -> Change:
        """See Editor."""
        return self._tokens, logits[self._tokens] + self._biases

    def accept(self, token: int) -> None:
        """See Editor. What was said does not matter here."""
