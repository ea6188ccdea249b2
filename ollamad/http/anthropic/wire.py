"""The Anthropic API's request and answer types, in its own names and its order of keys.

Requests are read leniently, as the other APIs' are: unknown fields are ignored. What has a type of
its own in each kind of block is one flat `Block` here; `reading` says which fields belong together.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# Requests. `None` is "not given".


class ResultBlock(msgspec.Struct, kw_only=True):
    """A block inside a tool's result or a document."""

    type: str
    text: str = ""
    source: dict[str, Any] = {}
    title: str = ""


class Block(msgspec.Struct, kw_only=True):
    """One block of a message's content, of any kind."""

    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Any] = {}
    tool_use_id: str = ""
    content: Any = None
    """A tool's result: a text, or blocks. Results of Anthropic's own tools have other shapes."""
    source: dict[str, Any] = {}
    title: str = ""


class Message(msgspec.Struct, kw_only=True):
    """One message of a conversation."""

    role: str
    content: str | list[Block]


class Tool(msgspec.Struct, kw_only=True):
    """A tool that the model may call; of a `type` other than `custom`, one of Anthropic's own."""

    name: str = ""
    description: str = ""
    input_schema: dict[str, Any] | None = None
    type: str = "custom"
    strict: bool = False


class ToolChoice(msgspec.Struct, kw_only=True):
    """Which tools the model may or must call."""

    type: str
    name: str = ""
    disable_parallel_tool_use: bool = False


class Thinking(msgspec.Struct, kw_only=True):
    """Whether to think. A budget is taken and not kept: only models know how to end a thought."""

    type: str
    budget_tokens: int = 0
    display: str = ""


class OutputFormat(msgspec.Struct, kw_only=True):
    """What the answer's text must look like."""

    type: str
    schema: Any = None


class OutputConfig(msgspec.Struct, kw_only=True):
    """How much effort an answer is worth, and its form."""

    effort: str = ""
    format: OutputFormat | None = None


class MessagesRequest(msgspec.Struct, kw_only=True):
    """POST /v1/messages, and /v1/messages/count_tokens, which takes no `max_tokens`."""

    model: str = ""
    max_tokens: int | None = None
    messages: list[Message] = []
    system: str | list[Block] = ""
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] = []
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    """Where the form of the answer stood before `output_config`."""
    keep_alive: Any = None
    """Ollama's, as in its own API; so is the next. Anthropic's has no such fields."""
    options: dict[str, Any] = {}


# Answers


class TextBlock(msgspec.Struct, kw_only=True, tag_field="type", tag="text"):
    """Text of an answer."""

    text: str


class ThinkingBlock(msgspec.Struct, kw_only=True, tag_field="type", tag="thinking"):
    """What the model thought."""

    thinking: str
    signature: str


class ToolUseBlock(msgspec.Struct, kw_only=True, tag_field="type", tag="tool_use"):
    """A call of a tool."""

    id: str
    name: str
    input: dict[str, Any]


AnswerBlock = TextBlock | ThinkingBlock | ToolUseBlock


class Usage(msgspec.Struct, kw_only=True):
    """Tokens. The whole prompt is the three kinds of input together."""

    input_tokens: int
    """Tokens of the prompt that were computed for this answer."""
    cache_creation_input_tokens: int = 0
    """Always 0: nothing is charged for keeping a prompt, and all are kept."""
    cache_read_input_tokens: int = 0
    """Tokens of the prompt that had been computed before."""
    output_tokens: int


StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]


class MessageAnswer(msgspec.Struct, kw_only=True):
    """A whole answer; also the beginning of a streamed one."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[AnswerBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: Usage


class TokenCount(msgspec.Struct, kw_only=True):
    """The answer of /v1/messages/count_tokens."""

    input_tokens: int


# Events


class MessageStart(msgspec.Struct, kw_only=True, tag_field="type", tag="message_start"):
    """A streamed answer begins."""

    message: MessageAnswer


class Ping(msgspec.Struct, tag_field="type", tag="ping"):
    """The connection is alive."""


class BlockStart(msgspec.Struct, kw_only=True, tag_field="type", tag="content_block_start"):
    """A block begins, empty."""

    index: int
    content_block: AnswerBlock


class TextDelta(msgspec.Struct, kw_only=True, tag_field="type", tag="text_delta"):
    """More of a text block."""

    text: str


class ThinkingDelta(msgspec.Struct, kw_only=True, tag_field="type", tag="thinking_delta"):
    """More of a thinking block."""

    thinking: str


class SignatureDelta(msgspec.Struct, kw_only=True, tag_field="type", tag="signature_delta"):
    """The end of a thinking block."""

    signature: str


class InputDelta(msgspec.Struct, kw_only=True, tag_field="type", tag="input_json_delta"):
    """More of a call's arguments, as JSON text."""

    partial_json: str


class BlockDelta(msgspec.Struct, kw_only=True, tag_field="type", tag="content_block_delta"):
    """More of a block."""

    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputDelta


class BlockStop(msgspec.Struct, kw_only=True, tag_field="type", tag="content_block_stop"):
    """A block is whole."""

    index: int


class Stopped(msgspec.Struct, kw_only=True):
    """Why an answer ended."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(msgspec.Struct, kw_only=True, tag_field="type", tag="message_delta"):
    """What is known of an answer at its end."""

    delta: Stopped
    usage: Usage


class MessageStop(msgspec.Struct, tag_field="type", tag="message_stop"):
    """Nothing more comes."""


Event = MessageStart | Ping | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop


# Models


class Model(msgspec.Struct, kw_only=True):
    """One model, as GET /v1/models shows it to Anthropic's clients."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"] = "active"
    max_input_tokens: int | None
    """The context that it was trained for."""


class ModelPage(msgspec.Struct, kw_only=True):
    """All models: there is only one page."""

    data: list[Model]
    has_more: Literal[False] = False
    first_id: str | None
    last_id: str | None
