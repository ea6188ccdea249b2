"""Modelfiles: text to typed instructions, with errors that name the line.

The grammar is Ollama's, quirks included where existing files depend on them: a quoted value ends
only at a line that *ends* in the same quote, there are no escapes, and `#` begins a comment only
where an instruction could begin. Knows nothing of the file system or of HTTP; whether FROM names
a file or a model is decided in `ollamactl.recipe`.
"""

from __future__ import annotations

import codecs
import dataclasses
import re
from collections.abc import Iterator
from typing import Final

from ollamactl.errors import ModelfileError

MODELFILE_BYTES_MAX: Final = 16 << 20
"""Longer files are no Modelfiles: a model was probably named instead."""

KEYWORDS: Final = (
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
)
ROLES: Final = ("system", "user", "assistant")

_KEYWORD: Final = re.compile(r"([A-Za-z]+)[ \t]+")
_FIRST_WORD: Final = re.compile(r"([^\s\"]+)[ \t]+(?=\S)")
_SEMVER: Final = re.compile(
    r"v?(0|[1-9]\d*)(\.(0|[1-9]\d*)(\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?)?)?",
    re.ASCII,
)
_MUST_HAVE_VALUE: Final = frozenset({"from", "adapter", "draft", "renderer", "parser"})

_INT: Final = re.compile(r"[+-]?[0-9]{1,19}")
_FLOAT: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_FLOAT32_MAX: Final = 3.4028235677973366e38
_INT64_MAX: Final = 2**63 - 1
_BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}

INT_PARAMETERS: Final = frozenset(
    {
        "num_ctx",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "draft_num_predict",
        "num_keep",
        "seed",
        "num_predict",
        "top_k",
        "repeat_last_n",
        "num_ubatch",
        "mirostat",
        "dry_allowed_length",
        "dry_penalty_last_n",
        "yarn_orig_ctx",
    }
)
FLOAT_PARAMETERS: Final = frozenset(
    {
        "top_p",
        "min_p",
        "typical_p",
        "temperature",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
        "mirostat_tau",
        "mirostat_eta",
        "top_n_sigma",
        "xtc_probability",
        "xtc_threshold",
        "dry_multiplier",
        "dry_base",
        "rope_frequency_base",
        "rope_frequency_scale",
        "yarn_ext_factor",
        "yarn_attn_factor",
        "yarn_beta_fast",
        "yarn_beta_slow",
    }
)
BOOL_PARAMETERS: Final = frozenset({"use_mmap", "use_mlock", "swa_full", "ignore_eos"})
TEXT_PARAMETERS: Final = frozenset({"kv_cache_type", "flash_attention", "rope_scaling"})
LIST_PARAMETERS: Final = frozenset({"stop", "dry_sequence_breakers", "tensor_overrides"})
"""Each line adds one text."""
DEPRECATED_PARAMETERS: Final = frozenset(
    {
        "penalize_newline",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
    }
)

