"""The tree of a parsed template: what each construct says. Immutable, and without behaviour.

`parser` builds it, `evaluate` executes it, `trees` and `inference` look at it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """Literal text."""

    line: int
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """`.A.B`: fields of the dot."""

    line: int
    path: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Variable:
    """`$x` or `$x.A.B`; the name includes the dollar sign."""

    line: int
    name: str
    path: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Function:
    """The name of a function."""

    line: int
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Dot:
    """`.`: the current value."""

    line: int


@dataclasses.dataclass(frozen=True, slots=True)
class Nil:
    """`nil`, which is legal as an argument only."""

    line: int


@dataclasses.dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    line: int
    value: bool | int | float | str


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """`(pipeline).A.B`: fields of a parenthesised pipeline."""

    line: int
    inner: Operand
    path: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """One stage of a pipeline: a value, or a function with its arguments."""

    line: int
    operands: tuple[Operand, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Pipe:
    """Commands, each the last argument of the next; the result may be put in variables."""

    line: int
    commands: tuple[Command, ...]
    variables: tuple[str, ...] = ()
    assigns: bool = False
    """`=` (an existing variable) instead of `:=` (a new one)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Action:
    """`{{pipeline}}`: prints its value, unless that goes to a variable."""

    line: int
    pipe: Pipe


@dataclasses.dataclass(frozen=True, slots=True)
class If:
    """`{{if}} ... {{else}} ... {{end}}`."""

    line: int
    pipe: Pipe
    body: Block
    otherwise: Block


@dataclasses.dataclass(frozen=True, slots=True)
class With:
    """Like `If`, and the value is the dot of the body."""

    line: int
    pipe: Pipe
    body: Block
    otherwise: Block


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Executes the body for each element, or `otherwise` when there is none."""

    line: int
    pipe: Pipe
    body: Block
    otherwise: Block


@dataclasses.dataclass(frozen=True, slots=True)
class Include:
    """`{{template "name" pipeline}}`."""

    line: int
    name: str
    pipe: Pipe | None


@dataclasses.dataclass(frozen=True, slots=True)
class Break:
    """`{{break}}`: ends the innermost range."""

    line: int


@dataclasses.dataclass(frozen=True, slots=True)
class Continue:
    """`{{continue}}`: goes to the next element of the innermost range."""

    line: int


Operand: TypeAlias = Field | Variable | Function | Dot | Nil | Literal | Chain | Pipe
Branch: TypeAlias = If | With | Range
Node: TypeAlias = Text | Action | If | With | Range | Include | Break | Continue
Block: TypeAlias = tuple[Node, ...]
Defined: TypeAlias = Mapping[str, Block]
"""The named templates of a text, by name."""
