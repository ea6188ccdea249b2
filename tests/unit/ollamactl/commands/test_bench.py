from __future__ import annotations

import json
from typing import Any

import pytest

from ollamactl import benchmark
from ollamactl.benchmark import FULL, QUICK, Plan
from ollamactl.commands import bench as command
from tests.unit.ollamactl.conftest import Ctl
from tests.unit.ollamactl.fakedaemon import Answer, FakeDaemon, Request, ok, refused, stream

SMALL = {"name": "small:latest", "size": 100, "size_vram": 0, "context_length": 4096}
LARGE = {"name": "large:latest", "size": 100, "size_vram": 100, "context_length": 8192}


class Runner:
    """Loads and unloads as it is asked, and answers with as many words as are wanted."""

    def __init__(self, daemon: FakeDaemon, *, stays: bool = False) -> None:
        self.loaded: list[dict[str, Any]] = [SMALL]
        self._stays = stays
        daemon.on("GET", "/api/ps", lambda _request: ok({"models": self.loaded}))
        daemon.on("GET", "/api/tags", ok({"models": [SMALL, LARGE]}))
        daemon.on(
            "POST",
            "/api/show",
            ok(
                {
                    "capabilities": ["completion"],
                    "details": {"parameter_size": "135M", "quantization_level": "Q4_1"},
                }
            ),
        )
        daemon.on("POST", "/api/generate", self.generate)

    def generate(self, request: Request) -> Answer:
        body = request.json
        if not body["prompt"]:
            if body.get("keep_alive") != 0:
                self.loaded = [SMALL]
            elif not self._stays:
                self.loaded = []
            return ok({"done": True})
        n_tokens = body["options"]["num_predict"]
        end = {
            "response": "",
            "done": True,
            "prompt_eval_count": len(body["prompt"].split()),
            "prompt_eval_duration": 500_000_000,
            "eval_count": n_tokens,
            "eval_duration": 1_000_000_000,
        }
        return stream(*({"response": " word"} for _ in range(n_tokens)), end)


def generations(daemon: FakeDaemon) -> list[Any]:
    return [each.json for each in daemon.sent("/api/generate") if each.json["prompt"]]


def test_everything_is_measured_and_shown(daemon: FakeDaemon, ctl: Ctl) -> None:
    Runner(daemon)
    result = ctl("bench", "small")

    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "small 135M Q4_1 100% CPU context 4096" in lines
    assert "prefill, 512 tokens 1,024 tokens/s" in lines
    assert "prefill, 1,500 tokens 3,000 tokens/s" in lines
    assert "decode, 1 stream 128 tokens/s" in lines
    assert any(line.startswith("decode, 8 streams") for line in lines)
    assert any(line.startswith("load") and line.endswith("ms") for line in lines)
    assert "reading a prompt of about 1,500 tokens" in result.stderr


def test_no_text_is_sent_twice_and_none_ends_early(daemon: FakeDaemon, ctl: Ctl) -> None:
    Runner(daemon)
    ctl("bench", "small")

    sent = generations(daemon)
    assert len({body["prompt"] for body in sent}) == len(sent)
    assert all(body["raw"] and body["options"]["ignore_eos"] for body in sent)


def test_json_has_the_same_numbers(daemon: FakeDaemon, ctl: Ctl) -> None:
    Runner(daemon)
    document = json.loads(ctl("bench", "--json", "--quick", "small").stdout)

    assert document["model"] == "small"
    assert document["context_length"] == 4096
    assert document["prefill"] == [{"n_tokens": 512, "tokens_per_s": 1024.0}]
    assert document["decode"][0] == {"n_streams": 1, "tokens_per_s": 32.0, "is_cut": False}
    assert [each["n_streams"] for each in document["decode"]] == [1, 4]
    assert document["load_s"] > 0
    assert document["first_token_s"] > 0


def test_a_warm_model_is_not_unloaded(daemon: FakeDaemon, ctl: Ctl) -> None:
    Runner(daemon)
    result = ctl("bench", "--warm", "--quick", "small")

    assert all(each.json.get("keep_alive") != 0 for each in daemon.sent("/api/generate"))
    assert "not measured" in result.stdout


def test_a_model_that_others_use_is_measured_without_its_load(
    daemon: FakeDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "UNLOAD_PATIENCE_S", 0.0)
    Runner(daemon, stays=True)

    assert json.loads(ctl("bench", "--json", "--quick", "small").stdout)["load_s"] is None


def test_a_step_that_takes_too_long_is_broken_off(
    daemon: FakeDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "QUICK", Plan((8,), (2,), 4, step_s=0.0001))
    Runner(daemon)
    document = json.loads(ctl("bench", "--json", "--quick", "small").stdout)

    assert document["prefill"] == [{"n_tokens": 8, "tokens_per_s": None}]
    assert document["decode"][0]["is_cut"]
    assert "broken off" in ctl("bench", "--quick", "small").stdout


def test_the_time_of_a_whole_run_is_bounded() -> None:
    assert QUICK.longest_s < FULL.longest_s <= 10 * 60


@pytest.mark.parametrize(
    ("loaded", "stored", "chosen"),
    [
        ([LARGE], [SMALL, LARGE], "large:latest"),
        ([], [SMALL], "small:latest"),
        ([SMALL, LARGE], [SMALL], "small:latest"),
    ],
)
def test_without_a_name_the_only_one_is_measured(
    daemon: FakeDaemon,
    ctl: Ctl,
    loaded: list[dict[str, Any]],
    stored: list[dict[str, Any]],
    chosen: str,
) -> None:
    runner = Runner(daemon)
    runner.loaded = loaded
    daemon.on("GET", "/api/tags", ok({"models": stored}))
    ctl("bench", "--quick", "--warm")

    assert {body["model"] for body in generations(daemon)} == {chosen}


def test_several_models_are_named_for_the_user_to_choose(daemon: FakeDaemon, ctl: Ctl) -> None:
    runner = Runner(daemon)
    runner.loaded = []
    result = ctl("bench")

    assert result.exit_code == 1
    assert "several models are in the store (small:latest, large:latest)" in result.stderr
    assert "ollamactl bench small:latest" in result.stderr


def test_an_empty_store_has_nothing_to_measure(daemon: FakeDaemon, ctl: Ctl) -> None:
    runner = Runner(daemon)
    runner.loaded = []
    daemon.on("GET", "/api/tags", ok({"models": []}))

    assert "nothing is in the store" in ctl("bench").stderr


def test_a_model_that_writes_no_text_is_refused(daemon: FakeDaemon, ctl: Ctl) -> None:
    Runner(daemon)
    daemon.on("POST", "/api/show", ok({"capabilities": ["embedding"]}))
    result = ctl("bench", "small")

    assert (result.exit_code, generations(daemon)) == (1, [])
    assert "writes no text (embedding)" in result.stderr


def test_a_failing_model_ends_the_command_with_its_reason(daemon: FakeDaemon, ctl: Ctl) -> None:
    runner = Runner(daemon)
    runner.loaded = []
    daemon.on("POST", "/api/generate", refused(500, "out of memory"))
    result = ctl("bench", "small")

    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "Error: out of memory")


def test_the_help_tells_what_the_words_mean(ctl: Ctl) -> None:
    page = ctl("bench", "-h").stdout

    for word in ("LOAD", "FIRST TOKEN", "PREFILL", "DECODE", "--quick", "Examples", "Exit Status"):
        assert word in page
