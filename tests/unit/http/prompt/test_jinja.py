"""Chat templates render as in Hugging Face's libraries, whose authors tested them there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jinja2.sandbox
import pytest

from ollamad.errors import TemplateBroken
from ollamad.http.prompt.jinja import TEMPLATE_CHARS_MAX, check_template, render_jinja
from tests.unit.http.models import NOON, FixedClock

TALK: Mapping[str, Any] = {
    "bos_token": "<s>",
    "n": 7,
    "none": None,
    "messages": [
        {"role": "system", "content": "Be  brief."},
        {"role": "user", "content": " Hi <b>&\n there "},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"type": "function", "function": {"name": "f", "arguments": {"a": 1, "ü": [2]}}}
            ],
        },
        {"role": "tool", "content": "42"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": [1, None]}}}],
}


def rendered(text: str, **variables: Any) -> str:
    return render_jinja(text, {**TALK, **variables}, FixedClock())


def failure(text: str, **variables: Any) -> str:
    with pytest.raises(TemplateBroken) as caught:
        rendered(text, **variables)
    return caught.value.message


def reference(text: str) -> str:
    """Render as Hugging Face's library does: Jinja's own sandbox and one changed filter."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, ensure_ascii=False, **named: json.dumps(
        value, ensure_ascii=ensure_ascii, **named
    )
    return environment.from_string(text).render(**TALK)


