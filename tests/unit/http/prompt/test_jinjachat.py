"""Messages are put into the form that a template expects, and what it expects is found out."""

from __future__ import annotations

from typing import Any

import pytest

from ollamad.http.prompt import jinjaprobe
from ollamad.http.prompt.jinja import render_jinja
from ollamad.http.prompt.jinjabudget import Budget
from ollamad.http.prompt.jinjachat import (
    Expectations,
    NoTools,
    continued,
    shaped,
    think_variables,
    tool_variables,
    up_to_mark,
)
from ollamad.http.prompt.jinjaprobe import expectations_of
from ollamad.http.prompt.prompt import Message
from ollamad.http.prompt.render import Renderer
from tests.unit.http.models import FixedClock, a_model


def said(role: str, content: str = "", **more: Any) -> Message:
    return {"role": role, "content": content, **more}


def called(*calls: tuple[str, str], content: str = "") -> Message:
    """An assistant's message with calls, each an id and a name."""
    listed = [
        {**({"id": id_} if id_ else {}), "function": {"name": name, "arguments": {"x": 1}}}
        for id_, name in calls
    ]
    return said("assistant", content, tool_calls=listed)


def ids(messages: list[dict[str, Any]]) -> list[str | None]:
    found: list[str | None] = []
    for message in messages:
        found += [call.get("id") for call in message.get("tool_calls", ())]
        if message["role"] == "tool":
            found.append(message.get("tool_call_id"))
    return found


# The form


def test_a_message_has_what_templates_read_and_nothing_else() -> None:
    call = {"id": "1", "function": {"index": 0, "name": "f", "arguments": None}}
    messages = [
        said("user", "Hi", images=["cGl4ZWxz"]),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        said("tool", "r", tool_name="f", tool_call_id="1"),
    ]

    assert shaped(messages, Expectations()) == [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": {}}}
            ],
        },
        {"role": "tool", "content": "r", "name": "f", "tool_call_id": "1"},
    ]


def test_arguments_can_be_text_and_the_content_none() -> None:
    expected = Expectations(arguments_are_text=True, call_content=None)

    (silent,) = shaped([called(("1", "f"))], expected)
    (speaking,) = shaped([called(("1", "f"), content="Wait.")], expected)

    assert silent["tool_calls"][0]["function"]["arguments"] == '{"x": 1}'
    assert (silent["content"], speaking["content"]) == (None, "Wait.")


def test_contents_can_be_lists_of_parts() -> None:
    (message,) = shaped([said("user", "Hi")], Expectations(content_is_parts=True))

    assert message == {"role": "user", "content": [{"type": "text", "text": "Hi"}]}


def test_a_system_text_goes_before_the_question_where_there_is_no_such_role() -> None:
    messages = [
        said("system", "S1"),
        said("system", "S2"),
        said("user", "Q"),
        said("assistant", "A"),
        said("system", "S3"),
        said("assistant", "B"),
        said("user", ""),
        said("system", "S4"),
    ]

    assert shaped(messages, Expectations(takes_system=False)) == [
        said("user", "S1\n\nS2\n\nQ"),
        said("assistant", "A"),
        said("assistant", "B"),
        said("user", "S3"),
        said("user", "S4"),
    ]


def test_ids_are_made_up_only_where_they_are_needed() -> None:
    messages = [called(("", "f"), ("", "g")), said("tool", "r", tool_name="g"), said("tool", "s")]

    assert ids(shaped(messages, Expectations())) == [None, None, None, None]
    assert ids(shaped(messages, Expectations(needs_ids=True))) == [
        "call00001",
        "call00002",
        "call00002",
        "call00001",
    ]


def test_long_ids_become_short_ones_that_still_belong_together() -> None:
    messages = [
        called(("call_12345678", "f"), ("abcdefghi", "g")),
        said("tool", "r", tool_call_id="abcdefghi"),
        said("tool", "s", tool_call_id="call_12345678"),
    ]

    first, second, third, fourth = ids(shaped(messages, Expectations(ids_are_short=True)))

    assert (second, third) == ("abcdefghi", "abcdefghi")
    assert first == fourth
    assert first is not None
    assert len(first) == 9
    assert first.isalnum()


def test_several_calls_become_one_after_the_other_each_with_its_result() -> None:
    messages = [
        said("user", "Q"),
        called(("1", "f"), ("2", "g"), ("3", "f"), content="Wait."),
        said("tool", "for 2", tool_call_id="2", tool_name="g"),
        said("tool", "for 1", tool_call_id="1", tool_name="f"),
        said("tool", "for nobody"),
        said("tool", "one more"),
        said("assistant", "A"),
    ]

    parted = shaped(messages, Expectations(takes_calls_together=False))

    assert [(m["content"], len(m.get("tool_calls", ()))) for m in parted] == [
        ("Q", 0),
        ("Wait.", 1),
        ("for 1", 0),
        ("", 1),
        ("for 2", 0),
        ("", 1),
        ("for nobody", 0),
        ("one more", 0),
        ("A", 0),
    ]


def test_a_call_without_a_result_stays_without() -> None:
    parted = shaped([called(("1", "f"), ("2", "g"))], Expectations(takes_calls_together=False))

    assert ids(parted) == ["1", "2"]


# No tools, and thinking


