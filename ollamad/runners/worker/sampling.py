"""Options to a sampler chain, and log-probabilities of what was chosen."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ollamad.options import SamplingOptions
from ollamad.runners.protocol import StepLogprob, TokenLogprob
from ollamad.runners.worker.bindings import llama

_SEED_BITS: Final = 32
_TOP_P_KEEP_MIN: Final = 1


class Sampler:
    """Chooses tokens for one request. Must be closed: the chain lives in C."""

    def __init__(self, options: SamplingOptions, prompt: Sequence[int], n_ctx: int) -> None:
        self._chain: Any = llama.llama_sampler_chain_init(
            llama.llama_sampler_chain_default_params()
        )
        self._add_penalties(options, prompt, n_ctx)
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

    def _add_penalties(self, options: SamplingOptions, prompt: Sequence[int], n_ctx: int) -> None:
        last_n = n_ctx if options.repeat_last_n < 0 else min(options.repeat_last_n, n_ctx)
        is_off = (
            options.repeat_penalty == 1.0
            and options.presence_penalty == 0.0
            and options.frequency_penalty == 0.0
        )
        if last_n == 0 or is_off:
            return
        self._add(
            llama.llama_sampler_init_penalties(
                last_n,
                options.repeat_penalty,
                options.frequency_penalty,
                options.presence_penalty,
            )
        )
        for token in prompt[-last_n:]:
            llama.llama_sampler_accept(self._chain, token)

    def _add(self, sampler: Any) -> None:
        llama.llama_sampler_chain_add(self._chain, sampler)

    def choose(self, context: Any, row: int) -> int:
        """Return the token chosen from the logits of the *row*-th token of the last batch."""
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
