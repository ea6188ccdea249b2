from __future__ import annotations

from ollamactl.showpage import show_page
from ollamactl.wire import ShownModel, read_as

LLAMA = {
    "details": {"family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"},
    "model_info": {
        "general.architecture": "llama",
        "llama.context_length": 131072,
        "llama.embedding_length": 3072.0,
        "tokenizer.ggml.tokens": ["!", '"', "#", "$", "%", "&", "'"],
        "general.flag": True,
    },
    "parameters": 'stop                           "<|eot_id|>"\ntemperature 0.5',
    "capabilities": ["completion", "tools"],
    "license": "LICENCE\n\n  second line\nthird line\n",
    "system": "Be brief.",
    "tensors": [{"name": "output.weight", "type": "Q6_K", "shape": [4096, 4096]}],
    "projector_info": {
        "general.architecture": "clip",
        "general.parameter_count": 312_000_000,
        "clip.vision.embedding_length": 1024,
    },
}


def visible(page: str) -> str:
    """The page without the padding at line ends, which every line has."""
    return "".join(f"{line.rstrip()}\n" for line in page.splitlines())


def test_the_page_has_ollamas_sections_in_ollamas_order() -> None:
    assert (
        visible(show_page(read_as(ShownModel, LLAMA), verbose=False))
        == """\
  Model
    architecture        llama
    parameters          3.2B
    context length      131072
    embedding length    3072
    quantization        Q4_K_M

  Capabilities
    completion
    tools

  Projector
    architecture        clip
    parameters          312M
    embedding length    1024

  Parameters
    stop           "<|eot_id|>"
    temperature    0.5

  System
    Be brief.

  License
    LICENCE
    second line
    ...

"""
    )


def test_verbose_adds_metadata_with_short_arrays_and_tensors() -> None:
    page = visible(show_page(read_as(ShownModel, LLAMA), verbose=True))

    assert (
        """\
  Metadata
    general.architecture      llama
    general.flag              true
    llama.context_length      131072
    llama.embedding_length    3072
    tokenizer.ggml.tokens     [! " # ...+4 more]

  Tensors
    output.weight    Q6_K    [4096 4096]

"""
        in page
    )


def test_a_model_without_metadata_shows_what_its_details_say() -> None:
    page = visible(show_page(read_as(ShownModel, {"details": {"family": "phi"}}), verbose=True))

    assert page == "  Model\n    architecture    phi\n\n"


def test_cells_end_with_padding_as_ollamas_do() -> None:
    page = show_page(read_as(ShownModel, {"capabilities": ["completion"]}), verbose=False)

    assert page == "  Capabilities\n    completion    \n\n"
