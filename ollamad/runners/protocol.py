"""The messages between the daemon and a runner, frozen and tagged, and the protocol's version.

A message is a MessagePack map with a `type`. Unknown fields are ignored, so either side may be
newer; an unknown type is an error. Exactly one `Finished` or `Failed` answers each `Generate`,
also after `Cancel`, and exactly one answer or `Failed` each `Tokenize`, `Embed` and `Rank` that is
not cancelled. Every delta carries its token ids and its offset in the answer; with those and
`Generate.answered` a stream can be continued by another runner. Therefore a delta's text is a
function of the tokens up to its end; what was held back after them comes with `Finished`.

Ids are chosen by the daemon and are unique within one runner's life. Times are seconds, sizes
bytes, and token positions count from 0.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from ollamad.buffersizes import BufferSizes
from ollamad.options import SamplingOptions

PROTOCOL_VERSION: Final = 4
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
    KV_FULL = "kv_full"
    ENGINE = "engine"


class MemoryKind(enum.StrEnum):
    """What a model's context memory allows, and so how much of it can be shared or cut."""

    WHOLE = "whole"
    """Every token is kept: any beginning can be shared, any end cut off."""
    WINDOW = "window"
    """Old tokens are forgotten in some layers: only recent ends can be gone on from."""
    RECURRENT = "recurrent"
    """A running state: only the very points where it was kept can be gone on from."""
    NONE = "none"
    """No memory: the model reads its whole input at once and generates nothing."""


class GrammarKind(enum.StrEnum):
    """The languages that say what an answer may look like."""

    JSON = "json"
    """Any JSON object; the text is not used."""
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"
    """llguidance's variant of Lark."""
    GBNF = "gbnf"
    """llama.cpp's grammar notation."""


class Grammar(msgspec.Struct, frozen=True):
    """What an answer must look like."""

    kind: GrammarKind
    text: str = ""
    opening: str = ""
    """The mark with which the answer may begin to think before it keeps to the grammar. Empty with
    a `closing` mark: the prompt has opened its thinking."""
    closing: str = ""
    """The mark up to which the answer is free; empty if it keeps to the grammar from the start."""


