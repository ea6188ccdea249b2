"""What the reader sees while a command works, and that nothing of it stays behind."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from tools import console
from tools.console import Progress, Runner
from tools.machine import SetupError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def a_runner(tmp_path: Path) -> tuple[Runner, io.StringIO]:
    shown = io.StringIO()
    return Runner(Progress(shown), tmp_path / "log"), shown


@pytest.mark.parametrize(
    ("line", "fraction"),
    [
        (b"  [7/140] /usr/bin/g++ -O3", 0.05),
        (b"[140/140] link", 1.0),
        (b"[3/0] odd", None),
        (b"see [1/2]", None),
        (b"", None),
        (b"\xff\xfe[", None),
    ],
)
def test_ninjas_counting_is_read_only_where_it_stands(line: bytes, fraction: float | None) -> None:
    assert console.ninja_fraction(line) == fraction


def test_a_counter_never_passes_the_whole() -> None:
    parse = console.counter((b"Collecting ",), 2)

    told = [parse(line) for line in (b"Collecting a", b"other", b"Collecting b", b"Collecting c")]

    assert told == [0.5, None, 1.0, 1.0]


def test_durations_are_said_as_people_say_them() -> None:
    assert console.duration(4.4) == "4 s"
    assert console.duration(185.2) == "3 min 5 s"


def test_without_a_terminal_a_line_comes_only_now_and_then() -> None:
    shown, clock = io.StringIO(), Clock()
    progress = Progress(shown, now=clock)
    progress.begin("building")
    for clock.now_s in range(1, 65):
        progress.update(clock.now_s / 100)
    progress.end()

    assert shown.getvalue().splitlines() == [
        "building ...",
        "building: 30%, 30 s",
        "building: 60%, 1 min 0 s",
        "building: done in 1 min 4 s",
    ]


def test_on_a_terminal_one_line_is_drawn_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown, clock = Terminal(), Clock()
    progress = Progress(shown, now=clock)
    progress.begin("building")
    progress.update(0.5)
    progress.end()

    assert shown.getvalue().count("\n") == 1
    assert "\r\x1b[Kbuilding: 50%, 0 s" in shown.getvalue()


def test_what_failed_is_shown_and_not_what_pip_says_about_it() -> None:
    lines = ["before", "x.cpp:3: error: no member", "", "error: subprocess-exited-with-error"]
    epilogue = ["note: This error originates from a subprocess, and ...", "hint: see above"]

    assert console.telling_lines([*lines, *epilogue]) == ["before", "x.cpp:3: error: no member"]
    assert console.telling_lines(["a", "", "b"], 1) == ["b"]
    assert console.telling_lines([]) == []


def test_a_commands_output_goes_to_the_log_and_not_to_the_reader(tmp_path: Path) -> None:
    runner, shown = a_runner(tmp_path)

    runner.run("working", [sys.executable, "-c", "print('quiet')"], timeout_s=60)

    assert shown.getvalue().startswith("working ...\nworking: done in")
    assert "quiet\n" in (tmp_path / "log").read_text(encoding="utf-8")


def test_a_failure_shows_its_last_lines_and_names_the_log(tmp_path: Path) -> None:
    runner, _ = a_runner(tmp_path)
    program = "for n in range(50): print('line', n)\nprint('\\x1b[2Jtelling'); raise SystemExit(3)"

    with pytest.raises(SetupError) as caught:
        runner.run("working", [sys.executable, "-c", program], timeout_s=60)

    shown = str(caught.value).splitlines()
    assert shown[0] == "working: failed. It said last:"
    assert shown[1] == "  line 31"
    assert shown[-2] == "  ?[2Jtelling"
    assert shown[-1] == f"The full log: {tmp_path / 'log'}"


def test_a_command_that_does_not_end_is_ended_with_its_children(tmp_path: Path) -> None:
    runner, _ = a_runner(tmp_path)
    program = "import os, time; print(os.getpgid(0), flush=True); os.fork(); time.sleep(600)"

    with pytest.raises(SetupError, match="not finished after 1 s"):
        runner.run("working", [sys.executable, "-c", program], timeout_s=1)

    group = int((tmp_path / "log").read_text(encoding="utf-8").splitlines()[2])
    states = [
        path.read_text(encoding="utf-8").rpartition(")")[2].split()
        for path in Path("/proc").glob("[0-9]*/stat")
        if path.exists()
    ]
    assert not [state for state in states if int(state[2]) == group and state[0] not in "ZX"]


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    runner, _ = a_runner(tmp_path)

    with pytest.raises(SetupError, match="cannot start /not/there"):
        runner.run("working", ["/not/there"], timeout_s=1)


def test_a_signal_to_end_raises_so_that_children_are_ended() -> None:
    with pytest.raises(SystemExit) as caught, console.endings_raise():
        os.kill(os.getpid(), 15)
    assert caught.value.code == 143
