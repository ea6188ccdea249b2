"""The same answer is read the same way from either server."""

from __future__ import annotations

import json

import pytest

from bench.peers.clients import Answer, LoadFailed
from bench.peers.dialects import Completion, Dialect, LlamaServerDialect, OllamaDialect


def an_answer(*lines: object, prefix: bytes = b"") -> Answer:
    return Answer(
        started_s=10.0,
        status=200,
        lines=[prefix + json.dumps(line).encode() for line in lines],
        times_s=[11.0 + n for n in range(len(lines))],
    )


OURS = an_answer(
    {"response": "a", "done": False},
    {"response": "b", "done": False},
    {"response": "c", "done": False},
    {
        "response": "",
        "done": True,
        "eval_count": 3,
        "prompt_eval_count": 9,
        "eval_duration": 2_000_000_000,
    },
)
THEIRS = an_answer(
    {"content": "a", "stop": False},
    {"content": "b", "stop": False},
    {"content": "c", "stop": False},
    {
        "content": "",
        "stop": True,
        "tokens_predicted": 3,
        "tokens_evaluated": 9,
        "timings": {"predicted_ms": 2000.0},
    },
    prefix=b"data: ",
)


@pytest.mark.parametrize(
    ("dialect", "answer"), [(OllamaDialect(), OURS), (LlamaServerDialect(), THEIRS)]
)
def test_an_answer_is_read_from_its_pieces_and_its_end(dialect: Dialect, answer: Answer) -> None:
    read = dialect.read_completion(answer)

    assert read == Completion(
        text="abc",
        n_tokens=3,
        n_prompt_tokens=9,
        started_s=10.0,
        arrivals_s=(11.0, 12.0, 13.0),
        server_decode_s=2.0,
    )
    assert (read.first_s, read.last_s, read.decode_per_s) == (1.0, 3.0, 1.0)
    assert read.gaps_s(after_s=12.5) == [1.0]
    assert read.gaps_across_s(after_s=12.5, until_s=12.6) == [1.0]
    assert read.gaps_s(after_s=12.5, until_s=12.6) == []


@pytest.mark.parametrize("dialect", [OllamaDialect(), LlamaServerDialect()])
def test_an_error_in_the_stream_is_no_answer(dialect: Dialect) -> None:
    with pytest.raises(LoadFailed, match="out of memory"):
        dialect.read_completion(an_answer({"error": "out of memory"}))
    with pytest.raises(LoadFailed, match="without text"):
        dialect.read_completion(an_answer({"done": True}))
    with pytest.raises(LoadFailed, match="without anything"):
        dialect.read_completion(Answer(0.0))


def test_both_are_asked_for_the_same_text_without_chance() -> None:
    ours = json.loads(OllamaDialect().completion(" x", 7).partition(b"\r\n\r\n")[2])
    theirs = json.loads(LlamaServerDialect().completion(" x", 7).partition(b"\r\n\r\n")[2])

    assert (ours["prompt"], ours["raw"]) == (theirs["prompt"], True)
    assert ours["options"]["num_predict"] == theirs["n_predict"] == 7
    assert ours["options"]["temperature"] == theirs["temperature"] == 0
    assert ours["options"]["ignore_eos"]
    assert theirs["ignore_eos"]


def test_an_object_may_end_by_itself() -> None:
    schema = {"type": "object"}
    ours = json.loads(OllamaDialect().completion("", 7, schema).partition(b"\r\n\r\n")[2])
    theirs = json.loads(LlamaServerDialect().completion("", 7, schema).partition(b"\r\n\r\n")[2])

    assert ours["format"] == theirs["json_schema"] == schema
    assert "ignore_eos" not in ours["options"]
    assert "ignore_eos" not in theirs
