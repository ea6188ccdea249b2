"""What one request may hold: each limit is met, and named by the error that it ends in."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from ollamad.config import HttpConfig
from ollamad.errors import InvalidBody
from ollamad.http.decode import decode_body
from ollamad.http.ollama.wire import (
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    RerankRequest,
)

TWO = HttpConfig(
    messages_max=2,
    images_max=2,
    tools_max=2,
    stops_max=2,
    inputs_max=2,
    documents_max=2,
    json_depth_max=16,
)


def message(**fields: object) -> dict[str, object]:
    return {"role": "user", "content": "hi", **fields}


@pytest.mark.parametrize(
    ("kind", "body", "what"),
    [
        (ChatRequest, {"messages": [message()] * 3}, "messages: 3 are too many, 2 are taken"),
        (ChatRequest, {"tools": [{}] * 3}, "tools: 3 are too many, 2 are taken (http.tools_max)"),
        (ChatRequest, {"messages": [message(images=["", ""]), message(images=[""])]}, "images: 3"),
        (GenerateRequest, {"images": ["x"] * 3}, "images: 3 are too many"),
        (GenerateRequest, {"options": {"stop": ["a"] * 3}}, "options.stop: 3 are too many"),
        (
            EmbedRequest,
            {"input": ["a"] * 3},
            "input: 3 are too many, 2 are taken (http.inputs_max)",
        ),
        (RerankRequest, {"documents": ["a"] * 3}, "(http.documents_max)"),
    ],
)
def test_one_more_than_may_be_is_refused_by_the_name_of_its_limit(
    kind: type[msgspec.Struct], body: dict[str, Any], what: str
) -> None:
    with pytest.raises(InvalidBody) as caught:
        decode_body(msgspec.json.encode(body), kind, TWO)

    assert what in caught.value.message


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (
            ChatRequest,
            {"messages": [message(images=["", ""])] * 1 + [message()], "tools": [{}] * 2},
        ),
        (GenerateRequest, {"options": {"stop": ["a"] * 2}, "images": ["x"] * 2}),
        (EmbedRequest, {"input": "a text of more letters than there may be texts"}),
        (RerankRequest, {"documents": ["a"] * 2}),
    ],
)
def test_as_many_as_may_be_are_taken(kind: type[msgspec.Struct], body: dict[str, Any]) -> None:
    assert isinstance(decode_body(msgspec.json.encode(body), kind, TWO), kind)


@pytest.mark.parametrize("inner", ["[%s]", '{"a":%s}'])
def test_a_value_may_be_nested_as_deep_as_it_may_and_no_deeper(inner: str) -> None:
    def nested(n_levels: int) -> bytes:
        value = "0"
        for _ in range(n_levels - 1):
            value = inner % value
        return b'{"format":' + value.encode() + b"}"

    decode_body(nested(16), ChatRequest, TWO)
    with pytest.raises(InvalidBody, match=r"16 levels are taken \(http.json_depth_max\)"):
        decode_body(nested(17), ChatRequest, TWO)


def test_a_text_full_of_brackets_is_not_deep() -> None:
    body = {"prompt": "[{" * 1000, "options": {"a": [[] for _ in range(100)]}}

    assert decode_body(msgspec.json.encode(body), GenerateRequest, TWO).prompt == "[{" * 1000


def test_each_limit_is_a_setting() -> None:
    names = {field.name for field in dataclasses.fields(HttpConfig)}

    assert {"json_depth_max", "messages_max", "images_max", "tools_max"} <= names
    assert {"stops_max", "inputs_max", "documents_max", "body_bytes_max"} <= names
