"""One rendering takes a second and some memory at most, whatever its template does."""

from __future__ import annotations

import re
import time
import tracemalloc

import pytest

from ollamad.errors import TemplateBroken
from ollamad.http.prompt.jinja import render_jinja
from ollamad.http.prompt.jinjabudget import (
    CPU_S_MAX,
    INT_BITS_MAX,
    MADE_BYTES_MAX,
    SPREAD_MAX,
    STEPS_MAX,
    TEXT_CHARS_MAX,
    Budget,
)
from tests.unit.http.models import FixedClock

NESTED = (
    "{% set ns = namespace(x=['a']) %}{% for i in range(40) %}{% set ns.x = STEP %}{% endfor %}"
)
LARGE = "{% set b = 'a' * 65536 * 200 %}"
PEAK_BYTES_MAX = MADE_BYTES_MAX + (192 << 20)
"""What was made, and the room that one operation works in."""


def nested(step: str, use: str) -> str:
    return NESTED.replace("STEP", step) + use


def failure(text: str) -> str:
    with pytest.raises(TemplateBroken) as caught:
        render_jinja(text, {"messages": [{"role": "user", "content": "hi"}]}, FixedClock())
    return caught.value.message


# Rounds without an end


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
        "{% macro m() %}{% endmacro %}{% for a in range(99999) %}{{ m() }}{{ m() }}{% endfor %}",
        "{% for a in range(99999) %}{% set x = range(99999)|list %}{% endfor %}",
        LARGE + "{% for c in b %}{% endfor %}",
        LARGE + "{{ b|list|length }}",
        LARGE + "{{ b|join(',')|length }}",
        "{{ range(99999)|map('string')|map('upper')|select('string')|list|length }}",
    ],
)
def test_rounds_are_counted_wherever_they_are(text: str) -> None:
    """On a slow machine the time ends before the steps."""
    assert re.search(rf"more than {STEPS_MAX} steps|longer than", failure(text))


@pytest.mark.parametrize(
    "text", ["{{ range(10**9)|list }}", "{% for i in range(10**9) %}{% endfor %}"]
)
def test_a_range_has_a_greatest_length(text: str) -> None:
    assert "Range too big" in failure(text)


@pytest.mark.parametrize(
    "text",
    [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{% for i in range(9) %}{{ m() }}{% endfor %}{% endmacro %}{{ m() }}",
        "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
    ],
)
def test_recursion_ends(text: str) -> None:
    assert failure(text).endswith("it goes too deep")


@pytest.mark.parametrize(
    "text",
    [
        LARGE + "{% set c = b[1:] + 'a' %}{% for x in range(99999) if b == c %}{% endfor %}",
        "{{ range(99999)|map(attribute='real.' * 9999 ~ 'real')|list|length }}",
    ],
)
def test_slow_steps_run_out_of_time(text: str) -> None:
    assert failure(text).endswith(f"it takes longer than {CPU_S_MAX:g} s")


