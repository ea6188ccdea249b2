"""What an answer must look like, in the words of OpenAI and of other servers of its API. Pure.

OpenAI has `response_format`; vLLM has `guided_json` and its like, and later `structured_outputs`;
llama.cpp has `grammar`. One of them is enough for one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ollamad.errors import InvalidBody
from ollamad.http.answer.structured import (
    choice_grammar,
    gbnf_grammar,
    json_grammar,
    lark_grammar,
    regex_grammar,
    schema_grammar,
)
from ollamad.http.openai.errors import refused
from ollamad.http.openai.wire import Sampled
from ollamad.runners.protocol import Grammar

_GBNF_SIGN: Final = "::="
"""Stands in every rule of GBNF and in none of Lark."""


def grammar_of(response_format: Any) -> Grammar | None:  # a JSON value of any shape
    """Return what a `response_format` asks for. Raises InvalidBody."""
    if response_format is None:
        return None
    if not isinstance(response_format, Mapping):
        raise refused("response_format", "must be an object")
    kind = response_format.get("type")
    match kind.strip().lower() if isinstance(kind, str) else kind:
        case "text":
            return None
        case "json_object":
            # Several servers take a schema here, and it would be a pity to drop it.
            schema = response_format.get("schema")
            return json_grammar() if schema is None else _schema("response_format.schema", schema)
        case "json_schema":
            return _schema("response_format.json_schema.schema", _schema_of(response_format))
        case _:
            raise refused("response_format.type", 'must be "text", "json_object" or "json_schema"')


def _schema_of(response_format: Mapping[str, Any]) -> Any:  # a JSON value of any shape
    inner = response_format.get("json_schema")
    if not isinstance(inner, Mapping):
        raise refused("response_format.json_schema", "must be an object")
    if inner.get("schema") is None:
        raise refused("response_format.json_schema.schema", "the field is missing")
    return inner["schema"]


def constraint_of(body: Sampled) -> Grammar | None:
    """Return what *body* asks for, whichever way it says so. Raises InvalidBody."""
    said: list[tuple[str, Callable[[str, Any], Grammar | None], Any]] = [
        ("response_format", lambda _, value: grammar_of(value), body.response_format),
        ("guided_json", _json, body.guided_json),
        ("guided_regex", _made(regex_grammar), body.guided_regex),
        ("guided_choice", _made(choice_grammar), body.guided_choice),
        ("guided_grammar", _grammar, body.guided_grammar),
        ("grammar", _grammar, body.grammar),
    ]
    for word, make in _STRUCTURED.items():
        value = (body.structured_outputs or {}).get(word)
        said.append((f"structured_outputs.{word}", make, value))
    grammars = [
        (param, grammar)
        for param, make, value in said
        if value is not None and (grammar := make(param, value)) is not None
    ]
    if len(grammars) > 1:
        (first, _), (second, _), *_ = grammars
        raise refused(second, f"an answer can keep to one form only, and there is {first}")
    return grammars[0][1] if grammars else None


def _made(make: Callable[[Any], Grammar]) -> Callable[[str, Any], Grammar]:
    """Return *make* with errors that name the field."""

    def named(param: str, value: Any) -> Grammar:  # a JSON value of any shape
        try:
            return make(value)
        except InvalidBody as exc:
            raise refused(param, exc.message) from exc

    return named


def _schema(param: str, value: Any) -> Grammar:  # a JSON value of any shape
    return _made(schema_grammar)(param, value)


def _json(param: str, value: Any) -> Grammar:  # a JSON value of any shape
    """Return the grammar of a schema, which may be given as JSON in a text."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise refused(param, "must be a JSON Schema") from exc
    return _schema(param, value)


def _grammar(param: str, value: Any) -> Grammar:  # a JSON value of any shape
    """Return a grammar in either of two notations, which cannot be mistaken for each other."""
    is_gbnf = isinstance(value, str) and _GBNF_SIGN in value
    return _made(gbnf_grammar if is_gbnf else lark_grammar)(param, value)


_STRUCTURED: Final[Mapping[str, Callable[[str, Any], Grammar]]] = {
    "json": _json,
    "regex": _made(regex_grammar),
    "choice": _made(choice_grammar),
    "grammar": _grammar,
}
