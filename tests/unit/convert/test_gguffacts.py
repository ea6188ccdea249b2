from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ollamad.convert.gguffacts import facts
from ollamad.convert.ggufheader import TensorInfo, read_header
from ollamad.convert.gguftypes import TENSOR_TYPES
from ollamad.errors import NotGguf
from ollamad.modelinfo import GgufFacts, KvShape, LayerInfo
from tests.builders import a_gguf


def _facts(folder: Path, **fields: Any) -> GgufFacts:
    return facts(read_header(a_gguf(folder / "a.gguf", **fields)))


def test_a_text_model_is_described(tmp_path: Path) -> None:
    known = _facts(tmp_path, chat_template="{{ bos_token }}")

    assert known.architecture == "llama"
    assert known.kind == "model"
    assert known.file_type == "F16"
    assert known.n_params == 5 * 32 + 2 * 32
    assert known.n_ctx_train == 128
    assert known.n_embd == 32
    assert known.n_vocab == 5
    assert known.layers == (LayerInfo(weights_bytes=128, n_head_kv=2),) * 2
    assert known.other_weights_bytes == 320
    assert known.kv_shape == KvShape(key_length=8, value_length=8)
    assert not known.is_embedding
    assert known.chat_template == "{{ bos_token }}"
    assert (known.bos_token, known.eos_token) == ("<s>", "</s>")


def test_heads_that_differ_by_layer_are_kept_apart(tmp_path: Path) -> None:
    known = _facts(tmp_path, n_head_kv=[2, 0])

    assert [layer.n_head_kv for layer in known.layers] == [2, 0]


def test_without_key_value_heads_every_head_has_its_own(tmp_path: Path) -> None:
    known = _facts(tmp_path, n_head_kv=None)

    assert [layer.n_head_kv for layer in known.layers] == [4, 4]


def test_too_few_values_for_the_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotGguf, match="has 1 values for 2 layers"):
        _facts(tmp_path, n_head_kv=[2])


def test_stated_head_lengths_win_over_the_computed_one(tmp_path: Path) -> None:
    lengths = {"llama.attention.key_length": 192, "llama.attention.value_length": 128}

    assert _facts(tmp_path, metadata=lengths).kv_shape == KvShape(key_length=192, value_length=128)


def test_more_layers_than_anyone_builds_are_refused_before_any_is_made(tmp_path: Path) -> None:
    path = a_gguf(tmp_path / "a.gguf", n_layer=0, metadata={"llama.block_count": 1 << 31})

    with pytest.raises(NotGguf, match="layers, at most 4096"):
        facts(read_header(path))


@pytest.mark.parametrize(
    ("tokenizer", "metadata", "added"),
    [
        ("llama", {}, (True, False)),
        ("gpt2", {}, (False, False)),
        ("gpt2", {"tokenizer.ggml.pre": "llama-bpe"}, (True, False)),
        ("gpt2", {"tokenizer.ggml.pre": "qwen2"}, (False, False)),
        ("bert", {}, (True, False)),
        ("t5", {}, (False, True)),
        ("rwkv", {}, (False, False)),
        ("gemma4", {"tokenizer.ggml.add_bos_token": False}, (True, False)),
        ("llama", {"tokenizer.ggml.add_bos_token": False}, (False, False)),
        ("gpt2", {"tokenizer.ggml.add_bos_token": True}, (True, False)),
        ("gpt2", {"tokenizer.ggml.add_eos_token": True}, (False, True)),
        ("", {}, (False, False)),
    ],
)
def test_added_tokens_are_what_the_engine_adds(
    tmp_path: Path, tokenizer: str, metadata: dict[str, Any], added: tuple[bool, bool]
) -> None:
    known = _facts(tmp_path, tokenizer=tokenizer, metadata=metadata)

    assert (known.add_bos, known.add_eos) == added


