"""How much memory a model will need: pure arithmetic over its header.

Sizes are bytes. The rules are llama.cpp's own, from how it lays out its context and its graphs.
What only its graph allocator knows exactly (the room for computing) is estimated a little high,
until a dry run or a load has told it: `MemoryDemand.corrected`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ollamad.buffersizes import GRAMMAR_TOKEN_BYTES, BufferSizes
from ollamad.modelinfo import GgufFacts, LayerInfo
from ollamad.units import KIB, MIB

KV_ELEMENT_BITS: Final[Mapping[str, float]] = MappingProxyType(
    {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q4_0": 4.5}
)
"""Bits for one element of the KV cache, block scales included."""

PROCESS_BYTES: Final = 31 * MIB
"""What the interpreter and the engine's libraries have for themselves (measured). Their files are
not counted: all runners share them with the page cache."""
DEVICE_CONTEXT_BYTES: Final = 512 * MIB
"""What CUDA takes of a GPU for a process that uses it at all: context, code, workspaces. An upper
figure, for it differs from GPU to GPU; what loads measure corrects it."""

_TOKEN_BYTES: Final = 190
"""A token of the vocabulary in llama.cpp's tables (measured)."""
_MERGE_BYTES: Final = 240
"""A merge rule of a byte-pair vocabulary there (measured)."""
_GRAPH_NODES_PER_TENSOR: Final = 8
_GRAPH_NODES_MIN: Final = 1024
_GRAPH_NODE_BYTES: Final = 60 * 336
"""What llama.cpp's scheduler sets aside for each node of a graph: inputs and copies of a split."""

