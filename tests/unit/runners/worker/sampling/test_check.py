from __future__ import annotations

import pytest

from ollamad.options import SamplingOptions
from ollamad.runners.protocol import FailureCode
from ollamad.runners.worker.engine import EngineRefused
from ollamad.runners.worker.sampling.check import check
from ollamad.runners.worker.sampling.vocab import VocabFacts

VOCAB = VocabFacts(n_vocab=100)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (SamplingOptions(repeat_penalty=0.0), "repeat_penalty must be greater than 0"),
        (SamplingOptions(logit_bias=((1, 1.0), (100, 1.0))), "this model's tokens are 0 to 99"),
        (SamplingOptions(logit_bias=((-1, 1.0),)), "logit_bias has token -1"),
    ],
)
def test_what_this_model_cannot_sample_with_is_refused(options: SamplingOptions, said: str) -> None:
    with pytest.raises(EngineRefused, match=said) as caught:
        check(options, VOCAB)

    assert caught.value.code is FailureCode.BAD_REQUEST


def test_what_it_can_is_not() -> None:
    check(SamplingOptions(logit_bias=((0, -100.0), (99, 100.0))), VOCAB)
