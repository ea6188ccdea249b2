"""Our samplers against llama.cpp's own, on random logits. No model is needed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ollamad.options import SamplingOptions
from ollamad.registry.embedded import embedded_model_file
from ollamad.runners.worker.bindings import llama, start_backends
from ollamad.runners.worker.sampling.candidates import Candidates
from ollamad.runners.worker.sampling.dry import Dry, breakers_of
from ollamad.runners.worker.sampling.edits import Editor, edited
from ollamad.runners.worker.sampling.mirostat import Mirostat
from ollamad.runners.worker.sampling.penalties import Penalties
from ollamad.runners.worker.sampling.pool import Pool
from ollamad.runners.worker.sampling.sampler import TokenSampler
from ollamad.runners.worker.sampling.vocab import VocabFacts

pytestmark = pytest.mark.process  # It loads the library.

N_VOCAB = 3001
SEEDS = range(6)
TOKEN_DATA = np.dtype([("token", np.int32), ("logit", np.float32), ("p", np.float32)])

Sampler = Any  # a pointer of ctypes


def some_logits(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 3, N_VOCAB).astype(np.float32)


@pytest.fixture
def applied() -> Iterator[Callable[..., dict[int, float]]]:
    """Applies a chain of llama.cpp's samplers, and returns the logits left by token."""
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())

    def apply(
        logits: npt.NDArray[np.float32], *samplers: Sampler, said: Sequence[int] = ()
    ) -> dict[int, float]:
        for sampler in samplers:
            llama.llama_sampler_chain_add(chain, sampler)
        for token in said:
            llama.llama_sampler_accept(chain, token)
        data = np.zeros(len(logits), dtype=TOKEN_DATA)
        data["token"] = np.arange(len(logits))
        data["logit"] = logits
        array = llama.llama_token_data_array(
            data=ctypes.cast(data.ctypes.data, ctypes.POINTER(llama.llama_token_data)),
            size=len(data),
            selected=-1,
            sorted=False,
        )
        llama.llama_sampler_apply(chain, ctypes.byref(array))
        return {array.data[i].id: array.data[i].logit for i in range(array.size)}

    yield apply
    llama.llama_sampler_free(chain)


