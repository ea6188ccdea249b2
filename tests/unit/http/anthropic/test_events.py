"""A streamed answer's events come in Anthropic's order, whatever a model says in which order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.errors import ProtocolBroken
from ollamad.http.answer.parts import Call, Parts
from ollamad.http.anthropic.answers import SIGNATURE
from ollamad.http.anthropic.events import TRANSITIONS, Comes, EventWriter, Open, advance
from ollamad.http.anthropic.wire import MessageAnswer, Stopped, Usage

CALL = Call(id="call_1", name="weather", arguments={"city": "Paris <3"})
DONE = Stopped(stop_reason="end_turn", stop_sequence=None)
USED = Usage(input_tokens=3, output_tokens=2)


def events(data: bytes) -> list[Any]:
    """Return the events of *data*, whose names are their types."""
    read = []
    assert data.endswith(b"\n\n") or not data
    for block in data.decode().split("\n\n")[:-1]:
        name, body = block.split("\n")
        value = json.loads(body.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        read.append(value)
    return read


def kinds(data: bytes) -> list[str]:
    """Return each event's type, of deltas and blocks with theirs."""
    return [
        ":".join(
            str(part)
            for part in (
                event["type"].removeprefix("content_block_"),
                event.get("index"),
                event.get("content_block", event.get("delta", {})).get("type"),
            )
            if part is not None
        )
        for event in events(data)
    ]


def test_every_state_has_a_row_and_nothing_comes_after_the_end() -> None:
    assert set(TRANSITIONS) == set(Open)
    assert all(set(row) in (set(), set(Comes)) for row in TRANSITIONS.values())
    with pytest.raises(ProtocolBroken, match="over cannot take text"):
        advance(Open.OVER, Comes.TEXT)


def test_an_answer_begins_with_its_message_and_a_ping() -> None:
    message = MessageAnswer(
        id="msg_1", model="tiny", content=[], stop_reason=None, stop_sequence=None, usage=USED
    )

    begin, ping = events(EventWriter().begin(message))

    assert begin == {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "tiny",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": 3,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 2,
            },
        },
    }
    assert ping == {"type": "ping"}


def test_text_is_one_block_of_many_deltas() -> None:
    writer = EventWriter()
    data = writer.text("Hello ") + writer.text("<b>\n") + writer.end(DONE, USED)

    assert events(data) == [
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "Hello "},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "<b>\n"},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {
                "input_tokens": 3,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 2,
            },
        },
        {"type": "message_stop"},
    ]


def test_thinking_is_signed_when_something_else_comes() -> None:
    writer = EventWriter()
    data = writer.add(Parts(thinking="hm")) + writer.add(Parts(text="Yes."))

    assert kinds(data) == [
        "start:0:thinking",
        "delta:0:thinking_delta",
        "delta:0:signature_delta",
        "stop:0",
        "start:1:text",
        "delta:1:text_delta",
    ]
    assert events(data)[0]["content_block"] == {
        "type": "thinking",
        "thinking": "",
        "signature": "",
    }
    assert events(data)[2]["delta"]["signature"] == SIGNATURE


def test_thinking_that_is_to_be_left_out_is_a_signed_block_of_nothing() -> None:
    writer = EventWriter(shows_thinking=False)
    data = writer.add(Parts(thinking="hm")) + writer.add(Parts(thinking="hm", text="Yes."))

    assert kinds(data)[:3] == ["start:0:thinking", "delta:0:signature_delta", "stop:0"]
    assert b"hm" not in data


def test_thinking_after_text_is_a_block_of_its_own() -> None:
    writer = EventWriter()
    data = writer.text("a") + writer.add(Parts(thinking="b")) + writer.text("c")

    assert [kind for kind in kinds(data) if kind.startswith("start")] == [
        "start:0:text",
        "start:1:thinking",
        "start:2:text",
    ]


def test_calls_are_whole_blocks_whose_arguments_are_json() -> None:
    writer = EventWriter()
    data = writer.add(Parts(text="I look.", calls=(CALL, CALL))) + writer.end(DONE, USED)

    assert kinds(data)[2:-2] == [
        "stop:0",
        "start:1:tool_use",
        "delta:1:input_json_delta",
        "stop:1",
        "start:2:tool_use",
        "delta:2:input_json_delta",
        "stop:2",
    ]
    start, delta = events(data)[3:5]
    assert start["content_block"] == {
        "type": "tool_use",
        "id": "call_1",
        "name": "weather",
        "input": {},
    }
    assert json.loads(delta["delta"]["partial_json"]) == {"city": "Paris <3"}
    assert writer.n_calls == 2


def test_white_space_before_a_call_is_no_block_and_before_text_is_its_beginning() -> None:
    writer = EventWriter()
    data = writer.add(Parts(thinking="hm", text="\n")) + writer.add(Parts(text="\n", calls=(CALL,)))
    text = EventWriter()
    data_of_text = text.text("\n") + text.text(" a")

    assert "start:1:tool_use" in kinds(data)
    assert [event.get("delta") for event in events(data_of_text)] == [
        None,
        {"type": "text_delta", "text": "\n a"},
    ]


def test_an_answer_of_nothing_has_no_block() -> None:
    writer = EventWriter()

    assert kinds(writer.text(" ") + writer.end(DONE, USED)) == ["message_delta", "message_stop"]


@given(
    st.lists(
        st.builds(
            Parts,
            thinking=st.text(max_size=3),
            text=st.text(max_size=3),
            calls=st.sampled_from([(), (CALL,), (CALL, CALL)]),
        ),
        max_size=8,
    )
)
def test_blocks_never_overlap_and_nothing_is_lost(answer: list[Parts]) -> None:
    writer = EventWriter()
    data = b"".join(writer.add(parts) for parts in answer) + writer.end(DONE, USED)

    open_index, n_blocks = None, 0
    said: dict[str, str] = {"text": "", "thinking": "", "partial_json": ""}
    for event in events(data)[:-2]:
        match event["type"]:
            case "content_block_start":
                assert open_index is None
                assert event["index"] == n_blocks
                open_index, n_blocks = event["index"], n_blocks + 1
            case "content_block_delta":
                assert event["index"] == open_index
                for key in said.keys() & event["delta"].keys():
                    said[key] += event["delta"][key]
            case "content_block_stop":
                assert event["index"] == open_index
                open_index = None
    assert open_index is None
    assert said["thinking"] == "".join(parts.thinking for parts in answer)
    assert "".join(said["text"].split()) == "".join("".join(p.text for p in answer).split())
    assert said["partial_json"].count("Paris") == sum(len(parts.calls) for parts in answer)
