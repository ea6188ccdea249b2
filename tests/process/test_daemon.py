"""The real daemon under what only reality can show: kills, floods, leaving clients, bad input."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.process.conftest import MODEL
from tests.process.daemonprocess import DaemonProcess, a_daemon
from tests.process.precise import write_precise

pytestmark = [pytest.mark.process, pytest.mark.model]

QUESTIONS = [
    "Why is the sky blue?",
    "Name three fruits.",
    "What is the capital of France?",
    "Write a short poem about rain.",
    "How do bees make honey?",
    "What is a prime number?",
    "Tell me about the moon.",
    "Who was Isaac Newton?",
]
TOPICS = ["the sea", "a dog", "two kings", "a train", "winter", "the moon", "a ship", "bread"]
PATIENCE_S = 60.0


@pytest.fixture
def web(daemon: DaemonProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=daemon.url, timeout=PATIENCE_S) as client:
        yield client


def chat_body(question: str, *, n: int = 40, model: str = MODEL, **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "options": {"temperature": 0, "seed": 7, "num_predict": n},
        **more,
    }


def chat(web: httpx.Client, question: str, *, n: int = 40) -> str:
    answer = web.post("/api/chat", json=chat_body(question, n=n, stream=False))
    answer.raise_for_status()
    content: str = answer.json()["message"]["content"]
    return content


def test_eight_chats_stream_side_by_side(daemon: DaemonProcess) -> None:
    order: list[int] = []
    barrier = threading.Barrier(len(QUESTIONS))

    def stream(number: int) -> None:
        with httpx.Client(base_url=daemon.url, timeout=PATIENCE_S) as client:
            barrier.wait(PATIENCE_S)
            body = chat_body(f"Tell me a long story about {TOPICS[number]}.", n=60)
            with client.stream("POST", "/api/chat", json=body) as answer:
                for _line in answer.iter_lines():
                    order.append(number)

    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        list(pool.map(stream, range(len(QUESTIONS))))

    # Everybody has begun long before the first has ended.
    last_lines = [len(order) - 1 - order[::-1].index(n) for n in range(len(QUESTIONS))]
    assert set(order[: min(last_lines)]) == set(range(len(QUESTIONS)))


def steps_of(web: httpx.Client, model: str, question: str) -> list[dict[str, Any]]:
    """Return the tokens of a greedy answer with their log-probabilities."""
    body = chat_body(question, stream=False, model=model, logprobs=True, top_logprobs=2)
    steps: list[dict[str, Any]] = web.post("/api/chat", json=body).json()["logprobs"]
    return steps


def first_difference(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> int | None:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a["token"] != b["token"]), None)


def alone_and_together(
    web: httpx.Client, model: str
) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    alone = [steps_of(web, model, question) for question in QUESTIONS]
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        together = list(pool.map(lambda question: steps_of(web, model, question), QUESTIONS))
    return list(zip(alone, together, strict=True))


def test_in_full_precision_eight_answers_together_equal_the_same_eight_alone(
    tmp_path: Path, model_file: Path
) -> None:
    path = tmp_path / "precise.gguf"
    write_precise(model_file, path, n_layers=4)
    precise = {"OLLAMA_KV_CACHE_TYPE": "f32", "OLLAMA_FLASH_ATTENTION": "0"}
    with (
        a_daemon(tmp_path, {**precise, "OLLAMA_NUM_PARALLEL": "8"}) as daemon,
        httpx.Client(base_url=daemon.url, timeout=PATIENCE_S) as web,
    ):
        digest = upload(web, path.read_bytes())
        created = web.post("/api/create", json={"model": "precise", "files": {"p.gguf": digest}})
        assert created.status_code == 200
        answers = alone_and_together(web, "precise")
    for alone, together in answers:
        assert [step["token"] for step in alone] == [step["token"] for step in together]
        for one, other in zip(alone, together, strict=True):
            assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-3)


NEAR_TIE_NATS = 1.5
"""How far two runs of a quantised model may lie apart. Measured: 0.24 usually, 0.8 at most."""


def test_with_quantised_weights_they_differ_only_at_near_ties(web: httpx.Client) -> None:
    """Quantised weights meet activations that are rounded to 8 bits: the last bits of a sum, which
    batching changes, become tenths of a nat after thirty layers."""
    for alone, together in alone_and_together(web, MODEL):
        place = first_difference(alone, together)
        if place is not None:
            best, second = alone[place]["top_logprobs"]
            assert best["logprob"] - second["logprob"] < NEAR_TIE_NATS
        for one, other in zip(alone[:place], together[:place], strict=True):
            assert one["logprob"] == pytest.approx(other["logprob"], abs=NEAR_TIE_NATS)


def test_a_runner_killed_in_the_middle_of_a_stream_harms_nobody(
    web: httpx.Client, daemon: DaemonProcess
) -> None:
    chat(web, "warm up", n=1)
    before = {runner.pid for runner in daemon.runners()}  # Another test may have left one idle.
    stop = threading.Event()
    versions: list[int] = []

    def ask_versions() -> None:
        with httpx.Client(base_url=daemon.url, timeout=5) as other:
            while not stop.is_set():
                versions.append(other.get("/api/version").status_code)

    watcher = threading.Thread(target=ask_versions)
    watcher.start()
    lines: list[dict[str, Any]] = []
    with web.stream("POST", "/api/chat", json=chat_body("Count to a hundred.", n=400)) as answer:
        for line in answer.iter_lines():
            lines.append(json.loads(line))
            if len(lines) == 5:
                for pid in before:
                    os.kill(pid, signal.SIGKILL)
    again = chat(web, "Why is the sky blue?", n=8)
    stop.set()
    watcher.join()

    assert answer.status_code == 200
    assert lines[-1]["healed_count"] == 1
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert again
    assert set(versions) == {200}
    assert before.isdisjoint(process.pid for process in daemon.runners())


def test_client_gone_during_prefill_cancels_within_one_batch(
    web: httpx.Client, daemon: DaemonProcess
) -> None:
    chat(web, "warm up", n=1)
    long_prompt = "The quick brown fox jumps over the lazy dog. " * 200  # 2,000 tokens
    seen = len(daemon.records)
    address = httpx.URL(daemon.url)
    connection = http.client.HTTPConnection(str(address.host), address.port, timeout=PATIENCE_S)
    connection.request("POST", "/api/chat", json.dumps(chat_body(long_prompt)))
    wait_until_busy(web)
    connection.close()

    # The next answer comes as fast as if nobody had been there: a batch of the long prompt would
    # take most of a second by itself, all of it several.
    alone = timed(web)
    assert alone["prompt_eval_duration"] < 1e9
    assert alone["total_duration"] < 2e9
    assert [r for r in daemon.records[seen:] if r["level"] in {"warning", "error"}] == []


def wait_until_busy(web: httpx.Client) -> None:
    """Wait until the runner holds a lease: it shows as an expiry that moves with the time."""
    first = web.get("/api/ps").json()["models"][0]["expires_at"]
    for _ in range(1000):
        if web.get("/api/ps").json()["models"][0]["expires_at"] != first:
            return
    raise AssertionError("the long prompt never reached the runner")


def timed(web: httpx.Client) -> dict[str, Any]:
    answer: dict[str, Any] = web.post(
        "/api/chat", json=chat_body("What is two plus two?", n=1, stream=False)
    ).json()
    return answer


def test_sigterm_lets_an_answer_end(tmp_path: Path) -> None:
    with a_daemon(tmp_path) as daemon, httpx.Client(timeout=PATIENCE_S) as web:
        lines: list[dict[str, Any]] = []
        body = chat_body("Tell me a long story.", n=60)
        with web.stream("POST", f"{daemon.url}/api/chat", json=body) as answer:
            for line in answer.iter_lines():
                lines.append(json.loads(line))
                if len(lines) == 3:
                    daemon.process.send_signal(signal.SIGTERM)
        assert lines[-1]["done"] is True
        assert lines[-1]["eval_count"] == 60


def test_sighup_reloads_what_can_change(tmp_path: Path) -> None:
    config = tmp_path / "config" / "ollamad" / "ollamad.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[log]\nlevel = "info"\n')
    with a_daemon(tmp_path) as daemon:
        config.write_text('[log]\nlevel = "debug"\n[scheduling]\nkeep_alive_s = "1h"\n')
        daemon.process.send_signal(signal.SIGHUP)
        reloaded = daemon.wait_for_log(lambda r: r["message"] == "configuration reloaded")
        assert reloaded["changed"] == "scheduling.keep_alive_s, log.level"

        config.write_text("[log]\nlevle = 1\n")
        daemon.process.send_signal(signal.SIGHUP)
        kept = daemon.wait_for_log(lambda r: "was not reloaded" in r["message"])
        assert "ollamad.toml" in kept["reason"]
        assert "line 2" in kept["reason"] or ":2" in kept["reason"]


def test_a_port_in_use_is_one_line_of_advice(daemon: DaemonProcess, tmp_path: Path) -> None:
    port = str(httpx.URL(daemon.url).port)

    with pytest.raises(AssertionError, match=r"address already in use.*--port"):
        DaemonProcess(tmp_path, {}, "--port", port)


BIG = b"x" * (80 << 20)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/api/chat", b"{not json", 400, "malformed"),
        ("POST", "/api/chat", b"", 400, "missing request body"),
        ("POST", "/api/chat", b"[1,2]", 400, "must be a JSON object"),
        ("POST", "/api/chat", b'{"model":5}', 400, "model: expected string"),
        ("POST", "/api/chat", b'{"model":"x","messages":"hi"}', 400, "messages: expected array"),
        ("POST", "/api/chat", b'{"model":""}', 400, "model is required"),
        ("POST", "/api/generate", b'{"model":""}', 404, "model '' not found"),
        ("POST", "/api/chat", b'{"model":"nobody"}', 404, "model 'nobody' not found"),
        ("POST", "/api/chat", b'{"model":"a/../../b"}', 400, "invalid model name"),
        ("POST", "/api/show", b'{"model":"../../etc/passwd"}', 400, "invalid model name"),
        ("DELETE", "/api/delete", b'{"model":"../x"}', 400, 'name \\"../x\\" is invalid'),
        ("POST", "/api/copy", b'{"source":"a","destination":"../b"}', 400, "is invalid"),
        ("POST", "/api/create", b'{"model":"x"}', 400, "neither 'from' or 'files'"),
        ("POST", "/api/create", b'{"model":"../x","from":"y"}', 400, "invalid model name"),
        (
            "POST",
            "/api/create",
            b'{"model":"x","files":{"../a.gguf":"sha256:' + b"0" * 64 + b'"}}',
            400,
            "file path must be relative",
        ),
        ("POST", "/api/blobs/sha256:123", b"x", 400, "invalid digest format"),
        ("POST", "/api/blobs/sha256:" + "0" * 64, b"x", 400, "digest mismatch"),
        ("POST", "/api/show", BIG, 413, "at most 64.0 KiB"),
        ("DELETE", "/api/delete", BIG, 413, "at most 64.0 KiB"),
        ("POST", "/api/chat", BIG, 413, "at most 64.0 MiB"),
        ("POST", "/api/nothing", b"{}", 404, "404 page not found"),
        ("GET", "/api/chat", b"", 405, "405 method not allowed"),
        ("POST", "/api/chat", b'{"a":' * 100_000, 400, ""),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_bad_input_gets_a_status_and_a_message_and_nothing_is_kept(
    web: httpx.Client,
    daemon: DaemonProcess,
    method: str,
    path: str,
    body: bytes,
    status: int,
    message: str,
) -> None:
    before = web.get("/api/tags").json()

    answer = web.request(method, path, content=body)

    assert answer.status_code == status, answer.text
    assert message in answer.text
    assert web.get("/api/tags").json() == before
    assert leftovers(daemon) == []


def test_an_unannounced_body_that_is_too_large_is_refused(
    web: httpx.Client, daemon: DaemonProcess
) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(80):
            yield b"x" * (1 << 20)

    answer = web.post("/api/show", content=pieces())

    assert answer.status_code == 413
    assert web.get("/api/version").status_code == 200


def leftovers(daemon: DaemonProcess) -> list[str]:
    """Temporary files in the store."""
    listening = next(r for r in daemon.records if r["message"].startswith("Listening"))
    models = Path(listening["models"])
    return [
        str(path)
        for path in models.rglob("*")
        if path.is_file() and "manifests" not in path.parts and not path.name[7:].isalnum()
    ]


def upload(web: httpx.Client, data: bytes) -> str:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    assert web.post(f"/api/blobs/{digest}", content=data).status_code == 201
    return digest


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (slice(0, 0), "supplied file was not in GGUF format"),
        (slice(0, 1000), "truncated"),
        (slice(0, 50_000_000), "truncated"),
    ],
)
def test_a_broken_gguf_is_refused_with_its_reason(
    web: httpx.Client, daemon: DaemonProcess, model_file: Path, cut: slice, message: str
) -> None:
    data = model_file.read_bytes()[cut] or b"this is no model at all"
    digest = upload(web, data)

    answer = web.post("/api/create", json={"model": "broken", "files": {"a.gguf": digest}})

    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert "broken:latest" not in web.get("/api/tags").text
    assert leftovers(daemon) == []


def test_an_upload_that_breaks_off_leaves_nothing(daemon: DaemonProcess, web: httpx.Client) -> None:
    digest = "sha256:" + hashlib.sha256(b"y" * 1000).hexdigest()
    address = httpx.URL(daemon.url)
    with socket.create_connection((str(address.host), address.port or 0)) as raw:
        head = (
            f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
        )
        raw.sendall(head.encode() + b"y" * 500)
    # The daemon answers the next request only after it has seen this one end: same loop.
    for _ in range(100):
        if not leftovers(daemon):
            break
        web.get("/api/version")
    assert leftovers(daemon) == []
    assert web.head(f"/api/blobs/{digest}").status_code == 404


def test_a_prompt_that_does_not_fit_says_by_how_much(web: httpx.Client) -> None:
    body = chat_body("word " * 6000, n=2, stream=False)

    refused = web.post("/api/chat", json={**body, "shift": False})
    cut = web.post("/api/chat", json=body).json()

    assert refused.status_code == 400
    assert "the context holds 4096" in refused.json()["error"]
    assert cut["prompt_truncated"]["cut"] is True
    assert cut["prompt_eval_count"] == cut["prompt_truncated"]["tokens_after"] < 4096


def test_old_messages_are_left_out_when_all_do_not_fit(web: httpx.Client) -> None:
    messages = [{"role": "system", "content": "Be brief."}]
    messages += [{"role": "user", "content": "word " * 1500}] * 4
    messages += [{"role": "user", "content": "Why is the sky blue?"}]
    body = {**chat_body("", n=4, stream=False), "messages": messages}

    answer = web.post("/api/chat", json=body).json()

    assert 1500 < answer["prompt_eval_count"] < 4096
    assert answer["prompt_truncated"]["messages"] > 0


def test_a_foreign_page_gets_nothing(web: httpx.Client) -> None:
    assert web.get("/api/tags", headers={"Origin": "https://evil.example"}).status_code == 403
    assert web.get("/api/tags", headers={"Host": "evil.example"}).status_code == 403
    assert web.get("/api/tags", headers={"Origin": "http://localhost:3000"}).status_code == 200


def test_no_prompt_is_written_to_the_log(web: httpx.Client, daemon: DaemonProcess) -> None:
    chat(web, "xyzzy plugh frobozz", n=2)

    assert not any("xyzzy" in json.dumps(record) for record in daemon.records)


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
def test_head_is_answered_without_a_body(web: httpx.Client, path: str) -> None:
    answer = web.head(path)

    assert answer.status_code == 200
    assert answer.content == b""


@pytest.mark.parametrize("leaves", [False, True], ids=["after an answer", "in the middle of one"])
def test_a_closed_connection_gives_its_descriptor_back(
    web: httpx.Client, daemon: DaemonProcess, leaves: bool
) -> None:
    process = psutil.Process(daemon.process.pid)
    chat(web, "warm up", n=1)
    daemon.wait_for_spare()  # It has descriptors too.
    before = process.num_fds()
    for _ in range(20):
        with httpx.Client(base_url=daemon.url, timeout=PATIENCE_S) as client:
            client.get("/api/version")
            if leaves:
                with client.stream("POST", "/api/chat", json=chat_body("hello")) as answer:
                    next(answer.iter_lines())

    # Closing crosses the loopback and the daemon's loop: ask until it shows, but not for ever.
    for _ in range(500):
        if process.num_fds() <= before + 1:
            break
        web.get("/api/version")
    assert process.num_fds() <= before + 1
