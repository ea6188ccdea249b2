"""A few cells of the kill matrix; `make kill-matrix` tries them all."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.endurance.faultyworker import Point
from tests.endurance.killmatrix import ALL, HEADER, Cell, Outcome, judged, try_cells

pytestmark = [pytest.mark.process, pytest.mark.model]

FEW = (
    Cell(Point.MID_LOAD, signal.SIGKILL),
    Cell(Point.MID_STREAM, signal.SIGKILL),
    Cell(Point.BEFORE_TOKENS, signal.SIGSTOP),
)


def test_struck_runners_leave_no_client_waiting_and_nothing_behind(
    tmp_path: Path, model_file: Path
) -> None:
    reports = list(try_cells(FEW, tmp_path))

    table = "\n".join([HEADER, *(report.line() for report in reports)])
    assert [report.faults for report in reports] == [[]] * len(FEW), table


def test_every_point_is_struck_by_both_signals() -> None:
    assert len(set(ALL)) == len(ALL) == 2 * len(Point)


DONE: dict[str, Any] = {"done": True, "eval_count": 3}
PIECE: dict[str, Any] = {"response": "a", "done": False}
ERROR: dict[str, Any] = {"error": "the model's runner ended"}


@pytest.mark.parametrize(
    ("status", "lines", "outcome"),
    [
        (200, [PIECE, DONE], Outcome.COMPLETE),
        (200, [PIECE, ERROR], Outcome.ERROR),
        (503, [ERROR], Outcome.ERROR),
        (200, [PIECE], Outcome.BROKEN),
        (200, [], Outcome.BROKEN),
        (200, [ERROR, DONE], Outcome.BROKEN),
        (200, [DONE, PIECE], Outcome.BROKEN),
        (500, [{"error": ""}], Outcome.BROKEN),
        (200, [{"done": True}], Outcome.BROKEN),
    ],
)
def test_an_answer_is_whole_or_one_clear_error_or_broken(
    status: int, lines: list[dict[str, Any]], outcome: Outcome
) -> None:
    assert judged(status, lines) is outcome