@pytest.mark.parametrize(
    "text",
    [
        # Whitespace around blocks.
        "a\n  {% if n %}\n  b\n  {% endif %}\nc {%- if n -%} \n d {%- endif %}\n",
        "{# a comment #}{{ bos_token }}{% raw %}{{ n }}{% endraw %}\n",
        # Conversations.
        "{% for m in messages %}<|{{ m.role }}|>{{ m['content']|trim }}{% endfor %}",
        (
            "{% for m in messages if m.role != 'tool' %}{{ loop.index0 }}{{ loop.first }}"
            "{{ loop.last }}{{ loop.length }}{{ loop.previtem is defined }}"
            "{% else %}none{% endfor %}"
        ),
        "{% for m in messages[1:][::-1] %}{{ m.role[:2] }}{% endfor %}{{ messages[-1].content }}",
        (
            "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
            "{{ m.role }}"
            "{% if m.role == 'assistant' %}{% break %}{% endif %}{% endfor %}"
        ),
        (
            "{% set ns = namespace(found=false, last=[]) %}{% for m in messages %}"
            "{% if m.role == 'user' %}{% set ns.found = true %}{% endif %}"
            "{% set ns.last = ns.last + [m.role] %}{% endfor %}{{ ns.found }}{{ ns.last }}"
        ),
        (
            "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}"
            "{{ messages|rejectattr('role', 'in', ['user', 'tool'])|map(attribute='role')|list }}"
        ),
        "{{ messages|map(attribute='content')|map('upper')|select|join(d='|') }}",
        "{{ messages|groupby('role')|map('first')|join('-') }}{{ (messages|last).role }}",
        "{{ messages|sum(attribute='missing_is_nothing', start=3) if false else 1 }}",
        # Tools.
        "{{ tools|tojson }}{{ tools|tojson(indent=2) }}{{ n|tojson(separators=(',', ':')) }}",
        "{{ tools|map(attribute='function.name')|join(', ') }}{{ '<ü&\\''|tojson }}",
        (
            "{% for k, v in messages[2].tool_calls[0].function.arguments|items %}"
            "{{ k }}={{ v|tojson }};{% endfor %}{{ {'b': 1, 'a': 2}|dictsort }}"
        ),
        "{% for k, v in {'b': 1}.items() %}{{ k }}{{ v }}{% endfor %}{{ {'b': 1}.get('c', '?') }}",
        # Macros and blocks.
        (
            "{% macro r(x, y='d') %}<{{ x }}{{ y }}{{ varargs }}{{ caller() if caller else '' }}>"
            "{% endmacro %}{{ r(1) }}{{ r(1, 'q', 3) }}{% call r(2) %}in{% endcall %}"
        ),
        (
            "{% set b %} x{{ n }} {% endset %}{{ b|trim|upper }}{% filter indent(2, true) %}a\nb"
            "{% endfilter %}"
        ),
        "{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
        (
            "{% for x in [1, 2, 3] %}{{ loop.cycle('o', 'e') }}{{ loop.nextitem }}"
            "{{ loop.changed(x) }}{% endfor %}{{ cycler(1, 2).next() }}{{ range(*[1, 3])|list }}"
        ),
        # Texts.
        "{{ '%s-%03d' % ('a', 5) }}{{ '%s' % none }}{{ '**%s** 100%%' % 'b' }}{{ '%s'|format(1) }}",
        "{{ '{} {x:>4} {0.real}'.format(1, x='q') }}{{ '{a}'.format_map({'a': 1}) }}",
        (
            "{{ 'a,b,,c'.split(',') }}{{ ' a b '.split() }}{{ 'a b c'.rsplit(' ', 1) }}"
            "{{ 'a</think>b'.split('</think>')[-1].lstrip('\\n') }}{{ 'a\nb'.splitlines() }}"
        ),
        (
            "{{ 'abc'.replace('b', 'x') }}{{ 'abab'|replace('b', 'x', 1) }}"
            "{{ 'x'.join(['a', 'b']) }}"
            "{{ 'abc'.startswith('ab') }}{{ 'a b'.title() }}{{ 'abc'.find('c') }}"
            "{{ 'é'|urlencode }}"
        ),
        "{{ 'the cat-sat'|title }}{{ 'aB'|capitalize }}{{ 'abc'|first }}{{ 'abc'|reverse }}",
        "{{ '<'|safe + '<&>' }}{{ '<' + ('<'|e) }}{{ '<'|e|e }}{{ '<'|e|forceescape }}",
        "{{ none|selectattr('x')|list }}{{ none|map('upper')|list }}{{ none|reject|list|length }}",
        "{{ '<a>'|e }}{{ '<a>'|safe }}{{ 'a\nb'|indent(3) }}{{ 'hello world'|truncate(8) }}",
        "{{ 'a' ~ n ~ none ~ [1] }}{{ n|string + 'x' }}{{ 'a' * 3 }}{{ 'a'|center }}",
        # Numbers, lists and tests.
        (
            "{{ n // 2 }}{{ n % 4 }}{{ n / 2 }}{{ n ** 2 }}{{ -n }}{{ 1 < n <= 7 }}"
            "{{ '12'|int + 1 }}"
            "{{ n|float|round(1) }}{{ 2.567|round(2) }}{{ 12345|round(-2) }}{{ [1, 2]|sum }}"
        ),
        (
            "{{ 3 * [1] }}{{ [1] + [2] }}{{ (1, 2) + (3,) }}{{ [2, 1]|sort }}"
            "{{ [1, 1]|unique|list }}"
            "{{ [1, 2, 3]|batch(2)|list }}{{ [1, 2, 3]|slice(2)|list }}{{ [1, 2]|max }}"
        ),
        (
            "{{ missing is defined }}{{ missing|default('d') }}{{ missing or 'or' }}"
            "{{ none is none }}"
            "{{ messages is sequence }}{{ messages[0] is mapping }}{{ n is number }}{{ n is odd }}"
        ),
        "{{ n in [1, 7] }}{{ 'a' not in 'bc' }}{{ not n }}{{ 'a' if n == 8 }}{{ n is even }}",
        "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% if 'x' in messages[0] %}1{% elif n %}2{% endif %}",
    ],
)
def test_a_template_means_what_it_means_to_hugging_face(text: str) -> None:
    assert rendered(text) == reference(text)


def test_tojson_does_not_escape_for_html() -> None:
    assert rendered("{{ '<é&\"'|tojson }}") == '"<é&\\""'
    assert rendered("{{ 'é'|tojson(ensure_ascii=true) }}") == '"\\u00e9"'


def test_strftime_now_tells_the_clock_s_time() -> None:
    local = NOON.astimezone()

    assert rendered("{{ strftime_now('%d %b %Y %H:%M') }}") == local.strftime("%d %b %Y %H:%M")


def test_marks_for_training_are_left_out() -> None:
    text = "{% for m in messages %}{% generation %}{{ m.role }},{% endgeneration %}{% endfor %}"

    assert rendered(text) == "system,user,assistant,tool,"


def test_a_template_may_refuse_a_conversation_in_its_own_words() -> None:
    text = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('No system role!') }}{% endif %}"
    )

    assert failure(text) == ("the model's chat template refuses this conversation: No system role!")


def test_a_template_that_does_not_parse_is_refused_with_its_line() -> None:
    with pytest.raises(TemplateBroken, match=r"template error: line 2: .*unknown tag 'endfro'"):
        check_template("{% for a in b %}\n{% endfro %}")


def test_a_template_that_parses_passes_the_check() -> None:
    check_template("{% for a in missing.too %}{{ raise_exception('not run') }}{% endfor %}")