@pytest.mark.parametrize(
    ("no_tools", "told"),
    [
        (NoTools.NONE, {"tools": None, "documents": None, "functions": ""}),
        (NoTools.LEFT_OUT, {"functions": ""}),
        (NoTools.EMPTY, {"tools": [], "documents": [], "functions": ""}),
    ],
)
def test_that_there_are_no_tools_is_told_in_three_ways(
    no_tools: NoTools, told: dict[str, Any]
) -> None:
    assert tool_variables((), Expectations(no_tools=no_tools)) == told


def test_thinking_is_switched_by_all_the_names_it_has() -> None:
    assert think_variables(None, "qwen3") == {}
    assert think_variables(True, "qwen3") == {
        "enable_thinking": True,
        "thinking": True,
        "reasoning": True,
        "thinking_mode": "enabled",
    }
    off = think_variables(False, "qwen3")
    assert (off["enable_thinking"], off["thinking_mode"], off["thinking_budget"]) == (
        False,
        "disabled",
        0,
    )


def test_the_greatest_effort_is_one_that_the_model_knows() -> None:
    assert think_variables("max", "deepseek4")["reasoning_effort"] == "max"
    assert think_variables("max", "gpt-oss")["reasoning_effort"] == "high"
    assert think_variables("low", "gpt-oss")["reasoning_effort"] == "low"


# A begun answer

TURNS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content CHANGE }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>{% endif %}"
)


@pytest.mark.parametrize(
    ("change", "begun", "prompt"),
    [
        ("", "Well, ", "<user>Q</user><assistant>Well, "),
        ("| trim", "Well, ", "<user>Q</user><assistant>Well,"),
        # What the template does not keep is put behind the opened answer.
        ("| upper", "Well, ", "<user>Q</user><assistant><think>Well, "),
        ("[:6]", "Well, ", "<user>Q</user><assistant><think>Well, "),
    ],
)
def test_a_begun_answer_goes_on_in_its_own_turn(change: str, begun: str, prompt: str) -> None:
    template = TURNS.replace("CHANGE", change)
    renderer = Renderer(a_model(chat_template=template), FixedClock())

    text = renderer.chat([said("user", "Q"), said("assistant", begun)]).text

    assert text == prompt


def test_a_template_that_wants_a_question_at_the_end_gets_it() -> None:
    template = (
        "{% if messages[-1].role != 'user' %}{{ raise_exception('ask!') }}{% endif %}"
        "{{ messages[-1].content }}:"
    )
    renderer = Renderer(a_model(chat_template=template), FixedClock())

    assert renderer.chat([said("user", "Q"), said("assistant", "A")]).text == "Q:A"


def test_the_mark_is_where_the_last_one_is() -> None:
    begun = "a CONTINUE_FINAL_MESSAGE_TAG b"
    (message,) = continued([said("assistant", begun)])

    assert up_to_mark(f"<{message['content']}>", begun) == f"<{begun}"


# Probing

ALL = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (ALL, {}),
        ("{% for t in tools %}{% endfor %}" + ALL, {"no_tools": "LEFT_OUT"}),
        ("{% set n = tools + [] %}" + ALL, {"no_tools": "EMPTY"}),
        (
            "{% for m in messages %}{{ m.content[0].text }}{% endfor %}",
            {"content_is_parts": True},
        ),
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
            {"takes_system": False},
        ),
        ("{% for m in messages %}{{ m.content[:6] }}{% endfor %}", {}),
        ("{% if true %}nothing is shown{% endif %}", {}),
        ("{{ raise_exception('never') }}{% if true %}{% endif %}", {}),
    ],
)
def test_what_a_template_expects_is_seen_in_what_it_prints(
    template: str, expected: dict[str, Any]
) -> None:
    if "no_tools" in expected:
        expected = {"no_tools": NoTools[expected["no_tools"]]}

    assert expectations_of(template) == Expectations(**expected)


CALLS = (
    "{% for m in messages %}{{ m.content if m.content is not none }}"
    "{% for c in m.tool_calls or [] %}BODY{% endfor %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("{{ c.function.arguments | tojson }}", {}),
        ("{% for k, v in c.function.arguments.items() %}{{ k }}: {{ v }}{% endfor %}", {}),
        ("{{ c.function.arguments }}", {"arguments_are_text": True}),
        ("{{ '' + c.function.arguments }}", {"arguments_are_text": True}),
        (
            "{% if m.content is none %}{{ c.function.arguments | tojson }}{% endif %}",
            {"call_content": None},
        ),
        (
            "{% if loop.first %}{{ c.function.arguments | tojson }}{% endif %}",
            {"takes_calls_together": False},
        ),
        ("{{ '' + c.id }}{{ c.function.arguments | tojson }}", {"needs_ids": True}),
        (
            (
                "{% if (c.id or '') | length > 9 %}{{ raise_exception('long') }}{% endif %}"
                "{{ c.function.arguments | tojson }}"
            ),
            {"ids_are_short": True},
        ),
    ],
)
def test_what_a_template_expects_of_calls_is_seen_too(body: str, expected: dict[str, Any]) -> None:
    found = expectations_of(CALLS.replace("BODY", body))

    assert found == Expectations(**expected)


def test_all_probes_together_cost_no_more_than_one_rendering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budgets: list[Budget] = []

    def counting(*args: Any) -> str:
        budgets.append(args[3])
        return render_jinja(*args)

    monkeypatch.setattr(jinjaprobe, "render_jinja", counting)
    costly = "{% for a in range(99999) %}{% endfor %}{{ messages[0].content }}{% if 0 %}{% endif %}"

    assert expectations_of(costly) == Expectations()
    assert len(set(map(id, budgets))) == 1
    assert budgets[0].is_spent
