"""Executes the tree of a template over data, within a budget.

Templates come from registries and requests, so that nothing here trusts them: a `Budget` bounds the
steps and the text, a counter the depth. Functions are in `functions`, what values mean in `values`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, assert_never

from ollamad.http.prompt.gotemplate import functions
from ollamad.http.prompt.gotemplate.broken import broken, quoted
from ollamad.http.prompt.gotemplate.nodes import (
    Action,
    Block,
    Break,
    Chain,
    Command,
    Continue,
    Defined,
    Dot,
    Field,
    Function,
    If,
    Include,
    Literal,
    Nil,
    Node,
    Operand,
    Pipe,
    Range,
    Text,
    Variable,
    With,
)
from ollamad.http.prompt.gotemplate.text import NO_VALUE, TEXT_CHARS_MAX, plain_text
from ollamad.http.prompt.gotemplate.values import ValueFault, field, is_list, truth, type_name
from ollamad.wallclock import WallClock

STEPS_MAX: Final = 200_000
"""Nodes evaluated by one rendering. A chat of a thousand messages needs some fifty thousand."""
DEPTH_MAX: Final = 60
"""Depth of blocks, parentheses and templates that call templates. Ours, not Python's, ends it."""
_READ_PER_STEP: Final = 64
"""Characters that a function reads for the price of one step."""
_MADE_PER_STEP: Final = 16
"""Characters that are made of values for the price of one step: JSON is the dear one."""
_SORTED_PER_STEP: Final = 8
"""Keys of a map that are sorted for the price of one step."""
_ELEMENTS_PER_STEP: Final = 1024
"""Elements that are copied for the price of one step. Templates slice all messages at each one."""


class _Missing:
    """No value came through the pipe, which is not the same as nil."""


_MISSING: Final = _Missing()


class Budget:
    """What one rendering may still spend. Renderings of one prompt share one."""

    def __init__(self, steps: int = STEPS_MAX, chars: int = TEXT_CHARS_MAX) -> None:
        self._steps_max = self._steps = steps
        self._chars_max = self._chars = chars

    def step(self, line: int, count: int = 1) -> None:
        """Spend steps. Raises TemplateBroken when there are none left."""
        self._steps -= count
        if self._steps < 0:
            raise broken(line, f"the template needs more than {self._steps_max} steps")

    def write(self, line: int, text: str) -> None:
        """Spend characters of output. Raises TemplateBroken when there are none left."""
        self._chars -= len(text)
        if self._chars < 0:
            raise broken(line, f"the prompt has more than {self._chars_max} characters")


class _BreakRange(Exception):
    """Control flow: the innermost range ends."""


class _ContinueRange(Exception):
    """Control flow: the innermost range goes on with its next element."""


def execute(
    root: Block, defined: Defined, data: Mapping[str, object], clock: WallClock, budget: Budget
) -> str:
    """Return what *root* prints over *data*. Raises TemplateBroken."""
    run = _Run(defined, clock, budget)
    _Frame(run, data).block(root, data)
    return "".join(run.pieces)


class _Run:
    """What all frames of one execution share."""

    def __init__(self, defined: Defined, clock: WallClock, budget: Budget) -> None:
        self.defined = defined
        self.clock = clock
        self.budget = budget
        self.pieces: list[str] = []
        self._depth = 0

    def write(self, line: int, text: str) -> None:
        self.budget.write(line, text)
        self.pieces.append(text)

    @contextlib.contextmanager
    def deeper(self, line: int) -> Iterator[None]:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise broken(line, f"execution is nested deeper than {DEPTH_MAX}")
        try:
            yield
        finally:
            self._depth -= 1


