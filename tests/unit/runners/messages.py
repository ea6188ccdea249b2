"""Small honest protocol messages for tests of the runner rooms."""

from __future__ import annotations

from ollamad.runners.protocol import (
    Delta,
    Finished,
    FinishReason,
    Generate,
    RequestId,
    StepLogprob,
    Timings,
    TokenLogprob,
)


def a_delta(
    request_id: RequestId = 1,
    text: str = "hi",
    *,
    offset: int = 0,
    tokens: tuple[int, ...] = (7,),
    logprobs: tuple[StepLogprob, ...] = (),
) -> Delta:
    """Return new text of a request."""
    return Delta(request_id, offset, text, tokens, logprobs)


def a_finish(request_id: RequestId = 1, reason: FinishReason = FinishReason.STOP) -> Finished:
    """Return the end of a request."""
    return Finished(id=request_id, reason=reason, timings=Timings(generated_tokens=1))


def a_request(request_id: RequestId = 1, *, prompt: str = "hello") -> Generate:
    """Return a request to generate."""
    return Generate(id=request_id, prompt=prompt)


def a_logprob(token: int) -> StepLogprob:
    """Return a step's report without alternatives."""
    return StepLogprob(TokenLogprob(token, b"x", -0.5))
