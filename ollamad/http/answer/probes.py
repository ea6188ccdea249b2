"""What a template makes of small conversations whose words no template has: the probes.

Only renders; what follows from the texts is `derivation`'s. A template that fails on a probe says
nothing about it. What all probes of one template may cost is bounded, because templates come with
models, and a request waits meanwhile.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ollamad.errors import OllamadError
from ollamad.http.prompt.gotemplate.chat import ChatMessage, Think, render_chat
from ollamad.http.prompt.gotemplate.template import Template
from ollamad.http.prompt.gotemplate.template import parse as parse_go
from ollamad.http.prompt.gotemplate.tools import Tool as GoTool
from ollamad.http.prompt.gotemplate.tools import ToolCall
from ollamad.http.prompt.jinja import check_template, render_jinja
from ollamad.registry.capabilities import is_jinja
from ollamad.wallclock import SystemWallClock, WallClock

PROBES_MAX: Final = 48
PROBES_CPU_S_MAX: Final = 1.0
"""Processor time after which no further probe begins. Usual templates take 0.02 s for all."""
TURN_CHARS_MAX: Final = 1 << 14
"""Length of what is compared. The longest that templates write of so little has a tenth of it."""

USER: Final = "zqask"
ANSWER: Final = "zqanswer"
REASON: Final = "zqreason"
EOS: Final = "<|zqeos|>"
IDS: Final = ("zqcall001", "zqcall002")
"""Nine letters and digits: Mistral's templates want exactly that."""

_BOS: Final = "<|zqbos|>"
_DECLARED: Final = {
    "type": "function",
    "function": {
        "name": "zqdeclared",
        "description": "zq",
        "parameters": {
            "type": "object",
            "properties": {"zqp": {"type": "string", "description": "zq"}},
            "required": ["zqp"],
        },
    },
}

Called = tuple[str, Mapping[str, Any]]
"""A tool's name and its arguments."""

FIRST: Final[Called] = ("zqfirst", {"zqalpha": "zq one", "zqbeta": 4711})
SECOND: Final[Called] = ("zqsecond", {"zqalpha": "zq two", "zqbeta": 4712})


class Prober:
    """Renders probes with one template."""

    def __init__(self, template: str, clock: WallClock | None = None) -> None:
        """Raises TemplateBroken if *template* does not parse."""
        self._template = template
        self._clock = clock or SystemWallClock()
        self._go: Template | None = None
        if is_jinja(template):
            check_template(template)
        else:
            self._go = parse_go(template)
        self._n_left = PROBES_MAX
        self._ends_at = time.thread_time() + PROBES_CPU_S_MAX
        self.has_tools = True
        """Declare a tool. Some templates cannot take any."""
        self.content: str | None = ""
        """What messages have that are nothing but calls."""
        self.as_text = False
        """Pass arguments as JSON text."""

    @property
    def is_go(self) -> bool:
        """The template is Ollama's kind."""
        return self._go is not None

    def opening(self, think: Think = None) -> str | None:
        """Return what the template puts between a user's text and the answer."""
        return self._render([{"role": "user", "content": USER}], opens=True, think=think)

    def answer(
        self,
        *,
        content: object = None,
        thinking: str = "",
        calls: Sequence[Called] = (),
        think: Think = None,
    ) -> str | None:
        """Return the turn of the assistant, with its header and its end; `None` if refused."""
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if content is None:
            message["content"] = self.content if calls else ""
        if thinking:
            message |= {"reasoning_content": thinking, "thinking": thinking, "reasoning": thinking}
        if calls:
            message["tool_calls"] = [
                {
                    "type": "function",
                    "id": IDS[number % len(IDS)],
                    "function": {
                        "name": name,
                        "arguments": json.dumps(arguments) if self.as_text else dict(arguments),
                    },
                }
                for number, (name, arguments) in enumerate(calls)
            ]
        return self._render([{"role": "user", "content": USER}, message], opens=False, think=think)

    def _render(
        self, messages: Sequence[Mapping[str, Any]], *, opens: bool, think: Think
    ) -> str | None:
        if not self._n_left or time.thread_time() > self._ends_at:
            return None
        self._n_left -= 1
        try:
            text = (
                self._jinja(messages, opens, think)
                if self._go is None
                else self._chat(self._go, messages, think)
            )
        except OllamadError:
            return None  # A template may refuse a conversation; that one tells nothing then.
        at = text.rfind(USER)
        turn = text[at + len(USER) :] if at >= 0 else text
        return turn if len(turn) <= TURN_CHARS_MAX else None

    def _jinja(self, messages: Sequence[Mapping[str, Any]], opens: bool, think: Think) -> str:
        variables: dict[str, Any] = {
            "messages": list(messages),
            "add_generation_prompt": opens,
            "bos_token": _BOS,
            "eos_token": EOS,
        }
        if self.has_tools:
            variables["tools"] = [_DECLARED]
        if think is not None:
            variables["enable_thinking"] = bool(think)
        return render_jinja(self._template, variables, self._clock)

    def _chat(self, template: Template, messages: Sequence[Mapping[str, Any]], think: Think) -> str:
        function: Any = _DECLARED["function"]
        return render_chat(
            template,
            [_go_message(message) for message in messages],
            clock=self._clock,
            tools=[GoTool(**function)] if self.has_tools else [],
            think=think,
        )


def _go_message(message: Mapping[str, Any]) -> ChatMessage:
    content = message["content"]
    return ChatMessage(
        role=message["role"],
        content=content if isinstance(content, str) else "",
        thinking=message.get("thinking", ""),
        tool_calls=tuple(
            ToolCall(
                name=call["function"]["name"],
                arguments=_as_mapping(call["function"]["arguments"]),
                id=call["id"],
                index=index,
            )
            for index, call in enumerate(message.get("tool_calls", ()))
        ),
    )


def _as_mapping(arguments: Mapping[str, Any] | str) -> Mapping[str, Any]:
    return json.loads(arguments) if isinstance(arguments, str) else arguments
