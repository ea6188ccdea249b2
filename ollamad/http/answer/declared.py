"""The tools that a request declares, as far as reading calls of them needs it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from ollamad.http.answer.pythonvalues import NotPython, value_of

Tool = Mapping[str, Any]
"""In the form that Ollama's and OpenAI's APIs share: `type` and `function`."""

_TYPE_ORDER: Final = ("null", "boolean", "integer", "number", "array", "object")
"""In which order a value's text is tried as the types that it may have; a text it always is."""
_TRUTHS: Final = {"true": True, "false": False}
_WIDENED: Final[Mapping[str, type[Any] | tuple[type[Any], ...]]] = {
    "integer": int, "number": (int, float), "array": list, "object": dict,
}  # fmt: skip
_PREFIXES: Final = ("functions.", "tools.")


class DeclaredTools:
    """Looks up names and the types of parameters. `None` as tools: nobody has said which."""

    def __init__(self, tools: Sequence[Tool] | None) -> None:
        self._parameters: dict[str, Mapping[str, Any]] = {}
        self.is_unknown = tools is None
        for tool in tools or ():
            function = tool.get("function")
            if isinstance(function, Mapping) and isinstance(function.get("name"), str):
                self._parameters[function["name"]] = _properties(function.get("parameters"))

    def __contains__(self, name: str) -> bool:
        return name in self._parameters

    def __bool__(self) -> bool:
        return self.is_unknown or bool(self._parameters)

    def resolve(self, name: str) -> str:
        """Return the name that *name* means: some models put a namespace in front."""
        name = name.strip()
        if name not in self._parameters:
            for prefix in _PREFIXES:
                if name.removeprefix(prefix) in self._parameters:
                    return name.removeprefix(prefix)
        return name

    def schema(self, name: str, parameter: str) -> object:
        """Return the schema of a tool's parameter; `None` if it is not declared."""
        return self._parameters.get(name, {}).get(parameter)


def typed(schema: object, text: str) -> Any:  # any JSON value
    """Return the value that *text* stands for where *schema* holds.

    1. The schema says which types: the first that the text can be, a text at last.
    2. It says a sole boolean, and the text is none: false.
    3. It does not say a type: the text.
    4. There is none: what the text is as JSON, or the text.
    """
    if schema is None:
        return json_or_text(text)
    kinds = types_of(schema)
    for kind in (kind for kind in _TYPE_ORDER if kind in kinds):
        is_it, value = _as_kind(kind, text)
        if is_it:
            return value
    return False if kinds == {"boolean"} else text


def decoded(text: str) -> Any:  # any JSON value
    """Return what *text* is as JSON. Raises ValueError, also for what is nested too deeply."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise ValueError(type(exc).__name__) from exc


def mapping_of(value: object) -> dict[str, Any] | None:
    """Return arguments: *value* itself, or what it is as JSON text; `None` if it is no mapping."""
    if isinstance(value, str):
        try:
            value = decoded(value) if value.strip() else {}
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


def json_or_text(text: str) -> Any:  # any JSON value
    """Return what *text* is as JSON, or the text."""
    try:
        return decoded(text)
    except ValueError:
        return text


def _as_kind(kind: str, text: str) -> tuple[bool, Any]:
    short = text.strip()
    if kind == "null":
        return short.lower() in {"null", "none"}, None
    if kind == "boolean":
        return short.lower() in _TRUTHS, _TRUTHS.get(short.lower())
    try:
        value = decoded(short)
    except ValueError:
        # Some templates print lists as Python does, and so do the models that learnt from them.
        try:
            value = value_of(short)
        except NotPython:
            return False, None
    if isinstance(value, bool) or not isinstance(value, _WIDENED[kind]):
        return False, None
    if kind == "number" and isinstance(value, float) and value.is_integer() and "." not in short:
        value = int(value)
    return True, value


def _properties(schema: object) -> Mapping[str, Any]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}


def types_of(schema: object) -> set[str]:
    """Return the JSON types that *schema* allows; none if it does not say."""
    if not isinstance(schema, Mapping):
        return set()
    stated = schema.get("type")
    kinds = {stated} if isinstance(stated, str) else set(_texts(stated))
    for union in ("anyOf", "oneOf"):
        for choice in schema.get(union) or ():
            stated = choice.get("type") if isinstance(choice, Mapping) else None
            kinds |= {stated} if isinstance(stated, str) else set(_texts(stated))
    if not kinds and isinstance(schema.get("enum"), list):
        kinds = {_JSON_NAMES.get(type(value), "string") for value in schema["enum"]}
    return kinds


_JSON_NAMES: Final[Mapping[type[Any], str]] = {
    bool: "boolean", int: "integer", float: "number", type(None): "null",
}  # fmt: skip


def _texts(value: object) -> Iterable[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else ()


def tools_as_text(tools: Sequence[Tool]) -> str:
    """Return a system message that describes *tools* to a model whose template knows none.

    The words are few, because models without a form for calls are mostly small ones.
    """
    lines = [
        json.dumps(tool.get("function") or {}, ensure_ascii=False, separators=(", ", ": "))
        for tool in tools
    ]
    return "\n".join(
        (
            "You can call these functions:",
            *lines,
            'To call one, answer with nothing but JSON: {"name": FUNCTION, "arguments": OBJECT}',
        )
    )
