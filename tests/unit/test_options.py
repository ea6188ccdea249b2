from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from ollamad.errors import UnsupportedOption
from ollamad.options import (
    BIASES_MAX,
    NUMBER_MAX,
    NUMBER_MIN,
    OPTIONS,
    RETIRED_OPTIONS,
    STOP_CHARS_MAX,
    STOPS_MAX,
    LoadOptions,
    OptionType,
    SamplingOptions,
    option_value,
    parse_options,
    retired_notes,
)

KEYS_WANTED = 'option "logit_bias" must have token ids as its keys, such as "1234"'
PAIR_WANTED = 'option "logit_bias" must map token ids to numbers, as in {"1234": -100}'
OVERRIDE_WANTED = (
    'option "tensor_overrides" must have the form "PATTERN=DEVICE", as in ".ffn_.*_exps.=cpu"'
)
KV_WORDS = '"f32", "f16", "bf16", "q8_0", "q4_0"'
HUGE = 10**5000
"""JSON knows whole numbers of any size; no float does, and Python does not print them."""
NUMBERS = [
    name for name, spec in OPTIONS.items() if spec.type in {OptionType.INTEGER, OptionType.FLOAT}
]


def test_nothing_stated_is_nothing_loaded_and_ollamas_way_of_sampling() -> None:
    assert parse_options() == parse_options({}) == (LoadOptions(), SamplingOptions())


@pytest.mark.parametrize(
    ("source", "load", "sampling"),
    [
        ({"num_ctx": 2048}, {"n_ctx": 2048}, {}),
        ({"num_ctx": 0}, {}, {}),
        ({"num_ctx": 2048.9}, {"n_ctx": 2048}, {}),
        ({"num_gpu": -1}, {"n_gpu_layers": -1}, {}),
        ({"num_thread": 0}, {"n_threads": 0}, {}),
        ({"use_mmap": False}, {"use_mmap": False}, {}),
        ({"temperature": 1}, {}, {"temperature": 1.0}),
        ({"seed": 42, "num_predict": -2}, {}, {"seed": 42, "num_predict": -2}),
        ({"seed": NUMBER_MAX}, {}, {"seed": NUMBER_MAX}),
        ({"seed": NUMBER_MIN}, {}, {"seed": NUMBER_MIN}),
        ({"stop": ["a", "", "b"]}, {}, {"stop": ("a", "b")}),
        ({"stop": ()}, {}, {"stop": ()}),
        ({"temperature": None, "num_ctx": None}, {}, {}),
        ({"tfs_z": 2, "low_vram": "?", "unheard_of": {}}, {}, {}),
        ({"mirostat": 2, "mirostat_tau": 4}, {}, {"mirostat": 2, "mirostat_tau": 4.0}),
        ({"ignore_eos": True, "top_n_sigma": -1}, {}, {"ignore_eos": True, "top_n_sigma": -1.0}),
        ({"dry_sequence_breakers": ["\n", ""]}, {}, {"dry_sequence_breakers": ("\n",)}),
        (
            {"xtc_probability": 1, "xtc_threshold": 0},
            {},
            {"xtc_probability": 1, "xtc_threshold": 0},
        ),
        ({"logit_bias": {"7": 1, "5": -100.5}}, {}, {"logit_bias": ((5, -100.5), (7, 1.0))}),
        ({"logit_bias": [[7, 1], ["5", 2]]}, {}, {"logit_bias": ((5, 2.0), (7, 1.0))}),
        ({"logit_bias": {}}, {}, {}),
        ({"num_ubatch": 64, "use_mlock": True}, {"n_ubatch": 64, "use_mlock": True}, {}),
        ({"kv_cache_type": "q8_0", "swa_full": False}, {"kv_type": "q8_0", "swa_full": False}, {}),
        ({"flash_attention": "on"}, {"flash_attention": "on"}, {}),
        ({"flash_attention": True}, {"flash_attention": "on"}, {}),
        ({"flash_attention": False}, {"flash_attention": "off"}, {}),
        ({"tensor_split": [3, 1.5]}, {"tensor_split": (3.0, 1.5)}, {}),
        ({"tensor_split": []}, {"tensor_split": ()}, {}),
        (
            {"tensor_overrides": [".ffn_.*_exps.=cpu", "a=b=CUDA0"]},
            {"tensor_overrides": (".ffn_.*_exps.=cpu", "a=b=CUDA0")},
            {},
        ),
        (
            {"rope_frequency_base": 0, "rope_frequency_scale": 0.5},
            {"rope_frequency_scale": 0.5},
            {},
        ),
        (
            {"rope_scaling": "yarn", "yarn_ext_factor": 0, "yarn_orig_ctx": 4096},
            {"rope_scaling": "yarn", "yarn_ext_factor": 0.0, "yarn_orig_ctx": 4096},
            {},
        ),
    ],
)
def test_options_are_read_by_their_names_in_the_api(
    source: dict[str, Any], load: dict[str, Any], sampling: dict[str, Any]
) -> None:
    assert parse_options(source) == (LoadOptions(**load), SamplingOptions(**sampling))


