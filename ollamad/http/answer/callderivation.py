"""Derives how a model writes calls from what its template makes of probes.

Probes have names and values that no template has; what stands between them is the format. A format
counts only when a call that the template has rendered is read back as the same call.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from ollamad.http.answer.answerparser import MarkedParser
from ollamad.http.answer.callformat import (
    ANY,
    KEY,
    LABEL,
    CallFormat,
    Encoding,
    Label,
    Tags,
    common_end,
    common_start,
    tokens,
)
from ollamad.http.answer.callreaders import read_calls
from ollamad.http.answer.declared import DeclaredTools
from ollamad.http.answer.parts import Marks
from ollamad.http.answer.probes import ANSWER, EOS, FIRST, IDS, SECOND, Called, Prober
from ollamad.http.answer.thinkingmarks import TextMarks

_KINDS: Final[Mapping[str, Any]] = {
    "string": "zq", "integer": 47, "number": 4.75, "boolean": True, "null": None,
    "array": [47, 48], "object": {"zqinner": 47},
}  # fmt: skip
_CHECKED: Final[Called] = ("get_weather", {"city": "New York", "days": 3})
_END_OF_TURN: Final = re.compile(r"<[^<>]*(?:eos|eot|eom|im_end|end.of)[^<>]*>")
_decoder: Final = json.JSONDecoder()


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """The first call in a turn."""

    encoding: Encoding
    mid: str
    begins_at: int
    """Where the arguments begin."""
    ends_at: int
    quote: str = ""


def call_format(prober: Prober, thinking: Marks | None, text: TextMarks) -> CallFormat | None:
    """Return the format of calls; `None` if the template writes none, or one we cannot read."""
    turn = _turn_with_call(prober)
    if turn is None:
        return None
    found = _found(turn, FIRST)
    if found is None:
        return None
    name_at = turn.index(FIRST[0])
    begin = _begin(prober, turn[:name_at], thinking, text.dropped)
    end = _without_end_of_turn(turn[found.ends_at :], text)
    form = CallFormat(
        begin=begin,
        mid=found.mid,
        end=end,
        encoding=found.encoding,
        quote=found.quote,
    )
    form = _as_object(form, turn, name_at)
    form = _with_more_calls(form, prober, text)
    if form.encoding is Encoding.TAGGED:
        tagged = _with_tags(form, prober, turn)
        if tagged is None:
            return None
        form = tagged
    form = dataclasses.replace(
        form, begin=_labelled(form.begin), mid=_labelled(form.mid), end=_labelled(form.end)
    )
    return form if _reads_back(form, prober) else None


def _turn_with_call(prober: Prober) -> str | None:
    """Return a turn with the first call; leaves *prober* as the template likes it."""
    for has_tools in (True, False):
        for as_text in (False, True):
            for content in ("", None):
                prober.has_tools, prober.as_text, prober.content = has_tools, as_text, content
                turn = prober.answer(calls=[FIRST])
                if turn is not None and FIRST[0] in turn and "zqalpha" in turn:
                    return turn
    prober.has_tools, prober.as_text, prober.content = True, False, ""
    return None


def _begin(prober: Prober, head: str, thinking: Marks | None, dropped: tuple[str, ...]) -> str:
    """Return what of *head* belongs to calls: not the turn's header, nor what was thought."""
    opening = prober.opening(False) or prober.opening() or ""
    begin = head[len(common_start(head, opening)) :]
    for mark in (thinking.close if thinking else "", *dropped):
        if mark and mark in begin:
            begin = begin.rpartition(mark)[2]
    with_text = prober.answer(content=ANSWER, calls=[FIRST]) or ""
    before = with_text.partition(FIRST[0])[0]
    if ANSWER in before:
        after_text = before.rpartition(ANSWER)[2]
        begin = common_end(begin, after_text) or begin
    return begin.lstrip()


