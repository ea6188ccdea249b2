from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ollamactl.cli import ADMIN_COMMANDS
from ollamad import __version__
from ollamad.adminwire import METHODS
from ollamad.modelinfo import WeightsId
from ollamad.supervisor.bulletin import ENTRIES_KEPT_MAX
from ollamad.supervisor.commands import Note, NoteKind
from ollamad.supervisor.views import CoolingView
from tests.fakes.steering import a_resident, a_waiting
from tests.unit.ollamactl.conftest import Ctl
from tests.unit.ollamactl.fakeadmin import RunningDoor, a_running_door, a_socket_that_says
from tests.wire.adminsite import READER, STRANGER, FakePeers


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    socket = tmp_path / "run" / "admin.sock"
    monkeypatch.setenv("OLLAMAD_ADMIN_SOCKET", str(socket))
    return socket


@pytest.fixture
def door(path: Path) -> Iterator[RunningDoor]:
    with a_running_door(path) as running:
        yield running


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


# Looking


def test_status_tells_how_the_daemon_is_and_what_is_off(door: RunningDoor, ctl: Ctl) -> None:
    assert door.desk is not None
    door.desk.steering.cooling_views = [
        CoolingView(
            weights_id=WeightsId("w"), name="bad:latest", n_failures=3, reason="boom", until=1e12
        )
    ]
    page = lines(ctl("status").stdout)

    assert page[0].startswith(f"ollamad {__version__}, serving for ")
    assert "requests 2 running, 1 waiting" in page
    assert "API 127.0.0.1:11434" in page
    assert "configuration no file" in page
    assert "you may look and change" in page
    assert any(line.startswith("cooling bad:latest, for ") for line in page)
    assert page[-1] == "off landlock: the kernel is too old"


def test_gpus_runners_and_queue_are_tables(door: RunningDoor, ctl: Ctl) -> None:
    assert lines(ctl("gpus").stdout) == [
        "DEVICE NAME HEALTH USED FREE BUSY TEMP POWER HOLDS",
        "host main memory healthy 7.0/24.0 GiB 16.0 GiB - - - llama:8b",
        "GPU 0 NVIDIA A10 healthy 7.0/24.0 GiB 16.0 GiB 50% 61 C 150 W llama:8b",
    ]
    assert lines(ctl("runners").stdout) == [
        "MODEL STATE MEMORY GPU CONTEXT SLOTS USERS TOKENS/S LEAVES",
        "llama:8b ready 5.0 GiB 80% 4096 2/4 2 - in use",
    ]
    assert lines(ctl("queue").stdout) == [
        "PLACE MODEL WAITED PRIORITY CLIENT WAITS FOR",
        "1 qwen:32b 1s 0 127.0.0.1 room",
    ]


def test_a_long_queue_is_listed_in_part(door: RunningDoor, ctl: Ctl) -> None:
    assert door.desk is not None
    door.desk.steering.waiting_views = [a_waiting(n + 1) for n in range(600)]

    assert lines(ctl("queue").stdout)[-1] == "... and 400 more"


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("status", {"version", "state", "features", "tokens_per_s"}),
        ("gpus", {"devices"}),
        ("runners", {"runners"}),
        ("queue", {"total", "waiting"}),
        ("top", {"status", "gpus", "runners", "queue"}),
    ],
)
def test_json_is_what_the_interface_says(
    door: RunningDoor, ctl: Ctl, command: str, keys: set[str]
) -> None:
    assert keys <= set(json.loads(ctl(command, "--json").stdout))


def test_explain_shows_the_verdict_the_arithmetic_and_the_victims(
    door: RunningDoor, ctl: Ctl
) -> None:
    page = lines(ctl("explain", "qwen:8b", "-o", "num_ctx=2048", "--option", "low_vram=x").stderr)
    assert page == ['Error: unknown option "low_vram"']

    page = lines(ctl("explain", "qwen:8b", "-o", "num_ctx=2048").stdout)
    assert page == [
        "qwen:8b: evict",
        "needs 5.0 GiB, free 2.0",
        "llama:8b is idle for 92 s",
        "would have to leave: llama:8b",
        "layers on GPUs: 33",
        "",
        "NEEDS MEMORY",
        "weights 4.0 GiB",
        "kv cache 1.0 GiB",
        "process 1.0 MiB",
        "in all 5.0 GiB",
        "",
        "DEVICE TAKES FREE",
        "GPU-1234 5.0 GiB 2.0 GiB",
        "host 0 B 16.0 GiB",
    ]
    assert door.told == [("explain", "qwen:8b", 2048)]


# Steering