# Much from little


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ 'a' * 10**9 }}", "repeats something too often"),
        ("{{ [1] * 10**9 }}", "repeats something too often"),
        ("{{ 10**9 * (1, 2) }}", "repeats something too often"),
        (nested("ns.x ~ ns.x", ""), "text that is too long"),
        (nested("ns.x + ns.x", ""), "list that is too long"),
        (("{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}"
         "{% set ns.x = ns.x + ns.x %}{% endfor %}"), "text that is too long"),
        ("{% set a = 'aaaa' %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40, "too long"),
        ("{% macro d(x) %}{{ x }}{{ x }}{% endmacro %}"
         "{{ " + "d(" * 40 + "'aaaa'" + ")" * 40 + " }}", "too long"),
        ("{{ '%1000000000d' % 1 }}", "too long"),
        ("{{ '%*d' % (10**9, 1) }}", "too long"),
        ("{{ '%.1000000000f' % 1.5 }}", "too long"),
        ("{{ ('%9999d' * 9999) % ((1,) * 9999) }}", "too long"),
        ("{{ ('%(a)s' * 60000) % {'a': 'b' * 60000} }}", "too long"),
        ("{{ '%1000000000d'|format(1) }}", "too long"),
        ("{{ '{:1000000000}'.format(1) }}", "too wide"),
        ("{{ '{:{}}'.format(1, 10**9) }}", "too wide"),
        ("{{ '{x:1000000000}'.format_map({'x': 1}) }}", "too wide"),
        ("{{ ('{0}' * 60000).format('a' * 60000) }}", "too long"),
        ("{{ 'a'.ljust(10**9) }}", "too wide"),
        ("{{ 'a'.rjust(10**9) }}", "too wide"),
        ("{{ 'a'.center(10**9) }}", "too wide"),
        ("{{ 'a'.zfill(10**9) }}", "too wide"),
        ("{{ 'a'|center(10**9) }}", "too wide"),
        ("{{ 'a'|center(width=10**9) }}", "too wide"),
        ("{{ ['a']|map('center', 10**9)|list }}", "too wide"),
        ("{{ 'a\nb'|indent(10**9) }}", "too wide"),
        ("{{ ('a\n' * 60000)|indent('b' * 60000) }}", "too long"),
        ("{{ ('\n' * 60000 * 100)|indent(1)|length }}", "too long"),
        ("{{ [1]|batch(10**9, 1)|list }}", "too wide"),
        ("{{ [1]|slice(10**9)|list }}", "too wide"),
        ("{{ ('\t' * 60000).expandtabs(60000) }}", "too long"),
        ("{{ ('a' * 60000).replace('a', 'b' * 60000) }}", "too long"),
        ("{{ ('a' * 60000)|replace('a', 'b' * 60000) }}", "too long"),
        ("{{ ('a' * 60000).join(range(9999)|map('string')) }}", "too long"),
        ("{{ range(9999)|join('a' * 60000) }}", "too long"),
        ("{{ [1]|tojson(indent=10**9) }}", "tojson indents"),
        ("{{ [1]|tojson(indent='a' * 60000) }}", "tojson indents"),
        ("{{ [1]|tojson(separators=('a' * 60000, ':')) }}", "tojson indents"),
        (LARGE + "{{ cycler(*b) }}", f"more than {SPREAD_MAX} arguments"),
        (LARGE + "{{ b|default(*b) }}", f"more than {SPREAD_MAX} arguments"),
        (LARGE + "{{ b.split('a')|length }}", "list that is too long"),
        ("{{ ('a ' * 65536 * 100).split()|length }}", "list that is too long"),
        ("{{ ('a\n' * 65536 * 100).splitlines()|length }}", "list that is too long"),
        (LARGE + "{{ b|title|length }}", "takes a text apart"),
        (LARGE + "{{ b|urlencode|length }}", "takes a text apart"),
        (LARGE + "{{ b.rfind('b' + 'a' * 65536) }}", "searches for a text"),
        (LARGE + "{{ b.strip('b' * 65536 + 'a')|length }}", "searches for a text"),
        (LARGE + "{{ b|trim('b' * 65536 + 'a')|length }}", "searches for a text"),
        ("{{ 2 ** 100000 }}", "number that is too large"),
        (("{% set ns = namespace(x=3) %}{% for i in range(60) %}"
         "{% set ns.x = ns.x * ns.x %}{% endfor %}"), "number that is too large"),
        ("{{ ('f' * 9999)|int(0, 16) }}", "number that is too large"),
        ("{{ 1.5|round(10**9, 'floor') }}", "too many digits"),
        ("{{ 5|round(-10**9) }}", "too many digits"),
        ("{{ [[1], [2]]|sum(start=[]) }}", "adds numbers only"),
        ("{{ lipsum(n=10**6) }}", "undefined"),
    ],
)  # fmt: skip
def test_an_operation_that_makes_much_from_little_does_not_run(text: str, reason: str) -> None:
    started_s = time.thread_time()
    message = failure(text)

    assert reason in message
    assert time.thread_time() - started_s < 2 * CPU_S_MAX


