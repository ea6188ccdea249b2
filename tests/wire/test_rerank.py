"""/api/rerank on fakes: a fake runner's score is the number of a document's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.wire.site import a_site

RANKER = {"llama.pooling_type": 4}
ASKED: dict[str, Any] = {
    "model": "tiny",
    "query": "q",
    "documents": ["one", "three words here", {"text": "two words", "id": 7}],
}


async def test_the_best_document_comes_first(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path, metadata=RANKER) as site:
        answer = await site.ask("POST", "/api/rerank", ASKED)
        await wait_all_tasks_blocked()
        (view,) = site.house.supervisor.residents()

    assert list(answer.json) == [
        "model", "results", "total_duration", "load_duration", "prompt_eval_count",
    ]  # fmt: skip
    assert answer.json["results"] == [
        {"index": 1, "relevance_score": 3.0},
        {"index": 2, "relevance_score": 2.0},
        {"index": 0, "relevance_score": 1.0},
    ]
    assert view.n_leases == 0


async def test_only_the_best_are_told_and_with_their_documents_if_wanted(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, metadata=RANKER) as site:
        body = {**ASKED, "top_n": 2, "return_documents": True}
        answer = await site.ask("POST", "/api/rerank", body)

    assert [place["document"] for place in answer.json["results"]] == [
        "three words here",
        {"text": "two words", "id": 7},
    ]


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"model": ""}, 400, "model is required"),
        ({"model": "x"}, 404, "model 'x' not found"),
        ({"query": ""}, 400, "query is required"),
        ({"documents": []}, 400, "documents are required"),
        ({"documents": [5]}, 400, 'documents: expected strings or objects with a "text"'),
    ],
)
async def test_what_is_missing_is_said(
    changes: dict[str, object],
    status: int,
    message: str,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    async with a_site(tmp_path, metadata=RANKER) as site:
        answer = await site.ask("POST", "/api/rerank", {**ASKED, **changes})

    assert (answer.status, answer.json) == (status, {"error": message})


async def test_a_model_without_a_rank_head_says_so_before_it_is_loaded(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", "/api/rerank", ASKED)
        started = site.house.launcher.started

    assert answer.status == 400
    assert answer.json["error"] == (
        '"tiny" does not support rerank: only models with a rank head do, and it has none'
    )
    assert started == []
