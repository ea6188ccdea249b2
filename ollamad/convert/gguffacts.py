"""What a GGUF header means for the daemon: `facts(header)` makes `GgufFacts` of it.

Defaults follow the engine's own loader, so that what we plan and render is what it will do.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from ollamad.convert.contextfacts import context_facts
from ollamad.convert.ggufheader import GgufHeader, LazyArray, TensorInfo
from ollamad.convert.gguftypes import FILE_TYPES, UNKNOWN_FILE_TYPE
from ollamad.convert.ggufvalues import dimension, per_layer
from ollamad.errors import NotGguf
from ollamad.modelinfo import GgufFacts, LayerInfo

LAYERS_MAX: Final = 4096
"""Transformer layers of one model; the largest known have about 130."""
_REPACKED_TYPES: Final = frozenset({"IQ4_NL", "MXFP4", "Q4_0", "Q4_K"})
"""Quantisations that the engine multiplies faster when it has put them into another order: on x86
with AVX2, and on ARM."""
_REPACKED_ROWS: Final = 8
"""It does so for matrices of a multiple of so many rows."""
_INPUT_TENSORS: Final = ("token_embd.", "position_embd.", "token_types.", "per_layer_token_embd.")
"""Beginnings of the names of tensors that the engine never puts on a GPU."""

# Byte-pair vocabularies get no begin-of-sequence token unless their pre-tokenizer is one of these:
# the engine sets it for them when the file does not say.
_PRE_WITH_BOS: Final = frozenset(
    {
        "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
        "jina-v5-nano", "tekken", "chameleon",
    }
)  # fmt: skip
_MODELS_WITH_BOS: Final = frozenset({"llama", "bert", "gemma4"})
_MODELS_WITH_EOS: Final = frozenset({"t5"})
# Ids the engine assumes when the file has none. Its guess for byte-pair vocabularies (11, which is
# Falcon's) is left out: a wrong text in a prompt is worse than none.
_DEFAULT_BOS: Final = {"llama": 1, "plamo2": 1, "bert": 101}
_DEFAULT_EOS: Final = {"llama": 2, "plamo2": 2, "t5": 1}


def facts(header: GgufHeader) -> GgufFacts:
    """Return what the daemon needs to know of a GGUF file. Raises NotGguf."""
    architecture = header.text("general.architecture")
    if not architecture:
        raise NotGguf("the GGUF file does not name its architecture (general.architecture)")
    n_layer = dimension(header, f"{architecture}.block_count")
    if n_layer > LAYERS_MAX:
        raise NotGguf(f"broken GGUF: {n_layer} layers, at most {LAYERS_MAX} are read")
    weights = _weights_by_layer(header.tensors, n_layer)
    context = context_facts(header, architecture, n_layer)
    tokens = _special_tokens(header)
    add_bos, add_eos = _added_tokens(header)
    return GgufFacts(
        architecture=architecture,
        kind=_kind(header, architecture, n_layer),
        n_params=sum(tensor.n_elements for tensor in header.tensors),
        file_type=_file_type(header),
        file_bytes=header.file_bytes,
        n_ctx_train=dimension(header, f"{architecture}.context_length"),
        n_embd=dimension(header, f"{architecture}.embedding_length"),
        n_vocab=_n_vocab(header, architecture),
        layers=tuple(
            LayerInfo(
                weights_bytes=layer_weights.n_bytes,
                repacked_bytes=layer_weights.n_repacked_bytes,
                n_head_kv=layer.n_head_kv,
                kv_shape=layer.kv_shape,
                is_windowed=layer.is_windowed,
                state_elements=layer.state_elements,
            )
            for layer_weights, layer in zip(weights.layers, context.layers, strict=True)
        ),
        other_weights_bytes=weights.other_bytes,
        kv_shape=context.kv_shape,
        window=context.window,
        keeps_context=context.keeps_context,
        input_weights_bytes=_bytes_of(header.tensors, _INPUT_TENSORS),
        tied_output_bytes=_tied_output_bytes(header.tensors),
        n_head=_widest(header, f"{architecture}.attention.head_count", n_layer),
        n_ff=_widest(header, f"{architecture}.feed_forward_length", n_layer),
        n_tensors=len(header.tensors),
        n_merges=_length(header, "tokenizer.ggml.merges"),
        pooling_type=header.integer(f"{architecture}.pooling_type"),
        has_vision=_has_encoder(header, architecture, "vision"),
        has_audio=_has_encoder(header, architecture, "audio"),
        chat_template=header.text("tokenizer.chat_template"),
        bos_token=tokens.bos,
        eos_token=tokens.eos,
        infill_tokens=tokens.infill if all(tokens.infill) else (),
        add_bos=add_bos,
        add_eos=add_eos,
    )


def _file_type(header: GgufHeader) -> str:
    number = header.integer("general.file_type")
    return UNKNOWN_FILE_TYPE if number is None else FILE_TYPES.get(number, UNKNOWN_FILE_TYPE)


def _kind(header: GgufHeader, architecture: str, n_layer: int) -> str:
    """Return `adapter`, `projector` or `model`.

    1. `general.type` says it (`mmproj` is a projector's other name).
    2. No text layers, but layers that see: a projector.
    3. Architecture `clip` with an encoder flag: a projector from before `general.type`.
    """
    stated = header.text("general.type")
    if stated in {"projector", "mmproj"}:
        return "projector"
    if n_layer == 0 and dimension(header, f"{architecture}.vision.block_count") > 0:
        return "projector"
    if architecture == "clip" and n_layer == 0 and _has_clip_flag(header):
        return "projector"
    return stated or "model"


def _has_clip_flag(header: GgufHeader) -> bool:
    return any(header.flag(f"clip.has_{sense}_encoder") for sense in ("vision", "audio"))


def _has_encoder(header: GgufHeader, architecture: str, sense: str) -> bool:
    # This projector carries an audio encoder that nothing can use.
    if sense == "audio" and header.text("clip.projector_type") == "gemma3nv":
        return False
    return f"{architecture}.{sense}.block_count" in header.metadata or bool(
        header.flag(f"{architecture}.has_{sense}_encoder")
    )


@dataclasses.dataclass(slots=True)
class _LayerWeights:
    n_bytes: int = 0
    n_repacked_bytes: int = 0


@dataclasses.dataclass(slots=True)
class _Weights:
    layers: list[_LayerWeights]
    other_bytes: int = 0


def _weights_by_layer(tensors: tuple[TensorInfo, ...], n_layer: int) -> _Weights:
    weights = _Weights([_LayerWeights() for _ in range(n_layer)])
    for tensor in tensors:
        parts = tensor.name.split(".", 2)
        number = parts[1] if len(parts) == 3 and parts[0] == "blk" else ""
        if number.isascii() and number.isdigit() and len(number) <= 4 and int(number) < n_layer:
            layer = weights.layers[int(number)]
            layer.n_bytes += tensor.n_bytes
            if _is_repacked(tensor):
                layer.n_repacked_bytes += tensor.n_bytes
        else:
            weights.other_bytes += tensor.n_bytes
    return weights


def _is_repacked(tensor: TensorInfo) -> bool:
    return (
        tensor.type.name in _REPACKED_TYPES
        and len(tensor.shape) > 1
        and tensor.shape[1] % _REPACKED_ROWS == 0
    )


def _bytes_of(tensors: tuple[TensorInfo, ...], beginnings: tuple[str, ...]) -> int:
    return sum(tensor.n_bytes for tensor in tensors if tensor.name.startswith(beginnings))


def _tied_output_bytes(tensors: tuple[TensorInfo, ...]) -> int:
    if any(tensor.name == "output.weight" for tensor in tensors):
        return 0
    return _bytes_of(tensors, ("token_embd.weight",))


def _widest(header: GgufHeader, key: str, n_layer: int) -> int:
    return max(per_layer(header, key, n_layer) or [0], default=0)


def _length(header: GgufHeader, key: str) -> int:
    values = header.metadata.get(key)
    return len(values) if isinstance(values, tuple | LazyArray) else 0


def _n_vocab(header: GgufHeader, architecture: str) -> int:
    n_tokens = _length(header, "tokenizer.ggml.tokens")
    return n_tokens or dimension(header, f"{architecture}.vocab_size")


@dataclasses.dataclass(frozen=True, slots=True)
class _Tokens:
    """Texts of special tokens; empty where there is none."""

    bos: str
    eos: str
    infill: tuple[str, ...]


def _special_tokens(header: GgufHeader) -> _Tokens:
    model = header.text("tokenizer.ggml.model")
    bos = header.integer("tokenizer.ggml.bos_token_id")
    eos = header.integer("tokenizer.ggml.eos_token_id")
    ids = (
        _DEFAULT_BOS.get(model, -1) if bos is None else bos,
        _DEFAULT_EOS.get(model, -1) if eos is None else eos,
        *(_infill_id(header, part) for part in ("pre", "suf", "mid")),
    )
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, LazyArray):
        found = tokens.pick(ids)
    elif isinstance(tokens, tuple):
        found = {index: tokens[index] for index in ids if 0 <= index < len(tokens)}
    else:
        found = {}
    texts = [text if isinstance(text := found.get(index), str) else "" for index in ids]
    return _Tokens(texts[0], texts[1], tuple(texts[2:]))


def _infill_id(header: GgufHeader, part: str) -> int:
    older = {"pre": "prefix", "suf": "suffix", "mid": "middle"}[part]
    for key in (f"tokenizer.ggml.fim_{part}_token_id", f"tokenizer.ggml.{older}_token_id"):
        if (index := header.integer(key)) is not None:
            return index
    return -1


def _added_tokens(header: GgufHeader) -> tuple[bool, bool]:
    """Return whether the tokenizer itself adds a begin and an end token.

    1. Gemma 4 always has a begin token: early files say otherwise, and the engine overrides them.
    2. The file says it.
    3. What the engine does for this kind of vocabulary.
    """
    model, pre = header.text("tokenizer.ggml.model"), header.text("tokenizer.ggml.pre")
    add_bos = header.flag("tokenizer.ggml.add_bos_token")
    add_eos = header.flag("tokenizer.ggml.add_eos_token")
    is_bpe = model in {"gpt2", "hybriddna", "whitespace"}
    if model == "gemma4" or (is_bpe and pre == "gemma4"):
        add_bos = True
    if add_bos is None:
        add_bos = model in _MODELS_WITH_BOS or (is_bpe and pre in _PRE_WITH_BOS)
    if add_eos is None:
        add_eos = model in _MODELS_WITH_EOS
    return add_bos, add_eos
