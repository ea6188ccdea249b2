"""The words of JSON Schema, as far as answers can keep to them, and what is said about the others.

Tables and small rewritings of one schema, no walk. `docs/compatibility.md` shows the same to
clients.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

Schema = dict[str, Any]

TYPES: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
SHOWN_CHARS_MAX: Final = 100
"""How much of a client's text a message repeats."""


def _says_nothing(value: Any) -> bool:  # a JSON value of any shape
    """*value* is a schema that every value keeps to."""
    return value is True or value == {}


def _is_text(value: Any) -> bool:  # a JSON value of any shape
    """*value* is a schema that every name of a property keeps to."""
    return _says_nothing(value) or (
        isinstance(value, dict)
        and {*value} <= {"type", "title"}
        and value.get("type", "string") == "string"
    )


def _never(_value: Any) -> bool:  # a JSON value of any shape
    return False


UNSUPPORTED: Final[Mapping[str, Callable[[Any], bool]]] = {
    "not": lambda value: value is False,
    "if": _says_nothing,
    "uniqueItems": lambda value: value is False,
    "contains": _never,
    "propertyNames": _is_text,
    "dependentRequired": lambda value: value == {},
    "dependentSchemas": lambda value: value == {},
    "dependencies": lambda value: value == {},
    "unevaluatedItems": _says_nothing,
    "unevaluatedProperties": _says_nothing,
    "$dynamicRef": _never,
    "$recursiveRef": _never,
}
"""Keywords that cannot be kept to, each with the values of it that forbid nothing."""

LEFT_OVERS: Final[Mapping[str, str]] = {
    "then": "if",
    "else": "if",
    "minContains": "contains",
    "maxContains": "contains",
    "$dynamicAnchor": "$dynamicRef",
    "$recursiveAnchor": "$recursiveRef",
}
"""Keywords that mean nothing without another one, which is refused."""

SUBSCHEMAS: Final = ("items", "additionalItems", "additionalProperties")
"""Keywords whose value is a schema."""
SCHEMA_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
SCHEMA_MAPS: Final = ("properties", "patternProperties")
COUNTS: Final = (
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)

LOOKING_AROUND: Final = re.compile(r"\(\?<?[=!]")
LOOKING_BACK: Final = re.compile(r"(?<!\\)(?:\\\\)*(\\(?:[1-9]|k<))")
WORD_EDGE: Final = re.compile(r"(?<!\\)(?:\\\\)*(\\[bB])")
"""What the library's regular expressions do not have."""

FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)
"""Formats that are kept to as they are."""
STRICTER: Final[Mapping[str, str]] = {
    "idn-email": "email",
    "idn-hostname": "hostname",
    "iri": "uri",
    "iri-reference": "uri",
    "uri-reference": "uri",
    "uri-template": "uri",
}
"""Formats that another one, which is kept to, is a part of."""
_POINTER: Final = r"(/([^~/]|~[01])*)*"
PATTERNS: Final[Mapping[str, str]] = {
    "json-pointer": f"^{_POINTER}$",
    "relative-json-pointer": f"^(0|[1-9][0-9]{{0,8}})(#|{_POINTER})$",
}
"""Formats that a pattern says as well."""
UNSUPPORTED_FORMATS: Final = frozenset({"regex"})
"""All others are no formats of the draft's: it says that they are annotations."""

_YEAR: Final = r"([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR: Final = r"([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_REAL_DAY: Final = (
    rf"({_YEAR}-(02-([01][0-9]|2[0-8])|(0[13-9]|1[0-2])-[0-3][0-9])|{_LEAP_YEAR}-02-29)"
)
DAYS: Final[Mapping[str, str]] = {"date": f"^{_REAL_DAY}$", "date-time": f"^{_REAL_DAY}[Tt]"}
"""What the library leaves open of two formats: it has a 29th of February in every year, and a year
0, which most programs cannot read."""


def apply_format(schema: Schema) -> str | None:
    """Rewrite a schema's `format` to what is kept to; return why that is not possible."""
    name = schema.get("format")
    if name is None:
        return None
    if not isinstance(name, str):
        return "it must be a text"
    if name in UNSUPPORTED_FORMATS:
        return f'"{name}" is not supported'
    if name in FORMATS:
        if name in DAYS:
            _add_pattern(schema, DAYS[name])
    elif name in STRICTER:
        schema["format"] = STRICTER[name]
    else:
        del schema["format"]
        if name in PATTERNS:
            _add_pattern(schema, PATTERNS[name])
    return None


def _add_pattern(schema: Schema, pattern: str) -> None:
    if "pattern" not in schema:
        schema["pattern"] = pattern
    else:
        schema["allOf"] = [*schema.get("allOf", ()), {"pattern": pattern}]


def spell_out_names(schema: Schema, names: Any) -> bool:  # a JSON value of any shape
    """Say a schema's `propertyNames`, which are *names*, by its properties, if that can be done."""
    if not isinstance(names, dict) or schema.keys() & {"properties", "patternProperties"}:
        return False
    said = {*names} - {"type", "title", "description"}
    if names.get("type", "string") != "string":
        return False
    rest = schema.get("additionalProperties", True)
    if said == {"pattern"}:
        schema["patternProperties"] = {names["pattern"]: rest}
    elif said == {"enum"} and isinstance(names["enum"], list):
        schema["properties"] = {name: rest for name in names["enum"] if isinstance(name, str)}
    else:
        return False
    schema["additionalProperties"] = False
    return True


def shown(text: str) -> str:
    """Return as much of a client's *text* as a message repeats."""
    cut = text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "..."
    return f'"{cut}"'
