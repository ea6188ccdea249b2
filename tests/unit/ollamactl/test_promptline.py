from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from ollamactl.promptline import PromptLine

Type = Callable[..., list[str]]


@pytest.fixture
def typed() -> Iterator[Type]:
    """Press keys at a prompt and return what each `ask` gave."""
    with create_pipe_input() as keyboard, create_app_session(keyboard, DummyOutput()):

        def press(keys: str, *, times: int = 1, history: Path | None = None) -> list[str]:
            line = PromptLine(history)
            keyboard.send_text(keys)
            return [line.ask() for _ in range(times)]

        yield press


def test_enter_sends_and_control_j_adds_a_line(typed: Type) -> None:
    assert typed("hello\r") == ["hello"]
    assert typed("one\ntwo\r") == ["one\ntwo"]


def test_enter_inside_a_block_adds_a_line(typed: Type) -> None:
    assert typed('"""one\rtwo"""\r') == ['"""one\ntwo"""']


def test_a_paste_with_line_breaks_is_sent_by_the_next_enter(typed: Type) -> None:
    assert typed("\x1b[200~one\rtwo\r\x1b[201~three\r") == ["one\ntwo\nthree"]


def test_tab_is_eight_spaces(typed: Type) -> None:
    assert typed("a\tb\r") == ["a        b"]


def test_control_d_leaves_and_control_c_interrupts(typed: Type) -> None:
    with pytest.raises(EOFError):
        typed("\x04")
    with pytest.raises(KeyboardInterrupt):
        typed("half a line\x03")


def test_what_was_sent_is_remembered_by_the_next_conversation(typed: Type, tmp_path: Path) -> None:
    path = tmp_path / "history"
    typed("one\r", history=path)

    assert path.read_text() == '"one"\n'
