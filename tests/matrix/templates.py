"""Every template of llama.cpp's folder, in every kind of conversation: ours beside Hugging Face's.

`python -m tests.matrix.templates` prints the table; `test_templates.py` holds us to it.
"""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final
from unittest import mock

from ollamad.errors import TemplateBroken
from ollamad.http.prompt.gotemplate.chat import Think
from ollamad.http.prompt.jinja import render_jinja
from ollamad.http.prompt.jinjachat import Expectations, shaped, think_variables, tool_variables
from ollamad.http.prompt.jinjaprobe import expectations_of
from ollamad.http.prompt.prompt import Message
from ollamad.http.prompt.render import Renderer
from tests.templatefolder import templates
from tests.unit.http.models import NOON, FixedClock, a_model

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # It misses frameworks we do not need.
from transformers.utils.chat_template_utils import render_jinja_template


class Verdict(enum.Enum):
    """What came of one template and one conversation. Each value is its sign in the table."""

    SAME = "="
    """The same text."""
    BOTH_REFUSE = "x"
    """Both fail, for the same reason."""
    ADAPTED = "~"
    """The same text, for the messages in the form that this template expects; given the usual form,
    Hugging Face's text is nonsense, or silent about a part of them."""
    ONLY_OURS = "+"
    """Hugging Face's fails, unless it is given the messages in the form that this one expects."""
    DIFFERENT = "!"
    """The texts differ."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One conversation, in the form of Ollama's API."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    think: Think = None
    continues: bool = False
    """The last message is the beginning of the answer."""
    opens_answer: bool = True
    """Without: a conversation that is over, which no API of ours asks for."""

    @property
    def is_raw(self) -> bool:
        """Only the language is compared: no API of ours has such messages."""
        return not self.opens_answer or any(
            not isinstance(message.get("content", ""), str) for message in self.messages
        )


def _tool(name: str, **properties: str) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": f"It does <{name}>.",
            "parameters": {
                "type": "object",
                "properties": {
                    key: {"type": kind, "description": f"The {key}"}
                    for key, kind in properties.items()
                },
                "required": list(properties),
            },
        },
    }


def user(content: Any) -> Message:  # a text, or the parts of one
    return {"role": "user", "content": content}


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def assistant(content: str, **more: Any) -> Message:
    return {"role": "assistant", "content": content, **more}


def call(call_id: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "function": {"name": name, "arguments": arguments}}


def result(call_id: str, name: str, content: str) -> Message:
    return {"role": "tool", "content": content, "tool_name": name, "tool_call_id": call_id}


TOOLS: Final = (_tool("get_weather", city="string", unit="string"), _tool("add", a="integer"))
_WEATHER: Final = call("abcdefghi", "get_weather", city="Zürich", unit="C")
_ADD: Final = call("bcdefghij", "add", a=1)
_ASKED: Final = user("What is the weather in Zürich?")

CASES: Final[Mapping[str, Case]] = {
    "plain": Case(messages=[user("Hello")]),
    "system": Case(messages=[system("Be brief."), user("Hello")]),
    "turns": Case(messages=[user("Hi"), assistant("Hello!"), user("Bye")]),
    "unicode": Case(
        messages=[user("Grüße <b>&\n 你好 🎉\u2028 ' \" \\ "), assistant("\t¿"), user("{{ 1 }}")]
    ),
    "empty": Case(messages=[user("")]),
    "tools": Case(messages=[system("Be brief."), _ASKED], tools=TOOLS),
    "call": Case(
        messages=[
            _ASKED,
            assistant("", tool_calls=[_WEATHER]),
            result("abcdefghi", "get_weather", "30"),
        ],
        tools=TOOLS,
    ),
    "said+call": Case(
        messages=[
            _ASKED,
            assistant("I will look.", tool_calls=[_WEATHER]),
            result("abcdefghi", "get_weather", '{"degrees": 30}'),
            assistant("It is 30 degrees."),
            user("Thanks"),
        ],
        tools=TOOLS,
    ),
    "calls": Case(
        messages=[
            _ASKED,
            assistant("", tool_calls=[_WEATHER, _ADD]),
            result("abcdefghi", "get_weather", "30"),
            result("bcdefghij", "add", "2"),
        ],
        tools=TOOLS,
    ),
    "steps": Case(
        messages=[
            _ASKED,
            assistant("", thinking="First.", tool_calls=[_WEATHER]),
            result("abcdefghi", "get_weather", "30"),
            assistant("", thinking="Then.", tool_calls=[_ADD]),
            result("bcdefghij", "add", "2"),
        ],
        tools=TOOLS,
        think=True,
    ),
    "thoughts": Case(
        messages=[user("Hi"), assistant("Hello!", thinking="They greet."), user("Bye")], think=True
    ),
    "no think": Case(messages=[user("Hi")], think=False),
    "effort": Case(messages=[user("Hi")], think="low"),
    "continue": Case(messages=[user("Hi"), assistant("Once upon")], continues=True),
    "two users": Case(messages=[user("Hi"), user("Are you there?")]),
    "over": Case(messages=[user("Hi"), assistant("Hello!")], opens_answer=False),
    "parts": Case(
        messages=[
            user([{"type": "text", "text": "Hello"}, {"type": "text", "text": " you"}]),
        ]
    ),
}


def hugging_face_form(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return *messages* as somebody writes them who uses Hugging Face's libraries."""
    written = []
    for message in messages:
        one: dict[str, Any] = {"role": message["role"], "content": message["content"]}
        if "thinking" in message:
            one |= {"reasoning": message["thinking"]}
        if "tool_calls" in message:
            one["tool_calls"] = [{"type": "function", **call} for call in message["tool_calls"]]
        if message["role"] == "tool":
            one |= {"name": message["tool_name"], "tool_call_id": message["tool_call_id"]}
        written.append(one)
    return written


