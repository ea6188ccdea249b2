"""Log-probabilities in the two forms that OpenAI's API has of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ollamad.http.openai.wire import (
    ChatLogprobs,
    CompletionLogprobs,
    TokenChance,
    TokenLogprobs,
)
from ollamad.runners.protocol import StepLogprob


def token_logprobs(steps: Sequence[StepLogprob]) -> list[TokenLogprobs]:
    """Return them token by token, as chats and responses have them."""
    return [
        TokenLogprobs(
            token=step.chosen.text,
            logprob=step.chosen.logprob,
            bytes=list(step.chosen.piece),
            top_logprobs=[
                TokenChance(token=top.text, logprob=top.logprob, bytes=list(top.piece))
                for top in step.top
            ],
        )
        for step in steps
    ]


def some_logprobs(steps: Sequence[StepLogprob]) -> ChatLogprobs | msgspec.UnsetType:
    """Return them as chats have them; nothing at all if there are none."""
    return ChatLogprobs(token_logprobs(steps)) if steps else msgspec.UNSET


class CompletionSteps:
    """Returns them as completions have them, piece by piece: each token's place is counted."""

    def __init__(self, *, has_top: bool) -> None:
        self._offset = 0
        """Characters of the text before the next token."""
        self._has_top = has_top

    def take(self, steps: Sequence[StepLogprob]) -> CompletionLogprobs | None:
        """Return the next ones; `None` if there are none."""
        if not steps:
            return None
        tokens = [step.chosen.text for step in steps]
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token)
        return CompletionLogprobs(
            tokens=tokens,
            token_logprobs=[step.chosen.logprob for step in steps],
            top_logprobs=[_tops(step) for step in steps] if self._has_top else None,
            text_offset=offsets,
        )


def _tops(step: StepLogprob) -> dict[str, float]:
    """Return the likeliest texts. Two tokens may have one text: the likelier one stands."""
    tops: dict[str, float] = {}
    for top in step.top:
        tops.setdefault(top.text, top.logprob)
    return tops
