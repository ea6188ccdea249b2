from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.options import SamplingOptions
from ollamad.runners.worker.sampling.edits import Bias, Editor, edited
from ollamad.runners.worker.sampling.penalties import Penalties
from ollamad.runners.worker.sampling.vocab import VocabFacts

VOCAB = VocabFacts(n_vocab=8, find_end_tokens=lambda: (6, 7))


def ones(n_vocab: int = 8) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.ones(n_vocab, dtype=np.float32)


def test_each_penalty_lowers_what_was_said() -> None:
    options = SamplingOptions(repeat_penalty=2, frequency_penalty=0.25, presence_penalty=0.5)
    logits = ones()
    logits[4] = -1

    tokens, values = Penalties(options, [3, 4, 3]).change(logits)

    assert dict(zip(tokens.tolist(), values.tolist(), strict=True)) == {
        3: 1 / 2 - 2 * 0.25 - 0.5,
        4: -1 * 2 - 0.25 - 0.5,
    }


@given(
    history=st.lists(st.integers(0, 9), max_size=30),
    said=st.lists(st.integers(0, 9), max_size=200),
    last_n=st.sampled_from([-1, 1, 2, 7, 64]),
)
def test_the_window_counts_the_last_tokens_and_no_others(
    history: list[int], said: list[int], last_n: int
) -> None:
    penalties = Penalties(SamplingOptions(frequency_penalty=1, repeat_last_n=last_n), history)
    for token in said:
        penalties.accept(token)

    tokens, values = penalties.change(np.zeros(10, dtype=np.float32))

    everything = history + said
    expected = Counter(everything if last_n < 0 else everything[-last_n:])
    assert {t: -v for t, v in zip(tokens.tolist(), values.tolist(), strict=True)} == expected


def test_a_long_context_of_many_tokens_is_counted() -> None:
    penalties = Penalties(SamplingOptions(presence_penalty=1, repeat_last_n=-1), range(1000))

    assert penalties.change(np.zeros(1000, dtype=np.float32))[1].tolist() == [-1] * 1000


@pytest.mark.parametrize(
    ("options", "is_on"),
    [
        (SamplingOptions(), False),
        (SamplingOptions(repeat_penalty=1.1), True),
        (SamplingOptions(presence_penalty=-1), True),
        (SamplingOptions(frequency_penalty=1), True),
        (SamplingOptions(frequency_penalty=1, repeat_last_n=0), False),
    ],
)
def test_penalties_that_change_nothing_are_off(options: SamplingOptions, is_on: bool) -> None:
    assert Penalties.is_on(options) is is_on


def test_biases_are_added_and_ends_are_forbidden() -> None:
    bias = Bias(SamplingOptions(logit_bias=((2, 1.5), (7, 50.0)), ignore_eos=True), VOCAB)

    with edited(ones(), [bias]) as logits:
        assert logits.tolist() == [1, 1, 2.5, 1, 1, 1, -np.inf, -np.inf]


def test_edits_follow_each_other_and_are_taken_back_whatever_happens() -> None:
    """The same logits are read again for the report of log-probabilities."""
    options = SamplingOptions(logit_bias=((3, 1.0),), repeat_penalty=2.0)
    editors: list[Editor] = [Bias(options, VOCAB), Penalties(options, [3])]
    logits = ones()

    def fail() -> None:
        with edited(logits, editors) as changed:
            assert changed is logits
            assert changed[3] == (1 + 1) / 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert logits.tolist() == ones().tolist()


def test_logits_that_may_not_be_written_are_copied() -> None:
    logits = ones()
    logits.flags.writeable = False

    with edited(logits, [Bias(SamplingOptions(logit_bias=((0, 1.0),)), VOCAB)]) as changed:
        assert changed[0] == 2

    assert logits[0] == 1