Parameter = int | float | bool | str
Parameters = dict[str, Parameter | list[str]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Modelfile:
    """What a Modelfile says."""

    froms: tuple[str, ...]
    """At least one: model names or paths, as written."""
    adapters: tuple[str, ...] = ()
    drafts: tuple[str, ...] = ()
    template: str | None = None
    system: str | None = None
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    licenses: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    """Role and text."""
    parameters: Parameters = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: where it begins, its name in lower case, and its value."""

    line: int
    keyword: str
    name: str
    """The parameter's name or the message's role; empty for other instructions."""
    value: str


def decode(content: bytes) -> str:
    """Return a Modelfile's text, with its byte-order mark honoured. Raises ModelfileError."""
    if len(content) > MODELFILE_BYTES_MAX:
        raise ModelfileError(
            f"the Modelfile is larger than {MODELFILE_BYTES_MAX >> 20} MiB; "
            "name the Modelfile with -f, and the model's file inside it with FROM"
        )
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        name = "UTF-16" if is_utf16 else "UTF-8"
        raise ModelfileError(
            f"the Modelfile is not {name} text (near byte {error.start}); "
            "name the Modelfile with -f, and the model's file inside it with FROM"
        ) from error


def parse(text: str) -> Modelfile:
    """Return what *text* says. Raises ModelfileError, and nothing else, for any text."""
    single: dict[str, str] = {}
    lists: dict[str, list[str]] = {"from": [], "adapter": [], "draft": [], "license": []}
    messages: list[tuple[str, str]] = []
    parameters: Parameters = {}
    warnings: list[str] = []
    for instruction in instructions(text):
        match instruction.keyword:
            case "parameter" if instruction.name in DEPRECATED_PARAMETERS:
                warnings.append(f"warning: parameter {instruction.name} is deprecated")
            case "parameter":
                try:
                    add_parameter(parameters, instruction.name, instruction.value)
                except ValueError as error:
                    raise _at(instruction.line, str(error)) from error
            case "message":
                messages.append((instruction.name, instruction.value))
            case "from" | "adapter" | "draft" | "license":
                lists[instruction.keyword].append(instruction.value)
            case "requires":
                if _SEMVER.fullmatch(instruction.value) is None:
                    raise _at(instruction.line, "requires must be a valid semver (e.g. 0.14.0)")
                single["requires"] = instruction.value.removeprefix("v")
            case keyword:
                single[keyword] = instruction.value
    if not lists["from"]:
        raise ModelfileError("no FROM line")
    return Modelfile(
        froms=tuple(lists["from"]),
        adapters=tuple(lists["adapter"]),
        drafts=tuple(lists["draft"]),
        template=single.get("template"),
        system=single.get("system"),
        renderer=single.get("renderer"),
        parser=single.get("parser"),
        requires=single.get("requires"),
        licenses=tuple(lists["license"]),
        messages=tuple(messages),
        parameters=parameters,
        warnings=tuple(warnings),
    )


def instructions(text: str) -> Iterator[Instruction]:
    """Yield the instructions of *text* in order. Raises ModelfileError."""
    # Unprintable characters go first; of the line ends only \n, \r\n and \r are left then.
    kept = "".join(c for c in text if c.isprintable() or c in "\n\r\t")
    lines = kept.splitlines(keepends=True)
    number = 0
    while number < len(lines):
        first_line = number + 1
        line = lines[number].lstrip(" \t")
        if line.startswith("#") or not line.strip():
            number += 1
            continue
        # The line's end must not count as the blank after the word.
        found = _KEYWORD.match(line)
        word = found.group(1).lower() if found else ""
        if found is None or word not in KEYWORDS:
            raise _not_a_command(first_line, line, is_last=number + 1 == len(lines))
        name, rest = "", line[found.end() :]
        if word in {"parameter", "message"}:
            name, rest = _split_name(word, rest, first_line)
        value, number = _value(rest, lines, number)
        if not value.strip() and word in _MUST_HAVE_VALUE:
            raise _at(first_line, f"{word.upper()} needs a value")
        yield Instruction(first_line, word, name, value)


def _split_name(word: str, rest: str, line: int) -> tuple[str, str]:
    """Return the name before a PARAMETER's or MESSAGE's value, and what follows."""
    found = _FIRST_WORD.match(rest)
    name = found.group(1) if found else rest.strip()
    if word == "message" and name not in ROLES:
        raise _at(line, 'message role must be one of "system", "user", or "assistant"')
    if found is None:
        wanted = "a name and a value" if word == "parameter" else "a role and a text"
        raise _at(line, f"{word.upper()} needs {wanted}")
    return name, rest[found.end() :]


def _value(rest: str, lines: list[str], number: int) -> tuple[str, int]:
    """Return the value that begins with *rest* in line *number*, and the next line's number."""
    stripped = rest.strip()
    quote = next((q for q in ('"""', '"') if stripped.startswith(q)), "")
    if not quote:
        return stripped, number + 1
    parts = [rest.lstrip()]
    # Only the line being added can end the value: of the others we know that they did not.
    while not (
        parts[-1].rstrip().endswith(quote)
        and (len(parts) > 1 or len(parts[0].rstrip()) >= 2 * len(quote))
    ):
        number += 1
        if number >= len(lines):
            opened = number - len(parts) + 1
            raise ModelfileError(
                f"unexpected EOF (the {quote} opened in line {opened} is never closed)"
            )
        parts.append(lines[number])
    whole = "".join(parts).rstrip()
    return whole[len(quote) : -len(quote)], number + 1


def _not_a_command(line: int, text: str, *, is_last: bool) -> ModelfileError:
    if is_last and text.strip().lower() in KEYWORDS:
        return ModelfileError(
            f"unexpected EOF ({text.strip().upper()} in line {line} has no value)"
        )
    names = ", ".join(f'"{keyword}"' for keyword in KEYWORDS[:-1])
    return _at(line, f'command must be one of {names}, or "{KEYWORDS[-1]}"')


def _at(line: int, message: str) -> ModelfileError:
    return ModelfileError(f"(line {line}): {message}")


def add_parameter(parameters: Parameters, name: str, text: str) -> None:
    """Put the parameter *name* with the value that *text* stands for into *parameters*.

    Repeated values of lists, such as `stop`, accumulate; of others the last one counts. Raises
    ValueError.
    """
    if name in LIST_PARAMETERS:
        texts = parameters.setdefault(name, [])
        assert isinstance(texts, list)  # noqa: S101 - for the type checker: only put here
        texts.append(text)
        return
    parameters[name] = _parameter(name, text)


def _parameter(name: str, text: str) -> Parameter:
    if name in INT_PARAMETERS:
        if not _INT.fullmatch(text) or not -_INT64_MAX - 1 <= int(text) <= _INT64_MAX:
            raise ValueError(f"invalid int value [{text}]")
        return int(text)
    if name in FLOAT_PARAMETERS:
        if not _FLOAT.fullmatch(text) or abs(float(text)) > _FLOAT32_MAX:
            raise ValueError(f"invalid float value [{text}]")
        return float(text)
    if name in BOOL_PARAMETERS:
        if text not in _BOOLEANS:
            raise ValueError(f"invalid bool value [{text}]")
        return _BOOLEANS[text]
    if name in TEXT_PARAMETERS:
        return text
    raise ValueError(f"unknown parameter '{name}'")
