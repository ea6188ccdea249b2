"""The matrix of derivation holds: what templates write, and what is read of it, are the same."""

from __future__ import annotations

from typing import Final

import pytest

from ollamad.http.answer.parts import Call
from tests.matrix.derivation import CASES, TABLE, TOOLS, WEATHER, Row, row_of
from tests.templatefolder import FETCH_TIMEOUT_S, templates
from tests.unit.http.answer.grammars import allows
from tools.machine import SetupError

pytestmark = pytest.mark.timeout(FETCH_TIMEOUT_S)

DERIVED_MS_MAX: Final = 250.0
"""Processor time. The worst takes 25 ms, on a machine that is not the slowest."""

NOT_READ: Final = {
    ("NVIDIA-Nemotron-Nano-v2", "all"): "writes a text into a thought that it never closes",
    ("openai-gpt-oss-120b", "all"): "writes a text beside a call as a thought",
}
"""What is not read back as it was given, and why."""

NO_CALLS: Final = frozenset(
    {
        "HuggingFaceTB-SmolLM3-3B",  # It takes tools by names of its own only.
        "google-gemma-2-2b-it",
        "llama-cpp-rwkv-world",
        "microsoft-Phi-3.5-mini-instruct",
    }
)
"""Templates without a form for calls."""

NAMED: Final = frozenset(
    {
        "Kimi-K2-Instruct", "Kimi-K2-Thinking", "LFM2-8B-A1B", "LFM2.5-Instruct",
        "fireworks-ai-llama-3-firefunction-v2", "ibm-granite-granite-3.3-2B-Instruct",
        "meetkai-functionary-medium-v3.2", "muse-glimmer", "openai-gpt-oss-120b",
    }
)  # fmt: skip
"""Templates whose calls no probe can show."""


@pytest.fixture(scope="module")
def matrix() -> list[Row]:
    try:
        found = templates()
    except SetupError as exc:
        pytest.skip(f"the templates cannot be fetched: {exc}")
    return [row_of(name, template) for name, template in found.items()]


def test_what_templates_write_is_read_back(matrix: list[Row]) -> None:
    wrong = {
        (row.template, case): result
        for row in matrix
        for case, result in row.results.items()
        if result not in {"ok", "printed", "-"}
    }

    assert {key: text for key, text in wrong.items() if key not in NOT_READ} == {}
    assert set(NOT_READ) == set(wrong), "the list holds what is mended"


def test_calls_are_derived_but_for_a_few(matrix: list[Row]) -> None:
    assert {row.template for row in matrix if not row.format.calls} == NO_CALLS
    assert {
        row.template for row in matrix if row.format.calls and row.format.origin != "derived"
    } == NAMED


def test_several_calls_are_known_where_the_template_can_write_them(matrix: list[Row]) -> None:
    untried = {row.template for row in matrix if row.format.calls and row.results["several"] == "-"}

    # Llama 3 and gpt-oss refuse a second call, GigaChat leaves it out.
    assert all(name.startswith(("meta-llama", "openai", "GigaChat")) for name in untried)


def test_derivation_is_quick(matrix: list[Row]) -> None:
    assert len(matrix) > 60
    assert all(len(row.results) == len(CASES) for row in matrix)
    assert max(row.derived_ms for row in matrix) < DERIVED_MS_MAX


def test_grammars_allow_what_formats_print_and_no_broken_calls(matrix: list[Row]) -> None:
    """Over a vocabulary of single bytes, whose marks are texts."""
    calls = [Call(id="abcdefgh1", name=name, arguments=given) for name, given in (WEATHER, TABLE)]
    broken = Call(id="abcdefgh1", name="get_weather", arguments={"city": "Rome", "days": "few"})
    wrong: list[str] = []
    for row in matrix:
        form = row.format
        if form.calls is None:
            continue
        for may_answer in (False, True):
            grammar = form.call_grammar(TOOLS, may_answer=may_answer)
            answers = [form.calls.text(calls[:1]), form.calls.text(calls[1:])]
            if form.calls.between is not None:
                answers.append(form.calls.text(calls))
            if not all(allows(grammar, answer) for answer in answers):
                wrong.append(f"{row.template}: a call is refused")
            if allows(grammar, form.calls.text([broken])):
                wrong.append(f"{row.template}: a broken call is allowed")

    assert wrong == []