class _Noon(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return NOON.astimezone().replace(tzinfo=None)


@contextmanager
def _at_noon() -> Iterator[None]:
    with mock.patch("transformers.utils.chat_template_utils.datetime", _Noon):
        yield


_SPECIAL: Final = {"bos_token": "<s>", "eos_token": "</s>"}


def _variables(case: Case) -> dict[str, Any]:
    # What only Firefunction's template asks for, a user of it would pass as well.
    own = {"datetime": "Aug 21 2026 12:00:00 GMT"}
    functions = tool_variables(case.tools, Expectations())["functions"]
    return {**_SPECIAL, **own, "functions": functions, **think_variables(case.think, "llama")}


def theirs(template: str, case: Case, messages: Sequence[Message], **more: Any) -> str | Exception:
    """Return what Hugging Face's library makes of *messages*, or how it fails."""
    arguments = {
        "tools": [dict(tool) for tool in case.tools] or None,
        "documents": None,
        "add_generation_prompt": case.opens_answer and not case.continues,
        "continue_final_message": case.continues,
        **_variables(case),
        **more,
    }
    try:
        with _at_noon():
            rendered: Any = render_jinja_template(  # It says that it returns a text.
                [[dict(message) for message in messages]], chat_template=template, **arguments
            )
    except Exception as exc:  # noqa: BLE001 - a template fails in any way
        return exc
    return str(rendered[0][0])


def raw(template: str, case: Case) -> str | TemplateBroken:
    """Return what our Jinja makes of the same messages and variables."""
    messages = [
        {**one, **dict.fromkeys(("thinking", "reasoning_content"), one["reasoning"])}
        if "reasoning" in one
        else one
        for one in hugging_face_form(case.messages)
    ]
    variables = {
        "messages": messages,
        "tools": list(case.tools) or None,
        "documents": None,
        "add_generation_prompt": case.opens_answer,
        **_variables(case),
    }
    try:
        return render_jinja(template, variables, FixedClock())
    except TemplateBroken as exc:
        return exc


def ours(template: str, case: Case) -> str | TemplateBroken:
    """Return the prompt of a chat."""
    renderer = Renderer(a_model(chat_template=template), FixedClock())
    try:
        return renderer.chat(case.messages, tools=case.tools, think=case.think).text
    except TemplateBroken as exc:
        return exc


def compare(mine: str | TemplateBroken, other: str | Exception) -> Verdict:
    """Return what is to be said of two results."""
    if isinstance(mine, TemplateBroken) and isinstance(other, Exception):
        return Verdict.BOTH_REFUSE if str(other) in mine.message else Verdict.DIFFERENT
    return Verdict.SAME if mine == other else Verdict.DIFFERENT


def judge(template: str, case: Case) -> Verdict:
    """Return the verdict about a template and a conversation."""
    usual = hugging_face_form(case.messages)
    if case.is_raw:
        return compare(raw(template, case), theirs(template, case, usual))
    mine, other = ours(template, case), theirs(template, case, usual)
    verdict = compare(mine, other)
    expected = expectations_of(template)
    if verdict is not Verdict.DIFFERENT or expected == Expectations():
        return verdict
    absent = tool_variables(case.tools, expected)
    # Left out is what Jinja has for a variable that is not given, and for none it is never that.
    gone: dict[str, Any] = {} if "tools" in absent else {"tools": []}
    form = shaped(case.messages, expected)
    if compare(mine, theirs(template, case, form, **gone)) is not Verdict.SAME:
        return Verdict.DIFFERENT
    return Verdict.ONLY_OURS if isinstance(other, Exception) else Verdict.ADAPTED


def matrix(texts: Mapping[str, str]) -> dict[str, dict[str, Verdict]]:
    """Return the verdict of each template and each case."""
    return {
        name: {title: judge(text, case) for title, case in CASES.items()}
        for name, text in texts.items()
    }


def table(rows: Mapping[str, Mapping[str, Verdict]]) -> str:
    """Return the matrix as text."""
    width = max(map(len, rows))
    lines = [f"{'':{width}}  {' '.join(CASES)}"]
    for name, row in rows.items():
        signs = " ".join(f"{row[title].value:^{len(title)}}" for title in CASES)
        lines.append(f"{name:{width}}  {signs}")
    verdicts = [verdict for row in rows.values() for verdict in row.values()]
    counted = ", ".join(f"{v.value} {v.name.lower()}: {verdicts.count(v)}" for v in Verdict)
    return "\n".join([*lines, "", counted])


if __name__ == "__main__":
    print(table(matrix(templates())))
