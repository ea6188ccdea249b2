"""Values within values, each between tags that have its name. Pure, bounded.

<guests><item>Ann</item><item>Bob</item></guests>
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ollamad.http.answer.callformat import ANY, KEY, Tags
from ollamad.http.answer.declared import typed, types_of
from ollamad.http.answer.wants import NAME_CHARS_MAX

DEPTH_MAX: Final = 16
"""Tags within tags in one value. What is deeper is text."""
_ITEM: Final = "item"


def nested_value(text: str, tags: Tags, schema: object, depth: int = 0) -> Any:  # any JSON value
    """Return the value that *text* is: a list or an object if it consists of tags."""
    children = _children(text.strip(), tags) if depth < DEPTH_MAX else None
    if not children:
        return typed(schema, text)
    known = schema if isinstance(schema, Mapping) else {}
    kinds = types_of(schema)
    if "array" in kinds or (not kinds and all(name == _ITEM for name, _ in children)):
        items = known.get("items")
        return [nested_value(inner, tags, items, depth + 1) for _, inner in children]
    properties = known.get("properties")
    schemas = properties if isinstance(properties, Mapping) else {}
    return {
        name: nested_value(inner, tags, schemas.get(name), depth + 1) for name, inner in children
    }


def _children(text: str, tags: Tags) -> list[tuple[str, str]] | None:
    """Return names and texts of the tags that *text* consists of; `None` if it is not all tags."""
    opening, middle = tags.open.strip(), tags.middle(ANY).strip()
    children: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        if not text.startswith(opening, at):
            return None
        begin = at + len(opening)
        name_end = text.find(middle, begin, begin + NAME_CHARS_MAX)
        if name_end < 0:
            return None
        name = text[begin:name_end]
        inner_begin = name_end + len(middle)
        close = tags.close.replace(KEY, name).strip()
        inner_end = _matching(text, inner_begin, f"{opening}{name}{middle}", close)
        if inner_end < 0:
            return None
        children.append((name, text[inner_begin:inner_end]))
        at = inner_end + len(close)
        while text[at : at + 1].isspace():
            at += 1
    return children


def _matching(text: str, at: int, opening: str, close: str) -> int:
    """Return where the close is that belongs to what begins before *at*; -1 if nowhere."""
    depth = 1
    while (end := text.find(close, at)) >= 0:
        depth += text.count(opening, at, end) - 1
        if not depth:
            return end
        at = end + len(close)
    return -1
