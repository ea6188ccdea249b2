from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ollamactl.commands import run
from ollamactl.http import Client
from tests.unit.ollamactl.conftest import Ctl
from tests.unit.ollamactl.fakedaemon import FakeDaemon, ok, refused, stream

LAST: dict[str, Any] = {
    "response": "",
    "done": True,
    "done_reason": "stop",
    "total_duration": 4_883_583_458,
    "load_duration": 1_334_875,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 342_546_000,
    "eval_count": 282,
    "eval_duration": 4_535_599_000,
}


@pytest.fixture
def talking(daemon: FakeDaemon) -> FakeDaemon:
    daemon.on("POST", "/api/show", ok({"capabilities": ["completion"], "model_info": {}}))
    daemon.on("POST", "/api/generate", stream({"response": "Hel"}, {"response": "lo."}, LAST))
    return daemon


def test_an_answer_is_printed_with_two_newlines_after_it(talking: FakeDaemon, ctl: Ctl) -> None:
    result = ctl("run", "m", "Say", "hello")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello.\n\n", "")
    assert talking.sent("/api/generate")[0].json == {
        "model": "m",
        "options": {},
        "prompt": "Say hello",
        "stream": True,
    }


def test_piped_text_comes_in_front_of_the_arguments(talking: FakeDaemon, ctl: Ctl) -> None:
    ctl("run", "m", "summarise", "this", stdin="the file\n")

    assert talking.sent("/api/generate")[0].json["prompt"] == "the file\n summarise this"


def test_piped_text_alone_is_the_prompt(talking: FakeDaemon, ctl: Ctl) -> None:
    ctl("run", "m", stdin=b"caf\xe9 ?")

    assert talking.sent("/api/generate")[0].json["prompt"] == "caf\ufffd ?"


def test_an_empty_prompt_loads_and_prints_nothing(talking: FakeDaemon, ctl: Ctl) -> None:
    talking.on("POST", "/api/generate", stream({"done": True, "done_reason": "load"}))
    result = ctl("run", "m", "--keepalive", "1h")

    assert (result.exit_code, result.stdout) == (0, "")
    assert talking.sent("/api/generate")[0].json["keep_alive"] == "1h"


def test_too_much_on_standard_input_is_refused(
    talking: FakeDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "STDIN_BYTES_MAX", 4)
    result = ctl("run", "m", stdin="12345")

    assert result.exit_code == 1
    assert "standard input is longer" in result.stderr


def test_the_statistics_are_ollamas(talking: FakeDaemon, ctl: Ctl) -> None:
    result = ctl("run", "m", "hi", "--verbose")

    assert (
        result.stderr
        == """\
total duration:       4.883583458s
load duration:        1.334875ms
prompt eval count:    26 token(s)
prompt eval duration: 342.546ms
prompt eval rate:     75.90 tokens/s
eval count:           282 token(s)
eval duration:        4.535599s
eval rate:            62.17 tokens/s
"""
    )


def test_numbers_that_are_zero_are_left_out(talking: FakeDaemon, ctl: Ctl) -> None:
    talking.on("POST", "/api/generate", stream({"done": True, "eval_count": 1}))

    assert ctl("run", "m", "hi", "--verbose").stderr == "eval count:           1 token(s)\n"


def test_json_prints_every_piece_as_received(talking: FakeDaemon, ctl: Ctl) -> None:
    result = ctl("run", "m", "hi", "--json")

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines == [{"response": "Hel"}, {"response": "lo."}, LAST]


def test_an_error_in_the_middle_ends_with_1_after_what_was_printed(
    talking: FakeDaemon, ctl: Ctl
) -> None:
    talking.on("POST", "/api/generate", stream({"response": "Hel"}, {"error": "runner crashed"}))
    result = ctl("run", "m", "hi")

    assert result.exit_code == 1
    assert result.stdout == "Hel"
    assert result.stderr == "Error: runner crashed\n"


def test_control_c_stops_an_answer_and_is_no_failure(
    talking: FakeDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Iterator[dict[str, str]]:
        yield {"response": "Hel"}
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "stream", interrupted)
    result = ctl("run", "m", "hi", "--verbose")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hel", "")


def test_control_c_before_the_answer_ends_with_130(
    talking: FakeDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "ask", interrupted)

    assert ctl("run", "m", "hi").exit_code == 130


