"""The tools of a response's request, in the form that all chats share. Pure.

Tools are functions of the client. What OpenAI's servers do by themselves (searching, running code)
is done by nobody here, so such a tool is refused rather than never called. A namespace is a group
of functions; the model knows them as `NAMESPACE.NAME`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ollamad.http.chatting import ToolChoice, ToolMode
from ollamad.http.openai.errors import refused

_SEPARATOR: Final = "."
_MODES: Final[Mapping[str, ToolMode]] = {
    "auto": ToolMode.AUTO,
    "none": ToolMode.NONE,
    "required": ToolMode.REQUIRED,
}
_COPIED: Final = ("description", "parameters", "strict")
_SHOWN_CHARS_MAX: Final = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Tools:
    """What the model may call."""

    functions: Sequence[Mapping[str, Any]]
    """In the form that Ollama's API and OpenAI's older one share."""
    choice: ToolChoice
    namespaces: frozenset[str] = frozenset()

    def split_name(self, name: str) -> tuple[str, str]:
        """Return a tool's namespace, empty for none, and its name there."""
        namespace, separator, rest = name.partition(_SEPARATOR)
        return (namespace, rest) if separator and namespace in self.namespaces else ("", name)


def join_name(namespace: str, name: str) -> str:
    """Return the name by which the model knows a tool."""
    return f"{namespace}{_SEPARATOR}{name}" if namespace else name


def tools_of_response(
    tools: Sequence[Mapping[str, Any]], choice: Any, *, is_parallel: bool
) -> Tools:
    """Return what *tools* and *choice*, a request's `tool_choice`, say. Raises InvalidBody."""
    functions: dict[str, Mapping[str, Any]] = {}
    namespaces: set[str] = set()
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        if tool.get("type") == "namespace":
            namespace = _name(where, tool)
            namespaces.add(namespace)
            nested = tool.get("tools")
            if not isinstance(nested, list):
                raise refused(f"{where}.tools", "must be an array")
            for place, inner in enumerate(nested):
                _add(functions, f"{where}.tools[{place}]", inner, namespace)
        else:
            _add(functions, where, tool, "")
    allowed = _allowed(choice)
    if allowed is not None:
        functions = {name: tool for name, tool in functions.items() if name in allowed}
    chosen = _choice(choice, functions, is_parallel=is_parallel)
    return Tools(list(functions.values()), chosen, frozenset(namespaces))


def _add(functions: dict[str, Mapping[str, Any]], where: str, tool: Any, namespace: str) -> None:
    if not isinstance(tool, Mapping):
        raise refused(where, "must be an object")
    kind = tool.get("type")
    if kind != "function":
        raise refused(
            f"{where}.type",
            f"tools of type {_shown(kind)} are not supported; only functions, which the client "
            "runs itself, are",
        )
    name = join_name(namespace, _name(where, tool))
    if name in functions:
        raise refused(f"{where}.name", f"there are two tools of the name {_shown(name)}")
    function: dict[str, Any] = {"name": name}
    function |= {field: tool[field] for field in _COPIED if tool.get(field) is not None}
    if not isinstance(function.setdefault("parameters", {"type": "object"}), dict):
        raise refused(f"{where}.parameters", "must be an object, a JSON Schema")
    functions[name] = {"type": "function", "function": function}


def _choice(value: Any, functions: Mapping[str, Any], *, is_parallel: bool) -> ToolChoice:
    """Return which calls a request's `tool_choice` wants. Raises InvalidBody."""
    match value:
        case str() if value in _MODES:
            mode, name = _MODES[value], ""
        case {"type": "function", "name": str(name)}:
            mode = ToolMode.NAMED
            namespace = value.get("namespace")
            name = join_name(namespace if isinstance(namespace, str) else "", name)
            if name not in functions:
                raise refused("tool_choice.name", f"there is no tool {_shown(name)}")
        case {"type": "allowed_tools", "mode": ("auto" | "required") as word, "tools": list()}:
            mode, name = _MODES[word], ""
        case {"type": str(kind)} if kind not in {"function", "allowed_tools"}:
            raise refused(
                "tool_choice.type",
                f"tools of type {_shown(kind)} are not supported; only functions, which the client "
                "runs itself, are",
            )
        case _:
            raise refused(
                "tool_choice",
                'must be "auto", "none", "required", a function with its name, or allowed_tools',
            )
    if mode is ToolMode.REQUIRED and not functions:
        raise refused("tool_choice", "a call is required, but there are no tools")
    return ToolChoice(mode, name, is_parallel)


def _allowed(choice: Any) -> frozenset[str] | None:
    """Return the names of the only tools that may be called; `None` if all may."""
    match choice:
        case {"type": "allowed_tools", "tools": list(tools)}:
            pass
        case _:
            return None
    names = set()
    for index, tool in enumerate(tools):
        where = f"tool_choice.tools[{index}]"
        if not isinstance(tool, Mapping):
            raise refused(where, "must be an object")
        namespace = tool.get("namespace")
        names.add(join_name(namespace if isinstance(namespace, str) else "", _name(where, tool)))
    return frozenset(names)


def _name(where: str, tool: Mapping[str, Any]) -> str:
    name = tool.get("name")
    if not isinstance(name, str) or not name:
        raise refused(f"{where}.name", "must be a string")
    return name


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:_SHOWN_CHARS_MAX]
