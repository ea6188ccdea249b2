from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from tests.unit.ollamactl.conftest import Ctl
from tests.unit.ollamactl.fakedaemon import FakeDaemon, ok, refused


def the_running() -> dict[str, object]:
    now = datetime.now(UTC)
    return {
        "models": [
            {
                "name": "llama3.2:latest",
                "digest": "a80c4f17acd55265",
                "size": 3_500_000_000,
                "size_vram": 2_625_000_000,
                "context_length": 4096,
                "expires_at": (now + timedelta(minutes=4, seconds=30)).isoformat(),
            },
            {
                "name": "all-minilm:latest",
                "digest": "1b226e2802db",
                "size": 45_000_000,
                "size_vram": 45_000_000,
                "context_length": 256,
                "expires_at": "2318-11-05T00:00:00.1+02:00",
            },
            {
                "name": "old:latest",
                "digest": "2b226e2802dbaaa",
                "size": 13_400_000_000,
                "size_vram": 0,
                "context_length": 256,
                "expires_at": (now - timedelta(seconds=1)).isoformat(),
            },
        ]
    }


def test_ps_prints_ollamas_table(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("GET", "/api/ps", ok(the_running()))

    # The last column ends with its padding; its words are tested beside `relative_time`.
    assert [
        line.rstrip().replace("utes from now", "") for line in ctl("ps").stdout.splitlines()
    ] == [
        "NAME                 ID              SIZE      PROCESSOR          CONTEXT    UNTIL",
        "llama3.2:latest      a80c4f17acd5    3.5 GB    25%/75% CPU/GPU    4096       4 min",
        "all-minilm:latest    1b226e2802db    45 MB     100% GPU           256        Forever",
        "old:latest           2b226e2802db    13 GB     100% CPU           256        Stopping...",
    ]


def test_ps_takes_a_prefix_and_minds_its_case(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("GET", "/api/ps", ok(the_running()))

    assert len(ctl("ps", "LLAMA").stdout.splitlines()) == 1
    assert len(ctl("ps", "llama").stdout.splitlines()) == 2
    assert len(json.loads(ctl("ps", "all", "--json").stdout)["models"]) == 1


def test_nothing_running_is_the_header_alone(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("GET", "/api/ps", ok({"models": []}))

    assert ctl("ps").stdout == "NAME    ID    SIZE    PROCESSOR    CONTEXT    UNTIL    \n"


def test_stop_unloads_without_a_word(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("POST", "/api/show", ok({}))
    daemon.on("POST", "/api/generate", ok({"done": True}))
    result = ctl("stop", "m")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert daemon.sent("/api/generate")[0].json == {
        "model": "m",
        "prompt": "",
        "keep_alive": 0,
        "stream": False,
    }
    assert json.loads(ctl("stop", "m", "--json").stdout) == {"stopped": "m"}


def test_stop_of_an_unknown_model_has_its_own_words(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("POST", "/api/show", refused(404, "model 'x:latest' not found"))
    result = ctl("stop", "x")

    assert (result.exit_code, result.stderr) == (1, 'Error: couldn\'t find model "x" to stop\n')
