from __future__ import annotations

from dataclasses import astuple

import pytest

from ollamad.runners.worker.batching import PREFILL_BESIDE_DECODES_MAX, Need, share_batch

CAP = PREFILL_BESIDE_DECODES_MAX


def decode(slot: int) -> Need:
    return Need(slot, 1, is_decode=True, arrival=0)


def prefill(slot: int, n_tokens: int, arrival: int = 0) -> Need:
    return Need(slot, n_tokens, is_decode=False, arrival=arrival)


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
    ],
    ids=[
        "nobody", "decodes", "prefill", "long-prefill", "oldest-prefill-first",
        "one-prefill-takes-all", "prefill-is-capped-beside-decodes", "the-cap-is-shared",
        "a-small-batch", "no-room-for-prefill", "more-decodes-than-room",
    ],
)  # fmt: skip
def test_a_batch_is_shared(needs: list[Need], n_batch: int, shares: list[tuple[int, int]]) -> None:
    assert [astuple(share) for share in share_batch(needs, n_batch)] == shares


@pytest.mark.parametrize("n_decodes", range(5))
@pytest.mark.parametrize("n_batch", [1, 4, 200, 512])
def test_a_batch_is_never_overfull_and_nobody_gets_nothing(n_decodes: int, n_batch: int) -> None:
    needs = [decode(n) for n in range(n_decodes)]
    needs += [prefill(10 + n, 150, arrival=n) for n in range(3)]

    shares = share_batch(needs, n_batch)

    assert sum(share.n_tokens for share in shares) <= n_batch
    assert all(share.n_tokens > 0 for share in shares)
    assert len({share.slot for share in shares}) == len(shares)
