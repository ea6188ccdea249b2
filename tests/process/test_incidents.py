"""Incidents that users have reported, with real runner processes (see also tests/scenario)."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator

import pytest
import trio

from ollamad.config import RunnerConfig
from ollamad.errors import LoadFailed
from ollamad.options import LoadOptions
from ollamad.runners.launch import ProcessLauncher
from ollamad.supervisor.loop import Loop
from ollamad.supervisor.service import Supervisor
from tests.scenario.house import LLAMA, a_model, answer
from tests.values import a_core

pytestmark = pytest.mark.process

IMPATIENT = RunnerConfig(ask_patience_s=0.2, terminate_patience_s=0.2)
HUNGRY = a_model("hungry")
NO_OPTIONS = LoadOptions()


@contextlib.asynccontextmanager
async def a_supervisor() -> AsyncIterator[Supervisor]:
    """Run a supervisor of real runners with the echo engine."""
    launcher = ProcessLauncher(worker_arguments=("--engine", "echo"))
    loop = Loop(a_core(), launcher, IMPATIENT)
    supervisor = Supervisor(loop)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(loop.run)
            yield supervisor
            await supervisor.drain()
            nursery.cancel_scope.cancel()


async def test_oom_in_one_runner_leaves_others_loaded() -> None:
    async with a_supervisor() as supervisor:
        lease = await supervisor.lease(LLAMA, NO_OPTIONS)
        (before,) = supervisor.residents()

        with pytest.raises(LoadFailed, match="wants all memory"):
            await supervisor.preload(HUNGRY, NO_OPTIONS)

        assert await answer(lease) == "one two three "
        assert before.pid in {view.pid for view in supervisor.residents()}
        lease.release()


async def test_stop_is_bounded_even_when_runner_ignores_term() -> None:
    async with a_supervisor() as supervisor:
        await supervisor.preload(LLAMA, NO_OPTIONS)
        (view,) = supervisor.residents()
        os.kill(view.pid, signal.SIGSTOP)  # Deaf to its socket and to SIGTERM.

        supervisor.evict(LLAMA.weights_id)
        # A new runner is ready only after the old one is gone.
        await supervisor.preload(LLAMA, NO_OPTIONS)

        (again,) = supervisor.residents()
        assert again.pid != view.pid
        with pytest.raises(ProcessLookupError):
            os.kill(view.pid, 0)
