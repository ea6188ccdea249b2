"""The answers of the HTTP API that the commands read, and how a body becomes one of them.

Only what is shown is named here; unknown fields are ignored, so newer daemons stay readable.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from ollamactl.errors import BadAnswer

ZERO_TIME: Final = datetime.fromisoformat("0001-01-01T00:00:00+00:00")

JsonObject = dict[str, Any]
"""A decoded JSON object of the API. Any: its fields are read through the types below."""

T = TypeVar("T")


class Details(msgspec.Struct, frozen=True):
    """What every listing says about a model's file."""

    family: str = ""
    parameter_size: str = ""
    quantization_level: str = ""


class StoredModel(msgspec.Struct, frozen=True):
    """One entry of `GET /api/tags`."""

    name: str
    modified_at: datetime = ZERO_TIME
    size: int = 0
    digest: str = ""
    remote_model: str = ""


class StoredModels(msgspec.Struct, frozen=True):
    """`GET /api/tags`."""

    models: list[StoredModel] | None = None


class RunningModel(msgspec.Struct, frozen=True):
    """One entry of `GET /api/ps`."""

    name: str
    size: int = 0
    size_vram: int = 0
    digest: str = ""
    context_length: int = 0
    expires_at: datetime = ZERO_TIME


class RunningModels(msgspec.Struct, frozen=True):
    """`GET /api/ps`."""

    models: list[RunningModel] | None = None


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation, as stored with a model or streamed by chat."""

    role: str = ""
    content: str = ""
    thinking: str = ""


class TensorInfo(msgspec.Struct, frozen=True):
    """One tensor of `POST /api/show`."""

    name: str
    type: str = ""
    shape: list[int] | None = None


class ShownModel(msgspec.Struct, frozen=True):
    """`POST /api/show`."""

    license: str = ""
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    system: str = ""
    details: Details = Details()
    messages: list[Message] | None = None
    remote_model: str = ""
    remote_host: str = ""
    model_info: JsonObject | None = None
    projector_info: JsonObject | None = None
    tensors: list[TensorInfo] | None = None
    capabilities: list[str] | None = None
    requires: str = ""


class Piece(msgspec.Struct, frozen=True):
    """One line of a generate or chat stream; the last one has the numbers."""

    response: str = ""
    thinking: str = ""
    message: Message = Message()
    done: bool = False
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0


class CreateStatus(msgspec.Struct, frozen=True):
    """One line of a create stream."""

    status: str = ""
    digest: str = ""
    total: int = 0
    completed: int = 0


class Embedded(msgspec.Struct, frozen=True):
    """`POST /api/embed`."""

    embeddings: list[list[float]] | None = None


class Version(msgspec.Struct, frozen=True):
    """`GET /api/version`."""

    version: str
    """Of Ollama's API."""
    ollamad: str = ""
    """The daemon's own; empty if it is Ollama."""


def parse_object(body: bytes) -> JsonObject:
    """Return the JSON object that *body* holds. Raises BadAnswer."""
    try:
        return msgspec.json.decode(body, type=JsonObject)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadAnswer(f"unexpected answer ({error}): is this ollamad?") from error


def read_as(kind: type[T], answer: JsonObject) -> T:
    """Return *answer* as a value of *kind*; fields that are null count as absent.

    Raises BadAnswer when a field has the wrong type.
    """
    present = {key: value for key, value in answer.items() if value is not None}
    try:
        return msgspec.convert(present, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadAnswer(f"unexpected answer ({error}): is this ollamad?") from error


def to_body(value: object) -> bytes:
    """Return *value* as a JSON request body.

    Arguments that are not UTF-8 arrive from the system as lone surrogates, which no JSON may
    carry: they become question marks instead of a crash.
    """
    return json.dumps(value, ensure_ascii=False).encode("utf-8", errors="replace")


def to_text(value: object, *, indent: int | None = None) -> str:
    """Return *value* as JSON for people and programs to read."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
