from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from ollamad.runners import cgroup

SYSTEMD = Path(__file__).resolve().parents[2] / "packaging" / "systemd"
SERVICE = SYSTEMD / "ollamad.service"
EXPOSURE_MAX = 20
"""Tenths: what `systemd-analyze security` may find at most; Ollama's own unit has 92."""
NEWER_THAN_252 = {
    "DelegateSubgroup",
    "FileDescriptorStorePreserve",
    "ImportCredential",
    "RestartMaxDelaySec",
    "RestartMode",
    "RestartSteps",
    "notify-reload",
}
"""Words that systemd 252 ignores with a complaint, or mistakes."""


def directives() -> dict[str, list[str]]:
    """Every directive of the unit, in all sections, with its values in order."""
    found: dict[str, list[str]] = {}
    for line in SERVICE.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, separator, value = line.partition("=")
            assert separator, line
            found.setdefault(name, []).append(value)
    return found


def entries(name: str) -> list[list[str]]:
    lines = (SYSTEMD / name).read_text().splitlines()
    return [line.split() for line in lines if not line.startswith("#")]


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on a copy of the unit whose program exists on this machine."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    unit = folder / SERVICE.name
    text = SERVICE.read_text().replace(directives()["ExecStart"][0], "/bin/true")
    unit.write_text(text)
    return subprocess.run(
        [program, *arguments, str(unit)], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_unit_has_three_sections() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read(SERVICE)

    assert parser.sections() == ["Unit", "Service", "Install"]


def test_the_service_starts_the_packaged_daemon_and_waits_until_it_is_ready() -> None:
    unit = directives()

    assert unit["ExecStart"] == ["/usr/lib/ollamad/venv/bin/ollamad serve"]
    assert unit["Type"] == ["notify"]
    assert unit["NotifyAccess"] == ["main"]


def test_a_stop_lets_answers_finish() -> None:
    """With control-group, the runners would get SIGTERM in the middle of their answers."""
    unit = directives()

    assert unit["KillMode"] == ["mixed"]
    assert int(unit["TimeoutStopSec"][0]) > 30


def test_nothing_is_named_that_is_not_shipped() -> None:
    unit = directives()

    assert not {"Sockets", "Requires", "Also", "FileDescriptorStoreMax"} & set(unit)
    assert {path.suffix for path in SYSTEMD.iterdir()} == {".service", ".sysusers", ".tmpfiles"}


def test_runners_can_have_control_groups_of_their_own() -> None:
    """ProtectControlGroups=yes makes the delegated part read-only as well."""
    unit = directives()

    assert set(unit["Delegate"][0].split()) == set(cgroup.WANTED)
    assert unit["ProtectControlGroups"] == ["no"]
    assert unit["OOMPolicy"] == ["continue"]


def test_the_unit_uses_nothing_newer_than_systemd_252() -> None:
    words = set(directives()) | {value for values in directives().values() for value in values}

    assert not words & NEWER_THAN_252


def test_the_runtime_folder_of_a_control_socket_stays_roots() -> None:
    """systemd gives everything in a RuntimeDirectory to the service's user."""
    assert directives()["RuntimeDirectory"] == ["ollamad/private"]
    assert ["d", "/run/ollamad", "0755", "root", "root", "-"] in entries("ollamad.tmpfiles")


def test_the_user_and_groups_of_the_unit_are_created() -> None:
    unit, created = directives(), entries("ollamad.sysusers")

    assert [kind for kind, name, *_ in created if name == unit["User"][0]] == ["u"]
    assert unit["Group"] == unit["User"]
    groups = {name for kind, name, *_ in created if kind == "g"}
    assert set(unit["SupplementaryGroups"][0].split()) == groups


def test_the_state_folder_belongs_to_the_service_alone() -> None:
    unit = directives()
    user, mode = unit["User"][0], unit["StateDirectoryMode"][0]

    assert unit["StateDirectory"][0].split()[0] == "ollamad"
    assert ["d", "/var/lib/ollamad", mode, user, user, "-"] in entries("ollamad.tmpfiles")


def test_systemd_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    result = analyze(tmp_path, "verify", "--man=no")

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_sandbox_is_as_tight_as_promised(tmp_path: Path) -> None:
    result = analyze(tmp_path, "security", "--offline=true", f"--threshold={EXPOSURE_MAX}")

    assert result.returncode == 0, result.stdout[-400:]
