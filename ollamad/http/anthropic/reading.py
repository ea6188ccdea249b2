"""A request of Anthropic's API to what all chats are asked with. Pure.

Here is decided what becomes of each field. What other models would do and none of ours can is an
error that names it; what only concerns Anthropic's accounts (metadata, service tiers, cache marks)
has no field here and is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ollamad.errors import CapabilityMissing, InvalidBody
from ollamad.http.answer.structured import schema_grammar
from ollamad.http.anthropic import wire
from ollamad.http.anthropic.turns import messages_of
from ollamad.http.anthropic.wire import MessagesRequest
from ollamad.http.chatting import ChatAsked, ToolChoice, ToolMode, check_tools
from ollamad.http.prompt.gotemplate.chat import Think
from ollamad.modelinfo import StoredModel
from ollamad.options import LoadOptions, SamplingOptions, parse_options
from ollamad.runners.protocol import Grammar

GENERATED_MAX: Final = 2**31 - 1
"""More tokens than that cannot be asked for; clients mean "as many as you can"."""

_MODES: Final = {
    "auto": ToolMode.AUTO,
    "any": ToolMode.REQUIRED,
    "tool": ToolMode.NAMED,
    "none": ToolMode.NONE,
}
_EFFORTS: Final[dict[str, Think]] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "max",
}


def check_early(body: MessagesRequest) -> None:
    """Raise InvalidBody for what is missing whichever model it is."""
    if not body.model:
        raise InvalidBody("model is required")
    if not body.messages:
        raise InvalidBody("messages is required")


def asked_of(body: MessagesRequest, model: StoredModel) -> tuple[ChatAsked, LoadOptions]:
    """Return what *body* asks of *model*. Raises InvalidBody, CapabilityMissing, UnsupportedOption.

    Nothing is cut to fit: a prompt that is too long is the caller's to shorten, as with Anthropic.
    """
    if "completion" not in model.capabilities:
        raise CapabilityMissing(f'"{body.model}" does not support chat')
    messages, n_images = messages_of(body)
    if n_images:
        raise CapabilityMissing(f"{model.name.full} does not support images")
    tools = tools_of(body.tools)
    choice = tool_choice_of(body.tool_choice, body.tools)
    check_tools(model, tools, choice, model.name.full)
    load, sampling = options_of(body, model)
    asked = ChatAsked(
        messages=messages,
        think=think_of(body, model),
        sampling=sampling,
        tools=tools,
        tool_choice=choice,
        grammar=grammar_of(body),
    )
    return asked, load


def options_of(body: MessagesRequest, model: StoredModel) -> tuple[LoadOptions, SamplingOptions]:
    """Return the options that *body* and its model state. Raises UnsupportedOption.

    The model's own stop texts hold beside the request's: they are the ends of its turns.
    """
    stops = [*model.parameters.get("stop", ()), *body.stop_sequences]
    given = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "num_predict": None if body.max_tokens is None else min(body.max_tokens, GENERATED_MAX),
        "stop": list(dict.fromkeys(stops)) or None,
    }
    return parse_options(model.parameters, body.options, given)


def think_of(body: MessagesRequest, model: StoredModel) -> Think:
    """Return how to think: as much as is asked for, by models that can; others just answer.

    Agents ask every model to think, so a model that cannot is no error here, as in Ollama. A model
    that can does so when nothing is said.
    """
    if "thinking" not in model.capabilities:
        return None
    if body.thinking is not None and body.thinking.type == "disabled":
        return False
    return _EFFORTS.get((body.output_config or wire.OutputConfig()).effort, True)


def tools_of(tools: Sequence[wire.Tool]) -> list[dict[str, Any]]:
    """Return *tools* in the form that Ollama's and OpenAI's APIs share. Raises InvalidBody."""
    return [_tool(index, tool) for index, tool in enumerate(tools)]


def _tool(index: int, tool: wire.Tool) -> dict[str, Any]:
    if tool.type != "custom":
        raise InvalidBody(
            f'tools[{index}]: "{tool.type}" is one of Anthropic\'s own tools, which is not '
            "available here; declare a tool of your own, with a name and an input_schema"
        )
    if not tool.name:
        raise InvalidBody(f"tools[{index}]: the field name is missing")
    if tool.input_schema is None:
        raise InvalidBody(f'invalid input_schema for tool "{tool.name}": it is missing')
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
    }
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def tool_choice_of(choice: wire.ToolChoice | None, tools: Sequence[wire.Tool]) -> ToolChoice:
    """Return which tools may or must be called. Raises InvalidBody."""
    if choice is None:
        return ToolChoice()
    mode = _MODES.get(choice.type)
    if mode is None:
        raise InvalidBody('tool_choice.type: expected "auto", "any", "tool" or "none"')
    if mode.is_forced and not tools:
        raise InvalidBody(f'tool_choice "{choice.type}" needs tools, and there are none')
    if mode is ToolMode.NAMED and choice.name not in {tool.name for tool in tools}:
        raise InvalidBody(f'tool_choice.name: there is no tool "{choice.name}" in tools')
    name = choice.name if mode is ToolMode.NAMED else ""
    return ToolChoice(mode, name, is_parallel=not choice.disable_parallel_tool_use)


def grammar_of(body: MessagesRequest) -> Grammar | None:
    """Return what the answer's text must look like. Raises InvalidBody."""
    given = (body.output_config or wire.OutputConfig()).format or body.output_format
    if given is None:
        return None
    if given.type != "json_schema":
        raise InvalidBody(f'output_config.format.type: expected "json_schema", got "{given.type}"')
    if given.schema is None:
        raise InvalidBody("output_config.format: the field schema is missing")
    return schema_grammar(given.schema)
