from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ollamactl.cli import ALIASES, cli
from ollamad import __version__
from tests.unit.ollamactl.conftest import Ctl
from tests.unit.ollamactl.fakedaemon import FakeDaemon, ok

NOBODY = "127.0.0.1:1"
"""An address where nothing listens."""


def test_help_lists_the_commands_in_the_order_of_use(ctl: Ctl) -> None:
    result = ctl("-h")

    listed = result.stdout.partition("Commands:")[2].split("\n\n")[0]
    assert [line.split()[0] for line in listed.split("\n") if line.strip()] == [
        "serve", "run", "stop", "list", "ps", "show", "create", "cp", "rm", "bench", "help",
    ]  # fmt: skip
    assert (result.exit_code, ctl().stdout, ctl("help").stdout) == (0, result.stdout, result.stdout)


@pytest.mark.parametrize("name", [*cli.commands, *ALIASES])
def test_every_command_has_a_page_with_examples(ctl: Ctl, name: str) -> None:
    page = ctl(name, "-h")

    assert page.exit_code == 0
    assert page.stdout.startswith(f"Usage: ollamactl {name} ")
    assert "Exit Status:" in page.stdout
    assert "Examples:" in page.stdout or name == "help"
    assert ctl("help", name).stdout.split()[3:] == page.stdout.split()[3:]


def test_an_unknown_command_gets_suggestions(ctl: Ctl) -> None:
    result = ctl("shwo", "m")

    assert result.exit_code == 1
    assert result.stderr == (
        'Error: unknown command "shwo" for "ollamactl"\n\nDid you mean this?\n\tshow\n\n'
    )
    assert ctl("zzz").stderr == 'Error: unknown command "zzz" for "ollamactl"\n'
    assert ctl("help", "zzz").exit_code == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["cp", "a"], "Error: Missing argument 'DESTINATION'."),
        (["rm"], "Error: Missing argument 'MODEL...'."),
        (["list", "a", "b"], "Error: Got unexpected extra argument (b)"),
        (["list", "--foo"], "Error: No such option '--foo'"),
        (["--foo"], "Error: No such option '--foo'"),
    ],
)
def test_wrong_usage_is_an_error_with_code_1_and_a_hint(
    ctl: Ctl, args: list[str], message: str
) -> None:
    result = ctl(*args)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(message.rstrip("."))
    assert "-h' for help." in result.stderr


def test_the_version_is_the_daemons(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("GET", "/api/version", ok({"version": "0.33.0", "ollamad": __version__}))
    assert ctl("--version").stdout == f"ollamad version is {__version__}\n"

    daemon.on("GET", "/api/version", ok({"version": "9.9"}))
    assert ctl("-v").stdout == (
        f"ollamad version is 9.9\nWarning: client version is {__version__}\n"
    )


def test_the_version_without_a_daemon_is_a_warning_and_no_error(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", NOBODY)
    result = ctl("--version")

    assert result.exit_code == 0
    assert result.stdout == (
        "Warning: could not connect to a running ollamad\n"
        f"Warning: client version is {__version__}\n"
    )


@pytest.mark.parametrize("args", [["list"], ["ps"], ["show", "m"], ["run", "m", "x"], ["rm", "m"]])
def test_without_a_daemon_every_command_says_how_to_start_it(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", NOBODY)
    result = ctl(*args)

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: could not connect to ollamad at http://127.0.0.1:1, "
        "run 'ollamad serve' (or 'ollamactl serve') to start it\n"
    )


def test_a_bad_port_in_the_address_is_a_warning(
    daemon: FakeDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:none")

    assert ctl("list").stderr.startswith('Warning: OLLAMA_HOST: invalid port "none", using 11434\n')


def test_serve_becomes_the_daemon_with_all_arguments(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, argv: became.append([path, *argv]))
    ctl("serve", "--config", "x.toml", "-d")
    ctl("start")

    common = [sys.executable, sys.executable, "-P", "-m", "ollamad", "serve"]
    assert became == [[*common, "--config", "x.toml", "-d"], common]


def test_a_reader_that_has_left_ends_the_program_quietly(daemon: FakeDaemon) -> None:
    daemon.on("GET", "/api/tags", ok({"models": []}))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ollamactl", "list"],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)

    assert (done.returncode, done.stderr) == (1, b"")


def test_a_full_disk_is_an_error(daemon: FakeDaemon) -> None:
    daemon.on("GET", "/api/tags", ok({"models": []}))
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m ollamactl list > /dev/full"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_standard_streams_are_no_crash(daemon: FakeDaemon) -> None:
    daemon.on("GET", "/api/tags", ok({"models": []}))
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m ollamactl list <&- >&- 2>&-"], timeout=60, check=False
    )

    assert done.returncode == 0
    assert [request.path for request in daemon.requests] == ["/api/tags"]
