"""The Ollama API's request and response types, in its own names and its order of keys.

Fields that have a default are left out of an answer while they have it. Times are RFC 3339,
durations nanoseconds.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

NS_PER_S: Final = 1_000_000_000

NUMBER_MAX: Final = 2**31 - 1
"""The largest whole number the engine takes."""

TokenId = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
"""What the engine takes as a token; larger numbers could not even be sent to it."""

# Requests. `None` is "not given"; types that Ollama checks by itself are `Any` here.


class GenerateRequest(msgspec.Struct, kw_only=True):
    """POST /api/generate."""

    model: str = ""
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: list[TokenId] = []
    stream: bool = True
    raw: bool = False
    format: Any = None
    keep_alive: Any = None
    images: list[str] = []
    options: dict[str, Any] = {}
    think: Any = None
    truncate: bool = True
    shift: bool | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    debug_render_only: bool = msgspec.field(default=False, name="_debug_render_only")


class Function(msgspec.Struct, kw_only=True):
    """The function of a tool call. Its arguments are there also when there are none."""

    index: int | msgspec.UnsetType = msgspec.UNSET
    """The call's place among those of one answer; requests may leave it out."""
    name: str
    arguments: dict[str, Any] = {}


class ToolCall(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A call that the model made."""

    id: str | None = None
    function: Function


class Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message of a conversation."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ChatRequest(msgspec.Struct, kw_only=True):
    """POST /api/chat."""

    model: str = ""
    messages: list[Message] = []
    tools: list[dict[str, Any]] = []
    stream: bool = True
    format: Any = None
    keep_alive: Any = None
    options: dict[str, Any] = {}
    think: Any = None
    truncate: bool = True
    shift: bool | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    debug_render_only: bool = msgspec.field(default=False, name="_debug_render_only")


class EmbedRequest(msgspec.Struct, kw_only=True):
    """POST /api/embed."""

    model: str = ""
    input: Any = None
    truncate: bool = True
    dimensions: int = 0
    keep_alive: Any = None
    options: dict[str, Any] = {}


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """POST /api/embeddings, the older one."""

    model: str = ""
    prompt: str = ""
    keep_alive: Any = None
    options: dict[str, Any] = {}


class RerankRequest(msgspec.Struct, kw_only=True, rename={"truncate": "truncation"}):
    """POST /api/rerank. Not in Ollama's API."""

    model: str = ""
    query: str = ""
    documents: list[Any] = []
    top_n: int | None = None
    return_documents: bool = False
    truncate: bool = True
    keep_alive: Any = None
    options: dict[str, Any] = {}


class ModelRequest(msgspec.Struct, kw_only=True):
    """A body that names a model: show and delete. `name` is the old spelling."""

    model: str = ""
    name: str = ""
    verbose: bool = False
    system: str = ""
    options: dict[str, Any] = {}


class CopyRequest(msgspec.Struct, kw_only=True):
    """POST /api/copy."""

    source: str = ""
    destination: str = ""


class CreateRequest(msgspec.Struct, kw_only=True, rename={"from_": "from"}):
    """POST /api/create."""

    model: str = ""
    name: str = ""
    stream: bool = True
    from_: str = ""
    remote_host: str = ""
    files: dict[str, str] = {}
    adapters: dict[str, str] = {}
    draft_files: dict[str, str] = {}
    draft_quantize: str = ""
    template: str = ""
    license: Any = None
    system: str = ""
    parameters: dict[str, Any] = {}
    messages: list[Message] = []
    quantize: str = ""
    quantization: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: dict[str, Any] = {}


# Answers


class LogprobEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A token and its log-probability."""

    token: str
    logprob: float
    bytes: list[int] = []
    top_logprobs: list[LogprobEntry] = []


class DebugInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What `_debug_render_only` asks for."""

    rendered_template: str
    image_count: int = 0


class PromptTruncated(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What of a prompt did not fit into the context. Not in Ollama's API, which does not tell."""

    messages: int = msgspec.field()
    """Messages that were left out."""
    tokens_before: int = msgspec.field()
    """Tokens of the whole prompt."""
    tokens_after: int = msgspec.field()
    """Tokens of what the model was given."""
    cut: bool = False
    """The middle of what was left was cut out, too."""


class GenerateResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One object of /api/generate's answer."""

    model: str
    created_at: str
    response: str
    thinking: str = ""
    done: bool = msgspec.field()
    done_reason: str = ""
    context: list[int] = []
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    queue_duration: int = 0
    """From the runner's having it to a slot. This and the next four are not in Ollama's API."""
    prompt_cached_count: int = 0
    eval_forced_count: int = 0
    healed_count: int = 0
    prompt_truncated: PromptTruncated | None = None
    tool_calls: list[ToolCall] = []
    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")
    logprobs: list[LogprobEntry] = []


class AnswerMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The message of a chat's answer."""

    role: str
    content: str
    thinking: str = ""
    tool_calls: list[ToolCall] = []


class ChatResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One object of /api/chat's answer."""

    model: str
    created_at: str
    message: AnswerMessage
    done: bool
    done_reason: str = ""
    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")
    logprobs: list[LogprobEntry] = []
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    queue_duration: int = 0
    """From the runner's having it to a slot. This and the next four are not in Ollama's API."""
    prompt_cached_count: int = 0
    eval_forced_count: int = 0
    healed_count: int = 0
    prompt_truncated: PromptTruncated | None = None


class EmbedResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer of /api/embed."""

    model: str
    embeddings: msgspec.Raw
    """A list of lists of numbers."""
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class EmbeddingsResponse(msgspec.Struct):
    """The answer of /api/embeddings."""

    embedding: list[float]


class RankedDocument(msgspec.Struct, kw_only=True):
    """One document of a ranking."""

    index: int
    """Its place among those of the request."""
    relevance_score: float
    document: Any = msgspec.UNSET
    """As it was given, for those who want it back."""


class RerankResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer of /api/rerank, the best document first."""

    model: str
    results: list[RankedDocument]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class Details(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a model is, in short."""

    parent_model: str
    format: str
    family: str
    families: list[str] | None
    parameter_size: str
    quantization_level: str
    context_length: int = 0
    embedding_length: int = 0


class ListedModel(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One model of /api/tags."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    capabilities: list[str] = []


class TagsResponse(msgspec.Struct):
    """GET /api/tags."""

    models: list[ListedModel]


class EngineNumbers(msgspec.Struct, kw_only=True):
    """What a running model's engine does. Not in Ollama's API. Totals count from its load."""

    slots: int
    slots_busy: int
    waiting: int
    kv_cells: int
    kv_used: int
    kv_shared: int
    idle_sequences: int
    steps: int
    step_duration: int
    """Nanoseconds of all steps together."""
    batch_tokens: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    forced_tokens: int


class RunningModel(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One model of /api/ps."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int
    engine: EngineNumbers | None = None


class PsResponse(msgspec.Struct):
    """GET /api/ps."""

    models: list[RunningModel]


class TensorEntry(msgspec.Struct):
    """One tensor of a model."""

    name: str
    type: str
    shape: list[int]


class ShowMessage(msgspec.Struct):
    """A message stored with a model."""

    role: str
    content: str


class ShowResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """POST /api/show."""

    license: str = ""
    modelfile: str = msgspec.field()
    parameters: str = ""
    template: str = ""
    system: str = ""
    details: Details = msgspec.field()
    messages: list[ShowMessage] = []
    model_info: dict[str, Any] = msgspec.field()
    projector_info: dict[str, Any] = {}
    tensors: list[TensorEntry] = []
    capabilities: list[str] = []
    modified_at: str = msgspec.field()
    requires: str = ""


class StatusLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of a create, pull or push."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


class CloudStatus(msgspec.Struct):
    """Whether Ollama's cloud is used, and where that is said."""

    disabled: bool
    source: str


class StatusResponse(msgspec.Struct):
    """GET /api/status."""

    cloud: CloudStatus


class RecommendationsResponse(msgspec.Struct):
    """GET /api/experimental/model-recommendations."""

    recommendations: list[dict[str, Any]]


class VersionResponse(msgspec.Struct):
    """GET /api/version."""

    version: str
    """Of Ollama's API: clients refuse to work with an old one."""
    ollamad: str
    """Ours. Not in Ollama's API."""


def encode(answer: msgspec.Struct | str) -> bytes:
    """Return *answer* as JSON, with the characters escaped that Ollama's encoder escapes.

    They can only stand inside strings, so replacing them in the encoded bytes is safe. Clients
    that paste an answer into a page rely on it.
    """
    data = _ENCODER.encode(answer)
    if _MARKED(data) is not None:
        for mark, escaped in _MARKS.items():
            data = data.replace(mark, escaped)
    return data


class LinePattern:
    """Makes lines that differ in their time and text only, as `encode` would make them.

    Encoding such an object anew for each token costs more than everything else about the line.
    """

    TIME: Final = "\0time"
    TEXT: Final = "\0text"
    """What *example* has in their places. No name of a model has such a character."""

    def __init__(self, example: msgspec.Struct) -> None:
        self._before, _, rest = encode(example).partition(_ENCODER.encode(self.TIME)[1:-1])
        self._between, _, after = rest.partition(_ENCODER.encode(self.TEXT))
        self._after = after + b"\n"
        self._stamps = Stamps()

    def line(self, now: datetime, text: str) -> bytes:
        """Return the line. *now* is UTC."""
        created_at = self._stamps.text(now).encode()
        return b"".join((self._before, created_at, self._between, encode(text), self._after))


_ENCODER: Final = msgspec.json.Encoder()
_MARKS: Final = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}


_MARKED: Final = re.compile(b"|".join(_MARKS)).search


def rfc3339(moment: datetime) -> str:
    """Return an aware time as Ollama writes it: fraction without trailing zeros, Z for UTC."""
    text = moment.isoformat()
    end = len("2026-08-21T10:00:00.000000" if moment.microsecond else "2026-08-21T10:00:00")
    offset = text[end : end + len("+00:00")]
    whole = text[:end].rstrip("0") if moment.microsecond else text[:end]
    return whole + ("Z" if offset in {"", "+00:00"} else offset)


class Stamps:
    """`rfc3339` for the lines of one stream, whose times are all UTC: most share their second."""

    def __init__(self) -> None:
        self._second: datetime | None = None
        self._text = ""

    def text(self, moment: datetime) -> str:
        """Return *moment* as `rfc3339` does."""
        second = moment.replace(microsecond=0)
        if second != self._second:
            self._second, self._text = second, rfc3339(second).removesuffix("Z")
        if not moment.microsecond:
            return self._text + "Z"
        return f"{self._text}.{moment.microsecond:06d}".rstrip("0") + "Z"


def nanoseconds(seconds: float) -> int:
    """Return a duration as the API has it."""
    return round(seconds * NS_PER_S)
