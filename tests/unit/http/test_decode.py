"""Bodies are read as leniently as Ollama reads them, and what is wrong is said in plain words."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollamad.errors import InvalidBody
from ollamad.http.decode import decode_body
from ollamad.http.ollama.wire import ChatRequest, CreateRequest, GenerateRequest


def chat(body: str | bytes) -> ChatRequest:
    return decode_body(body.encode() if isinstance(body, str) else body, ChatRequest)


def refusal(body: str | bytes, kind: type[msgspec.Struct] = ChatRequest) -> str:
    with pytest.raises(InvalidBody) as caught:
        decode_body(body.encode() if isinstance(body, str) else body, kind)
    return caught.value.message


# What is let pass


@pytest.mark.parametrize("key", ["model", "Model", "MODEL", "mOdEl"])
def test_a_field_s_name_matches_whatever_its_case(key: str) -> None:
    assert chat(f'{{"{key}": "m"}}').model == "m"


def test_names_inside_messages_match_whatever_their_case() -> None:
    body = '{"Messages":[{"Role":"user","CONTENT":"x","Tool_Calls":[{"Function":{"Name":"f"}}]}]}'

    (message,) = chat(body).messages

    assert (message.role, message.content) == ("user", "x")
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.name == "f"


def test_keys_that_are_a_user_s_own_keep_their_case() -> None:
    body = '{"options": {"Num_Ctx": 1}, "format": {"Model": null}, "tools": [{"Role": null}]}'

    request = chat(body)

    assert request.options == {"Num_Ctx": 1}
    assert request.format == {"Model": None}
    assert request.tools == [{"Role": None}]


@pytest.mark.parametrize(
    "body",
    ['{"model":"a","Model":"b"}', '{"Model":"b","model":"a"}', '{"MODEL":null,"model":"a"}'],
)
def test_the_exact_spelling_wins_over_another(body: str) -> None:
    assert chat(body).model == "a"


def test_a_null_of_the_exact_spelling_does_not_hide_another() -> None:
    assert chat('{"model":null,"Model":"b"}').model == "b"


def test_the_last_of_duplicate_keys_wins() -> None:
    assert chat('{"model":"a","model":"b"}').model == "b"
    assert chat('{"Model":"a","MODEL":"b"}').model == "b"


@pytest.mark.parametrize("field", ChatRequest.__struct_fields__)
def test_null_leaves_any_field_at_its_default(field: str) -> None:
    name = {"debug_render_only": "_debug_render_only"}.get(field, field)

    assert chat(json.dumps({name: None})) == ChatRequest()


def test_null_inside_a_message_is_the_same_as_leaving_it_out() -> None:
    body = '{"messages":[{"role":"user","content":null,"images":null,"tool_calls":null}]}'

    (message,) = chat(body).messages

    assert (message.content, message.images, message.tool_calls) == (None, None, None)


def test_a_tool_call_without_arguments_has_empty_ones() -> None:
    body = (
        '{"messages":[{"role":"assistant","tool_calls":'
        '[{"function":{"name":"now"}},{"function":{"name":"now","arguments":null,"index":null}}]}]}'
    )

    shown = msgspec.to_builtins(chat(body).messages[0])

    assert shown["tool_calls"] == [{"function": {"name": "now", "arguments": {}}}] * 2


def test_unknown_fields_are_ignored() -> None:
    request = chat('{"model":"m","width":640,"messages":[{"role":"user","extra":{"a":[1]}}]}')

    assert request.model == "m"


@pytest.mark.parametrize(
    "rest", [b" ", b"\n\n", b"x", b'{"model":"b"}', b"]]]", b"\xff\xfe", b"\x00", b' {"a"']
)
def test_what_follows_the_first_value_is_not_read(rest: bytes) -> None:
    assert chat(b' {"model":"a"}' + rest).model == "a"


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (r"\ud83d", "\ufffd"),
        (r"\ude00", "\ufffd"),
        (r"a\uD83Db", "a\ufffdb"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\\ud83d", r"\ud83d"),
        (r"\ud83d \\\ud83d", "\ufffd \\\ufffd"),
    ],
)
def test_half_an_emoji_is_read_as_a_replacement_character(escaped: str, text: str) -> None:
    assert chat(f'{{"model":"{escaped}"}}').model == text
    assert chat(f'{{"model":"{escaped}"}} rest').model == text


# What is refused


def test_an_empty_body_is_missing() -> None:
    assert refusal(b"") == "missing request body"


@pytest.mark.parametrize("body", [" ", "{", '{"model"', '{"model": "a', '{"model":"a",'])
def test_a_body_that_is_cut_off_is_said_to_end_too_early(body: str) -> None:
    assert refusal(body) == "the JSON ends too early"


@pytest.mark.parametrize(
    ("body", "what"),
    [("[]", "an array"), ("1", "a number"), ('"x"', "a string"), ("true", "a boolean")],
)
def test_a_body_that_is_no_object_is_refused(body: str, what: str) -> None:
    assert refusal(body) == f"the body must be a JSON object, not {what}"
    assert refusal("null") == "the body must be a JSON object, not null"


def test_a_malformed_body_is_refused_with_the_place() -> None:
    assert refusal("{model:1}") == "the JSON is malformed: object keys must be strings (byte 1)"


def test_text_that_is_not_utf_8_is_refused() -> None:
    assert refusal(b'{"model":"\xff"}') == "the JSON is not UTF-8 text"


@pytest.mark.parametrize("number", ["1e400", "9" * 5000, "-" + "9" * 5000])
def test_a_number_beyond_all_range_is_refused(number: str) -> None:
    assert refusal(f'{{"options":{{"seed":{number}}}}}') == (
        "the JSON has a number that is out of range"
    )


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_deeply_nested_body_is_refused(opening: str) -> None:
    assert (
        refusal(opening * 100_000)
        == "the JSON is nested too deeply: 128 levels are taken (http.json_depth_max)"
    )
    assert (
        refusal('{"tools":' + opening * 100_000)
        == "the JSON is nested too deeply: 128 levels are taken (http.json_depth_max)"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"model":1}', "model: expected string, got integer"),
        ('{"messages":{}}', "messages: expected array, got object"),
        ('{"messages":[1]}', "messages[0]: expected object, got integer"),
        ('{"messages":[{"role":1}]}', "messages[0].role: expected string, got integer"),
        ('{"Messages":[{"Role":1}]}', "messages[0].role: expected string, got integer"),
        (
            '{"messages":[{"role":"user"},{"role":"user","content":[{"type":"text"}]}]}',
            "messages[1].content: expected string, got array",
        ),
        ('{"messages":[{"content":"x"}]}', "messages[0]: the field role is missing"),
        ('{"messages":[{"role":null}]}', "messages[0]: the field role is missing"),
        (
            '{"messages":[{"role":"a","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}]}',
            "messages[0].tool_calls[0].function.arguments: expected object, got string",
        ),
        ('{"stream":"yes"}', "stream: expected boolean, got string"),
        ('{"top_logprobs":1.5}', "top_logprobs: expected integer, got number"),
        ('{"options":[]}', "options: expected object, got array"),
        ('{"tools":["f"]}', "tools[0]: expected object, got string"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(body: str, message: str) -> None:
    assert refusal(body) == message


def test_a_place_in_a_map_is_named_as_far_as_it_is_known() -> None:
    assert refusal('{"files":{"a":1}}', CreateRequest) == (
        "files[...]: expected string, got integer"
    )


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("-1", "context[1]: expected integer >= 0"),
        ("2147483648", "context[1]: expected integer <= 2147483647"),
        ("99999999999999999999999", "context[1]: expected integer <= 2147483647"),
        ('"a"', "context[1]: expected integer, got string"),
    ],
)
def test_a_token_that_no_model_has_is_refused_before_a_runner_sees_it(
    token: str, message: str
) -> None:
    assert refusal(f'{{"context":[1,{token}]}}', GenerateRequest) == message


def test_python_s_own_spelling_of_a_field_is_no_name_of_it() -> None:
    assert decode_body(b'{"from_":"x"}', CreateRequest).from_ == ""
    assert decode_body(b'{"FROM":"x"}', CreateRequest).from_ == "x"


# Anything at all

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["model", "Messages", "role", "content", "tool_calls", "options", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def told(data: bytes) -> str | None:
    """Return what is wrong with *data*, if anything; any other exception fails the test."""
    try:
        chat(data)
    except InvalidBody as exc:
        return exc.message
    return None


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=64) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_request_or_an_invalid_body(data: bytes) -> None:
    message = told(data)

    assert message is None or (message and "$" not in message and "`" not in message)


@settings(max_examples=50, deadline=None)
@given(_JSON, st.text(max_size=10))
def test_what_was_encoded_is_read_back(options: object, model: str) -> None:
    request = chat(json.dumps({"model": model, "options": {"a": options}}))

    assert (request.model, request.options) == (model, {"a": options})
