"""A check that fails is shown with what it said, and stops the rest."""

from __future__ import annotations

import sys

import pytest

from tools import check


def test_a_check_that_passes_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.run_check("fine", [sys.executable, "-c", "print('noise')"])

    shown = capsys.readouterr().out
    assert shown.startswith("fine          ok ")
    assert shown.count("\n") == 1


def test_a_check_that_fails_shows_its_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert not check.run_check("bad", [sys.executable, "-c", "raise SystemExit('the reason')"])

    shown = capsys.readouterr().out
    assert "FAILED" in shown
    assert "the reason" in shown


def test_a_check_that_is_not_installed_says_what_to_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert not check.run_check("absent", ["/not/there"])
    assert "make ready-dev" in capsys.readouterr().out


def test_the_first_failure_stops_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def fail(name: str, _command: list[str]) -> bool:
        ran.append(name)
        return False

    monkeypatch.setattr(check, "run_check", fail)

    assert check.main([]) == 1
    assert ran == ["ruff check"]


def test_quick_leaves_processes_and_models_out(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def tests(_python: str, arguments: list[str]) -> int:
        given.append(arguments)
        return 5

    monkeypatch.setattr(check, "run_check", lambda *_: True)
    monkeypatch.setattr(check, "run_tests", tests)

    assert check.main(["--quick", "-x"]) == 5
    assert check.main(["--no-tests"]) == 0
    assert given == [["-m", check.QUICK_MARKERS, "-x"]]