def kept_by_us(logits: npt.NDArray[np.float32], **options: Any) -> Candidates:
    """Return what our own rules leave; those that are not given are off."""
    off = {"top_k": 0, "top_p": 1.0}
    sampler = TokenSampler(SamplingOptions(**(off | options)), 0, VocabFacts(n_vocab=len(logits)))
    kept = sampler._kept(Pool(logits))
    assert kept is not None
    return kept


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("options", "samplers"),
    [
        ({"top_k": 1}, [("top_k", 1)]),
        ({"top_k": 40}, [("top_k", 40)]),
        ({"top_k": 700}, [("top_k", 700)]),
        ({"top_k": 10**6}, [("top_k", 10**6)]),
        ({"top_p": 0.1}, [("top_p", 0.1, 1)]),
        ({"top_p": 0.9}, [("top_p", 0.9, 1)]),
        ({"top_p": 0.0}, [("top_p", 0.0, 1)]),
        ({"top_k": 40, "top_p": 0.7}, [("top_k", 40), ("top_p", 0.7, 1)]),
        ({"min_p": 0.05}, [("min_p", 0.05, 1)]),
        ({"min_p": 3.0}, [("min_p", 3.0, 1)]),
        ({"top_p": 0.9, "min_p": 0.1}, [("top_p", 0.9, 1), ("min_p", 0.1, 1)]),
        ({"typical_p": 0.5}, [("typical", 0.5, 1)]),
        ({"top_k": 60, "typical_p": 0.9}, [("top_k", 60), ("typical", 0.9, 1)]),
        (
            {"top_k": 60, "typical_p": 0.8, "top_p": 0.8, "min_p": 0.1},
            [("top_k", 60), ("typical", 0.8, 1), ("top_p", 0.8, 1), ("min_p", 0.1, 1)],
        ),
        ({"top_n_sigma": 1.0}, [("top_n_sigma", 1.0)]),
        ({"top_k": 40, "top_n_sigma": 0.5}, [("top_n_sigma", 0.5), ("top_k", 40)]),
        (
            {"top_k": 200, "top_n_sigma": 1.2, "top_p": 0.8},
            [("top_n_sigma", 1.2), ("top_k", 200), ("top_p", 0.8, 1)],
        ),
    ],
    ids=str,
)
def test_the_rules_leave_what_llama_cpp_leaves(
    applied: Callable[..., dict[int, float]],
    seed: int,
    options: dict[str, Any],
    samplers: list[tuple[Any, ...]],
) -> None:
    logits = some_logits(seed)
    made = [getattr(llama, f"llama_sampler_init_{name}")(*values) for name, *values in samplers]

    theirs = {token for token, logit in applied(logits, *made).items() if np.isfinite(logit)}

    assert set(kept_by_us(logits, **options).tokens.tolist()) == theirs


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.2, 0.5, 0.6])
@pytest.mark.parametrize("top_k", [2, 30])
def test_xtc_leaves_out_what_llama_cpp_leaves_out(
    applied: Callable[..., dict[int, float]], seed: int, threshold: float, top_k: int
) -> None:
    logits = some_logits(seed)
    theirs = applied(
        logits,
        llama.llama_sampler_init_top_k(top_k),
        llama.llama_sampler_init_xtc(1.0, threshold, 0, 1),
    )

    hot = SamplingOptions(
        temperature=1e9, top_k=top_k, top_p=1.0, xtc_probability=1.0, xtc_threshold=threshold
    )
    ours = TokenSampler(hot, 1, VocabFacts(n_vocab=N_VOCAB))

    # At such a temperature all that are left are drawn alike.
    assert {ours.choose(logits, position) for position in range(600)} == set(theirs)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature_scales_as_in_llama_cpp(
    applied: Callable[..., dict[int, float]], temperature: float
) -> None:
    logits = some_logits(1)
    theirs = applied(logits, llama.llama_sampler_init_temp(temperature))
    scaled = np.array([theirs[token] for token in range(N_VOCAB)])

    expected = np.exp(scaled - scaled.max())

    assert Pool(logits).weights(temperature) == pytest.approx(expected, rel=1e-4, abs=1e-30)


