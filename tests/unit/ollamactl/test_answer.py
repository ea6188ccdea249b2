from __future__ import annotations

import io
import sys

import pytest

from ollamactl.answer import AnswerPrinter
from ollamactl.wire import Piece

Captured = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stdout a terminal. No fixture: between set-up and test pytest puts its own back."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return terminal


def test_a_terminal_gets_wrapped_lines_and_no_escape_sequences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = a_terminal(monkeypatch)
    printer = AnswerPrinter()
    printer.take(Piece(response="the quick brown fox \x1b]52;c;x\x07jum"))
    printer.take(Piece(response="ps"))
    printer.finish()

    assert terminal.getvalue() == "the quick brown fox\n]52;c;xjumps"
    assert printer.text == "the quick brown fox \x1b]52;c;x\x07jumps"


def test_a_terminal_gets_thinking_in_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    printer = AnswerPrinter(wraps=False)
    printer.take(Piece(thinking="Hm."))
    printer.take(Piece(response="42"))
    printer.finish()

    assert terminal.getvalue() == (
        "\x1b[1;90mThinking...\n\x1b[0m\x1b[90mHm.\x1b[0m\n\x1b[1;90m...done thinking.\n\n\x1b[0m42"
    )


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    printer = AnswerPrinter()
    printer.take(Piece(thinking="Hm.\n"))
    printer.finish()

    assert terminal.getvalue() == "Thinking...\nHm.\n...done thinking.\n\n"


def test_an_answer_that_breaks_off_ends_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    printer = AnswerPrinter()
    printer.take(Piece(response="Hel"))
    printer.break_off()

    assert terminal.getvalue() == "Hel\n"


def test_a_pipe_gets_the_text_as_it_is(capsys: Captured) -> None:
    printer = AnswerPrinter()
    printer.take(Piece(response=f"{'word ' * 40}\x1b[1m"))
    printer.break_off()

    assert capsys.readouterr().out == f"{'word ' * 40}\x1b[1m"
