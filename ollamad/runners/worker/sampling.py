"""Options to a sampler chain, and log-probabilities of what was chosen."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ollamad.options import SamplingOptions
from ollamad.runners.protocol import FailureCode, StepLogprob, TokenLogprob
from ollamad.runners.worker.bindings import llama
from ollamad.runners.worker.engine import EngineRefused

_SEED_BITS: Final = 32
_TOP_P_KEEP_MIN: Final = 1


def check(options: SamplingOptions) -> None:
    """Raise EngineRefused for values that llama.cpp's samplers must not be given."""
    if options.repeat_penalty <= 0:
        raise EngineRefused(
            FailureCode.BAD_REQUEST, "repeat_penalty must be greater than 0; 1 is no penalty"
        )


class Sampler:
    """Chooses tokens for one request. Must be closed: the chain lives in C."""

    def __init__(
        self, options: SamplingOptions, prompt: Sequence[int], *, n_ctx: int, n_vocab: int
    ) -> None:
        self._chain: Any = llama.llama_sampler_chain_init(
            llama.llama_sampler_chain_default_params()
        )
        is_penalised = self._add_penalties(options, prompt, n_ctx, n_vocab)
        self._is_argmax = options.temperature <= 0 and not is_penalised
        """The likeliest token as it is: no chain needs to look at the whole vocabulary."""
        if options.temperature <= 0:
            self._add(llama.llama_sampler_init_greedy())
            return
        if options.top_k > 0:
            self._add(llama.llama_sampler_init_top_k(options.top_k))
        if 0 < options.typical_p < 1:
            self._add(llama.llama_sampler_init_typical(options.typical_p, _TOP_P_KEEP_MIN))
        if options.top_p < 1:
            self._add(llama.llama_sampler_init_top_p(options.top_p, _TOP_P_KEEP_MIN))
        if options.min_p > 0:
            self._add(llama.llama_sampler_init_min_p(options.min_p, _TOP_P_KEEP_MIN))
        self._add(llama.llama_sampler_init_temp(options.temperature))
        seed = options.seed if options.seed >= 0 else secrets.randbits(_SEED_BITS)
        self._add(llama.llama_sampler_init_dist(seed % (1 << _SEED_BITS)))

    def _add_penalties(
        self, options: SamplingOptions, prompt: Sequence[int], n_ctx: int, n_vocab: int
    ) -> bool:
        last_n = n_ctx if options.repeat_last_n < 0 else min(options.repeat_last_n, n_ctx)
        is_off = (
            options.repeat_penalty == 1.0
            and options.presence_penalty == 0.0
            and options.frequency_penalty == 0.0
        )
        if last_n == 0 or is_off:
            return False
        self._add(
            llama.llama_sampler_init_penalties(
                n_vocab,
                last_n,
                options.repeat_penalty,
                options.frequency_penalty,
                options.presence_penalty,
            )
        )
        for token in prompt[-last_n:]:
            llama.llama_sampler_accept(self._chain, token)
        return True

    def _add(self, sampler: Any) -> None:
        llama.llama_sampler_chain_add(self._chain, sampler)

    def choose(self, context: Any, row: int, logits: npt.NDArray[np.float32]) -> int:
        """Return the token chosen from *logits*, those of the *row*-th token of the last batch.

        Raises EngineRefused when the model has computed nonsense.
        """
        likeliest = int(logits.argmax())
        # argmax gives the place of a NaN if there is one, so one look is enough for all.
        if not math.isfinite(logits[likeliest]):
            raise EngineRefused(
                FailureCode.ENGINE, "the model computed no number: its weights are damaged"
            )
        if self._is_argmax:
            return likeliest
        return int(llama.llama_sampler_sample(self._chain, context, row))

    def close(self) -> None:
        """Free the chain."""
        if self._chain is not None:
            llama.llama_sampler_free(self._chain)
            self._chain = None


def step_logprob(
    logits: npt.NDArray[np.float32], chosen: int, n_top: int, pieces: Callable[[int], bytes]
) -> StepLogprob:
    """Return the log-probability of *chosen* and of the *n_top* likeliest tokens.

    Probabilities are the model's own (softmax over all logits), before any sampler.
    *pieces* gives a token's bytes.
    """
    peak = logits.max()
    log_sum = float(np.log(np.exp(logits - peak, dtype=np.float64).sum()) + peak)

    def of(token: int) -> TokenLogprob:
        return TokenLogprob(token, pieces(token), float(logits[token]) - log_sum)

    top: tuple[TokenLogprob, ...] = ()
    if n_top > 0:
        likeliest = np.argpartition(logits, -n_top)[-n_top:]
        top = tuple(of(int(t)) for t in likeliest[np.argsort(-logits[likeliest])])
    return StepLogprob(of(chosen), top)
