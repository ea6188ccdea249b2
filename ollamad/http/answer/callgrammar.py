"""The grammar of calls: what an answer must look like so that its calls are valid. Pure.

llguidance's Lark, made of the same literal texts that `callformat` prints. The marks of a format
stand as strings of their own, each a tag, because in some vocabularies they are single tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ollamad.http.answer.callformat import (
    ANY,
    KEY,
    LABEL,
    NAME,
    CallFormat,
    Encoding,
    Label,
    first_mark,
    tokens,
)
from ollamad.runners.protocol import Grammar, GrammarKind

CALLS_MAX: Final = 16
"""Calls in one answer whose grammar leaves it to the model how many there are."""

_JSON_STYLE: Final = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
"""The spaces that models have mostly seen: where there is one way, it need not be chosen."""
_COMPOSED: Final = ("$ref", "allOf", "anyOf", "oneOf", "if", "not")
_DEPTH_MAX: Final = 8
"""Values within values that are written with bare keys; below, an object is empty."""
_ANY_TEXT: Final = r"/(.|\n)*/"


def call_grammar(
    form: CallFormat,
    tools: Sequence[Mapping[str, Any]],
    names: Sequence[str] = (),
    *,
    is_parallel: bool = True,
    may_answer: bool = False,
    text_header: str = "",
    restart: str = "",
) -> Grammar:
    """Return the grammar of an answer that calls *tools*, those with one of *names* if given.

    Arguments follow the tools' schemas. If *may_answer*, the answer is text instead, or text and
    then calls: what begins like a call is a valid one. *text_header* is what stands in front of a
    text, *restart* what may stand in front of anything when the model has thought.
    """
    writer = _Writer(form, is_parallel=is_parallel)
    functions = [tool.get("function") or {} for tool in tools]
    chosen = [function for function in functions if not names or function.get("name") in names]
    if not chosen:
        raise ValueError("a call must be of a tool that is declared")
    return Grammar(
        GrammarKind.LARK,
        writer.grammar(chosen, may_answer=may_answer, text_header=text_header, restart=restart),
    )


def quoted(text: str) -> str:
    """Return *text* as Lark's strings, its tags apart from the rest."""
    strings: list[str] = []
    is_tag = True
    for token in tokens(text):
        if (token.startswith("<") and len(token) > 1) or is_tag or not strings:
            strings.append(token)
        else:
            strings[-1] += token
        is_tag = len(token) > 1 and bool(first_mark(token))
    return " ".join(json.dumps(string, ensure_ascii=False) for string in strings) or '""'


