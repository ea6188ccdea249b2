"""Text to tokens of Go's template language: literal text, and what stands between `{{` and `}}`.

Comments and trimming (`{{-`, `-}}`) are dealt with here; the parser sees neither. Whitespace is no
token: each token knows whether some stood before it, which is all that the grammar asks.
The work is linear in the text: every pattern is possessive, every search goes on from the last.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from typing import Final

from ollamad.http.prompt.gotemplate.broken import broken, quoted

TOKENS_MAX: Final = 100_000
"""Tokens of one template. The longest published ones have a few thousand; parsing takes time."""

_OPEN: Final = "{{"
_CLOSE: Final = "}}"
_TRIM_CLOSE: Final = "-}}"
_BLANKS: Final = " \t\r\n"
_TERMINATORS: Final = _BLANKS + ".,|:()"

_SPACE: Final = re.compile(r"[ \t\r\n]++")
_WORD: Final = re.compile(r"\w++")
_STRING: Final = re.compile(r'"(?:[^"\\\n]++|\\[^\n])*+"')
_CHAR: Final = re.compile(r"'(?:[^'\\\n]++|\\[^\n])*+'")
_RAW: Final = re.compile(r"`[^`]*+`")
_NUMBER: Final = re.compile(
    r"[+-]?(?:"
    r"0[xX][0-9a-fA-F_]*+(?:\.[0-9a-fA-F_]*+)?(?:[pP][+-]?[0-9_]++)?"
    r"|0[bBoO][0-9_]++"
    r"|[0-9_]*+(?:\.[0-9_]*+)?(?:[eE][+-]?[0-9_]++)?"
    r")"
)


class Kind(enum.Enum):
    """What a token is."""

    TEXT = "text"
    OPEN = "{{"
    CLOSE = "}}"
    KEYWORD = "keyword"
    FUNCTION = "function"
    FIELD = "field"
    VARIABLE = "variable"
    DOT = "dot"
    NIL = "nil"
    BOOL = "bool"
    NUMBER = "number"
    CHAR = "character"
    STRING = "string"
    RAW = "raw string"
    PIPE = "|"
    LEFT = "("
    RIGHT = ")"
    COMMA = ","
    DECLARE = ":="
    ASSIGN = "="
    END = "end of the template"


KEYWORDS: Final = frozenset(
    {"block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"}
)
_WORD_KINDS: Final = {"true": Kind.BOOL, "false": Kind.BOOL, "nil": Kind.NIL}
_SIGNS: Final = {"|": Kind.PIPE, "=": Kind.ASSIGN, ",": Kind.COMMA}
_QUOTES: Final = {
    '"': (_STRING, Kind.STRING, "unterminated quoted string"),
    "`": (_RAW, Kind.RAW, "unterminated raw quoted string"),
    "'": (_CHAR, Kind.CHAR, "unterminated character constant"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """One token; `text` is as written, for fields without the leading dot."""

    kind: Kind
    text: str
    line: int
    spaced: bool = False
    """Whether whitespace stands before it."""

    @property
    def shown(self) -> str:
        """How a message names this token."""
        return self.kind.value if self.kind is Kind.END else quoted(self.text)


def tokens_of(source: str) -> list[Token]:
    """Return the tokens of *source*, the last of them `Kind.END`. Raises TemplateBroken."""
    return _Lexer(source).run()


class _Lexer:
    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._line = 1
        self._tokens: list[Token] = []

    def run(self) -> list[Token]:
        trim_left = False
        while True:
            opening = self._source.find(_OPEN, self._at)
            text = self._source[self._at : opening if opening >= 0 else len(self._source)]
            if opening < 0:
                self._text(text, trim_left=trim_left, trim_right=False)
                self._add(Kind.END, "")
                return self._tokens
            trim_right = self._has_trim_marker(opening + len(_OPEN))
            self._text(text, trim_left=trim_left, trim_right=trim_right)
            inside = opening + len(_OPEN) + (2 if trim_right else 0)
            if self._source.startswith("/*", inside):
                self._move_to(inside)
                trim_left = self._comment()
            else:
                self._add(Kind.OPEN, _OPEN)
                self._move_to(inside)
                trim_left = self._action()

    def _has_trim_marker(self, at: int) -> bool:
        after = self._source[at + 1 : at + 2]
        return self._source.startswith("-", at) and after != "" and after in _BLANKS

    def _move_to(self, position: int) -> None:
        self._line += self._source.count("\n", self._at, position)
        self._at = position

    def _add(self, kind: Kind, text: str, *, spaced: bool = False) -> None:
        if len(self._tokens) >= TOKENS_MAX:
            raise broken(self._line, f"the template has more than {TOKENS_MAX} tokens")
        self._tokens.append(Token(kind, text, self._line, spaced))

    def _text(self, text: str, *, trim_left: bool, trim_right: bool) -> None:
        end = self._at + len(text)
        if trim_left:
            self._move_to(end - len(text.lstrip(_BLANKS)))
        kept = self._source[self._at : end]
        kept = kept.rstrip(_BLANKS) if trim_right else kept
        if kept:
            self._add(Kind.TEXT, kept)
        self._move_to(end)

    def _comment(self) -> bool:
        """Skip a comment; return whether the text after it is trimmed."""
        end = self._source.find("*/", self._at + 2)
        if end < 0:
            raise broken(self._line, "unclosed comment")
        end += 2
        trims = self._source[end : end + 1] in set(_BLANKS) and self._source.startswith(
            _TRIM_CLOSE, end + 1
        )
        if not trims and not self._source.startswith(_CLOSE, end):
            raise broken(self._line, "comment ends before closing delimiter")
        self._move_to(end + (1 + len(_TRIM_CLOSE) if trims else len(_CLOSE)))
        return trims

    def _action(self) -> bool:
        """Read up to and including `}}`; return whether the text after it is trimmed."""
        depth = 0
        while True:
            spaced, closing = self._close()
            if closing:
                if depth:
                    raise broken(self._line, "unclosed left paren")
                self._add(Kind.CLOSE, _CLOSE, spaced=spaced)
                self._move_to(self._at + len(closing))
                return closing == _TRIM_CLOSE
            char = self._source[self._at : self._at + 1]
            if not char:
                raise broken(self._line, "unclosed action")
            if char == "(":
                depth += 1
                self._take(Kind.LEFT, self._at + 1, spaced)
            elif char == ")":
                depth -= 1
                if depth < 0:
                    raise broken(self._line, "unexpected right paren")
                self._take(Kind.RIGHT, self._at + 1, spaced)
            else:
                self._operand(char, spaced)

    def _close(self) -> tuple[bool, str]:
        """Skip whitespace; return whether there was some, and the delimiter that follows."""
        space = _SPACE.match(self._source, self._at)
        if space is not None:
            self._move_to(space.end())
            if self._source.startswith(_TRIM_CLOSE, self._at):
                return True, _TRIM_CLOSE
        closes = self._source.startswith(_CLOSE, self._at)
        return space is not None, _CLOSE if closes else ""

    def _take(self, kind: Kind, end: int, spaced: bool, *, skip: int = 0) -> None:
        self._add(kind, self._source[self._at + skip : end], spaced=spaced)
        self._move_to(end)

    def _operand(self, char: str, spaced: bool) -> None:
        after = self._source[self._at + 1 : self._at + 2]
        if char in _QUOTES:
            self._quote(char, spaced)
        elif char in _SIGNS:
            self._take(_SIGNS[char], self._at + 1, spaced)
        elif char == ":":
            if after != "=":
                raise broken(self._line, "expected :=")
            self._take(Kind.DECLARE, self._at + 2, spaced)
        elif char in "+-" or char in "0123456789" or (char == "." and after in set("0123456789")):
            self._number(spaced)
        elif char in ".$":
            self._named(char, spaced)
        elif (word := _WORD.match(self._source, self._at)) is not None:
            self._word(word.group(), word.end(), spaced)
        else:
            raise broken(self._line, f"unexpected {quoted(char)} in action")

    def _quote(self, char: str, spaced: bool) -> None:
        pattern, kind, complaint = _QUOTES[char]
        found = pattern.match(self._source, self._at)
        if found is None:
            raise broken(self._line, complaint)
        self._take(kind, found.end(), spaced)

    def _number(self, spaced: bool) -> None:
        found = _NUMBER.match(self._source, self._at)
        end = found.end() if found is not None else self._at
        rest = _WORD.match(self._source, end)
        if rest is not None or end == self._at:
            end = rest.end() if rest is not None else end
            raise broken(self._line, f"bad number syntax: {quoted(self._source[self._at : end])}")
        self._take(Kind.NUMBER, end, spaced)

    def _named(self, char: str, spaced: bool) -> None:
        """A field, a variable, or one of them without a name: `.` and `$`."""
        word = _WORD.match(self._source, self._at + 1)
        end = word.end() if word is not None else self._at + 1
        self._expect_terminator(end)
        if char == "$":
            self._take(Kind.VARIABLE, end, spaced)
        elif word is None:
            self._take(Kind.DOT, end, spaced)
        else:
            self._take(Kind.FIELD, end, spaced, skip=1)

    def _word(self, word: str, end: int, spaced: bool) -> None:
        self._expect_terminator(end)
        kind = Kind.KEYWORD if word in KEYWORDS else _WORD_KINDS.get(word, Kind.FUNCTION)
        self._take(kind, end, spaced)

    def _expect_terminator(self, at: int) -> None:
        char = self._source[at : at + 1]
        if char and char not in _TERMINATORS and not self._source.startswith(_CLOSE, at):
            raise broken(self._line, f"bad character {quoted(char)}")
