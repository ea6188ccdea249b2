"""Conversations become prompts: the right template, and the right messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ollamad.errors import CapabilityMissing, TemplateBroken
from ollamad.http.prompt.prompt import Message
from ollamad.http.prompt.render import PLAIN_TEMPLATE, Renderer, check, conversation, template_of
from ollamad.modelinfo import StoredMessage, StoredModel
from ollamad.registry.capabilities import is_jinja
from tests.unit.http.models import FixedClock, a_model

JINJA = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GO = "{{ if .System }}[S]{{ .System }}{{ end }}[U]{{ .Prompt }}[A]{{ .Response }}"
GO_TOOLS = (
    "{{ range .Messages }}<{{ .Role }}>{{ .Content }}"
    "{{ range .ToolCalls }}{{ .Function.Name }}{{ .Function.Arguments }}{{ end }}{{ end }}"
    "{{ range .Tools }}{{ .Function.Name }}{{ end }}"
)


def said(role: str, content: str = "", **more: Any) -> Message:
    return {"role": role, "content": content, **more}


def chat(model: StoredModel, *messages: Message, **asked: Any) -> str:
    return Renderer(model, FixedClock()).chat(messages, **asked).text


# Which template


def test_a_template_with_a_statement_is_jinja_and_another_is_go_s() -> None:
    assert is_jinja(JINJA)
    assert not is_jinja(GO)


def test_the_template_stored_with_a_model_is_used() -> None:
    assert template_of(a_model(template=GO, chat_template=JINJA)) == GO


def test_a_model_without_a_stored_template_uses_that_of_its_weights() -> None:
    assert template_of(a_model(chat_template=JINJA)) == JINJA


def test_the_weights_template_is_used_when_it_can_do_more() -> None:
    embedded = JINJA + "{% if tools %}{{ tools|tojson }}{% endif %}"

    assert template_of(a_model(template=GO, chat_template=embedded)) == embedded


def test_a_model_without_any_template_is_given_the_text_itself() -> None:
    model = a_model()

    assert template_of(model) == PLAIN_TEMPLATE
    assert chat(model, said("user", "once upon")) == "once upon"


def test_a_request_s_own_template_goes_before_all_others() -> None:
    renderer = Renderer(a_model(template=GO), FixedClock(), "{{ .Prompt }}!")

    assert renderer.chat([said("user", "hi")]).text == "hi!"


@pytest.mark.parametrize("broken", ["{{ .Prompt", "{% for %}", "{{ nothing.known }}"])
def test_a_template_is_checked_in_its_own_language(broken: str) -> None:
    check(GO)
    check(JINJA)
    with pytest.raises(TemplateBroken):
        check(broken)


# Jinja


def test_a_conversation_goes_through_jinja() -> None:
    model = a_model(chat_template=JINJA)

    text = chat(model, said("system", "Be brief."), said("user", "Hi"))

    assert text == "<s><|system|>Be brief.<|user|>Hi<|assistant|>"


def test_a_begun_answer_is_continued() -> None:
    model = a_model(chat_template=JINJA)

    text = chat(model, said("user", "Hi"), said("assistant", "Well, "))

    assert text == "<s><|user|>Hi<|assistant|>Well, "


def test_an_answer_that_called_tools_or_says_nothing_is_no_beginning() -> None:
    model = a_model(chat_template=JINJA)
    call = {"function": {"name": "f", "arguments": {}}}

    called = chat(model, said("user", "Hi"), said("assistant", "ok", tool_calls=[call]))
    empty = chat(model, said("user", "Hi"), said("assistant"))

    assert called == "<s><|user|>Hi<|assistant|>ok<|assistant|>"
    assert empty == "<s><|user|>Hi<|assistant|><|assistant|>"


def test_jinja_gets_messages_as_hugging_face_names_their_fields() -> None:
    model = a_model(chat_template="{% if true %}{{ messages|tojson }}{% endif %}")
    call = {"function": {"name": "f", "arguments": {"a": 1}}}

    text = chat(
        model,
        {"role": "assistant", "content": None, "thinking": "hm", "tool_calls": [call]},
        said("tool", "1", tool_name="f"),
    )

    assert text == (
        '[{"role": "assistant", "content": "", "thinking": "hm", "reasoning": "hm", '
        '"reasoning_content": "hm", "tool_calls": [{"type": "function", "function": {"name": "f", '
        '"arguments": {"a": 1}}}]}, {"role": "tool", "content": "1", "name": "f"}]'
    )


@pytest.mark.parametrize(
    ("think", "shown"),
    [(None, "unset unset"), (True, "True unset"), (False, "False unset"), ("high", "True high")],
)
def test_jinja_is_told_how_much_to_think(think: Any, shown: str) -> None:
    template = (
        "{% if true %}{{ enable_thinking|default('unset') }} "
        "{{ reasoning_effort|default('unset') }}{% endif %}"
    )

    assert chat(a_model(chat_template=template), said("user"), think=think) == shown


def test_jinja_sees_tools_only_when_there_are_some() -> None:
    model = a_model(chat_template="{% if tools is defined %}{{ tools|length }}{% endif %}.")

    assert chat(model, said("user")) == "."
    assert chat(model, said("user"), tools=[{"type": "function"}]) == "1."


def test_the_time_in_a_prompt_is_the_clock_s() -> None:
    model = a_model(chat_template="{% if true %}{{ strftime_now('%Y') }}{% endif %}")

    assert chat(model, said("user")) == "2026"


# Go


def test_a_conversation_goes_through_go() -> None:
    model = a_model(template=GO)

    text = chat(
        model,
        said("system", "Be brief."),
        said("user", "Hi"),
        said("assistant", "Hello"),
        said("user", "Bye"),
    )

    assert text == "[S]Be brief.[U]Hi[A]Hello[U]Bye[A]"


def test_go_gets_tools_and_calls() -> None:
    model = a_model(template=GO_TOOLS)
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    bare = {"function": {"name": "g"}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

    text = chat(
        model,
        said("user", "Hi"),
        {"role": "assistant", "content": None, "tool_calls": [call, bare]},
        tools=[tool],
    )

    assert text == '<user>Hi<assistant>f{"a":1}g{}f'


def test_a_suffix_needs_a_template_that_has_a_place_for_it() -> None:
    able = Renderer(a_model(template="<P>{{ .Prompt }}<S>{{ .Suffix }}<M>"), FixedClock())

    assert able.suffix("def f(", "return 1").text == "<P>def f(<S>return 1<M>"
    for model in (a_model(template=GO), a_model(chat_template=JINJA)):
        with pytest.raises(CapabilityMissing, match="library/tiny:latest does not support insert"):
            Renderer(model, FixedClock()).suffix("a", "b")


@pytest.mark.parametrize("template", [None, GO])
def test_without_such_a_place_the_tokens_of_the_weights_are_used(template: str | None) -> None:
    model = a_model(template=template, chat_template=JINJA, infill_tokens=("<P>", "<S>", "<M>"))

    prompt = Renderer(model, FixedClock()).suffix("def f(", "return 1")

    assert prompt.text == "<P>def f(<S>return 1<M>"


# Special tokens


@pytest.mark.parametrize(
    ("add_bos", "add_eos", "text"),
    [
        (False, False, "<s>Hi</s>"),
        (True, False, "Hi</s>"),
        (False, True, "<s>Hi"),
        (True, True, "Hi"),
    ],
)
def test_tokens_that_the_tokenizer_adds_are_not_doubled(
    add_bos: bool, add_eos: bool, text: str
) -> None:
    jinja = "{% if true %}{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{% endif %}"
    for model in (
        a_model(chat_template=jinja, add_bos=add_bos, add_eos=add_eos),
        a_model(template="<s>{{ .Prompt }}</s>", add_bos=add_bos, add_eos=add_eos),
    ):
        assert chat(model, said("user", "Hi")).removesuffix("\n") == text


def test_only_one_begin_is_dropped_and_none_inside_the_text() -> None:
    model = a_model(template="{{ .Prompt }}", add_bos=True)

    assert chat(model, said("user", "<s><s>a<s>b")) == "<s>a<s>b"


# The whole conversation

STORED = (StoredMessage(role="user", content="2+2"), StoredMessage(role="assistant", content="4"))


def roles(messages: Sequence[Message]) -> list[tuple[Any, Any]]:
    return [(message["role"], message["content"]) for message in messages]


def test_stored_messages_come_first_and_the_system_prompt_before_them() -> None:
    model = a_model(system="Be brief.", messages=STORED)

    assert roles(conversation(model, [said("user", "Hi")])) == [
        ("system", "Be brief."),
        ("user", "2+2"),
        ("assistant", "4"),
        ("user", "Hi"),
    ]


def test_a_request_s_system_message_replaces_the_model_s() -> None:
    model = a_model(system="Be brief.", messages=STORED)

    assert roles(conversation(model, [said("system", "Sing."), said("user", "Hi")])) == [
        ("user", "2+2"),
        ("assistant", "4"),
        ("system", "Sing."),
        ("user", "Hi"),
    ]


def test_a_system_message_later_on_replaces_nothing() -> None:
    model = a_model(system="Be brief.")

    assert roles(conversation(model, [said("user", "Hi"), said("system", "Sing.")]))[0] == (
        "system",
        "Be brief.",
    )


def test_a_model_without_a_system_prompt_gets_none() -> None:
    assert conversation(a_model(), [said("user", "Hi")]) == [said("user", "Hi")]
