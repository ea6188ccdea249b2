"""Tools of a response's request: functions, groups of them, and which must be called."""

from __future__ import annotations

from typing import Any

import pytest

from ollamad.errors import InvalidBody
from ollamad.http.chatting import ToolMode
from ollamad.http.openai.responsestools import Tools, tools_of_response

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tells it.",
    "parameters": SCHEMA,
    "strict": True,
}
TIME = {"type": "function", "name": "time"}
HOME = {"type": "namespace", "name": "home", "description": "Things.", "tools": [TIME]}


def tools(given: list[Any], choice: Any = "auto", *, is_parallel: bool = True) -> Tools:
    return tools_of_response(given, choice, is_parallel=is_parallel)


def names(read: Tools) -> list[str]:
    return [tool["function"]["name"] for tool in read.functions]


def test_a_flat_function_becomes_the_form_that_all_chats_share() -> None:
    read = tools([WEATHER, TIME])

    assert read.functions[0] == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells it.",
            "parameters": SCHEMA,
            "strict": True,
        },
    }
    assert read.functions[1]["function"] == {"name": "time", "parameters": {"type": "object"}}


def test_functions_of_a_namespace_have_its_name_in_front_and_find_back() -> None:
    read = tools([WEATHER, HOME, {**TIME, "name": "a.b"}])

    assert names(read) == ["weather", "home.time", "a.b"]
    assert read.split_name("home.time") == ("home", "time")
    assert read.split_name("a.b") == ("", "a.b")


@pytest.mark.parametrize(
    ("choice", "mode", "name"),
    [
        ("auto", ToolMode.AUTO, ""),
        ("none", ToolMode.NONE, ""),
        ("required", ToolMode.REQUIRED, ""),
        ({"type": "function", "name": "weather"}, ToolMode.NAMED, "weather"),
        ({"type": "function", "name": "time", "namespace": "home"}, ToolMode.NAMED, "home.time"),
    ],
)
def test_every_choice_is_read(choice: Any, mode: ToolMode, name: str) -> None:
    read = tools([WEATHER, HOME], choice, is_parallel=False)

    assert (read.choice.mode, read.choice.name) == (mode, name)
    assert not read.choice.is_parallel


def test_only_allowed_tools_are_left() -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [TIME]}

    read = tools([WEATHER, TIME], allowed)

    assert names(read) == ["time"]
    assert read.choice.mode is ToolMode.REQUIRED


@pytest.mark.parametrize(
    ("given", "choice", "param", "words"),
    [
        ([{"type": "web_search"}], "auto", "tools[0].type", '"web_search" are not supported'),
        ([TIME, {"type": "mcp"}], "auto", "tools[1].type", '"mcp" are not supported'),
        ([{"name": "x"}], "auto", "tools[0].type", "null are not supported"),
        ([{"type": "function"}], "auto", "tools[0].name", "must be a string"),
        ([TIME, TIME], "auto", "tools[1].name", 'two tools of the name "time"'),
        ([{**TIME, "parameters": 3}], "auto", "tools[0].parameters", "a JSON Schema"),
        ([{**HOME, "tools": 3}], "auto", "tools[0].tools", "must be an array"),
        ([{**HOME, "tools": [3]}], "auto", "tools[0].tools[0]", "must be an object"),
        ([], "required", "tool_choice", "there are no tools"),
        ([TIME], "sometimes", "tool_choice", 'must be "auto"'),
        ([TIME], {"type": "function"}, "tool_choice", 'must be "auto"'),
        ([TIME], {"type": "function", "name": "x"}, "tool_choice.name", 'there is no tool "x"'),
        ([TIME], {"type": "file_search"}, "tool_choice.type", '"file_search" are not supported'),
        (
            [TIME],
            {"type": "allowed_tools", "mode": "auto", "tools": [1]},
            "tool_choice.tools[0]",
            "must be an object",
        ),
        (
            [TIME],
            {"type": "allowed_tools", "mode": "required", "tools": []},
            "tool_choice",
            "there are no tools",
        ),
    ],
)
def test_what_cannot_be_meant_is_named(
    given: list[Any], choice: Any, param: str, words: str
) -> None:
    with pytest.raises(InvalidBody) as caught:
        tools(given, choice)

    assert caught.value.param == param
    assert words in caught.value.message
