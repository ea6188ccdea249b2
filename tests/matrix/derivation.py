"""What is derived from each template: `python -m tests.matrix.derivation` prints it as a table.

A template renders an answer (calls, several calls, a thought with a text and a call), and what the
model would have written of it is read back one character at a time.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ollamad.errors import TemplateBroken
from ollamad.http.answer.callformat import common_end, common_start, tokens
from ollamad.http.answer.format import AnswerFormat, format_of
from ollamad.http.answer.parts import Call, Parts
from ollamad.http.prompt.jinja import check_template, render_jinja
from ollamad.wallclock import SystemWallClock
from tests.templatefolder import templates

REASON: Final = "It may rain, so I look."
TEXT: Final = "Let me look."
TOOLS: Final[Sequence[Mapping[str, Any]]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Tells something.",
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": list(properties),
            },
        },
    }
    for name, properties in (
        (
            "get_weather",
            {
                "city": {"type": "string", "description": "Where."},
                "days": {"type": "integer", "description": "How many."},
            },
        ),
        (
            "book_table",
            {
                "note": {"type": "string", "description": "What to say."},
                "guests": {"type": "array", "items": {"type": "string"}, "description": "Who."},
                "is_inside": {"type": "boolean", "description": "Where."},
                "budget": {"type": "number", "description": "At most."},
                "seat": {
                    "type": "object",
                    "description": "Which.",
                    "properties": {"row": {"type": "integer", "description": "Its row."}},
                },
            },
        ),
    )
]
Called = tuple[str, dict[str, Any]]
WEATHER: Final[Called] = ("get_weather", {"city": "São Paulo", "days": 3})
TABLE: Final[Called] = (
    "book_table",
    {
        "note": 'a "quiet" one,\nif {possible} <b>',
        "guests": ["Ann", "Bob"],
        "is_inside": True,
        "budget": 40.5,
        "seat": {"row": 2},
    },
)


_END_OF_TURN: Final = re.compile(
    r"(<\|eom_id\|>|<\|tool_response>|<\uff5chy_eos:opensource\uff5c>|<\|call\|>|<SPECIAL_12>)\s*\Z"
    r"|<\uff5cend▁of▁sentence\uff5c>.*",
    re.DOTALL,
)
"""Tokens that end a turn: a runner ends there, and never says them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """What an answer consists of."""

    name: str
    calls: Sequence[Called]
    thinking: str = ""
    text: str = ""


CASES: Final = (
    Case("one", [WEATHER]),
    Case("rich", [TABLE]),
    Case("several", [WEATHER, TABLE]),
    Case("all", [WEATHER], REASON, TEXT),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What became of one template."""

    template: str
    format: AnswerFormat
    derived_ms: float
    results: Mapping[str, str]
    """`ok`; `printed`, where the template shows no calls and our own text of it was read back; `-`
    where there is nothing to read; else what was wrong."""


def rows() -> list[Row]:
    """Return a row for each template."""
    return [row_of(name, template) for name, template in templates().items()]


def row_of(name: str, template: str) -> Row:
    """Return the row of one template."""
    check_template(template)  # Compiles: not part of what derivation costs.
    format_of.cache_clear()
    began = time.thread_time()
    derived = format_of(template)
    derived_ms = (time.thread_time() - began) * 1000
    return Row(
        name, derived, derived_ms, {case.name: tried(template, derived, case) for case in CASES}
    )


def tried(template: str, derived: AnswerFormat, case: Case) -> str:
    """Return what became of one case."""
    turn = _turn(template, derived, case)
    if turn is None or any(name not in turn[1] for name, _ in case.calls):
        if derived.calls is None:
            return "-"
        if len(case.calls) > 1 and derived.calls.between is None:
            return "-"
        calls = [Call(id="abcdefgh1", name=name, arguments=args) for name, args in case.calls]
        text = derived.calls.text(calls)
        wrong = compared(read(derived, "", text), Case("", case.calls))
        return wrong or "printed"
    prompt, answer = turn
    shown = Case(
        "",
        case.calls,
        case.thinking if case.thinking in answer else "",
        case.text if case.text in answer else "",
    )
    return compared(read(derived, prompt, answer), shown) or "ok"


def _turn(template: str, derived: AnswerFormat, case: Case) -> tuple[str, str] | None:
    """Return the prompt and the answer as the template has them; `None` if it takes none."""
    user = {"role": "user", "content": "How is it in Brazil?"}
    contents = (case.text,) if case.text else ("", None)
    for tools, as_text, content in itertools.product((TOOLS, None), (False, True), contents):
        calls = [
            {
                "type": "function",
                "id": f"abcdefgh{n}",
                "function": {"name": name, "arguments": json.dumps(args) if as_text else args},
            }
            for n, (name, args) in enumerate(case.calls)
        ]
        message = {"role": "assistant", "content": content, "tool_calls": calls}
        if case.thinking:
            message["reasoning_content"] = case.thinking
        opening = _rendered(template, [user], tools, opens=True)
        turn = _rendered(template, [user, message], tools)
        plain = _rendered(template, [user, {"role": "assistant", "content": "x-x"}], tools)
        if turn is None or opening is None or plain is None:
            continue
        prompt = common_start(turn, opening)
        # Where the template goes on after the turn, that comes between prompt and header too.
        answer = turn[len(prompt) :].removeprefix(tokens(opening)[-1]).rstrip()
        if any(name not in answer for name, _ in case.calls):
            continue
        ending = common_end(answer, plain.rpartition("x-x")[2].rstrip())
        answer = _END_OF_TURN.sub("", answer[: len(answer) - len(ending)])
        if case.thinking and case.thinking in answer and derived.begins_thinking(opening):
            # An earlier turn need not show what the prompt for an answer opens.
            prompt = opening
        return prompt, answer
    return None


def _rendered(
    template: str, messages: Sequence[Mapping[str, Any]], tools: object, *, opens: bool = False
) -> str | None:
    variables = {
        "messages": messages,
        "add_generation_prompt": opens,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "enable_thinking": True,
        **({"tools": tools} if tools else {}),
    }
    try:
        return render_jinja(template, variables, SystemWallClock())
    except TemplateBroken:
        return None


def read(derived: AnswerFormat, prompt: str, answer: str) -> Parts:
    """Return what the parser makes of *answer*, one character at a time."""
    parser = derived.parser(prompt, TOOLS)
    if parser is None:
        return Parts(text=answer)
    parts = Parts()
    for character in answer:
        parts.add(parser.feed(character))
    parts.add(parser.finish())
    return parts


def compared(parts: Parts, case: Case) -> str:
    """Return what is wrong with *parts*; nothing if they are as they should be."""
    calls = [(call.name, dict(call.arguments)) for call in parts.calls]
    if calls != list(case.calls):
        return f"calls {calls!r} text {parts.text!r}"
    if parts.thinking != case.thinking:
        return f"thinking {parts.thinking!r}"
    return f"text {parts.text!r}" if parts.text.strip() != case.text else ""


def main() -> None:
    """Print the table."""
    out = sys.stdout
    cases = "  ".join(case.name for case in CASES)
    out.write(f"{'template':44} {'ms':>5} {'calls':15} {'thinking':26} {cases}\n")
    for row in rows():
        marks = row.format.thinking
        thinking = f"{marks.open} {marks.close}" if marks else "-"
        results = "  ".join(row.results.values())
        out.write(
            f"{row.template[:44]:44} {row.derived_ms:5.1f} {row.format.origin or '-':15}"
            f" {thinking!r:26.26} {results}\n"
        )


if __name__ == "__main__":
    main()
