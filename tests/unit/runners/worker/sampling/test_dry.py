from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.options import SamplingOptions
from ollamad.runners.worker.sampling.dry import Dry, breakers_of
from ollamad.runners.worker.sampling.vocab import VocabFacts

PIECES = [b"a", b"b", b"c", b" x", b"\n", b".\n", b"cd", b"d", b"dc"]


def vocab() -> VocabFacts:
    by_text = {piece.decode(): token for token, piece in enumerate(PIECES)}
    return VocabFacts(
        n_vocab=len(PIECES),
        piece=lambda token: PIECES[token],
        tokenize=lambda text: [by_text[text]] if text in by_text else [by_text[c] for c in text],
    )


def penalties_of(
    said: list[int], *, breakers: tuple[str, ...] = (), **options: float
) -> dict[int, float]:
    chosen = SamplingOptions(
        **{"dry_multiplier": 1.0, "dry_base": 2.0, "dry_penalty_last_n": -1, **options}  # type: ignore[arg-type]
    )
    dry = Dry(chosen, said[:5], breakers_of(breakers, vocab()))
    for token in said[5:]:
        dry.accept(token)
    tokens, values = dry.change(np.zeros(len(PIECES), dtype=np.float32))
    return {t: -v for t, v in zip(tokens.tolist(), values.tolist(), strict=True)}


def longest_suffixes(said: list[int], allowed: int, limit: int) -> dict[int, float]:
    """The same by trying every place and every length."""
    found: dict[int, int] = {}
    for end in range(1, len(said)):
        length = 0
        while length < limit and length < end and said[end - 1 - length] == said[-1 - length]:
            length += 1
        if length >= allowed:
            found[said[end]] = max(found.get(said[end], 0), length)
    if len(said) <= allowed or limit < allowed:
        return {}
    return {token: 2.0 ** (length - allowed) for token, length in found.items()}


def test_going_on_with_a_repeated_sequence_costs_more_the_longer_it_is() -> None:
    assert penalties_of([0, 1, 2, 0, 1]) == {2: 1.0}
    assert penalties_of([3, 0, 1, 2, 3, 0, 1]) == {2: 2.0}
    assert penalties_of([0, 1, 2, 0, 1], dry_allowed_length=3) == {}
    assert penalties_of([0, 1, 2, 0, 1], dry_multiplier=0.5) == {2: 0.5}
    assert penalties_of([0, 1, 2, 3, 1]) == {}


@given(
    said=st.lists(st.integers(0, 2), max_size=60),
    allowed=st.integers(0, 4),
    last_n=st.sampled_from([-1, 3, 20]),
)
def test_penalties_are_those_of_trying_every_place(
    said: list[int], allowed: int, last_n: int
) -> None:
    window = said if last_n < 0 else said[-last_n:]

    found = penalties_of(said, dry_allowed_length=allowed, dry_penalty_last_n=last_n)

    assert found == longest_suffixes(window, allowed, len(window))


@given(said=st.lists(st.sampled_from([0, 1, 4, 5]), max_size=40))
def test_no_sequence_is_followed_over_a_breaker(said: list[int]) -> None:
    ends = [index for index, token in enumerate(said) if token in {4, 5}]
    limit = len(said) - 1 - ends[-1] if ends else len(said)
    expected = longest_suffixes(said, 2, limit)

    found = penalties_of(said, breakers=("\n",))

    assert found == {token: cost for token, cost in expected.items() if token not in {4, 5}}


def test_breakers_are_found_inside_tokens_and_across_them() -> None:
    assert breakers_of(("\n",), vocab()) == {4: ((),), 5: ((),)}
    assert breakers_of(("cd",), vocab()) == {2: ((7,),), 6: ((),), 8: ((7,),)}
    assert breakers_of((), vocab()) == breakers_of(("",), vocab()) == {}


def test_a_breaker_of_several_tokens_breaks_only_when_it_is_whole() -> None:
    whole, half = [0, 1, 2, 7, 0, 1], [0, 1, 2, 0, 1]

    assert penalties_of([*whole, *whole], breakers=("cd",)) == {2: 1.0, 0: 1.0}
    assert penalties_of([*half, *half], breakers=("cd",)) == {2: 1.0, 0: 2.0**3}


def test_a_long_repetition_costs_no_more_than_numbers_can_say() -> None:
    endless = penalties_of([0] * 500, dry_base=4e9)

    assert np.isfinite(endless[0])
    assert penalties_of([0] * 500, dry_base=1.0) == {0: 1.0}


@pytest.mark.parametrize("last_n", [-1, 7, 300])
def test_a_context_longer_than_the_first_room_is_kept(last_n: int) -> None:
    said = [*([0, 1, 2] * 400), 0, 1]

    assert max(penalties_of(said, dry_penalty_last_n=last_n, dry_base=1.5)) == 2


@pytest.mark.parametrize(
    ("options", "is_on"),
    [
        (SamplingOptions(), False),
        (SamplingOptions(dry_multiplier=0.8), True),
        (SamplingOptions(dry_multiplier=0.8, dry_base=0.5), False),
        (SamplingOptions(dry_multiplier=0.8, dry_penalty_last_n=0), False),
    ],
)
def test_dry_is_off_unless_asked_for(options: SamplingOptions, is_on: bool) -> None:
    assert Dry.is_on(options) is is_on
