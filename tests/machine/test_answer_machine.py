"""Answers of any words, cut anywhere: what is read of them does not depend on the cuts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollamad.http.answer.callformat import ANY, CallFormat, Encoding, Label, Tags
from ollamad.http.answer.format import AnswerFormat, format_of
from ollamad.http.answer.namedformats import BEFORE_PROBES, DEFAULT_CALLS, HERMES
from ollamad.http.answer.parts import Call, Marks, Parts

THINKING: Final = Marks("<think>", "</think>")
TOOLS: Final[Sequence[dict[str, Any]]] = [
    {"function": {"name": "add", "parameters": {"properties": {"a": {"type": "integer"}}}}}
]
FORMS: Final = {
    "hermes": AnswerFormat(thinking=THINKING, calls=HERMES, dropped=("<text>", "</text>")),
    "bare": AnswerFormat(thinking=THINKING, calls=DEFAULT_CALLS),
    "named": AnswerFormat(
        calls=CallFormat(
            begin="<tool_call><one>",
            mid="<id>\ue000<args>",
            end="</one></tool_call>",
            between="</one><one>",
            label=Label.ID,
        )
    ),
    "tagged": AnswerFormat(
        thinking=THINKING,
        calls=CallFormat(
            begin="<tool_call>\n<one>",
            mid="\n",
            end="</one>\n</tool_call>",
            between="</one>\n<one>",
            encoding=Encoding.TAGGED,
            tags=Tags(open="<key>", middles={ANY: "</key>\n"}, close="\n</value>"),
        ),
    ),
    "python": AnswerFormat(
        calls=CallFormat(
            begin="<tool_call>[", mid="(", end=")]</tool_call>", encoding=Encoding.PYTHON
        )
    ),
    "quoting": AnswerFormat(
        calls=CallFormat(
            begin="<tool_call>call:",
            mid="",
            end="</tool_call>",
            encoding=Encoding.BARE,
            quote="<q>",
        )
    ),
    **{
        named.name: AnswerFormat(
            thinking=named.thinking, calls=named.calls, channels=named.channels
        )
        for named in BEFORE_PROBES
    },
}
WORDS: Final = [
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool", "<", "\n", "  ", "so ", "add",
    '{"name": "add", "arguments": {"a": 1}}', '{"name": "add"', "{", "}", "[", "]", '"', "\\", ",",
    "[add(a=1)]", "(a=1", ")", "call:add{a:1}", "call:add{a:", "<q>", "}", "<one>", "</one>",
    "<id>", "<args>", "<key>", "a", "</key>", "1", "</value>", "<text>", "</text>",
    "<|start|>assistant",
    "<|channel|>analysis", "<|channel|>final", " to=functions.add", "<|message|>", "<|end|>",
    "<|call|>", " to=self", " to=add", "<|eom|>", '<atem:function_calls>\n<atem:invoke name="',
    '">\n', '<atem:parameter name="a">', "</atem:parameter>\n", "</atem:invoke>",
    "</atem:function_calls>", ">>>", "all\n", "add\n", "é", "```json\n", "<![CDATA[", "]]>",
]  # fmt: skip


def read(form: AnswerFormat, pieces: Sequence[str], *, is_thinking: bool = False) -> Parts:
    parser = form.parser("<think>" if is_thinking else "", TOOLS)
    assert parser is not None
    parts = Parts()
    for piece in pieces:
        parts.add(parser.feed(piece))
    parts.add(parser.finish())
    return parts


def described(parts: Parts) -> tuple[str, str, list[tuple[str, dict[str, Any]]]]:
    return parts.thinking, parts.text, [(call.name, dict(call.arguments)) for call in parts.calls]


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=150, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), max_size=24), is_thinking=st.booleans())
def test_cuts_change_nothing(name: str, words: list[str], is_thinking: bool) -> None:
    form, answer = FORMS[name], "".join(words)

    whole = described(read(form, [answer], is_thinking=is_thinking))

    assert described(read(form, words, is_thinking=is_thinking)) == whole
    assert described(read(form, answer, is_thinking=is_thinking)) == whole


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.channels is None])
@settings(max_examples=150, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), max_size=24))
def test_only_marks_blanks_and_calls_are_no_text(name: str, words: list[str]) -> None:
    """Without a call, what is missing from an answer is marks and blanks."""
    form, answer = FORMS[name], "".join(words)
    parts = read(form, [answer])
    if parts.calls:
        return
    left = "".join((parts.thinking + parts.text).split())
    at = 0
    rest = "".join(answer.split())
    marks = sorted(
        (mark for mark in ("<think>", "</think>", *form.dropped) if mark), key=len, reverse=True
    )
    while at < len(rest):
        if (
            left
            and rest[at] == left[0]
            and not any(rest.startswith(mark, at) and not left.startswith(mark) for mark in marks)
        ):
            left, at = left[1:], at + 1
            continue
        mark = next((mark for mark in marks if rest.startswith(mark, at)), None)
        assert mark is not None, (rest[at:], left)
        at += len(mark)
    assert left == ""


LITERALS: Final = st.lists(
    st.sampled_from(
        [
            "<call>", "</call>", "<one>", "</one>", "[X]", "[/X]", "\n", " ", "[", "]", "(", ")",
            "a=", '{"name": "', '", "arguments": ', "}", ",", '"', "word", "<|open|>", "x",
            "<|sep|>", "`", "",
        ]
    ),
    max_size=3,
).map("".join)  # fmt: skip
ARGUMENTS: Final = [
    "{{ c.function.arguments | tojson }}",
    "{{ c.function.arguments | tojson | tojson }}",
    "{{ c.id }}",
    "{% for k, v in c.function.arguments.items() %}<k>{{ k }}</k>{{ v }}<v>{% endfor %}",
    "{% for k, v in c.function.arguments.items() %}{{ k }}{{ v }}{% endfor %}",
    "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v | tojson }}, {% endfor %}",
    "{% for k, v in c.function.arguments.items() %}<{{ k }}>{{ v }}</{{ k }}>{% endfor %}",
    "{{ loop.index0 }}",
    "{{ m.content }}",
    "<think>{{ m.reasoning_content }}</think>",
    "",
]


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(LITERALS, min_size=9, max_size=9),
    places=st.lists(st.sampled_from(ARGUMENTS), min_size=4, max_size=4),
    words=st.lists(st.sampled_from(WORDS), max_size=8),
)
def test_any_template_has_a_format_that_reads_what_it_prints(
    texts: list[str], places: list[str], words: list[str]
) -> None:
    header, begin, open_, mid, inner, close, between, end, eos = (
        f"{{{{ {json.dumps(text)} }}}}" for text in texts
    )
    first, second, third, fourth = places
    template = (
        f"{{% for m in messages %}}{header}{{{{ m.role }}}}{first}{{% if m.tool_calls %}}{begin}"
        f"{{% for c in m.tool_calls %}}{open_}{second}{{{{ c.function.name }}}}{mid}{third}{inner}"
        f"{fourth}{close}{{% if not loop.last %}}{between}{{% endif %}}{{% endfor %}}{end}"
        f"{{% endif %}}{eos}{{% endfor %}}{{% if add_generation_prompt %}}{header}{{% endif %}}"
    )
    form = format_of(template)
    parser = form.parser("", TOOLS)
    if parser is None:
        return
    for word in words:
        parser.feed(word)
    parser.finish()
    if form.calls is not None:
        call = Call(id="abcdefgh1", name="add", arguments={"a": 1})
        said = form.calls.text([call])
        assert described(read(form, said))[2] == [("add", {"a": 1})], (form.calls, said)
