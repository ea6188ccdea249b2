"""Runners that are really killed in the middle, and clients that do not notice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from ollamad.config import RunnerConfig
from ollamad.errors import OllamadError, RunnerCrashed
from ollamad.options import LoadOptions, SamplingOptions
from ollamad.runners.launch import ProcessLauncher
from ollamad.runners.protocol import Finished
from ollamad.supervisor.loop import Loop
from ollamad.supervisor.service import Supervisor
from tests.process.conftest import MODEL
from tests.process.daemonprocess import DaemonProcess, a_daemon
from tests.scenario.house import a_model, answer
from tests.values import a_core

pytestmark = [pytest.mark.process, pytest.mark.model]

PATIENCE_S = 100.0
GREEDY = {"temperature": 0, "seed": 1, "num_predict": 200, "ignore_eos": True}
STORY = {"model": MODEL, "prompt": "Once upon a time", "raw": True, "options": GREEDY}
ECHO = a_model("echo")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, model_file: Path) -> Iterator[DaemonProcess]:
    """A daemon that forgives more deaths in a short time than happen by themselves."""
    folder = tmp_path_factory.mktemp("healing")
    config = folder / "ollamad.toml"
    config.write_text("[scheduling]\nrestart_failures_max = 100\n")
    with a_daemon(folder, {"OLLAMA_NUM_PARALLEL": "4"}, "--config", str(config)) as running:
        yield running


@pytest.fixture
def web(daemon: DaemonProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=daemon.url, timeout=PATIENCE_S) as client:
        yield client


def kill_runner(daemon: DaemonProcess) -> None:
    (runner,) = daemon.runners()
    os.kill(runner.pid, signal.SIGKILL)


def stream(
    daemon: DaemonProcess, body: dict[str, Any], at: int, do: Callable[[], object]
) -> list[Any]:
    """Return the lines of an answer; something is done when so many of them have come."""
    lines: list[Any] = []
    with (
        httpx.Client(base_url=daemon.url, timeout=PATIENCE_S) as web,
        web.stream("POST", "/api/generate", json=body) as response,
    ):
        for line in response.iter_lines():
            lines.append(json.loads(line))
            if len(lines) == at:
                do()
    return lines


def n_generated(web: httpx.Client) -> int:
    """Return how many tokens the engine says that it has generated."""
    models = web.get("/api/ps").json()["models"]
    return int(models[0].get("engine", {}).get("generated_tokens", 0)) if models else 0


def wait_for_more(web: httpx.Client, than: int) -> None:
    """Wait until the engine says that it has generated more tokens."""
    for _ in range(10_000):
        if n_generated(web) > than:
            return
    raise AssertionError("nothing is generated")


def test_a_stream_of_200_tokens_whose_runner_is_killed_after_50_comes_whole(
    daemon: DaemonProcess,
) -> None:
    body, seen = {**STORY, "logprobs": True}, len(daemon.records)

    lines = stream(daemon, body, 50, lambda: kill_runner(daemon))

    assert [line for line in lines if "error" in line] == []
    assert sum(len(line.get("logprobs", ())) for line in lines) == 200
    last = lines[-1]
    assert (last["done_reason"], last["eval_count"], last["healed_count"]) == ("length", 200, 1)
    assert last["prompt_eval_count"] == stream(daemon, body, 0, str)[-1]["prompt_eval_count"]
    assert last["eval_duration"] + last["prompt_eval_duration"] < last["total_duration"]
    healed = next(r for r in daemon.records[seen:] if r["message"].startswith("healed: "))
    assert healed["tokens"] >= 50


def test_an_answer_that_is_not_streamed_heals_as_well(
    daemon: DaemonProcess, web: httpx.Client
) -> None:
    seen = len(daemon.records)
    long = {**STORY, "stream": False, "options": {**GREEDY, "num_predict": 800}}
    before = n_generated(web)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(
            httpx.post, f"{daemon.url}/api/generate", json=long, timeout=PATIENCE_S
        )
        wait_for_more(web, before)
        kill_runner(daemon)
        whole = coming.result()

    assert whole.status_code == 200
    assert whole.json()["eval_count"] == 800
    assert whole.json()["healed_count"] == 1
    assert [r for r in daemon.records[seen:] if "ended early" in r["message"]] == []


def test_four_streams_heal_together(daemon: DaemonProcess) -> None:
    all_have_begun = threading.Barrier(4, action=lambda: kill_runner(daemon))
    with ThreadPoolExecutor(4) as pool:
        # So long that none is complete before the last has begun.
        long = {**STORY, "options": {**GREEDY, "num_predict": 600}}
        bodies = [{**long, "prompt": f"{n}. Once upon a time"} for n in range(4)]
        coming = [
            pool.submit(stream, daemon, body, 5, lambda: all_have_begun.wait(PATIENCE_S))
            for body in bodies
        ]
        answers = [one.result() for one in coming]

    assert [lines[-1]["eval_count"] for lines in answers] == [600] * 4
    assert [lines[-1].get("healed_count") for lines in answers] == [1] * 4
    assert len(daemon.runners()) == 1


async def test_infected_prompt_does_not_crash_loop_the_model_for_real() -> None:
    """The echo engine kills its own process when it is asked to."""
    core = a_core(runner=RunnerConfig(n_slots=4))
    loop = Loop(core, ProcessLauncher(worker_arguments=("--engine", "echo")), RunnerConfig())
    supervisor = Supervisor(loop)
    came: dict[int, str] = {}

    async def count_to(number: int, *, task_status: trio.TaskStatus[None]) -> None:
        with contextlib.ExitStack() as stack:
            lease = await supervisor.lease(ECHO, LoadOptions())
            stack.callback(lease.release)
            mailbox = lease.generate(f"!paced 10 {number}", SamplingOptions())
            came[number] = ""
            while not isinstance(event := await mailbox.take(), Finished):
                if not came[number]:
                    task_status.started()
                came[number] += event.text

    async def outcome(prompt: str) -> str | OllamadError:
        lease = await supervisor.lease(ECHO, LoadOptions())
        try:
            return await answer(lease, prompt)
        except OllamadError as exc:
            return exc
        finally:
            lease.release()

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(loop.run)
            async with trio.open_nursery() as clients:
                for number in (300, 301):
                    await clients.start(count_to, number)
                killers = [await outcome("!crash") for _ in range(3)]
                after = await outcome("still here")
            await supervisor.drain()
            nursery.cancel_scope.cancel()

    for killer in killers:
        assert isinstance(killer, RunnerCrashed)
        assert killer.blames_request
    assert after == "still here "
    for number, text in came.items():
        assert text == "".join(f"{i} " for i in range(number))
    assert core.residents == {}
