"""Facts about a model, whoever read them: `GgufFacts` of the weights, `StoredModel` of the store.

Sizes are bytes, lengths are tokens. Nothing here is computed from a running model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NewType

from ollamad.names import ModelName

WeightsId = NewType("WeightsId", str)
"""The digest of a model's weights: models that share it share a runner."""


_POOLING_RANK: Final = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KvShape:
    """What one token costs in the KV cache."""

    key_length: int
    """Elements of one head's key."""
    value_length: int
    """Elements of one head's value."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerInfo:
    """One transformer layer of the weights."""

    weights_bytes: int
    n_head_kv: int
    """Heads that keep keys and values; 0 where a layer keeps none."""
    kv_shape: KvShape | None = None
    """Its own, where it is not the model's."""
    is_windowed: bool = False
    """It looks at the last `GgufFacts.window` tokens only."""
    state_elements: int = 0
    """Its running state, in 32-bit elements for one sequence; 0 for a layer without one."""
    repacked_bytes: int = 0
    """Those of its weights that a processor wants in another order than the file's."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GgufFacts:
    """What a GGUF file's header says, as far as the daemon uses it."""

    architecture: str
    kind: str
    """`general.type`: `model`, `adapter`, `projector`; `model` when unsaid."""
    n_params: int
    """Elements of all tensors."""
    file_type: str
    """Name of the quantisation, such as `Q4_K_M`; `unknown` when unsaid."""
    file_bytes: int
    n_ctx_train: int
    """Context length the model was trained for; 0 when unsaid."""
    n_embd: int
    n_vocab: int
    layers: tuple[LayerInfo, ...]
    other_weights_bytes: int
    """Weights outside the layers: embeddings, output, norms."""
    kv_shape: KvShape
    window: int = 0
    """Tokens that windowed layers look back; 0 without such layers."""
    keeps_context: bool = True
    """It keeps what it has read. A model that reads its input at once has no KV cache."""
    input_weights_bytes: int = 0
    """Those of the other weights that turn tokens into vectors: always in main memory."""
    tied_output_bytes: int = 0
    """Embeddings that serve as output, too: a device that computes the output has a copy."""
    n_head: int = 0
    """Attention heads of the widest layer."""
    n_ff: int = 0
    """Width of the widest feed-forward layer."""
    n_tensors: int = 0
    n_merges: int = 0
    """Merge rules of a byte-pair vocabulary."""
    pooling_type: int | None
    """`<arch>.pooling_type`: the model makes embeddings, not text."""
    has_vision: bool
    has_audio: bool
    chat_template: str
    """The Jinja chat template, empty when there is none."""
    bos_token: str
    eos_token: str
    infill_tokens: tuple[str, ...] = ()
    """What stands before a text to be filled in, before what follows it, and before what the model
    writes between them; none where the model has no such tokens."""
    add_bos: bool
    """The tokenizer puts the begin-of-sequence token in front by itself."""
    add_eos: bool

    @property
    def is_ranking(self) -> bool:
        """The model says how well a text answers another one: its pooling is llama.cpp's `rank`."""
        return self.pooling_type == _POOLING_RANK

    @property
    def is_embedding(self) -> bool:
        """The model pools its input into one vector and cannot generate."""
        return self.pooling_type is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """One message kept with a model (Modelfile `MESSAGE`)."""

    role: str
    content: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelDetails:
    """The `details` that Ollama shows of a model."""

    parent_model: str
    format: str
    family: str
    families: tuple[str, ...]
    parameter_size: str
    quantization_level: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model of the store, read completely: everything a request needs to use it."""

    name: ModelName
    digest: str
    """Hexadecimal SHA-256 of the manifest file, without a prefix."""
    size_bytes: int
    """Sum of the manifest's layers and its config."""
    modified_at: datetime
    details: ModelDetails
    weights_id: WeightsId
    weights_path: Path
    facts: GgufFacts
    projector_paths: tuple[Path, ...] = ()
    adapter_paths: tuple[Path, ...] = ()
    template: str | None = None
    """The template layer: Ollama's Go template, or Jinja; `None` when there is none."""
    system: str = ""
    licenses: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options in API names, as stored."""
    messages: tuple[StoredMessage, ...] = ()
    requires: str = ""
    renderer: str = ""
    """Ollama's built-in renderer that the model names. Not used, but kept when it is shown."""
    parser: str = ""
    """The same of its parser of answers."""
    capabilities: tuple[str, ...] = ()
