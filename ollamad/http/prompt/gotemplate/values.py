"""Values as a template sees them: kinds, truth, fields, and how Go would compare them.

Data is plain Python: None, bool, int, float, str, mappings with string keys, and lists or tuples.
Four small classes stand for Go types that behave in their own way: `Record` (a struct), `JsonMap`
and `JsonList` (collections that print as JSON) and `TypeNames` (the `type` of a tool's property).

Whole numbers of JSON stay integers. In Go they would be floats, and print as `1e+06` from a million
on, which no model should have to read.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Final, TypeGuard

VALUE_DEPTH_MAX: Final = 100
"""Depth of lists and maps in a value that is printed or written as JSON."""


class ValueFault(Exception):
    """A value cannot be used in this way. Becomes TemplateBroken where the line is known."""


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A struct: its fields by their names in templates, and what it is in JSON."""

    kind: str
    """The name of its type, for messages."""
    fields: Mapping[str, object]
    json: Mapping[str, object]
    """In the order in which a struct is written; values may be any values of this module."""


class JsonMap(dict[str, object]):
    """A map that prints as JSON."""


class JsonList(tuple[object, ...]):
    """A list that prints as JSON."""

    __slots__ = ()


class TypeNames(tuple[str, ...]):
    """The types a tool's property may have. A single one prints, and is in JSON, as its name."""

    __slots__ = ()


class Basic(enum.Enum):
    """The kinds that Go can order or compare directly."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    STRING = "string"
    OTHER = "other"


def basic_kind(value: object) -> Basic:
    """Return which basic kind *value* is of."""
    match value:
        case bool():
            return Basic.BOOL
        case int():
            return Basic.INT
        case float():
            return Basic.FLOAT
        case str():
            return Basic.STRING
        case _:
            return Basic.OTHER


def is_list(value: object) -> TypeGuard[list[object] | tuple[object, ...]]:
    """Whether *value* is what Go calls a slice."""
    return isinstance(value, list | tuple)


def type_name(value: object) -> str:
    """Return the name of the type, as Go's messages give it."""
    match value:
        case None:
            return "nil"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case Record():
            return value.kind
        case Mapping():
            return "map[string]interface {}"
        case list() | tuple():
            return "[]interface {}"
        case _:
            return type(value).__name__


def truth(value: object) -> bool:
    """Whether `if` takes *value* for true: Go's rule, by which each struct is."""
    match value:
        case None:
            return False
        case Record():
            return True
        case bool() | int() | float():
            return value != 0
        case str() | list() | tuple() | Mapping():
            return len(value) > 0
        case _:
            return True


def field(value: object, name: str) -> object:
    """Return the field *name* of a record, or the entry of a map (`None` when missing).

    Raises ValueFault for anything else.
    """
    match value:
        case Record():
            if name not in value.fields:
                raise ValueFault(f"can't evaluate field {name} in type {value.kind}")
            return value.fields[name]
        case Mapping():
            return value.get(name)
        case None:
            raise ValueFault(f"nil pointer evaluating interface {{}}.{name}")
        case _:
            raise ValueFault(f"can't evaluate field {name} in type {type_name(value)}")


def equal(left: object, right: object) -> bool:
    """Return Go's `left == right` for `eq`. Raises ValueFault where Go does not compare."""
    left_kind, right_kind = basic_kind(left), basic_kind(right)
    if left is None or right is None:
        return left is right
    if left_kind is not right_kind:
        raise ValueFault("incompatible types for comparison")
    if left_kind is Basic.OTHER:
        raise ValueFault(f"non-comparable type {type_name(left)}")
    return left == right


def less(left: object, right: object) -> bool:
    """Return Go's `left < right` for `lt`. Raises ValueFault where Go has no order."""
    left_kind, right_kind = basic_kind(left), basic_kind(right)
    if {left_kind, right_kind} & {Basic.BOOL, Basic.OTHER}:
        raise ValueFault("invalid type for comparison")
    if isinstance(left, str) and isinstance(right, str):
        return left < right
    if left_kind is right_kind and isinstance(left, int | float) and isinstance(right, int | float):
        return left < right
    raise ValueFault("incompatible types for comparison")
