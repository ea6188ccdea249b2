"""What all probes of a template may cost is bounded."""

from __future__ import annotations

import time

import pytest

from ollamad.errors import TemplateBroken
from ollamad.http.answer import probes
from ollamad.http.answer.format import SHOWN_TOKENS_MAX, AnswerFormat, format_of
from ollamad.http.answer.probes import FIRST, PROBES_MAX, TURN_CHARS_MAX, Prober
from tests.unit.http.answer.reading import ADD

CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"


def test_a_prober_has_so_many_probes() -> None:
    prober = Prober(CHAT)

    n_rendered = sum(prober.opening() is not None for _ in range(2 * PROBES_MAX))

    assert n_rendered == PROBES_MAX


def test_a_prober_has_so_much_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PROBES_CPU_S_MAX", -1.0)

    assert Prober(CHAT).answer(calls=[FIRST]) is None


def test_a_turn_of_any_length_is_none() -> None:
    assert Prober(CHAT + "x" * (TURN_CHARS_MAX - 20)).opening() is not None
    assert Prober(CHAT + "x" * (TURN_CHARS_MAX + 20)).opening() is None


def test_a_template_that_wastes_time_costs_little_more_than_one_that_does_not() -> None:
    wasteful = CHAT + "{% for n in range(90000) %}{% set x = n * n %}{% endfor %}"

    began = time.thread_time()
    format_of(wasteful)

    assert time.thread_time() - began < 2 * probes.PROBES_CPU_S_MAX + 0.5


def test_a_template_that_does_not_parse_has_no_prober() -> None:
    with pytest.raises(TemplateBroken):
        Prober("{% if %}")


def test_few_marks_are_looked_for_among_tokens() -> None:
    form = AnswerFormat(dropped=tuple(f"<{n}>" for n in range(2 * SHOWN_TOKENS_MAX)))

    assert len(form.shown_tokens([ADD])) == SHOWN_TOKENS_MAX
