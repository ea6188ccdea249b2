"""Messages to a prompt: which template, which messages. How many of them fit is `fitting`'s."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ollamad.errors import CapabilityMissing, TemplateBroken
from ollamad.http.prompt.gotemplate.chat import (
    ChatMessage,
    Think,
    render_chat,
    render_suffix,
)
from ollamad.http.prompt.gotemplate.template import Template
from ollamad.http.prompt.gotemplate.template import parse as parse_go
from ollamad.http.prompt.gotemplate.tools import Tool, ToolCall
from ollamad.http.prompt.jinja import check_template, render_jinja
from ollamad.http.prompt.jinjachat import (
    begun_answer,
    continued,
    shaped,
    think_variables,
    tool_variables,
    up_to_mark,
)
from ollamad.http.prompt.jinjaprobe import expectations_of
from ollamad.http.prompt.prompt import Message, Prompt
from ollamad.modelinfo import StoredModel
from ollamad.registry.capabilities import is_jinja, prefers_embedded
from ollamad.wallclock import WallClock

PLAIN_TEMPLATE: Final = "{{ .Prompt }}"
"""Ollama's template for a model that has none: the text itself."""

_TEMPLATES_CACHED: Final = 64


@functools.lru_cache(maxsize=_TEMPLATES_CACHED)
def _go(text: str) -> Template:
    return parse_go(text)


def check(template: str) -> None:
    """Raise TemplateBroken if *template* does not parse in its language."""
    if is_jinja(template):
        check_template(template)
    else:
        _go(template)


def template_of(model: StoredModel) -> str:
    """Return the template that chats with *model* use.

    1. The one stored with the model, which somebody chose; unless the weights' own can do more.
    2. The one inside the weights' file.
    3. None: the text itself.
    """
    embedded = model.facts.chat_template
    if model.template and not prefers_embedded(model.template, embedded):
        return model.template
    return embedded or PLAIN_TEMPLATE


class Renderer:
    """Renders conversations for one model."""

    def __init__(self, model: StoredModel, clock: WallClock, template: str | None = None) -> None:
        self._model = model
        self._clock = clock
        self._template = template or template_of(model)

    def chat(
        self, messages: Sequence[Message], *, tools: Sequence[Any] = (), think: Think = None
    ) -> Prompt:
        """Return the prompt for a conversation. Raises TemplateBroken.

        A last message of the assistant is the beginning of the answer, which the model continues.
        """
        if is_jinja(self._template):
            text = self._jinja(messages, tools, think)
        else:
            text = render_chat(
                _go(self._template),
                [_go_message(message) for message in messages],
                clock=self._clock,
                tools=[_go_tool(tool) for tool in tools],
                think=think,
            )
        return self._without_doubled_bos(text)

    def suffix(self, prompt: str, suffix: str) -> Prompt:
        """Return the prompt for text between *prompt* and *suffix*. Raises CapabilityMissing.

        1. The template has a place for it: Go's may; Jinja's know chats only.
        2. The weights have tokens for it, in the order in which models are trained.
        """
        if not is_jinja(self._template) and "suffix" in _go(self._template).identifiers:
            text = render_suffix(_go(self._template), prompt, suffix, clock=self._clock)
            return self._without_doubled_bos(text)
        if tokens := self._model.facts.infill_tokens:
            before, after, between = tokens
            return Prompt(f"{before}{prompt}{after}{suffix}{between}")
        raise CapabilityMissing(f"{self._model.name.full} does not support insert")

    def _jinja(self, messages: Sequence[Message], tools: Sequence[Any], think: Think) -> str:
        facts = self._model.facts
        expected = expectations_of(self._template)
        variables: dict[str, Any] = {
            "bos_token": facts.bos_token,
            "eos_token": facts.eos_token,
            "datetime": self._clock.now().strftime("%b %d %Y %H:%M:%S GMT"),  # Firefunction's.
            **tool_variables(tools, expected),
            **think_variables(think, facts.architecture),
        }

        def rendered(some: Sequence[Message], *, opens_answer: bool) -> str:
            return render_jinja(
                self._template,
                {
                    **variables,
                    "messages": shaped(some, expected),
                    "add_generation_prompt": opens_answer,
                },
                self._clock,
            )

        begun = begun_answer(messages)
        if not begun:
            return rendered(messages, opens_answer=True)
        with contextlib.suppress(TemplateBroken):  # Some templates want a question at the end.
            text = up_to_mark(rendered(continued(messages), opens_answer=False), begun)
            if text is not None:
                return text
        return rendered(messages[:-1], opens_answer=True) + begun

    def _without_doubled_bos(self, text: str) -> Prompt:
        """Drop special tokens that the tokenizer adds again: llama.cpp's convention.

        A doubled begin-of-sequence token makes many models answer badly, without any error.
        """
        facts = self._model.facts
        if facts.add_bos and facts.bos_token:
            text = text.removeprefix(facts.bos_token)
        if facts.add_eos and facts.eos_token:
            text = text.removesuffix(facts.eos_token)
        return Prompt(text)


def _go_message(message: Message) -> ChatMessage:
    return ChatMessage(
        role=message["role"],
        content=message.get("content") or "",
        thinking=message.get("thinking") or "",
        images=len(message.get("images") or ()),
        tool_calls=tuple(_go_call(call) for call in message.get("tool_calls") or ()),
        tool_name=message.get("tool_name") or "",
        tool_call_id=message.get("tool_call_id") or "",
    )


def _go_call(call: Mapping[str, Any]) -> ToolCall:
    function = call["function"]
    return ToolCall(
        name=function["name"],
        arguments=function.get("arguments") or {},
        id=call.get("id") or "",
        index=function.get("index") or 0,
    )


def _go_tool(tool: Mapping[str, Any]) -> Tool:
    function = tool.get("function") or {}
    return Tool(
        name=function.get("name") or "",
        description=function.get("description") or "",
        parameters=function.get("parameters") or {},
        type=tool.get("type") or "function",
        items=tool.get("items"),
    )


def conversation(model: StoredModel, messages: Sequence[Message]) -> list[Message]:
    """Return the whole conversation: the model's stored messages, its system prompt, *messages*."""
    whole: list[Message] = [
        *({"role": m.role, "content": m.content} for m in model.messages),
        *messages,
    ]
    has_system = bool(messages) and messages[0]["role"] == "system"
    if model.system and not has_system:
        whole.insert(0, {"role": "system", "content": model.system})
    return whole
