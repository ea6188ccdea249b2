from __future__ import annotations

import io

import pytest
from rich.console import Console

from ollamactl.top import (
    NAME_COLUMNS_MAX,
    SPEEDS_KEPT,
    Snapshot,
    Speeds,
    frame,
    memory_bar,
    share_rows,
    short_name,
)
from ollamad.adminwire import (
    DaemonState,
    Device,
    DeviceKind,
    Engine,
    Level,
    Queue,
    Runner,
    RunnerState,
    Status,
    Waiting,
)
from ollamad.units import GIB


def a_snapshot(
    *, devices: int = 1, runners: int = 1, waiting: int = 1, problem: str = ""
) -> Snapshot:
    return Snapshot(
        status=Status(
            version="0.1.0",
            pid=1,
            uptime_s=3725,
            state=DaemonState.SERVING,
            listen="127.0.0.1:11434",
            store="/models",
            log_level=Level.INFO,
            may_change=True,
            runners=runners,
            requests=3,
            waiting=waiting,
            tokens_per_s=42.5,
            generated_tokens=123456,
            gpus="",
        ),
        devices=tuple(
            Device(
                device=f"GPU-{n}",
                kind=DeviceKind.CUDA,
                name="NVIDIA H100 80GB HBM3",
                index=n,
                capacity_bytes=80 * GIB,
                headroom_bytes=GIB,
                others_bytes=10 * GIB,
                reserved_bytes=40 * GIB,
                free_bytes=29 * GIB,
            )
            for n in range(devices)
        ),
        runners=tuple(
            Runner(
                runner=n,
                model=f"registry.example.com/somebody/a-model-with-a-very-long-name:{n}b-instruct",
                weights="w",
                state=RunnerState.LOADING,
                age_s=1.0,
                progress=0.5,
                held_bytes=8 * GIB,
                gpu_bytes=8 * GIB,
                n_ctx=4096,
                n_slots=4,
                requests=1,
                tokens_per_s=12.0,
                engine=Engine(slots_busy=1, kv_cells=100, kv_used=25),
            )
            for n in range(runners)
        ),
        queue=Queue(
            total=waiting,
            waiting=tuple(
                Waiting(ticket=n, model="m", place=n + 1, waited_s=2.0, waits_for="room " * 30)
                for n in range(min(waiting, 200))
            ),
        ),
        problem=problem,
    )


def drawn(snapshot: Snapshot, *, columns: int = 80, rows: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=columns, height=rows, highlight=False)
    speeds = Speeds()
    speeds.take(42.5)
    console.print(frame(snapshot, speeds, columns=columns, rows=rows))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("size", [(80, 24), (120, 50), (200, 15), (60, 20)])
@pytest.mark.parametrize("n", [0, 1, 4, 40, 3000])
def test_a_picture_is_never_larger_than_the_terminal(size: tuple[int, int], n: int) -> None:
    columns, rows = size
    picture = drawn(
        a_snapshot(devices=min(n, 16), runners=min(n, 99), waiting=n, problem="gone"),
        columns=columns,
        rows=rows,
    )

    assert len(picture) <= rows
    assert max(map(len, picture)) <= columns


def test_what_does_not_fit_is_counted() -> None:
    picture = "\n".join(drawn(a_snapshot(devices=8, runners=30, waiting=3000)))

    assert "... and " in picture
    assert "more" in picture
    assert "3000 waiting" in picture


def test_a_picture_on_80_columns_shows_every_column() -> None:
    picture = drawn(a_snapshot())

    assert picture[0].split() == ["ollamad", "0.1.0", "serving", "up", "1h02m", "127.0.0.1:11434"]
    assert picture[1].startswith("42.5 tokens/s  3 running, 1 waiting  123,456 tokens  █")
    header = next(line for line in picture if line.startswith("MODEL"))
    assert header.split() == ["MODEL", "STATE", "MEMORY", "SLOTS", "CACHE", "TOKENS/S", "LEAVES"]
    row = picture[picture.index(header) + 1]
    for value in ("0b-instruct", "loading 50%", "8.0 GiB", "1/4", "25%", "12.0", "in use"):
        assert value in row


def test_what_is_not_of_now_says_so() -> None:
    assert drawn(a_snapshot(problem="the daemon\nis gone"))[2] == "not of now: the daemon is gone"


def test_rows_are_shared_a_few_each_first_and_none_is_made_up() -> None:
    assert share_rows([1, 1, 1], 20) == [1, 1, 1]
    assert share_rows([10, 10, 10], 12) == [6, 3, 3]
    assert share_rows([2, 100, 1], 10) == [2, 7, 1]
    assert share_rows([5, 5, 5], 4) == [3, 1, 0]
    assert share_rows([5, 5, 5], -3) == [0, 0, 0]


def test_memory_is_drawn_as_ours_others_and_free() -> None:
    bar = memory_bar(a_snapshot().devices[0])

    assert bar == "████████▒▒░░░░░░"
    assert len(bar) == 16


def test_speeds_are_drawn_as_high_as_the_fastest_and_only_so_many_are_kept() -> None:
    speeds = Speeds()
    assert speeds.sparks(10) == ""
    for speed in range(SPEEDS_KEPT + 8):
        speeds.take(speed)

    assert len(speeds.sparks(1000)) == SPEEDS_KEPT
    speeds.take(24)
    assert speeds.sparks(3) == "██▅"
    assert speeds.sparks(-1) == ""


def test_of_a_long_name_the_end_is_shown() -> None:
    assert short_name("llama3.2:latest") == "llama3.2:latest"
    assert short_name("0123456789/a-long-name-of-a-model-here:70b") == (
        "…-name-of-a-model-here:70b"
    )
    assert len(short_name("x" * 100)) == NAME_COLUMNS_MAX