_CELLS_STEP: Final = 256
"""A context has a multiple of so many cells."""
_STATE_ELEMENT_BYTES: Final = 4
_FLOAT_BYTES: Final = 4
_MASK_BYTES_FLASH: Final = 2
_MASK_BYTES: Final = 4
_FF_COPIES: Final = 3
"""Feed-forward rows alive at once where they are gated, as in all models that generate."""
_ATTENTION_COPIES: Final = 3
"""Rows of queries, and as many of embeddings, alive at once in a layer."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ContextSettings:
    """What a context is made with, as far as it decides about memory."""

    n_ctx: int
    """Context length of one sequence, in tokens."""
    n_slots: int
    n_batch: int
    n_sequences: int
    """Sequences that the context tells apart."""
    n_ubatch: int = 0
    """Tokens computed at once; 0 is as many as `n_batch`."""
    kv_type: str = "f16"
    swa_full: bool = True
    """Layers with a window keep all tokens."""
    has_flash_attention: bool = True
    is_mapped: bool = True
    """The weights' file is mapped: what is wanted in another order is there twice then."""
    embedding: bool = False

    @property
    def n_rows(self) -> int:
        """Tokens in the largest graph, which has as many of every sequence."""
        n_tokens = min(self.n_ubatch or self.n_batch, self.n_batch, self.n_cells)
        return -(-n_tokens // self.n_sequences) * self.n_sequences

    @property
    def n_cells(self) -> int:
        """Tokens that the context has room for."""
        return _padded(self.n_ctx * self.n_slots)

    def n_windowed_cells(self, window: int) -> int:
        """Return the tokens that a layer with *window* has room for."""
        if self.swa_full:
            return self.n_cells
        n_tokens = window * self.n_sequences + min(self.n_ubatch or self.n_batch, self.n_batch)
        return _padded(min(self.n_cells, n_tokens))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerDemand:
    """What one layer needs on the device that computes it."""

    weights_bytes: int
    context_bytes: int = 0
    """Its part of the KV cache, or its running state."""
    repacked_bytes: int = 0
    """A copy of its weights in another order, which only a processor makes."""

    @property
    def device_bytes(self) -> int:
        """What it takes of a GPU."""
        return self.weights_bytes + self.context_bytes

    @property
    def host_bytes(self) -> int:
        """What it takes of main memory."""
        return self.device_bytes + self.repacked_bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDemand:
    """What a model needs: by kind for all of it in main memory, and by layer for a part on GPUs.

    The *units* that can be offloaded are the layers, in their order, and then the output, as
    llama.cpp counts them: the last one goes first.
    """

    weights_bytes: int
    """All weights, with the copies that a processor makes."""
    kv_cache_bytes: int
    """Keys, values and running states."""
    compute_bytes: int
    """Room for the largest step on the device that computes it."""
    process_bytes: int = PROCESS_BYTES
    """The process, its vocabulary, its lists of operations."""
    output_bytes: int = 0
    """Results, copied out to main memory."""
    extra_bytes: int = 0
    """Adapters and projectors."""
    layers: tuple[LayerDemand, ...] = ()
    """None for a model that cannot be split."""
    output_device_bytes: int = 0
    """What the output layer takes of a GPU."""
    output_host_bytes: int = 0
    """What it takes of main memory, and no longer does when a GPU computes it."""
    transfer_bytes: int = 0
    """Room for computing that main memory still needs when GPUs compute all layers."""
    margin: float = 1.0
    """How many times as large as known everything but the weights was made."""

    @property
    def total_bytes(self) -> int:
        """All of it, in main memory."""
        return (
            self.weights_bytes
            + self.kv_cache_bytes
            + self.compute_bytes
            + self.process_bytes
            + self.output_bytes
            + self.extra_bytes
        )

    @property
    def n_units(self) -> int:
        """What can be offloaded: the layers, and the output as one more."""
        return len(self.layers) + 1 if self.layers else 0

    @property
    def unit_bytes(self) -> tuple[int, ...]:
        """What each unit takes of a GPU."""
        if not self.layers:
            return ()
        return (*(layer.device_bytes for layer in self.layers), self.output_device_bytes)

    @property
    def device_fixed_bytes(self) -> int:
        """What each GPU that is used takes beside its units."""
        return self.compute_bytes + DEVICE_CONTEXT_BYTES

    def host_bytes(self, n_offloaded: int) -> int:
        """Return what main memory must have when the last *n_offloaded* units are on GPUs."""
        if n_offloaded <= 0:
            return self.total_bytes
        n_on_host = self.n_units - n_offloaded
        gone = sum(layer.host_bytes for layer in self.layers[n_on_host:]) + self.output_host_bytes
        if n_on_host <= 0:
            gone += max(self.compute_bytes - self.transfer_bytes, 0)
        return max(self.total_bytes - gone, 0)

    def corrected(self, measured: BufferSizes) -> MemoryDemand:
        """Return this demand with the sizes that the engine itself says.

        The split of the context over the layers stays in proportion: the engine tells the total.
        """
        return dataclasses.replace(
            self,
            kv_cache_bytes=measured.context_bytes,
            compute_bytes=measured.device_compute_bytes or measured.compute_bytes,
            output_bytes=measured.output_bytes or self.output_bytes,
            layers=_with_context(self.layers, self.kv_cache_bytes, measured.context_bytes),
        )

    def with_margin(self, factor: float) -> MemoryDemand:
        """Return this demand with every part that is not weights *factor* times as known.

        Weights are known; it is the rest that an estimate can miss.
        """
        factor, margin = factor / self.margin, factor
        context_bytes = int(self.kv_cache_bytes * factor)
        return dataclasses.replace(
            self,
            kv_cache_bytes=context_bytes,
            compute_bytes=int(self.compute_bytes * factor),
            process_bytes=int(self.process_bytes * factor),
            output_bytes=int(self.output_bytes * factor),
            transfer_bytes=int(self.transfer_bytes * factor),
            margin=margin,
            layers=_with_context(self.layers, self.kv_cache_bytes, context_bytes),
        )


def _with_context(
    layers: tuple[LayerDemand, ...], old_bytes: int, new_bytes: int
) -> tuple[LayerDemand, ...]:
    """Return *layers* with contexts in the proportion of the new total to the old one.

    Rounded up, so that no device gets less than its share.
    """
    if not old_bytes or old_bytes == new_bytes:
        return layers
    return tuple(
        dataclasses.replace(layer, context_bytes=-(-layer.context_bytes * new_bytes // old_bytes))
        for layer in layers
    )


def demand_of(facts: GgufFacts, settings: ContextSettings, *, extra_bytes: int = 0) -> MemoryDemand:
    """Return what *facts*'s model needs in a context with *settings*.

    *extra_bytes* is the size of what is loaded with it: adapters, projectors.
    """
    layers = tuple(_layer_demand(layer, facts, settings) for layer in facts.layers)
    own_output_bytes = facts.other_weights_bytes - facts.input_weights_bytes
    return MemoryDemand(
        weights_bytes=sum(layer.weights_bytes + layer.repacked_bytes for layer in layers)
        + facts.other_weights_bytes,
        kv_cache_bytes=sum(layer.context_bytes for layer in layers),
        compute_bytes=_compute_bytes(facts, settings),
        process_bytes=PROCESS_BYTES + _tables_bytes(facts, settings),
        output_bytes=_output_bytes(facts, settings),
        extra_bytes=extra_bytes,
        layers=layers,
        output_device_bytes=own_output_bytes + facts.tied_output_bytes,
        output_host_bytes=own_output_bytes,
        transfer_bytes=_transfer_bytes(facts, settings),
    )


def _layer_demand(layer: LayerInfo, facts: GgufFacts, settings: ContextSettings) -> LayerDemand:
    context_bytes = 0
    if facts.keeps_context:
        shape = layer.kv_shape or facts.kv_shape
        n_cells = settings.n_cells
        if layer.is_windowed:
            n_cells = settings.n_windowed_cells(facts.window)
        elements = layer.n_head_kv * (shape.key_length + shape.value_length) * n_cells
        state_bytes = layer.state_elements * _STATE_ELEMENT_BYTES * settings.n_sequences
        context_bytes = int(elements * KV_ELEMENT_BITS[settings.kv_type] // 8) + state_bytes
    return LayerDemand(
        weights_bytes=layer.weights_bytes,
        context_bytes=context_bytes,
        repacked_bytes=layer.repacked_bytes if settings.is_mapped else 0,
    )


def _tables_bytes(facts: GgufFacts, settings: ContextSettings) -> int:
    n_nodes = max(facts.n_tensors * _GRAPH_NODES_PER_TENSOR, _GRAPH_NODES_MIN)
    graph_bytes = n_nodes * _GRAPH_NODE_BYTES if facts.n_tensors else 0
    generates = facts.keeps_context and not settings.embedding
    token_bytes = _TOKEN_BYTES + (GRAMMAR_TOKEN_BYTES if generates else 0)
    return facts.n_vocab * token_bytes + facts.n_merges * _MERGE_BYTES + graph_bytes


def _output_bytes(facts: GgufFacts, settings: ContextSettings) -> int:
    """Return the room for results: a row of each sequence, with embeddings if they are made."""
    width = facts.n_vocab + (facts.n_embd if settings.embedding else 0)
    return settings.n_sequences * width * _FLOAT_BYTES


def _compute_bytes(facts: GgufFacts, settings: ContextSettings) -> int:
    """Return the room for the largest step.

    Memory is used again and again within a step, so what counts is the widest moment: the layers'
    attention, their feed-forward part, or the output.
    """
    n_rows = settings.n_rows
    attention = _mask_bytes(facts, settings) + n_rows * _FLOAT_BYTES * _ATTENTION_COPIES * (
        facts.n_embd + facts.n_head * facts.kv_shape.key_length
    )
    if not settings.has_flash_attention:
        attention += _reach(facts, settings) * n_rows * max(facts.n_head, 1) * _FLOAT_BYTES
    ff_copies = _FF_COPIES if facts.keeps_context else 1
    forward = _mask_bytes(facts, settings) + n_rows * _FLOAT_BYTES * (
        4 * facts.n_embd + ff_copies * facts.n_ff
    )
    output = n_rows * _FLOAT_BYTES * 2 * facts.n_embd
    if facts.keeps_context:  # Others compute no words.
        n_outputs = min(settings.n_ubatch or settings.n_batch, settings.n_batch)
        output += n_outputs * facts.n_vocab * _FLOAT_BYTES
    if settings.embedding:
        output += n_rows * _FLOAT_BYTES * 2 * facts.n_embd
    return max(attention, forward, output)


def _reach(facts: GgufFacts, settings: ContextSettings) -> int:
    """Return how many tokens a token may look at."""
    return settings.n_cells if facts.keeps_context else settings.n_rows


def _mask_bytes(facts: GgufFacts, settings: ContextSettings) -> int:
    """Return the size of the tables that say which token may look at which."""
    if not any(layer.n_head_kv for layer in facts.layers):
        return 0
    element_bytes = _MASK_BYTES_FLASH if settings.has_flash_attention else _MASK_BYTES
    reach = _reach(facts, settings)
    if facts.keeps_context and any(layer.is_windowed for layer in facts.layers):
        reach += settings.n_windowed_cells(facts.window)
    return reach * settings.n_rows * element_bytes


def _transfer_bytes(facts: GgufFacts, settings: ContextSettings) -> int:
    """Return what main memory still has of a step that GPUs compute: its inputs and masks."""
    rows = settings.n_rows * facts.n_embd * _FLOAT_BYTES * 2
    return rows + _mask_bytes(facts, settings) + 64 * KIB


def _padded(n_cells: int) -> int:
    return -(-n_cells // _CELLS_STEP) * _CELLS_STEP
