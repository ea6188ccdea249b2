from __future__ import annotations

from pathlib import Path

import pytest

from ollamad.adminwire import default_socket, socket_candidates

HOME = Path("/home/me")


@pytest.mark.parametrize(
    ("environ", "is_root", "path"),
    [
        (
            {"RUNTIME_DIRECTORY": "/run/ollamad/private:/run/x", "XDG_RUNTIME_DIR": "/run/user/0"},
            False,
            "/run/ollamad/private/admin.sock",
        ),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, False, "/run/user/7/ollamad/admin.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/0"}, True, "/run/user/0/ollamad/admin.sock"),
        ({"XDG_RUNTIME_DIR": "relative"}, True, "/run/ollamad/admin.sock"),
        ({}, False, "/home/me/.local/state/ollamad/admin.sock"),
        ({"XDG_STATE_HOME": "/state"}, False, "/state/ollamad/admin.sock"),
    ],
)
def test_the_socket_is_where_its_daemon_may_make_one(
    environ: dict[str, str], is_root: bool, path: str
) -> None:
    assert default_socket(environ, HOME, is_root=is_root) == Path(path)


@pytest.mark.parametrize("is_root", [True, False])
@pytest.mark.parametrize(
    "environ", [{}, {"XDG_RUNTIME_DIR": "/run/user/7"}, {"XDG_STATE_HOME": "/state"}]
)
def test_whoever_starts_a_daemon_finds_its_socket(environ: dict[str, str], is_root: bool) -> None:
    assert default_socket(environ, HOME, is_root=is_root) in socket_candidates(environ, HOME)


def test_a_service_is_found_by_everybody() -> None:
    service = default_socket({"RUNTIME_DIRECTORY": "/run/ollamad/private"}, HOME, is_root=False)

    assert service in socket_candidates({}, HOME)
    assert Path("/run/ollamad/admin.sock") in socket_candidates({}, HOME)
