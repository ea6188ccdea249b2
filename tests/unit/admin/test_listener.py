from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from ollamad.admin.listener import PATH_BYTES_MAX, own_listener
from ollamad.errors import StartupError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "admin.sock"


def test_the_socket_is_there_for_the_block_and_only_for_its_group(path: Path) -> None:
    with own_listener(path, os.getegid()) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid == os.getegid()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            listener.accept()[0].close()
        assert list(path.parent.iterdir()) == [path]

    assert list(path.parent.iterdir()) == []


def test_its_folder_is_made_and_can_be_searched_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o077)
    try:
        with own_listener(path, None):
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
    finally:
        os.umask(before)


def test_a_folder_that_everybody_can_write_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o1777)

    with pytest.raises(StartupError, match="can be written by everybody"), own_listener(path, None):
        pass


def test_the_socket_of_a_dead_daemon_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()

    with own_listener(path, None), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_live_daemon_keeps_its_socket(path: Path) -> None:
    with own_listener(path, None):
        inode = path.stat().st_ino
        with (
            pytest.raises(StartupError, match="another daemon answers at"),
            own_listener(path, None),
        ):
            pass
        assert path.stat().st_ino == inode


def test_a_live_daemon_that_accepts_nobody_at_the_moment_keeps_it_too(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as waiting:
        live.bind(str(path))
        live.listen(0)
        waiting.connect(str(path))
        with (
            pytest.raises(StartupError, match="another daemon answers at"),
            own_listener(path, None),
        ):
            pass


def test_two_that_start_at_once_do_not_both_win(path: Path) -> None:
    path.parent.mkdir()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with (
            pytest.raises(StartupError, match="at this moment: try again"),
            own_listener(path, None),
        ):
            pass
    finally:
        os.close(folder)


def test_what_is_no_socket_is_not_removed(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")

    with pytest.raises(StartupError, match="is no socket"), own_listener(path, None):
        pass
    assert path.read_text() == "precious"


def test_a_successors_socket_is_not_removed(path: Path) -> None:
    with own_listener(path, None):
        path.unlink()
        successor = socket.socket(socket.AF_UNIX)
        successor.bind(str(path))

    assert path.exists()
    successor.close()


def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    path = tmp_path / ("x" * PATH_BYTES_MAX) / "admin.sock"

    with pytest.raises(StartupError, match="longer than 107 bytes"), own_listener(path, None):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with (
        pytest.raises(StartupError, match="cannot be used: Not a directory"),
        own_listener(tmp_path / "file" / "folder" / "admin.sock", None),
    ):
        pass
