"""Answers have Ollama's keys in Ollama's order, and leave out what Ollama leaves out."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.http.ollama import wire
from ollamad.http.ollama.wire import encode, nanoseconds, rfc3339

AT = "2026-08-21T10:00:00.123Z"
MEASURED = {
    "total_duration": 6,
    "load_duration": 5,
    "prompt_eval_count": 4,
    "prompt_eval_duration": 3,
    "eval_count": 2,
    "eval_duration": 1,
}


def keys(answer: msgspec.Struct) -> list[str]:
    return list(json.loads(encode(answer)))


def details(**more: int) -> wire.Details:
    return wire.Details(
        parent_model="",
        format="gguf",
        family="llama",
        families=["llama"],
        parameter_size="8.0B",
        quantization_level="Q4_0",
        **more,
    )


# Generate and chat


def test_a_generate_load_answer_is_byte_for_byte_ollama_s() -> None:
    answer = wire.GenerateResponse(
        model="llama3", created_at=AT, response="", done=True, done_reason="load"
    )

    assert encode(answer) == (
        b'{"model":"llama3","created_at":"2026-08-21T10:00:00.123Z","response":"","done":true,'
        b'"done_reason":"load"}'
    )


def test_a_chat_load_answer_is_byte_for_byte_ollama_s() -> None:
    answer = wire.ChatResponse(
        model="m",
        created_at=AT,
        message=wire.AnswerMessage(role="assistant", content=""),
        done=True,
        done_reason="load",
    )

    assert encode(answer) == (
        b'{"model":"m","created_at":"2026-08-21T10:00:00.123Z",'
        b'"message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}'
    )


def test_a_line_in_the_middle_of_an_answer_has_no_measures() -> None:
    generated = wire.GenerateResponse(model="m", created_at=AT, response="a", done=False)
    said = wire.ChatResponse(
        model="m",
        created_at=AT,
        message=wire.AnswerMessage(role="assistant", content="a"),
        done=False,
    )

    assert keys(generated) == ["model", "created_at", "response", "done"]
    assert keys(said) == ["model", "created_at", "message", "done"]


def test_the_keys_of_a_complete_generate_answer_are_in_order() -> None:
    answer = wire.GenerateResponse(
        model="m",
        created_at=AT,
        response="a",
        thinking="b",
        done=True,
        done_reason="stop",
        context=[1],
        debug_info=wire.DebugInfo(rendered_template="x"),
        logprobs=[wire.LogprobEntry(token="a", logprob=-0.5)],
        **MEASURED,  # type: ignore[arg-type] # Numbers, whichever the other fields are.
    )

    assert keys(answer) == [
        *("model", "created_at", "response", "thinking", "done", "done_reason", "context"),
        *MEASURED,
        *("_debug_info", "logprobs"),
    ]


def test_the_keys_of_a_complete_chat_answer_are_in_order() -> None:
    answer = wire.ChatResponse(
        model="m",
        created_at=AT,
        message=wire.AnswerMessage(role="assistant", content="a", thinking="b"),
        done=True,
        done_reason="stop",
        debug_info=wire.DebugInfo(rendered_template="x"),
        logprobs=[wire.LogprobEntry(token="a", logprob=-0.5)],
        **MEASURED,  # type: ignore[arg-type] # Numbers, whichever the other fields are.
    )

    assert keys(answer) == [
        *("model", "created_at", "message", "done", "done_reason", "_debug_info", "logprobs"),
        *MEASURED,
    ]
    assert keys(answer.message) == ["role", "content", "thinking"]


def test_a_tool_call_names_its_place_before_its_function_and_always_has_arguments() -> None:
    call = wire.ToolCall(id="call_ab12cd34", function=wire.Function(index=0, name="now"))

    assert encode(wire.AnswerMessage(role="assistant", content="", tool_calls=[call])) == (
        b'{"role":"assistant","content":"","tool_calls":[{"id":"call_ab12cd34",'
        b'"function":{"index":0,"name":"now","arguments":{}}}]}'
    )


def test_logprobs_leave_out_what_is_empty() -> None:
    top = wire.LogprobEntry(token="Hi", logprob=-0.01, bytes=[72, 105])
    entry = wire.LogprobEntry(token="Hi", logprob=-0.01, bytes=[72, 105], top_logprobs=[top])

    assert encode(entry) == (
        b'{"token":"Hi","logprob":-0.01,"bytes":[72,105],'
        b'"top_logprobs":[{"token":"Hi","logprob":-0.01,"bytes":[72,105]}]}'
    )
    assert encode(wire.LogprobEntry(token="", logprob=0.0)) == b'{"token":"","logprob":0.0}'


def test_the_rendered_prompt_counts_images_only_when_there_are_some() -> None:
    assert keys(wire.DebugInfo(rendered_template="")) == ["rendered_template"]
    assert keys(wire.DebugInfo(rendered_template="", image_count=1)) == [
        "rendered_template",
        "image_count",
    ]


# Models


def test_a_listed_model_is_byte_for_byte_ollama_s() -> None:
    listed = wire.ListedModel(
        name="llama3:latest",
        model="llama3:latest",
        modified_at="2026-08-20T09:00:00.5+02:00",
        size=4661224676,
        digest="365c",
        details=details(context_length=8192, embedding_length=4096),
        capabilities=["completion", "tools"],
    )

    assert encode(wire.TagsResponse(models=[listed])) == (
        b'{"models":[{"name":"llama3:latest","model":"llama3:latest",'
        b'"modified_at":"2026-08-20T09:00:00.5+02:00","size":4661224676,"digest":"365c",'
        b'"details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],'
        b'"parameter_size":"8.0B","quantization_level":"Q4_0",'
        b'"context_length":8192,"embedding_length":4096},"capabilities":["completion","tools"]}]}'
    )


def test_empty_lists_of_models_are_there() -> None:
    assert encode(wire.TagsResponse(models=[])) == b'{"models":[]}'
    assert encode(wire.PsResponse(models=[])) == b'{"models":[]}'


def test_unknown_families_are_null() -> None:
    unknown = msgspec.structs.replace(details(), families=None)

    assert json.loads(encode(unknown))["families"] is None


def test_a_running_model_says_zero_when_none_of_it_is_on_a_gpu() -> None:
    running = wire.RunningModel(
        name="a:latest",
        model="a:latest",
        size=0,
        digest="",
        details=details(),
        expires_at=AT,
        size_vram=0,
        context_length=4096,
    )

    assert keys(running) == [
        *("name", "model", "size", "digest", "details", "expires_at", "size_vram"),
        "context_length",
    ]
    assert keys(running.details)[-1] == "quantization_level"


def test_the_keys_of_show_are_in_order() -> None:
    least = wire.ShowResponse(modelfile="", details=details(), model_info={}, modified_at=AT)
    most = wire.ShowResponse(
        license="l",
        modelfile="m",
        parameters="p",
        template="t",
        system="s",
        details=details(),
        messages=[wire.ShowMessage("user", "x")],
        model_info={"general.architecture": "llama"},
        tensors=[wire.TensorEntry("a", "F16", [1, 2])],
        capabilities=["completion"],
        modified_at=AT,
        requires="0.1",
    )

    assert keys(least) == ["modelfile", "details", "model_info", "modified_at"]
    assert keys(most) == [
        *("license", "modelfile", "parameters", "template", "system", "details", "messages"),
        *("model_info", "tensors", "capabilities", "modified_at", "requires"),
    ]


def test_progress_leaves_out_what_is_not_known() -> None:
    assert encode(wire.StatusLine(status="success")) == b'{"status":"success"}'
    assert keys(wire.StatusLine(status="a", digest="b", total=2, completed=1)) == [
        *("status", "digest", "total", "completed"),
    ]


# Escapes


def test_characters_that_end_a_script_are_escaped() -> None:
    text = "<a href='x'>&\u2028\u2029 é 😀"

    data = encode(wire.StatusLine(status=text))

    assert data == (
        rb'{"status":"\u003ca href=' + rb"'x'" + rb'\u003e\u0026\u2028\u2029 ' + "é 😀".encode()
        + b'"}'
    )  # fmt: skip
    assert json.loads(data) == {"status": text}


@given(st.text())
def test_escaping_changes_no_text(text: str) -> None:
    data = encode(wire.StatusLine(status=text))

    assert json.loads(data) == {"status": text}
    assert not any(mark in data.decode() for mark in "<>&\u2028\u2029\n")


# Times


@pytest.mark.parametrize(
    ("microsecond", "text"),
    [
        (0, "2026-08-21T18:48:22Z"),
        (123456, "2026-08-21T18:48:22.123456Z"),
        (500000, "2026-08-21T18:48:22.5Z"),
        (100, "2026-08-21T18:48:22.0001Z"),
    ],
)
def test_a_time_in_utc_ends_with_z_and_has_no_trailing_zeros(microsecond: int, text: str) -> None:
    assert rfc3339(datetime(2026, 8, 21, 18, 48, 22, microsecond, tzinfo=UTC)) == text


@pytest.mark.parametrize(
    ("offset", "text"),
    [
        (timedelta(hours=2), "+02:00"),
        (timedelta(hours=5, minutes=45), "+05:45"),
        (-timedelta(hours=3, minutes=30), "-03:30"),
        (timedelta(0), "Z"),
    ],
)
def test_a_local_time_has_its_offset(offset: timedelta, text: str) -> None:
    moment = datetime(2026, 8, 20, 9, 0, 0, 500000, tzinfo=timezone(offset))

    assert rfc3339(moment) == f"2026-08-20T09:00:00.5{text}"


_ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(min_value=datetime(1970, 1, 1), timezones=_ZONES))
def test_a_time_reads_back_as_the_same_moment(moment: datetime) -> None:
    assert datetime.fromisoformat(rfc3339(moment)) == moment


@pytest.mark.parametrize(
    ("seconds", "ns"), [(0.0, 0), (1.5, 1_500_000_000), (4.883583458, 4_883_583_458), (3e-10, 0)]
)
def test_durations_are_whole_nanoseconds(seconds: float, ns: int) -> None:
    assert nanoseconds(seconds) == ns
    assert isinstance(nanoseconds(seconds), int)


# Lines of a stream

NOON = datetime(2026, 8, 21, 12, 0, 0, 500, tzinfo=UTC)


@given(
    model=st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    text=st.text(st.characters(codec="utf-8")),
)
def test_a_line_by_pattern_is_what_encoding_its_object_makes(model: str, text: str) -> None:
    def an_answer(created_at: str, response: str) -> wire.GenerateResponse:
        return wire.GenerateResponse(
            model=model, created_at=created_at, response=response, done=False
        )

    pattern = wire.LinePattern(an_answer(wire.LinePattern.TIME, wire.LinePattern.TEXT))

    assert pattern.line(NOON, text) == encode(an_answer(rfc3339(NOON), text)) + b"\n"


def test_a_pattern_finds_its_places_in_a_message_too() -> None:
    def an_answer(created_at: str, content: str) -> wire.ChatResponse:
        message = wire.AnswerMessage(role="assistant", content=content)
        return wire.ChatResponse(model="m", created_at=created_at, message=message, done=False)

    pattern = wire.LinePattern(an_answer(wire.LinePattern.TIME, wire.LinePattern.TEXT))

    assert pattern.line(NOON, "<b>") == encode(an_answer(rfc3339(NOON), "<b>")) + b"\n"


@given(
    moments=st.lists(
        st.builds(
            lambda base, micro: base.replace(microsecond=micro),
            st.datetimes(timezones=st.just(UTC)),
            st.sampled_from([0, 1, 120000, 999999]),
        )
    )
)
def test_stamps_write_every_time_as_it_is_written_alone(moments: list[datetime]) -> None:
    stamps = wire.Stamps()
    for moment in moments:
        for again in (moment, moment.replace(microsecond=5)):
            assert stamps.text(again) == rfc3339(again)
