"""The admin socket's file: made without a moment in which others could use it, and taken away.

Who makes and removes files of sockets holds a lock on their folder, so that of two daemons that
start together one finds the other. A file of a dead daemon is replaced only after connecting to it
has shown that nobody is there. Synchronous and quick: local files, nothing that waits.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ollamad.errors import StartupError
from ollamad.log import get_logger

SOCKET_MODE: Final = 0o660
FOLDER_MODE: Final = 0o755
BACKLOG: Final = 64
PATH_BYTES_MAX: Final = 107
"""What the kernel takes as the path of a Unix socket."""
HINT: Final = "OLLAMAD_ADMIN_SOCKET or --admin-socket choose another"

log = get_logger(__name__)


@contextlib.contextmanager
def own_listener(path: Path, gid: int | None) -> Iterator[socket.socket]:
    """Listen at *path* for the block, for the daemon's user and the members of group *gid*.

    The folder is made if it is missing. Raises StartupError, among others if somebody listens
    there already.
    """
    _make_folder(path.parent)
    with contextlib.ExitStack() as stack:
        with _locked(path.parent):
            _refuse_if_taken(path)
            listener = stack.enter_context(_bound(path, gid))
            identity = _identity(path)
        try:
            yield listener
        finally:
            _remove(path, identity)


def _make_folder(folder: Path) -> None:
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(FOLDER_MODE)  # A service's umask would keep its own groups out.
        mode = folder.stat().st_mode
    except OSError as exc:
        raise StartupError(
            f"the folder of the admin socket, {folder}, cannot be used: {exc.strerror}; {HINT}"
        ) from exc
    if mode & stat.S_IWOTH:
        raise StartupError(
            f"the folder of the admin socket, {folder}, can be written by everybody, who could "
            f"put a socket of their own there; {HINT}"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises StartupError if somebody else does: they are starting, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartupError(
                f"another daemon is opening or closing its admin socket in {folder} at this "
                f"moment: try again, or {HINT}"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _refuse_if_taken(path: Path) -> None:
    """Raise StartupError unless *path* is free, or the socket of a daemon that is gone."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StartupError(f"the admin socket {path}: {exc.strerror}; {HINT}") from exc
    if not stat.S_ISSOCK(mode):
        raise StartupError(f"{path} is in the way of the admin socket, and is no socket; {HINT}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = _connect(probe, path)
    if code == errno.ECONNREFUSED:
        log.info("replacing the admin socket of a daemon that is gone", path=str(path))
    elif code != errno.ENOENT:  # Also a full backlog (EAGAIN) is somebody's.
        raise StartupError(f"another daemon answers at the admin socket {path}; {HINT}")


def _connect(probe: socket.socket, path: Path) -> int:
    try:
        return probe.connect_ex(os.fspath(path))
    except OSError:  # A path too long to be connected to is too long to be listened at.
        return errno.ECONNREFUSED


@contextlib.contextmanager
def _bound(path: Path, gid: int | None) -> Iterator[socket.socket]:
    """Listen at *path*. Nobody can connect before the file has its owner and mode.

    Bound in place and not renamed there: the kernel shows a socket by the name it was bound to.
    """
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise StartupError(
            f"the path of the admin socket, {path}, is longer than {PATH_BYTES_MAX} bytes; {HINT}"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            path.unlink(missing_ok=True)
            listener.bind(os.fspath(path))
            _give_to_group(path, gid)
            path.chmod(SOCKET_MODE)
            listener.listen(BACKLOG)
        except OSError as exc:
            raise StartupError(
                f"the admin socket {path} cannot be opened: {exc.strerror}; {HINT}"
            ) from exc
        yield listener


def _give_to_group(file: Path, gid: int | None) -> None:
    if gid is None:
        return
    try:
        os.chown(file, -1, gid)
    except PermissionError:
        # Only a member may give a file to a group: a daemon that somebody runs for themselves.
        log.debug("the admin socket is for the daemon's own user only", gid=gid)


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _remove(path: Path, identity: tuple[int, int]) -> None:
    """Remove our file, if it still is ours. What is left behind is known for stale by the next."""
    try:
        with _locked(path.parent):
            if _identity(path) == identity:
                path.unlink()
    except (OSError, StartupError) as exc:
        log.debug("the admin socket was not removed", path=str(path), reason=str(exc))
