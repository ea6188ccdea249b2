"""How much one request may hold, whichever API it is for. Each limit is a setting of `[http]`.

What is refused here is refused before a model is looked for, so that it costs nobody anything.
The size of a body is `scope.BodyLimit`'s, and what a schema may be the business of those who read
schemas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ollamad.config import HttpConfig
from ollamad.errors import InvalidBody

DEFAULT: Final = HttpConfig()

_COUNTED: Final[Mapping[str, str]] = {
    "messages": "messages_max",
    "images": "images_max",
    "tools": "tools_max",
    "functions": "tools_max",
    "stop": "stops_max",
    "stop_sequences": "stops_max",
    "input": "inputs_max",
    "documents": "documents_max",
}
"""Fields of requests whose parts are counted, with the setting that limits them."""


def check_depth(value: Any, data: bytes, depth_max: int) -> None:  # a JSON value of any shape
    """Raise InvalidBody if *value*, which was read from *data*, is nested deeper than *depth_max*.

    Without recursion, and in most cases without looking: a text with few brackets is not deep.
    """
    if data.count(b"[") + data.count(b"{") <= depth_max:
        return
    level: list[Any] = [value]
    for _ in range(depth_max):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise too_deep(depth_max)


def too_deep(depth_max: int) -> InvalidBody:
    """Return what is said of JSON that is nested too deeply."""
    return InvalidBody(
        f"the JSON is nested too deeply: {depth_max} levels are taken (http.json_depth_max)"
    )


def check_counts(body: msgspec.Struct, limits: HttpConfig) -> None:
    """Raise InvalidBody if *body* has more of something than *limits* allow."""
    for field, setting in _COUNTED.items():
        parts = getattr(body, field, None)
        if isinstance(parts, Sequence) and not isinstance(parts, str):
            _check(field, len(parts), limits, setting)
    options = getattr(body, "options", None)
    stops = options.get("stop") if isinstance(options, Mapping) else None
    if isinstance(stops, list):
        _check("options.stop", len(stops), limits, "stops_max")
    messages = getattr(body, "messages", None)
    if isinstance(messages, Sequence):
        n_images = sum(len(getattr(message, "images", None) or ()) for message in messages)
        _check("images", n_images, limits, "images_max")


def _check(field: str, n_parts: int, limits: HttpConfig, setting: str) -> None:
    n_max: int = getattr(limits, setting)
    if n_parts > n_max:
        raise InvalidBody(
            f"{field}: {n_parts} are too many, {n_max} are taken (http.{setting})", param=field
        )
