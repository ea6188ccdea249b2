"""OpenAI's messages and tools in the form that all chats share. Pure.

What cannot be shown to a model is refused by its place: `messages[2].content[0]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ollamad.http.chatting import ToolChoice, ToolMode
from ollamad.http.openai.errors import refused
from ollamad.http.openai.wire import AskedCall, AskedMessage
from ollamad.http.prompt.gotemplate.chat import Think
from ollamad.http.prompt.prompt import Message

_EFFORTS: Final[Mapping[str, Think]] = {
    "": None,
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
}
_MODES: Final[Mapping[str, ToolMode]] = {
    "auto": ToolMode.AUTO,
    "none": ToolMode.NONE,
    "required": ToolMode.REQUIRED,
    "any": ToolMode.REQUIRED,  # Mistral's word for it.
}
_TEXT_PARTS: Final[Mapping[str, str]] = {"text": "text", "refusal": "refusal"}
"""Parts of a message that are text, and the field that has it."""
_MEDIA_PARTS: Final[Mapping[str, str]] = {
    "image_url": "images",
    "input_audio": "audio",
    "video_url": "videos",
    "file": "files",
}
_COPIED: Final = ("description", "parameters", "strict")
_SHOWN_CHARS_MAX: Final = 100


def messages_of(
    messages: Sequence[AskedMessage], *, knows_developer: bool = False
) -> list[Message]:
    """Return the conversation. Raises InvalidBody.

    To templates that do not know developers (*knows_developer*), a developer is the system.
    """
    if not messages:
        raise refused("messages", "[] is too short - 'messages'")
    names: dict[str, str] = {}
    return [
        _message(f"messages[{index}]", message, names, knows_developer=knows_developer)
        for index, message in enumerate(messages)
    ]


def _message(
    where: str, asked: AskedMessage, names: dict[str, str], *, knows_developer: bool
) -> Message:
    """Return one message. *names* are those of the tools called so far, by the calls' ids."""
    role = asked.role.strip().lower()
    if role == "developer" and not knows_developer:
        role = "system"
    if role == "function":  # What a tool's answer was called when there were only functions.
        role = "tool"
    has_more = bool(asked.tool_calls) or role == "assistant"
    text = "" if asked.content is None and has_more else _text(f"{where}.content", asked.content)
    message: dict[str, Any] = {"role": role, "content": text}
    if thinking := asked.reasoning or asked.reasoning_content:
        message["thinking"] = thinking
    if asked.tool_calls:
        message["tool_calls"] = [
            _call(f"{where}.tool_calls[{index}]", call, names)
            for index, call in enumerate(asked.tool_calls)
        ]
    if role == "tool":
        call_id = asked.tool_call_id or ""
        if call_id:
            message["tool_call_id"] = call_id
        if name := asked.name or names.get(call_id):
            message["tool_name"] = name
    return message


def _text(where: str, content: Any) -> str:  # a JSON value of any shape
    """Return a message's text; parts are lines of one message. Raises InvalidBody."""
    match content:
        case str():
            return content
        case list():
            return "\n".join(_part(f"{where}[{n}]", part) for n, part in enumerate(content))
        case None:
            raise refused(where, "the field is missing")
        case _:
            raise refused(where, "must be a string or an array of parts")


def _part(where: str, part: Any) -> str:  # a JSON value of any shape
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise refused(where, "must be an object")
    kind = part.get("type")
    if isinstance(kind, str) and kind in _MEDIA_PARTS:
        raise refused(where, f"the model does not support {_MEDIA_PARTS[kind]}, only text")
    field = _TEXT_PARTS.get(kind) if isinstance(kind, str) else None
    if field is None:
        raise refused(f"{where}.type", f"unknown part of a message: {_shown(kind)}")
    text = part.get(field)
    if not isinstance(text, str):
        raise refused(f"{where}.{field}", "must be a string")
    return text


def _call(where: str, call: AskedCall, names: dict[str, str]) -> dict[str, Any]:
    if call.type != "function":
        raise refused(f"{where}.type", 'must be "function"')
    if call.id:
        names[call.id] = call.function.name
    arguments = _arguments(f"{where}.function.arguments", call.function.arguments)
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "function": function} if call.id else {"function": function}


