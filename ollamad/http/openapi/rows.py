"""What a route is, for the document that describes all of them.

Each API has a module beside this one with its rows; a test holds them to the routes that the
application really has, in both directions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ollamad.http.sse import SSE_TYPE
from ollamad.http.streaming import NDJSON_TYPE

Kind = type[msgspec.Struct]
"""A type of the wire."""

Schema = Mapping[str, Any]
"""A JSON Schema."""

JSON: Final = "application/json"
NDJSON: Final = NDJSON_TYPE
EVENTS: Final = SSE_TYPE
TEXT: Final = "text/plain"
BYTES: Final = "application/octet-stream"

COMPUTES: Final = (400, 403, 404, 413, 500, 503)
"""How requests fail that need a runner. 403 is for models of ollama.com."""
STORES: Final = (400, 403, 404, 413, 500)
"""How requests fail that need the store."""
READS: Final = (500,)
"""How requests fail that ask for nothing in particular."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """One form of a route's answer; those with the same status are alternatives."""

    kinds: tuple[Kind, ...] = ()
    """What is in it: the object, or what each line or event may be. None is no JSON."""
    content_type: str = JSON
    """Empty is an answer without a body."""
    status: int = 200
    words: str = ""
    ends_with: str = ""
    """Data of the last event of a stream, which is no JSON; empty where there is none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method of one path."""

    method: str
    path: str
    """With `{name}` for what is not fixed."""
    name: str
    """Unique among the rows of its API."""
    summary: str
    request: Kind | None = None
    replies: tuple[Reply, ...] = ()
    errors: tuple[int, ...] = ()
    uploads: bool = False
    """The body is a file."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The rows of one API, whose names of types are its own."""

    name: str
    """Goes before the names of its types."""
    words: str
    rows: Sequence[Row]
    error: Kind
    """What an error's body is."""
    shared: Mapping[str, Schema] = dataclasses.field(default_factory=dict)
    """Schemas that are no type's, by their names; *fields* refer to them."""
    fields: Mapping[tuple[Kind, str], Schema] = dataclasses.field(default_factory=dict)
    """What types cannot say of fields (by their names on the wire), since the doors check these
    values themselves."""
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What the `{name}`s of paths are."""
