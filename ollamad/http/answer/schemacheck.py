"""A JSON Schema, checked and put into the form that the runner's library keeps to exactly.

The library (llguidance) honours most of draft 2020-12. What it does not is found here, before a
runner is asked, and refused with the keyword and the place; nothing is dropped that would allow
more. What is changed allows the same, or less: a bound past 64 bits moves inwards, a format becomes
a stricter one. Annotations, and keywords that no draft knows, say nothing about values and are
left as they are. Only what the root reaches is looked at, as the library does.

The walk keeps its own stack: a schema is a client's, and so is its depth.
"""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ollamad.errors import InvalidBody
from ollamad.http.answer import schemawords as words
from ollamad.http.answer.schemafinite import endless
from ollamad.http.answer.schemawords import Schema, shown

SCHEMA_BYTES_MAX: Final = 1 << 19
"""Size of a schema as JSON. Real ones have a few thousand bytes."""
SCHEMA_DEPTH_MAX: Final = 64
"""Brackets in brackets in its JSON. The library's own limit is 128."""
SCHEMA_VALUES_MAX: Final = 50_000
"""Values in its JSON, among them those of an `enum`."""
SCHEMA_NODES_MAX: Final = 10_000
"""Schemas in a schema. Each may refer to the next, and the runner follows recursively: so many fit
its stack (`COMPILE_STACK_BYTES` in `runners/worker/grammar.py`) whatever they are."""
SCHEMA_PROPERTIES_MAX: Final = 1_000
"""Properties of one object. Optional ones take quadratic time: for a thousand, 60 ms."""
SCHEMA_PATTERN_CHARS_MAX: Final = 1 << 13
"""Letters of all patterns together. At worst they take 5 KiB each in the runner."""

_INT_MAX: Final = (1 << 63) - (1 << 10)
"""The largest float that is an integer of 64 bits: the library computes with both."""


def checked_schema(schema: Any) -> Schema:  # a JSON value of any shape
    """Return *schema* in a form that is kept to exactly. Raises InvalidBody."""
    if schema is True:
        return {}
    if schema is False:
        raise InvalidBody("no value keeps to the JSON Schema false")
    if not isinstance(schema, dict):
        raise InvalidBody("a JSON Schema must be an object")
    root = _copied(schema)
    root.pop("x-guidance", None)  # Orders to the library, among them to drop what it cannot do.
    walk = _Walk(root)
    walk.run()
    node = endless(list(walk.nodes), walk.target)
    if node is not None:
        raise refused("$ref", walk.places[id(node)], "a value of it would never end")
    return root


def refused(word: str, place: str, reason: str) -> InvalidBody:
    """Return the error about the keyword *word* of the schema at *place*, a JSON pointer."""
    where = shown(place) if place else "the root"
    return InvalidBody(f'the JSON Schema cannot be kept to: "{word}" at {where}: {reason}')


def _copied(schema: Schema) -> Schema:
    """Return a copy of *schema*, unless it is too large to be looked at in detail."""
    n_values = 0
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        n_values += 1
        if depth > SCHEMA_DEPTH_MAX:
            raise InvalidBody(f"the JSON Schema is nested deeper than {SCHEMA_DEPTH_MAX} levels")
        if n_values > SCHEMA_VALUES_MAX:
            raise InvalidBody(f"the JSON Schema has more than {SCHEMA_VALUES_MAX} values")
        if isinstance(value, dict):
            waiting.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list):
            waiting.extend((item, depth + 1) for item in value)
    data = msgspec.json.encode(schema)
    if len(data) > SCHEMA_BYTES_MAX:
        raise InvalidBody(f"the JSON Schema has {len(data)} bytes, {SCHEMA_BYTES_MAX} at most")
    copy: Schema = msgspec.json.decode(data)
    return copy


