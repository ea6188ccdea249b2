"""Per-request options: `LoadOptions` (a change needs another runner) and `SamplingOptions`.

`OPTIONS` is the one table from Ollama's option names to our fields. It serves request bodies,
the parameters stored with a model, and Modelfiles. `None` in `LoadOptions` means *not stated*:
an unstated option never forces a reload.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
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
    n_ubatch: int | None = None
    """Tokens the device computes at once, `n_batch` at most."""
    use_mlock: bool | None = None
    """Keep the weights in main memory, never swapped out."""
    kv_type: str | None = None
    """Number format of the KV cache."""
    flash_attention: str | None = None
    """`auto`, `on` or `off`."""
    tensor_split: tuple[float, ...] | None = None
    """Share of each device, in any unit; empty is by free memory."""
    tensor_overrides: tuple[str, ...] | None = None
    """`PATTERN=DEVICE`: tensors whose names the pattern finds go to that device."""
    rope_frequency_base: float | None = None
    rope_frequency_scale: float | None = None
    rope_scaling: str | None = None
    """`none`, `linear`, `yarn` or `longrope`."""
    yarn_ext_factor: float | None = None
    yarn_attn_factor: float | None = None
    yarn_beta_fast: float | None = None
    yarn_beta_slow: float | None = None
    yarn_orig_ctx: int | None = None
    """Context length that the model had before it was stretched, in tokens."""
    swa_full: bool | None = None
    """Keep all tokens also in layers that look at a window only."""
    embedding: bool | None = None
    """Make vectors, also with a model that is there to generate. No option of the API: the route
    says it."""

    def over(self, base: LoadOptions) -> LoadOptions:
        """Return these options, with *base* where they say nothing."""
        return _merged(self, base)


class SamplingOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is chosen, and when to stop.

    Defaults are Ollama's, and llama.cpp's for what Ollama does not have.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    top_n_sigma: float = 0.0
    """Only tokens whose logit is so many standard deviations from the best; 0 or less is off."""
    xtc_probability: float = 0.0
    """How often the likeliest tokens are left out; 0 is never."""
    xtc_threshold: float = 0.1
    """Left out are tokens at least this likely, but for the least likely of them."""
    repeat_last_n: int = 64
    """How many last tokens are penalised; 0 is none, -1 the whole context."""
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    """How much a token costs that would go on with a repeated sequence; 0 is off."""
    dry_base: float = 1.75
    """How much more it costs with each token that the sequence is longer."""
    dry_allowed_length: int = 2
    """Tokens that a sequence may repeat for nothing."""
    dry_penalty_last_n: int = 64
    """How many last tokens are searched for repetitions; 0 is none, -1 the whole context."""
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    """Texts over which no sequence is followed."""
    mirostat: int = 0
    """1 or 2 keeps the surprise of the answer at `mirostat_tau`; then nothing else truncates."""
    mirostat_tau: float = 5.0
    """Bits of surprise aimed at."""
    mirostat_eta: float = 0.1
    """How fast it is corrected."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """What is added to the logits of these tokens, in order of their ids."""
    ignore_eos: bool = False
    """Never choose a token that would end the answer."""
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
    """What an option takes. `told` is its JSON type, named as Ollama's messages name it."""

    INTEGER = enum.auto()
    FLOAT = enum.auto()
    BOOLEAN = enum.auto()
    STRINGS = enum.auto()
    NUMBERS = enum.auto()
    CHOICE = enum.auto()
    """One of a few words."""
    OVERRIDES = enum.auto()
    """Strings of the form `PATTERN=DEVICE`."""
    BIASES = enum.auto()
    """An object from token ids to numbers, or an array of such pairs."""

    @property
    def told(self) -> str:
        """The type as a message names it."""
        return _TOLD[self]


_TOLD: Final[Mapping[OptionType, str]] = {
    OptionType.INTEGER: "integer",
    OptionType.FLOAT: "float32",
    OptionType.BOOLEAN: "boolean",
    OptionType.STRINGS: "array",
    OptionType.NUMBERS: "array",
    OptionType.CHOICE: "string",
    OptionType.OVERRIDES: "array",
    OptionType.BIASES: "object",
}


