"""A whole answer: its blocks in Anthropic's order, and why it ended."""

from __future__ import annotations

import msgspec
import pytest

from ollamad.http.answer.parts import Call, Parts
from ollamad.http.anthropic.answers import SIGNATURE, blocks_of, stopped, usage_of
from ollamad.options import SamplingOptions
from ollamad.runners.protocol import Finished, FinishReason, Timings

CALL = Call(id="call_1", name="f", arguments={"a": 1})


def finished(
    reason: FinishReason = FinishReason.STOP, *, stop: str | None = None, n_generated: int = 5
) -> Finished:
    timings = Timings(prompt_tokens=9, cached_tokens=4, generated_tokens=n_generated)
    return Finished(id=1, reason=reason, timings=timings, stop=stop)


def test_blocks_come_as_thinking_text_calls() -> None:
    blocks = blocks_of(Parts(thinking="hm", text="yes", calls=(CALL,)), shows_thinking=True)

    assert msgspec.to_builtins(blocks) == [
        {"type": "thinking", "thinking": "hm", "signature": SIGNATURE},
        {"type": "text", "text": "yes"},
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
    ]


def test_what_an_answer_has_nothing_of_is_left_out() -> None:
    assert blocks_of(Parts(text=" \n"), shows_thinking=True) == []


def test_thinking_that_is_to_be_left_out_is_signed_all_the_same() -> None:
    (block,) = blocks_of(Parts(thinking="hm"), shows_thinking=False)

    assert msgspec.to_builtins(block) == {
        "type": "thinking",
        "thinking": "",
        "signature": SIGNATURE,
    }


def test_the_kinds_of_input_tokens_are_the_whole_prompt_together() -> None:
    usage = usage_of(finished().timings)

    assert (usage.input_tokens, usage.cache_read_input_tokens) == (5, 4)
    assert (usage.cache_creation_input_tokens, usage.output_tokens) == (0, 5)


@pytest.mark.parametrize(
    ("end", "has_calls", "reason", "stop"),
    [
        (finished(), False, "end_turn", None),
        (finished(), True, "tool_use", None),
        (finished(stop="END"), False, "stop_sequence", "END"),
        (finished(stop="<model's own>"), False, "end_turn", None),
        (finished(FinishReason.LENGTH), False, "max_tokens", None),
        (
            finished(FinishReason.LENGTH, n_generated=4),
            False,
            "model_context_window_exceeded",
            None,
        ),
        (finished(FinishReason.LENGTH), True, "tool_use", None),
    ],
)
def test_an_answers_end_has_its_reason(
    end: Finished, has_calls: bool, reason: str, stop: str | None
) -> None:
    sampling = SamplingOptions(num_predict=5)

    told = stopped(end, stops=["END"], sampling=sampling, has_calls=has_calls)

    assert (told.stop_reason, told.stop_sequence) == (reason, stop)
