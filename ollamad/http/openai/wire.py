"""The types of OpenAI's API, but those of `/v1/responses`, in its own names.

Fields that have a default are left out of an answer while they have it. Times are seconds since
1970, numbers of tokens whole. `None` in a request is "not given"; what may have several types is
`Any` there and read in `reading`, `constraints` and `asking`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

FINGERPRINT: Final = "fp_ollama"
"""What computes, as Ollama tells it: there is no more to it."""

# Requests


class AskedFunction(msgspec.Struct, kw_only=True):
    """The function of a call that the model made earlier."""

    name: str
    arguments: Any = None
    """A text with a JSON object."""


class AskedCall(msgspec.Struct, kw_only=True):
    """A call that the model made earlier."""

    id: str | None = None
    type: str = "function"
    function: AskedFunction


class AskedMessage(msgspec.Struct, kw_only=True):
    """One message of a conversation."""

    role: str
    content: Any = None
    """A text, or parts."""
    name: str | None = None
    """Of the tool, in its answer."""
    reasoning: str | None = None
    reasoning_content: str | None = None
    """Another name of it, as other servers have it."""
    tool_calls: list[AskedCall] = []
    tool_call_id: str | None = None


class StreamOptions(msgspec.Struct, kw_only=True):
    """What a stream has beside the answer."""

    include_usage: bool = False


class Reasoning(msgspec.Struct, kw_only=True):
    """How much to think."""

    effort: str | None = None


class Sampled(msgspec.Struct, kw_only=True):
    """What all requests for text have in common."""

    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: Any = None
    """A text, or several."""
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None
    response_format: Any = None
    # What other servers of this API have.
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    """Another name of it."""
    ignore_eos: bool | None = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    structured_outputs: dict[str, Any] | None = None
    """The same four, by the keys `json`, `regex`, `choice` and `grammar`."""
    grammar: Any = None
    # What Ollama's own API has.
    options: dict[str, Any] = {}
    keep_alive: Any = None


class ChatRequest(Sampled, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[AskedMessage] = []
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    tools: list[dict[str, Any]] = []
    tool_choice: Any = None
    parallel_tool_calls: bool = True
    reasoning_effort: str | None = None
    reasoning: Reasoning | None = None
    chat_template_kwargs: dict[str, Any] = {}
    think: Any = None
    debug_render_only: bool = msgspec.field(default=False, name="_debug_render_only")


class CompletionRequest(Sampled, kw_only=True):
    """POST /v1/completions."""

    prompt: Any = None
    """A text, its tokens, or several of either."""
    suffix: str | None = None
    echo: bool = False
    best_of: int | None = None
    logprobs: Any = None
    """How many likeliest tokens are told beside the chosen one."""
    raw: bool = False
    """The prompt is sent as it is. Ollama's native name for it."""


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """POST /v1/embeddings."""

    model: str = ""
    input: Any = None
    encoding_format: str = "float"
    dimensions: int | None = None
    truncate: bool = False
    """Cut what is too long. Ollama's native name for it."""
    options: dict[str, Any] = {}
    keep_alive: Any = None


class RerankRequest(msgspec.Struct, kw_only=True):
    """POST /v1/rerank, as Jina and Cohere have it."""

    model: str = ""
    query: str = ""
    documents: list[Any] = []
    top_n: int | None = None
    return_documents: bool = False
    truncate: bool = True
    keep_alive: Any = None


# Answers


class TokenChance(msgspec.Struct, kw_only=True):
    """A token and the natural logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobs(TokenChance, kw_only=True):
    """A token of an answer, and the likeliest ones in its place."""

    top_logprobs: list[TokenChance]


class ChatLogprobs(msgspec.Struct):
    """Log-probabilities of an answer's tokens."""

    content: list[TokenLogprobs]


class CompletionLogprobs(msgspec.Struct, kw_only=True):
    """Log-probabilities of an answer's tokens, a list for each fact."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]
    """Where each token begins in the text, in characters."""


class CalledFunction(msgspec.Struct, kw_only=True):
    """The function of a call."""

    name: str
    arguments: str
    """A JSON object."""


class MadeCall(msgspec.Struct, kw_only=True):
    """A call that the model made."""

    id: str
    index: int
    type: str = "function"
    function: CalledFunction


class ChatMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The message of an answer."""

    role: str = msgspec.field()
    content: str = msgspec.field()
    reasoning: str = ""
    tool_calls: list[MadeCall] = []


class ChatDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is new of a message."""

    role: str | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType = msgspec.UNSET
    reasoning: str = ""
    tool_calls: list[MadeCall] = []


class ChatChoice(msgspec.Struct, kw_only=True):
    """One of the answers."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | msgspec.UnsetType = msgspec.UNSET
    finish_reason: str | None


class ChatChunkChoice(msgspec.Struct, kw_only=True):
    """What is new of one of the answers."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | msgspec.UnsetType = msgspec.UNSET
    finish_reason: str | None


class CompletionChoice(msgspec.Struct, kw_only=True):
    """One of the answers, or what is new of it."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None


class PromptTokens(msgspec.Struct, kw_only=True):
    """Tokens of the prompt."""

    cached_tokens: int
    """Those that had been computed before."""


class CompletionTokens(msgspec.Struct, kw_only=True):
    """Tokens of the answers."""

    reasoning_tokens: int


class Usage(msgspec.Struct, kw_only=True):
    """What a request cost, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens
    completion_tokens_details: CompletionTokens


class DebugInfo(msgspec.Struct, kw_only=True):
    """What `_debug_render_only` asks for."""

    rendered_template: str


class ChatCompletion(msgspec.Struct, kw_only=True):
    """The answer of /v1/chat/completions."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[ChatChoice]
    usage: Usage | msgspec.UnsetType = msgspec.UNSET
    debug_info: DebugInfo | msgspec.UnsetType = msgspec.field(
        default=msgspec.UNSET, name="_debug_info"
    )


class ChatChunk(msgspec.Struct, kw_only=True):
    """One event of /v1/chat/completions."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[ChatChunkChoice]
    usage: Usage | msgspec.UnsetType = msgspec.UNSET


class Completion(msgspec.Struct, kw_only=True):
    """The answer of /v1/completions, or one event of it."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[CompletionChoice]
    usage: Usage | msgspec.UnsetType = msgspec.UNSET


class EmbeddingEntry(msgspec.Struct, kw_only=True):
    """One vector."""

    object: str = "embedding"
    embedding: Any
    """Numbers, or base64 of their 32 bits each, the lowest first."""
    index: int


class InputUsage(msgspec.Struct, kw_only=True):
    """What a request cost that has no answer in tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(msgspec.Struct, kw_only=True):
    """The answer of /v1/embeddings."""

    object: str = "list"
    data: list[EmbeddingEntry]
    model: str
    usage: InputUsage


class RankedText(msgspec.Struct):
    """A document that was ranked."""

    text: str


class RerankResult(msgspec.Struct, kw_only=True):
    """One document of a ranking."""

    index: int
    relevance_score: float
    """From 0 to 1."""
    document: RankedText | msgspec.UnsetType = msgspec.UNSET


class RerankResponse(msgspec.Struct, kw_only=True):
    """The answer of /v1/rerank, the best document first."""

    id: str
    object: str = "list"
    model: str
    results: list[RerankResult]
    usage: InputUsage


class ModelEntry(msgspec.Struct, kw_only=True):
    """One model."""

    id: str
    object: str = "model"
    created: int
    owned_by: str


class ModelList(msgspec.Struct, kw_only=True):
    """GET /v1/models."""

    object: str = "list"
    data: list[ModelEntry]
