from __future__ import annotations

from dataclasses import astuple

import pytest

from ollamad.runners.worker.batching import (
    BURST_TOKENS,
    CHUNK_TOKENS,
    SLOWDOWN_MAX,
    STEPS_BETWEEN_CHUNKS,
    Need,
    PrefillAllowance,
    share_batch,
)

CAP = 128


def decode(who: int, n_tokens: int = 1) -> Need:
    return Need(who, n_tokens, is_decode=True, arrival=0)


def prefill(who: int, n_tokens: int, arrival: int = 0) -> Need:
    return Need(who, n_tokens, is_decode=False, arrival=arrival)


@pytest.mark.parametrize(
    ("needs", "n_batch", "shares"),
    [
        ([], 512, []),
        ([decode(0), decode(1)], 512, [(0, 1), (1, 1)]),
        ([prefill(0, 100)], 512, [(0, 100)]),
        ([prefill(0, 1000)], 512, [(0, 512)]),
        ([prefill(0, 500, 2), prefill(1, 300, 1)], 512, [(1, 300), (0, 212)]),
        ([prefill(0, 600, 1), prefill(1, 300, 2)], 512, [(0, 512)]),
        ([prefill(0, 1000), decode(1)], 512, [(1, 1), (0, CAP)]),
        ([prefill(0, 99, 1), prefill(2, 99, 2), decode(1)], 512, [(1, 1), (0, 99), (2, CAP - 99)]),
        ([prefill(0, 100), decode(1), decode(2)], 4, [(1, 1), (2, 1), (0, 2)]),
        ([prefill(0, 100), decode(1), decode(2)], 2, [(1, 1), (2, 1)]),
        ([decode(0), decode(1), decode(2)], 2, [(0, 1), (1, 1)]),
        ([decode(0, 5), decode(1), prefill(2, 9)], 512, [(0, 5), (1, 1), (2, 9)]),
        ([decode(0, 5), decode(1, 5)], 7, [(0, 5), (1, 2)]),
    ],
    ids=[
        "nobody", "decodes", "prefill", "long-prefill", "oldest-prefill-first",
        "one-prefill-takes-all", "prefill-is-capped-beside-decodes", "the-cap-is-shared",
        "a-small-batch", "no-room-for-prefill", "more-decodes-than-room",
        "forced-tokens-go-with-their-decode", "everybody-s-first-token-before-forced-ones",
    ],
)  # fmt: skip
def test_a_batch_is_shared(needs: list[Need], n_batch: int, shares: list[tuple[int, int]]) -> None:
    assert [astuple(share) for share in share_batch(needs, n_batch, CAP)] == shares


@pytest.mark.parametrize("n_decodes", range(5))
@pytest.mark.parametrize("n_batch", [1, 4, 200, 512])
def test_a_batch_is_never_overfull_and_nobody_gets_nothing(n_decodes: int, n_batch: int) -> None:
    needs = [decode(n) for n in range(n_decodes)]
    needs += [prefill(10 + n, 150, arrival=n) for n in range(3)]

    shares = share_batch(needs, n_batch, CAP)

    assert sum(share.n_tokens for share in shares) <= n_batch
    assert all(share.n_tokens > 0 for share in shares)
    assert len({share.who for share in shares}) == len(shares)


DECODE_S, TOKEN_S = 0.010, 0.001


def steps(
    allowance: PrefillAllowance, n_wanted: int, n_steps: int, token_s: float = TOKEN_S
) -> list[int]:
    """Run steps that take as long as they would; return how many prompt tokens each had."""
    taken = []
    for _ in range(n_steps):
        share = allowance.allow(n_wanted)
        allowance.note(4, share, DECODE_S + share * token_s)
        taken.append(share)
    return taken


def an_experienced_one(token_s: float = TOKEN_S) -> PrefillAllowance:
    allowance = PrefillAllowance()
    allowance.note(0, 500, 500 * token_s)
    steps(allowance, 0, 100, token_s)
    return allowance


def test_a_short_prompt_joins_at_once() -> None:
    allowance = an_experienced_one()

    assert allowance.allow(40) == 40
    assert allowance.allow(BURST_TOKENS) == BURST_TOKENS


def test_where_prompts_are_dear_nineteen_of_twenty_steps_are_without_them() -> None:
    allowance = an_experienced_one()
    steps(allowance, 10_000, 3)

    taken = steps(allowance, 10_000, 400)

    assert sum(share > 0 for share in taken) / len(taken) < 1 / 20
    assert CHUNK_TOKENS <= max(taken) < CHUNK_TOKENS + 8


def test_where_prompts_are_cheap_they_are_in_every_step_and_slow_it_down_as_much_as_they_may() -> (
    None
):
    cheap_s = DECODE_S / 1000
    allowance = an_experienced_one(cheap_s)
    steps(allowance, 10**6, 3, cheap_s)

    taken = steps(allowance, 10**6, 50, cheap_s)

    slowest_s = DECODE_S + max(taken) * cheap_s
    assert min(taken) > 0
    assert SLOWDOWN_MAX * 0.9 < slowest_s / DECODE_S <= SLOWDOWN_MAX * 1.1


def test_the_end_of_a_prompt_need_not_fill_a_chunk() -> None:
    allowance = an_experienced_one()
    steps(allowance, 10_000, 5)
    assert allowance.allow(CHUNK_TOKENS // 4) == 0

    for _ in range(STEPS_BETWEEN_CHUNKS // 4 + 1):
        allowance.note(4, 0, DECODE_S)

    assert allowance.allow(CHUNK_TOKENS // 4) == CHUNK_TOKENS // 4


def test_prompts_get_on_however_dear_they_are() -> None:
    allowance = an_experienced_one(token_s=10.0)

    taken = steps(allowance, 10_000, 3 * STEPS_BETWEEN_CHUNKS, token_s=10.0)

    assert sum(taken) >= BURST_TOKENS + CHUNK_TOKENS
