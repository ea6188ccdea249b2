"""A template or a value from a stranger cannot cost more than its limits."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollamad.errors import TemplateBroken
from ollamad.http.prompt.gotemplate.evaluate import DEPTH_MAX, STEPS_MAX, Budget
from ollamad.http.prompt.gotemplate.lexer import TOKENS_MAX
from ollamad.http.prompt.gotemplate.parser import NESTING_MAX, SOURCE_CHARS_MAX, VARIABLES_MAX
from ollamad.http.prompt.gotemplate.template import parse
from ollamad.http.prompt.gotemplate.text import TEXT_CHARS_MAX
from ollamad.http.prompt.gotemplate.values import VALUE_DEPTH_MAX, JsonMap


def test_a_template_of_a_mebibyte_parses_and_a_longer_one_does_not() -> None:
    assert parse("x" * SOURCE_CHARS_MAX).render({}) == "x" * SOURCE_CHARS_MAX
    with pytest.raises(TemplateBroken, match="characters, at most"):
        parse("x" * (SOURCE_CHARS_MAX + 1))


def test_tokens_are_counted() -> None:
    with pytest.raises(TemplateBroken, match="more than 100000 tokens"):
        parse("{{.}}" * (TOKENS_MAX // 3 + 1))


@pytest.mark.parametrize(("opening", "closing"), [("{{if 1}}", "{{end}}"), ("(", ")")])
def test_nesting_has_a_limit(opening: str, closing: str) -> None:
    def nested(depth: int) -> str:
        inside = opening * depth + "1" + closing * depth
        return f"{{{{{inside}}}}}" if opening == "(" else inside

    assert parse(nested(NESTING_MAX)).render({}) == "1"
    with pytest.raises(TemplateBroken, match="nested deeper"):
        parse(nested(NESTING_MAX + 1))


def test_an_endless_else_if_is_refused() -> None:
    with pytest.raises(TemplateBroken, match="nested deeper"):
        parse("{{if 0}}" + "{{else if 0}}" * 10_000 + "{{end}}")


def test_variables_have_a_limit() -> None:
    with pytest.raises(TemplateBroken, match="variables are visible"):
        parse("{{$x := 1}}" * (VARIABLES_MAX + 1))


def test_a_template_that_calls_itself_ends_at_the_depth() -> None:
    with pytest.raises(TemplateBroken, match=f"nested deeper than {DEPTH_MAX}"):
        parse('{{define "x"}}{{template "x" .}}{{end}}{{template "x" .}}').render({})


def test_a_loop_without_end_runs_out_of_steps() -> None:
    with pytest.raises(TemplateBroken, match=f"more than {STEPS_MAX} steps"):
        parse("{{range 9000000000000000}}{{end}}").render({})


def test_growing_texts_run_out_of_steps_before_memory() -> None:
    template = "{{$x := `aaaaaaaa`}}{{range 1000}}{{$x = print $x $x}}{{end}}"
    with pytest.raises(TemplateBroken, match=r"steps|characters"):
        parse(template).render({})


@pytest.mark.parametrize(
    "template",
    [
        "{{range 1000}}{{$.Text}}{{end}}",
        '{{printf "%s%s%s" .Half .Half .Half}}',
        "{{range 160}}{{printf `%99999d` 1}}{{$.Text}}{{end}}",
        "{{printf .Wide 1}}",
    ],
)
def test_output_has_a_limit(template: str) -> None:
    data = {
        "Text": "x" * 100_000,
        "Half": "x" * (TEXT_CHARS_MAX // 2),
        "Wide": "%[1]99999d" * 1000,
    }
    with pytest.raises(TemplateBroken, match=r"characters|steps"):
        parse(template).render(data)


def test_the_budget_can_be_smaller_and_shared() -> None:
    budget = Budget(steps=100, chars=10)
    assert parse("{{.A}}").render({"A": "12345"}, budget=budget) == "12345"
    with pytest.raises(TemplateBroken, match="more than 10 characters"):
        parse("{{.A}}").render({"A": "123456"}, budget=budget)


@pytest.mark.parametrize("template", ["{{.A}}", "{{json .A}}", '{{printf "%d" .A}}', "{{.J}}"])
def test_a_value_that_is_nested_too_deeply_is_refused_also_at_the_deepest_place(
    template: str,
) -> None:
    """The two limits together stay below Python's own, which would be another exception."""

    def nested(depth: int) -> object:
        value: object = 1
        for _ in range(depth):
            value = [value]
        return value

    nesting = NESTING_MAX - 1
    wrapped = "{{if 1}}" * nesting + template + "{{end}}" * nesting
    for depth, fits in ((VALUE_DEPTH_MAX - 1, True), (5000, False)):
        data = {"A": nested(depth), "J": JsonMap({"a": nested(depth)})}
        if fits:
            assert "1" in parse(wrapped).render(data)
        else:
            with pytest.raises(TemplateBroken, match="nested deeper"):
                parse(wrapped).render(data)


CHARS = 300_000


def outcome(template: str, data: Mapping[str, object]) -> str:
    """Return what the template makes of the data, or the message of its failure."""
    try:
        return parse(template).render(data, budget=Budget(steps=10_000, chars=CHARS))
    except TemplateBroken as exc:
        return str(exc)


PARTS = st.sampled_from(
    [
        "{{", "}}", "{{-", "-}}", " ", "\n", "(", ")", "|", ",", ":=", "=", "$", "$x", ".", ".A",
        ".L", ".M.b", "if ", "else", "end", "range ", "with ", "define ", "template ", "block ",
        "break", "continue", "{{end}}", "{{else}}", "{{if .A}}", "{{range .L}}",
        "{{range $i, $x := ",
        '"x"', "`x`", "'x'", "1", "-1", "0x", "1e9", "nil", "true", "print ", "printf ",
        '"%d %s %*v"',
        "len ", "index ", "slice ", "json ", "eq ", "and ", "or ", "not ", "html ", "js ",
        "urlquery ",
        "/*", "*/", "\\", '"', "é", "text",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.text(max_size=60), st.lists(PARTS, max_size=40).map("".join)))
def test_no_text_raises_anything_but_template_broken(text: str) -> None:
    data = {"A": "a", "L": [1, "b", None, 2.5], "M": {"b": {"c": True}}, "T": [[]]}
    text_or_message = outcome(text, data)
    assert len(text_or_message) <= CHARS


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
FUNCTIONS = [
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "slice", "call",
    "print", "println", "printf", "html", "js", "urlquery", "json", "currentDate",
    "toTypeScriptType",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FUNCTIONS), st.lists(VALUES, max_size=4))
def test_no_function_raises_anything_but_template_broken(name: str, values: list[object]) -> None:
    data = {f"V{index}": value for index, value in enumerate(values)}
    operands = "".join(f" .{field}" for field in data)
    assert len(outcome(f"{{{{ {name}{operands} }}}}", data)) <= CHARS


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="%sdvqxXtcfegGbOUTz0123456789.*[]-+# ", max_size=20),
    st.lists(VALUES, max_size=3),
)
def test_no_format_raises_anything_but_template_broken(form: str, values: list[object]) -> None:
    data = {"F": form, **{f"V{index}": value for index, value in enumerate(values)}}
    operands = "".join(f" .V{index}" for index in range(len(values)))
    assert len(outcome(f"{{{{ printf .F{operands} }}}}", data)) <= CHARS
