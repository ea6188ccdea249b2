"""How a model writes calls of tools: as literal texts with places in between. Pure values.

The same description prints calls (`text`), is read back (`callreaders`), and becomes a grammar
(`callgrammar`), so that the three cannot disagree.

    begin NAME mid ARGUMENTS   between NAME mid ARGUMENTS   end
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ollamad.http.answer.parts import Call

LABEL: Final = "\ue000"
"""Stands in a literal text for the call's id or number. Private characters: no template has any."""
KEY: Final = "\ue001"
"""Stands in a literal text for the parameter's name, where that is repeated."""
NAME: Final = "\ue002"
"""Stands in `begin` and `between` for the tool's name, where that is repeated."""

ANY: Final = "any"
"""A parameter's kind where all kinds are written alike."""
KINDS: Final = ("string", "integer", "number", "boolean", "null", "array", "object")


class Label(enum.Enum):
    """What stands in a LABEL's place."""

    NONE = "none"
    ID = "id"
    FROM_ZERO = "from zero"
    FROM_ONE = "from one"


class Encoding(enum.Enum):
    """How a call's arguments are written."""

    JSON = "json"
    JSON_TEXT = "json text"
    """A JSON string with JSON in it."""
    TAGGED = "tagged"
    """Each between texts of its own: see `Tags`."""
    PYTHON = "python"
    """As a Python call has them."""
    BARE = "bare"
    """Like JSON, with bare keys and a mark of the format's own for quotes: see `quote`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """How one argument is written: `open` NAME `middle` VALUE `close`."""

    open: str
    middles: Mapping[str, str]
    """What stands between name and value, by the value's kind, or for ANY."""
    close: str
    between: str = ""

    def middle(self, kind: str) -> str:
        """Return what comes before a value of *kind*."""
        return self.middles.get(kind) or self.middles.get(ANY) or next(iter(self.middles.values()))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallFormat:
    """One model's way to write calls."""

    begin: str
    mid: str
    end: str
    between: str | None = None
    """`None` where an answer has one call at most."""
    encoding: Encoding = Encoding.JSON
    label: Label = Label.NONE
    tags: Tags | None = None
    """For TAGGED."""
    quote: str = ""
    """For BARE."""
    name_key: str = ""
    """In calls that are JSON objects as a whole, the key of the name. Empty where calls are no such
    objects, or where the name itself is the key."""
    is_object: bool = False
    """A call is a JSON object as a whole, and may be read as one, whatever its spaces and order."""
    triggers: tuple[str, ...] = ()
    """Texts that begin calls beside `begin`'s own."""
    is_by_channel: bool = False
    """Calls are messages to a recipient, among other messages: read by `ChannelParser`."""

    @property
    def trigger(self) -> str:
        """What tells that calls begin. Empty where only the beginning of an answer can tell."""
        begin = self.begin
        if self.is_object:
            return begin[: begin.rindex("{")].rstrip().removesuffix("[").strip()
        if self.encoding is Encoding.PYTHON:
            return begin.rstrip().removesuffix("[").strip()
        begin = begin.partition(LABEL)[0].strip()
        return first_mark(begin) or begin

    @property
    def close(self) -> str:
        """What ends each call, whether another follows or not."""
        return self.end if self.between is None else common_start(self.between, self.end)

    @property
    def literals(self) -> tuple[str, ...]:
        """All texts of the format."""
        texts = (self.begin, self.mid, self.between or "", self.end, self.quote, *self.triggers)
        if self.tags is None:
            return texts
        tags = self.tags
        return (*texts, tags.open, *tags.middles.values(), tags.close, tags.between)

    def text(self, calls: Sequence[Call]) -> str:
        """Return *calls* as the model would write them."""
        pieces: list[str] = []
        for number, call in enumerate(calls):
            label = {
                Label.ID: call.id,
                Label.FROM_ZERO: str(number),
                Label.FROM_ONE: str(number + 1),
                Label.NONE: "",
            }
            opening = self.begin if number == 0 else self.between or ""
            whole = (
                opening.replace(NAME, call.name)
                + call.name
                + self.mid
                + self.arguments_text(call.arguments)
            )
            if number == len(calls) - 1:
                whole += self.end
            pieces.append(whole.replace(LABEL, label[self.label]))
        return "".join(pieces)

    def arguments_text(self, arguments: Mapping[str, Any]) -> str:
        """Return *arguments* as the model would write them."""
        match self.encoding:
            case Encoding.JSON:
                return json.dumps(arguments, ensure_ascii=False)
            case Encoding.JSON_TEXT:
                return json.dumps(json.dumps(arguments, ensure_ascii=False), ensure_ascii=False)
            case Encoding.PYTHON:
                # Values as in JSON, which readers of this format take as well as Python's.
                texts = ((key, json.dumps(v, ensure_ascii=False)) for key, v in arguments.items())
                return ", ".join(f"{key}={text}" for key, text in texts)
            case Encoding.BARE:
                return bare_text(arguments, self.quote)
            case Encoding.TAGGED:
                return self._tagged(arguments)

    def _tagged(self, arguments: Mapping[str, Any]) -> str:
        tags = self.tags
        assert tags is not None  # noqa: S101 - there are tags with this encoding
        return tags.between.join(
            (
                tags.open + key + tags.middle(kind_of(value)) + value_text(value) + tags.close
            ).replace(KEY, key)
            for key, value in arguments.items()
        )


