"""The prompts typed before, kept in a private file of bounded length.

One JSON string a line, so that a prompt of several lines comes back as it was. A history that
cannot be read or written is a warning, never the end of a conversation.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from prompt_toolkit.history import History

from ollamactl.render import note

ENTRIES_MAX: Final = 1000
"""Prompts remembered; the file is cut back to them when the program starts."""
HISTORY_BYTES_MAX: Final = 4 << 20
"""Read from the file's end; what lies before is forgotten."""
ENTRY_CHARS_MAX: Final = 64 << 10
"""Longer prompts (a pasted file) are not remembered."""

_FALSE: Final = frozenset({"", "0", "f", "F", "FALSE", "false", "False"})


def history_path(environ: Mapping[str, str]) -> Path | None:
    """Return where the history lies, or None if the user wants none or has no home."""
    if environ.get("OLLAMA_NOHISTORY", "").strip().strip("\"'") not in _FALSE:
        return None
    state = environ.get("XDG_STATE_HOME", "")
    try:
        # Relative paths are to be ignored, says the base directory specification.
        home = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return home / "ollamad" / "history"


class FileHistory(History):
    """The history that the prompt reads and appends to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._is_broken = False

    def load_history_strings(self) -> Iterable[str]:
        """Return the remembered prompts, the newest first."""
        try:
            entries, must_cut = self._read()
            if must_cut:
                self._rewrite(entries)
        except FileNotFoundError:
            return []
        except OSError as error:
            self._give_up(error)
            return []
        return list(reversed(entries))

    def store_string(self, string: str) -> None:
        """Remember one more prompt."""
        if self._is_broken or len(string) > ENTRY_CHARS_MAX:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                # Also a file that was made readable by others holds private words.
                os.fchmod(descriptor, 0o600)
                file.write(_encoded(string))
        except OSError as error:
            self._give_up(error)

    def _read(self) -> tuple[list[str], bool]:
        """Return the entries that count, the oldest first, and whether the file has too many."""
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - HISTORY_BYTES_MAX))
            lines = file.read(HISTORY_BYTES_MAX).splitlines()
        entries = [entry for entry in map(_decoded, lines) if entry is not None]
        must_cut = size > HISTORY_BYTES_MAX or len(entries) > 2 * ENTRIES_MAX
        return entries[-ENTRIES_MAX:], must_cut

    def _rewrite(self, entries: list[str]) -> None:
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(map(_encoded, entries))
        fresh.replace(self._path)

    def _give_up(self, error: OSError) -> None:
        self._is_broken = True
        note(f"Warning: no prompt history: {self._path}: {error.strerror}")


def _encoded(entry: str) -> bytes:
    return json.dumps(entry).encode("ascii") + b"\n"


def _decoded(line: bytes) -> str | None:
    """Return the entry on *line*, or None if it is damaged: other entries are still good."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, str) else None
