"""A real runner process with the echo engine: what only a process and a socket can show."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator

import pytest
import trio

from ollamad.errors import ContextTooLong, GenerationFailed, RunnerCrashed
from ollamad.options import SamplingOptions
from ollamad.runners.client import LifeMessage, RunnerClient
from ollamad.runners.launch import ProcessLauncher, RunnerProcess, RunnerSpec
from ollamad.runners.logs import RunnerLog
from ollamad.runners.mailbox import Mailbox
from ollamad.runners.protocol import (
    Finished,
    FinishReason,
    Generate,
    Hello,
    Loaded,
    LoadFailed,
    LoadPlan,
)
from ollamad.runners.stopping import Patience, Rung, stop

pytestmark = pytest.mark.process

PATIENCE = Patience(ask_s=10, terminate_s=10)


class Runner:
    """A started worker with its client."""

    def __init__(self, process: RunnerProcess, client: RunnerClient, log: RunnerLog) -> None:
        self.process = process
        self.client = client
        self.log = log
        self.life: list[LifeMessage] = []
        self.settled = trio.Event()

    def generate(self, prompt: str, **sampling: object) -> tuple[int, Mailbox]:
        request_id = self.client.next_id()
        options = SamplingOptions(**sampling)  # type: ignore[arg-type]
        request = Generate(id=request_id, prompt=prompt, sampling=options)
        mailbox = Mailbox()
        self.client.generate(request, mailbox)
        return request_id, mailbox

    async def answer(self, prompt: str, **sampling: object) -> tuple[str, Finished]:
        _, mailbox = self.generate(prompt, **sampling)
        text = ""
        while not isinstance(event := await mailbox.take(), Finished):
            text += event.text
        return text, event


async def the_end(mailbox: Mailbox) -> Finished:
    while not isinstance(event := await mailbox.take(), Finished):
        pass
    return event


@contextlib.asynccontextmanager
async def a_runner(*, model_path: str = "/echo", n_slots: int = 2) -> AsyncIterator[Runner]:
    """Start a worker and load the echo engine in it; stop it at the end."""
    process = await ProcessLauncher(worker_arguments=("--engine", "echo")).launch(
        RunnerSpec(label="echo")
    )

    def life(message: LifeMessage) -> None:
        runner.life.append(message)
        if isinstance(message, Hello):
            plan = LoadPlan(model_path=model_path, n_ctx=100, n_slots=n_slots, n_batch=10)
            client.load(plan)
        if isinstance(message, Loaded | LoadFailed):
            runner.settled.set()

    client = RunnerClient(process.stream, life)
    runner = Runner(process, client, RunnerLog("echo", lines_kept=50))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        nursery.start_soon(runner.log.read, process.output)
        with trio.fail_after(30):
            await runner.settled.wait()
        yield runner
        await stop(process, client.shut_down, PATIENCE)


async def test_it_says_hello_loads_and_answers() -> None:
    async with a_runner() as runner:
        text, finished = await runner.answer("one two three")

        assert text == "one two three "
        assert finished.reason is FinishReason.STOP
        assert isinstance(runner.life[0], Hello)
        assert runner.life[0].pid == runner.process.pid


async def test_answers_stream_side_by_side() -> None:
    async with a_runner() as runner:
        _, first = runner.generate("!count 1000000")
        _, second = runner.generate("!count 1000000")
        with trio.fail_after(10):
            for _ in range(2):
                assert not isinstance(await first.take(), Finished)
                assert not isinstance(await second.take(), Finished)


async def test_a_paced_answer_says_the_same_as_an_unpaced_one() -> None:
    async with a_runner() as runner:
        paced, _ = await runner.answer("!paced 1 5")
        unpaced, _ = await runner.answer("!count 5")

    assert paced == unpaced == "0 1 2 3 4 "


async def test_a_model_that_cannot_be_loaded_is_said_and_the_process_ends() -> None:
    async with a_runner(model_path="/broken") as runner:
        assert isinstance(runner.life[-1], LoadFailed)
        with trio.fail_after(10):
            assert await runner.process.wait() == 0


async def test_a_request_that_is_refused_harms_no_other() -> None:
    async with a_runner() as runner:
        with pytest.raises(GenerationFailed, match="asked to fail"):
            await runner.answer("!fail")
        with pytest.raises(ContextTooLong):
            await runner.answer("word " * 200)
        assert (await runner.answer("still here"))[0] == "still here "


async def test_cancelling_frees_the_slot() -> None:
    async with a_runner(n_slots=1) as runner:
        endless, mailbox = runner.generate("!count 1000000")
        await mailbox.take()
        runner.client.cancel(endless)
        with trio.fail_after(10):
            assert (await runner.answer("next"))[0] == "next "


async def test_a_killed_process_ends_its_open_requests() -> None:
    async with a_runner() as runner:
        _, mailbox = runner.generate("!count 1000000")
        await mailbox.take()
        os.kill(runner.process.pid, signal.SIGKILL)
        assert await runner.process.wait() == -signal.SIGKILL
        runner.client.fail_all(RunnerCrashed("killed"))
        with pytest.raises(RunnerCrashed):
            await the_end(mailbox)


async def test_an_engine_that_breaks_ends_the_process_with_its_traceback_in_the_log() -> None:
    async with a_runner() as runner:
        runner.generate("!raise")
        with trio.fail_after(10):
            assert await runner.process.wait() == 70
        while "asked to raise" not in runner.log.last_error:
            await trio.lowlevel.checkpoint()
        assert "RuntimeError: asked to raise" in runner.log.last_lines


async def test_the_end_of_the_socket_ends_a_runner_in_the_middle_of_a_computation() -> None:
    async with a_runner() as runner:
        runner.generate("!hang")
        with trio.fail_after(10):
            await runner.process.stream.aclose()
            assert await runner.process.wait() == 0


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", b"\x00\x00\x00\x03abc", b"\x00\x00\x00\x10ab"],
    ids=["an absurd length", "no message", "half a frame and the end"],
)
async def test_a_broken_frame_ends_a_runner(garbage: bytes) -> None:
    async with a_runner() as runner:
        with trio.fail_after(10):
            await runner.process.stream.send_all(garbage)
            with contextlib.suppress(trio.BrokenResourceError):
                await runner.process.stream.send_eof()  # type: ignore[attr-defined]
            assert await runner.process.wait() == 0


async def test_a_hung_engine_is_stopped_by_asking_because_its_socket_is_read_beside_it() -> None:
    async with a_runner() as runner:
        runner.generate("!hang")
        assert await stop(runner.process, runner.client.shut_down, PATIENCE) is Rung.ASK


async def test_a_stopped_process_is_killed_at_the_end_of_the_ladder() -> None:
    async with a_runner() as runner:
        os.kill(runner.process.pid, signal.SIGSTOP)
        short = Patience(ask_s=0.1, terminate_s=0.1)
        with trio.fail_after(10):
            assert await stop(runner.process, runner.client.shut_down, short) is Rung.KILL


async def test_it_sees_nothing_of_the_daemons_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    async with a_runner() as runner:
        environ = await trio.Path(f"/proc/{runner.process.pid}/environ").read_bytes()

    assert b"secret" not in environ
    assert b"NOTIFY_SOCKET" not in environ
    assert b"GGML_NO_BACKTRACE=1" in environ


async def test_it_is_a_session_of_its_own() -> None:
    async with a_runner() as runner:
        assert os.getsid(runner.process.pid) == runner.process.pid
