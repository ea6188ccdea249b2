from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ollamad.convert.contextfacts import ContextFacts, context_facts
from ollamad.convert.ggufheader import read_header
from ollamad.errors import NotGguf
from ollamad.modelinfo import KvShape
from tests.builders import a_gguf

N_EMBD = 32


def kept(
    folder: Path, architecture: str, n_layer: int, keys: dict[str, Any] | None = None, **fields: Any
) -> ContextFacts:
    """Return what a model keeps whose header has *keys*, without the architecture's name."""
    metadata = {f"{architecture}.{key}": value for key, value in (keys or {}).items()}
    path = a_gguf(
        folder / "a.gguf",
        architecture=architecture,
        n_layer=n_layer,
        metadata=metadata,
        **fields,
    )
    return context_facts(read_header(path), architecture, n_layer)


def windowed(facts: ContextFacts) -> str:
    """Return a letter for each layer: w with a window, . without."""
    return "".join("w" if layer.is_windowed else "." for layer in facts.layers)


WINDOW = {"attention.sliding_window": 512}


@pytest.mark.parametrize(
    ("architecture", "n_layer", "keys", "pattern", "window"),
    [
        ("llama", 4, WINDOW, "....", 0),
        ("phi3", 4, WINDOW, "....", 0),
        ("gemma3", 12, WINDOW, "wwwww.wwwww.", 512),
        ("gemma3", 6, {}, "......", 0),
        ("gemma3", 6, {"attention.sliding_window": 0}, "......", 0),
        ("gemma3", 4, {**WINDOW, "attention.sliding_window_pattern": 2}, "w.w.", 512),
        ("gemma2", 4, {}, "w.w.", 4096),
        ("gpt-oss", 4, WINDOW, "w.w.", 512),
        ("cohere2moe", 5, WINDOW, ".www.", 512),
        ("exaone4", 4, {}, "....", 0),
        (
            "gemma4",
            3,
            {**WINDOW, "attention.sliding_window_pattern": [True, False, True]},
            "w.w",
            512,
        ),
        ("gemma4", 3, WINDOW, "...", 0),
        (
            "exaone-moe",
            6,
            {"nextn_predict_layers": 1},
            "www.w.",
            128,
        ),
    ],
)
def test_windows_lie_where_the_engine_puts_them(
    tmp_path: Path, architecture: str, n_layer: int, keys: dict[str, Any], pattern: str, window: int
) -> None:
    facts = kept(tmp_path, architecture, n_layer, keys)

    assert windowed(facts) == pattern
    assert facts.window == window


def test_windowed_layers_may_have_heads_of_another_size(tmp_path: Path) -> None:
    keys = {
        **WINDOW,
        "attention.sliding_window_pattern": [True, False],
        "attention.key_length": 512,
        "attention.value_length": 512,
        "attention.key_length_swa": 256,
        "attention.value_length_swa": 256,
    }

    facts = kept(tmp_path, "gemma4", 2, keys)

    assert facts.kv_shape == KvShape(key_length=512, value_length=512)
    assert [layer.kv_shape for layer in facts.layers] == [
        KvShape(key_length=256, value_length=256),
        None,
    ]


def test_layers_that_use_earlier_ones_keys_keep_none(tmp_path: Path) -> None:
    shared = kept(tmp_path, "gemma4", 4, {"attention.shared_kv_layers": 3})
    own = kept(tmp_path, "gemma3n", 22)

    assert [layer.n_head_kv for layer in shared.layers] == [2, 0, 0, 0]
    assert [layer.n_head_kv for layer in own.layers] == [2] * 20 + [0] * 2


def test_layers_for_guessing_ahead_keep_nothing(tmp_path: Path) -> None:
    facts = kept(tmp_path, "glm4", 3, {"nextn_predict_layers": 1})

    assert [layer.n_head_kv for layer in facts.layers] == [2, 2, 0]


def test_latent_attention_keeps_one_vector_for_keys_and_values(tmp_path: Path) -> None:
    keys = {
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
    }

    facts = kept(tmp_path, "deepseek2", 2, keys, n_head_kv=1)

    assert facts.kv_shape == KvShape(key_length=576, value_length=0)


SSM = {"ssm.conv_kernel": 4, "ssm.inner_size": 64, "ssm.state_size": 8}


@pytest.mark.parametrize(
    ("architecture", "keys", "n_head_kv", "states", "heads"),
    [
        ("mamba", SSM, 0, [3 * 64 + 8 * 64] * 4, [0] * 4),
        (
            "mamba2",
            {**SSM, "ssm.group_count": 2},
            0,
            [3 * (64 + 2 * 2 * 8) + 8 * 64] * 4,
            [0] * 4,
        ),
        ("rwkv6", {"wkv.head_size": 16}, 2, [(2 + 16) * N_EMBD] * 4, [0] * 4),
        ("rwkv7", {"wkv.head_size": 16, "token_shift_count": 1}, 2, [17 * N_EMBD] * 4, [0] * 4),
        ("jamba", SSM, [0, 2, 0, 0], [704, 0, 704, 704], [0, 2, 0, 0]),
        ("lfm2", {"shortconv.l_cache": 3}, [0, 0, 2, 0], [64, 64, 0, 64], [0, 0, 2, 0]),
        ("falcon-h1", SSM, 2, [704] * 4, [2] * 4),
        ("qwen3next", SSM, 2, [704, 704, 704, 0], [0, 0, 0, 2]),
        (
            "qwen35",
            {**SSM, "full_attention_interval": 2},
            2,
            [704, 0, 704, 0],
            [0, 2, 0, 2],
        ),
        (
            "qwen35",
            {**SSM, "attention.recurrent_layers": [True, False, False, False]},
            2,
            [704, 0, 0, 0],
            [0, 2, 2, 2],
        ),
        (
            "nemotron_h",
            {**SSM, "feed_forward_length": [0, 64, 0, 0]},
            [0, 0, 2, 0],
            [704, 0, 0, 704],
            [0, 0, 2, 0],
        ),
        (
            "kimi-linear",
            {"kda.head_dim": 8, "ssm.conv_kernel": 4},
            [0, 0, 0, 1],
            [(9 + 8) * 4 * 8] * 3 + [0],
            [0, 0, 0, 1],
        ),
    ],
)
def test_states_are_as_large_as_the_engine_makes_them(
    tmp_path: Path,
    architecture: str,
    keys: dict[str, Any],
    n_head_kv: Any,
    states: list[int],
    heads: list[int],
) -> None:
    facts = kept(tmp_path, architecture, 4, keys, n_head_kv=n_head_kv)

    assert [layer.state_elements for layer in facts.layers] == states
    assert [layer.n_head_kv for layer in facts.layers] == heads


@pytest.mark.parametrize(
    ("architecture", "keeps"), [("bert", False), ("llama", True), ("t5", True)]
)
def test_encoders_keep_nothing(tmp_path: Path, architecture: str, keeps: bool) -> None:
    assert kept(tmp_path, architecture, 2).keeps_context is keeps


def test_a_list_of_windows_that_is_too_short_is_refused(tmp_path: Path) -> None:
    keys = {**WINDOW, "attention.sliding_window_pattern": [True]}

    with pytest.raises(NotGguf, match="has 1 values for 3 layers"):
        kept(tmp_path, "gemma4", 3, keys)
