"""A `Grammar` of the protocol in llguidance's own form: JSON with one grammar or two. Pure.

An answer that may think first has two: an outer one, which is free up to the closing mark, and the
one that was asked for, which the outer one names. How a mark is spelled depends on the vocabulary:
a control token is one token that no text is, anything else is text however it is cut into tokens.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ollamad.runners.protocol import Grammar, GrammarKind

JSON_STYLE: Final = {
    # One way to space JSON, the one most models have seen most. Where there is one way, keys and
    # punctuation need not be chosen: they are forced.
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # What cannot be kept to is an error, whatever the schema says about it.
    "lenient": False,
    "coerce_one_of": False,
}
WHITE_SPACE_CHARS_MAX: Final = 8
"""White space before an answer's first mark, and between its thinking and what it must look like.
Models put a line or two there."""

_ANSWER: Final = "answer"
_ANYTHING: Final = "/(?s:.*)/"


@dataclasses.dataclass(frozen=True, slots=True)
class MarkPart:
    """A piece of a mark: a control token, or text."""

    text: str
    token: int | None = None
    """The control token; `None` for text, which may be several tokens or a part of one."""


SplitMark = Callable[[str], Sequence[MarkPart]]
"""Takes a mark apart as the vocabulary has it."""
ToLark = Mapping[GrammarKind, Callable[[str], str]]
"""For each kind of grammar that is said in Lark: what turns it into that."""


def source_of(grammar: Grammar, split: SplitMark, to_lark: ToLark) -> str:
    """Return llguidance's form of *grammar*.

    Raises ValueError or TypeError for what is no schema, and what *to_lark* raises.
    """
    answer = _answer_of(grammar, to_lark)
    if not grammar.closing:
        return json.dumps({"grammars": [answer]})
    outer = _thinking_first(grammar.opening, grammar.closing, split)
    return json.dumps({"grammars": [{"lark_grammar": outer}, {"name": _ANSWER, **answer}]})


def _answer_of(grammar: Grammar, to_lark: ToLark) -> Mapping[str, Any]:
    match grammar.kind:
        case GrammarKind.JSON:
            return {"json_schema": {"type": "object", "x-guidance": JSON_STYLE}}
        case GrammarKind.JSON_SCHEMA:
            schema = json.loads(grammar.text)
            if not isinstance(schema, dict):
                raise TypeError("it must be an object")
            return {"json_schema": {**schema, "x-guidance": JSON_STYLE}}
        case _:
            return {"lark_grammar": to_lark[grammar.kind](grammar.text)}


def _thinking_first(opening: str, closing: str, split: SplitMark) -> str:
    """Return the Lark grammar of an answer that thinks, and then names the one asked for."""
    lines = [f"SPACE: /[ \\t\\r\\n]{{1,{WHITE_SPACE_CHARS_MAX}}}/"]
    parts = list(split(closing))
    first = next((at for at, part in enumerate(parts) if part.token is not None), None)
    if first is None:
        # Lazy: it ends with the first closing mark.
        lines.append(f"thought[suffix={json.dumps(closing)}]: {_ANYTHING}")
        thinking = "thought"
    else:
        # No text contains a control token; what comes before it is text like any other.
        lines.append(f"THOUGHT: {_ANYTHING}")
        thinking = " ".join(["THOUGHT", *map(_spelled, parts[first:])])
    if opening:
        thinking = " ".join([*map(_spelled, split(opening)), thinking, "SPACE?"])
        lines.append(f"start: SPACE? ({thinking})? @{_ANSWER}")
    else:
        lines.append(f"start: {thinking} SPACE? @{_ANSWER}")
    return "\n".join(lines)


def _spelled(part: MarkPart) -> str:
    return json.dumps(part.text) if part.token is None else f"<[{part.token}]>"
