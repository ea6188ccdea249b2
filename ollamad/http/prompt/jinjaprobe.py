"""What a Jinja chat template expects of its messages, found out by rendering small conversations.

Nothing is known about families of models here: a template says by itself what it makes of a text, a
call, or an id. All probes of one template share the budget of one rendering, and what they tell is
kept.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ollamad.errors import TemplateBroken
from ollamad.http.prompt.jinja import render_jinja
from ollamad.http.prompt.jinjabudget import Budget
from ollamad.http.prompt.jinjachat import Expectations, NoTools, shaped, tool_variables
from ollamad.http.prompt.prompt import Message
from ollamad.wallclock import SystemWallClock

_KEPT: Final = 64
"""Templates whose expectations are remembered."""
_CLOCK: Final = SystemWallClock()

# Words that no template has of its own.
_ASKED: Final = "Quexwolt?"
_RULE: Final = "Zumbrick!"
_FIRST, _SECOND = "frobnicate", "dezipple"
_KEY, _VALUE = "gnarl", "Yoxterby"
_RESULT: Final = "Wimblish."
_TOOLS: Final = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Does it.",
            "parameters": {
                "type": "object",
                "properties": {_KEY: {"type": "string", "description": "What."}},
                "required": [_KEY],
            },
        },
    }
    for name in (_FIRST, _SECOND)
)
_QUESTION: Final[Message] = {"role": "user", "content": _ASKED}
_SHORT_ID: Final = "probe0001"
_LONG_ID: Final = "call_probe_0001"


@functools.lru_cache(maxsize=_KEPT)
def expectations_of(template: str) -> Expectations:
    """Return what *template* expects.

    One that fails on everything, or costs too much to be asked, is taken for a usual one: whoever
    renders it is told.
    """
    budget = Budget()
    found = _found(_Probe(template, budget))
    return Expectations() if budget.is_spent else found


def _found(probe: _Probe) -> Expectations:
    forms = [
        Expectations(no_tools=no_tools, content_is_parts=in_parts)
        for no_tools, in_parts in itertools.product(NoTools, (False, True))
    ]
    # One that shows the question, else one that does not fail.
    showing = (form for form in forms if probe.shows(form, [_QUESTION], _ASKED))
    working = (form for form in forms if probe.rendered(form, [_QUESTION]) is not None)
    usual = next(showing, None) or next(working, Expectations())
    ruled: list[Message] = [{"role": "system", "content": _RULE}, _QUESTION]
    if not probe.shows(usual, ruled, _RULE):
        merged = dataclasses.replace(usual, takes_system=False)
        usual = merged if probe.shows(merged, ruled, _RULE) else usual
    return _with_calls(probe, usual)


def _with_calls(probe: _Probe, usual: Expectations) -> Expectations:
    """Return *usual* with what the template expects of calls, if it can show any."""

    for as_text, content in itertools.product((False, True), ("", None)):
        expected = dataclasses.replace(usual, arguments_are_text=as_text, call_content=content)
        if probe.shows_call(expected, [_SHORT_ID]):
            break
    else:
        return usual
    return dataclasses.replace(
        expected,
        takes_calls_together=probe.shows_call(expected, [_SHORT_ID, "probe0002"]),
        needs_ids=not probe.shows_call(expected, [""]),
        ids_are_short=not probe.shows_call(expected, [_LONG_ID]),
    )


class _Probe:
    """Renders conversations through one template."""

    def __init__(self, template: str, budget: Budget) -> None:
        self._template = template
        self._budget = budget

    def shows(self, expected: Expectations, messages: Sequence[Message], text: str) -> bool:
        """Whether the prompt of *messages* has *text*, and not as a part in Python's words."""
        prompt = self.rendered(expected, messages) or ""
        return text in prompt and f"'text': '{text}'" not in prompt

    def shows_call(self, expected: Expectations, ids: Sequence[str]) -> bool:
        """Whether calls with these ids and their results are shown, and not as Python or twice."""
        names = (_FIRST, _SECOND)[: len(ids)]
        calls = [
            {"id": id_, "function": {"name": name, "arguments": {_KEY: _VALUE}}}
            for id_, name in zip(ids, names, strict=True)
        ]
        results: list[Message] = [
            {"role": "tool", "content": _RESULT, "tool_name": name, "tool_call_id": id_}
            for id_, name in zip(ids, names, strict=True)
        ]
        answer: Message = {"role": "assistant", "content": "", "tool_calls": calls}
        text = self.rendered(expected, [_QUESTION, answer, *results], _TOOLS) or ""
        return (
            text.count(_VALUE) >= len(ids)
            and f"'{_KEY}': '{_VALUE}'" not in text
            and f'\\"{_KEY}\\"' not in text
        )

    def rendered(
        self, expected: Expectations, messages: Sequence[Message], tools: Sequence[Any] = ()
    ) -> str | None:
        """Return the prompt; `None` when the template refuses the conversation."""
        variables: Mapping[str, Any] = {
            "messages": shaped(messages, expected),
            "add_generation_prompt": True,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "datetime": "",
            **tool_variables(tools, expected),
        }
        try:
            return render_jinja(self._template, variables, _CLOCK, self._budget)
        except TemplateBroken:
            return None
