"""The official `ollama` Python client asks the real daemon for vectors of a real model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import ollama
import pytest

from tests.process.conftest import MODEL
from tests.process.daemonprocess import DaemonProcess
from tests.process.minilm import RankHead, write_minilm

pytestmark = [pytest.mark.process, pytest.mark.model]

SEA = "The sea is blue."
TEXTS = [SEA, "The ocean has the colour of the sky.", "Fix the null pointer in the parser."]


@pytest.fixture(scope="module")
def minilm(daemon: DaemonProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of an embedding model in the daemon."""
    client = ollama.Client(daemon.url)
    path = write_minilm(tmp_path_factory.mktemp("minilm") / "minilm.gguf")
    client.create("minilm", files={"minilm.gguf": client.create_blob(path)})
    yield "minilm"
    client.delete("minilm")
    client._client.close()


def test_texts_with_one_meaning_have_near_vectors(client: ollama.Client, minilm: str) -> None:
    answer = client.embed(minilm, TEXTS)

    vectors = np.array(answer.embeddings)
    assert vectors.shape == (3, 384)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    assert vectors[0] @ vectors[1] > 0.4
    assert vectors[0] @ vectors[2] < 0.2
    assert answer.prompt_eval_count == 29
    assert (answer.total_duration or 0) > 0


def test_the_older_route_gives_the_same_direction(client: ollama.Client, minilm: str) -> None:
    new = np.array(client.embed(minilm, SEA).embeddings[0])
    old = np.array(client.embeddings(minilm, SEA).embedding)

    assert float(new @ old) / np.linalg.norm(old) > 0.9999
    assert np.linalg.norm(old) > 2


def test_dimensions_and_truncation(client: ollama.Client, minilm: str) -> None:
    assert len(client.embed(minilm, SEA, dimensions=64).embeddings[0]) == 64
    assert client.embed(minilm, "sea " * 2000).prompt_eval_count == 512
    with pytest.raises(ollama.ResponseError, match="the input length exceeds the context") as no:
        client.embed(minilm, "sea " * 2000, truncate=False)
    assert no.value.status_code == 400


def test_many_clients_are_answered_each_with_its_own(
    daemon: DaemonProcess, client: ollama.Client, minilm: str
) -> None:
    texts = [f"{word} number {n}" for n in range(10) for word in ("sea", "moon", "house", "fox")]
    expected = np.array(client.embed(minilm, texts).embeddings)

    def ask(text: str) -> list[float]:
        mine = ollama.Client(daemon.url)
        try:
            return list(mine.embed(minilm, text).embeddings[0])
        finally:
            mine._client.close()

    with ThreadPoolExecutor(16) as pool:
        vectors = np.array(list(pool.map(ask, texts)))

    assert (vectors * expected).sum(axis=1).min() > 0.999


def test_what_is_shown_of_it_and_that_it_does_not_generate(
    client: ollama.Client, minilm: str
) -> None:
    assert client.show(minilm).capabilities == ["embedding"]
    client.embed(minilm, SEA)
    running = {model.model: model for model in client.ps().models}
    assert running["minilm:latest"].context_length == 512
    with pytest.raises(ollama.ResponseError, match="does not support generate"):
        client.generate(minilm, "hi")


def test_a_generating_model_embeds_too(client: ollama.Client) -> None:
    vectors = np.array(client.embed(MODEL, TEXTS).embeddings)

    assert vectors.shape == (3, 576)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert client.generate(MODEL, "hi", options={"num_predict": 1}).eval_count == 1


# Ranking, for which the official client has no words


@pytest.fixture(scope="module")
def ranker(daemon: DaemonProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a model with a rank head that nobody trained."""
    client = ollama.Client(daemon.url)
    head = RankHead.random(384, seed=7)
    path = write_minilm(tmp_path_factory.mktemp("ranker") / "ranker.gguf", rank_head=head)
    client.create("ranker", files={"ranker.gguf": client.create_blob(path)})
    yield "ranker"
    client.delete("ranker")
    client._client.close()


def test_a_real_ranker_orders_documents_the_same_each_time(
    client: ollama.Client, ranker: str
) -> None:
    body = {"model": ranker, "query": "where is the sea", "documents": TEXTS}
    answers = [client._client.post("/api/rerank", json=body).json() for _ in range(2)]
    best = client._client.post("/api/rerank", json={**body, "top_n": 1}).json()["results"]

    results = answers[0]["results"]
    scores = [result["relevance_score"] for result in results]
    assert sorted(scores, reverse=True) == scores
    assert {result["index"] for result in results} == {0, 1, 2}
    assert [r["index"] for r in answers[1]["results"]] == [r["index"] for r in results]
    assert [result["index"] for result in best] == [results[0]["index"]]
    assert answers[0]["prompt_eval_count"] > 0


def test_what_a_model_was_not_made_for_is_said(
    client: ollama.Client, ranker: str, minilm: str
) -> None:
    body = {"query": "q", "documents": ["d"]}
    unranked = client._client.post("/api/rerank", json={**body, "model": minilm})
    generating = client._client.post("/api/rerank", json={**body, "model": MODEL})
    unembedded = client._client.post("/api/embed", json={"model": ranker, "input": "a"})

    assert [answer.status_code for answer in (unranked, generating, unembedded)] == [400] * 3
    assert "does not support rerank" in unranked.json()["error"]
    assert "does not support rerank" in generating.json()["error"]
    assert "makes no embeddings" in unembedded.json()["error"]
