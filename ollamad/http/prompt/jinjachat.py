"""A conversation of Ollama's form in the form that Jinja chat templates take.

That form is Hugging Face's: OpenAI's, with the arguments of calls as objects and thoughts as
`reasoning_content`. Templates differ in details, and say so by failing or by printing nonsense.
What one of them expects is an `Expectations` (found by `jinjaprobe`); messages are put into that
form here. Pure.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ollamad.http.prompt.gotemplate.chat import Think
from ollamad.http.prompt.prompt import Message

CONTINUED: Final = "CONTINUE_FINAL_MESSAGE_TAG "
"""Put behind a begun answer, to find in the prompt where it goes on: Hugging Face's way."""

_SHORT_ID: Final = re.compile(r"[a-zA-Z0-9]{9}")
_REASONING: Final = ("thinking", "reasoning", "reasoning_content")
"""Names that templates know a message's thoughts by. The last one is the usual one."""


class NoTools(enum.Enum):
    """How a template wants to be told that there are no tools."""

    NONE = "none"
    """As Hugging Face's libraries do."""
    LEFT_OUT = "left out"
    EMPTY = "empty"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """What one template expects of its messages. The defaults are what most of them do."""

    no_tools: NoTools = NoTools.NONE
    content_is_parts: bool = False
    """A list of parts, rather than a text."""
    takes_system: bool = True
    """It shows system messages. Else they are put before the question that follows them."""
    arguments_are_text: bool = False
    """Calls have their arguments as JSON, rather than as an object."""
    call_content: str | None = ""
    """The content of a message that says nothing and only calls."""
    takes_calls_together: bool = True
    """A message may have more than one call."""
    needs_ids: bool = False
    """Calls and results must have ids, which Ollama's API does not ask for."""
    ids_are_short: bool = False
    """Ids must be nine letters and digits: Mistral's rule."""


def shaped(messages: Sequence[Message], expected: Expectations) -> list[dict[str, Any]]:
    """Return *messages* as a template takes them, without what templates have no use for."""
    plain = [_plain(message, expected) for message in messages]
    if expected.needs_ids or expected.ids_are_short:
        plain = _with_ids(plain)
    if expected.ids_are_short:
        plain = [_shortened(message) for message in plain]
    if not expected.takes_calls_together:
        plain = _one_call_each(plain)
    if not expected.takes_system:
        plain = _without_system(plain)
    if expected.content_is_parts:
        for message in plain:
            if isinstance(message.get("content"), str):
                message["content"] = [{"type": "text", "text": message["content"]}]
    return plain


def tool_variables(tools: Sequence[Any], expected: Expectations) -> dict[str, Any]:
    """Return the variables that tell a template of *tools*, and that there are no documents."""
    # Firefunction's template wants them as a text as well.
    functions = {"functions": json.dumps(tools, ensure_ascii=False) if tools else ""}
    if tools:
        return {"tools": list(tools), "documents": None, **functions}
    match expected.no_tools:
        case NoTools.NONE:
            return {"tools": None, "documents": None, **functions}
        case NoTools.LEFT_OUT:
            return functions
        case NoTools.EMPTY:
            return {"tools": [], "documents": [], **functions}


def think_variables(think: Think, architecture: str) -> dict[str, Any]:
    """Return the variables by which templates are told whether and how much to think.

    There is no agreement on the name of this switch, so each is set that a family uses: most have
    `enable_thinking`, DeepSeek and Granite `thinking`, Command `reasoning`, MiniMax
    `thinking_mode`; Seed's budget of thoughts can only be nothing.
    """
    if think is None:
        return {}
    thinks = bool(think)
    variables: dict[str, Any] = {
        "enable_thinking": thinks,
        "thinking": thinks,
        "reasoning": thinks,
        "thinking_mode": "enabled" if thinks else "disabled",
    }
    if not thinks:
        variables["thinking_budget"] = 0
    if isinstance(think, str):
        # The model was trained with three levels; the fourth is Ollama's.
        is_harmony = architecture in {"gptoss", "gpt-oss"}
        variables["reasoning_effort"] = "high" if is_harmony and think == "max" else think
    return variables


def begun_answer(messages: Sequence[Message]) -> str:
    """Return the beginning of an answer, which the last message is, or nothing."""
    last = messages[-1] if messages else {}
    is_begun = last.get("role") == "assistant" and not last.get("tool_calls")
    return (last.get("content") or "") if is_begun else ""