@dataclasses.dataclass(frozen=True, slots=True)
class OptionSpec:
    """One option: our field, its type, and whether it acts on load."""

    field: str
    type: OptionType
    on_load: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    """The words a CHOICE takes. Where these are `on` and `off`, booleans are taken too."""
    is_zero_unstated: bool = False
    """0 is "automatic" in the API, which here is not stating it."""


def _load(
    field: str,
    type_: OptionType,
    *,
    minimum: float | None = None,
    choices: tuple[str, ...] = (),
    is_zero_unstated: bool = False,
) -> OptionSpec:
    return OptionSpec(
        field,
        type_,
        on_load=True,
        minimum=minimum,
        choices=choices,
        is_zero_unstated=is_zero_unstated,
    )


KV_TYPES: Final = ("f32", "f16", "bf16", "q8_0", "q4_0")
REPEAT_PENALTY_MIN: Final = 0.001
"""Less would overflow what it divides; nobody rewards a repetition a thousandfold."""

OPTIONS: Final[Mapping[str, OptionSpec]] = {
    "num_ctx": _load("n_ctx", OptionType.INTEGER, minimum=0, is_zero_unstated=True),
    "num_batch": _load("n_batch", OptionType.INTEGER, minimum=1),
    "num_ubatch": _load("n_ubatch", OptionType.INTEGER, minimum=0, is_zero_unstated=True),
    "num_gpu": _load("n_gpu_layers", OptionType.INTEGER),
    "main_gpu": _load("main_gpu", OptionType.INTEGER, minimum=0),
    "tensor_split": _load("tensor_split", OptionType.NUMBERS, minimum=0),
    "tensor_overrides": _load("tensor_overrides", OptionType.OVERRIDES),
    "use_mmap": _load("use_mmap", OptionType.BOOLEAN),
    "use_mlock": _load("use_mlock", OptionType.BOOLEAN),
    "num_thread": _load("n_threads", OptionType.INTEGER, minimum=0),
    "kv_cache_type": _load("kv_type", OptionType.CHOICE, choices=KV_TYPES),
    "flash_attention": _load("flash_attention", OptionType.CHOICE, choices=("auto", "on", "off")),
    "swa_full": _load("swa_full", OptionType.BOOLEAN),
    "rope_frequency_base": _load(
        "rope_frequency_base", OptionType.FLOAT, minimum=0, is_zero_unstated=True
    ),
    "rope_frequency_scale": _load(
        "rope_frequency_scale", OptionType.FLOAT, minimum=0, is_zero_unstated=True
    ),
    "rope_scaling": _load(
        "rope_scaling", OptionType.CHOICE, choices=("none", "linear", "yarn", "longrope")
    ),
    "yarn_ext_factor": _load("yarn_ext_factor", OptionType.FLOAT),
    "yarn_attn_factor": _load("yarn_attn_factor", OptionType.FLOAT),
    "yarn_beta_fast": _load("yarn_beta_fast", OptionType.FLOAT),
    "yarn_beta_slow": _load("yarn_beta_slow", OptionType.FLOAT),
    "yarn_orig_ctx": _load("yarn_orig_ctx", OptionType.INTEGER, minimum=0, is_zero_unstated=True),
    "num_keep": OptionSpec("num_keep", OptionType.INTEGER),
    "seed": OptionSpec("seed", OptionType.INTEGER),
    "num_predict": OptionSpec("num_predict", OptionType.INTEGER),
    "top_k": OptionSpec("top_k", OptionType.INTEGER),
    "top_p": OptionSpec("top_p", OptionType.FLOAT),
    "min_p": OptionSpec("min_p", OptionType.FLOAT),
    "typical_p": OptionSpec("typical_p", OptionType.FLOAT),
    "top_n_sigma": OptionSpec("top_n_sigma", OptionType.FLOAT),
    "xtc_probability": OptionSpec("xtc_probability", OptionType.FLOAT, minimum=0, maximum=1),
    "xtc_threshold": OptionSpec("xtc_threshold", OptionType.FLOAT, minimum=0, maximum=1),
    "repeat_last_n": OptionSpec("repeat_last_n", OptionType.INTEGER),
    "temperature": OptionSpec("temperature", OptionType.FLOAT),
    "repeat_penalty": OptionSpec("repeat_penalty", OptionType.FLOAT, minimum=REPEAT_PENALTY_MIN),
    "presence_penalty": OptionSpec("presence_penalty", OptionType.FLOAT),
    "frequency_penalty": OptionSpec("frequency_penalty", OptionType.FLOAT),
    "dry_multiplier": OptionSpec("dry_multiplier", OptionType.FLOAT, minimum=0),
    "dry_base": OptionSpec("dry_base", OptionType.FLOAT, minimum=0),
    "dry_allowed_length": OptionSpec("dry_allowed_length", OptionType.INTEGER, minimum=0),
    "dry_penalty_last_n": OptionSpec("dry_penalty_last_n", OptionType.INTEGER, minimum=-1),
    "dry_sequence_breakers": OptionSpec("dry_sequence_breakers", OptionType.STRINGS),
    "mirostat": OptionSpec("mirostat", OptionType.INTEGER, minimum=0, maximum=2),
    "mirostat_tau": OptionSpec("mirostat_tau", OptionType.FLOAT, minimum=0),
    "mirostat_eta": OptionSpec("mirostat_eta", OptionType.FLOAT, minimum=0),
    "logit_bias": OptionSpec("logit_bias", OptionType.BIASES),
    "ignore_eos": OptionSpec("ignore_eos", OptionType.BOOLEAN),
    "stop": OptionSpec("stop", OptionType.STRINGS),
}
"""Every option we act on, by its name in the API."""