class _Walk:
    """Looks at every schema that the root reaches, once, and rewrites it in place."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._anchors: dict[str, Schema] | None = None
        self._waiting: list[tuple[Any, str]] = [(root, "")]
        self._targets: dict[int, Any] = {}
        self._n_pattern_chars = 0
        self.nodes: list[Schema] = []
        self.places: dict[int, str] = {}

    def run(self) -> None:
        """Look at all. Raises InvalidBody for the first thing that cannot be kept to."""
        while self._waiting:
            schema, place = self._waiting.pop()
            if isinstance(schema, bool) or id(schema) in self.places:
                continue
            if not isinstance(schema, dict):
                raise refused("schema", place, "it must be an object or a boolean")
            self.places[id(schema)] = place
            self.nodes.append(schema)
            if len(self.nodes) > SCHEMA_NODES_MAX:
                raise InvalidBody(f"the JSON Schema has more than {SCHEMA_NODES_MAX} schemas in it")
            self._look_at(schema, place)
            # The library goes from left to right, and so do complaints.
            self._waiting.extend(reversed(list(_inner(schema, place))))

    def target(self, schema: Schema) -> Any:
        """Return what the `$ref` of a schema that was looked at refers to."""
        return self._targets[id(schema)]

    def _look_at(self, schema: Schema, place: str) -> None:
        schema.pop("$id", None)  # References are read from the root, whatever it is called.
        self._refuse_unsupported(schema, place)
        _fit_items(schema)
        _check_shape(schema, place)
        _check_constants(schema, place)
        _fit_numbers(schema, place)
        _check_counts(schema, place)
        self._check_patterns(schema, place)
        reason = words.apply_format(schema)
        if reason is not None:
            raise refused("format", place, reason)
        if "$ref" in schema:
            target, target_place = self._resolved(schema["$ref"], place)
            self._targets[id(schema)] = target
            self._waiting.append((target, target_place))

    def _refuse_unsupported(self, schema: Schema, place: str) -> None:
        names = schema.get("propertyNames")
        if isinstance(names, dict) and names.keys() == {"$ref"}:
            names, _ = self._resolved(names["$ref"], place)
        if names is not None and words.spell_out_names(schema, names):
            del schema["propertyNames"]
        for word, allows_all in words.UNSUPPORTED.items():
            if word in schema:
                if not allows_all(schema[word]):
                    raise refused(word, place, "it is not supported")
                del schema[word]
        for word in words.LEFT_OVERS:
            schema.pop(word, None)

    def _resolved(self, reference: Any, place: str) -> tuple[Any, str]:
        """Return what a reference refers to, and its place."""
        if not isinstance(reference, str):
            raise refused("$ref", place, "it must be a text")
        if not reference.startswith("#"):
            raise refused("$ref", place, "only references into the schema itself are followed")
        name = urllib.parse.unquote(reference[1:])
        if name and not name.startswith("/"):
            return self._anchored(name, place), f"#{name}"
        target: Any = self._root
        for part in name.split("/")[1:]:
            step = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and step in target:
                target = target[step]
            elif isinstance(target, list) and step.isdecimal() and int(step) < len(target):
                target = target[int(step)]
            else:
                raise refused("$ref", place, f"there is no {shown(reference)}")
        return target, name

    def _anchored(self, name: str, place: str) -> Schema:
        if self._anchors is None:
            self._anchors = {}
            waiting: list[Any] = [self._root]
            while waiting:
                value = waiting.pop()
                if isinstance(value, dict):
                    if isinstance(value.get("$anchor"), str):
                        self._anchors[value["$anchor"]] = value
                    waiting.extend(value.values())
                elif isinstance(value, list):
                    waiting.extend(value)
        if name not in self._anchors:
            raise refused("$ref", place, f"there is no $anchor {shown(name)}")
        return self._anchors[name]

    def _check_patterns(self, schema: Schema, place: str) -> None:
        if "pattern" in schema:
            self._check_pattern("pattern", schema["pattern"], place)
        for pattern in schema.get("patternProperties", ()):
            self._check_pattern("patternProperties", pattern, place)

    def _check_pattern(self, word: str, pattern: Any, place: str) -> None:
        if not isinstance(pattern, str):
            raise refused(word, place, "it must be a text")
        self._n_pattern_chars += len(pattern)
        if self._n_pattern_chars > SCHEMA_PATTERN_CHARS_MAX:
            reason = f"all patterns together may have {SCHEMA_PATTERN_CHARS_MAX} letters"
            raise refused(word, place, reason)
        for what, found in (
            ("looks around", words.LOOKING_AROUND.search(pattern)),
            ("refers back", words.LOOKING_BACK.search(pattern)),
            ("looks for a word's edge", words.WORD_EDGE.search(pattern)),
        ):
            if found is not None:
                raise refused(word, place, f"{found[found.lastindex or 0]} {what}: not supported")


def _inner(schema: Schema, place: str) -> Iterator[tuple[Any, str]]:
    """Yield the schemas right inside *schema*, and their places."""
    for word, value in schema.items():
        if word in words.SUBSCHEMAS:
            yield value, f"{place}/{word}"
        elif word in words.SCHEMA_LISTS:
            for number, item in enumerate(value):
                yield item, f"{place}/{word}/{number}"
        elif word in words.SCHEMA_MAPS:
            for name, item in value.items():
                step = name.replace("~", "~0").replace("/", "~1")
                yield item, f"{place}/{word}/{step}"


def _check_shape(schema: Schema, place: str) -> None:
    """Refuse keywords whose values are not of the right kind."""
    kinds = schema.get("type", "object")
    for kind in kinds if isinstance(kinds, list) and kinds else [kinds]:
        if not isinstance(kind, str) or kind not in words.TYPES:
            known = ", ".join(sorted(words.TYPES))
            raise refused("type", place, f"it must be one of {known}, or a list of them")
    for word in (*words.SCHEMA_LISTS, "enum"):
        if word in schema and (not isinstance(schema[word], list) or not schema[word]):
            raise refused(word, place, "it must be a list with something in it")
    for word in words.SCHEMA_MAPS:
        if not isinstance(schema.get(word, {}), dict):
            raise refused(word, place, "it must be an object")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise refused("required", place, "it must be a list of texts")
    for word in (*words.SCHEMA_MAPS, "required", "prefixItems"):
        if len(schema.get(word, ())) > SCHEMA_PROPERTIES_MAX:
            raise refused(word, place, f"it may have {SCHEMA_PROPERTIES_MAX} entries")


def _check_constants(schema: Schema, place: str) -> None:
    """Refuse numbers that the library would round."""
    for word in ("const", "enum"):
        waiting = [schema[word]] if word in schema else []
        while waiting:
            value = waiting.pop()
            if isinstance(value, list):
                waiting.extend(value)
            elif isinstance(value, dict):
                waiting.extend(value.values())
            elif isinstance(value, int) and (abs(value) > _INT_MAX or int(float(value)) != value):
                raise refused(word, place, f"{value} has too many digits to be kept to")


def _fit_items(schema: Schema) -> None:
    """Say a list of items as drafts since 2020 do."""
    if isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if not schema["prefixItems"]:
            del schema["prefixItems"]
        if "additionalItems" in schema:
            schema["items"] = schema["additionalItems"]
    schema.pop("additionalItems", None)


def _fit_numbers(schema: Schema, place: str) -> None:
    """Make bounds such as the library reads without rounding: where it would, move them inwards."""
    for bound, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        # In draft 4 it is a boolean.
        is_strict = isinstance(schema.get(strict), bool) and schema.pop(strict)
        if is_strict and bound in schema:
            schema[strict] = schema.pop(bound)
        inwards = math.inf if bound == "minimum" else -math.inf
        for word in (bound, strict):
            if word in schema:
                schema[word] = _fitted(schema[word], inwards, word, place)
    divisor = schema.get("multipleOf", 1)
    if not _is_number(divisor) or not 0 < divisor <= _INT_MAX:
        raise refused("multipleOf", place, "it must be a number above 0")


def _fitted(value: Any, inwards: float, word: str, place: str) -> int | float:
    if not _is_number(value) or not math.isfinite(value):
        raise refused(word, place, "it must be a number")
    outermost = -math.copysign(_INT_MAX, inwards)
    if (value > _INT_MAX and inwards > 0) or (value < -_INT_MAX and inwards < 0):
        raise refused(word, place, "only numbers of 64 bits are possible")
    if abs(value) > _INT_MAX:
        return int(outermost)
    near = float(value)
    if (near < value and inwards > 0) or (near > value and inwards < 0):
        near = math.nextafter(near, inwards)
    return int(near) if near.is_integer() else near


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_counts(schema: Schema, place: str) -> None:
    for word in words.COUNTS:
        if word in schema:
            value = schema[word]
            if not _is_number(value) or value < 0 or value > _INT_MAX or int(value) != value:
                raise refused(word, place, "it must be a whole number, 0 or more")
            schema[word] = int(value)
    n_free = schema.get("minProperties", 0) - len(set(schema.get("required", ())))
    if n_free > 1:
        # The library does not compare the names it has not been told, so two may be the same.
        reason = "at most one of the properties that it asks for may be left out of `required`"
        raise refused("minProperties", place, reason)
