"""What a model keeps of what it has read, layer by layer: keys and values, windows, states.

The rules are the engine's own, from its loaders of the architectures. Where an architecture is not
known here, its layers are taken to keep everything: an estimate that is too large, never too small.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from ollamad.convert.ggufheader import GgufHeader
from ollamad.convert.ggufvalues import dimension, per_layer
from ollamad.modelinfo import KvShape

_WITHOUT_CONTEXT: Final = frozenset(
    {
        "bert", "dream", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llada",
        "llada-moe", "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "rnd1", "t5encoder",
        "wavtokenizer-dec",
    }
)  # fmt: skip
"""Architectures that read their input at once."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Windows:
    """Which layers have a window: all of each *period* but one, the last or the first."""

    period: int
    dense_first: bool = False
    default: int = 0
    """The window of a file that names none."""


_WINDOWS: Final[Mapping[str, _Windows]] = {
    "afmoe": _Windows(4),
    "cohere2": _Windows(4),
    "cohere2moe": _Windows(4, dense_first=True),
    "exaone-moe": _Windows(4, default=128),
    "exaone4": _Windows(4, default=4096),
    "gemma2": _Windows(2, default=4096),
    "gemma3": _Windows(6),
    "gemma3n": _Windows(5),
    "gpt-oss": _Windows(2),
    "laguna": _Windows(4, dense_first=True),
    "llama4": _Windows(4, default=8192),
    "mellum": _Windows(4),
    "muse-glimmer": _Windows(4),
    "olmo2": _Windows(4),
    "plamo3": _Windows(8),
    "smallthinker": _Windows(4, dense_first=True),
}
_WINDOWS_AS_LISTED: Final = frozenset(
    {
        "dots3note", "gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35",
    }
)  # fmt: skip
"""Architectures whose files say of every layer whether it has a window."""
_EXAONE4_WITH_WINDOWS: Final = 64
"""Layers of the only model of this architecture that has windows."""

