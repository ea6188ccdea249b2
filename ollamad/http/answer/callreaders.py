"""Read calls as a model writes them, each encoding by a story of its own.

A story is a generator: it yields what it wants of the text (see `wants`), and each call as soon as
it is whole. It returns whether what has come since the last call was the format's own; if not,
that is text. A story raises nothing for what a model said.
"""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from ollamad.http.answer.callformat import KEY, LABEL, CallFormat, Encoding, Label, Tags
from ollamad.http.answer.declared import DeclaredTools, decoded, json_or_text, mapping_of, typed
from ollamad.http.answer.nestedtags import nested_value
from ollamad.http.answer.parts import Call
from ollamad.http.answer.pythonvalues import NotPython, calls_of
from ollamad.http.answer.wants import NAME_CHARS_MAX, Blank, Follow, Until, Value, Want

_decoder: Final = json.JSONDecoder()

Story: TypeAlias = Generator[Want | Call, None, bool]

_ID_BYTES: Final = 4
_ALPHANUMERIC: Final = string.ascii_letters + string.digits
_LABEL_CHARS: Final = 9
_NAME_KEYS: Final = ("name", "tool_name", "function_name", "tool")
_ARGUMENT_KEYS: Final = ("arguments", "parameters", "args", "input")
_BARE_KEY: Final = re.compile(r"([{,]\s*)([^\W\d][\w.\-]*|\d+)\s*:")
_CDATA: Final = re.compile(r"\s*<!\[CDATA\[(.*)\]\]>\s*", re.DOTALL)
_BETWEEN: Final = re.compile(r"[\s,]*")
_NAME: Final = re.compile(r"[\w.\-:/]+")


def new_call_id(label: Label = Label.NONE) -> str:
    """Return an id for a call.

    Templates that write a call's id refuse, of all conversations that come back with it, those
    whose ids are not nine letters and digits: Mistral's do, and to all others any id is good.
    """
    if label is Label.ID:
        return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(_LABEL_CHARS))
    return f"call_{secrets.token_hex(_ID_BYTES)}"


def read_calls(form: CallFormat, declared: DeclaredTools) -> Story:
    """Return the story of calls that begin after the trigger of *form*."""
    if form.is_object:
        return _objects(form, declared)
    if form.encoding is Encoding.PYTHON:
        return _python(form, declared)
    return _named(form, declared)


def _made(
    form: CallFormat, declared: DeclaredTools, name: str, arguments: Mapping[str, Any] | None
) -> Call | None:
    resolved = declared.resolve(name)
    if arguments is None or not _NAME.fullmatch(resolved):
        return None
    return Call(id=new_call_id(form.label), name=resolved, arguments=arguments)


# JSON objects as a whole.


def _objects(form: CallFormat, declared: DeclaredTools) -> Story:
    n_calls = 0
    is_bare = not form.trigger
    while True:
        blank = Blank(",;" if n_calls else "")
        yield blank
        if not blank.next or blank.next not in "{[":
            break
        value = Value()
        yield value
        calls = list(calls_in(value.text, form, declared))
        if not calls or (is_bare and not all(call.name in declared for call in calls)):
            return False
        yield from calls
        n_calls += len(calls)
    if n_calls and (closing := _after_object(form.end)):
        yield Follow(closing)
    return n_calls > 0


def _after_object(end: str) -> str:
    """Return what *end* has after the brackets of the call's object and of a list around it."""
    closing = end
    while "}" in closing:
        closing = closing[closing.index("}") + 1 :]
    return closing.lstrip().removeprefix("]").strip()


def calls_in(text: str, form: CallFormat, declared: DeclaredTools) -> Iterator[Call]:
    """Return the calls that the JSON value *text* spells."""
    for item in _items(text):
        found = _named_arguments(item, form, declared)
        call = None if found is None else _made(form, declared, *found)
        if call is None:
            return
        yield call


def _items(text: str) -> list[object]:
    """Return the values of a JSON list, or the one value; none if that is not what *text* is."""
    try:
        value = decoded(text)
    except ValueError:
        pass
    else:
        return value if isinstance(value, list) else [value]
    if not text.startswith("["):
        return []
    # Some templates leave the commas out, and so do the models that learnt from them.
    items: list[object] = []
    at = _BETWEEN.match(text, 1).end()  # type: ignore[union-attr] # it matches nothing, too
    while at < len(text) and text[at] == "{":
        try:
            item, end = _decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return []
        items.append(item)
        at = _BETWEEN.match(text, end).end()  # type: ignore[union-attr]
    return items if text[at:].strip() == "]" else []