def test_end_tokens_of_a_large_vocabulary_are_found(tmp_path: Path) -> None:
    known = _facts(tmp_path, tokens=["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(2000))])

    assert (known.bos_token, known.eos_token) == ("<s>", "</s>")
    assert known.n_vocab == 2003


@pytest.mark.parametrize("n_more", [0, 2000])
@pytest.mark.parametrize(
    "names", [("fim_pre", "fim_suf", "fim_mid"), ("prefix", "suffix", "middle")]
)
def test_tokens_for_filling_in_are_found_under_both_of_their_names(
    tmp_path: Path, names: tuple[str, ...], n_more: int
) -> None:
    tokens = ["<unk>", "<s>", "</s>", "<P>", "<M>", "<S>", *(f"t{i}" for i in range(n_more))]
    metadata = {
        f"tokenizer.ggml.{name}_token_id": index
        for name, index in zip(names, (3, 5, 4), strict=True)
    }

    assert _facts(tmp_path, tokens=tokens, metadata=metadata).infill_tokens == ("<P>", "<S>", "<M>")


def test_some_tokens_for_filling_in_are_none(tmp_path: Path) -> None:
    metadata = {"tokenizer.ggml.fim_pre_token_id": 3, "tokenizer.ggml.fim_suf_token_id": 4}

    assert _facts(tmp_path, metadata=metadata).infill_tokens == ()


def test_an_end_token_outside_the_vocabulary_is_none(tmp_path: Path) -> None:
    known = _facts(tmp_path, tokens=["only", "<s>"])

    assert (known.bos_token, known.eos_token) == ("<s>", "")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"kind": "adapter"}, "adapter"),
        ({"kind": "mmproj"}, "projector"),
        ({"kind": None}, "model"),
        ({"kind": None, "n_layer": 0, "metadata": {"llama.vision.block_count": 2}}, "projector"),
        (
            {
                "kind": None,
                "n_layer": 0,
                "architecture": "clip",
                "metadata": {"clip.has_vision_encoder": True},
            },
            "projector",
        ),
    ],
)
def test_kinds_of_files_are_told_apart(tmp_path: Path, fields: dict[str, Any], kind: str) -> None:
    assert _facts(tmp_path, **fields).kind == kind


def test_senses_and_pooling_are_seen(tmp_path: Path) -> None:
    known = _facts(
        tmp_path,
        metadata={
            "llama.vision.block_count": 2,
            "llama.audio.block_count": 2,
            "llama.pooling_type": 1,
        },
    )

    assert known.has_vision
    assert known.has_audio
    assert known.is_embedding


def test_the_audio_encoder_that_nothing_can_use_is_not_counted(tmp_path: Path) -> None:
    flags = {"clip.has_audio_encoder": True, "clip.projector_type": "gemma3nv"}

    assert not _facts(tmp_path, architecture="clip", metadata=flags).has_audio


@pytest.mark.parametrize(
    ("number", "name"), [(None, "unknown"), (0, "F32"), (15, "Q4_K_M"), (999, "unknown")]
)
def test_file_types_have_names(tmp_path: Path, number: int | None, name: str) -> None:
    assert _facts(tmp_path, file_type=number).file_type == name


def test_a_file_without_an_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotGguf, match=r"general\.architecture"):
        _facts(tmp_path, architecture="")


def test_weights_are_told_by_where_they_can_be_computed(tmp_path: Path) -> None:
    known = _facts(tmp_path, tokens=["<unk>", "<s>", "</s>", "a", "b"])

    assert known.input_weights_bytes == known.other_weights_bytes == 320
    assert known.tied_output_bytes == 320
    assert known.n_tensors == 3
    assert known.n_head == 4


def _with_tensors(folder: Path, *tensors: tuple[str, tuple[int, ...], str]) -> GgufFacts:
    header = read_header(a_gguf(folder / "a.gguf"))
    kinds = {kind.name: kind for kind in TENSOR_TYPES.values()}
    table = tuple(
        TensorInfo(name=name, shape=shape, type=kinds[kind], offset=0, n_bytes=100)
        for name, shape, kind in tensors
    )
    return facts(dataclasses.replace(header, tensors=table))


def test_an_output_of_its_own_is_not_tied(tmp_path: Path) -> None:
    known = _with_tensors(
        tmp_path,
        ("token_embd.weight", (32, 5), "F16"),
        ("per_layer_token_embd.weight", (32, 5), "F16"),
        ("output.weight", (32, 5), "F16"),
        ("output_norm.weight", (32,), "F32"),
    )

    assert known.input_weights_bytes == 200
    assert known.other_weights_bytes == 400
    assert known.tied_output_bytes == 0


@pytest.mark.parametrize(
    ("kind", "shape", "repacked_bytes"),
    [
        ("Q4_K", (256, 64), 100),
        ("Q4_0", (256, 64, 8), 100),
        ("Q4_K", (256, 63), 0),
        ("Q4_0", (256,), 0),
        ("Q6_K", (256, 64), 0),
        ("F16", (256, 64), 0),
    ],
)
def test_what_a_processor_repacks_is_known_by_type_and_shape(
    tmp_path: Path, kind: str, shape: tuple[int, ...], repacked_bytes: int
) -> None:
    known = _with_tensors(tmp_path, ("blk.1.ffn_up.weight", shape, kind))

    assert [layer.repacked_bytes for layer in known.layers] == [0, repacked_bytes]


def test_merges_are_counted_also_where_they_are_not_read(tmp_path: Path) -> None:
    few = _facts(tmp_path, metadata={"tokenizer.ggml.merges": ["a b", "b c"]})
    many = _facts(tmp_path, metadata={"tokenizer.ggml.merges": ["a b"] * 2000})

    assert (few.n_merges, many.n_merges) == (2, 2000)
