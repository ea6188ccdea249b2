"""Per-request options: `LoadOptions` (a change needs another runner) and `SamplingOptions`.

`OPTIONS` is the one table from Ollama's option names to our fields. It serves request bodies,
the parameters stored with a model, and Modelfiles. `None` in `LoadOptions` means *not stated*:
an unstated option never forces a reload.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ollamad.errors import UnsupportedOption


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Options that act when a model is loaded. `None` is "the daemon decides"."""

    n_ctx: int | None = None
    """Context length of one sequence, in tokens."""
    n_batch: int | None = None
    """Tokens computed by one decode call at most."""
    n_gpu_layers: int | None = None
    """Layers put on a GPU; negative means automatic."""
    main_gpu: int | None = None
    """Index of the GPU that holds what is not split."""
    use_mmap: bool | None = None
    """Map the weights instead of reading them."""
    n_threads: int | None = None
    """Threads for computing; 0 means automatic."""
    embedding: bool | None = None
    """Make vectors, also with a model that is there to generate. No option of the API: the route
    says it."""

    def over(self, base: LoadOptions) -> LoadOptions:
        """Return these options, with *base* where they say nothing."""
        return _merged(self, base)


class SamplingOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is chosen, and when to stop. Defaults are Ollama's."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    """How many last tokens are penalised; 0 is none, -1 the whole context."""
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = -1
    """Negative is random."""
    num_predict: int = -1
    """Tokens generated at most; negative is until the model stops or the context is full."""
    num_keep: int = 4
    """Tokens at the start that a cut of the prompt keeps."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are not part of it."""


def _merged(top: LoadOptions, base: LoadOptions) -> LoadOptions:
    values = {
        name: own if (own := getattr(top, name)) is not None else getattr(base, name)
        for name in LoadOptions.__struct_fields__
    }
    return LoadOptions(**values)


class OptionType(enum.Enum):
    """The JSON type an option takes, named as Ollama's messages name it."""

    INTEGER = "integer"
    FLOAT = "float32"
    BOOLEAN = "boolean"
    STRINGS = "array"


@dataclasses.dataclass(frozen=True, slots=True)
class OptionSpec:
    """One option: our field, its type, and whether it acts on load."""

    field: str
    type: OptionType
    on_load: bool = False
    minimum: float | None = None


OPTIONS: Final[Mapping[str, OptionSpec]] = {
    "num_ctx": OptionSpec("n_ctx", OptionType.INTEGER, on_load=True, minimum=0),
    "num_batch": OptionSpec("n_batch", OptionType.INTEGER, on_load=True, minimum=1),
    "num_gpu": OptionSpec("n_gpu_layers", OptionType.INTEGER, on_load=True),
    "main_gpu": OptionSpec("main_gpu", OptionType.INTEGER, on_load=True, minimum=0),
    "use_mmap": OptionSpec("use_mmap", OptionType.BOOLEAN, on_load=True),
    "num_thread": OptionSpec("n_threads", OptionType.INTEGER, on_load=True, minimum=0),
    "num_keep": OptionSpec("num_keep", OptionType.INTEGER),
    "seed": OptionSpec("seed", OptionType.INTEGER),
    "num_predict": OptionSpec("num_predict", OptionType.INTEGER),
    "top_k": OptionSpec("top_k", OptionType.INTEGER),
    "top_p": OptionSpec("top_p", OptionType.FLOAT),
    "min_p": OptionSpec("min_p", OptionType.FLOAT),
    "typical_p": OptionSpec("typical_p", OptionType.FLOAT),
    "repeat_last_n": OptionSpec("repeat_last_n", OptionType.INTEGER),
    "temperature": OptionSpec("temperature", OptionType.FLOAT),
    "repeat_penalty": OptionSpec("repeat_penalty", OptionType.FLOAT),
    "presence_penalty": OptionSpec("presence_penalty", OptionType.FLOAT),
    "frequency_penalty": OptionSpec("frequency_penalty", OptionType.FLOAT),
    "stop": OptionSpec("stop", OptionType.STRINGS),
}
"""Every option we act on, by its name in Ollama's API."""

RETIRED_OPTIONS: Final = frozenset(
    {
        "mirostat", "mirostat_tau", "mirostat_eta", "penalize_newline", "tfs_z", "numa",
        "low_vram", "f16_kv", "vocab_only", "use_mlock", "logits_all", "embedding_only",
        "draft_num_predict",
    }
)  # fmt: skip
"""Names that clients still send and that no longer do anything."""

NUMBER_MIN: Final = -(2**31)
NUMBER_MAX: Final = 2**32 - 1
"""What a number may be: llama.cpp takes 32 bits, signed ones except for the seed."""
STOPS_MAX: Final = 64
"""Stop texts one request may give."""
STOP_CHARS_MAX: Final = 1024
"""Characters one stop text may have: a longer one would be held back from the stream too long."""


def parse_options(*sources: Mapping[str, Any]) -> tuple[LoadOptions, SamplingOptions]:
    """Return the options that *sources* (in API names, the later one wins) stand for.

    Unknown names are ignored, as Ollama does; `null` leaves an option as it was.
    Raises UnsupportedOption, naming the option and the type it takes.
    """
    load: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    for source in sources:
        for name, value in source.items():
            spec = OPTIONS.get(name)
            if spec is None or value is None:
                continue
            (load if spec.on_load else sampling)[spec.field] = option_value(name, spec, value)
    if load.get("n_ctx") == 0:
        del load["n_ctx"]  # Ollama's 0 is "automatic", which here is not stating it.
    return LoadOptions(**load), SamplingOptions(**sampling)


def option_value(name: str, spec: OptionSpec, value: object) -> object:
    """Return *value* as the option's own type. Raises UnsupportedOption."""
    match spec.type, value:
        case OptionType.BOOLEAN, bool():
            return value
        case ((OptionType.INTEGER | OptionType.FLOAT), int() | float()) if not isinstance(
            value, bool
        ):
            return _number(name, spec, value)
        case OptionType.STRINGS, list() | tuple():
            return _stops(name, value)
        case _:
            raise UnsupportedOption(f'option "{name}" must be of type {spec.type.value}')


def _number(name: str, spec: OptionSpec, value: float) -> float:
    # A whole number of JSON may be too large for a float, hence no isfinite for it.
    if not isinstance(value, int) and not math.isfinite(value):
        raise UnsupportedOption(f'option "{name}" must be a finite number')
    if not NUMBER_MIN <= value <= NUMBER_MAX:
        raise UnsupportedOption(f'option "{name}" must be between {NUMBER_MIN} and {NUMBER_MAX}')
    number = int(value) if spec.type is OptionType.INTEGER else float(value)
    if spec.minimum is not None and number < spec.minimum:
        raise UnsupportedOption(f'option "{name}" must be at least {spec.minimum:g}, got {value}')
    return number


def _stops(name: str, value: list[Any] | tuple[Any, ...]) -> tuple[str, ...]:
    if not all(isinstance(item, str) for item in value):
        raise UnsupportedOption(f'option "{name}" must be of an array of strings')
    if len(value) > STOPS_MAX or any(len(item) > STOP_CHARS_MAX for item in value):
        raise UnsupportedOption(
            f'option "{name}" takes at most {STOPS_MAX} texts of {STOP_CHARS_MAX} characters'
        )
    return tuple(item for item in value if item)