def logits_of(editor: Editor, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    with edited(logits, [editor]) as changed:
        return changed.copy()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("last_n", [1, 10, 64])
@pytest.mark.parametrize("penalties", [(1.3, 0.0, 0.0), (0.7, 0.0, 0.0), (1.1, 0.25, -0.5)])
def test_penalties_are_those_of_llama_cpp(
    applied: Callable[..., dict[int, float]],
    seed: int,
    last_n: int,
    penalties: tuple[float, float, float],
) -> None:
    repeat, frequency, presence = penalties
    logits = some_logits(seed)
    said = np.random.default_rng(seed).integers(0, 30, 100).tolist()
    options = SamplingOptions(
        repeat_penalty=repeat,
        frequency_penalty=frequency,
        presence_penalty=presence,
        repeat_last_n=last_n,
    )

    theirs = applied(
        logits,
        llama.llama_sampler_init_penalties(N_VOCAB, last_n, repeat, frequency, presence),
        said=said,
    )

    ours = logits_of(Penalties(options, said), logits)
    assert ours.tolist() == [theirs[token] for token in range(N_VOCAB)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n_kinds", [1, 2, 3, 10])
@pytest.mark.parametrize("allowed", [0, 2, 5])
@pytest.mark.parametrize("base", [1.0, 1.75, 3.0])
@pytest.mark.parametrize("last_n", [20, 400])
def test_dry_penalties_are_those_of_llama_cpp(
    applied: Callable[..., dict[int, float]],
    seed: int,
    n_kinds: int,
    allowed: int,
    base: float,
    last_n: int,
) -> None:
    logits = some_logits(seed)
    said = np.random.default_rng(seed).integers(0, n_kinds, 300).tolist()
    options = SamplingOptions(
        dry_multiplier=0.8, dry_base=base, dry_allowed_length=allowed, dry_penalty_last_n=last_n
    )

    theirs = applied(
        logits,
        llama.llama_sampler_init_dry(None, 0.8, base, allowed, last_n, None, 0),
        said=said,
    )

    ours = logits_of(Dry(options, said, {}), logits)
    expected = np.array([theirs[token] for token in range(N_VOCAB)], dtype=np.float32)
    assert ours == pytest.approx(expected, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tau", [0.5, 3.0, 5.0])
@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_keeps_what_llama_cpp_keeps(
    applied: Callable[..., dict[int, float]], seed: int, tau: float, version: int
) -> None:
    logits = some_logits(seed)
    theirs = (
        llama.llama_sampler_init_mirostat(N_VOCAB, 1, tau, 0.1, 100)
        if version == 1
        else llama.llama_sampler_init_mirostat_v2(1, tau, 0.1)
    )
    left = set(applied(logits, theirs))

    ours = Mirostat(SamplingOptions(mirostat=version, mirostat_tau=tau), N_VOCAB)
    kept = ours._kept_1(Pool(logits), 1.0) if version == 1 else ours._kept_2(Pool(logits), 1.0)

    # A number of thousands is rounded from a power of estimates.
    assert len(kept.tokens) == pytest.approx(len(left), rel=0.002)
    assert set(kept.tokens.tolist()) <= left or left <= set(kept.tokens.tolist())


@pytest.fixture(scope="module")
def vocabulary() -> Iterator[tuple[Any, VocabFacts]]:
    """llama.cpp's vocabulary of the embedded model, and what we know of it."""
    start_backends()
    path = embedded_model_file()
    assert path is not None, "install the extra `embedded`: the tests use its model"
    params = llama.llama_model_default_params()
    params.vocab_only = True
    model = llama.llama_model_load_from_file(str(path).encode(), params)
    vocab = llama.llama_model_get_vocab(model)

    def tokenize(text: str) -> list[int]:
        data = text.encode()
        tokens = (ctypes.c_int32 * 64)()
        return tokens[: llama.llama_tokenize(vocab, data, len(data), tokens, 64, False, False)]

    def piece(token: int) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        size = llama.llama_token_to_piece(vocab, token, buffer, 256, 0, True)
        return buffer.raw[:size]

    n_vocab = llama.llama_vocab_n_tokens(vocab)
    yield vocab, VocabFacts(n_vocab=n_vocab, tokenize=tokenize, piece=piece)
    llama.llama_model_free(model)


POEM = """The sea: it rises, and the sea falls.
The sea: it rises, and the wind calls, "the sea, the sea".
* the sea: it rises, and the"""


@pytest.mark.model
@pytest.mark.parametrize("breakers", [(), ("\n", ":", '"', "*"), ("rises,",), ("and the", "\n")])
@pytest.mark.parametrize("n_last", range(6))
def test_dry_breakers_are_those_of_llama_cpp(
    applied: Callable[..., dict[int, float]],
    vocabulary: tuple[Any, VocabFacts],
    breakers: tuple[str, ...],
    n_last: int,
) -> None:
    vocab, facts = vocabulary
    said = facts.tokenize(POEM)[: -n_last or None]
    logits = np.zeros(facts.n_vocab, dtype=np.float32)
    options = SamplingOptions(dry_multiplier=0.8, dry_allowed_length=1, dry_penalty_last_n=64)
    array = (ctypes.c_char_p * len(breakers))(*(text.encode() for text in breakers))

    theirs = applied(
        logits,
        llama.llama_sampler_init_dry(vocab, 0.8, 1.75, 1, 64, array, len(breakers)),
        said=said,
    )

    ours = logits_of(Dry(options, said, breakers_of(breakers, facts)), logits)
    expected = {token: logit for token, logit in theirs.items() if logit}
    assert {t: ours[t] for t in np.flatnonzero(ours).tolist()} == pytest.approx(expected)
