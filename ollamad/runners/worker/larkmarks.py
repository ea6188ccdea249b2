"""Marks in Lark grammars that are single tokens in a model's vocabulary. Pure.

A string in a grammar is text, which a control token has none of: where a mark is one, a grammar of
strings would have the model spell it, as it has never seen it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from ollamad.runners.protocol import Grammar, GrammarKind


def with_control_tokens(grammar: Grammar, tokens: Mapping[str, int]) -> Grammar:
    """Return *grammar* with *tokens*, texts and ids, for the strings that are their texts.

    Rules with JSON schemas are left alone: strings in these are the client's.
    """
    if grammar.kind is not GrammarKind.LARK or not tokens:
        return grammar
    lines = [
        line if "%json" in line else _with_tokens(line, tokens) for line in grammar.text.split("\n")
    ]
    return msgspec.structs.replace(grammar, text="\n".join(lines))


def _with_tokens(line: str, tokens: Mapping[str, int]) -> str:
    for text, token in tokens.items():
        string = json.dumps(text, ensure_ascii=False)
        if string in line:
            # A token ends the text before it by itself, and is no part of a lazy one.
            line = line.replace(string, f"<[{token}]>").replace("[lazy]:", ":")
    return line