class _Frame:
    """One template being executed: its variables, of which `$` is its data."""

    def __init__(self, run: _Run, data: object) -> None:
        self._run = run
        self._variables: list[tuple[str, object]] = [("$", data)]

    # Statements

    def block(self, nodes: Block, dot: object) -> None:
        for node in nodes:
            self._node(node, dot)

    def _node(self, node: Node, dot: object) -> None:
        self._run.budget.step(node.line)
        match node:
            case Text():
                self._run.write(node.line, node.text)
            case Action():
                value = self._pipe(node.pipe, dot)
                if not node.pipe.variables:
                    self._print(node.line, value)
            case If() | With():
                self._if_or_with(node, dot)
            case Range():
                self._range(node, dot)
            case Include():
                self._include(node, dot)
            case Break():
                raise _BreakRange
            case Continue():
                raise _ContinueRange
            case _:
                assert_never(node)

    def _print(self, line: int, value: object) -> None:
        try:
            text = NO_VALUE if value is None else plain_text(value)
        except ValueFault as exc:
            raise broken(line, str(exc)) from None
        if not isinstance(value, str):
            self._run.budget.step(line, len(text) // _MADE_PER_STEP)
        self._run.write(line, text)

    def _if_or_with(self, node: If | With, dot: object) -> None:
        visible = len(self._variables)
        with self._run.deeper(node.line):
            value = self._pipe(node.pipe, dot)
            if truth(value):
                self.block(node.body, value if isinstance(node, With) else dot)
            else:
                self.block(node.otherwise, dot)
        del self._variables[visible:]

    def _range(self, node: Range, dot: object) -> None:
        outside = len(self._variables)
        with self._run.deeper(node.line):
            value = self._pipe(node.pipe, dot)
            inside = len(self._variables)
            none = True
            for key, element in self._elements(node, value):
                none = False
                self._run.budget.step(node.line)
                self._name_element(node.pipe, key, element)
                try:
                    self.block(node.body, element)
                except _ContinueRange:
                    continue
                except _BreakRange:
                    break
                finally:
                    del self._variables[inside:]
            if none:
                self.block(node.otherwise, dot)
        del self._variables[outside:]

    def _elements(self, node: Range, value: object) -> Iterable[tuple[object, object]]:
        if value is None:
            return ()
        if isinstance(value, Mapping):
            self._run.budget.step(node.line, len(value) // _SORTED_PER_STEP)
            return [(key, value[key]) for key in sorted(value)]
        if isinstance(value, int) and not isinstance(value, bool):
            if len(node.pipe.variables) > 1:
                message = f"can't use {value} to iterate over more than one variable"
                raise broken(node.line, message)
            return ((number, number) for number in range(value))
        if is_list(value):
            return enumerate(value)
        raise broken(node.line, f"range can't iterate over a value of type {type_name(value)}")

    def _name_element(self, pipe: Pipe, key: object, element: object) -> None:
        """Give the loop's variables this element; with two of them, the key comes first."""
        names = pipe.variables
        values = (element,) if len(names) == 1 else (key, element)
        for name, value in zip(names, values, strict=False):
            self._set(pipe.line, name, value)

    def _include(self, node: Include, dot: object) -> None:
        body = self._run.defined.get(node.name)
        if body is None:
            raise broken(node.line, f"template {quoted(node.name)} not defined")
        value = self._pipe(node.pipe, dot) if node.pipe is not None else None
        with self._run.deeper(node.line):
            _Frame(self._run, value).block(body, value)

    # Variables

    def _find(self, line: int, name: str) -> int:
        for position in range(len(self._variables) - 1, -1, -1):
            if self._variables[position][0] == name:
                return position
        raise broken(line, f"undefined variable {quoted(name)}")

    def _set(self, line: int, name: str, value: object) -> None:
        self._variables[self._find(line, name)] = (name, value)

    # Pipelines

    def _pipe(self, pipe: Pipe, dot: object) -> object:
        value: object = _MISSING
        for command in pipe.commands:
            value = self._command(command, dot, value)
        for name in pipe.variables:
            if pipe.assigns:
                self._set(pipe.line, name, value)
            else:
                self._variables.append((name, value))
        return value

    def _command(self, command: Command, dot: object, final: object) -> object:
        """Return the value of one stage; *final* came through the pipe and goes last."""
        first, *rest = command.operands
        self._run.budget.step(command.line)
        if isinstance(first, Function):
            return self._function(first, rest, dot, final)
        if rest or final is not _MISSING:
            raise broken(command.line, "can't give argument to non-function")
        if isinstance(first, Nil):
            raise broken(command.line, "nil is not a command")
        return self._operand(first, dot)

    def _operand(self, operand: Operand, dot: object) -> object:
        match operand:
            case Dot():
                return dot
            case Nil():
                return None
            case Literal():
                return operand.value
            case Field():
                return self._fields(operand.line, dot, operand.path)
            case Variable():
                value = self._variables[self._find(operand.line, operand.name)][1]
                return self._fields(operand.line, value, operand.path)
            case Chain():
                value = self._operand(operand.inner, dot)
                return self._fields(operand.line, value, operand.path)
            case Pipe():
                with self._run.deeper(operand.line):
                    return self._pipe(operand, dot)
            case Function():
                return self._function(operand, [], dot, _MISSING)
            case _:
                assert_never(operand)

    def _fields(self, line: int, value: object, path: tuple[str, ...]) -> object:
        if value is None:
            return (
                None  # As in Go: no value has no fields, but a missing field's field is an error.
            )
        try:
            for name in path:
                value = field(value, name)
        except ValueFault as exc:
            raise broken(line, str(exc)) from None
        return value

    def _function(
        self, function: Function, operands: list[Operand], dot: object, final: object
    ) -> object:
        """Return what the function makes of its arguments, of which *final* is the last."""
        self._run.budget.step(function.line, 1 + len(operands))
        try:
            if function.name in {"and", "or"}:
                result = self._and_or(function, operands, dot, final)
            else:
                result = self._called(function, operands, dot, final)
        except ValueFault as exc:
            raise broken(function.line, f"error calling {function.name}: {exc}") from None
        return result

    def _called(
        self, function: Function, operands: list[Operand], dot: object, final: object
    ) -> object:
        args = [self._operand(operand, dot) for operand in operands]
        if final is not _MISSING:
            args.append(final)
        # Texts are read and made, lists copied: a step must not be had for more work than it is.
        chars = sum(len(value) for value in args if isinstance(value, str))
        self._run.budget.step(function.line, chars // _READ_PER_STEP)
        result = functions.call(function.name, args, self._run.clock)
        if isinstance(result, str):
            self._run.budget.step(function.line, len(result) // _MADE_PER_STEP)
        elif is_list(result):
            self._run.budget.step(function.line, len(result) // _ELEMENTS_PER_STEP)
        return result

    def _and_or(
        self, function: Function, operands: list[Operand], dot: object, final: object
    ) -> object:
        """Return the first argument that decides, or the last one; the others are not looked at."""
        functions.check_count(function.name, len(operands) + (final is not _MISSING))
        value: object = None
        for operand in operands:
            value = self._operand(operand, dot)
            if truth(value) == (function.name == "or"):
                return value
        return value if final is _MISSING else final
