"""What an answer is in Anthropic's terms: its blocks, why it ended, and what it used. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from ollamad.http.answer.parts import Call, Parts
from ollamad.http.anthropic.wire import (
    AnswerBlock,
    Stopped,
    StopReason,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    Usage,
)
from ollamad.options import SamplingOptions
from ollamad.runners.protocol import Finished, FinishReason, Timings

SIGNATURE: Final = "b2xsYW1hZA=="
"""What thinking is signed with. Clients keep only thinking that has a signature and send it back;
we believe them, and also those who bring a conversation from elsewhere."""


def blocks_of(parts: Parts, *, shows_thinking: bool) -> list[AnswerBlock]:
    """Return a whole answer's blocks; text of white space alone is none."""
    blocks: list[AnswerBlock] = []
    if parts.thinking:
        thinking = parts.thinking if shows_thinking else ""
        blocks.append(ThinkingBlock(thinking=thinking, signature=SIGNATURE))
    if parts.text.strip():
        blocks.append(TextBlock(text=parts.text))
    blocks.extend(map(tool_use_of, parts.calls))
    return blocks


def tool_use_of(call: Call) -> ToolUseBlock:
    """Return *call* as a block."""
    return ToolUseBlock(id=call.id, name=call.name, input=dict(call.arguments))


def usage_of(timings: Timings) -> Usage:
    """Return what an answer used."""
    return Usage(
        input_tokens=timings.prompt_tokens - timings.cached_tokens,
        cache_read_input_tokens=timings.cached_tokens,
        output_tokens=timings.generated_tokens,
    )


def stopped(
    finished: Finished, *, stops: Collection[str], sampling: SamplingOptions, has_calls: bool
) -> Stopped:
    """Return why an answer ended. *stops* are the stop texts that the request stated.

    1. It calls tools, which is what its reader has to act on.
    2. A stop text of the request ended it. A model's own stop texts end its turn, and are nothing
       that the caller has asked for.
    3. It was cut: by the caller's limit, or else by the end of the context.
    4. The model was done.
    """
    if has_calls:
        return _because("tool_use")
    if finished.stop is not None and finished.stop in stops:
        return Stopped(stop_reason="stop_sequence", stop_sequence=finished.stop)
    if finished.reason is FinishReason.LENGTH:
        is_limit = 0 < sampling.num_predict <= finished.timings.generated_tokens
        return _because("max_tokens" if is_limit else "model_context_window_exceeded")
    return _because("end_turn")


def _because(reason: StopReason) -> Stopped:
    return Stopped(stop_reason=reason, stop_sequence=None)
