"""Checks of sampling options that only the runner can make, because they need its model."""

from __future__ import annotations

from ollamad.options import SamplingOptions
from ollamad.runners.protocol import FailureCode
from ollamad.runners.worker.engine import EngineRefused
from ollamad.runners.worker.sampling.vocab import VocabFacts


def check(options: SamplingOptions, vocab: VocabFacts) -> None:
    """Raise EngineRefused for values that a sampler for *vocab* must not be given.

    Ranges that hold for every model are checked by the daemon (see `ollamad.options`), where a
    refusal costs no load.
    """
    if options.repeat_penalty <= 0:
        raise EngineRefused(
            FailureCode.BAD_REQUEST, "repeat_penalty must be greater than 0; 1 is no penalty"
        )
    for token, _bias in options.logit_bias:
        if not 0 <= token < vocab.n_vocab:
            raise EngineRefused(
                FailureCode.BAD_REQUEST,
                f"logit_bias has token {token}, but this model's tokens are 0 to "
                f"{vocab.n_vocab - 1}",
            )