RETIRED_OPTIONS: Final = frozenset(
    {
        "penalize_newline", "tfs_z", "numa", "low_vram", "f16_kv", "vocab_only", "logits_all",
        "embedding_only", "draft_num_predict",
    }
)  # fmt: skip
"""Names that clients still send and that no longer do anything."""

NUMBER_MIN: Final = -(2**31)
NUMBER_MAX: Final = 2**32 - 1
"""What a number may be: llama.cpp takes 32 bits, signed ones except for the seed."""
STOPS_MAX: Final = 256
"""Texts that one array of an option may have. For requests, `http.stops_max` says less."""
STOP_CHARS_MAX: Final = 1024
"""Characters one such text may have: a longer stop would be held back from the stream too long."""
SPLIT_DEVICES_MAX: Final = 16
"""Devices that llama.cpp can split a model between."""
BIASES_MAX: Final = 1024
"""Tokens that one request may bias."""


def parse_options(*sources: Mapping[str, Any]) -> tuple[LoadOptions, SamplingOptions]:
    """Return the options that *sources* (in API names, the later one wins) stand for.

    Unknown names are ignored, as Ollama does; `null` leaves an option as it was.
    Raises UnsupportedOption, naming the option and what it takes.
    """
    load: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    for source in sources:
        for name, value in source.items():
            spec = OPTIONS.get(name)
            if spec is None or value is None:
                continue
            fields = load if spec.on_load else sampling
            fields[spec.field] = option_value(name, spec, value)
            if spec.is_zero_unstated and fields[spec.field] == 0:
                del fields[spec.field]
    return LoadOptions(**load), SamplingOptions(**sampling)


