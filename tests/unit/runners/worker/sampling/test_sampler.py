from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ollamad.options import SamplingOptions
from ollamad.runners.protocol import FailureCode
from ollamad.runners.worker.engine import EngineRefused
from ollamad.runners.worker.sampling.mask import TokenMask
from ollamad.runners.worker.sampling.sampler import TokenSampler
from ollamad.runners.worker.sampling.vocab import VocabFacts
from tests.unit.runners.worker.sampling.values import in_order, softmax, some_logits

N_VOCAB = 6007
VOCAB = VocabFacts(n_vocab=N_VOCAB, find_end_tokens=lambda: (0, 6006))
LOGITS = some_logits(N_VOCAB)
LIKELIEST = int(LOGITS.argmax())

WAYS: list[dict[str, Any]] = [  # keyword arguments of SamplingOptions
    {"temperature": 0.0},
    {"temperature": -1.0},
    {"temperature": 1e-30},
    {},
    {"top_k": 0},
    {"top_k": 0, "top_p": 1.0},
    {"top_k": 0, "top_p": 1.0, "min_p": 0.1},
    {"top_k": 0, "top_p": 1.0, "min_p": 5.0},
    {"top_k": 0, "typical_p": 0.5},
    {"top_k": 2**32 - 1, "top_p": 1.0, "temperature": 4e9},
    {"top_n_sigma": 1.0},
    {"top_k": 0, "top_p": 1.0, "top_n_sigma": 1.5},
    {"xtc_probability": 1.0, "xtc_threshold": 0.05},
    {"top_k": 0, "top_p": 1.0, "xtc_probability": 1.0, "xtc_threshold": 0.0},
    {"top_k": 0, "top_p": 1.0, "xtc_probability": 1.0, "xtc_threshold": 0.5},
    {"mirostat": 1},
    {"mirostat": 2},
    {"repeat_penalty": 1.5, "frequency_penalty": 1.0, "repeat_last_n": -1},
    {"dry_multiplier": 1.0, "dry_penalty_last_n": -1},
    {"logit_bias": ((3, 1e9), (5, -1e9)), "ignore_eos": True},
]


def a_sampler(seed: int = 1, history: tuple[int, ...] = (), **options: Any) -> TokenSampler:
    return TokenSampler(SamplingOptions(**options), seed, VOCAB, history)


def draws(sampler: TokenSampler, logits: npt.NDArray[np.float32], count: int) -> list[int]:
    return [sampler.choose(logits, position) for position in range(count)]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_choosing_is_repeatable_and_leaves_the_logits_as_they_were(way: dict[str, Any]) -> None:
    sampler = a_sampler(history=(1, 2, 3, 1, 2), **way)
    logits = LOGITS.copy()

    chosen = draws(sampler, logits, 30)

    assert draws(sampler, logits, 30) == chosen
    assert np.array_equal(logits, LOGITS)


@pytest.mark.parametrize("way", [way for way in WAYS if "mirostat" not in way], ids=str)
def test_a_stream_continued_elsewhere_goes_on_as_it_would_have(way: dict[str, Any]) -> None:
    first = a_sampler(history=(1, 2, 3), **way)
    answer = []
    for position in range(12):
        answer.append(first.choose(some_logits(N_VOCAB, position % 3), position))
        first.accept(answer[-1])

    second = a_sampler(history=(1, 2, 3, *answer[:6]), **way)
    for position in range(6, 12):
        assert second.choose(some_logits(N_VOCAB, position % 3), position) == answer[position]
        second.accept(answer[position])


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.02, 0.0002])
def test_only_what_a_mask_allows_is_chosen(way: dict[str, Any], share: float) -> None:
    allowed = np.random.default_rng(5).random(N_VOCAB) < share
    allowed[[LIKELIEST, 3, 0]] = False
    allowed[17] = True
    sampler = a_sampler(history=(1, 2, 3, 1, 2), **way)

    chosen = [sampler.choose(LOGITS, p, TokenMask.of(allowed)) for p in range(20)]

    assert allowed[chosen].all()


@pytest.mark.parametrize("way", [{"temperature": 0.0}, {}, {"top_k": 0}], ids=str)
@pytest.mark.parametrize("share", [0.9, 0.3, 0.01])
def test_a_mask_is_as_if_other_tokens_were_impossible(way: dict[str, Any], share: float) -> None:
    allowed = np.random.default_rng(6).random(N_VOCAB) < share
    impossible = np.where(allowed, LOGITS, np.float32(-np.inf))
    sampler = a_sampler(**way)

    chosen = [sampler.choose(LOGITS, p, TokenMask.of(allowed)) for p in range(50)]

    assert chosen == draws(sampler, impossible, 50)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("broken", ["a nan", "all nan", "all -inf", "an inf"])
def test_a_model_that_computes_no_number_is_told(way: dict[str, Any], broken: str) -> None:
    logits = LOGITS.copy()
    match broken:
        case "a nan":
            logits[-7] = np.nan
        case "all nan":
            logits[:] = np.nan
        case "all -inf":
            logits[:] = -np.inf
        case _:
            logits[9] = np.inf

    with pytest.raises(EngineRefused, match="weights are damaged") as caught:
        a_sampler(**way).choose(logits, 0)

    assert caught.value.code is FailureCode.ENGINE


