from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.runners.worker.sampling.mask import TokenMask


@given(n_vocab=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_a_mask_holds_what_was_packed(n_vocab: int, seed: int) -> None:
    allowed = np.random.default_rng(seed).random(n_vocab) < 0.4

    mask = TokenMask.of(allowed)

    tokens = np.arange(n_vocab)
    assert [mask.allows(token) for token in range(n_vocab)] == allowed.tolist()
    assert mask.among(tokens).tolist() == allowed.tolist()
    assert mask.bools.tolist() == allowed.tolist()
    assert mask.tokens.tolist() == np.flatnonzero(allowed).tolist()
    assert mask.n_allowed == allowed.sum()


def test_signed_words_and_bits_past_the_end_are_taken() -> None:
    """llguidance fills whole words of 32 bits, in signed numbers."""
    mask = TokenMask(np.array([-1, -1, 7], dtype=np.int32), 33)

    assert mask.n_allowed == 33
    assert mask.allows(31)
    assert mask.bools.all()
    assert len(mask.bools) == 33


def test_too_few_words_are_refused() -> None:
    with pytest.raises(ValueError, match="no mask of 33 tokens"):
        TokenMask(np.zeros(1, dtype=np.uint32), 33)
