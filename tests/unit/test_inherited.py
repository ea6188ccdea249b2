from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ollamad.errors import StartupError
from ollamad.inherited import inherited_listener


def environ(names: str, n_passed: int | str = 2, pid: int | None = None) -> dict[str, str]:
    return {
        "LISTEN_PID": str(pid or os.getpid()),
        "LISTEN_FDS": str(n_passed),
        "LISTEN_FDNAMES": names,
    }


@pytest.fixture
def passed(tmp_path: Path) -> list[int]:
    """Two descriptors in a row, the second a listening Unix socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    first = os.open(os.devnull, os.O_RDONLY)
    second = listener.detach()
    os.dup2(second, first + 1, inheritable=True)
    if second != first + 1:
        os.close(second)
    return [first, first + 1]


def test_a_listener_is_found_by_its_name_and_not_passed_on(passed: list[int]) -> None:
    found = inherited_listener("admin", environ("api:admin"), first=passed[0])

    assert found is not None
    with found:
        assert found.fileno() == passed[1]
        assert not found.get_inheritable()
    os.close(passed[0])


@pytest.mark.parametrize(
    "variables",
    [
        {},
        environ("api:admin", pid=1),
        environ("api:admin", n_passed="many"),
        environ("api:other"),
        environ("api:admin", n_passed=1),
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"},
    ],
)
def test_what_was_not_passed_to_us_is_not_taken(variables: dict[str, str]) -> None:
    assert inherited_listener("admin", variables) is None


def test_two_of_one_name_are_a_mistake() -> None:
    with pytest.raises(StartupError, match="passed 2 sockets named admin"):
        inherited_listener("admin", environ("admin:admin"))


def test_what_is_no_listening_unix_socket_is_told(passed: list[int]) -> None:
    with pytest.raises(StartupError, match="is no socket"):
        inherited_listener("admin", environ("admin:x"), first=passed[0])
    for descriptor in passed:
        os.close(descriptor)
    with socket.socket(socket.AF_INET) as tcp, pytest.raises(StartupError, match="with a path"):
        inherited_listener("admin", environ("admin", 1), first=tcp.fileno())
    with socket.socket(socket.AF_UNIX) as deaf, pytest.raises(StartupError, match="not listen"):
        inherited_listener("admin", environ("admin", 1), first=deaf.fileno())
