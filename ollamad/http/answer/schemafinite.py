"""Whether the values of schemas that refer to each other can ever end. Pure.

A schema that needs itself, such as an object with a required property of the same kind, has no
finite value. A grammar for it is as endless as an answer by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ollamad.http.answer.schemawords import Schema

_Alternatives = Sequence[Any]
"""Schemas of which one must end."""


def endless(nodes: Sequence[Schema], target: Callable[[Schema], Any]) -> Schema | None:
    """Return the first of *nodes* that no finite value keeps to, if there is one.

    *target* returns what a schema's `$ref` refers to. Takes time in proportion to all of them.
    """
    waiting_for: dict[int, list[tuple[int, int]]] = {}
    n_open: dict[int, int] = {}
    met: set[tuple[int, int]] = set()
    ended: list[int] = []
    for node in nodes:
        needs = [need for need in _needs(node, target) if not any(map(_is_plain, need))]
        n_open[id(node)] = len(needs)
        if not needs:
            ended.append(id(node))
        for number, need in enumerate(needs):
            for schema in need:
                waiting_for.setdefault(id(schema), []).append((id(node), number))
    while ended:
        for waiting in waiting_for.get(ended.pop(), ()):
            if waiting not in met:
                met.add(waiting)
                n_open[waiting[0]] -= 1
                if not n_open[waiting[0]]:
                    ended.append(waiting[0])
    return next((node for node in nodes if n_open[id(node)]), None)


def _is_plain(schema: Any) -> bool:
    return not isinstance(schema, dict)


def _needs(schema: Schema, target: Callable[[Schema], Any]) -> list[_Alternatives]:
    """Return what must end for a value of *schema* to end: one of each."""
    if "const" in schema or "enum" in schema:
        return []
    needs: list[_Alternatives] = [[part] for part in schema.get("allOf", ())]
    needs += [schema[word] for word in ("anyOf", "oneOf") if word in schema]
    if "$ref" in schema:
        needs.append([target(schema)])
    kind = schema.get("type")
    if kind in ("object", ["object"]):
        properties: Mapping[str, Any] = schema.get("properties", {})
        rest = schema.get("additionalProperties", True)
        needs += [[properties.get(name, rest)] for name in schema.get("required", ())]
    elif kind in ("array", ["array"]):
        n_items, first = schema.get("minItems", 0), schema.get("prefixItems", [])
        needs += [[item] for item in first[:n_items]]
        if n_items > len(first):
            needs.append([schema.get("items", True)])
    return needs