_TOKEN: Final = re.compile(r"<[^<>\s]{1,64}>|\w+|.", re.DOTALL)
_TAG: Final = r"(?:<[^<>\s]{1,64}>|\[[^\[\]\s]{1,64}\])"
_FIRST_MARK: Final = re.compile(rf"{_TAG}(?:\w+{_TAG})?")


def first_mark(text: str) -> str:
    """Return the tag that *text* begins with; empty if it begins with none.

    Where that is one of several that differ in the word after it, as `<|open|>think<|sep|>`, the
    word and the tag after that belong to it.
    """
    found = _FIRST_MARK.match(text)
    return found[0] if found else ""


def tags_in(text: str) -> list[str]:
    """Return the tags in *text*: what may be a token of its own in a model's vocabulary."""
    return re.findall(_TAG, text)


def tokens(text: str) -> list[str]:
    """Return *text* in tags, words and single characters, between which it may be cut."""
    return _TOKEN.findall(text)


def common_start(left: str, right: str) -> str:
    """Return the tokens that both begin with."""
    same: list[str] = []
    for one, other in zip(tokens(left), tokens(right), strict=False):
        if one != other:
            break
        same.append(one)
    return "".join(same)


def common_end(left: str, right: str) -> str:
    """Return the tokens that both end with."""
    same: list[str] = []
    for one, other in zip(reversed(tokens(left)), reversed(tokens(right)), strict=False):
        if one != other:
            break
        same.append(one)
    return "".join(reversed(same))


def kind_of(value: object) -> str:
    """Return the JSON type of *value*."""
    match value:
        case bool():
            return "boolean"
        case None:
            return "null"
        case str():
            return "string"
        case int():
            return "integer"
        case float():
            return "number"
        case list() | tuple():
            return "array"
        case _:
            return "object"


def value_text(value: object) -> str:
    """Return *value* as it stands between tags: texts as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def bare_text(value: object, quote: str) -> str:
    """Return *value* with bare keys, and *quote* around texts."""
    match value:
        case str():
            return f"{quote}{value}{quote}"
        case Mapping():
            items = (f"{key}:{bare_text(item, quote)}" for key, item in value.items())
            return "{" + ",".join(items) + "}"
        case list() | tuple():
            return "[" + ",".join(bare_text(item, quote) for item in value) + "]"
        case _:
            return json.dumps(value)
