"""The messages between the daemon and a runner, frozen and tagged, and the protocol's version.

A message is a MessagePack map with a `type`. Unknown fields are ignored, so either side may be
newer; an unknown type is an error. Exactly one `Finished` or `Failed` answers each `Generate`,
also after `Cancel`. Every delta carries its token ids and its offset in the request, which is
what lets a stream be continued elsewhere.

Ids are chosen by the daemon and are unique within one runner's life. Times are seconds, sizes
bytes, and token positions count from 0.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from ollamad.options import SamplingOptions

PROTOCOL_VERSION: Final = 1
"""Raised when a message changes its meaning. Both ends must agree on it."""

RequestId = int


class FinishReason(enum.StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


class FailureCode(enum.StrEnum):
    """What kind of failure a runner reports; the daemon maps each to an error of its tree."""

    NOT_FOUND = "not_found"
    NOT_A_MODEL = "not_a_model"
    OUT_OF_MEMORY = "out_of_memory"
    BAD_REQUEST = "bad_request"
    CONTEXT_TOO_LONG = "context_too_long"
    ENGINE = "engine"


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a runner needs to load one model. Nothing is left for the runner to guess."""

    model_path: str
    adapter_paths: tuple[str, ...] = ()
    n_ctx: int
    """Context length of one sequence."""
    n_slots: int
    """Sequences computed side by side."""
    n_batch: int
    """Tokens in one decode call at most."""
    n_gpu_layers: int = 0
    n_threads: int = 0
    """Threads for computing; 0 is one for each core the process may use."""
    kv_type: str = "f16"
    flash_attention: str = "auto"
    use_mmap: bool = True
    embedding: bool = False


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """Main memory a runner uses, as the kernel counts it."""

    anonymous_bytes: int
    """Memory of its own: KV cache, compute buffers, the interpreter."""
    file_bytes: int
    """Mapped files, mostly weights: shared with others and with the page cache."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """What one request cost in the runner."""

    queue_s: float = 0.0
    """From arrival to a slot."""
    prefill_s: float = 0.0
    decode_s: float = 0.0
    prompt_tokens: int = 0
    """Tokens of the prompt, cached ones included."""
    cached_tokens: int = 0
    generated_tokens: int = 0


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token and the natural logarithm of its probability."""

    token: int
    piece: bytes
    logprob: float


class StepLogprob(msgspec.Struct, frozen=True, array_like=True):
    """The chosen token's log-probability and those of the likeliest ones."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()


class Delta(msgspec.Struct, frozen=True, array_like=True):
    """New text of one request. Its tokens may be ahead of its text while text is held back."""

    id: RequestId
    offset: int
    """How many tokens of the answer came before."""
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[StepLogprob, ...] = ()


# To the runner


class Load(msgspec.Struct, frozen=True, tag=True):
    """Load this model. Sent once, after `Hello`."""

    plan: LoadPlan


class Generate(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Generate an answer to a prompt."""

    id: RequestId
    prompt: str
    context: tuple[int, ...] = ()
    """Token ids put in front of the prompt."""
    add_special: bool = True
    """Let the tokenizer put its begin-of-sequence token in front."""
    sampling: SamplingOptions = SamplingOptions()
    n_logprobs: int | None = None
    """How many likeliest tokens to report for each generated one; `None` is no report at all."""
    echo_tokens: bool = False
    """Report the prompt's token ids in `Finished`."""


class Tokenize(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Turn text into token ids."""

    id: RequestId
    text: str
    add_special: bool = True


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Nobody waits for this request any more. Legal at any time, also for an unknown id."""

    id: RequestId


class Shutdown(msgspec.Struct, frozen=True, tag=True):
    """Exit now. Open requests are abandoned: whoever asks has drained before."""


ToRunner = Load | Generate | Tokenize | Cancel | Shutdown

# From the runner


class Hello(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The runner is up and waits for `Load`."""

    protocol: int
    pid: int
    build: str
    """What computes: library, version, CPU features."""


class LoadProgress(msgspec.Struct, frozen=True, tag=True):
    """How much of the weights is in, 0 to 1."""

    fraction: float


class Loaded(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The model answers requests now."""

    n_ctx: int
    n_slots: int
    memory: MemoryUse


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    """The model could not be loaded; the runner exits."""

    code: FailureCode
    detail: str


class Deltas(msgspec.Struct, frozen=True, tag=True):
    """What one engine step produced, over all its sequences."""

    items: tuple[Delta, ...]


class Finished(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A request ended as it should, or was cancelled."""

    id: RequestId
    reason: FinishReason
    timings: Timings
    prompt: tuple[int, ...] = ()
    """The prompt's token ids, when asked for."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A request ended without an answer. Others are not affected."""

    id: RequestId
    code: FailureCode
    detail: str


class Tokenized(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Tokenize`."""

    id: RequestId
    tokens: tuple[int, ...]


class Beat(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The engine's progress, sent while it has work. A hung engine stops counting steps."""

    steps: int
    """Engine steps completed since the start."""
    slots_busy: int
    waiting: int
    """Requests without a slot."""
    kv_used: int
    """Tokens held in the KV cache."""


FromRunner = (
    Hello | LoadProgress | Loaded | LoadFailed | Deltas | Finished | Failed | Tokenized | Beat
)