@pytest.mark.parametrize(
    "step",
    [
        "[ns.x, ns.x]",
        "(ns.x, ns.x)",
        "(ns.x,) * 2",
        "{'a': ns.x, 'b': ns.x}",
        "dict(a=ns.x, b=ns.x)",
        "[ns.x, ns.x]|batch(2)|list * 2",
        "dict(a=ns.x, b=ns.x).items()",
        "dict(a=ns.x, b=ns.x).values()",
    ],
)
@pytest.mark.parametrize("use", ["{{ ns.x }}", "{{ ns.x|string|length }}", "{{ ns.x == [ns.x] }}"])
def test_lists_in_lists_are_as_large_as_they_print(step: str, use: str) -> None:
    """Forty of them, each twice in the next one, take a kilobyte and print a terabyte."""
    assert "list that is too long" in failure(nested(step, use))


def test_namespaces_in_namespaces_print_short() -> None:
    text = nested("namespace(a=ns.x, b=ns.x)", "{{ ns.x }}")

    assert render_jinja(text, {}, FixedClock()) == "<Namespace>"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{% for i in range(999) %}{{ 'a' * 60000 }}{% endfor %}", "output is too long"),
        (("{% macro m() %}{% for i in range(9999) %}{{ 'a' * 60000 }}{% endfor %}{% endmacro %}"
         "{{ m() }}"), "MiB of text"),
        ("{{ range(99999)|map('center', 60000)|list|length }}", "MiB of text"),
        (LARGE + "{{ [" + "b[1:]," * 99 + "] }}", "MiB of text"),
        (LARGE + "{% set ns = namespace(l=[]) %}{% for i in range(99) %}"
         "{% set ns.l = ns.l + [namespace(x=b ~ i)] %}{% endfor %}", "MiB of text"),
    ],
)  # fmt: skip
def test_memory_is_bounded_over_the_whole_rendering(text: str, reason: str) -> None:
    tracemalloc.start()
    try:
        message = failure(text)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reason in message
    assert peak_bytes < PEAK_BYTES_MAX


def test_long_conversations_render() -> None:
    """Two thousand messages, collected in a list one by one and printed with a macro."""
    messages = [{"role": "user", "content": f"message {n} " * 20} for n in range(2000)]
    text = (
        "{% macro turn(m) %}<|{{ m.role }}|>{{ m['content']|trim ~ '\n' }}{% endmacro %}"
        "{% set ns = namespace(kept=[]) %}"
        "{% for m in messages %}{% set ns.kept = ns.kept + [m] %}{% endfor %}"
        "{% for m in ns.kept %}{{ turn(m) }}{% endfor %}"
    )

    prompt = render_jinja(text, {"messages": messages}, FixedClock())

    assert len(re.findall(r"<\|user\|>message \d+", prompt)) == 2000


# The budget itself


def test_the_last_step_is_free_and_the_next_is_not() -> None:
    budget = Budget()
    for _ in range(STEPS_MAX):
        budget.tick()
    with pytest.raises(TemplateBroken, match=f"more than {STEPS_MAX} steps"):
        budget.tick()


def test_time_is_the_processor_s() -> None:
    now = 100.0
    budget = Budget(lambda: now)
    now += CPU_S_MAX
    budget.tick()
    now += 0.001
    with pytest.raises(TemplateBroken, match="longer than 1 s"):
        budget.tick()


def test_a_text_and_a_number_may_be_exactly_as_large_as_the_limit() -> None:
    budget = Budget()
    assert len(budget.made("a" * TEXT_CHARS_MAX)) == TEXT_CHARS_MAX
    assert budget.made(2**INT_BITS_MAX - 1).bit_length() == INT_BITS_MAX
    with pytest.raises(TemplateBroken):
        budget.made("a" * (TEXT_CHARS_MAX + 1))
    with pytest.raises(TemplateBroken):
        budget.made(2**INT_BITS_MAX)


def test_a_list_is_weighed_once() -> None:
    budget = Budget()
    inner = ["a"] * 1000
    weight = budget.weigh(inner)

    assert budget.weigh([inner, inner]) > 2 * weight
    assert budget.weigh(inner) == weight


def test_adding_lists_weighs_as_much_as_the_sum() -> None:
    left: list[object] = ["a", ["b"]]
    right: list[object] = ["c" * 100]
    total = left + right

    assert Budget().weigh(total) == (budget := Budget()).weigh(budget.chained(total, left, right))
