"""/api/embed and /api/embeddings, byte for byte, on fakes and in virtual time."""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ollamad.http.ollama import embed
from ollamad.http.ollama.embed import vectors_json
from ollamad.supervisor.leases import TEXTS_PER_MESSAGE
from tests.fakes.launcher import NOT_A_NUMBER
from tests.wire.site import a_site

JSON = "application/json; charset=utf-8"
NS_PER_S = 10**9


async def test_each_text_gets_a_vector_and_the_answer_its_measures(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        await site.ask("POST", "/api/embed", {"model": "tiny"})
        answer = await site.ask("POST", "/api/embed", {"model": "tiny", "input": ["a b", ""]})

    assert answer.status == 200
    assert answer.headers["content-type"] == JSON
    assert answer.body.decode() == (
        '{"model":"tiny","embeddings":[[2,0.300000012],[0,0]],"total_duration":50000000,'
        '"prompt_eval_count":2}'
    )


async def test_one_text_need_not_be_in_a_list(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", "/api/embed", {"model": "tiny", "input": "a b c"})

    assert [len(vector) for vector in answer.json["embeddings"]] == [2]
    assert answer.json["total_duration"] > answer.json["load_duration"] > 2 * NS_PER_S


@pytest.mark.parametrize("empty", [{}, {"input": ""}, {"input": []}, {"input": None}])
async def test_without_a_text_the_model_is_only_loaded(
    empty: dict[str, object], tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        new = await site.ask("POST", "/api/embed", {"model": "tiny", **empty})
        old = await site.ask("POST", "/api/embeddings", {"model": "tiny", "prompt": ""})
        await wait_all_tasks_blocked()
        (view,) = site.house.supervisor.residents()

    assert new.body == b'{"model":"tiny","embeddings":[]}'
    assert old.body == b'{"embedding":[]}'
    assert view.n_leases == 0


async def test_the_older_route_has_one_vector_and_no_measures(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", "/api/embeddings", {"model": "tiny", "prompt": "a b"})

    assert answer.body == b'{"embedding":[2.0,0.30000001192092896]}'


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("embed", {"input": 5}, 400, "invalid input type"),
        ("embed", {"input": ["a", 5]}, 400, "invalid input type"),
        ("embed", {"input": ["a", None]}, 400, "invalid input type"),
        ("embed", {"model": "", "input": "a"}, 404, "model '' not found"),
        ("embed", {"model": "x"}, 404, 'model "x" not found, try pulling it first'),
        ("embed", {"model": "/"}, 400, "invalid model name"),
        ("embed", {"keep_alive": "5"}, 400, 'time: missing unit in duration "5"'),
        (
            "embed",
            {"input": "a " * 200, "truncate": False},
            400,
            "the input length exceeds the context length",
        ),
        ("embed", {"input": NOT_A_NUMBER}, 400, "embedding contains NaN or Inf values"),
        ("embeddings", {"prompt": NOT_A_NUMBER}, 500, "embedding contains NaN or Inf values"),
        ("embeddings", {"model": ""}, 400, "model is required"),
        ("embeddings", {"model": "x"}, 404, 'model "x" not found, try pulling it first'),
    ],
)
async def test_errors_are_ollamas(
    path: str,
    body: dict[str, object],
    status: int,
    message: str,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", f"/api/{path}", {"model": "tiny", **body})

    assert (answer.status, answer.json) == (status, {"error": message})


async def test_dimensions_go_to_the_engine_whatever_they_are(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        body = {"model": "tiny", "input": "a b"}
        one = await site.ask("POST", "/api/embed", {**body, "dimensions": 1})
        negative = await site.ask("POST", "/api/embed", {**body, "dimensions": -5})
        huge = await site.ask("POST", "/api/embed", {**body, "dimensions": 2**60})

    assert one.json["embeddings"] == [[2]]
    assert len(negative.json["embeddings"][0]) == 2
    assert huge.status == 200


async def test_many_texts_are_answered_in_their_order(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    texts = ["x" * (n % 50) for n in range(2 * TEXTS_PER_MESSAGE + 3)]
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", "/api/embed", {"model": "tiny", "input": texts})

    lengths = [round(vector[1] * 10) for vector in answer.json["embeddings"]]
    assert lengths == [len(text) for text in texts]
    assert answer.json["prompt_eval_count"] == sum(map(bool, texts))


async def test_so_many_vectors_that_a_thread_writes_them_are_the_same(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["x" * n for n in range(20)]
    async with a_site(tmp_path) as site:
        at_once = await site.ask("POST", "/api/embed", {"model": "tiny", "input": texts})
        monkeypatch.setattr(embed, "WRITTEN_AT_ONCE_BYTES", 0)
        beside = await site.ask("POST", "/api/embed", {"model": "tiny", "input": texts})

    assert beside.json["embeddings"] == at_once.json["embeddings"]


async def test_a_client_that_leaves_stops_the_work_for_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        await site.ask("POST", "/api/embed", {"model": "tiny"})
        with trio.move_on_after(0.01):
            await site.ask("POST", "/api/embed", {"model": "tiny", "input": "a"})
        await wait_all_tasks_blocked()
        (runner,) = site.house.launcher.started
        (view,) = site.house.supervisor.residents()

    assert len(runner.cancelled) == 1
    assert view.n_leases == 0


async def test_a_generating_model_is_loaded_anew_to_embed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its runner cannot do both, and the model's name says nothing of what it is asked for."""
    async with a_site(tmp_path) as site:
        await site.ask("POST", "/api/generate", {"model": "tiny", "prompt": "hi"})
        embedded = await site.ask("POST", "/api/embed", {"model": "tiny", "input": "a"})
        generated = await site.ask("POST", "/api/generate", {"model": "tiny", "prompt": "hi"})
        plans = [runner.plan for runner in site.house.launcher.started]

    assert (embedded.status, generated.status) == (200, 200)
    assert [plan.embedding for plan in plans if plan] == [False, True, False]


async def test_documents_are_ranked_through_a_lease(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        loaded = await site.ask("POST", "/api/embed", {"model": "tiny"})
        (runner,) = site.house.supervisor._loop.runners
        ranked = await runner.client.rank("q", ("a b", "c"), truncate=True)

    assert loaded.status == 200
    assert ranked.scores == (2.0, 1.0)


def test_numbers_on_the_wire_are_the_same_when_read_again() -> None:
    numbers = [0.1, -1 / 3, 1e-8, 1.17549435e-38, 3.4e38, 0.0, 1.0, 123456.789, -2e-45, 0.034215264]
    data = struct.pack("<10f", *numbers)

    rows = msgspec.json.decode(vectors_json(data, 5))

    assert [len(row) for row in rows] == [5, 5]
    assert struct.pack("<10f", *rows[0], *rows[1]) == data
