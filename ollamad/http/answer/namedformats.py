"""Formats that no probe can show, recognised by the template's own text. A short table.

A template belongs here only if rendering cannot tell: it drops calls, fails on them, writes them
otherwise than it asks the model to, or its answers are messages with headers.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Final

from ollamad.http.answer.callformat import ANY, NAME, CallFormat, Encoding, Label, Tags
from ollamad.http.answer.channels import Channels
from ollamad.http.answer.parts import Marks


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NamedFormat:
    """A format with a name, and how to recognise it."""

    name: str
    is_it: Callable[[str], bool]
    calls: CallFormat
    channels: Channels | None = None
    thinking: Marks | None = None
    """`None`: as derived."""


def _has(*texts: str) -> Callable[[str], bool]:
    return lambda template: all(text in template for text in texts)


def _json_object(begin: str, end: str, between: str | None = None, **more: object) -> CallFormat:
    form = CallFormat(
        begin=begin + '{"name": "',
        mid='", "arguments": ',
        end="}" + end,
        between=None if between is None else "}" + between + '{"name": "',
        is_object=True,
        name_key="name",
    )
    return dataclasses.replace(form, **more)  # type: ignore[arg-type] # its own fields


HERMES: Final = _json_object("<tool_call>\n", "\n</tool_call>", "\n</tool_call>\n<tool_call>\n")
DEFAULT_CALLS: Final = _json_object("", "")
"""For models whose template writes no calls: the whole answer is one, as JSON."""

_ATEM: Final = '<atem:function_calls>\n<atem:invoke name="'
_ATEM_END: Final = "</atem:invoke>\n</atem:function_calls>"

BEFORE_PROBES: Final = (
    NamedFormat(
        # The template writes earlier calls in another order than the model does.
        name="harmony",
        is_it=_has("<|channel|>", "<|message|>", "functions."),
        calls=CallFormat(
            begin="<|channel|>commentary to=functions.",
            mid=" <|constrain|>json<|message|>",
            end="<|call|>",
            is_by_channel=True,
        ),
        channels=Channels(
            start="<|start|>assistant",
            header_end="<|message|>",
            ends=("<|end|>", "<|return|>", "<|call|>"),
            thought="analysis",
            text="<|channel|>final<|message|>",
            recipient=re.compile(r"to=(?:functions\.)?([\w.\-]+)"),
            people=frozenset({"user", "assistant", "all"}),
        ),
        thinking=Marks("<|channel|>analysis<|message|>", "<|end|>"),
    ),
    NamedFormat(
        name="atem",
        is_it=_has("<atem:function_calls>", "to=self"),
        calls=CallFormat(
            begin=f" to={NAME}<|message|>{_ATEM}",
            mid='">\n',
            end=_ATEM_END,
            between=f"{_ATEM_END}<|eom|><|start|>assistant to={NAME}<|message|>{_ATEM}",
            encoding=Encoding.TAGGED,
            tags=Tags(
                open='<atem:parameter name="', middles={ANY: '">'}, close="</atem:parameter>\n"
            ),
            is_by_channel=True,
        ),
        channels=Channels(
            start="<|start|>assistant",
            header_end="<|message|>",
            ends=("<|eom|>", "<|eot|>"),
            thought="to=self",
            text=" to=user<|message|>",
            recipient=re.compile(r"to=([\w.\-]+)"),
            people=frozenset({"self", "user"}),
        ),
        thinking=Marks(" to=self<|message|>", "<|eom|>"),
    ),
    NamedFormat(
        # Earlier calls must be texts for it, which no other template takes.
        name="functionary 3.2",
        is_it=_has(">>>all"),
        calls=CallFormat(begin="", mid="\n", end="", between=">>>", is_by_channel=True),
        channels=Channels(
            start=">>>",
            header_end="\n",
            ends=("<|eot_id|>", "<|eom_id|>"),
            thought="",
            text="all\n",
            recipient=re.compile(r"([\w.\-]+)\s*\Z"),
            people=frozenset({"all"}),
        ),
    ),
)
"""Asked for before any probe."""

AFTER_PROBES: Final = (
    NamedFormat(
        # Its templates change lists, which no sandbox lets them.
        name="kimi k2",
        is_it=_has("<|tool_calls_section_begin|>"),
        calls=CallFormat(
            begin="<|tool_calls_section_begin|><|tool_call_begin|>functions.",
            mid=":\ue000<|tool_call_argument_begin|>",
            end="<|tool_call_end|><|tool_calls_section_end|>",
            between="<|tool_call_end|><|tool_call_begin|>functions.",
            label=Label.FROM_ZERO,
        ),
    ),
    NamedFormat(
        # The template lists tools, and drops calls of earlier answers.
        name="lfm2",
        is_it=_has("List of tools: "),
        calls=CallFormat(
            begin="<|tool_call_start|>[",
            mid="(",
            end=")]<|tool_call_end|>",
            between="), ",
            encoding=Encoding.PYTHON,
        ),
    ),
    NamedFormat(
        name="granite 3",
        is_it=_has("<|tool_call|>", "JSON list"),
        calls=_json_object("<|tool_call|>[", "]", ", "),
    ),
    NamedFormat(
        name="firefunction",
        is_it=_has("functools["),
        calls=_json_object(" functools[", "]", ", "),
    ),
    NamedFormat(
        # Asks for Hermes' form in its own words, and shows no calls.
        name="hermes",
        is_it=_has("<tool_call>"),
        calls=HERMES,
    ),
)
"""Asked for when probes have shown no calls."""

PYTHON_TAG: Final = "<|python_tag|>"
"""Llama 3 begins calls of tools with it when it has been told of an interpreter, and often else."""
