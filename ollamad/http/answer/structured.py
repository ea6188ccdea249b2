"""What an answer must look like, in each language that a client may say it in, as a `Grammar`.

Each function checks its input as far as this can be done without the library that keeps to it:
sizes here, schemas in `schemacheck`. What only the library finds wrong comes back from the runner
before the first byte of an answer. Every API goes through these; all of them raise InvalidBody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from ollamad.errors import InvalidBody
from ollamad.http.answer.schemacheck import checked_schema
from ollamad.runners.protocol import Grammar, GrammarKind

REGEX_CHARS_MAX: Final = 1 << 13
"""Length of a regular expression. At worst each letter takes 5 KiB in the runner."""
GRAMMAR_CHARS_MAX: Final = 1 << 14
"""Length of a Lark or GBNF grammar: one of Python's or SQL's syntax has about as much."""
CHOICES_MAX: Final = 10_000
"""Texts of a choice."""
CHOICES_CHARS_MAX: Final = 1 << 18
"""Letters of all texts of a choice together."""
MARK_CHARS_MAX: Final = 256
"""Length of the text that opens or closes thinking; a template's, not a client's."""


def json_grammar() -> Grammar:
    """Return what any JSON object keeps to."""
    return Grammar(GrammarKind.JSON)


def schema_grammar(schema: Any) -> Grammar:  # a JSON value of any shape
    """Return what the values of a JSON Schema keep to, properties in the schema's order.

    Raises InvalidBody for what is no schema, or has a keyword that cannot be kept to; it names the
    keyword and where it is.
    """
    return Grammar(GrammarKind.JSON_SCHEMA, msgspec.json.encode(checked_schema(schema)).decode())


def regex_grammar(text: Any) -> Grammar:  # a JSON value of any shape
    """Return what a regular expression (Rust's syntax) matches as a whole."""
    return Grammar(GrammarKind.REGEX, _checked_text("regex", text, REGEX_CHARS_MAX))


def choice_grammar(choices: Any) -> Grammar:  # a JSON value of any shape
    """Return one of these texts."""
    if not isinstance(choices, Sequence) or isinstance(choices, str | bytes) or not choices:
        raise InvalidBody("a choice must be a list of texts with at least one in it")
    if len(choices) > CHOICES_MAX:
        raise InvalidBody(f"a choice has {len(choices)} texts, {CHOICES_MAX} at most")
    if not all(isinstance(choice, str) and choice for choice in choices):
        raise InvalidBody("a choice must be a list of texts, none of them empty")
    n_chars = sum(map(len, choices))
    if n_chars > CHOICES_CHARS_MAX:
        raise InvalidBody(f"a choice has {n_chars} letters, {CHOICES_CHARS_MAX} at most")
    # One terminal, whose name is in capitals: the lexer tells the texts apart, not the parser.
    texts = " | ".join(json.dumps(choice) for choice in choices)
    return Grammar(GrammarKind.LARK, f"start: CHOICE\nCHOICE: {texts}")


def lark_grammar(text: Any) -> Grammar:  # a JSON value of any shape
    """Return what a Lark grammar produces; its first rule is `start`."""
    return Grammar(GrammarKind.LARK, _checked_text("lark grammar", text, GRAMMAR_CHARS_MAX))


def gbnf_grammar(text: Any) -> Grammar:  # a JSON value of any shape
    """Return what a grammar in llama.cpp's notation produces; its first rule is `root`."""
    return Grammar(GrammarKind.GBNF, _checked_text("gbnf grammar", text, GRAMMAR_CHARS_MAX))


def guided_grammar(value: Mapping[str, Any]) -> Grammar | None:
    """Return what an object with one of the keys `regex`, `choice`, `lark` or `gbnf` asks for.

    `None` if it is none of these. It cannot be mistaken for a JSON Schema: no draft has such words,
    and one that had nothing else would allow everything.
    """
    if len(value) != 1:
        return None
    ((kind, said),) = value.items()
    make = _GUIDES.get(kind)
    return None if make is None else make(said)


_GUIDES: Final[Mapping[str, Callable[[Any], Grammar]]] = {
    "regex": regex_grammar,
    "choice": choice_grammar,
    "lark": lark_grammar,
    "gbnf": gbnf_grammar,
}


def after_thinking(grammar: Grammar, opening: str, closing: str, *, is_open: bool) -> Grammar:
    """Return *grammar* for an answer that may think first, in the same run.

    Thinking is anything up to and including the *closing* mark; some white space may follow. If
    *is_open*, the prompt has opened it already; if not, the answer thinks if it begins with the
    *opening* mark.
    """
    if not opening or not closing or max(len(opening), len(closing)) > MARK_CHARS_MAX:
        raise InvalidBody(
            f"the marks of thinking must have between 1 and {MARK_CHARS_MAX} characters"
        )
    return msgspec.structs.replace(grammar, opening="" if is_open else opening, closing=closing)


def _checked_text(what: str, text: Any, chars_max: int) -> str:
    if not isinstance(text, str) or not text.strip():
        raise InvalidBody(f"the {what} must be a text that is not empty")
    if len(text) > chars_max:
        raise InvalidBody(f"the {what} has {len(text)} characters, {chars_max} at most")
    return text