def continued(messages: Sequence[Message]) -> list[Message]:
    """Return *messages* with a mark behind the begun answer."""
    last = messages[-1]
    return [*messages[:-1], {**last, "content": last["content"] + CONTINUED}]


def up_to_mark(text: str, begun: str) -> str | None:
    """Return the prompt that ends where a *begun* answer goes on.

    `None` when the template has changed the answer, or left it out.
    """
    mark = CONTINUED.strip()
    if begun.strip() not in text or mark not in text:
        return None
    at = text.rindex(mark)
    kept = text[:at]
    # A template that trims its messages would also have trimmed the answer itself.
    return kept if text.startswith(CONTINUED, at) else kept.rstrip()


def _plain(message: Message, expected: Expectations) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message["role"], "content": message.get("content") or ""}
    if thinking := message.get("thinking"):
        plain |= dict.fromkeys(_REASONING, thinking)
    if calls := message.get("tool_calls"):
        plain["tool_calls"] = [_call(call, expected) for call in calls]
        if not plain["content"]:
            plain["content"] = expected.call_content
    for name, value in (
        ("name", message.get("name") or message.get("tool_name")),
        ("tool_call_id", message.get("tool_call_id")),
    ):
        if value:
            plain[name] = value
    return plain


def _call(call: Mapping[str, Any], expected: Expectations) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments") or {}
    if expected.arguments_are_text:
        arguments = json.dumps(arguments, ensure_ascii=False)
    shown = {
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }
    return {"id": call["id"], **shown} if call.get("id") else shown


def _with_ids(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each call an id, and each result that of its call: by its name, else by the order."""
    n_calls = 0
    open_calls: list[tuple[str, str]] = []
    for message in messages:
        for call in message.get("tool_calls", ()):
            n_calls += 1
            call.setdefault("id", f"call{n_calls:05}")
            open_calls.append((call["id"], call["function"]["name"]))
        if message["role"] == "tool" and open_calls:
            name = message.get("name")
            of_name = [n for n, (_, called) in enumerate(open_calls) if called == name]
            stated = message.get("tool_call_id")
            of_id = [n for n, (id_, _) in enumerate(open_calls) if id_ == stated]
            call_id, _ = open_calls.pop((of_id or of_name or [0])[0])
            message.setdefault("tool_call_id", call_id)
    return list(messages)


def _shortened(message: dict[str, Any]) -> dict[str, Any]:
    for call in message.get("tool_calls", ()):
        call["id"] = _short(call["id"])
    if "tool_call_id" in message:
        message["tool_call_id"] = _short(message["tool_call_id"])
    return message


def _short(call_id: str) -> str:
    if _SHORT_ID.fullmatch(call_id):
        return call_id
    return hashlib.blake2s(call_id.encode("utf-8", "replace"), digest_size=5).hexdigest()[:9]


def _one_call_each(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put each call of several into a message of its own, followed by its result."""
    parted: list[dict[str, Any]] = []
    position = 0
    while position < len(messages):
        message = messages[position]
        position += 1
        calls = message.get("tool_calls", ())
        if len(calls) < 2:
            parted.append(message)
            continue
        end = position
        while end < len(messages) and messages[end]["role"] == "tool":
            end += 1
        results = list(messages[position:end])
        for n, call in enumerate(calls):
            parted.append({**(message if n == 0 else _silent(message)), "tool_calls": [call]})
            result = _result_of(call, results)
            if result is not None:
                results.remove(result)
                parted.append(result)
        parted += results
        position = end
    return parted


def _silent(message: dict[str, Any]) -> dict[str, Any]:
    return {"role": message["role"], "content": ""}


def _result_of(call: Mapping[str, Any], results: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    by_id = [one for one in results if one.get("tool_call_id") == call.get("id", object())]
    by_name = [one for one in results if one.get("name") == call["function"]["name"]]
    return next(iter([*by_id, *by_name, *results]), None)


def _without_system(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put system texts before the question that follows, or make questions of them."""
    kept: list[dict[str, Any]] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif waiting and message["role"] == "user":
            texts = [*waiting, message["content"]]
            kept.append({**message, "content": "\n\n".join(filter(None, texts))})
            waiting = []
        else:
            kept.append(message)
    if waiting:
        kept.append({"role": "user", "content": "\n\n".join(waiting)})
    return kept
