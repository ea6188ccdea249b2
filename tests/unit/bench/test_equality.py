from __future__ import annotations

from bench.equality import Difference, Token, first_difference, n_within, tokens_of

OURS = [Token("The", 5.0), Token(" sea", 0.05), Token(" is", 3.0)]


def test_the_same_text_has_no_difference() -> None:
    assert first_difference(OURS, "The sea is") is None
    assert first_difference(OURS, "The sea is blue") is None
    assert first_difference(OURS, "The se") is None  # It ended first.


def test_the_first_token_that_parts_is_found_with_its_gap() -> None:
    found = first_difference(OURS, "The sky was")

    assert found == Difference(1, " sea", " sky was", 0.05)
    assert found.is_near_tie
    assert not first_difference(OURS, "A sea").is_near_tie  # type: ignore[union-attr]


def test_only_what_both_wrote_counts_as_alike() -> None:
    """Without the count, two empty answers would pass for the same."""
    assert [n_within(OURS, text) for text in ("", "The", "The se", "The sea is blue")] == [
        *(0, 1, 1, 3)
    ]


def test_a_gap_is_between_the_two_best_tokens() -> None:
    top = [{"logprob": -2.5}, {"logprob": -0.5}]
    answer = {"logprobs": [{"token": "a", "top_logprobs": top}]}

    assert tokens_of(answer) == [Token("a", 2.0)]