def _arguments(where: str, value: Any) -> dict[str, Any]:  # a JSON value of any shape
    """Return a call's arguments; some programs send them as an object. Raises InvalidBody."""
    if value is None or value == "":
        return {}
    try:
        decoded = msgspec.json.decode(value) if isinstance(value, str) else value
    except (msgspec.DecodeError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        raise refused(where, "invalid tool call arguments: must be a string with a JSON object")
    return decoded


def tools_of(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the tools, without what templates have no use for. Raises InvalidBody."""
    functions: dict[str, Mapping[str, Any]] = {}
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        if tool.get("type", "function") != "function":
            kind = _shown(tool["type"])
            raise refused(f"{where}.type", f"tools of type {kind} are not supported, functions are")
        asked = tool.get("function")
        if not isinstance(asked, Mapping):
            raise refused(f"{where}.function", "must be an object")
        name = _name(f"{where}.function.name", asked.get("name"))
        if name in functions:
            raise refused(f"{where}.function.name", f"there are two tools named {_shown(name)}")
        function: dict[str, Any] = {"name": name}
        function |= {field: asked[field] for field in _COPIED if asked.get(field) is not None}
        if not isinstance(function.get("description", ""), str):
            raise refused(f"{where}.function.description", "must be a string")
        empty = {"type": "object", "properties": {}}
        if not isinstance(function.setdefault("parameters", empty), dict):
            raise refused(f"{where}.function.parameters", "must be an object, a JSON Schema")
        functions[name] = {"type": "function", "function": function}
    return list(functions.values())


def tool_choice_of(
    value: Any,  # a JSON value of any shape
    tools: Sequence[Mapping[str, Any]],
    *,
    is_parallel: bool = True,
) -> tuple[Sequence[Mapping[str, Any]], ToolChoice]:
    """Return which of *tools* (from `tools_of`) may be called, and whether they must.

    Raises InvalidBody.
    """
    names = [tool["function"]["name"] for tool in tools]
    name = ""
    match value:
        case None:
            mode = ToolMode.AUTO
        case str() if value in _MODES:
            mode = _MODES[value]
        case {"type": "function", "function": {"name": str(name)}} | {
            "type": "function",
            "name": str(name),
        }:
            mode = ToolMode.NAMED
            if name not in names:
                raise refused("tool_choice", f"there is no tool named {_shown(name)}")
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto" | "required" as word, "tools": list(some)},
        }:
            mode = _MODES[word]
            allowed = {_allowed(index, tool, names) for index, tool in enumerate(some)}
            tools = [tool for tool in tools if tool["function"]["name"] in allowed]
        case _:
            raise refused(
                "tool_choice",
                'must be "auto", "none", "required", a function with its name, or allowed_tools',
            )
    if mode is ToolMode.REQUIRED and not tools:
        raise refused("tool_choice", "a call is required, but there are no tools")
    return tools, ToolChoice(mode, name, is_parallel)


def _allowed(index: int, tool: Any, names: Sequence[str]) -> str:  # a JSON value of any shape
    where = f"tool_choice.allowed_tools.tools[{index}]"
    match tool:
        case {"type": "function", "function": {"name": str(name)}} if name in names:
            return name
        case _:
            raise refused(where, "must be a function with the name of one of the tools")


def think_of(effort: str | None, param: str = "reasoning_effort") -> Think:
    """Return how much to think; *param* is the field that says it. Raises InvalidBody."""
    if effort is None:
        return None
    if effort not in _EFFORTS:
        known = ", ".join(f'"{word}"' for word in _EFFORTS if word)
        raise refused(param, f"invalid reasoning value: {_shown(effort)} (must be one of {known})")
    return _EFFORTS[effort]


def _name(where: str, value: Any) -> str:  # a JSON value of any shape
    if not isinstance(value, str) or not value:
        raise refused(where, "must be a string that is not empty")
    return value


def _shown(value: Any) -> str:  # a JSON value of any shape
    return msgspec.json.encode(value).decode()[:_SHOWN_CHARS_MAX]