def _named_arguments(
    value: object, form: CallFormat, declared: DeclaredTools
) -> tuple[str, dict[str, Any] | None] | None:
    """Return the name and the arguments in an object.

    1. One key, which is a tool's name: its value is the arguments.
    2. A key for the name, and one for the arguments; without them there are none.
    3. The same within `function`, as OpenAI's API has it.
    """
    if not isinstance(value, dict):
        return None
    if len(value) == 1:
        ((name, arguments),) = value.items()
        if (name in declared or not form.name_key) and isinstance(arguments, dict | str):
            return name, mapping_of(arguments)
    for name_key in (form.name_key, *_NAME_KEYS):
        if isinstance(name := value.get(name_key), str):
            given = [value[key] for key in _ARGUMENT_KEYS if key in value]
            if not given and name not in declared:
                return None
            return name, mapping_of(given[0]) if given else {}
    function = value.get("function")
    return _named_arguments(function, form, declared) if isinstance(function, dict) else None


# Names and arguments between literal texts.


def _named(form: CallFormat, declared: DeclaredTools) -> Story:
    opening, *labels = form.begin.partition(LABEL)
    rest = opening.strip()[len(form.trigger) :]
    if form.trigger and rest.strip():
        follow = Follow(rest)
        yield follow
        if follow.found is None:
            return False
    has_label = bool(labels[0])
    arguments = _ARGUMENT_READERS[form.encoding]
    # With tags, what ends a call in any case has been read with its arguments.
    n_read = len(form.close) if form.encoding is Encoding.TAGGED else 0
    end = form.end[n_read:].strip()
    before, *labels_between = (form.between or "")[n_read:].partition(LABEL)
    while True:
        if has_label:
            yield Until(labels[1].strip(), chars_max=NAME_CHARS_MAX)
        call = yield from arguments(form, declared)
        if call is None:
            return False
        yield call
        if not end:
            return True
        follow = Follow(end, *_nonblank(before))
        yield follow
        if follow.found != 1:
            return True
        labels, has_label = labels_between, bool(labels_between[0])


def _name_until(form: CallFormat, *marks: str) -> Generator[Want, None, tuple[str, str]]:
    """Return a tool's name and the mark that ended it; a label after the name is skipped."""
    first, *labels = form.mid.partition(LABEL)
    last = labels[1].strip() if labels[0] else ""
    name = Until(*_nonblank(first, last, *marks), chars_max=NAME_CHARS_MAX)
    yield name
    mark = name.mark
    if last and mark and mark == (first.strip() or first):
        label = Until(last, chars_max=NAME_CHARS_MAX)
        yield label
        mark = label.mark
    return name.before, mark


def _nonblank(*texts: str) -> list[str]:
    return [text.strip() or text for text in texts if text]


def _json_arguments(
    form: CallFormat, declared: DeclaredTools
) -> Generator[Want, None, Call | None]:
    name, mark = yield from _name_until(form, *(() if form.mid else ("{",)))
    if not mark:
        return None
    value = Value()
    if mark == "{":
        value.take("{", is_last=False)
    else:
        blank = Blank()
        yield blank
        if blank.next == "`":
            # Some models fence the arguments although their format does not.
            yield Until("\n", chars_max=NAME_CHARS_MAX)
            yield Blank()
        elif blank.next != "{":
            # No arguments at all.
            return _made(form, declared, name, {}) if name.strip() in declared else None
    yield value
    return _made(form, declared, name, mapping_of(value.text)) if value.is_whole else None


def _bare_arguments(
    form: CallFormat, declared: DeclaredTools
) -> Generator[Want, None, Call | None]:
    name, mark = yield from _name_until(form, "{", form.end.strip())
    if mark != "{":
        return _made(form, declared, name, {}) if name.strip() in declared else None
    pieces = ["{"]
    depth, is_quoted = 1, False
    while depth:
        until = Until(form.quote, "{", "}", "[", "]")
        yield until
        pieces.append(until.before)
        if not until.mark:
            return None
        if until.mark == form.quote:
            is_quoted = not is_quoted
        elif not is_quoted:
            depth += 1 if until.mark in "{[" else -1
        pieces.append(until.mark)
    return _made(form, declared, name, _from_bare("".join(pieces), form.quote))


