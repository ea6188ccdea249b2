"""What a reader of calls may wait for in a text that comes piece by piece.

A *want* takes pieces until it has what it waits for and gives back what comes after. It looks at
each character a bounded number of times and holds back no more than the beginning of a mark, so
that a call of a million characters costs no more than its length, however it was cut.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

NAME_CHARS_MAX: Final = 256
"""Characters of a tool's or a parameter's name. What is longer is no name, and no call."""

_BLANKS: Final = " \t\r\n"
_JSON_SIGNS: Final = re.compile(r'["{}\[\]]')
_PYTHON_SIGNS: Final = re.compile(r"[\"'{}\[\]()]")
_STRING_END: Final = {quote: re.compile(rf"[{quote}\\]") for quote in "\"'"}
_CLOSING: Final = {"{": "}", "[": "]", "(": ")"}


class Want(Protocol):
    """Something to wait for."""

    def take(self, text: str, *, is_last: bool) -> str | None:
        """Take the next piece; return what does not belong here, or `None` to get more.

        With the last piece there is always an answer.
        """
        ...


class Marks:
    """Literal texts to be found in a stream: where the first of them is, or may begin."""

    def __init__(self, *marks: str) -> None:
        # The longest first: the one that is meant where one is another's beginning.
        self._marks = sorted((mark for mark in marks if mark), key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, self._marks))) if self._marks else None
        self._first = re.compile("|".join({re.escape(mark[0]) for mark in self._marks}) or "(?!)")
        self._longest = max(map(len, self._marks), default=0)

    def find(self, text: str, *, is_last: bool = False) -> tuple[int, str]:
        """Return the place of the first mark, and the mark.

        Where none is yet, the mark is empty, and the place is where one may begin: text before it
        can go.
        """
        found = self._any.search(text) if self._any is not None else None
        begin = found.start() if found else len(text)
        if not is_last:
            # A mark may just have begun; also a longer one than the one that was found.
            for start in self._first.finditer(text, max(0, len(text) - self._longest + 1)):
                at = start.start()
                if at > begin:
                    break
                tail = text[at:]
                if any(mark.startswith(tail) and mark != tail for mark in self._marks):
                    return at, ""
        return begin, found[0] if found else ""


class Until:
    """All up to the first of some marks."""

    def __init__(self, *marks: str, chars_max: int | None = None) -> None:
        self._marks = Marks(*marks)
        self._chars_max = chars_max
        self._pieces: list[str] = []
        self._n_chars = 0
        self._held = ""
        self.mark = ""
        """The one that was found; empty if none came in time."""

    @property
    def before(self) -> str:
        """The text in front of it."""
        return "".join(self._pieces)

    def take(self, text: str, *, is_last: bool) -> str | None:
        """See Want."""
        rest = self._held + text
        at, self.mark = self._marks.find(rest, is_last=is_last)
        self._pieces.append(rest[:at])
        self._n_chars += at
        if self._chars_max is not None and self._n_chars > self._chars_max:
            self.mark = ""
            return rest[at:]
        if self.mark:
            return rest[at + len(self.mark) :]
        self._held = rest[at:]
        if not is_last:
            return None
        self._pieces.append(self._held)
        return ""


class Blank:
    """Blanks, and characters that count as such here."""

    def __init__(self, also: str = "") -> None:
        self._skipped = _BLANKS + also
        self.next = ""
        """The character after them; empty at the end."""

    def take(self, text: str, *, is_last: bool) -> str | None:
        """See Want."""
        rest = text.lstrip(self._skipped)
        self.next = rest[:1]
        return rest if rest or is_last else None


class Value:
    """A bracket and all up to the one that closes it; texts in quotes are not looked into."""

    def __init__(self, *, is_python: bool = False) -> None:
        self._signs = _PYTHON_SIGNS if is_python else _JSON_SIGNS
        self._open: list[str] = []
        self._quote = ""
        self._skips_one = False
        self._pieces: list[str] = []
        self.is_whole = False

    @property
    def text(self) -> str:
        """The value, brackets included."""
        return "".join(self._pieces)

    def take(self, text: str, *, is_last: bool) -> str | None:
        """See Want."""
        at = 0
        if self._skips_one and text:
            self._skips_one, at = False, 1
        while found := (_STRING_END[self._quote] if self._quote else self._signs).search(text, at):
            sign, at = found[0], found.end()
            if sign == "\\":
                self._skips_one = at == len(text)
                at += 1
            elif self._quote:
                self._quote = ""
            elif sign in _STRING_END:
                self._quote = sign
            elif sign in _CLOSING:
                self._open.append(_CLOSING[sign])
            elif not self._open or self._open.pop() != sign:
                return self._ended(text, at, is_whole=False)
            elif not self._open:
                return self._ended(text, at, is_whole=True)
        self._pieces.append(text)
        return "" if is_last else None

    def _ended(self, text: str, at: int, *, is_whole: bool) -> str:
        self.is_whole = is_whole
        self._pieces.append(text[:at])
        return text[at:]


class Follow:
    """The longest of some texts that comes, with any blanks between what is not blank."""

    def __init__(self, *texts: str) -> None:
        self._open = [(number, _squeezed(text)) for number, text in enumerate(texts)]
        self._n_matched = 0
        self._taken: list[str] = []
        """What has come since the longest text that is whole: not taken for good."""
        self.found: int | None = None
        """Which one came; `None` if something else did, which is given back whole."""

    def take(self, text: str, *, is_last: bool) -> str | None:
        """See Want."""
        begin = 0
        for at, sign in enumerate(text):
            if self._finds():
                begin = at
                self._taken.clear()
            if not self._open:
                break
            if sign in _BLANKS:
                continue
            n = self._n_matched
            self._open = [one for one in self._open if one[1][n : n + 1] == sign]
            self._n_matched = n + 1
            if not self._open:
                break
        else:
            if self._finds():
                begin = len(text)
                self._taken.clear()
        self._taken.append(text[begin:])
        if self._open and not is_last:
            return None
        if self._open and self._n_matched and self.found is None:
            # Cut off within it: that is no text either.
            self.found = self._open[0][0]
            return ""
        return "".join(self._taken)

    def _finds(self) -> bool:
        whole = [one for one in self._open if len(one[1]) == self._n_matched]
        if not whole:
            return False
        self.found = whole[0][0]
        self._open = [one for one in self._open if len(one[1]) > self._n_matched]
        return True


def _squeezed(text: str) -> str:
    return "".join(text.split())
