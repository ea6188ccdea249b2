from __future__ import annotations

import os
import socket
import sys

import pytest

from ollamad.errors import LoadFailed
from ollamad.runners.launch import ProcessLauncher, RunnerSpec, runner_environment

SPEC = RunnerSpec(label="llama:8b")


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all there is


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "HOME", "TZ", "LD_LIBRARY_PATH", "LC_ALL", "PYTHONPATH", "CUDA_VISIBLE_DEVICES",
        "GGML_SCHED_DEBUG", "OMP_NUM_THREADS", "HSA_OVERRIDE_GFX_VERSION",
    ],
)  # fmt: skip
def test_a_runner_sees_what_computing_needs(name: str) -> None:
    assert runner_environment({name: "x"})[name] == "x"


@pytest.mark.parametrize(
    "name",
    [
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "WATCHDOG_USEC",
        "AWS_SECRET_ACCESS_KEY",
        "OLLAMA_HOST",
        "path",
    ],
)
def test_a_runner_does_not_see_what_is_the_daemons_own(name: str) -> None:
    assert name not in runner_environment({name: "x"})


def test_a_runner_gets_what_every_runner_needs_unless_the_daemons_says_otherwise() -> None:
    fixed = runner_environment({})
    stated = runner_environment({"GGML_NO_BACKTRACE": "0"})

    assert fixed["GGML_NO_BACKTRACE"] == "1"
    assert fixed["PYTHONUNBUFFERED"] == "1"
    assert stated == {**fixed, "GGML_NO_BACKTRACE": "0"}


async def test_a_program_that_cannot_be_started_is_a_failed_load_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launcher, before = ProcessLauncher(), descriptors()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    with pytest.raises(LoadFailed, match="cannot start a runner process"):
        await launcher.launch(SPEC)

    assert descriptors() == before


async def test_without_a_socket_there_is_no_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", refuse)

    with pytest.raises(LoadFailed, match="Too many open files"):
        await ProcessLauncher().launch(SPEC)