@pytest.mark.parametrize(
    "text",
    [
        "{% include 'a' %}",
        "{% import 'a' as b %}",
        "{% from 'a' import b %}",
        "{% extends 'a' %}",
        "{% autoescape true %}{% endautoescape %}",
    ],
)
def test_a_template_stands_alone(text: str) -> None:
    with pytest.raises(TemplateBroken, match="stands alone"):
        check_template(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}",
        "{{ " + "[" * 2000 + "]" * 2000 + " }}",
        "{{ 1" + "+1" * 5000 + " }}",
        "{{ n" + ".a" * 5000 + " }}",
        "{% if n %}" * 200 + "{% endif %}" * 200,
        "{% for a in n %}" * 40 + "{% endfor %}" * 40,
        "{{ " + "9" * 5000 + " }}",
        "{{ 0x" + "f" * 50000 + " }}",
        "{{ '" + "\\" * 101 + "' }}",
        "{{" * 1000,
        "{% raw %}" * 1000,
    ],
)
def test_a_template_that_is_too_much_for_python_s_compiler_is_refused(text: str) -> None:
    with pytest.raises(TemplateBroken, match="template error"):
        check_template(text)


def test_a_template_has_a_greatest_length() -> None:
    check_template("a" * TEMPLATE_CHARS_MAX)
    with pytest.raises(TemplateBroken, match=f"at most {TEMPLATE_CHARS_MAX} characters"):
        check_template("a" * (TEMPLATE_CHARS_MAX + 1))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ missing.attribute }}", "'missing' is undefined"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ n + 'a' }}", "unsupported operand"),
        ("{{ [1, 'a']|sort }}", "not supported between"),
        ("{{ ','.join([1]) }}", "expected a string to join, found int"),
        ("{{ {[]: 1} }}", "unhashable"),
        ("{{ cycler() }}", "at least one item"),
        ("{{ raise_exception() }}", "missing 1 required"),
        ("{{ n() }}", "not callable"),
        ("{{ messages|tojson(indent='  ') }}", "indents by a number"),
        ("{{ missing|tojson }}", "not JSON serializable"),
        ("{% set a, b = [1] %}", "not enough values"),
    ],
)
def test_whatever_a_template_does_wrong_is_told_as_its_failure(text: str, reason: str) -> None:
    message = failure(text)

    assert message.startswith("the model's chat template failed: ")
    assert reason in message


def test_a_failure_s_message_is_short() -> None:
    assert len(failure("{{ raise_exception('a' * 60000) }}")) < 1000
    assert len(failure("{{ {}['" + "a" * 60000 + "'].b }}")) < 1000


def test_a_failed_rendering_leaves_nothing_behind() -> None:
    failure("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")

    assert rendered("{% for a in range(3) %}{{ a }}{% endfor %}") == "012"


# What belongs to the daemon


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__']['__mro__'] }}",
        "{{ (''|attr('__class__')).mro() }}",
        "{{ lipsum.__globals__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ joiner.__init__['__globals__']['os'] }}",
        "{{ raise_exception.__globals__.sys }}",
        "{{ strftime_now.__closure__[0] }}",
        "{{ self._TemplateReference__context.environment }}",
        "{{ '{0.__class__.__mro__}'.format(n) }}",
        "{{ '{a.__class__.__mro__}'.format_map({'a': n}) }}",
        "{{ (messages|map(attribute='__class__')|first).mro() }}",
        "{{ messages.append(1) }}",
        "{{ messages.clear() }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{{ messages[0].pop('role') }}",
        "{{ ''.encode() }}",
        "{{ (1).to_bytes(9, 'big') }}",
        "{{ environment.globals }}",
        "{{ loop.x }}",
    ],
)
def test_a_template_reaches_and_changes_nothing_of_the_daemon_s(text: str) -> None:
    messages = [{"role": "user", "content": "x"}]

    assert "unsafe" in (message := failure(text, messages=messages)) or "undefined" in message
    assert messages == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    "text",
    [
        "{{ raise_exception.__globals__ }}",
        "{{ self.__dict__ }}",
        "{{ []|attr('__class__') }}",
        "{{ '{0.__class__}'.format('a') }}",
        "{{ namespace.__init__ }}",
    ],
)
def test_what_is_hidden_prints_as_nothing(text: str) -> None:
    assert rendered(text) == ""


def test_a_namespace_does_not_print_what_it_holds() -> None:
    assert rendered("{% set ns = namespace(a=1) %}{% set ns.a = ns %}{{ ns }}") == "<Namespace>"