_RECURRENT: Final = frozenset({"arwkv7", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7"})
_RECURRENT_BY_HEADS: Final = frozenset(
    {
        "bailingmoe3", "granitehybrid", "jamba", "kimi-linear", "lfm2", "lfm2moe", "nemotron_h",
        "nemotron_h_moe", "plamo2",
    }
)  # fmt: skip
"""Architectures whose layers without key-value heads have a state instead."""
_RECURRENT_BY_INTERVAL: Final = {"minimax-01": 8, "qwen35": 4, "qwen35moe": 4, "qwen3next": 4}
"""Architectures whose every n-th layer keeps keys and values, the others a state."""
_BOTH: Final = "falcon-h1"
"""The architecture each of whose layers has keys and values and a state."""

_GEMMA3N_OWN_KV: Final = 20
"""Layers of Gemma 3n that keep keys and values; the later ones use theirs."""
_TOKEN_SHIFTS_DEFAULT: Final = 2
_CONV_KERNEL_DEFAULT: Final = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerContext:
    """What one layer keeps. The fields are `LayerInfo`'s."""

    n_head_kv: int
    kv_shape: KvShape | None = None
    is_windowed: bool = False
    state_elements: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ContextFacts:
    """What a model keeps. The fields are `GgufFacts`'s."""

    layers: tuple[LayerContext, ...]
    kv_shape: KvShape
    window: int
    keeps_context: bool


def context_facts(header: GgufHeader, architecture: str, n_layer: int) -> ContextFacts:
    """Return what the model of *header* keeps of what it reads. Raises NotGguf."""
    reader = _Reader(header, architecture, n_layer)
    shape = reader.kv_shape("")
    windowed = reader.kv_shape("_swa", shape)
    window, windows = reader.windows()
    states = reader.states()
    return ContextFacts(
        layers=tuple(
            LayerContext(
                n_head_kv=heads,
                kv_shape=windowed if has_window and windowed != shape else None,
                is_windowed=has_window,
                state_elements=state,
            )
            for heads, has_window, state in zip(reader.heads_kept(), windows, states, strict=True)
        ),
        kv_shape=shape,
        window=window,
        keeps_context=architecture not in _WITHOUT_CONTEXT,
    )


class _Reader:
    """Reads the keys of one architecture."""

    def __init__(self, header: GgufHeader, architecture: str, n_layer: int) -> None:
        self._header = header
        self._architecture = architecture
        self._n_layer = n_layer
        self._n_own = max(n_layer - self._number("nextn_predict_layers"), 0)
        """Layers that generating uses; later ones are for guessing ahead."""
        self._heads_kv = self._heads()
        self._is_recurrent = self._recurrent()

    def _number(self, key: str) -> int:
        return dimension(self._header, f"{self._architecture}.{key}")

    def _each(self, key: str) -> list[int] | None:
        return per_layer(self._header, f"{self._architecture}.{key}", self._n_layer)

    def _heads(self) -> list[int]:
        for key in ("attention.head_count_kv", "attention.head_count"):
            heads = self._each(key)
            if heads is not None:
                return heads
        return [0] * self._n_layer

    def _n_head(self) -> int:
        heads = per_layer(self._header, f"{self._architecture}.attention.head_count", 1)
        return (heads or [0])[0]

    def kv_shape(self, suffix: str, default: KvShape | None = None) -> KvShape:
        """Return the lengths of a key and a value, as the file states them or by the width."""
        per_head = self._number("embedding_length") // max(self._n_head(), 1)
        key_length = default.key_length if default else per_head
        value_length = default.value_length if default else per_head
        shape = KvShape(
            key_length=self._number(f"attention.key_length{suffix}") or key_length,
            value_length=self._number(f"attention.value_length{suffix}") or value_length,
        )
        # Latent attention keeps one compressed vector, from which values are made, too.
        is_latent = self._number("attention.key_length_mla") and not suffix
        return KvShape(key_length=shape.key_length, value_length=0) if is_latent else shape

    def heads_kept(self) -> list[int]:
        """Return how many heads' keys and values each layer keeps.

        1. Layers for guessing ahead, which generating does not use: none.
        2. Layers that use the keys and values of earlier ones: none.
        3. Layers with a state: none, but for the architecture that has both.
        """
        n_with_own = min(self._n_own, self._layers_with_own_kv())
        return [
            heads if layer < n_with_own and (not is_recurrent or self._architecture == _BOTH) else 0
            for layer, (heads, is_recurrent) in enumerate(
                zip(self._heads_kv, self._is_recurrent, strict=True)
            )
        ]

    def _layers_with_own_kv(self) -> int:
        if self._architecture == "gemma3n":
            return _GEMMA3N_OWN_KV
        if self._architecture == "gemma4":
            return max(self._n_layer - self._number("attention.shared_kv_layers"), 0)
        return self._n_layer

    def windows(self) -> tuple[int, list[bool]]:
        """Return the window, and which layers have it."""
        none = 0, [False] * self._n_layer
        rule = _WINDOWS.get(self._architecture)
        key = f"{self._architecture}.attention.sliding_window"
        stated = dimension(self._header, key)
        is_off = key in self._header.metadata and stated == 0
        if self._architecture in {"lfm2", "lfm2moe"} and stated:
            return stated, [not is_recurrent for is_recurrent in self._is_recurrent]
        listed = self._header.metadata.get(f"{key}_pattern")
        if rule is None and self._architecture not in _WINDOWS_AS_LISTED:
            return none
        window = stated or (rule.default if rule else 0)
        if is_off or not window or self._is_exaone4_without():
            return none
        if isinstance(listed, tuple):
            flags = per_layer(self._header, f"{key}_pattern", self._n_layer) or []
            return window, [bool(flag) and layer < self._n_own for layer, flag in enumerate(flags)]
        if rule is None:
            return none
        period = dimension(self._header, f"{key}_pattern") or rule.period
        return window, [
            layer < self._n_own
            and (layer % period != 0 if rule.dense_first else layer % period < period - 1)
            for layer in range(self._n_layer)
        ]

    def _is_exaone4_without(self) -> bool:
        return self._architecture == "exaone4" and self._n_own != _EXAONE4_WITH_WINDOWS

    def _recurrent(self) -> list[bool]:
        if self._architecture in _RECURRENT or self._architecture == _BOTH:
            return [True] * self._n_layer
        if self._architecture in _RECURRENT_BY_HEADS:
            wide = self._each("feed_forward_length") or [0] * self._n_layer
            if not self._architecture.startswith("nemotron"):
                wide = [0] * self._n_layer  # Only there does a feed-forward layer stand alone.
            return [
                heads == 0 and n_ff == 0 for heads, n_ff in zip(self._heads_kv, wide, strict=True)
            ]
        interval = _RECURRENT_BY_INTERVAL.get(self._architecture)
        if interval is None:
            return [False] * self._n_layer
        listed = self._each("attention.recurrent_layers")
        if listed is not None:
            return [bool(flag) for flag in listed]
        interval = self._number("full_attention_interval") or interval
        return [
            layer < self._n_own and (layer + 1) % interval != 0 for layer in range(self._n_layer)
        ]

    def states(self) -> list[int]:
        """Return the elements of each layer's state, for one sequence."""
        elements = self._state_elements() if any(self._is_recurrent) else 0
        return [elements if is_recurrent else 0 for is_recurrent in self._is_recurrent]

    def _state_elements(self) -> int:
        n_embd = self._number("embedding_length")
        if head_size := self._number("wkv.head_size"):
            shifts = self._number("token_shift_count") or _TOKEN_SHIFTS_DEFAULT
            return (shifts + head_size) * n_embd
        if n_kept := self._number("shortconv.l_cache"):
            return n_embd * (n_kept - 1)
        n_conv = self._number("ssm.conv_kernel")
        if head_dim := self._number("kda.head_dim"):
            n_before = (n_conv or _CONV_KERNEL_DEFAULT) - 1
            n_head = self._n_head()
            return (3 * n_before + head_dim) * n_head * head_dim
        n_inner, n_state = self._number("ssm.inner_size"), self._number("ssm.state_size")
        n_group = self._number("ssm.group_count")
        return max(n_conv - 1, 0) * (n_inner + 2 * n_group * n_state) + n_state * n_inner
