"""The line at which a person types: keys, history, several lines, placeholder.

The only place that drives prompt_toolkit; `ollamactl.chat` sees a function that returns text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.formatted_text import HTML
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from ollamactl.history import FileHistory

PROMPT: Final = ">>> "
PLACEHOLDER: Final = "Send a message (/? for help)"
CONTINUATION: Final = "... "
QUOTE: Final = '"""'
SET_SYSTEM: Final = "/set system "
"""The one command whose argument may be a block too."""
TAB: Final = " " * 8


def is_open_block(text: str) -> bool:
    """Return whether *text* begins a `\"\"\"` block that no line has ended yet."""
    stripped = text.strip().removeprefix(SET_SYSTEM).lstrip()
    return stripped.startswith(QUOTE) and not (
        len(stripped) >= 2 * len(QUOTE) and stripped.endswith(QUOTE)
    )


def without_quotes(text: str) -> str:
    """Return what the user means by *text*: the inside of a `\"\"\"` block, or the text itself."""
    stripped = text.strip()
    if len(stripped) >= 2 * len(QUOTE) and stripped.startswith(QUOTE) and stripped.endswith(QUOTE):
        return stripped[len(QUOTE) : -len(QUOTE)]
    return text


class PromptLine:
    """Asks for one input after another."""

    def __init__(self, history_file: Path | None) -> None:
        history: History = InMemoryHistory() if history_file is None else FileHistory(history_file)
        self._prompt: PromptSession[str] = PromptSession(
            history=history,
            multiline=True,  # Enter is bound below; this makes pasted and Ctrl-J lines possible.
            key_bindings=_keys(),
            prompt_continuation=CONTINUATION,
            placeholder=_placeholder,
            enable_suspend=True,
        )

    def ask(self) -> str:
        """Return the next input.

        Raises EOFError for Ctrl-D on an empty line and KeyboardInterrupt for Ctrl-C.
        """
        return self._prompt.prompt(PROMPT)


def _placeholder() -> HTML:
    """Return the grey hint, and nothing once the line is left: it would stay on the screen."""
    is_left = get_app().is_done
    return HTML("" if is_left else f"<ansibrightblack>{PLACEHOLDER}</ansibrightblack>")


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter", eager=True)
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open_block(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("c-j", eager=True)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("tab")
    def _tab(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(TAB)

    @keys.add("c-x", "c-e")
    @keys.add("c-g")
    def _editor(event: KeyPressEvent) -> None:
        event.current_buffer.open_in_editor()

    return keys
