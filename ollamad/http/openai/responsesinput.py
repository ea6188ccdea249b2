"""A response's input to the messages of a conversation. Pure.

Items are finer than messages: thinking, text and calls of one turn are items each, and one message
of a template. What cannot be shown to a model is refused, by the item's place and with its type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ollamad.http.openai.errors import refused
from ollamad.http.prompt.prompt import Message

_ROLES: Final[Mapping[str, str]] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}
"""As models know them: to templates, a developer is the system."""

_TEXT_PARTS: Final[Mapping[str, str]] = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "refusal": "refusal",
}
"""Parts that are text, and the field that has it."""

_SKIPPED: Final = frozenset({"web_search_call"})
"""Items that only tell what a server has done, as in Ollama."""

_SHOWN_CHARS_MAX: Final = 100

JoinName = Callable[[str, str], str]
"""Puts a tool's name together from the group it is in, empty for none, and its name there."""


def messages_of_input(value: Any, instructions: str | None, join_name: JoinName) -> list[Message]:
    """Return the conversation that *value*, a request's `input`, stands for. Raises InvalidBody."""
    turns = _Turns(join_name)
    if instructions:
        turns.add_text("system", instructions, [])
    match value:
        case str():
            turns.add_text("user", value, [])
        case list():
            for index, item in enumerate(value):
                turns.add(f"input[{index}]", item)
        case None:
            raise refused("input", "the field is missing")
        case _:
            raise refused("input", "must be a string or an array of items")
    return turns.messages


class _Turns:
    """Gathers items into messages."""

    def __init__(self, join_name: JoinName) -> None:
        self.messages: list[Message] = []
        self._join_name = join_name
        self._names: dict[str, str] = {}
        """Of the tools that were called, by the calls' ids."""
        self._thinking = ""
        """What was thought before an item that is still to come."""

    def add(self, where: str, item: Any) -> None:
        """Take the item at *where*. Raises InvalidBody."""
        if not isinstance(item, dict):
            raise refused(where, "must be an object")
        kind = item.get("type") or _implied_kind(item)
        match kind:
            case "message":
                self._message(where, item)
            case "function_call":
                self._call(where, item)
            case "function_call_output":
                self._output(where, item)
            case "reasoning":
                self._thinking += _thinking_of(where, item)
            case "item_reference":
                raise refused(
                    where,
                    "items are not kept here, so none can be referred to; send the item itself",
                )
            case None:
                raise refused(where, "input item missing required 'type' field")
            case str() if kind in _SKIPPED:
                pass
            case _:
                raise refused(f"{where}.type", f"unknown input item type: {_shown(kind)}")

    def add_text(self, role: str, text: str, images: list[str]) -> None:
        """Take a message."""
        last = self.messages[-1] if self.messages else {}
        if role == "system" and last.get("role") == "system" and len(self.messages) == 1:
            # Instructions and the system messages that follow are one: few templates take two.
            self.messages[-1] = {**last, "content": f"{last['content']}\n\n{text}"}
            return
        if role != "assistant":
            self._thinking = ""
            message: dict[str, Any] = {"role": role, "content": text}
            if images:
                message["images"] = images
            self.messages.append(message)
            return
        if last.get("role") == "assistant" and "tool_calls" in last:
            # Between a call and its output there can be no other message.
            self.messages[-1] = {**last, "content": last["content"] + text}
            return
        self.messages.append({"role": "assistant", "content": text, **self._taken_thinking()})

    def _message(self, where: str, item: Mapping[str, Any]) -> None:
        role = _ROLES.get(item["role"]) if isinstance(item.get("role"), str) else None
        if role is None:
            raise refused(f"{where}.role", "must be one of user, assistant, system, developer")
        text, images = _content(f"{where}.content", item.get("content"))
        self.add_text(role, text, images)

    def _call(self, where: str, item: Mapping[str, Any]) -> None:
        call_id = _string(where, item, "call_id")
        namespace = item.get("namespace")
        name = self._join_name(
            namespace if isinstance(namespace, str) else "", _string(where, item, "name")
        )
        call = {
            "id": call_id,
            "function": {"name": name, "arguments": _arguments(where, item.get("arguments"))},
        }
        self._names[call_id] = name
        last = self.messages[-1] if self.messages else {}
        if last.get("role") == "assistant":
            thinking = self._taken_thinking()
            if "thinking" in last and thinking:
                thinking["thinking"] = last["thinking"] + "\n" + thinking["thinking"]
            calls = [*last.get("tool_calls", ()), call]
            self.messages[-1] = {**last, **thinking, "tool_calls": calls}
            return
        self.messages.append(
            {"role": "assistant", "content": "", **self._taken_thinking(), "tool_calls": [call]}
        )

    def _output(self, where: str, item: Mapping[str, Any]) -> None:
        call_id = _string(where, item, "call_id")
        text, images = _content(f"{where}.output", item.get("output"))
        message: dict[str, Any] = {"role": "tool", "content": text, "tool_call_id": call_id}
        name = self._names.get(call_id)
        if name is not None:
            message["tool_name"] = name
        if images:
            message["images"] = images
        self._thinking = ""
        self.messages.append(message)

    def _taken_thinking(self) -> dict[str, Any]:
        thinking, self._thinking = self._thinking, ""
        return {"thinking": thinking} if thinking else {}


