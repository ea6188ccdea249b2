"""The admin socket of a real daemon, asked by `ollamactl` and by a client nobody here wrote."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import varlink

from ollamad.adminwire import INTERFACE
from tests.process.conftest import MODEL
from tests.process.daemonprocess import DaemonProcess, a_daemon

pytestmark = [pytest.mark.process, pytest.mark.model]

PATIENCE_S = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("admin")


@pytest.fixture(scope="module")
def administered(folder: Path, model_file: Path) -> Iterator[DaemonProcess]:
    with a_daemon(folder) as running:
        yield running


def socket_in(folder: Path) -> Path:
    return folder / "run" / "ollamad" / "admin.sock"


def ctl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ollamactl", *arguments, "--socket", str(socket_in(folder))],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_model_is_loaded_seen_and_evicted(administered: DaemonProcess, folder: Path) -> None:
    seen: list[str] = []
    listening, gone = threading.Event(), threading.Event()

    def watch() -> None:
        with (
            varlink.Client(f"unix:{socket_in(folder)}") as client,
            client.open(INTERFACE) as admin,
        ):
            for reply in admin.Events(_more=True):
                listening.set()
                if event := reply.get("event"):
                    seen.append(event["kind"])
                    if event["kind"] == "unloaded":
                        break
        gone.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert listening.wait(PATIENCE_S)
    assert ctl(folder, "preload", MODEL).stdout == f"'{MODEL}' is loaded\n"
    (runner,) = json.loads(ctl(folder, "runners", "--json").stdout)["runners"]
    assert (runner["model"], runner["state"]) == (MODEL, "ready")
    assert runner["pid"] in {child.pid for child in administered.runners()}
    picture = ctl(folder, "top", "--once").stdout
    assert MODEL in picture
    assert ctl(folder, "evict", MODEL).returncode == 0
    assert gone.wait(PATIENCE_S)
    watcher.join(PATIENCE_S)

    assert seen[0] in {"loading", "queued"}
    assert seen[-3:] == ["ready", "evicting", "unloaded"]
    logged = administered.wait_for_log(lambda record: record.get("method") == "Evict")
    assert (logged["model"], logged["outcome"]) == (MODEL, "done")
    assert logged["peer_uid"] == os.geteuid()


def test_explain_is_what_happens(administered: DaemonProcess, folder: Path) -> None:
    explained = json.loads(ctl(folder, "explain", MODEL, "--json").stdout)

    assert explained["verdict"] in {"start", "grant"}
    assert sum(part["bytes"] for part in explained["demand"]) > 98_000_000


def test_reload_and_log_level_reach_the_daemon(administered: DaemonProcess, folder: Path) -> None:
    assert ctl(folder, "log-level", "debug").stdout == "log level debug\n"
    assert json.loads(ctl(folder, "status", "--json").stdout)["log_level"] == "debug"

    assert ctl(folder, "reload").stdout == "changed: nothing\n"
    assert json.loads(ctl(folder, "status", "--json").stdout)["log_level"] == "info"


def test_the_socket_is_for_its_group_and_goes_with_the_daemon(
    tmp_path: Path, model_file: Path
) -> None:
    with a_daemon(tmp_path):
        mode = socket_in(tmp_path).stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660

    assert not socket_in(tmp_path).exists()


def test_a_second_daemon_does_not_take_the_socket_of_a_live_one_but_of_a_dead_one(
    tmp_path: Path, model_file: Path
) -> None:
    first = DaemonProcess(tmp_path, {})
    try:
        with pytest.raises(AssertionError, match="another daemon answers at the admin socket"):
            DaemonProcess(tmp_path, {})
        assert ctl(tmp_path, "status").returncode == 0
    finally:
        first.kill()
    assert socket_in(tmp_path).exists()
    assert "its daemon is gone" in ctl(tmp_path, "status").stderr

    with a_daemon(tmp_path):
        assert ctl(tmp_path, "status").returncode == 0


def test_a_daemon_without_the_door_has_no_socket(tmp_path: Path, model_file: Path) -> None:
    config = tmp_path / "config" / "ollamad" / "ollamad.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[admin]\nenabled = false\n")
    with a_daemon(tmp_path):
        assert not socket_in(tmp_path).exists()


def test_a_socket_passed_by_the_service_manager_is_used(tmp_path: Path, model_file: Path) -> None:
    """As systemd does it: the descriptor is 3, and the variables name this very process."""
    path = tmp_path / "passed.sock"
    starter = (
        "import os, socket, sys\n"
        f"s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen()\n"
        "os.dup2(s.fileno(), 3); os.set_inheritable(3, True)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='admin')\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'ollamad', 'serve', '--port', '0'])\n"
    )
    process: Any = subprocess.Popen(
        [sys.executable, "-c", starter],
        stderr=subprocess.PIPE,
        env={**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")},
    )
    try:
        for line in process.stderr:
            if b"Listening on" in line:
                break
        with varlink.Client(f"unix:{path}") as client, client.open(INTERFACE) as admin:
            assert admin.Status()["pid"] == process.pid
        assert not (tmp_path / "run").exists()
    finally:
        process.terminate()
        process.stderr.read()
        process.stderr.close()
        assert process.wait(PATIENCE_S) == 0
    assert path.exists()
