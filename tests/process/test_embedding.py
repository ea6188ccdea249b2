"""The embedding engine with real models, in this process: no socket, no daemon, one thread."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import PoolingType

from ollamad.runners.protocol import (
    Embed,
    Embedded,
    Failed,
    FailureCode,
    Generate,
    LoadPlan,
    MemoryKind,
    Rank,
    Ranked,
    RequestId,
)
from ollamad.runners.worker.bindings import start_backends
from ollamad.runners.worker.embedding import EmbeddingEngine, unit_length
from ollamad.runners.worker.engine import EngineRefused, StepResult
from ollamad.runners.worker.engines import load_engine
from tests.process import minilm
from tests.process.minilm import Array, RankHead, write_minilm

pytestmark = [pytest.mark.process, pytest.mark.model]

HEAD = RankHead.random(384, seed=7)
TEXTS = (
    "The sea is blue.",
    "a",
    "",
    "Llamas are members of the camelid family, and 2,000 of them live here!",
    "Où est la bibliothèque? 東京",
    "the quick brown fox jumps over the lazy dog " * 12,
)

Load = Callable[..., EmbeddingEngine]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    start_backends()
    return tmp_path_factory.mktemp("embedding")


@pytest.fixture(scope="module")
def load(folder: Path) -> Load:
    def loaded(path: Path | None = None, **changes: object) -> EmbeddingEngine:
        plan = {"n_ctx": 256, "n_slots": 8, "n_batch": 256, "n_threads": 1} | changes
        model_path = str(path or folder / "minilm.gguf")
        engine = load_engine(
            LoadPlan(model_path=model_path, embedding=True, **plan),  # type: ignore[arg-type]
            lambda _fraction: None,
        )
        assert isinstance(engine, EmbeddingEngine)
        return engine

    write_minilm(folder / "minilm.gguf")
    return loaded


@pytest.fixture(scope="module")
def engine(load: Load) -> EmbeddingEngine:
    return load()


@pytest.fixture(scope="module")
def ranker(load: Load, folder: Path) -> EmbeddingEngine:
    return load(write_minilm(folder / "ranker.gguf", rank_head=HEAD))


class Answers:
    """Steps an engine and keeps what comes."""

    def __init__(self, engine: EmbeddingEngine) -> None:
        self.engine = engine
        self.embedded: dict[RequestId, Embedded] = {}
        self.ranked: dict[RequestId, Ranked] = {}
        self.failed: dict[RequestId, Failed] = {}

    def take(self, result: StepResult) -> None:
        for answer in result.answers:
            assert answer.id not in {*self.embedded, *self.ranked}, "answered twice"
            if isinstance(answer, Embedded):
                self.embedded[answer.id] = answer
            else:
                self.ranked[answer.id] = answer
        self.failed |= {failed.id: failed for failed in result.failed}

    def run(self) -> None:
        while self.engine.has_work:
            self.take(self.engine.step())

    def vectors(self, request_id: RequestId) -> Array:
        answer = self.embedded[request_id]
        return np.frombuffer(answer.vectors, "<f4").reshape(-1, answer.n_dims)


def embed(engine: EmbeddingEngine, *texts: str, **options: object) -> Array:
    answers = Answers(engine)
    engine.submit(Embed(id=1, texts=texts, **options))  # type: ignore[arg-type]
    answers.run()
    assert answers.failed == {}
    return answers.vectors(1)


def cosines(some: Array, others: Array) -> Array:
    products: Array = (unit_length(some) * unit_length(others)).sum(axis=1)
    return products


def test_vectors_are_those_of_the_model_in_numpy(engine: EmbeddingEngine) -> None:
    vectors = embed(engine, *TEXTS)

    for text, vector in zip(TEXTS, vectors, strict=True):
        reference = minilm.embedding(engine.tokenize(text, add_special=True))
        assert float(vector @ reference) > 0.999, text


def test_words_are_cut_as_the_models_own_tokenizer_does(engine: EmbeddingEngine) -> None:
    words = minilm.minilm().vocabulary

    tokens = engine.tokenize("Embeddings, naïve!", add_special=True)

    assert [words[token] for token in tokens] == [
        "[CLS]", "em", "##bed", "##ding", "##s", ",", "naive", "!", "[SEP]",
    ]  # fmt: skip


def test_together_gives_what_alone_gives(engine: EmbeddingEngine) -> None:
    together = embed(engine, *TEXTS)
    alone = np.concatenate([embed(engine, text) for text in TEXTS])

    assert cosines(together, alone).min() > 0.999
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_any_interleaving_of_requests_and_cancellations_gives_each_its_own_vectors(
    engine: EmbeddingEngine, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    answers = Answers(engine)
    asked: dict[RequestId, tuple[str, ...]] = {}
    cancelled = set()
    for request_id in range(20):
        asked[request_id] = tuple(chance.choices(TEXTS, k=chance.randrange(1, 9)))
        engine.submit(Embed(id=request_id, texts=asked[request_id]))
        if chance.random() < 0.4:
            answers.take(engine.step())
        if chance.random() < 0.3:
            leaving = chance.choice(list(asked))
            if leaving not in answers.embedded:
                cancelled.add(leaving)
            answers.take(engine.cancel(leaving))
    answers.run()

    assert answers.failed == {}
    assert set(answers.embedded) == set(asked) - cancelled
    solo = dict(zip(TEXTS, embed(engine, *TEXTS), strict=True))
    for request_id in answers.embedded:
        expected = np.stack([solo[text] for text in asked[request_id]])
        assert cosines(answers.vectors(request_id), expected).min() > 0.999
    assert (engine.gauges.slots_busy, engine.gauges.waiting) == (0, 0)


def test_requests_that_meet_share_a_batch(engine: EmbeddingEngine) -> None:
    answers = Answers(engine)
    for request_id in range(4):
        engine.submit(Embed(id=request_id, texts=("The sea is blue.", "a")))
    before = engine.gauges.steps
    answers.take(engine.step())

    assert set(answers.embedded) == {0, 1, 2, 3}
    assert engine.gauges.steps == before + 1


def test_a_small_request_is_answered_before_a_large_one_is_done(engine: EmbeddingEngine) -> None:
    answers = Answers(engine)
    engine.submit(Embed(id=1, texts=(TEXTS[-1],) * 20))
    engine.submit(Embed(id=2, texts=("a",)))

    while 2 not in answers.embedded:
        answers.take(engine.step())

    assert engine.gauges.steps < 10_000
    assert 1 not in answers.embedded
    engine.cancel(1)
    assert not engine.has_work


def test_dimensions_cut_and_are_normalised_again(engine: EmbeddingEngine) -> None:
    whole, cut = embed(engine, *TEXTS), embed(engine, *TEXTS, dimensions=32)

    assert cut.shape == (len(TEXTS), 32)
    assert np.allclose(cut, unit_length(whole[:, :32]), atol=1e-6)
    assert embed(engine, "a", dimensions=5000).shape == (1, 384)


def test_vectors_can_be_had_as_the_model_gives_them(engine: EmbeddingEngine) -> None:
    raw = embed(engine, "The sea is blue.", normalize=False)

    mean = minilm.hidden_states(engine.tokenize("The sea is blue.", add_special=True)).mean(axis=0)
    assert abs(np.linalg.norm(raw) - np.linalg.norm(mean)) < 0.01
    assert np.linalg.norm(raw) > 2


def test_what_is_too_long_is_cut_before_its_last_token_or_refused(
    engine: EmbeddingEngine,
) -> None:
    long = "sea " * 1000
    answers = Answers(engine)
    engine.submit(Embed(id=1, texts=(long,)))
    answers.run()

    assert answers.embedded[1].prompt_tokens == 256
    assert cosines(answers.vectors(1), embed(engine, "sea " * 254))[0] > 0.9999
    with pytest.raises(EngineRefused, match="the input length exceeds the context length") as no:
        engine.submit(Embed(id=2, texts=("a", long), truncate=False))
    assert no.value.code is FailureCode.CONTEXT_TOO_LONG
    assert not engine.has_work


def test_a_context_without_room_for_any_word_is_said(load: Load) -> None:
    with pytest.raises(EngineRefused, match="input after truncation exceeds"):
        load(n_ctx=2, n_batch=2).submit(Embed(id=1, texts=("sea sea",)))


def test_a_context_is_never_longer_than_the_models_positions(load: Load) -> None:
    engine = load(n_ctx=4096, n_batch=64)

    assert engine.n_ctx == 512
    assert embed(engine, "sea " * 1000).shape == (1, 384)


def test_a_step_for_one_who_leaves_is_interrupted(engine: EmbeddingEngine) -> None:
    model, answers = engine._model, Answers(engine)
    compute = model._compute
    codes: list[int] = []

    def interrupted(context: object, batch: object) -> int:
        engine.interrupt(1)
        codes.append(compute(context, batch))
        return codes[-1]

    engine.submit(Embed(id=1, texts=(TEXTS[-1],)))
    model._compute = interrupted
    answers.take(engine.step())
    engine.submit(Embed(id=2, texts=("a",)))
    answers.take(engine.step())  # Computed for both, and so not interrupted.
    model._compute = compute
    answers.run()

    assert codes == [2, 0], "2 is llama.cpp's word for aborted"
    assert cosines(answers.vectors(1), embed(engine, TEXTS[-1]))[0] > 0.999
    assert cosines(answers.vectors(2), embed(engine, "a"))[0] > 0.999


def test_a_computation_that_fails_ends_only_the_requests_in_it(engine: EmbeddingEngine) -> None:
    answers = Answers(engine)
    compute = engine._model._compute
    engine.submit(Embed(id=1, texts=("a",)))
    engine._model._compute = lambda _context, _batch: -3
    answers.take(engine.step())
    engine._model._compute = compute
    engine.submit(Embed(id=2, texts=("a",)))
    answers.run()

    assert answers.failed[1].code is FailureCode.ENGINE
    assert set(answers.embedded) == {2}


def test_a_vector_that_is_no_number_is_an_error_of_its_request_only(
    load: Load, folder: Path
) -> None:
    engine = load(write_minilm(folder / "poisoned.gguf", n_layers=1, is_poisoned=True))
    answers = Answers(engine)
    engine.submit(Embed(id=1, texts=("moon", "sea")))
    engine.submit(Embed(id=2, texts=("moon",)))
    answers.run()

    assert answers.failed[1].detail == "embedding contains NaN or Inf values"
    assert answers.failed[1].code is FailureCode.ENGINE
    assert set(answers.embedded) == {2}


def test_an_encoder_that_names_no_pooling_is_averaged(
    engine: EmbeddingEngine, load: Load, folder: Path
) -> None:
    unnamed = load(write_minilm(folder / "unnamed.gguf", pooling=None))

    assert cosines(embed(unnamed, *TEXTS), embed(engine, *TEXTS)).min() > 0.9999


def test_the_first_token_can_stand_for_the_text(load: Load, folder: Path) -> None:
    first = load(write_minilm(folder / "cls.gguf", pooling=PoolingType.CLS))

    reference = minilm.hidden_states(first.tokenize("The sea", add_special=True))[:1]
    assert cosines(embed(first, "The sea"), reference)[0] > 0.999


@pytest.mark.parametrize(
    ("request_", "detail"),
    [
        (Generate(id=1, prompt="a"), "cannot generate"),
        (Rank(id=1, query="a", documents=("b",)), "this model has no rank head"),
        (Embed(id=1, texts=()), "no text"),
    ],
)
def test_what_the_model_cannot_do_is_refused(
    engine: EmbeddingEngine, request_: Generate | Rank | Embed, detail: str
) -> None:
    with pytest.raises(EngineRefused, match=detail) as caught:
        engine.submit(request_)

    assert caught.value.code is FailureCode.BAD_REQUEST
    assert engine.memory_kind is MemoryKind.NONE


# Ranking


def test_scores_are_those_of_the_head_in_numpy(ranker: EmbeddingEngine) -> None:
    query, documents = "where is the sea", TEXTS
    answers = Answers(ranker)
    ranker.submit(Rank(id=1, query=query, documents=documents))
    answers.run()

    pairs = [pair_of(ranker, query, document) for document in documents]
    expected = [minilm.rank_score(pair, HEAD) for pair in pairs]
    assert answers.ranked[1].scores == pytest.approx(expected, abs=0.01)
    assert answers.ranked[1].prompt_tokens == sum(map(len, pairs))
    assert np.ptp(expected) > 0.1, "else any order would do"


def pair_of(engine: EmbeddingEngine, query: str, document: str) -> list[int]:
    head = engine.tokenize(query, add_special=True)
    return [*head, *engine.tokenize(document, add_special=False)]


def test_only_a_document_is_cut(ranker: EmbeddingEngine) -> None:
    answers = Answers(ranker)
    ranker.submit(Rank(id=1, query="where is the sea", documents=("sea " * 1000,)))
    answers.run()

    assert answers.ranked[1].prompt_tokens == 256
    for query, truncate in (("sea", False), ("sea " * 300, True)):
        with pytest.raises(EngineRefused, match="exceeds the context length"):
            ranker.submit(Rank(id=2, query=query, documents=("sea " * 1000,), truncate=truncate))


def test_a_models_own_template_puts_a_pair_together(load: Load, folder: Path) -> None:
    template = "[CLS] search: {query} [SEP] {document} [SEP]"
    path = write_minilm(folder / "template.gguf", rank_head=HEAD, rank_template=template)
    ranker = load(path)
    # What looks like a placeholder in a query stays what it is.
    query, document = "what is {document}", "a word"
    answers = Answers(ranker)
    ranker.submit(Rank(id=1, query=query, documents=(document, "sea " * 1000)))
    answers.run()

    pair = ranker.tokenize(f"search: {query} [SEP] {document}", add_special=True)
    assert answers.ranked[1].scores[0] == pytest.approx(minilm.rank_score(pair, HEAD), abs=0.01)
    assert answers.ranked[1].prompt_tokens == len(pair) + 256


def test_a_ranker_makes_no_embeddings(ranker: EmbeddingEngine) -> None:
    with pytest.raises(EngineRefused, match="makes no embeddings"):
        ranker.submit(Embed(id=1, texts=("a",)))


# Generating models


def test_a_generating_model_can_embed_and_a_long_text_takes_several_steps(
    load: Load, model_file: Path
) -> None:
    wide = load(model_file, n_batch=256)
    narrow = load(model_file, n_batch=32)
    texts = ("The sea is blue.", "The ocean is blue.", "Fix the null pointer bug.", TEXTS[-1])

    vectors, parts = embed(wide, *texts), embed(narrow, *texts)

    assert vectors.shape == (4, 576)
    assert wide.memory_kind is MemoryKind.WHOLE
    assert cosines(vectors, parts).min() > 0.99
    assert float(vectors[0] @ vectors[1]) > float(vectors[0] @ vectors[2])


def test_an_interrupted_part_of_a_long_text_is_done_again(load: Load, model_file: Path) -> None:
    engine = load(model_file, n_batch=32)
    expected = embed(engine, TEXTS[-1])
    model, answers = engine._model, Answers(engine)
    compute = model._compute
    codes: list[int] = []

    def interrupted(context: object, batch: object) -> int:
        if len(codes) == 1:
            engine.interrupt(1)
        codes.append(compute(context, batch))
        return codes[-1]

    engine.submit(Embed(id=1, texts=(TEXTS[-1],)))
    model._compute = interrupted
    answers.run()

    assert codes[:3] == [0, 2, 0]
    assert cosines(answers.vectors(1), expected)[0] > 0.9999


def test_a_long_text_may_be_cancelled_between_its_steps(load: Load, model_file: Path) -> None:
    engine = load(model_file, n_batch=32)
    answers = Answers(engine)
    engine.submit(Embed(id=1, texts=(TEXTS[-1],)))
    answers.take(engine.step())
    answers.take(engine.cancel(1))
    engine.submit(Embed(id=2, texts=("The sea is blue.",)))
    answers.run()

    assert set(answers.embedded) == {2}
    assert cosines(answers.vectors(2), embed(engine, "The sea is blue."))[0] > 0.999
