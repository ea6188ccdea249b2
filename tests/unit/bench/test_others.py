from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.peers import others, proctree, report
from bench.peers.results import Results


def test_time_is_busy_unless_it_is_idle(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  100 0 50 9999 9999 10 20 30 7 7\ncpu0 1 1 1 1\n")

    assert others.busy_s(tmp_path) == pytest.approx(210 / proctree.TICKS_PER_S)


def test_our_own_work_is_no_disturbance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(others, "busy_s", time.process_time)
    with others.Watch(list) as watch:
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass

    assert watch.share < 0.1


def test_figures_of_a_busy_machine_are_told_to_be_worth_little() -> None:
    results = Results()
    assert report.disturbed(results) == "nothing was measured"
    results.disturbances += [0.01, 0.02, 0.5]
    assert "at most 50%" in report.disturbed(results)
    assert "TOO MUCH" not in report.disturbed(results)
    results.disturbances += [0.6, 0.7]
    assert "TOO MUCH" in report.disturbed(results)
