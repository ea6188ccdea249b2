"""Tiny models with weights by chance, of architectures whose memory cannot be shared at will.

What they say is nonsense, but the same nonsense each time: enough to see that sharing, cutting and
batching change nothing. Their vocabulary is a real model's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, GGUFValueType, GGUFWriter

N_EMBD: Final = 64
WINDOW: Final = 24
"""Tokens that layers with a window look back."""
_N_FF: Final = 128
_HEAD: Final = 16
_N_HEADS: Final = 4


class _Weights:
    """Writes tensors of seeded chance. Shapes are numpy's: the slowest dimension first."""

    def __init__(self, writer: GGUFWriter, seed: int) -> None:
        self._writer = writer
        self._chance = np.random.default_rng(seed)

    def noise(self, name: str, *shape: int, scale: float | None = None) -> None:
        """Write a matrix that keeps the size of what it is multiplied with."""
        scale = shape[-1] ** -0.5 if scale is None else scale
        self.write(name, self._chance.normal(0.0, scale, shape))

    def ones(self, name: str, n: int) -> None:
        self.write(name, np.ones(n))

    def write(self, name: str, values: npt.NDArray[np.float64]) -> None:
        self._writer.add_tensor(name, values.astype(np.float32))


def write_gemma3(source: Path, target: Path) -> None:
    """Write a model most of whose layers look at a window of WINDOW tokens only."""
    n_layers = 6  # Of six layers, llama.cpp gives the last one all tokens.
    writer, n_vocab = _begun(source, target, "gemma3", n_layers)
    writer.add_feed_forward_length(_N_FF)
    writer.add_head_count(_N_HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(_HEAD)
    writer.add_value_length(_HEAD)
    writer.add_sliding_window(WINDOW)
    writer.add_layer_norm_rms_eps(1e-6)
    weights = _Weights(writer, seed=3)
    weights.noise("token_embd.weight", n_vocab, N_EMBD, scale=1.0)
    weights.noise("output.weight", n_vocab, N_EMBD, scale=0.5)
    weights.ones("output_norm.weight", N_EMBD)
    for layer in range(n_layers):
        name = f"blk.{layer}."
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            weights.ones(f"{name}{norm}.weight", N_EMBD)
        for norm in ("attn_q_norm", "attn_k_norm"):
            weights.ones(f"{name}{norm}.weight", _HEAD)
        weights.noise(f"{name}attn_q.weight", _N_HEADS * _HEAD, N_EMBD)
        weights.noise(f"{name}attn_k.weight", _HEAD, N_EMBD)
        weights.noise(f"{name}attn_v.weight", _HEAD, N_EMBD)
        weights.noise(f"{name}attn_output.weight", N_EMBD, _N_HEADS * _HEAD)
        weights.noise(f"{name}ffn_gate.weight", _N_FF, N_EMBD)
        weights.noise(f"{name}ffn_up.weight", _N_FF, N_EMBD)
        weights.noise(f"{name}ffn_down.weight", N_EMBD, _N_FF)
    _end(writer)


def write_mamba(source: Path, target: Path) -> None:
    """Write a model whose memory is a running state."""
    n_layers, n_inner, n_state, n_rank, n_conv = 2, 2 * N_EMBD, 8, 4, 4
    writer, n_vocab = _begun(source, target, "mamba", n_layers)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(n_conv)
    writer.add_ssm_inner_size(n_inner)
    writer.add_ssm_state_size(n_state)
    writer.add_ssm_time_step_rank(n_rank)
    writer.add_layer_norm_rms_eps(1e-5)
    weights = _Weights(writer, seed=5)
    weights.noise("token_embd.weight", n_vocab, N_EMBD, scale=1.0)
    weights.noise("output.weight", n_vocab, N_EMBD, scale=0.5)
    weights.ones("output_norm.weight", N_EMBD)
    for layer in range(n_layers):
        name = f"blk.{layer}."
        weights.ones(f"{name}attn_norm.weight", N_EMBD)
        weights.noise(f"{name}ssm_in.weight", 2 * n_inner, N_EMBD)
        weights.noise(f"{name}ssm_conv1d.weight", n_inner, n_conv)
        weights.noise(f"{name}ssm_conv1d.bias", n_inner)
        weights.noise(f"{name}ssm_x.weight", n_rank + 2 * n_state, n_inner)
        weights.noise(f"{name}ssm_dt.weight", n_inner, n_rank)
        weights.noise(f"{name}ssm_dt.bias", n_inner)
        decay = -np.tile(np.arange(1.0, n_state + 1.0), (n_inner, 1))
        weights.write(f"{name}ssm_a", decay)
        weights.ones(f"{name}ssm_d", n_inner)
        weights.noise(f"{name}ssm_out.weight", N_EMBD, n_inner)
    _end(writer)


def _begun(source: Path, target: Path, architecture: str, n_layers: int) -> tuple[GGUFWriter, int]:
    """Return a writer with *source*'s vocabulary, and the vocabulary's size."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, architecture)
    n_vocab = 0
    for key, field in reader.fields.items():
        if not key.startswith("tokenizer."):
            continue
        if field.types[0] is GGUFValueType.ARRAY:
            contents = field.contents()
            if key == "tokenizer.ggml.tokens":
                n_vocab = len(contents)
            writer.add_array(key, contents)
        else:
            writer.add_key_value(key, field.contents(), field.types[0])
    writer.add_block_count(n_layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(N_EMBD)
    writer.add_vocab_size(n_vocab)
    writer.add_file_type(0)
    return writer, n_vocab


def _end(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
