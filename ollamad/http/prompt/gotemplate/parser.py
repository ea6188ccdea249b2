"""Tokens to the tree of `nodes`, by the grammar of Go's text/template.

Functions and variables are checked here, as in Go: a template that names an unknown one does not
parse. Nothing is executed, and nothing about chats is known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from ollamad.errors import TemplateBroken
from ollamad.http.prompt.gotemplate import literals
from ollamad.http.prompt.gotemplate.broken import broken, quoted
from ollamad.http.prompt.gotemplate.lexer import Kind, Token, tokens_of
from ollamad.http.prompt.gotemplate.nodes import (
    Action,
    Block,
    Break,
    Chain,
    Command,
    Continue,
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

SOURCE_CHARS_MAX: Final = 1 << 20
"""Characters a template may have. The longest published ones have some ten thousand."""
NESTING_MAX: Final = 50
"""Depth of blocks and parentheses, `else if` included. It keeps our recursion far from Python's."""
VARIABLES_MAX: Final = 256
"""Variables visible at one place. Looking one up takes time with each of them."""

_OPERANDS: Final = frozenset(
    {
        Kind.BOOL, Kind.CHAR, Kind.DOT, Kind.FIELD, Kind.FUNCTION, Kind.NUMBER, Kind.NIL, Kind.RAW,
        Kind.STRING, Kind.VARIABLE, Kind.LEFT,
    }
)  # fmt: skip
_COMMAND_ENDS: Final = frozenset({Kind.CLOSE, Kind.RIGHT, Kind.PIPE})


def parse_source(source: str, functions: Collection[str]) -> tuple[Block, dict[str, Block]]:
    """Return the main block of *source* and its named ones. Raises TemplateBroken."""
    if len(source) > SOURCE_CHARS_MAX:
        raise broken(1, f"the template has {len(source)} characters, at most {SOURCE_CHARS_MAX}")
    parser = _Parser(tokens_of(source), functions)
    return parser.whole(), parser.defined


