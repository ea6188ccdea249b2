"""What a grammar allows, as llguidance understands it, over a vocabulary of single bytes."""

from __future__ import annotations

import llguidance

from ollamad.runners.protocol import Grammar

BYTES = llguidance.LLTokenizer("byte")


def allows(grammar: Grammar, answer: str) -> bool:
    """The answer is one of the grammar's, from its first to its last byte."""
    source = llguidance.LLMatcher.grammar_from_lark(grammar.text)
    matcher = llguidance.LLMatcher(BYTES, source, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = BYTES.tokenize_str(answer)
    if matcher.validate_tokens(tokens) < len(tokens):
        return False
    matcher.consume_tokens(tokens)
    return matcher.is_accepting()
