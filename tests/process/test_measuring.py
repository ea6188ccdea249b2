"""Dry runs in real children: what they say, and that nothing they do harms who asked."""

from __future__ import annotations

import os
import struct
import sys
import time
from pathlib import Path

import pytest
import trio

from ollamad.buffersizes import BufferSizes
from ollamad.runners import measuring
from ollamad.runners.measuring import ANSWER_BYTES_MAX, Measurer
from ollamad.runners.protocol import LoadPlan

pytestmark = pytest.mark.process

PLAN = LoadPlan(model_path="/none", n_ctx=512, n_slots=1, n_batch=64)
SIZES = b'{"context_bytes": 1, "compute_bytes": 2}'


def a_child(program: str) -> Measurer:
    """Return one that asks a child with another *program*."""
    return Measurer(command=(sys.executable, "-c", program))


async def test_a_dry_run_says_what_it_would_take_without_taking_it(model_file: Path) -> None:
    plan = LoadPlan(model_path=str(model_file), n_ctx=65_536, n_slots=4, n_batch=512)
    began = time.monotonic()

    sizes = await Measurer().measure(plan)

    assert sizes is not None
    assert sizes.context_bytes == 4 * 65_536 * 30 * 2 * 192 * 2
    assert time.monotonic() - began < 10


async def test_it_does_not_matter_where_a_plan_is_placed(model_file: Path) -> None:
    plan = LoadPlan(model_path=str(model_file), n_ctx=512, n_slots=1, n_batch=64)
    placed = LoadPlan(
        model_path=str(model_file),
        n_ctx=512,
        n_slots=1,
        n_batch=64,
        n_gpu_layers=99,
        tensor_split=(1.0, 2.0),
        use_mlock=True,
    )

    assert await Measurer().measure(placed) == await Measurer().measure(plan)


def hostile_files(folder: Path, model_file: Path) -> list[Path]:
    """Write files that end in errors, or in failed assertions."""
    head = model_file.read_bytes()[: 1 << 20]
    contents = {
        "empty": b"",
        "no-gguf": b"\x7fELF" + bytes(1000),
        "only-a-header": head[:24],
        "cut-off": head,
        "endless": b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60),
        "no-architecture": head.replace(b"general.architecture", b"general.architectura"),
    }
    paths = []
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        paths.append(folder / name)
    return [*paths, folder / "missing", folder]


async def test_a_hostile_file_is_unknown_and_nothing_more(tmp_path: Path, model_file: Path) -> None:
    for path in hostile_files(tmp_path, model_file):
        plan = LoadPlan(model_path=str(path), n_ctx=512, n_slots=1, n_batch=64)
        with trio.fail_after(30):
            assert await Measurer().measure(plan) is None, path


async def test_settings_that_end_in_a_failed_assertion_are_unknown(model_file: Path) -> None:
    """Sequences that outnumber the tokens of a batch: llama.cpp aborts."""
    plan = LoadPlan(model_path=str(model_file), n_ctx=512, n_slots=200, n_batch=8, embedding=True)
    many = LoadPlan(model_path=str(model_file), n_ctx=1 << 26, n_slots=250, n_batch=1 << 20)

    assert await Measurer().measure(plan) is not None, "the embedding engine knows of this"
    await Measurer().measure(many)


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(3)",
        "import os; os.abort()",
        "print('garbage')",
        'print(\'{"context_bytes": "many"}\')',
        f"import sys; sys.stdout.write('x' * {ANSWER_BYTES_MAX * 1000})",
        "import os; os.close(0); os.close(1)",
        "",
    ],
    ids=["fails", "aborts", "garbage", "other-types", "too-much", "closes", "says-nothing"],
)
async def test_a_child_that_does_anything_else_than_answer_is_unknown(program: str) -> None:
    with trio.fail_after(30):
        assert await a_child(program).measure(PLAN) is None


async def test_an_answer_is_taken_from_a_child_that_reads_its_plan() -> None:
    program = f"import sys; sys.stdin.read(); sys.stdout.write({SIZES.decode()!r})"

    assert await a_child(program).measure(PLAN) == BufferSizes(context_bytes=1, compute_bytes=2)


def a_sleeper(pipe: Path) -> Measurer:
    """Return one that asks a child which writes its number to *pipe*, and then ignores us."""
    os.mkfifo(pipe)
    return a_child(
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"open({str(pipe)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    )


def is_alive(pid: str) -> bool:
    return Path("/proc", pid).exists()


async def test_a_child_that_hangs_is_ended_and_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measuring, "PATIENCE_S", 3.0)
    measurer = a_sleeper(tmp_path / "pipe")
    answers: list[BufferSizes | None] = []

    async def ask() -> None:
        answers.append(await measurer.measure(PLAN))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            pid = await trio.to_thread.run_sync((tmp_path / "pipe").read_text)

    assert answers == [None]
    assert not is_alive(pid)


async def test_whoever_asks_may_leave(tmp_path: Path) -> None:
    measurer = a_sleeper(tmp_path / "pipe")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(measurer.measure, PLAN)
            pid = await trio.to_thread.run_sync((tmp_path / "pipe").read_text)
            nursery.cancel_scope.cancel()

    assert not is_alive(pid)


async def test_a_child_that_cannot_be_started_is_unknown(tmp_path: Path) -> None:
    assert await Measurer(command=(str(tmp_path / "none"),)).measure(PLAN) is None


async def test_dry_runs_wait_for_each_other(tmp_path: Path) -> None:
    """Two at once would take the cores of those who compute."""
    program = (
        "import os, sys, time; sys.stdin.read(); "
        f"path = {str(tmp_path / 'alone')!r}; os.mkdir(path); time.sleep(0.2); os.rmdir(path); "
        f"sys.stdout.write({SIZES.decode()!r})"
    )
    measurer = a_child(program)
    answers: list[BufferSizes | None] = []

    async def ask() -> None:
        answers.append(await measurer.measure(PLAN))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)

    assert answers == [BufferSizes(context_bytes=1, compute_bytes=2)] * 3


async def test_no_gpu_is_shown_to_a_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A context alone would take half a GiB of it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    program = (
        "import os, sys; sys.stdin.read(); "
        "number = int(os.environ['CUDA_VISIBLE_DEVICES']); "
        "sys.stdout.write('{\"context_bytes\": %d}' % number)"
    )

    assert await a_child(program).measure(PLAN) == BufferSizes(context_bytes=-1)