@pytest.mark.parametrize(
    ("arguments", "said", "told"),
    [
        (
            ["evict", "llama:8b"],
            "'llama:8b' leaves when its requests have ended",
            ("evict", "weights of llama:8b", False),
        ),
        (
            ["evict", "--force", "llama:8b"],
            "'llama:8b' leaves now",
            ("evict", "weights of llama:8b", True),
        ),
        (
            ["restart", "llama:8b"],
            "'llama:8b' gets a new runner when its requests have ended",
            ("restart", "weights of llama:8b"),
        ),
        (["reset", "llama:8b"], "'llama:8b' was not cooling", ("reset", "weights of llama:8b")),
        (
            ["pin", "llama:8b"],
            "'llama:8b' stays in memory",
            ("pin", "weights of llama:8b", True),
        ),
        (
            ["unpin", "llama:8b"],
            "'llama:8b' may be unloaded",
            ("pin", "weights of llama:8b", False),
        ),
        (
            ["preload", "qwen:8b", "-o", "num_ctx=1024"],
            "'qwen:8b' is loaded",
            ("preload", "qwen:8b", 1024),
        ),
        (["drain"], "new requests are refused; end this with 'ollamactl resume'", ("drain",)),
        (["resume"], "new requests are taken", ("resume",)),
    ],
)
def test_orders_are_carried_out_and_said(
    door: RunningDoor, ctl: Ctl, arguments: list[str], said: str, told: tuple[object, ...]
) -> None:
    result = ctl(*arguments)
    assert (result.exit_code, result.stdout) == (0, f"{said}\n")
    assert door.told == [told]

    as_json = json.loads(ctl(*arguments, "--json").stdout)
    assert as_json == ({"was_cooling": False} if arguments[0] == "reset" else {})


def test_reload_says_what_changed_and_what_was_wrong(door: RunningDoor, ctl: Ctl) -> None:
    assert ctl("reload").stdout == "changed: log.level\nafter a restart of the daemon: http.port\n"
    assert door.desk is not None
    door.desk.reload_fails = "ollamad.toml:3: unknown section"

    assert ctl("reload").stderr == (
        "Error: the old configuration stays: ollamad.toml:3: unknown section\n"
    )


def test_an_option_is_a_name_and_a_value(door: RunningDoor, ctl: Ctl) -> None:
    assert "write an option as NAME=VALUE" in ctl("preload", "qwen:8b", "-o", "num_ctx").stderr
    assert door.told == []


def test_every_command_answers_to_json_and_takes_a_socket(ctl: Ctl) -> None:
    for command in ADMIN_COMMANDS:
        assert command.name is not None
        page = ctl(command.name, "-h").stdout
        assert "--json" in page
        assert "--socket PATH" in page
        assert "OLLAMAD_ADMIN_SOCKET" in page
    # Three commands share methods with others, and every method has a command.
    assert len(ADMIN_COMMANDS) == len(METHODS) + 1


# Events


def test_events_are_shown_as_they_come_until_the_daemon_ends(path: Path, ctl: Ctl) -> None:
    with a_running_door(path) as door:
        result = []
        reader = threading.Thread(target=lambda: result.append(ctl("events")))
        reader.start()
        door.publish_when_heard(
            Note(NoteKind.LOADING, "loading a", {"model": "a", "fraction": 0.5}),
            Note(NoteKind.LOAD_FAILED, "a failed:\nboom"),
        )
    reader.join(30)

    shown = lines(result[0].stdout)
    assert shown == ["10:00:00 loading loading a 50%", "10:00:00 load_failed a failed: boom"]
    assert "ollamad closed the connection" in result[0].stderr


def test_events_can_be_chosen_and_are_one_object_a_line(path: Path, ctl: Ctl) -> None:
    with a_running_door(path) as door:
        result = []
        arguments = ["events", "--json", "--kind", "ready", "--model", "b"]
        reader = threading.Thread(target=lambda: result.append(ctl(*arguments)))
        reader.start()
        door.publish_when_heard(
            Note(NoteKind.LOADING, "loading b", {"model": "b"}),
            Note(NoteKind.READY, "a is ready", {"model": "a"}),
            Note(NoteKind.READY, "b is ready", {"model": "b"}),
        )
    reader.join(30)

    assert [json.loads(line)["message"] for line in result[0].stdout.splitlines()] == ["b is ready"]


def test_lost_events_are_told(path: Path, ctl: Ctl) -> None:
    with a_running_door(path) as door:
        result = []
        reader = threading.Thread(target=lambda: result.append(ctl("events")))
        reader.start()
        notes = [Note(NoteKind.READY, str(n)) for n in range(ENTRIES_KEPT_MAX + 7)]
        door.publish_when_heard(*notes)
    reader.join(30)

    assert "Warning: 7 events were lost" in result[0].stderr