@pytest.mark.parametrize("way", [{"temperature": 0.0}, {}], ids=str)
def test_a_mask_that_leaves_nothing_is_told(way: dict[str, Any]) -> None:
    nothing = TokenMask.of(np.zeros(N_VOCAB, dtype=np.bool_))
    only_impossible = LOGITS.copy()
    only_impossible[5:] = -np.inf

    with pytest.raises(EngineRefused, match="grammar leaves no token"):
        a_sampler(**way).choose(LOGITS, 0, nothing)
    with pytest.raises(EngineRefused, match="grammar leaves no token"):
        a_sampler(**way).choose(only_impossible, 0, TokenMask.of(np.arange(N_VOCAB) >= 5))


def test_greedy_takes_the_likeliest_after_edits() -> None:
    assert a_sampler(temperature=0.0).choose(LOGITS, 0) == LIKELIEST
    banned = a_sampler(temperature=0.0, logit_bias=((LIKELIEST, -100.0),))
    assert banned.choose(LOGITS, 0) == in_order(LOGITS).tokens[1]
    wanted = a_sampler(temperature=0.0, logit_bias=((9, 100.0),))
    assert wanted.choose(LOGITS, 0) == 9


def test_an_ignored_end_is_never_chosen() -> None:
    logits = LOGITS.copy()
    logits[[0, 6006]] = 50

    assert set(draws(a_sampler(), logits, 50)) <= {0, 6006}
    assert not set(draws(a_sampler(ignore_eos=True), logits, 50)) & {0, 6006}
    assert a_sampler(temperature=0.0, ignore_eos=True).choose(logits, 0) == LIKELIEST


def test_accepted_tokens_count_for_penalties() -> None:
    sampler = a_sampler(temperature=0.0, presence_penalty=100.0)
    order = in_order(LOGITS).tokens.tolist()
    chosen = []
    for position in range(5):
        chosen.append(sampler.choose(LOGITS, position))
        sampler.accept(chosen[-1])

    assert chosen == order[:5]


def test_another_seed_draws_other_tokens() -> None:
    ways = {tuple(draws(a_sampler(seed), LOGITS, 20)) for seed in range(5)}

    assert len(ways) == 5


def test_xtc_tosses_its_coin_apart_from_the_draw() -> None:
    """Were it one number, only low draws would ever meet the rule."""
    flat = np.full(N_VOCAB, -np.inf, dtype=np.float32)
    flat[:4] = [3.0, 2.9, 2.8, 2.7]
    plain = draws(a_sampler(top_p=1.0), flat, 4000)
    tossed = draws(a_sampler(top_p=1.0, xtc_probability=0.5, xtc_threshold=0.1), flat, 4000)

    unchanged = [a for a, b in zip(plain, tossed, strict=True) if a == b != 3]
    shares = np.bincount(unchanged, minlength=3)[:3] / np.bincount(plain, minlength=4)[:3]
    assert shares == pytest.approx([0.5, 0.5, 0.5], abs=0.05)
    assert np.mean([token == 3 for token in tossed]) == pytest.approx(0.5 + 0.5 * 0.21, abs=0.03)


@pytest.mark.parametrize(
    "way",
    [
        {"top_k": 8, "top_p": 1.0, "temperature": 1.0},
        {"top_k": 8, "top_p": 1.0, "temperature": 2.0},
        {"top_k": 0, "top_p": 1.0, "temperature": 1.0},
        {"top_k": 0, "top_p": 0.95, "temperature": 1.0},
        {"top_k": 0, "top_p": 1.0, "min_p": 0.01, "temperature": 0.7},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [1, 2])
def test_many_draws_follow_the_distribution(way: dict[str, Any], seed: int) -> None:
    logits = np.random.default_rng(3).normal(0, 1.5, 16).astype(np.float32)
    options = SamplingOptions(**way)
    sampler = TokenSampler(options, seed, VocabFacts(n_vocab=16))
    allowed = in_order(logits)
    if options.top_k:
        allowed = allowed.first(options.top_k)
    shares = softmax(allowed.logits)
    if options.top_p < 1:
        kept = int((shares.cumsum() < options.top_p).sum()) + 1
        allowed = allowed.first(kept)
    if options.min_p:
        allowed = allowed.first(int((shares >= options.min_p * shares[0]).sum()))
    expected = np.zeros(16)
    expected[allowed.tokens] = softmax(allowed.logits / options.temperature)

    n_draws = 20_000
    counts = np.bincount(draws(sampler, logits, n_draws), minlength=16)

    assert counts[expected == 0].sum() == 0
    likely = expected > 0
    wanted = n_draws * expected[likely]
    chi_square = float(((counts[likely] - wanted) ** 2 / wanted).sum())
    assert chi_square < 38  # 15 degrees of freedom at most: p < 0.001