class RopeOverrides(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Position encoding other than the model's own. `None` is the model's own."""

    frequency_base: float | None = None
    frequency_scale: float | None = None
    scaling: str | None = None
    """`none`, `linear`, `yarn` or `longrope`."""
    yarn_ext_factor: float | None = None
    yarn_attn_factor: float | None = None
    yarn_beta_fast: float | None = None
    yarn_beta_slow: float | None = None
    yarn_orig_ctx: int | None = None


class TensorOverride(msgspec.Struct, frozen=True):
    """Where the tensors go whose names a pattern finds."""

    pattern: str
    """A regular expression."""
    device: str
    """`cpu`, or a compute device's name."""


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a runner needs to load one model. Nothing is left for the runner to guess."""

    model_path: str
    adapter_paths: tuple[str, ...] = ()
    n_ctx: int
    """Context length of one sequence."""
    n_slots: int
    """Sequences computed side by side."""
    n_batch: int
    """Tokens in one step at most."""
    n_ubatch: int = 0
    """Tokens the device computes at once; 0 is as many as `n_batch`."""
    n_gpu_layers: int = 0
    n_gpu_layers_asked: int | None = None
    """What a request asked for, who may have got less; `None` is nothing."""
    main_gpu: int = 0
    """Index of the device that holds what is not split."""
    tensor_split: tuple[float, ...] = ()
    """Share of each device, in any unit; empty is by free memory."""
    tensor_overrides: tuple[TensorOverride, ...] = ()
    n_threads: int = 0
    """Threads for computing; 0 is one for each core the process may use."""
    kv_type: str = "f16"
    flash_attention: str = "auto"
    swa_full: bool = False
    """Keep all tokens also in layers that look at a window only: memory for prefix reuse."""
    use_mmap: bool = True
    use_mlock: bool = False
    rope: RopeOverrides = RopeOverrides()
    prefix_reuse: bool = True
    """Keep what ended requests computed for later ones that begin the same."""
    embedding: bool = False


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """Main memory a runner uses, as the kernel counts it."""

    anonymous_bytes: int
    """Memory of its own that it has touched: KV cache, compute buffers, the interpreter. This,
    and this only, is what the system counts as in use."""
    file_bytes: int
    """Mapped files that came with the model, its weights: shared with the page cache."""
    promised_bytes: int = 0
    """Memory of its own that it was promised and has not touched yet."""
    buffers: BufferSizes | None = None
    """What the engine says of its buffers; `None` if it says nothing."""

    @property
    def held_bytes(self) -> int:
        """What must be kept for it: what it has, and what it may still take."""
        return self.anonymous_bytes + self.promised_bytes + self.file_bytes


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """What one request cost in the runner."""

    queue_s: float = 0.0
    """From arrival to a slot."""
    prefill_s: float = 0.0
    decode_s: float = 0.0
    prompt_tokens: int = 0
    """Tokens of the prompt, cached ones included."""
    cached_tokens: int = 0
    """Tokens of the prompt that had been computed before, for this or another request."""
    generated_tokens: int = 0
    forced_tokens: int = 0
    """Generated tokens that a grammar left no choice of: computed together, never sampled."""
    healed: int = 0
    """How often another runner has gone on with the answer: the daemon counts it, no runner can."""


class EngineGauges(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine does, at a moment. Totals count from the model's load."""

    slots_busy: int = 0
    waiting: int = 0
    """Requests without a slot."""
    kv_cells: int = 0
    """Tokens the KV cache can hold."""
    kv_used: int = 0
    """Tokens it holds."""
    kv_shared: int = 0
    """Tokens it holds that more than one sequence uses."""
    idle_sequences: int = 0
    """Ended requests whose tokens are kept for later ones."""
    steps: int = 0
    step_s: float = 0.0
    """Time all steps took together."""
    batch_tokens: int = 0
    """Tokens all steps computed together; by `steps` it is the occupancy of a batch."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    forced_tokens: int = 0


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token and the natural logarithm of its probability."""

    token: int
    piece: bytes
    logprob: float

    @property
    def text(self) -> str:
        """The piece as text; what is no whole character is U+FFFD."""
        return self.piece.decode(errors="replace")


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
    grammar: Grammar | None = None
    """What the answer must look like; `None` is anything."""
    partition: str = ""
    """Only requests of the same partition share what they computed, so that the time an answer
    takes tells nobody about other people's prompts."""
    shift: bool = False
    """Go on past the context's end by dropping old tokens, where the model can."""
    shown_tokens: tuple[str, ...] = ()
    """Control tokens whose text belongs to the answer, such as the marks of tool calls. All others
    have none. In a Lark grammar, strings that are one of these stand for the token."""
    answered: tuple[int, ...] = ()
    """Tokens of the answer that another runner has generated already: go on after them. Their text
    is not sent again, and they count towards `num_predict` but not in `Timings`."""


class Tokenize(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Turn text into token ids."""

    id: RequestId
    text: str
    add_special: bool = True


class Embed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Turn texts into vectors, as many at once as fit."""

    id: RequestId
    texts: tuple[str, ...]
    truncate: bool = True
    """Cut what is longer than the context; else such a text is an error."""
    dimensions: int = 0
    """Keep the first so many elements; 0 is all."""
    normalize: bool = True
    """Scale each vector to length 1, after the cut to `dimensions`."""


class Rank(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Say how well each document answers the query. For models with a rank head."""

    id: RequestId
    query: str
    documents: tuple[str, ...]
    truncate: bool = True


class Threads(msgspec.Struct, frozen=True, tag=True):
    """Compute with so many threads from the next step on: others need the cores, or no longer."""

    n_threads: int


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Nobody waits for this request any more. Legal at any time, also for an unknown id."""

    id: RequestId


class Shutdown(msgspec.Struct, frozen=True, tag=True):
    """Exit now. Open requests are abandoned: whoever asks has drained before."""


ToRunner = Load | Generate | Tokenize | Embed | Rank | Cancel | Threads | Shutdown

# From the runner


class Hello(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The runner is up and waits for `Load`."""

    protocol: int
    pid: int
    build: str
    """What computes: library, version, CPU features."""
    confinement: tuple[str, ...] = ()
    """What it has given up already, by the names of `ollamad.runners.walls.Wall`."""


class LoadProgress(msgspec.Struct, frozen=True, tag=True):
    """How much of the weights is in, 0 to 1."""

    fraction: float


class Loaded(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The model answers requests now."""

    n_ctx: int
    n_slots: int
    memory: MemoryUse
    memory_kind: MemoryKind = MemoryKind.WHOLE


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
    stop: str | None = None
    """The stop text that ended it; `None` if none did."""
    prompt: tuple[int, ...] = ()
    """The prompt's token ids, when asked for."""
    rest: str = ""
    """The end of the text: what was held back because it could have become a stop text. It comes
    with the end and not as a delta, since no tokens would tell another runner that it was sent."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A request ended without an answer. Others are not affected."""

    id: RequestId
    code: FailureCode
    detail: str


class Tokenized(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Tokenize`."""

    id: RequestId
    tokens: tuple[int, ...]


class Embedded(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The answer to `Embed`."""

    id: RequestId
    vectors: bytes
    """Little-endian float32, `n_dims` for each text, in the order of the texts."""
    n_dims: int
    prompt_tokens: int
    """Tokens of all texts, after truncation."""
    timings: Timings


class Ranked(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The answer to `Rank`."""

    id: RequestId
    scores: tuple[float, ...]
    """As the model gives them, higher is better, in the order of the documents."""
    prompt_tokens: int
    timings: Timings


class Beat(msgspec.Struct, frozen=True, tag=True):
    """The engine's progress, sent while it has work and once when it has none any more.

    A hung engine stops counting steps.
    """

    gauges: EngineGauges


FromRunner = (
    Hello
    | LoadProgress
    | Loaded
    | LoadFailed
    | Deltas
    | Finished
    | Failed
    | Tokenized
    | Embedded
    | Ranked
    | Beat
)
