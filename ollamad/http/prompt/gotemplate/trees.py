"""Questions about a template's tree, and the one cut that is made in it. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ollamad.http.prompt.gotemplate.nodes import (
    Action,
    Block,
    Branch,
    Chain,
    Field,
    If,
    Include,
    Node,
    Operand,
    Pipe,
    Range,
    Variable,
    With,
)


def operands_of(pipe: Pipe | None) -> Iterator[Operand]:
    """Yield every operand of *pipe*, also inside parentheses, from left to right."""
    if pipe is None:
        return
    for command in pipe.commands:
        for operand in command.operands:
            yield from _within(operand)


def _within(operand: Operand) -> Iterator[Operand]:
    yield operand
    if isinstance(operand, Pipe):
        yield from operands_of(operand)
    elif isinstance(operand, Chain):
        yield from _within(operand.inner)


def fields_of(pipe: Pipe | None) -> Iterator[str]:
    """Yield the names of all fields that *pipe* refers to."""
    for operand in operands_of(pipe):
        if isinstance(operand, Field | Variable | Chain):
            yield from operand.path


def identifiers_of(block: Block) -> Iterator[str]:
    """Yield the names of all fields that *block* refers to."""
    for node in block:
        match node:
            case Action() | Include():
                yield from fields_of(node.pipe)
            case If() | With() | Range():
                yield from fields_of(node.pipe)
                yield from identifiers_of(node.body)
                yield from identifiers_of(node.otherwise)
            case _:
                pass


def cut_after(block: Block, name: str) -> Block:
    """Return *block* without everything after the first action that prints field *name*.

    The action itself stays. Each branch of an `if` is cut by itself, and what follows the `if` goes
    when one of them was.
    """
    return _cut(block, name)[0]


def _cut(block: Block, name: str) -> tuple[Block, bool]:
    kept: list[Node] = []
    for node in block:
        match node:
            case Action() if name in fields_of(node.pipe):
                return (*kept, node), True
            case If() | With() | Range():
                shorter, found = _cut_branch(node, name)
                kept.append(shorter)
                if found:
                    return tuple(kept), True
            case _:
                kept.append(node)
    return tuple(kept), False


def _cut_branch(node: Branch, name: str) -> tuple[Branch, bool]:
    body, in_body = _cut(node.body, name)
    otherwise, in_otherwise = _cut(node.otherwise, name)
    return dataclasses.replace(node, body=body, otherwise=otherwise), in_body or in_otherwise
