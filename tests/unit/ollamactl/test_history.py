from __future__ import annotations

from pathlib import Path

import pytest

from ollamactl.history import ENTRIES_MAX, ENTRY_CHARS_MAX, FileHistory, history_path


def remembered(path: Path) -> list[str]:
    return list(FileHistory(path).load_history_strings())


def test_prompts_come_back_newest_first_and_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history"
    history = FileHistory(path)
    history.store_string("one")
    history.store_string("two\nlines")

    assert remembered(path) == ["two\nlines", "one"]


def test_the_file_is_private_even_if_it_was_not(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text('"old"\n')
    path.chmod(0o644)
    FileHistory(path).store_string("new")

    assert path.stat().st_mode & 0o777 == 0o600
    assert remembered(path) == ["new", "old"]


def test_a_damaged_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b'"good"\n{broken\n42\n\xff\n"also good"\n')

    assert remembered(path) == ["also good", "good"]


def test_the_file_is_cut_back_when_it_is_twice_too_long(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("".join(f'"{n}"\n' for n in range(2 * ENTRIES_MAX + 1)))

    assert len(remembered(path)) == ENTRIES_MAX
    assert len(path.read_text().splitlines()) == ENTRIES_MAX
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_pasted_book_is_not_remembered(tmp_path: Path) -> None:
    history = FileHistory(tmp_path / "history")
    history.store_string("x" * (ENTRY_CHARS_MAX + 1))

    assert not (tmp_path / "history").exists()


def test_a_history_that_cannot_be_written_is_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    history = FileHistory(tmp_path / "file" / "history")
    history.store_string("one")
    history.store_string("two")

    assert capsys.readouterr().err.count("Warning: no prompt history") == 1


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"XDG_STATE_HOME": "/state"}, "/state/ollamad/history"),
        ({"XDG_STATE_HOME": "/state", "OLLAMA_NOHISTORY": "0"}, "/state/ollamad/history"),
        ({"XDG_STATE_HOME": "/state", "OLLAMA_NOHISTORY": "1"}, None),
        ({"XDG_STATE_HOME": "/state", "OLLAMA_NOHISTORY": "yes"}, None),
    ],
)
def test_the_environment_says_where_and_whether(environ: dict[str, str], path: str | None) -> None:
    assert history_path(environ) == (None if path is None else Path(path))


def test_a_relative_state_folder_is_ignored() -> None:
    path = history_path({"XDG_STATE_HOME": "here"})

    assert path == Path.home() / ".local" / "state" / "ollamad" / "history"