def _from_bare(text: str, quote: str) -> dict[str, Any] | None:
    pieces = text.split(quote)
    for n in range(0, len(pieces), 2):
        pieces[n] = _BARE_KEY.sub(r'\1"\2":', pieces[n])
    # A key may be right in front of a quote, and the brackets before it too: only whole
    # stretches between quotes are looked at, and those hold whole keys.
    for n in range(1, len(pieces), 2):
        pieces[n] = _json_string(pieces[n])
    return mapping_of("".join(pieces))


def _json_string(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _tagged_arguments(
    form: CallFormat, declared: DeclaredTools
) -> Generator[Want, None, Call | None]:
    tags = form.tags
    assert tags is not None  # noqa: S101 - there are tags with this encoding
    opening, closing = _nonblank(tags.open)[0], form.close.strip()
    name, mark = yield from _name_until(form, opening, closing)
    if not mark:
        return None
    arguments: dict[str, Any] = {}
    if mark not in (opening, closing):
        follow = Follow(opening, closing)
        yield follow
        if follow.found is None:
            return None
        mark = (opening, closing)[follow.found]
    middles = {_nonblank(text)[0]: (kind, text) for kind, text in tags.middles.items()}
    while mark == opening:
        key = Until(*middles, chars_max=NAME_CHARS_MAX)
        yield key
        if not key.mark:
            return None
        parameter = key.before.strip()
        close = tags.close.replace(KEY, parameter)
        value = Until(close.strip())
        yield value
        if not value.mark:
            return None
        kind, middle = middles[key.mark]
        text = _unpadded(value.before, middle, close)
        schema = declared.schema(declared.resolve(name), parameter)
        arguments[parameter] = _value_of(kind, tags, schema, text)
        follow = Follow(closing, opening) if closing else Follow(opening)
        yield follow
        if follow.found is None:
            break
        mark = (closing, opening)[follow.found] if closing else opening
    return _made(form, declared, name, arguments)


def _value_of(kind: str, tags: Tags, schema: object, text: str) -> Any:  # any JSON value
    """Return the value of *text*, of which its tags say the *kind* in some formats."""
    if len(tags.middles) > 1:
        return text if kind == "string" else json_or_text(text)
    if cdata := _CDATA.fullmatch(text):
        return cdata[1]
    return nested_value(text, tags, schema) if KEY in tags.close else typed(schema, text)


def _unpadded(text: str, opening: str, closing: str) -> str:
    """Return *text* without the line ends that the format itself puts around it."""
    if opening.endswith("\n"):
        text = text.removeprefix("\n")
    if closing.startswith("\n"):
        text = text.removesuffix("\n")
    return text


# Python.


def _python(form: CallFormat, declared: DeclaredTools) -> Story:
    """A list of calls; or, between marks, calls one after the other."""
    is_bare = not form.trigger
    closing = form.end.lstrip().removeprefix(")").lstrip().removeprefix("]").strip()
    blank = Blank()
    yield blank
    if blank.next == "[":
        value = Value(is_python=True)
        yield value
        text = value.text
    elif is_bare or not closing:
        return False
    else:
        until = Until(closing)
        yield until
        text, closing = until.before, ""
    calls = _python_calls(text, form, declared)
    if not calls or (is_bare and not all(call.name in declared for call in calls)):
        return False
    yield from calls
    if closing:
        yield Follow(closing)
    return True


def _python_calls(text: str, form: CallFormat, declared: DeclaredTools) -> list[Call]:
    try:
        named = calls_of(text)
    except NotPython:
        return []
    made = [_made(form, declared, name, arguments) for name, arguments in named]
    return [call for call in made if call is not None]


_ARGUMENT_READERS: Final[
    Mapping[Encoding, Callable[[CallFormat, DeclaredTools], Generator[Want, None, Call | None]]]
] = {
    Encoding.JSON: _json_arguments,
    Encoding.JSON_TEXT: _json_arguments,
    Encoding.BARE: _bare_arguments,
    Encoding.TAGGED: _tagged_arguments,
}
