"""What generate and chat share: checks, options, metrics and log-probabilities."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ollamad.errors import CapabilityMissing, InvalidBody
from ollamad.http.answer.parts import Call
from ollamad.http.answer.structured import guided_grammar, json_grammar, schema_grammar
from ollamad.http.chatting import ChatAsked, resolve_think
from ollamad.http.doors import Doors
from ollamad.http.ollama.wire import (
    ChatRequest,
    ChatResponse,
    Function,
    GenerateRequest,
    GenerateResponse,
    LogprobEntry,
    PromptTruncated,
    ToolCall,
    nanoseconds,
    rfc3339,
)
from ollamad.http.prompt.fitting import Truncation
from ollamad.http.prompt.gotemplate.chat import Think
from ollamad.http.prompt.prompt import Message
from ollamad.modelinfo import StoredModel
from ollamad.options import LoadOptions, SamplingOptions, parse_options, retired_notes
from ollamad.runners.protocol import (
    FinishReason,
    Grammar,
    StepLogprob,
    Timings,
)

_log = logging.getLogger(__name__)

TOP_LOGPROBS_MAX: Final = 20
_SHOWN_CHARS_MAX: Final = 100
_NEVER_SHIFTED: Final = frozenset({"deepseek2"})
"""Architectures whose context is not shifted unless asked: as in Ollama."""
_DONE_REASONS: Final = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CANCELLED: "stop",
}

Request = GenerateRequest | ChatRequest


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, checked against its model."""

    load: LoadOptions
    sampling: SamplingOptions
    think: Think
    n_logprobs: int | None
    grammar: Grammar | None
    shift: bool
    """Go on past the context's end by dropping old tokens."""


def check_early(body: Request) -> None:
    """Raise InvalidBody for what is wrong whichever model it is."""
    if not 0 <= body.top_logprobs <= TOP_LOGPROBS_MAX:
        raise InvalidBody(f"top_logprobs must be between 0 and {TOP_LOGPROBS_MAX}")


def asked_of(body: Request, model: StoredModel, verb: str) -> Asked:
    """Return what *body* asks of *model*. Raises what is wrong with it, in Ollama's words."""
    think = resolve_think(model, read_think(body.think), body.model)
    if "completion" not in model.capabilities:
        raise CapabilityMissing(f'"{body.model}" does not support {verb}')
    grammar = read_format(body.format)
    load, sampling = parse_options(model.parameters, body.options)
    for note in retired_notes(model.parameters, body.options):
        _log.debug("%s: %s", model.name.display, note)
    n_logprobs = body.top_logprobs if body.logprobs else None
    shift = body.shift
    if shift is None:
        shift = model.facts.architecture not in _NEVER_SHIFTED
    return Asked(load, sampling, think, n_logprobs, grammar, shift)


def read_think(value: Any) -> Think:  # a JSON value of any shape
    """Return a request's think value. Raises InvalidBody."""
    match value:
        case None | True | False | "low" | "medium" | "high" | "max" as think:
            return think
        case str():
            raise InvalidBody(
                f'invalid think value: "{value[:_SHOWN_CHARS_MAX]}" '
                '(must be "high", "medium", "low", "max", true, or false)'
            )
        case _:
            raise InvalidBody(
                'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'
            )


def read_format(value: Any) -> Grammar | None:  # a JSON value of any shape
    """Return what a request's format asks an answer to be. Raises InvalidBody."""
    if value is None or value == "":
        return None
    if value == "json":
        return json_grammar()
    if isinstance(value, dict):
        return guided_grammar(value) or schema_grammar(value)
    shown = msgspec.json.encode(value).decode()[:_SHOWN_CHARS_MAX]
    raise InvalidBody(f'invalid format: {shown}; expected "json" or a valid JSON Schema object')


def refuse_images(n_images: int, model: StoredModel) -> None:
    """Raise when there are images: no model can be shown one yet."""
    if n_images:
        raise CapabilityMissing(f"{model.name.full} does not support images")


def chat_asked(body: Request, asked: Asked, messages: Sequence[Message]) -> ChatAsked:
    """Return the conversation that *body* asks for; its API adds what only it has."""
    return ChatAsked(
        messages=messages,
        think=asked.think,
        sampling=asked.sampling,
        n_logprobs=asked.n_logprobs,
        grammar=asked.grammar,
        shift=asked.shift,
        may_truncate=body.truncate,
    )


def tool_calls(calls: Sequence[Call], first_index: int) -> list[ToolCall]:
    """Return calls as the API has them, numbered from *first_index* on."""
    return [
        ToolCall(
            id=call.id,
            function=Function(index=index, name=call.name, arguments=dict(call.arguments)),
        )
        for index, call in enumerate(calls, start=first_index)
    ]


def measure(
    last: GenerateResponse | ChatResponse,
    timings: Timings,
    load_s: float,
    total_s: float,
    truncation: Truncation | None = None,
) -> None:
    """Fill in what the last object of an answer measures, and what its prompt does without."""
    last.total_duration = nanoseconds(total_s)
    last.load_duration = nanoseconds(load_s)
    last.prompt_eval_count = timings.prompt_tokens
    last.prompt_eval_duration = nanoseconds(timings.prefill_s)
    last.prompt_cached_count = timings.cached_tokens
    last.queue_duration = nanoseconds(timings.queue_s)
    last.eval_forced_count = timings.forced_tokens
    last.healed_count = timings.healed
    last.eval_count = timings.generated_tokens
    last.eval_duration = nanoseconds(timings.decode_s)
    if truncation is not None:
        last.prompt_truncated = PromptTruncated(
            messages=truncation.n_messages,
            tokens_before=truncation.n_tokens_before,
            tokens_after=truncation.n_tokens_after,
            cut=truncation.is_cut,
        )


def done_reason(reason: FinishReason) -> str:
    """Return Ollama's word for why an answer ended."""
    return _DONE_REASONS[reason]


def now_text(doors: Doors) -> str:
    """Return the time for `created_at`."""
    return rfc3339(doors.clock.now())


def logprob_entries(steps: Sequence[StepLogprob]) -> list[LogprobEntry]:
    """Return log-probabilities as the API has them."""
    return [
        LogprobEntry(
            token=step.chosen.text,
            logprob=step.chosen.logprob,
            bytes=list(step.chosen.piece),
            top_logprobs=[
                LogprobEntry(token=top.text, logprob=top.logprob, bytes=list(top.piece))
                for top in step.top
            ],
        )
        for step in steps
    ]