def _without_end_of_turn(tail: str, text: TextMarks) -> str:
    """Return *tail*, what follows a turn's last call, up to what ends every turn."""
    tail = tail.partition(EOS)[0].rstrip()
    tail = tail[: len(tail) - len(common_end(tail, text.turn_end))]
    end_of_turn = _END_OF_TURN.search(tail)
    return (tail[: end_of_turn.start()] if end_of_turn else tail).rstrip()


def _found(turn: str, called: Called) -> _Found | None:
    """Return how the arguments of *called* are written in *turn*.

    1. As a JSON object. 2. As JSON text. 3. As Python. 4. With bare keys. 5. Between tags.
    """
    name, arguments = called
    after_name = turn.index(name) + len(name)
    key, *_ = arguments
    key_at = turn.find(key, after_name)
    if key_at < 0:
        return None
    for match in re.finditer(r'[{"]', turn[after_name : key_at + 1]):
        begin = after_name + match.start()
        value, end = _decoded_at(turn, begin)
        if value == arguments:
            return _Found(Encoding.JSON, turn[after_name:begin], begin, end)
        if isinstance(value, str) and _decoded_at(value, 0)[0] == arguments:
            return _Found(Encoding.JSON_TEXT, turn[after_name:begin], begin, end)
    for shown in (repr, json.dumps):
        python = ", ".join(f"{name}={shown(value)}" for name, value in arguments.items())
        if turn.startswith(python, key_at):
            end = key_at + len(python)
            return _Found(Encoding.PYTHON, turn[after_name:key_at], key_at, end)
    bare = re.compile(r"\{zqalpha:(\S{1,16})zq \w+\1,zqbeta:\d+\}").match(turn, key_at - 1)
    if bare is not None:
        begin = key_at - 1
        return _Found(Encoding.BARE, turn[after_name:begin], begin, bare.end(), bare[1])
    *_, last = arguments.values()
    last_at = turn.find(str(last), key_at)
    if last_at < 0:
        return None
    return _Found(Encoding.TAGGED, turn[after_name:key_at], key_at, last_at + len(str(last)))


def _decoded_at(text: str, at: int) -> tuple[object, int]:
    try:
        return _decoder.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, at


def _as_object(form: CallFormat, turn: str, name_at: int) -> CallFormat:
    """Return *form* as a JSON object as a whole, if that is what a call is."""
    if form.encoding not in (Encoding.JSON, Encoding.JSON_TEXT):
        return form
    at = name_at
    while (at := turn.rfind("{", 0, at)) >= 0:
        value, end = _decoded_at(turn, at)
        if isinstance(value, dict) and end > name_at:
            keys = [key for key, item in value.items() if item == FIRST[0]]
            if "{" not in form.begin:
                return form
            return dataclasses.replace(form, is_object=True, name_key=keys[0] if keys else "")
    return form


def _with_more_calls(form: CallFormat, prober: Prober, text: TextMarks) -> CallFormat:
    """Return *form* with what stands between calls, and without what only ends the last turn."""
    turn = prober.answer(calls=[FIRST, SECOND])
    if turn is None or SECOND[0] not in turn:
        return form
    first, second = _found(turn, FIRST), _found(turn, SECOND)
    if first is None or second is None:
        return form
    between = turn[first.ends_at : turn.index(SECOND[0])]
    label, begin, mid = Label.NONE, form.begin, form.mid
    for base, numbered in ((0, Label.FROM_ZERO), (1, Label.FROM_ONE)):
        with_begin, with_between = _numbered(begin, between, base)
        if with_begin != begin:
            label, begin, between = numbered, with_begin, with_between
        with_mid, _ = _numbered(mid, second.mid, base)
        if with_mid != mid:
            label, mid = numbered, with_mid
    if any(IDS[0] in text for text in (begin, mid, form.end)):
        label = Label.ID
    # Some templates end only several calls as the model does.
    end = max(form.end, _without_end_of_turn(turn[second.ends_at :], text), key=len)
    if _squeezed(between).endswith(_squeezed(begin)):
        # Every call has marks of its own, and nothing is around all of them.
        end = common_start(end, between).rstrip()
    return dataclasses.replace(
        form, begin=begin, mid=mid, end=end, between=_labelled(between), label=label
    )