def test_a_refused_generation_is_told_with_its_status(talking: FakeDaemon, ctl: Ctl) -> None:
    talking.on("POST", "/api/generate", refused(400, '"m" does not support thinking'))
    result = ctl("run", "m", "hi", "--think")

    assert result.exit_code == 1
    assert result.stderr == 'Error: 400 Bad Request: "m" does not support thinking\n'


def test_an_unknown_model_is_told_with_what_is_stored(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("POST", "/api/show", refused(404, "model 'foo:latest' not found"))
    daemon.on("GET", "/api/tags", ok({"models": [{"name": "a:latest"}, {"name": "b:1"}]}))
    result = ctl("run", "foo", "hi")

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: model 'foo' is not in the store; stored: a:latest, b:1 (see 'ollamactl list')\n"
    )
    assert daemon.sent("/api/pull") == []


def test_an_unknown_model_in_an_empty_store_says_how_to_add_one(
    daemon: FakeDaemon, ctl: Ctl
) -> None:
    daemon.on("POST", "/api/show", refused(404, "model 'foo:latest' not found"))
    daemon.on("GET", "/api/tags", ok({"models": []}))

    assert "add one with 'ollamactl create'" in ctl("run", "foo", "hi").stderr


THINKING = (
    {"response": "", "thinking": "Hm"},
    {"response": "", "thinking": "m."},
    {"response": "42"},
    {"response": "", "done": True},
)


def test_thinking_is_captioned_and_asked_for_where_the_model_can(
    talking: FakeDaemon, ctl: Ctl
) -> None:
    talking.on("POST", "/api/show", ok({"capabilities": ["completion", "thinking"]}))
    talking.on("POST", "/api/generate", stream(*THINKING))
    result = ctl("run", "m", "why?")

    assert result.stdout == "Thinking...\nHmm.\n...done thinking.\n\n42\n\n"
    assert talking.sent("/api/generate")[0].json["think"] is True


def test_hidden_thinking_is_not_printed(talking: FakeDaemon, ctl: Ctl) -> None:
    talking.on("POST", "/api/generate", stream(*THINKING))

    assert ctl("run", "m", "why?", "--think", "--hidethinking").stdout == "42\n\n"


@pytest.mark.parametrize(
    ("flag", "sent", "prompt"),
    [
        (("--think", "high"), True, "high why"),
        (("--think=high",), "high", "why"),
        (("--think=false",), False, "why"),
        (("--", "--think"), None, "--think why"),
    ],
)
def test_think_takes_a_value_only_after_an_equals_sign(
    talking: FakeDaemon, ctl: Ctl, flag: tuple[str, ...], sent: object, prompt: str
) -> None:
    ctl("run", "m", *flag, "why")

    body = talking.sent("/api/generate")[0].json
    assert (body.get("think"), body["prompt"]) == (sent, prompt)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--think=x"],
            'invalid value for --think: "x" (must be true, false, high, medium, low, or max)',
        ),
        (["--keepalive", "5"], 'time: missing unit in duration "5"'),
        (["--keepalive", "x"], 'time: invalid duration "x"'),
        (
            ["--format", "xml"],
            'invalid value for --format: "xml" (must be json, or a JSON Schema object)',
        ),
        (
            ["--format", "[" * 100_000],
            'invalid value for --format: "[[',
        ),
    ],
)
def test_bad_values_of_flags_are_refused_before_anything_is_sent(
    daemon: FakeDaemon, ctl: Ctl, flags: list[str], message: str
) -> None:
    result = ctl("run", "m", "hi", *flags)

    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {message}")
    assert daemon.requests == []


@pytest.mark.parametrize(
    ("flag", "sent"),
    [("json", "json"), ('{"type": "object"}', {"type": "object"}), ("", None)],
)
def test_the_format_is_a_word_or_a_schema(
    talking: FakeDaemon, ctl: Ctl, flag: str, sent: object
) -> None:
    ctl("run", "m", "hi", "--format", flag)

    assert talking.sent("/api/generate")[0].json.get("format") == sent


def test_an_embedding_model_prints_its_vector(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.on("POST", "/api/show", ok({"capabilities": ["embedding"]}))
    daemon.on("POST", "/api/embed", ok({"embeddings": [[0.25, -1.0]]}))

    assert ctl("run", "m", "words").stdout == "[0.25, -1.0]\n"
    assert "require input text" in ctl("run", "m").stderr
