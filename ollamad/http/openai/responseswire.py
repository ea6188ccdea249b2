"""The types of /v1/responses, in OpenAI's own names and in the order of keys of its answers.

An answer has all of its keys always: OpenAI's clients read them without asking whether they are
there. Times are whole seconds since 1970.
"""

from __future__ import annotations

from typing import Any, Final, get_args

import msgspec

from ollamad.http.openai.errors import ErrorDetail
from ollamad.http.openai.wire import TokenLogprobs


class TextConfig(msgspec.Struct, kw_only=True):
    """What the answer's text must look like."""

    format: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "text"})
    verbosity: str | None = None


class ReasoningConfig(msgspec.Struct, kw_only=True):
    """How to think."""

    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """POST /v1/responses. `None` is "not given"."""

    model: str = ""
    input: Any = None
    instructions: str | None = None
    stream: bool = False
    tools: list[dict[str, Any]] = []
    tool_choice: Any = "auto"
    parallel_tool_calls: bool = True
    text: TextConfig = msgspec.field(default_factory=TextConfig)
    reasoning: ReasoningConfig | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int = 0
    include: list[str] = []
    truncation: str = "disabled"
    metadata: dict[str, str] = {}
    store: bool = True
    background: bool = False
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    user: str | None = None


# Items of an answer


class SummaryText(msgspec.Struct, tag_field="type", tag="summary_text"):
    """What was thought."""

    text: str


class ReasoningItem(msgspec.Struct, kw_only=True, tag_field="type", tag="reasoning"):
    """Thinking."""

    id: str
    summary: list[SummaryText] = []
    encrypted_content: str | None = None
    """The thinking again, in plain text, for clients that send back nothing else."""
    status: str


class OutputText(msgspec.Struct, kw_only=True, tag_field="type", tag="output_text"):
    """The text of a message."""

    text: str
    annotations: list[dict[str, Any]] = []
    logprobs: list[TokenLogprobs] = []


class MessageItem(msgspec.Struct, kw_only=True, tag_field="type", tag="message"):
    """Text for the user."""

    id: str
    status: str
    role: str = "assistant"
    content: list[OutputText] = []


class FunctionCallItem(msgspec.Struct, kw_only=True, tag_field="type", tag="function_call"):
    """A call of a tool."""

    id: str
    status: str
    call_id: str
    name: str
    namespace: str | msgspec.UnsetType = msgspec.UNSET
    """The group of tools it is in, if it is in one."""
    arguments: str
    """A JSON object."""


Item = ReasoningItem | MessageItem | FunctionCallItem


# The answer


class CachedTokens(msgspec.Struct, kw_only=True):
    """Details of a prompt's tokens."""

    cached_tokens: int
    cache_write_tokens: int = 0


class ReasoningTokens(msgspec.Struct, kw_only=True):
    """Details of an answer's tokens."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, kw_only=True):
    """Tokens of an answer and of its prompt."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class IncompleteDetails(msgspec.Struct):
    """Why an answer ended early."""

    reason: str


class FailedDetails(msgspec.Struct):
    """Why there is no answer."""

    code: str
    message: str


class ResponseObject(msgspec.Struct, kw_only=True):
    """The answer of /v1/responses."""

    id: str
    object: str = "response"
    created_at: int
    completed_at: int | None = None
    status: str
    incomplete_details: IncompleteDetails | None = None
    model: str
    previous_response_id: str | None = None
    instructions: str | None = None
    output: list[Item] = []
    error: FailedDetails | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: Any = "auto"
    truncation: str = "disabled"
    parallel_tool_calls: bool = True
    text: TextConfig = msgspec.field(default_factory=TextConfig)
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_logprobs: int = 0
    temperature: float = 1.0
    reasoning: ReasoningConfig | None = None
    usage: ResponseUsage | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    store: bool = False
    """Answers are not kept, whatever was asked."""
    background: bool = False
    service_tier: str = "default"
    metadata: dict[str, str] = {}
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    user: str | None = None


# Events of a streamed answer


class ResponseEvent(msgspec.Struct, kw_only=True):
    """The answer as it is: created, in progress, and how it ended."""

    type: str
    sequence_number: int
    response: ResponseObject


class ItemEvent(msgspec.Struct, kw_only=True):
    """An item begins or ends."""

    type: str
    sequence_number: int
    output_index: int
    item: Item


class ContentPartEvent(msgspec.Struct, kw_only=True):
    """The text of a message begins or ends."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    part: OutputText


class TextDeltaEvent(msgspec.Struct, kw_only=True):
    """More text of a message."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[TokenLogprobs] = []


class TextDoneEvent(msgspec.Struct, kw_only=True):
    """All text of a message."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[TokenLogprobs] = []


class SummaryPartEvent(msgspec.Struct, kw_only=True):
    """Thinking begins or ends."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int
    summary_index: int
    part: SummaryText


class SummaryDeltaEvent(msgspec.Struct, kw_only=True):
    """More thinking."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int
    summary_index: int
    delta: str


class SummaryDoneEvent(msgspec.Struct, kw_only=True):
    """All of the thinking."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int
    summary_index: int
    text: str


class ArgumentsDeltaEvent(msgspec.Struct, kw_only=True):
    """More of a call's arguments."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int
    delta: str


class ArgumentsDoneEvent(msgspec.Struct, kw_only=True):
    """All of a call's arguments."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int
    name: str
    arguments: str


class ErrorEvent(msgspec.Struct, kw_only=True):
    """The answer has failed.

    Its words are there twice: where OpenAI's types have them, and in the object for which OpenAI's
    client looks before it raises an error.
    """

    type: str
    sequence_number: int
    code: str | None = None
    message: str
    param: str | None = None
    error: ErrorDetail


Event = (
    ResponseEvent
    | ItemEvent
    | ContentPartEvent
    | TextDeltaEvent
    | TextDoneEvent
    | SummaryPartEvent
    | SummaryDeltaEvent
    | SummaryDoneEvent
    | ArgumentsDeltaEvent
    | ArgumentsDoneEvent
    | ErrorEvent
)

EVENTS: Final[tuple[type[msgspec.Struct], ...]] = get_args(Event)
