"""The events of a response: their order, their numbers, and that clients' types take them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import openai.types.responses as theirs
import pydantic
import pytest

from ollamad.http.answer.parts import Call, Parts
from ollamad.http.openai.errors import ErrorDetail
from ollamad.http.openai.responsesevents import ResponseEvents
from ollamad.http.openai.responsesoutput import Nobody, Output
from ollamad.http.openai.responseswire import ResponseObject, TextDeltaEvent
from ollamad.runners.protocol import StepLogprob, TokenLogprob

CALL = Call(id="call_1", name="weather", arguments={"city": "Oslo"})
STEP = StepLogprob(TokenLogprob(7, b"Hi", -0.5), (TokenLogprob(7, b"Hi", -0.5),))
TYPES: pydantic.TypeAdapter[theirs.ResponseStreamEvent] = pydantic.TypeAdapter(
    theirs.ResponseStreamEvent
)

THINKING = [
    "response.output_item.added",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_text.delta",
    "response.reasoning_summary_text.done",
    "response.reasoning_summary_part.done",
    "response.output_item.done",
]
TEXT = [
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]
CALLING = [
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
]


def whole_name(name: str) -> tuple[str, str]:
    return "", name


def a_response(status: str = "in_progress") -> ResponseObject:
    return ResponseObject(id="resp_1", created_at=1, status=status, model="m")


def read(data: bytes) -> list[Any]:
    """Return events, whose names stand before them as well."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        name, _, body = block.partition("\n")
        one = json.loads(body.removeprefix("data: "))
        assert name == f"event: {one['type']}"
        found.append(one)
    return found


def told(*parts: Parts, **options: Any) -> tuple[list[Any], Output]:
    events = ResponseEvents()
    output = Output(events, whole_name, **options)
    for one in parts:
        output.feed(one)
    output.close("completed")
    return read(events.take()), output


def kinds(events: list[Any]) -> list[str]:
    return [event["type"] for event in events]


def test_each_item_goes_from_its_added_to_its_done() -> None:
    events, output = told(Parts(thinking="Hm."), Parts(text="I look."), Parts(calls=(CALL,)))

    assert kinds(events) == [*THINKING, *TEXT, *CALLING]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["output_index"] for event in events] == [0] * 6 + [1] * 6 + [2] * 4
    assert [item.__struct_config__.tag for item in output.items] == [
        "reasoning", "message", "function_call",
    ]  # fmt: skip


def test_one_piece_may_end_one_item_and_begin_the_next() -> None:
    together, _ = told(Parts(thinking="Hm.", text="I look.", calls=(CALL,)))

    assert kinds(together) == [*THINKING, *TEXT, *CALLING]


def test_text_after_a_call_is_a_message_of_its_own() -> None:
    """Ollama loses it."""
    events, output = told(Parts(text="a", calls=(CALL,)), Parts(text="b"), Parts(text="c"))

    assert kinds(events)[-7:] == [*TEXT[:3], TEXT[2], *TEXT[3:]]
    assert [event["output_index"] for event in events[-7:]] == [2] * 7
    message = msgspec.to_builtins(output.items[2])
    assert message["content"][0]["text"] == "bc"
    assert message["status"] == "completed"


def test_what_is_done_has_all_of_it() -> None:
    events, _ = told(Parts(thinking="H"), Parts(thinking="m"), Parts(calls=(CALL,)))

    thought, called = events[6]["item"], events[-1]["item"]
    assert thought["summary"] == [{"type": "summary_text", "text": "Hm"}]
    assert thought["encrypted_content"] is None
    assert called["call_id"] == "call_1"
    assert called["arguments"] == '{"city":"Oslo"}'
    assert events[-3]["delta"] == called["arguments"]
    assert "namespace" not in called


def test_thinking_comes_a_second_time_for_who_asks() -> None:
    events, _ = told(Parts(thinking="Hm"), shows_encrypted=True)

    assert events[-1]["item"]["encrypted_content"] == "Hm"


def test_a_plain_delta_has_the_bytes_of_its_type() -> None:
    """It is put together without encoding an object."""
    events = ResponseEvents()
    output = Output(events, whole_name)
    output.feed(Parts(text="first"))
    events.take()

    output.feed(Parts(text='"é\n\u2028'))

    written = events.take()
    (event,) = read(written)
    typed = msgspec.convert(event, TextDeltaEvent)
    assert typed.delta == '"é\n\u2028'
    assert written == (
        b"event: response.output_text.delta\ndata: " + msgspec.json.encode(typed) + b"\n\n"
    )


def test_log_probabilities_are_those_of_messages_and_wait_for_text() -> None:
    events = ResponseEvents()
    output = Output(events, whole_name)
    output.feed(Parts(thinking="x"), [STEP])
    output.feed(Parts(), [STEP])
    output.feed(Parts(text="HiHi"), [STEP])
    output.close("completed")

    found = read(events.take())
    (delta,) = [event for event in found if event["type"].endswith("output_text.delta")]
    (done,) = [event for event in found if event["type"].endswith("output_text.done")]
    top = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    assert delta["logprobs"] == [{**top, "top_logprobs": [top]}] * 2
    assert done["logprobs"] == delta["logprobs"]
    assert found[-1]["item"]["content"][0]["logprobs"] == delta["logprobs"]


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_a_response_begins_with_two_events_and_ends_with_its_status(status: str) -> None:
    events = ResponseEvents()
    events.began(a_response())
    events.ended(a_response(status))

    found = read(events.take())
    assert kinds(found) == ["response.created", "response.in_progress", f"response.{status}"]
    assert found[0]["response"]["output"] == []


def test_a_failure_is_told_as_a_response_and_as_an_error() -> None:
    """Clients of OpenAI's library raise for the second only."""
    events = ResponseEvents()
    detail = ErrorDetail("it broke", "api_error", None, None)
    events.failed(a_response("failed"), detail)

    failed, error = read(events.take())
    assert failed["response"]["error"] == {"code": "server_error", "message": "it broke"}
    assert error["type"] == "error"
    assert error["message"] == error["error"]["message"] == "it broke"
    assert error["code"] == "server_error"


def test_openais_own_types_take_every_event() -> None:
    events = ResponseEvents()
    output = Output(events, whole_name)
    events.began(a_response())
    output.feed(Parts(thinking="Hm"))
    output.feed(Parts(text="Hi"), [STEP])
    output.feed(Parts(text="!"))
    output.feed(Parts(calls=(CALL,)))
    events.ended(msgspec.structs.replace(a_response("completed"), output=output.items))
    events.failed(a_response("failed"), ErrorDetail("x", "api_error", None, "server_error"))

    for event in read(events.take()):
        TYPES.validate_python(event, strict=True)


def test_who_wants_the_whole_only_gets_the_same_items() -> None:
    output = Output(Nobody(), whole_name)
    output.feed(Parts(thinking="Hm", text="Hi", calls=(CALL,)))
    output.close("incomplete")

    _, streamed = told(Parts(thinking="Hm"), Parts(text="Hi"), Parts(calls=(CALL,)))

    def without_ids(items: Any) -> list[Any]:
        return [{**item, "id": ""} for item in msgspec.to_builtins(items)]

    assert without_ids(output.items) == without_ids(streamed.items)