# What can go wrong


def test_without_a_socket_the_places_are_told_that_were_looked_at(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OLLAMAD_ADMIN_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "x"))
    monkeypatch.setenv("HOME", str(tmp_path / "h"))
    monkeypatch.setattr("ollamad.adminwire.SYSTEM_SOCKET", tmp_path / "s.sock")
    monkeypatch.setattr("ollamad.adminwire.SERVICE_SOCKET", tmp_path / "p.sock")
    result = ctl("status")

    assert result.exit_code == 1
    assert result.stderr.startswith(
        "Error: no admin socket of a running ollamad was found, run 'ollamad serve' to start it"
    )
    for place in ("x/ollamad/admin.sock", "h/.local/state/ollamad/admin.sock", "s.sock", "p.sock"):
        assert f"\n\t{tmp_path}/{place}" in result.stderr


def test_the_socket_is_found_in_the_sessions_folder(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OLLAMAD_ADMIN_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with a_running_door(tmp_path / "ollamad" / "admin.sock"):
        assert ctl("queue").exit_code == 0


def test_a_socket_that_is_not_there_or_not_used_any_more_is_told(
    ctl: Ctl, path: Path, tmp_path: Path
) -> None:
    assert f"there is no admin socket at {tmp_path}/other.sock" in (
        ctl("status", "--socket", str(tmp_path / "other.sock")).stderr
    )
    with a_socket_that_says(path, b""):
        pass

    assert "its daemon is gone" in ctl("status").stderr


def test_who_may_not_is_told_which_group_to_join(ctl: Ctl, path: Path) -> None:
    with a_running_door(path, FakePeers(READER)):
        assert ctl("status").exit_code == 0
        assert ctl("drain").stderr == (
            "Error: permission denied: only root, the daemon's user and members of the group "
            "ollama-admin may change things; join the group ollama-admin: "
            "sudo usermod -aG ollama-admin $USER, then log in again\n"
        )
    with a_running_door(path, FakePeers(STRANGER)):
        assert "join the group ollama: " in ctl("status").stderr


def test_a_model_that_is_not_loaded_or_not_known_is_told(door: RunningDoor, ctl: Ctl) -> None:
    assert ctl("evict", "qwen:8b").stderr == (
        "Error: model 'qwen:8b' is not loaded (see 'ollamactl runners')\n"
    )
    assert ctl("evict", "nobody").stderr == "Error: model 'nobody' not found\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            b'{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"x"}}\0',
            "the daemon does not know Status: it is older than this program, restart it",
        ),
        (
            b'{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"x"}}\0',
            "the daemon does not take x for Status: it is older than this program",
        ),
        (b'{"error":"io.ollamad.Admin.New"}\0', "io.ollamad.Admin.New"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n\0", "is this ollamad?"),
        (b'{"parameters":[1]}\0', "is this ollamad?"),
        (b'{"parameters":{"version":1}}\0', "are both of the same version?"),
        (b"", "ollamad closed the connection"),
        (b'{"param', "ollamad closed the connection"),
    ],
)
def test_answers_that_cannot_be_used_are_explained(
    ctl: Ctl, path: Path, answer: bytes, message: str
) -> None:
    with a_socket_that_says(path, answer):
        result = ctl("status")

    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_answer_without_an_end_is_given_up(ctl: Ctl, path: Path) -> None:
    with a_socket_that_says(path, b"x" * (1 << 20) + b"y"):
        assert "more than 1048576 bytes" in ctl("status").stderr


# top


def test_top_without_a_terminal_is_one_picture(door: RunningDoor, ctl: Ctl) -> None:
    picture = ctl("top").stdout

    assert picture == ctl("top", "--once").stdout
    shown = lines(picture)
    assert shown[0].startswith(f"ollamad {__version__} serving up ")
    assert shown[1].startswith("0.0 tokens/s 2 running, 1 waiting")
    assert "llama:8b ready 5.0 GiB 2/4 3% - in use" in shown
    assert "qwen:32b 1 1s room" in shown
    assert "\x1b" not in picture


def test_names_cannot_write_to_the_terminal(door: RunningDoor, ctl: Ctl) -> None:
    assert door.desk is not None
    door.desk.steering.resident_views = [a_resident("ev\x1b[31mil[red]:x")]
    for command in ("runners", "top"):
        page = ctl(command).stdout
        assert "\x1b" not in page
        assert "il[red]:x" in page
