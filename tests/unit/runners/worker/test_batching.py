from __future__ import annotations

from dataclasses import astuple

import pytest

from ollamad.runners.worker.batching import (
    BURST_TOKENS,
    CHUNK_TOKENS_MIN,
    SLOWDOWN_MAX,
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


def settle(allowance: PrefillAllowance, n_prefill: int, n_steps: int = 200) -> list[int]:
    """Run steps that take as long as they would; return how many prompt tokens each had."""
    taken = []
    for _ in range(n_steps):
        share = min(n_prefill, allowance.tokens)
        allowance.note(4, share, DECODE_S + share * TOKEN_S)
        taken.append(share)
    return taken


def test_a_long_prompt_slows_the_others_down_by_no_more_than_is_allowed() -> None:
    allowance = PrefillAllowance()
    settle(allowance, 0)
    settle(allowance, 10_000, 20)

    taken = settle(allowance, 10_000)

    slowest_s = DECODE_S + max(taken) * TOKEN_S
    assert SLOWDOWN_MAX * 0.8 < slowest_s / DECODE_S <= SLOWDOWN_MAX * 1.05


def test_a_short_prompt_joins_at_once() -> None:
    allowance = PrefillAllowance()
    settle(allowance, 0)

    assert allowance.tokens >= BURST_TOKENS


def test_what_was_saved_is_spent_once() -> None:
    allowance = PrefillAllowance()
    settle(allowance, 0)
    first, *later = settle(allowance, 10_000, 50)

    assert first >= BURST_TOKENS
    assert max(later[5:]) < BURST_TOKENS


def test_prompts_get_on_however_dear_they_are() -> None:
    allowance = PrefillAllowance()
    allowance.note(1, 0, 0.001)
    for _ in range(20):
        allowance.note(1, 100, 10.0)

    assert allowance.tokens == CHUNK_TOKENS_MIN


def test_prompts_alone_teach_what_a_token_costs() -> None:
    allowance = PrefillAllowance()
    allowance.note(0, 500, 500 * TOKEN_S)
    allowance.note(4, 0, DECODE_S)
    settle(allowance, 10_000, 1)

    assert allowance.tokens == int((SLOWDOWN_MAX - 1) * DECODE_S / TOKEN_S)