def test_the_later_source_wins_and_null_leaves_the_earlier() -> None:
    model = {"temperature": 0.1, "num_ctx": 1024, "stop": ["model"]}
    request = {"temperature": 0.9, "num_ctx": None, "stop": ["request"]}

    assert parse_options(model, request) == (
        LoadOptions(n_ctx=1024),
        SamplingOptions(temperature=0.9, stop=("request",)),
    )


def test_an_automatic_context_takes_back_the_models_own() -> None:
    assert parse_options({"num_ctx": 1024}, {"num_ctx": 0})[0] == LoadOptions()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_ctx", "2048", 'option "num_ctx" must be of type integer'),
        ("num_ctx", True, 'option "num_ctx" must be of type integer'),
        ("temperature", "hot", 'option "temperature" must be of type float32'),
        ("temperature", False, 'option "temperature" must be of type float32'),
        ("use_mmap", 1, 'option "use_mmap" must be of type boolean'),
        ("stop", "END", 'option "stop" must be of type array'),
        ("stop", ["a", 1], 'option "stop" must be of an array of strings'),
        ("seed", {}, 'option "seed" must be of type integer'),
        ("num_ctx", -1, 'option "num_ctx" must be at least 0, got -1'),
        ("num_batch", 0, 'option "num_batch" must be at least 1, got 0'),
        ("num_batch", 0.5, 'option "num_batch" must be at least 1, got 0.5'),
        ("repeat_penalty", 0, 'option "repeat_penalty" must be at least 0.001, got 0'),
        ("mirostat", 3, 'option "mirostat" must be at most 2, got 3'),
        ("xtc_probability", 1.5, 'option "xtc_probability" must be at most 1, got 1.5'),
        ("dry_penalty_last_n", -2, 'option "dry_penalty_last_n" must be at least -1, got -2'),
        ("dry_sequence_breakers", "x", 'option "dry_sequence_breakers" must be of type array'),
        ("ignore_eos", "yes", 'option "ignore_eos" must be of type boolean'),
        ("logit_bias", "5", 'option "logit_bias" must be of type object'),
        ("logit_bias", {"x": 1}, KEYS_WANTED),
        ("logit_bias", {"-1": 1}, KEYS_WANTED),
        ("logit_bias", [[True, 1]], KEYS_WANTED),
        ("logit_bias", [[-HUGE, 1]], KEYS_WANTED),
        ("logit_bias", [[HUGE, 1]], KEYS_WANTED),
        ("logit_bias", {"5": False}, PAIR_WANTED),
        ("logit_bias", {"5": "1"}, PAIR_WANTED),
        ("logit_bias", [5], PAIR_WANTED),
        ("logit_bias", [[1.5, 1]], PAIR_WANTED),
        ("logit_bias", {"5": math.inf}, 'option "logit_bias" must be a finite number'),
        (
            "logit_bias",
            {str(token): 1 for token in range(BIASES_MAX + 1)},
            f'option "logit_bias" takes at most {BIASES_MAX} tokens',
        ),
        ("kv_cache_type", 8, 'option "kv_cache_type" must be of type string'),
        ("kv_cache_type", True, 'option "kv_cache_type" must be one of ' + KV_WORDS),
        ("kv_cache_type", "q5", 'option "kv_cache_type" must be one of ' + KV_WORDS),
        (
            "flash_attention",
            "yes",
            'option "flash_attention" must be one of "auto", "on", "off", true, false',
        ),
        ("tensor_split", "3,1", 'option "tensor_split" must be of type array'),
        ("tensor_split", [1, True], 'option "tensor_split" must be of an array of numbers'),
        ("tensor_split", [1, -1], 'option "tensor_split" must be at least 0, got -1'),
        ("tensor_split", [0, 0], 'option "tensor_split" needs a number greater than 0'),
        ("tensor_split", [1] * 17, 'option "tensor_split" takes at most 16 numbers'),
        ("tensor_overrides", ["exps"], OVERRIDE_WANTED),
        ("tensor_overrides", ["exps="], OVERRIDE_WANTED),
        ("tensor_overrides", ["=cpu"], OVERRIDE_WANTED),
        ("tensor_overrides", [1], 'option "tensor_overrides" must be of an array of strings'),
        (
            "tensor_overrides",
            ["(=cpu"],
            'option "tensor_overrides" has a pattern that is no regular expression: "("',
        ),
    ],
)
def test_a_bad_value_is_refused_with_its_options_name(name: str, value: object, said: str) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        parse_options({name: value})

    assert caught.value.message == said


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, HUGE, -HUGE, NUMBER_MAX + 1, NUMBER_MIN - 1, 1e300],
    ids=["nan", "inf", "-inf", "huge", "-huge", "above", "below", "1e300"],
)
def test_a_number_that_llama_cpp_cannot_take_is_refused(name: str, value: float) -> None:
    """A whole number too large for a float was once an exception of another kind."""
    with pytest.raises(UnsupportedOption, match=f'option "{name}" must be'):
        parse_options({name: value})


