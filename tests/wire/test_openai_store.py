"""OpenAI's vectors, models and rankings on fakes: a fake vector counts words and letters."""

from __future__ import annotations

import base64
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from ollamad.names import ModelName
from ollamad.registry.create import CreateSpec
from tests.builders import created
from tests.wire.site import Site, a_site

EMBED, RANK = "/v1/embeddings", "/v1/rerank"
RANKER = {"llama.pooling_type": 4}


async def test_vectors_are_told_in_order(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", EMBED, {"model": "tiny", "input": ["a b", "c"]})
        await wait_all_tasks_blocked()
        (view,) = site.house.supervisor.residents()

    whole = answer.json
    assert [list(one) for one in whole["data"]] == [["object", "embedding", "index"]] * 2
    assert whole == {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": [2, pytest.approx(0.3)], "index": 0},
            {"object": "embedding", "embedding": [1, pytest.approx(0.1)], "index": 1},
        ],
        "model": "tiny",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    assert view.n_leases == 0


async def test_base64_is_the_same_numbers(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        body = {"model": "tiny", "input": "a b", "encoding_format": "BASE64", "dimensions": 1}
        answer = await site.ask("POST", EMBED, body)

    (one,) = answer.json["data"]
    assert struct.unpack("<f", base64.b64decode(one["embedding"])) == (2.0,)


async def test_what_is_too_long_is_cut_only_for_those_who_ask(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    body = {"model": "tiny", "input": "word " * 300}
    async with a_site(tmp_path) as site:
        refused = await site.ask("POST", EMBED, body)
        cut = await site.ask("POST", EMBED, {**body, "truncate": True})

    error = refused.json["error"]
    assert (refused.status, error["code"]) == (400, "context_length_exceeded")
    assert cut.status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": [[1], [2]]}, "input"),
        ({"input": ["a", 5]}, "input"),
        ({"input": {}}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 2**31}, "dimensions"),
        ({"dimensions": "x"}, "dimensions"),
        ({"options": {"num_ctx": "x"}}, "options"),
        ({"keep_alive": "5"}, "keep_alive"),
    ],
)
async def test_a_wrong_field_of_a_question_for_vectors_is_named(
    fields: dict[str, Any], param: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", EMBED, {"model": "tiny", "input": "a", **fields})

    assert answer.status == 400
    assert answer.json["error"]["param"] == param


# Models


async def test_models_are_listed_and_found_by_any_of_their_names(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        created(site.store, CreateSpec(name=ModelName.parse("me/other:q4"), from_="tiny"))
        listed = (await site.ask("GET", "/v1/models")).json
        short = (await site.ask("GET", "/v1/models/tiny")).json
        whole = (await site.ask("GET", "/v1/models/me/other:q4")).json
        missing = await site.ask("GET", "/v1/models/me/none:q4")

    assert listed["object"] == "list"
    assert {(one["id"], one["owned_by"]) for one in listed["data"]} == {
        ("tiny:latest", "library"),
        ("me/other:q4", "me"),
    }
    assert short["id"] == "tiny"
    assert list(whole) == ["id", "object", "created", "owned_by"]
    assert whole["object"] == "model"
    assert whole["created"] > 1_700_000_000
    assert missing.status == 404
    assert missing.json["error"]["code"] == "model_not_found"


async def test_without_models_there_is_an_empty_list(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        await site.ask("DELETE", "/api/delete", {"model": "tiny"})
        answer = await site.ask("GET", "/v1/models")

    assert answer.json == {"object": "list", "data": []}


# Rankings


async def ranked(site: Site, **fields: Any) -> Any:
    body = {"model": "tiny", "query": "q", "documents": ["one", {"text": "two words"}]}
    return await site.ask("POST", RANK, {**body, **fields})


async def test_the_best_document_comes_first_and_relevance_is_from_0_to_1(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, metadata=RANKER) as site:
        answer = await ranked(site)
        best = await ranked(site, top_n=1, return_documents=True)

    whole = answer.json
    assert whole.pop("id").startswith("rerank-")
    assert whole == {
        "object": "list",
        "model": "tiny",
        "results": [
            {"index": 1, "relevance_score": pytest.approx(1 / (1 + math.exp(-2)))},
            {"index": 0, "relevance_score": pytest.approx(1 / (1 + math.exp(-1)))},
        ],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    (only,) = best.json["results"]
    assert only["document"] == {"text": "two words"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"query": ""}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": ["a", 5]}, "documents[1]"),
        ({"top_n": 0}, "top_n"),
    ],
)
async def test_a_wrong_field_of_a_ranking_is_named(
    fields: dict[str, Any], param: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, metadata=RANKER) as site:
        answer = await ranked(site, **fields)

    assert answer.status == 400
    assert answer.json["error"]["param"] == param


async def test_a_model_without_a_rank_head_cannot_rank(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await ranked(site)

    assert answer.status == 400
    assert "does not support rerank" in answer.json["error"]["message"]