def _squeezed(text: str) -> str:
    return "".join(_labelled(text).split())


def _labelled(text: str) -> str:
    for label in IDS:
        text = text.replace(label, LABEL)
    return text


def _numbered(first: str, second: str, base: int) -> tuple[str, str]:
    """Return both texts with LABEL for the calls' numbers, looked for from their common end."""
    left, right = tokens(first), tokens(second)
    for n in range(1, min(len(left), len(right)) + 1):
        if left[-n] == right[-n]:
            continue
        if (left[-n], right[-n]) == (str(base), str(base + 1)):
            left[-n] = right[-n] = LABEL
            continue
        break
    return "".join(left), "".join(right)


def _with_tags(form: CallFormat, prober: Prober, turn: str) -> CallFormat | None:
    """Return *form* with the texts around an argument's name and value."""
    name, arguments = FIRST
    after_name = turn.index(name) + len(name)
    places: list[tuple[int, int]] = []
    at = after_name
    for key, value in arguments.items():
        for word in (key, str(value)):
            at = turn.find(word, at)
            if at < 0:
                return None
            places.append((at, at + len(word)))
            at += len(word)
    (key_1, value_1, key_2, value_2) = places
    head, middle = turn[after_name : key_1[0]], turn[key_1[1] : value_1[0]]
    separation, middle_2 = turn[value_1[1] : key_2[0]], turn[key_2[1] : value_2[0]]
    opening = common_end(head, separation)
    close = separation[: len(separation) - len(opening)]
    keys = tuple(arguments)
    close = close.replace(keys[0], KEY)
    end, last_close = form.end, close.replace(KEY, keys[1])
    tail = turn[value_2[1] :]
    if not tail.startswith(last_close):
        last_close = last_close.rstrip()
        close = close.rstrip()
        if not tail.startswith(last_close):
            return None
    between = separation[len(close.replace(KEY, keys[0])) :].removesuffix(opening)
    end = end.removeprefix(last_close)
    more = form.between
    if more is not None:
        more = more.removeprefix(last_close)
    middles = {ANY: middle}
    if middle != middle_2:
        middles = _middles(prober, close)
    if not opening.strip() or not close.strip() or not middles or not all(middles.values()):
        return None
    tags = Tags(open=opening, middles=middles, close=close, between=between)
    mid = form.mid.removesuffix(opening)
    return dataclasses.replace(form, mid=mid, end=end, between=more, tags=tags)


def _middles(prober: Prober, close: str) -> dict[str, str]:
    """Return what stands between name and value for each kind of value."""
    middles: dict[str, str] = {}
    for kind, value in _KINDS.items():
        turn = prober.answer(calls=[("zqfirst", {"zqkey": value})])
        after = (turn or "").partition("zqkey")[2]
        after = after.partition(close.strip().replace(KEY, "zqkey"))[0]
        # The last one: the text before a value may name its type, and that may be its text too.
        at = after.rfind(value if isinstance(value, str) else json.dumps(value))
        if at > 0:
            middles[kind] = after[:at]
    return middles


def _reads_back(form: CallFormat, prober: Prober) -> bool:
    name, arguments = _CHECKED
    turn = prober.answer(calls=[_CHECKED])
    if turn is None or name not in turn:
        return False
    tool = {
        "function": {
            "name": name,
            "parameters": {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
        }
    }
    declared = DeclaredTools([tool])
    opening = prober.opening(False) or prober.opening() or ""
    turn = turn[len(common_start(turn, opening)) :]
    parser = MarkedParser(
        triggers=(form.trigger,) if form.trigger else (),
        calls=lambda: read_calls(form, declared),
        is_bare=not form.trigger,
    )
    parts = parser.feed(turn)
    parts.add(parser.finish())
    return [(call.name, call.arguments) for call in parts.calls] == [(name, arguments)]
