"""What a request for text asks for: options, thinking, tools and forms. Pure.

The value of a field goes before the one in `options`, which goes before OpenAI's default.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from ollamad.config import HttpConfig
from ollamad.errors import CapabilityMissing, InvalidBody, UnsupportedOption
from ollamad.http.chatting import ChatAsked, check_tools, resolve_think
from ollamad.http.doors import read_keep_alive
from ollamad.http.openai.constraints import constraint_of
from ollamad.http.openai.errors import refused
from ollamad.http.openai.reading import messages_of, think_of, tool_choice_of, tools_of
from ollamad.http.openai.wire import ChatRequest, Sampled
from ollamad.http.prompt.gotemplate.chat import Think
from ollamad.http.prompt.prompt import Message
from ollamad.http.prompt.render import template_of
from ollamad.modelinfo import StoredModel
from ollamad.options import (
    OPTIONS,
    LoadOptions,
    SamplingOptions,
    option_value,
    parse_options,
    retired_notes,
)

TOP_LOGPROBS_MAX: Final = 20
TOKENS_MAX: Final = 2**31 - 1
"""More tokens cannot be asked for; whoever does means "as many as you can"."""
_SEEDS: Final = 2**31
"""Seeds there are. Clients send 64 bits; those beyond are folded, so that they repeat as well."""
_RANDOM: Final = -1
"""The seed that is none, as llama.cpp has it."""
_DEFAULTS: Final[Mapping[str, Any]] = {"temperature": 1.0, "top_p": 1.0}
"""OpenAI's, as in Ollama: a model's own are for Ollama's API."""
_DEVELOPER: Final = re.compile(r"""["']developer["']""")
"""What a template says that knows this role."""
_FIELDS: Final[Mapping[str, str]] = {
    name: name
    for name in (
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "top_k",
        "min_p",
        "typical_p",
        "ignore_eos",
        "repeat_penalty",
    )
} | {"repetition_penalty": "repeat_penalty"}
"""Fields of a request, and the options that they are."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks of its model."""

    chat: ChatAsked
    load: LoadOptions
    keep_alive: float | None
    """Seconds; `None` is not said."""


def check_early(body: Sampled, limits: HttpConfig, n_answers: int) -> None:
    """Raise InvalidBody for what is wrong whichever model it is."""
    if not body.model:
        raise refused("model", "the field is missing")
    if body.n < 1:
        raise refused("n", "must be at least 1")
    if n_answers > limits.answers_max:
        raise refused(
            "n",
            f"{n_answers} answers are too many, {limits.answers_max} are given (http.answers_max)",
        )


def shows_usage(body: Sampled) -> bool:
    """Return whether a stream's last event shall tell what the answers cost."""
    return body.stream_options is not None and body.stream_options.include_usage


def chat_asked(body: ChatRequest, model: StoredModel) -> Asked:
    """Return what *body* asks of *model*. Raises InvalidBody, CapabilityMissing."""
    if not 0 <= body.top_logprobs <= TOP_LOGPROBS_MAX:
        raise refused("top_logprobs", f"must be between 0 and {TOP_LOGPROBS_MAX}")
    tools, choice = tool_choice_of(
        body.tool_choice, tools_of(body.tools), is_parallel=body.parallel_tool_calls
    )
    knows_developer = _DEVELOPER.search(template_of(model)) is not None
    messages = messages_of(body.messages, knows_developer=knows_developer)
    asked = asked_of(
        body,
        model,
        messages,
        verb="chat",
        think=_think(body),
        max_tokens=body.max_completion_tokens,
    )
    check_tools(model, tools, choice, model.name.full)
    chat = dataclasses.replace(
        asked.chat,
        tools=tools,
        tool_choice=choice,
        n_logprobs=body.top_logprobs if body.logprobs else None,
    )
    return dataclasses.replace(asked, chat=chat)


def asked_of(
    body: Sampled,
    model: StoredModel,
    messages: list[Message],
    *,
    verb: str,
    think: Think = None,
    max_tokens: int | None = None,
) -> Asked:
    """Return what is common to chats and completions. Raises InvalidBody, CapabilityMissing.

    *max_tokens* goes before the body's own.
    """
    if "completion" not in model.capabilities:
        raise CapabilityMissing(f'"{body.model}" does not support {verb}')
    load, sampling = options_of(body, model, max_tokens)
    chat = ChatAsked(
        messages=messages,
        think=resolve_think(model, think, body.model),
        sampling=sampling,
        grammar=constraint_of(body),
    )
    return Asked(chat=chat, load=load, keep_alive=keep_alive_of(body.keep_alive))


def options_of(
    body: Sampled, model: StoredModel, max_tokens: int | None = None
) -> tuple[LoadOptions, SamplingOptions]:
    """Return the options that *body* states for *model*. Raises InvalidBody."""
    stated: dict[str, Any] = {}
    for field, option in _FIELDS.items():
        value = getattr(body, field)
        if value is not None:
            _checked(field, option, value)
            stated[option] = value
    if body.seed is not None:
        stated["seed"] = body.seed if body.seed == _RANDOM else body.seed % _SEEDS
    if body.stop is not None:
        stated["stop"] = _stops(body.stop)
    limit = body.max_tokens if max_tokens is None else max_tokens
    if limit is not None:
        # None, or fewer than none, are "no limit" to many programs: as in Ollama.
        stated["num_predict"] = min(limit, TOKENS_MAX) if limit > 0 else -1
    for note in retired_notes(body.options):
        _log.debug("%s: %s", model.name.display, note)
    try:
        return parse_options(model.parameters, _DEFAULTS, body.options, stated)
    except UnsupportedOption as exc:
        raise refused("options", exc.message) from exc


def _checked(field: str, option: str, value: Any) -> None:
    try:
        option_value(option, OPTIONS[option], value)
    except UnsupportedOption as exc:
        raise refused(field, exc.message) from exc


def _stops(value: Any) -> list[str]:  # a JSON value of any shape
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise refused("stop", "must be a string or an array of strings")
    _checked("stop", "stop", texts)
    return texts


def keep_alive_of(value: Any) -> float | None:  # a JSON value of any shape
    """Return a request's keep-alive in seconds, `None` when it says nothing. Raises InvalidBody."""
    try:
        return read_keep_alive(value)
    except InvalidBody as exc:
        raise refused("keep_alive", exc.message) from exc


def _think(body: ChatRequest) -> Think:
    """Return how much to think: the most particular field that says so counts."""
    match body.think:
        case None:
            pass
        case bool() | "low" | "medium" | "high" | "max" as think:
            return think
        case _:
            raise refused("think", 'must be a boolean, "low", "medium", "high" or "max"')
    if body.reasoning is not None:
        return think_of(body.reasoning.effort, "reasoning.effort")
    if body.reasoning_effort is not None:
        return think_of(body.reasoning_effort)
    for switch in ("enable_thinking", "thinking"):
        value = body.chat_template_kwargs.get(switch)
        if isinstance(value, bool):
            return value
    return None