@pytest.mark.parametrize(
    ("stops", "is_legal"),
    [
        (["x"] * STOPS_MAX, True),
        (["x"] * (STOPS_MAX + 1), False),
        (["x" * STOP_CHARS_MAX], True),
        (["x" * (STOP_CHARS_MAX + 1)], False),
    ],
    ids=["most", "too-many", "longest", "too-long"],
)
def test_stop_texts_have_limits(stops: list[str], is_legal: bool) -> None:
    if is_legal:
        assert parse_options({"stop": stops})[1].stop == tuple(stops)
    else:
        with pytest.raises(UnsupportedOption, match=f"at most {STOPS_MAX} texts"):
            parse_options({"stop": stops})


@pytest.mark.parametrize(
    "name", [name for name, spec in OPTIONS.items() if spec.type is not OptionType.CHOICE]
)
def test_what_is_stored_with_a_model_is_read_again(name: str) -> None:
    """A parameter is kept as JSON in the form that `option_value` gives it."""
    value = _EXAMPLES[OPTIONS[name].type]
    stored = msgspec.json.decode(msgspec.json.encode(option_value(name, OPTIONS[name], value)))

    assert parse_options({name: stored}) == parse_options({name: value})


_EXAMPLES: dict[OptionType, object] = {
    OptionType.INTEGER: 1,
    OptionType.FLOAT: 0.5,
    OptionType.BOOLEAN: True,
    OptionType.STRINGS: ["a", "b"],
    OptionType.NUMBERS: [1, 2],
    OptionType.OVERRIDES: ["a=cpu"],
    OptionType.BIASES: {"5": 1},
}


def test_options_survive_the_way_to_the_runner() -> None:
    options = SamplingOptions(logit_bias=((5, -1.0),), dry_sequence_breakers=("x",), mirostat=2)

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(options), type=SamplingOptions) == options


def test_what_no_longer_does_anything_is_told_once_and_taken_whatever_it_is() -> None:
    model, request = {"tfs_z": 1, "top_k": 1}, {"tfs_z": "?", "numa": True, "low_vram": None}

    assert retired_notes(model, request) == (
        "numa has no effect any more",
        "tfs_z has no effect any more",
    )
    assert parse_options(model, request)[0] == LoadOptions()


def test_the_table_names_every_field_of_both_families_once() -> None:
    on_load = [spec.field for spec in OPTIONS.values() if spec.on_load]
    sampling = [spec.field for spec in OPTIONS.values() if not spec.on_load]

    # The route says whether vectors are wanted, not an option.
    assert sorted([*on_load, "embedding"]) == sorted(LoadOptions.__struct_fields__)
    assert sorted(sampling) == sorted(SamplingOptions.__struct_fields__)
    assert not RETIRED_OPTIONS & set(OPTIONS)


@pytest.mark.parametrize(
    ("top", "base", "merged"),
    [
        (LoadOptions(), LoadOptions(n_ctx=1), LoadOptions(n_ctx=1)),
        (LoadOptions(n_ctx=2), LoadOptions(n_ctx=1), LoadOptions(n_ctx=2)),
        (LoadOptions(use_mmap=False), LoadOptions(use_mmap=True), LoadOptions(use_mmap=False)),
        (LoadOptions(n_threads=0), LoadOptions(n_threads=4), LoadOptions(n_threads=0)),
        (
            LoadOptions(n_batch=8),
            LoadOptions(n_ctx=1, n_batch=9),
            LoadOptions(n_ctx=1, n_batch=8),
        ),
    ],
)
def test_options_lie_over_a_base_where_they_say_something(
    top: LoadOptions, base: LoadOptions, merged: LoadOptions
) -> None:
    assert top.over(base) == merged
