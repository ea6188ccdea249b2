"""A request of /v1/responses to what all chats are asked with. Pure.

Here is decided what becomes of each field. Nothing is kept here: what refers to something kept
(an earlier response, a conversation, a stored prompt, a background run) is refused, with what to
do instead. `store: true`, which is every client's default, is no such thing: the answer says
`store: false`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from ollamad.errors import CapabilityMissing, InvalidBody
from ollamad.http.answer.structured import json_grammar, schema_grammar
from ollamad.http.chatting import ChatAsked, check_tools, resolve_think
from ollamad.http.openai.errors import refused
from ollamad.http.openai.reading import think_of
from ollamad.http.openai.responsesinput import messages_of_input
from ollamad.http.openai.responsestools import Tools, join_name, tools_of_response
from ollamad.http.openai.responseswire import ResponsesRequest
from ollamad.modelinfo import StoredModel
from ollamad.options import LoadOptions, parse_options
from ollamad.runners.protocol import Grammar

NOT_KEPT: Final = "previous_response_not_found"
"""What clients look for before they send the whole conversation again."""
UNSUPPORTED: Final = "unsupported_parameter"

TOP_LOGPROBS_MAX: Final = 20
METADATA_MAX: Final = 16
METADATA_KEY_CHARS_MAX: Final = 64
METADATA_VALUE_CHARS_MAX: Final = 512
TOKENS_MAX: Final = 2**31 - 1
"""More tokens cannot be asked for; whoever does means "as many as you can"."""
TEMPERATURE: Final = 1.0
"""OpenAI's default, as in Ollama: a model's own is for Ollama's API."""

_WITH_LOGPROBS: Final = "message.output_text.logprobs"
_WITH_ENCRYPTED: Final = "reasoning.encrypted_content"
_TRUNCATIONS: Final = frozenset({"auto", "disabled"})


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for."""

    chat: ChatAsked
    load: LoadOptions
    tools: Tools
    shows_encrypted: bool
    """Thinking comes a second time, for clients that send back nothing else."""


def check_early(body: ResponsesRequest) -> None:
    """Raise InvalidBody for what is wrong whichever model it is."""
    if not body.model:
        raise refused("model", "the field is missing")
    if body.previous_response_id is not None:
        raise refused(
            "previous_response_id",
            "responses are not kept, so none can be continued; send the whole conversation as "
            "input (the earlier input, the output, and what is new)",
            NOT_KEPT,
        )
    if body.conversation is not None:
        raise refused(
            "conversation",
            "conversations are not kept; send the whole conversation as input",
            UNSUPPORTED,
        )
    if body.prompt is not None:
        raise refused("prompt", "prompts are not kept; send instructions and input", UNSUPPORTED)
    if body.background:
        raise refused(
            "background", "responses are not kept, so none can be fetched later", UNSUPPORTED
        )
    if body.truncation not in _TRUNCATIONS:
        raise refused("truncation", 'must be "auto" or "disabled"')
    if not 0 <= body.top_logprobs <= TOP_LOGPROBS_MAX:
        raise refused("top_logprobs", f"must be between 0 and {TOP_LOGPROBS_MAX}")
    if body.max_output_tokens is not None and body.max_output_tokens < 1:
        raise refused("max_output_tokens", "must be at least 1")
    _check_metadata(body.metadata)


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if len(metadata) > METADATA_MAX:
        raise refused("metadata", f"takes at most {METADATA_MAX} pairs")
    for key, value in metadata.items():
        if len(key) > METADATA_KEY_CHARS_MAX or len(value) > METADATA_VALUE_CHARS_MAX:
            raise refused(
                "metadata",
                f"takes keys of at most {METADATA_KEY_CHARS_MAX} characters and values of at most "
                f"{METADATA_VALUE_CHARS_MAX}",
            )


def asked_of(body: ResponsesRequest, model: StoredModel) -> Asked:
    """Return what *body* asks of *model*.

    Raises InvalidBody, CapabilityMissing, UnsupportedOption.
    """
    if "completion" not in model.capabilities:
        raise CapabilityMissing(f'"{body.model}" does not support chat')
    tools = tools_of_response(body.tools, body.tool_choice, is_parallel=body.parallel_tool_calls)
    check_tools(model, tools.functions, tools.choice, model.name.full)
    messages = messages_of_input(body.input, body.instructions, join_name)
    if not messages:
        raise refused("input", "there is nothing to answer")
    if any("images" in message for message in messages):
        raise CapabilityMissing(f"{model.name.full} does not support images")
    load, sampling = parse_options(model.parameters, _options(body))
    effort = body.reasoning.effort if body.reasoning is not None else None
    chat = ChatAsked(
        messages=messages,
        think=resolve_think(model, think_of(effort, "reasoning.effort"), body.model),
        sampling=sampling,
        tools=tools.functions,
        tool_choice=tools.choice,
        n_logprobs=_n_logprobs(body),
        grammar=grammar_of(body.text.format),
        may_truncate=body.truncation == "auto",
    )
    return Asked(chat, load, tools, shows_encrypted=_WITH_ENCRYPTED in body.include)


def _options(body: ResponsesRequest) -> dict[str, Any]:
    options: dict[str, Any] = {
        "temperature": TEMPERATURE if body.temperature is None else body.temperature
    }
    if body.top_p is not None:
        options["top_p"] = body.top_p
    if body.max_output_tokens is not None:
        options["num_predict"] = min(body.max_output_tokens, TOKENS_MAX)
    return options


def _n_logprobs(body: ResponsesRequest) -> int | None:
    """Return how many likeliest tokens are wanted beside the chosen one; `None` is not even it."""
    if _WITH_LOGPROBS in body.include or body.top_logprobs:
        return body.top_logprobs
    return None


def grammar_of(text_format: Mapping[str, Any]) -> Grammar | None:
    """Return what a request's `text.format` asks the text to be. Raises InvalidBody."""
    match text_format:
        case {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return json_grammar()
        case {"type": "json_schema"}:
            schema = text_format.get("schema")
            if not isinstance(schema, Mapping):
                raise refused("text.format.schema", "must be an object, a JSON Schema")
            try:
                return schema_grammar(schema)
            except InvalidBody as exc:
                raise refused("text.format.schema", exc.message) from exc
        case _:
            raise refused("text.format.type", 'must be "text", "json_object" or "json_schema"')