def _implied_kind(item: Mapping[str, Any]) -> str | None:
    """Return the type of an item that does not tell it: OpenAI's clients may leave these out."""
    if "role" in item:
        return "message"
    return "item_reference" if set(item) == {"id"} else None


def _content(where: str, value: Any) -> tuple[str, list[str]]:
    """Return the text and the images of a content. Raises InvalidBody."""
    match value:
        case str():
            return value, []
        case None:
            return "", []
        case list():
            pass
        case _:
            raise refused(where, "must be a string or an array of parts")
    texts: list[str] = []
    images: list[str] = []
    for index, part in enumerate(value):
        place = f"{where}[{index}]"
        if not isinstance(part, dict):
            raise refused(place, "must be an object")
        kind = part.get("type")
        if isinstance(kind, str) and kind in _TEXT_PARTS:
            texts.append(_string(place, part, _TEXT_PARTS[kind]))
            continue
        match kind:
            case "input_image":
                images += _image(place, part)
            case "input_file":
                raise refused(place, "file inputs are not currently supported")
            case "input_audio":
                raise refused(place, "audio inputs are not currently supported")
            case _:
                raise refused(f"{place}.type", f"unknown content type: {_shown(kind)}")
    return "".join(texts), images


def _image(where: str, part: Mapping[str, Any]) -> list[str]:
    """Return the image of a part as base64. Raises InvalidBody."""
    url = part.get("image_url")
    if not isinstance(url, str) or not url:
        raise refused(f"{where}.image_url", "must be a data URI; there are no uploaded files")
    head, comma, data = url.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        raise refused(
            f"{where}.image_url",
            "image URLs are not currently supported, please use base64 encoded data instead",
        )
    return [data]


def _thinking_of(where: str, item: Mapping[str, Any]) -> str:
    """Return what was thought: as the client has kept it. Raises InvalidBody."""
    encrypted = item.get("encrypted_content")
    if isinstance(encrypted, str) and encrypted:
        return encrypted
    for field in ("content", "summary"):
        parts = item.get(field) or []
        if not isinstance(parts, list):
            raise refused(f"{where}.{field}", "must be an array")
        texts = [
            _string(f"{where}.{field}[{index}]", part, "text") for index, part in enumerate(parts)
        ]
        if texts:
            return "".join(texts)
    return ""


def _arguments(where: str, value: Any) -> dict[str, Any]:
    """Return a call's arguments. Raises InvalidBody."""
    if value == "":
        return {}
    try:
        decoded = msgspec.json.decode(value) if isinstance(value, str) else None
    except (msgspec.DecodeError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        raise refused(f"{where}.arguments", "must be a string with a JSON object")
    return decoded


def _string(where: str, item: Any, field: str) -> str:
    value = item.get(field) if isinstance(item, dict) else None
    if not isinstance(value, str):
        raise refused(f"{where}.{field}", "must be a string")
    return value


def _shown(kind: Any) -> str:
    return msgspec.json.encode(kind).decode()[:_SHOWN_CHARS_MAX]