def retired_notes(*sources: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence for each option in *sources* that is taken and does nothing."""
    names = {name for source in sources for name, value in source.items() if value is not None}
    return tuple(f"{name} has no effect any more" for name in sorted(names & RETIRED_OPTIONS))


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
            return _texts(name, value)
        case OptionType.NUMBERS, list() | tuple():
            return _split(name, spec, value)
        case OptionType.OVERRIDES, list() | tuple():
            return _overrides(name, value)
        case OptionType.CHOICE, str() | bool():
            return _choice(name, spec, value)
        case OptionType.BIASES, dict():
            return _biases(name, list(value.items()))
        case OptionType.BIASES, list() | tuple():
            return _biases(name, value)
        case _:
            raise UnsupportedOption(f'option "{name}" must be of type {spec.type.told}')


def _number(name: str, spec: OptionSpec, value: float) -> float:
    # A whole number of JSON may be too large for a float, hence no isfinite for it.
    if not isinstance(value, int) and not math.isfinite(value):
        raise UnsupportedOption(f'option "{name}" must be a finite number')
    if not NUMBER_MIN <= value <= NUMBER_MAX:
        raise UnsupportedOption(f'option "{name}" must be between {NUMBER_MIN} and {NUMBER_MAX}')
    number = int(value) if spec.type is OptionType.INTEGER else float(value)
    if spec.minimum is not None and number < spec.minimum:
        raise UnsupportedOption(f'option "{name}" must be at least {spec.minimum:g}, got {value}')
    if spec.maximum is not None and number > spec.maximum:
        raise UnsupportedOption(f'option "{name}" must be at most {spec.maximum:g}, got {value}')
    return number


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _texts(name: str, value: list[Any] | tuple[Any, ...]) -> tuple[str, ...]:
    if not all(isinstance(item, str) for item in value):
        raise UnsupportedOption(f'option "{name}" must be of an array of strings')
    if len(value) > STOPS_MAX or any(len(item) > STOP_CHARS_MAX for item in value):
        raise UnsupportedOption(
            f'option "{name}" takes at most {STOPS_MAX} texts of {STOP_CHARS_MAX} characters'
        )
    return tuple(item for item in value if item)


def _split(name: str, spec: OptionSpec, value: list[Any] | tuple[Any, ...]) -> tuple[float, ...]:
    if not all(_is_number(item) for item in value):
        raise UnsupportedOption(f'option "{name}" must be of an array of numbers')
    if len(value) > SPLIT_DEVICES_MAX:
        raise UnsupportedOption(f'option "{name}" takes at most {SPLIT_DEVICES_MAX} numbers')
    shares = tuple(_number(name, spec, item) for item in value)
    if shares and not any(shares):
        raise UnsupportedOption(f'option "{name}" needs a number greater than 0')
    return shares


def _overrides(name: str, value: list[Any] | tuple[Any, ...]) -> tuple[str, ...]:
    texts = _texts(name, value)
    for text in texts:
        pattern, _, device = text.rpartition("=")
        if not pattern or not device:
            raise UnsupportedOption(
                f'option "{name}" must have the form "PATTERN=DEVICE", as in ".ffn_.*_exps.=cpu"'
            )
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError):
            raise UnsupportedOption(
                f'option "{name}" has a pattern that is no regular expression: "{pattern[:80]}"'
            ) from None
    return texts


def _choice(name: str, spec: OptionSpec, value: str | bool) -> str:
    if isinstance(value, bool) and "on" in spec.choices:
        return "on" if value else "off"
    if isinstance(value, str) and value in spec.choices:
        return value
    told = [f'"{choice}"' for choice in spec.choices]
    if "on" in spec.choices:
        told += ["true", "false"]
    raise UnsupportedOption(f'option "{name}" must be one of {", ".join(told)}')


def _biases(name: str, pairs: list[Any] | tuple[Any, ...]) -> tuple[tuple[int, float], ...]:
    """Return biases in order of their tokens. JSON can only have strings as an object's keys."""
    if len(pairs) > BIASES_MAX:
        raise UnsupportedOption(f'option "{name}" takes at most {BIASES_MAX} tokens')
    biases: dict[int, float] = {}
    for pair in pairs:
        match pair:
            case [str() | int() as token, int() | float() as bias] if _is_number(bias):
                biases[_token(name, token)] = _number(name, _BIAS, bias)
            case _:
                raise UnsupportedOption(
                    f'option "{name}" must map token ids to numbers, as in {{"1234": -100}}'
                )
    return tuple(sorted(biases.items()))


def _token(name: str, value: str | int) -> int:
    if isinstance(value, str) and _TOKEN.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= NUMBER_MAX:
        return value
    raise UnsupportedOption(f'option "{name}" must have token ids as its keys, such as "1234"')


_BIAS: Final = OptionSpec("", OptionType.FLOAT)
_TOKEN: Final = re.compile(r"[0-9]{1,9}")