class _Writer:
    """Writes one grammar: a list of rules, each on its line."""

    def __init__(self, form: CallFormat, *, is_parallel: bool) -> None:
        self._form = form
        self._is_parallel = is_parallel and form.between is not None
        self._rules: list[str] = []
        self._has_text = False

    def grammar(
        self,
        functions: Sequence[Mapping[str, Any]],
        *,
        may_answer: bool,
        text_header: str,
        restart: str,
    ) -> str:
        form = self._form
        arguments = [
            (function["name"], self._arguments(n, function)) for n, function in enumerate(functions)
        ]
        begin = form.begin
        lead = ""
        if may_answer:
            self._has_text = True
            lead, begin = self._lead(begin, text_header)
        first = " | ".join(self._one(begin, 0, name, rule) for name, rule in arguments)
        self._rules.append(f"first: {first}")
        calls = f"first {self._labelled(form.end, None)}"
        if self._is_parallel and form.between is not None:
            # What both endings begin with stands alone: a string that is the beginning of another
            # one would be read as that.
            close = self._labelled(form.close, None)
            begin_next = form.between[len(form.close) :]
            more = " | ".join(self._one(begin_next, None, name, rule) for name, rule in arguments)
            self._rules.append(f"more: {more}")
            end = self._labelled(form.end[len(form.close) :], None)
            calls = f"first ({close} more){{0,{CALLS_MAX - 1}}} {close} {end}"
        self._rules.append(f"calls: {calls}")
        prefix = f"({quoted(restart)})? " if restart else ""
        start = f"start: {prefix}({lead}calls"
        start += f" | {self._answer(text_header)})" if may_answer else ")"
        rules = [start, *self._rules]
        if self._has_text:
            rules.append(f"TEXT: {_ANY_TEXT}")
        return "\n".join(rules) + "\n"

    def _lead(self, begin: str, text_header: str) -> tuple[str, str]:
        """Return the rule of a text that the beginning of a call ends, and the rest of *begin*."""
        trigger = self._form.trigger
        if not trigger or text_header or self._form.is_by_channel:
            return "", begin
        self._rules.append(f"lead[lazy]: TEXT {quoted(trigger)}")
        return "lead ", begin.partition(trigger)[2]

    def _answer(self, text_header: str) -> str:
        if text_header:
            return f"{quoted(text_header)} TEXT"
        if self._form.trigger:
            return "TEXT"
        # A bracket at its very beginning makes an answer a call.
        self._rules.append(r"PLAIN: /[^\s\[{](.|\n)*/")
        return "PLAIN"

    def _one(self, opening: str, number: int | None, name: str, rule: str) -> str:
        """Return the expression of one call, without what comes after its arguments."""
        before = self._labelled(opening.replace(NAME, name), number)
        mid = self._labelled(self._form.mid, number)
        return " ".join(part for part in (before, quoted(name), mid, rule) if part)

    def _labelled(self, text: str, number: int | None) -> str:
        """Return *text* as Lark's strings, with what a label may be in its place."""
        label = r"/[A-Za-z0-9]{9}/"  # What Mistral's templates take; others take anything.
        if self._form.label in (Label.FROM_ZERO, Label.FROM_ONE):
            base = 1 if self._form.label is Label.FROM_ONE else 0
            label = r"/[0-9]{1,2}/" if number is None else f'"{base + number}"'
        parts = [quoted(part) if part else "" for part in text.split(LABEL)]
        return f" {label} ".join(parts).strip()

    def _arguments(self, n: int, function: Mapping[str, Any]) -> str:
        schema = _closed(function.get("parameters"))
        is_strict = function.get("strict") is True
        rule = f"args_{n}"
        match self._form.encoding:
            case Encoding.JSON | Encoding.JSON_TEXT:
                self._rules.append(f"{rule}: {self._json(schema, is_strict=is_strict)}")
            case Encoding.TAGGED:
                self._chain(rule, schema, self._tagged(rule, schema, is_strict), self._separator())
            case Encoding.PYTHON:
                items = (
                    f"{quoted(key + '=')} {self._json(_within(schema, value), is_strict=is_strict)}"
                    for key, value in schema.get("properties", {}).items()
                )
                self._chain(rule, schema, items, ", ")
            case Encoding.BARE:
                self._rules.append(f"{rule}: {self._bare(schema, rule, 0)}")
        return rule

    def _separator(self) -> str:
        return self._form.tags.between if self._form.tags is not None else ""

    def _chain(
        self, rule: str, schema: Mapping[str, Any], items: Iterator[str], separator: str
    ) -> None:
        """Add rules for a schema's properties in their order, of which some may be left out.

        The rule `N_first` is what comes from the N-th on if there was none before, `N_next` if
        there was one.
        """
        expressions = list(items)
        names = list(schema.get("properties", {}))
        required = set(schema.get("required") or ())
        last = len(names)
        for n, (name, item) in enumerate(zip(names, expressions, strict=True)):
            self._rules.append(f"{rule}_item_{n}: {item}")
            for state, before in (("first", ""), ("next", separator)):
                text = f"{quoted(before)} " if before else ""
                choices = [f"{text}{rule}_item_{n} {rule}_{n + 1}_next"]
                if name not in required:
                    choices.append(f"{rule}_{n + 1}_{state}")
                self._rules.append(f"{rule}_{n}_{state}: {' | '.join(choices)}")
        self._rules += [f'{rule}_{last}_{state}: ""' for state in ("first", "next")]
        self._rules.append(f"{rule}: {rule}_0_first")

    def _tagged(self, rule: str, schema: Mapping[str, Any], is_strict: bool) -> Iterator[str]:
        tags = self._form.tags
        assert tags is not None  # noqa: S101 - there are tags with this encoding
        for n, (key, value) in enumerate(schema.get("properties", {}).items()):
            kind = value.get("type", "string") if isinstance(value, Mapping) else "string"
            opening = quoted(tags.open + key + tags.middle(kind if isinstance(kind, str) else ANY))
            close = tags.close.replace(KEY, key)
            choices = value.get("enum") if isinstance(value, Mapping) else None
            if isinstance(choices, list) and all(isinstance(choice, str) for choice in choices):
                texts = " | ".join(map(quoted, choices))
                yield f"{opening} ({texts}) {quoted(close)}"
            elif isinstance(kind, str) and kind != "string":
                inner = self._json(_within(schema, value), is_strict=is_strict)
                yield f"{opening} {inner} {quoted(close)}"
            else:
                # Lazy: a text ends where its closing tag first comes.
                longest = value.get("maxLength") if isinstance(value, Mapping) else None
                text = rf"/(.|\n){{0,{longest}}}/" if isinstance(longest, int) else _ANY_TEXT
                self._rules.append(
                    f"{rule}_text_{n}[lazy]: {text} {json.dumps(close, ensure_ascii=False)}"
                )
                yield f"{opening} {rule}_text_{n}"

    def _json(self, schema: object, *, is_strict: bool) -> str:
        """Return the rule of a JSON value. It has a line of its own, in which no marks are.

        What *schema* has beyond what can be kept to is passed over unless *is_strict*.
        """
        options = {**_JSON_STYLE, "lenient": not is_strict}
        whole = schema if isinstance(schema, Mapping) else {}
        source = json.dumps({**whole, "x-guidance": options}, ensure_ascii=False)
        rule = f"json_{len(self._rules)}"
        self._rules.append(f"{rule}: %json {source}")
        return rule

    def _bare(self, schema: Any, rule: str, depth: int) -> str:  # a JSON value of any shape
        """Return the expression of a value with bare keys."""
        quote = self._form.quote
        kind = schema.get("type") if isinstance(schema, Mapping) else None
        if isinstance(schema, Mapping) and isinstance(choices := schema.get("enum"), list):
            return (
                "("
                + " | ".join(
                    quoted(
                        f"{quote}{choice}{quote}" if isinstance(choice, str) else json.dumps(choice)
                    )
                    for choice in choices
                )
                + ")"
            )
        match kind:
            case "integer" | "number" | "boolean" | "null":
                return self._json(schema, is_strict=False)
            case "array":
                item = self._bare(schema.get("items"), f"{rule}_i", depth + 1)
                return f'"[" ({item} ("," {item})*)? "]"'
            case "object" if depth < _DEPTH_MAX:
                properties = schema.get("properties") or {}
                items = [
                    f"{quoted(key + ':')} {self._bare(value, f'{rule}_{n}p', depth + 1)}"
                    for n, (key, value) in enumerate(properties.items())
                ]
                self._chain(f"{rule}_o", schema, iter(items), ",")
                return f'"{{" {rule}_o "}}"'
            case "object":
                return '"{" "}"'
            case _:
                self._rules.append(f"{rule}_t[lazy]: {_ANY_TEXT} {quoted(quote)}")
                return f"{quoted(quote)} {rule}_t"


def _within(schema: Mapping[str, Any], part: object) -> dict[str, Any]:
    """Return *part* of *schema* with the definitions that it may refer to."""
    definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    return {**definitions, **part} if isinstance(part, Mapping) else definitions


def _closed(parameters: object) -> dict[str, Any]:
    """Return *parameters* without room for any that are not declared: nobody could read them."""
    schema = dict(parameters) if isinstance(parameters, Mapping) else {}
    if any(keyword in schema for keyword in _COMPOSED):
        return schema
    schema.setdefault("type", "object")
    if not isinstance(schema.get("properties"), Mapping):
        schema["properties"] = {}
    schema.setdefault("additionalProperties", False)
    return schema
