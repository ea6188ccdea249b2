"""Pieces of an answer as lines: log-probabilities come at once, also while text is held back."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from ollamad.http.answer.format import format_of
from ollamad.http.chatting import ChatStream
from ollamad.http.doors import Doors
from ollamad.http.ollama import chat, generate
from ollamad.http.ollama.wire import ChatRequest, GenerateRequest
from ollamad.runners.mailbox import Mailbox
from ollamad.runners.protocol import (
    Delta,
    Finished,
    FinishReason,
    StepLogprob,
    Timings,
    TokenLogprob,
)
from ollamad.supervisor.leases import Lease
from tests.unit.http.models import FixedClock
from tests.wire.templates import THINKING

Answering = chat._Answer | generate._Answer


class OnlyClock:
    """Doors of which only the clock is used."""

    clock = FixedClock()


class NoWait:
    """A lease that was there at once."""

    waited_s = 0.0


def an_answer(door: str, *, thinks: bool = True) -> Answering:
    parser = format_of(THINKING).parser("user: hi assistant: ") if thinks else None
    stream = ChatStream(Mailbox(), parser)
    doors, lease = cast("Doors", OnlyClock()), cast("Lease", NoWait())
    if door == "chat":
        return chat._Answer(doors, ChatRequest(model="m"), lease, stream, 0.0, truncation=None)
    body = GenerateRequest(model="m")
    return generate._Answer(doors, body, lease, stream, 0.0, truncation=None)


def a_delta(text: str, *, logprob: bool = False) -> Delta:
    steps = (StepLogprob(TokenLogprob(7, text.encode(), -0.5)),) if logprob else ()
    return Delta(1, 0, text, (7,), steps)


def read(line: bytes) -> dict[str, Any]:
    value = json.loads(line)
    assert isinstance(value, dict)
    parts: dict[str, Any] = value.get("message", value)
    return {**parts, "logprobs": value.get("logprobs", [])}


@pytest.mark.parametrize("door", ["chat", "generate"])
def test_what_may_become_a_mark_is_held_back_without_a_line(door: str) -> None:
    answer = an_answer(door)

    assert answer.piece(a_delta("<th")) == b""
    line = read(answer.piece(a_delta("ink>hm")))
    assert line["thinking"] == "hm"


@pytest.mark.parametrize("door", ["chat", "generate"])
def test_log_probabilities_come_while_text_is_held_back(door: str) -> None:
    answer = an_answer(door)
    line = read(answer.piece(a_delta("<th", logprob=True)))

    assert line.get("content", line.get("response")) == ""
    assert [entry["token"] for entry in line["logprobs"]] == ["<th"]


@pytest.mark.parametrize("door", ["chat", "generate"])
@pytest.mark.parametrize("thinks", [True, False])
def test_a_piece_without_text_is_no_line(door: str, thinks: bool) -> None:
    assert an_answer(door, thinks=thinks).piece(a_delta("")) == b""


@pytest.mark.parametrize("door", ["chat", "generate"])
async def test_what_is_held_back_comes_with_the_end(door: str) -> None:
    answer = an_answer(door)
    answer.piece(a_delta("<think>hm</think>Yes <"))
    end = Finished(id=1, reason=FinishReason.STOP, timings=Timings())
    rest, last = answer.finish(end).splitlines()

    assert read(rest).get("content", read(rest).get("response")) == " <"
    assert json.loads(last)["done"] is True
