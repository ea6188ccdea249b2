"""Anthropic's messages, which are blocks, to messages in the form of Ollama's API. Pure.

A message there may hold several of ours: each result of a tool is a message of its own, before what
else the user says. Texts of one message are paragraphs: in Ollama they run together, and the last
word of one block and the first of the next become one. What the assistant said is joined as it is.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ollamad.errors import InvalidBody
from ollamad.http.anthropic.wire import Block, Message, MessagesRequest, ResultBlock

BETWEEN_TEXTS: Final = "\n\n"

_SERVER_RESULT: Final = "_tool_result"
"""How the kinds of results end that Anthropic's own tools give."""


def messages_of(body: MessagesRequest) -> tuple[list[dict[str, Any]], int]:
    """Return the conversation, and how many images it has. Raises InvalidBody."""
    turns = _Turns()
    turns.system(body.system, "system")
    for index, message in enumerate(body.messages):
        turns.take(message, f"messages[{index}]")
    return turns.messages, turns.n_images


class _Turns:
    """The conversation so far."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.n_images = 0
        self._names: dict[str, str] = {}
        """Tools by the ids of their calls: results have only the ids, templates want both."""

    def take(self, message: Message, where: str) -> None:
        match message.role:
            case "user":
                self._user(_blocks(message.content), f"{where}.content")
            case "assistant":
                self._assistant(_blocks(message.content), f"{where}.content")
            case "system":
                self.system(message.content, f"{where}.content")
            case _:
                raise InvalidBody(f'{where}.role: expected "user" or "assistant"')

    def system(self, content: str | list[Block], where: str) -> None:
        texts = []
        for index, block in enumerate(_blocks(content)):
            if block.type != "text":
                raise InvalidBody(_unsupported(f"{where}[{index}]", block.type))
            texts.append(block.text)
        self._say("system", texts)

    def _user(self, blocks: Sequence[Block], where: str) -> None:
        texts: list[str] = []
        for index, block in enumerate(blocks):
            here = f"{where}[{index}]"
            if block.type == "tool_result":
                self._result(block.tool_use_id, self._result_text(block.content, here))
            else:
                texts.append(self._readable(block, here))
        self._say("user", texts)

    def _assistant(self, blocks: Sequence[Block], where: str) -> None:
        said = _Said()
        for index, block in enumerate(blocks):
            match block.type:
                case "text":
                    said.texts.append(block.text)
                case "thinking":
                    said.thoughts.append(block.thinking)
                case "redacted_thinking":
                    pass  # Nobody but its maker can read it.
                case "tool_use" | "server_tool_use":
                    said.calls.append(self._call(block))
                case kind if kind.endswith(_SERVER_RESULT):
                    self._add(said)
                    said = _Said()
                    self._result(block.tool_use_id, _json(block.content))
                case kind:
                    raise InvalidBody(_unsupported(f"{where}[{index}]", kind))
        self._add(said)

    def _add(self, said: _Said) -> None:
        message = said.message()
        if message is None:
            return
        last = self.messages[-1] if self.messages else {}
        if last.get("role") == "assistant" and not last.get("tool_calls"):
            for key in ("content", "thinking"):
                if joined := last.get(key, "") + message.get(key, ""):
                    message[key] = joined
            self.messages.pop()
        self.messages.append(message)

    def _say(self, role: str, texts: Sequence[str]) -> None:
        """Add a message, or go on with one: turns of the same role are one turn."""
        text = BETWEEN_TEXTS.join(text for text in texts if text)
        if not text:
            return
        last = self.messages[-1] if self.messages else {}
        if last.get("role") == role:
            last["content"] += BETWEEN_TEXTS + text
        else:
            self.messages.append({"role": role, "content": text})

    def _call(self, block: Block) -> dict[str, Any]:
        for field in ("id", "name"):
            if not getattr(block, field):
                raise InvalidBody(f"{block.type} block missing required '{field}' field")
        self._names[block.id] = block.name
        return {"id": block.id, "function": {"name": block.name, "arguments": block.input}}

    def _result(self, call_id: str, text: str) -> None:
        message = {"role": "tool", "content": text, "tool_call_id": call_id}
        if name := self._names.get(call_id):
            message["tool_name"] = name
        self.messages.append(message)

    def _result_text(self, content: Any, where: str) -> str:  # a JSON value of any shape
        if content is None or isinstance(content, str):
            return content or ""
        try:
            blocks = msgspec.convert(content, list[ResultBlock])
        except msgspec.ValidationError as exc:
            raise InvalidBody(f"{where}.content: expected a string or blocks: {exc}") from exc
        texts = [
            self._readable(block, f"{where}.content[{index}]") for index, block in enumerate(blocks)
        ]
        return BETWEEN_TEXTS.join(text for text in texts if text)

    def _readable(self, block: Block | ResultBlock, where: str) -> str:
        """Return the text of a block that a user's message or a tool's result may have."""
        match block.type:
            case "text":
                return block.text
            case "image":
                _check_image(block.source, where)
                self.n_images += 1
                return ""
            case "document":
                return _document(block, where)
            case kind:
                raise InvalidBody(_unsupported(where, kind))


class _Said:
    """What one message of the assistant says."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[dict[str, Any]] = []

    def message(self) -> dict[str, Any] | None:
        """Return it as a message; `None` if it says nothing."""
        content, thinking = "".join(self.texts), "".join(self.thoughts)
        if not (content or thinking or self.calls):
            return None
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if thinking:
            message["thinking"] = thinking
        if self.calls:
            message["tool_calls"] = self.calls
        return message


def _blocks(content: str | list[Block]) -> list[Block]:
    return [Block(type="text", text=content)] if isinstance(content, str) else content


def _check_image(source: dict[str, Any], where: str) -> None:
    match source:
        case {"type": "base64", "data": str(data)}:
            try:
                base64.b64decode(data, validate=True)
            except binascii.Error as exc:
                raise InvalidBody(f"invalid base64 image data: {where}: {exc}") from exc
        case {"type": str(kind)} if kind != "base64":
            raise InvalidBody(
                f"invalid image source type: {kind}. Only base64 images are supported."
            )
        case _:
            raise InvalidBody("invalid image source")


def _document(block: Block | ResultBlock, where: str) -> str:
    match block.source:
        case {"type": "text", "data": str(text)}:
            return f"{block.title}{BETWEEN_TEXTS}{text}" if block.title else text
        case {"type": str(kind)}:
            raise InvalidBody(
                f'{where}: a document\'s source of type "{kind}" cannot be read here; send its text'
            )
        case _:
            raise InvalidBody(f"{where}: invalid document source")


def _unsupported(where: str, kind: str) -> str:
    return f'{where}: blocks of type "{kind}" are not supported here'


def _json(value: Any) -> str:  # a JSON value of any shape
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
