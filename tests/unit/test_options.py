from __future__ import annotations

import math
from typing import Any

import pytest

from ollamad.errors import UnsupportedOption
from ollamad.options import (
    NUMBER_MAX,
    NUMBER_MIN,
    OPTIONS,
    RETIRED_OPTIONS,
    STOP_CHARS_MAX,
    STOPS_MAX,
    LoadOptions,
    OptionType,
    SamplingOptions,
    parse_options,
)

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
        ({"mirostat": 2, "low_vram": "?", "unheard_of": {}}, {}, {}),
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


def test_the_table_names_every_field_of_both_families_once() -> None:
    on_load = [spec.field for spec in OPTIONS.values() if spec.on_load]
    sampling = [spec.field for spec in OPTIONS.values() if not spec.on_load]

    assert sorted(on_load) == sorted(LoadOptions.__struct_fields__)
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
