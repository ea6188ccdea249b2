from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from ollamad.runners import readahead
from ollamad.runners.readahead import CHUNK_BYTES, WORTHWHILE_BYTES, ReadAhead
from ollamad.units import GIB

LARGE_BYTES = 5 * CHUNK_BYTES + 1000


class Kernel:
    """What it was advised, and what it has in memory already."""

    def __init__(self) -> None:
        self.advised: list[tuple[int, int]] = []
        self.cached: set[int] = set()
        self.holding: threading.Event | None = None
        """Where advice does not return until this is set: a dead disk."""
        self.was_asked = threading.Event()

    def advise(self, _descriptor: int, offset: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        self.advised.append((offset, length))
        self.was_asked.set()
        if self.holding is not None:
            self.holding.wait(60)

    def is_cached(self, _descriptor: int, offset: int) -> bool:
        return offset // CHUNK_BYTES in self.cached


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel()
    monkeypatch.setattr(os, "posix_fadvise", kernel.advise)
    monkeypatch.setattr(readahead, "is_cached", kernel.is_cached)
    yield kernel
    if kernel.holding is not None:
        kernel.holding.set()


def a_file(folder: Path, size: int, name: str = "model") -> str:
    """Return the path of a file with a hole of this size."""
    path = folder / name
    with path.open("wb") as file:
        file.truncate(size)
    return str(path)


async def test_a_file_is_asked_for_in_chunks_to_its_very_end(
    tmp_path: Path, kernel: Kernel
) -> None:
    await ReadAhead(lambda: GIB).read([a_file(tmp_path, LARGE_BYTES)])

    assert kernel.advised == [
        *((number * CHUNK_BYTES, CHUNK_BYTES) for number in range(5)),
        (5 * CHUNK_BYTES, 1000),
    ]


async def test_what_is_in_memory_already_is_not_asked_for(tmp_path: Path, kernel: Kernel) -> None:
    kernel.cached = {0, 1, 3}

    await ReadAhead(lambda: GIB).read([a_file(tmp_path, LARGE_BYTES)])

    assert [offset // CHUNK_BYTES for offset, _ in kernel.advised] == [2, 4, 5]


async def test_a_small_file_is_not_worth_it(tmp_path: Path, kernel: Kernel) -> None:
    await ReadAhead(lambda: GIB).read([a_file(tmp_path, WORTHWHILE_BYTES - 1)])

    assert kernel.advised == []


async def test_half_of_the_available_memory_is_left_over_all_files(
    tmp_path: Path, kernel: Kernel
) -> None:
    paths = [a_file(tmp_path, 4 * CHUNK_BYTES, name) for name in ("weights", "adapter")]

    await ReadAhead(lambda: 12 * CHUNK_BYTES).read(paths)

    assert len(kernel.advised) == 6


@pytest.mark.parametrize("available_bytes", [0, -GIB])
async def test_without_memory_nothing_is_read(
    tmp_path: Path, kernel: Kernel, available_bytes: int
) -> None:
    await ReadAhead(lambda: available_bytes).read([a_file(tmp_path, LARGE_BYTES)])

    assert kernel.advised == []


async def test_a_file_that_cannot_be_read_is_a_word_for_developers(
    tmp_path: Path, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    await ReadAhead(lambda: GIB).read([str(tmp_path / "gone")])

    (record,) = (r for r in caplog.records if "cannot read ahead" in r.getMessage())
    assert record.levelno == logging.DEBUG


async def test_a_pipe_in_the_place_of_a_model_holds_nobody_up(
    tmp_path: Path, kernel: Kernel
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with trio.fail_after(10):
        await ReadAhead(lambda: GIB).read([str(tmp_path / "pipe")])


async def test_a_dead_disk_holds_one_thread_and_no_task(tmp_path: Path, kernel: Kernel) -> None:
    kernel.holding = threading.Event()
    reader = ReadAhead(lambda: GIB)
    path = a_file(tmp_path, LARGE_BYTES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read, [path])
        nursery.start_soon(reader.read, [path])
        await trio.to_thread.run_sync(kernel.was_asked.wait, 10)
        nursery.cancel_scope.cancel()

    assert kernel.advised == [(0, CHUNK_BYTES)]
    kernel.holding.set()
    with trio.fail_after(10):
        await reader.read([str(tmp_path / "gone")])  # Its turn comes when the thread has ended,
    assert kernel.advised == [(0, CHUNK_BYTES)]  # which asks for nothing more.


async def test_a_real_file_can_be_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its pages were just written: they are in memory, unless the file system cannot tell."""
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "model"
    path.write_bytes(b"x" * WORTHWHILE_BYTES)

    await ReadAhead(lambda: GIB).read([str(path)])

    assert "cannot read ahead" not in caplog.text
