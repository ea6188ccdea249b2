"""The page that `show` prints about one model: sections of aligned rows, as Ollama lays them out.

Pure: a `ShownModel` goes in, text comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ollamactl.render import PADDING, columns
from ollamactl.wire import JsonObject, ShownModel
from ollamad.units import format_count

PROSE_COLUMNS_MAX: Final = 100
"""Where the lines of a system prompt or a licence wrap."""
PROSE_LINES_MAX: Final = 2
ARRAY_CHARS_MAX: Final = 10
"""About how much of an array of the metadata is shown."""


def show_page(model: ShownModel, *, verbose: bool) -> str:
    """Return everything worth knowing about *model*; *verbose* adds metadata and tensors."""
    info = model.model_info or {}
    sections = [
        _section("Model", _model_rows(model, info)),
        _section("Capabilities", [[name] for name in model.capabilities or ()]),
        _section("Projector", _projector_rows(model.projector_info or {})),
        _section("Parameters", [line.split() for line in model.parameters.splitlines()]),
    ]
    if verbose:
        sections += [
            _section("Metadata", [[key, _metadata_value(info[key])] for key in sorted(info)]),
            _section(
                "Tensors",
                [
                    [tensor.name, tensor.type, f"[{' '.join(map(str, tensor.shape or ()))}]"]
                    for tensor in model.tensors or ()
                ],
            ),
        ]
    sections += [
        _section("System", _prose(model.system), wrap_at=PROSE_COLUMNS_MAX),
        _section("License", _prose(model.license), wrap_at=PROSE_COLUMNS_MAX),
    ]
    return "".join(sections)


def _section(title: str, rows: Sequence[Sequence[str]], *, wrap_at: int | None = None) -> str:
    filled = [row for row in rows if row]
    if not filled:
        return ""
    body = (
        columns(filled, indent=PADDING)
        if wrap_at is None
        else columns(filled, indent=PADDING, wrap_at=wrap_at)
    )
    return f"  {title}\n{body}\n"


def _model_rows(model: ShownModel, info: JsonObject) -> list[list[str]]:
    arch = info.get("general.architecture")
    count = info.get("general.parameter_count")
    parameters = model.details.parameter_size
    if not parameters and isinstance(count, int):
        parameters = format_count(count)
    rows = [
        ["Remote model", model.remote_model],
        ["Remote URL", model.remote_host],
        ["architecture", _text(arch) or model.details.family],
        ["parameters", parameters],
        ["context length", _text(info.get(f"{arch}.context_length"))],
        ["embedding length", _text(info.get(f"{arch}.embedding_length"))],
        ["quantization", model.details.quantization_level],
        ["requires", model.requires],
    ]
    return [row for row in rows if row[1]]


def _projector_rows(info: JsonObject) -> list[list[str]]:
    arch = info.get("general.architecture")
    count = info.get("general.parameter_count")
    rows = [
        ["architecture", _text(arch)],
        ["parameters", format_count(count) if isinstance(count, int) else ""],
        ["embedding length", _text(info.get(f"{arch}.vision.embedding_length"))],
        ["dimensions", _text(info.get(f"{arch}.vision.projection_dim"))],
    ]
    return [row for row in rows if row[1]]


def _text(value: object) -> str:
    """Return a metadata value as Go prints it; nothing for an absent one."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer():
            return str(int(value))
        case list():
            return f"[{' '.join(map(_text, value))}]"
        case _:
            return str(value)


def _metadata_value(value: object) -> str:
    if not isinstance(value, list):
        return _text(value)
    shown: list[str] = []
    used = 1
    for item in value:
        text = _text(item)
        used += len(text) + (2 if shown else 0)
        if shown and used > ARRAY_CHARS_MAX:
            return f"[{' '.join(shown)} ...+{len(value) - len(shown)} more]"
        shown.append(text)
    return f"[{' '.join(shown)}]"


def _prose(text: str) -> list[list[str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    more = [["..."]] if len(lines) > PROSE_LINES_MAX else []
    return [[line] for line in lines[:PROSE_LINES_MAX]] + more
