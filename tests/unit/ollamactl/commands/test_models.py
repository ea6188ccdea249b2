from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.ollamactl.conftest import Ctl
from tests.unit.ollamactl.fakedaemon import Answer, FakeDaemon, Request, ok, refused


def ago(**span: float) -> str:
    """A time as the daemon writes it, in its own zone and with nanoseconds."""
    return (datetime.now(UTC) - timedelta(**span)).strftime("%Y-%m-%dT%H:%M:%S.%f123+00:00")


def the_tags() -> dict[str, list[dict[str, object]]]:
    return {
        "models": [
            {
                "name": "llama3.2:latest",
                "modified_at": ago(days=2, minutes=5),
                "size": 1_960_000_000,
                "digest": "a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72",
                "details": {"families": None},
            },
            {
                "name": "gpt-oss:cloud",
                "modified_at": ago(minutes=5, seconds=30),
                "size": 384,
                "digest": "0123456789abcdef",
                "remote_model": "gpt-oss",
            },
        ]
    }


def test_list_prints_ollamas_table(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("GET", "/api/tags", ok(the_tags()))
    result = ctl("list")

    assert result.stdout == (
        "NAME               ID              SIZE      MODIFIED         \n"
        "llama3.2:latest    a80c4f17acd5    2.0 GB    2 days ago       \n"
        "gpt-oss:cloud      0123456789ab    -         5 minutes ago    \n"
    )


def test_list_takes_a_prefix_in_any_case(daemon: FakeDaemon, ctl: Ctl) -> None:
    tags = the_tags()
    daemon.on("GET", "/api/tags", ok(tags))

    assert [line.split()[0] for line in ctl("ls", "GPT").stdout.splitlines()] == [
        "NAME",
        "gpt-oss:cloud",
    ]
    assert json.loads(ctl("list", "GPT", "--json").stdout) == {"models": tags["models"][1:]}


def test_an_empty_store_is_the_header_alone(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("GET", "/api/tags", ok({"models": None}))

    assert ctl("list").stdout == "NAME    ID    SIZE    MODIFIED    \n"
    assert json.loads(ctl("list", "--json").stdout) == {"models": []}


@pytest.mark.parametrize("models", [[{"name": 1}], [3], {"a": 1}, [{"name": "x", "size": "y"}]])
def test_an_answer_of_another_shape_is_an_error_and_no_traceback(
    daemon: FakeDaemon, ctl: Ctl, models: object
) -> None:
    daemon.on("GET", "/api/tags", ok({"models": models}))
    result = ctl("list")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: unexpected answer")


def test_show_prints_one_field_as_scripts_expect_it(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on(
        "POST",
        "/api/show",
        ok({"license": "L", "modelfile": "FROM x", "template": "T", "system": "S"}),
    )

    assert ctl("show", "m", "--license").stdout == "L\n"
    assert ctl("show", "m", "--modelfile").stdout == "FROM x\n"
    assert ctl("show", "m", "--parameters").stdout == "\n"
    assert ctl("show", "m", "--template").stdout == "T"
    assert ctl("show", "m", "--system").stdout == "S"
    assert json.loads(ctl("show", "m", "--system", "--json").stdout) == {"system": "S"}


def test_show_asks_verbosely_only_when_told_to(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("POST", "/api/show", ok({"details": {"family": "llama"}}))

    assert "architecture    llama" in ctl("show", "m").stdout
    assert json.loads(ctl("show", "m", "-v", "--json").stdout) == {"details": {"family": "llama"}}
    assert [request.json["verbose"] for request in daemon.requests] == [False, True]


def test_show_takes_one_field_at_a_time(daemon: FakeDaemon, ctl: Ctl) -> None:
    result = ctl("show", "m", "--license", "--system")

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: only one of '--license', '--modelfile', '--parameters', '--system', "
        "or '--template' can be specified\n"
    )


def test_show_of_an_unknown_model_says_the_daemons_words(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("POST", "/api/show", refused(404, "model 'x:latest' not found"))
    result = ctl("show", "x")

    assert (result.exit_code, result.stderr) == (1, "Error: model 'x:latest' not found\n")


def test_cp_says_what_it_did(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("POST", "/api/copy", Answer())

    assert ctl("cp", "a", "b").stdout == "copied 'a' to 'b'\n"
    assert json.loads(ctl("cp", "a", "b", "--json").stdout) == {"copied": "a", "to": "b"}
    assert daemon.requests[0].json == {"source": "a", "destination": "b"}


def test_cp_of_an_unknown_model_fails(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("POST", "/api/copy", refused(404, 'model "a" not found'))

    assert ctl("cp", "a", "b").stderr == 'Error: model "a" not found\n'


def test_rm_unloads_and_deletes_each_until_one_fails(daemon: FakeDaemon, ctl: Ctl) -> None:
    def delete(request: Request) -> Answer:
        model = request.json["model"]
        return refused(404, "model 'bad' not found") if model == "bad" else Answer()

    daemon.on("POST", "/api/generate", ok({"done": True, "done_reason": "unload"}))
    daemon.on("DELETE", "/api/delete", delete)
    result = ctl("rm", "a", "bad", "c")

    assert result.exit_code == 1
    assert result.stdout == "deleted 'a'\n"
    assert result.stderr == "Error: model 'bad' not found\n"
    assert [request.json["model"] for request in daemon.sent("/api/delete")] == ["a", "bad"]
    assert daemon.sent("/api/generate")[0].json["keep_alive"] == 0


def test_rm_goes_on_when_unloading_fails(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("POST", "/api/generate", refused(500, "stuck"))
    daemon.on("DELETE", "/api/delete", Answer())
    result = ctl("rm", "a", "--json")

    assert (result.exit_code, result.stdout) == (0, '{"deleted": "a"}\n')
    assert result.stderr == "Warning: unable to stop model 'a': stuck\n"