class _Parser:
    def __init__(self, tokens: list[Token], functions: Collection[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._functions = functions
        self._variables = ["$"]
        self._range_depth = 0
        self._depth = 0
        self.defined: dict[str, Block] = {}

    # Tokens

    @property
    def _here(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _expect(self, kind: Kind, context: str) -> Token:
        token = self._next()
        if token.kind is not kind:
            raise _unexpected(token, context)
        return token

    def _deeper(self, token: Token) -> None:
        self._depth += 1
        if self._depth > NESTING_MAX:
            raise broken(token.line, f"blocks and parentheses are nested deeper than {NESTING_MAX}")

    # Blocks

    def whole(self) -> Block:
        """Return the block of the whole text, collecting definitions on the way."""
        nodes: list[Node] = []
        while self._here.kind is not Kind.END:
            if self._here.kind is Kind.OPEN and _is_define(self._tokens[self._at + 1]):
                self._definition()
            elif (word := self._text_or_action(nodes)) is not None:
                raise _unexpected(word, "input")
        return tuple(nodes)

    def _text_or_action(self, nodes: list[Node]) -> Token | None:
        """Parse one node into *nodes*; return the word `end` or `else` if that was next."""
        token = self._next()
        if token.kind is Kind.TEXT:
            nodes.append(Text(token.line, token.text))
            return None
        if token.kind is not Kind.OPEN:
            raise _unexpected(token, "input")
        word = self._here
        if word.kind is not Kind.KEYWORD:
            nodes.append(Action(word.line, self._pipeline("command", Kind.CLOSE)))
            return None
        self._next()
        if word.text in {"end", "else"}:
            return word
        parse = self._STATEMENTS.get(word.text)
        if parse is None:
            raise _unexpected(word, "command")  # `define` anywhere but at the top.
        nodes.append(parse(self, word))
        return None

    def _body(self) -> tuple[Block, Token]:
        """Return the nodes up to `end` or `else`, and that word."""
        nodes: list[Node] = []
        while self._here.kind is not Kind.END:
            if (word := self._text_or_action(nodes)) is not None:
                return tuple(nodes), word
        raise broken(self._here.line, "unexpected end of the template, an {{end}} is missing")

    def _closed_body(self, context: str) -> Block:
        body, word = self._body()
        if word.text != "end":
            raise _unexpected(word, context)
        self._expect(Kind.CLOSE, "end")
        return body

    def _definition(self) -> None:
        self._next()
        line = self._next().line
        name = self._name("define clause")
        self._expect(Kind.CLOSE, "define clause")
        self._define(line, name)

    def _define(self, line: int, name: str) -> None:
        """Parse the body of `define` or `block`: a template of its own, with its own `$`."""
        outer = self._variables, self._range_depth
        self._variables, self._range_depth = ["$"], 0
        body = self._closed_body("define clause")
        self._variables, self._range_depth = outer
        # No name is the name of the main text.
        if name == "" or not _is_blank(self.defined.get(name, ())):
            if not _is_blank(body):
                raise broken(line, f"multiple definition of template {quoted(name)}")
            return
        self.defined[name] = body

    def _name(self, context: str) -> str:
        token = self._next()
        if token.kind not in {Kind.STRING, Kind.RAW}:
            raise _unexpected(token, context)
        return str(_constant(token))

    # Statements

    def _branch(self, word: Token) -> If | With | Range:
        """`if`, `with` and `range` up to their `end`. `else if` is an `if` in the else branch."""
        self._deeper(word)
        visible = len(self._variables)
        pipe = self._pipeline(word.text, Kind.CLOSE)
        ranges = word.text == "range"
        self._range_depth += ranges
        body, ending = self._body()
        self._range_depth -= ranges
        otherwise: Block = ()
        if ending.text == "else" and self._here.text == word.text and not ranges:
            if self._here.kind is not Kind.KEYWORD:
                raise _unexpected(self._here, "else")
            otherwise = (self._branch(self._next()),)
        else:
            self._expect(Kind.CLOSE, ending.text)
            if ending.text == "else":
                otherwise = self._closed_body("else clause")
        del self._variables[visible:]
        self._depth -= 1
        if ranges:
            return Range(word.line, pipe, body, otherwise)
        kind = If if word.text == "if" else With
        return kind(word.line, pipe, body, otherwise)

    def _include(self, word: Token) -> Include:
        name = self._name("template clause")
        if self._here.kind is Kind.CLOSE:
            self._next()
            return Include(word.line, name, None)
        return Include(word.line, name, self._pipeline("template clause", Kind.CLOSE))

    def _block(self, word: Token) -> Include:
        self._deeper(word)
        name = self._name("block clause")
        pipe = self._pipeline("block clause", Kind.CLOSE)
        self._define(word.line, name)
        self._depth -= 1
        return Include(word.line, name, pipe)

    def _leave_range(self, word: Token) -> Break | Continue:
        self._expect(Kind.CLOSE, f"{{{{{word.text}}}}}")
        if not self._range_depth:
            raise broken(word.line, f"{{{{{word.text}}}}} outside {{{{range}}}}")
        return Break(word.line) if word.text == "break" else Continue(word.line)

    _STATEMENTS: Final[dict[str, Callable[[_Parser, Token], Node]]] = {
        "if": _branch,
        "with": _branch,
        "range": _branch,
        "template": _include,
        "block": _block,
        "break": _leave_range,
        "continue": _leave_range,
    }

    # Pipelines

    def _pipeline(self, context: str, end: Kind) -> Pipe:
        line = self._here.line
        variables, assigns = self._declarations(context)
        commands: list[Command] = []
        while True:
            token = self._here
            if token.kind is end:
                self._next()
                break
            if token.kind not in _OPERANDS:
                raise _unexpected(token, context)
            commands.append(self._command())
        if not commands:
            raise broken(line, f"missing value for {context}")
        for stage, command in enumerate(commands[1:], start=2):
            if isinstance(command.operands[0], Dot | Nil | Literal):
                raise broken(command.line, f"non executable command in pipeline stage {stage}")
        return Pipe(line, tuple(commands), variables, assigns)

    def _declarations(self, context: str) -> tuple[tuple[str, ...], bool]:
        """Return the variables that the pipeline sets, and whether they exist already."""
        names: list[str] = []
        while self._here.kind is Kind.VARIABLE:
            after = self._tokens[self._at + 1]
            if after.kind in {Kind.DECLARE, Kind.ASSIGN}:
                names.append(self._next().text)
                self._next()
                self._variables += names
                if len(self._variables) > VARIABLES_MAX:
                    raise broken(after.line, f"more than {VARIABLES_MAX} variables are visible")
                return tuple(names), after.kind is Kind.ASSIGN
            if after.kind is not Kind.COMMA:
                break
            names.append(self._next().text)
            self._next()
            if context != "range" or len(names) > 1:
                raise broken(after.line, f"too many declarations in {context}")
            if self._here.kind is not Kind.VARIABLE:
                raise broken(after.line, "range can only initialize variables")
        if names:
            raise broken(self._here.line, "range can only initialize variables")
        return (), False

    def _command(self) -> Command:
        """Return one stage, and go past the `|` behind it."""
        line = self._here.line
        operands = [self._operand()]
        while self._here.kind not in _COMMAND_ENDS:
            if not self._here.spaced or self._here.kind not in _OPERANDS:
                raise _unexpected(self._here, "operand")
            operands.append(self._operand())
        if self._here.kind is Kind.PIPE:
            self._next()
        return Command(line, tuple(operands))

    def _operand(self) -> Operand:
        operand = self._term()
        path: list[str] = []
        while self._here.kind is Kind.FIELD and not self._here.spaced:
            path.append(self._next().text)
        if not path:
            return operand
        match operand:
            case Field(line, fields):
                return Field(line, (*fields, *path))
            case Variable(line, name, fields):
                return Variable(line, name, (*fields, *path))
            case Dot(line) | Nil(line) | Literal(line):
                raise broken(line, "unexpected . after a constant")
            case _:
                return Chain(operand.line, operand, tuple(path))

    def _term(self) -> Operand:
        token = self._next()
        match token.kind:
            case Kind.FUNCTION:
                if token.text not in self._functions:
                    raise broken(token.line, f"function {quoted(token.text)} not defined")
                return Function(token.line, token.text)
            case Kind.DOT:
                return Dot(token.line)
            case Kind.NIL:
                return Nil(token.line)
            case Kind.VARIABLE:
                if token.text not in self._variables:
                    raise broken(token.line, f"undefined variable {quoted(token.text)}")
                return Variable(token.line, token.text)
            case Kind.FIELD:
                return Field(token.line, (token.text,))
            case Kind.LEFT:
                self._deeper(token)
                pipe = self._pipeline("parenthesized pipeline", Kind.RIGHT)
                self._depth -= 1
                return pipe
            case _:
                return Literal(token.line, _constant(token))


def _constant(token: Token) -> bool | int | float | str:
    """Return the value of a constant. Raises TemplateBroken."""
    try:
        match token.kind:
            case Kind.BOOL:
                return token.text == "true"
            case Kind.NUMBER:
                return literals.number(token.text)
            case Kind.CHAR:
                return literals.character(token.text)
            case Kind.RAW:
                return token.text[1:-1].replace("\r", "")
            case _:
                return literals.string(token.text)
    except ValueError as exc:
        raise broken(token.line, str(exc)) from None


def _is_define(token: Token) -> bool:
    return token.kind is Kind.KEYWORD and token.text == "define"


def _is_blank(block: Block) -> bool:
    """Whether a definition says nothing: such a one may be repeated, and replaced."""
    return all(isinstance(node, Text) and not node.text.strip() for node in block)


def _unexpected(token: Token, context: str) -> TemplateBroken:
    if token.kind is Kind.KEYWORD:
        return broken(token.line, f"unexpected {{{{{token.text}}}}} in {context}")
    return broken(token.line, f"unexpected {token.shown} in {context}")
