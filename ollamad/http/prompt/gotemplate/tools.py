"""Tools and tool calls: what a request says of them, and the records that templates see.

Ollama keeps a fixed part of JSON Schema and drops the rest before a model reads it; so do we, since
published templates print these records whole. Maps are written with their keys in order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ollamad.errors import InvalidBody
from ollamad.http.prompt.gotemplate.broken import quoted
from ollamad.http.prompt.gotemplate.values import JsonList, JsonMap, Record, TypeNames, is_list

SCHEMA_DEPTH_MAX: Final = 40
"""Depth of properties within properties in one tool."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that the model may call, as a request declares it."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """The JSON Schema of its arguments, as sent."""
    type: str = "function"
    items: object = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that the model made earlier in the conversation."""

    name: str
    arguments: Mapping[str, object] = dataclasses.field(default_factory=dict)
    id: str = ""
    index: int = 0


def tool_list(tools: Sequence[Tool]) -> JsonList:
    """Return *tools* as templates see them. Raises InvalidBody for a schema of the wrong shape."""
    return JsonList(_tool(tool) for tool in tools)


def tool_call(call: ToolCall) -> Record:
    """Return *call* as templates see it."""
    arguments = JsonMap(call.arguments)
    function = Record(
        "ToolCallFunction",
        {"Index": call.index, "Name": call.name, "Arguments": arguments},
        {"index": call.index, "name": call.name, "arguments": arguments},
    )
    return Record(
        "ToolCall",
        {"ID": call.id, "Function": function},
        {**_stated(id=call.id), "function": function},
    )


def _stated(**values: object) -> dict[str, object]:
    """Return *values* without the empty ones, which Ollama leaves out of its JSON."""
    return {name: value for name, value in values.items() if value not in (None, "", (), {})}


def _given(**values: object) -> dict[str, object]:
    """Return *values* without those that were not sent; these pass whole, whatever they are."""
    return {name: value for name, value in values.items() if value is not None}


def _tool(tool: Tool) -> Record:
    parameters = _parameters(tool)
    function = Record(
        "ToolFunction",
        {"Name": tool.name, "Description": tool.description, "Parameters": parameters},
        {
            "name": tool.name,
            **_stated(description=tool.description),
            "parameters": parameters,
        },
    )
    return Record(
        "Tool",
        {"Type": tool.type, "Items": tool.items, "Function": function},
        {"type": tool.type, **_given(items=tool.items), "function": function},
    )


def _parameters(tool: Tool) -> Record:
    schema = _Schema(f"tool {quoted(tool.name)}", tool.parameters)
    kind, required = schema.text("type"), schema.texts("required")
    defs, items, properties = schema.get("$defs"), schema.get("items"), schema.properties(0)
    return Record(
        "ToolFunctionParameters",
        {
            "Type": kind,
            "Defs": defs,
            "Items": items,
            "Required": required,
            "Properties": properties,
        },
        {
            "type": kind,
            **_given(**{"$defs": defs}, items=items),
            **_stated(required=required),
            "properties": properties,
        },
    )


class _Schema:
    """A JSON object of a tool's schema, read with messages that say where it is wrong."""

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, Mapping):
            raise InvalidBody(f"{where}: a JSON object is expected")
        self._where = where
        self._value: Mapping[str, object] = value

    def get(self, name: str) -> object:
        return self._value.get(name)

    def text(self, name: str) -> str:
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidBody(f"{self._where}: {name} must be a string")
        return value or ""

    def list(self, name: str) -> Iterable[object]:
        value = self.get(name)
        if value is not None and not is_list(value):
            raise InvalidBody(f"{self._where}: {name} must be an array")
        return value or ()

    def texts(self, name: str) -> tuple[str, ...]:
        values = tuple(value for value in self.list(name) if isinstance(value, str))
        if len(values) != len(tuple(self.list(name))):
            raise InvalidBody(f"{self._where}: {name} must be an array of strings")
        return values

    def types(self) -> TypeNames:
        kind = self.get("type")
        if isinstance(kind, str):
            return TypeNames((kind,))
        return TypeNames(self.texts("type"))

    def properties(self, depth: int) -> JsonMap:
        value = self.get("properties")
        if value is None:
            return JsonMap()
        if depth >= SCHEMA_DEPTH_MAX:
            raise InvalidBody(f"{self._where}: properties nest deeper than {SCHEMA_DEPTH_MAX}")
        if not isinstance(value, Mapping):
            raise InvalidBody(f"{self._where}: properties must be a JSON object")
        return JsonMap(
            (name, _property(f"{self._where}, property {quoted(name)}", schema, depth + 1))
            for name, schema in value.items()
        )

    def choices(self, depth: int) -> tuple[Record, ...]:
        values = tuple(self.list("anyOf"))
        if values and depth >= SCHEMA_DEPTH_MAX:
            raise InvalidBody(f"{self._where}: anyOf nests deeper than {SCHEMA_DEPTH_MAX}")
        return tuple(_property(f"{self._where}, anyOf", value, depth + 1) for value in values)


def _property(where: str, value: object, depth: int) -> Record:
    schema = _Schema(where if depth == 1 else "a nested property of a tool", value)
    description, kinds = schema.text("description"), schema.types()
    any_of, enum = schema.choices(depth), tuple(schema.list("enum"))
    items, required = schema.get("items"), schema.texts("required")
    properties = schema.properties(depth)
    return Record(
        "ToolProperty",
        {
            "AnyOf": any_of,
            "Type": kinds,
            "Items": items,
            "Description": description,
            "Enum": enum,
            "Properties": properties,
            "Required": required,
        },
        {
            **_stated(anyOf=any_of, type=kinds),
            **_given(items=items),
            **_stated(description=description, enum=enum, properties=properties, required=required),
        },
    )
