"""Grammars that somebody made to hurt: they end in time and memory, and only their own request."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from ollamad.http.answer.schemacheck import SCHEMA_NODES_MAX, SCHEMA_PROPERTIES_MAX
from ollamad.http.answer.structured import (
    CHOICES_MAX,
    GRAMMAR_CHARS_MAX,
    REGEX_CHARS_MAX,
    choice_grammar,
    gbnf_grammar,
    lark_grammar,
    regex_grammar,
    schema_grammar,
)
from ollamad.options import SamplingOptions
from ollamad.runners.protocol import FailureCode, Grammar, LoadPlan
from ollamad.runners.worker.bindings import start_backends
from ollamad.runners.worker.llamaengine import LlamaEngine
from ollamad.runners.worker.serve import SWITCH_INTERVAL_S
from ollamad.units import MIB
from tests.process.answers import Answers, Engines

pytestmark = [pytest.mark.process, pytest.mark.model]

HOSTILE_S: Final = 5.0
"""How long the engine may have to do with the worst of them, on a machine that is busy."""
HOSTILE_BYTES: Final = 300 * MIB
SLOWED: Final = 3.0
"""How much longer the steps of another answer may take beside one, p95 by p95."""
STALL_S: Final = 0.25
"""How long a single step of another answer may take beside one."""


def _chain(n_links: int) -> dict[str, Any]:
    parts = {
        f"d{n}": {"anyOf": [{"items": {"$ref": f"#/$defs/d{n + 1}"}}, {"type": "null"}]}
        for n in range(n_links)
    }
    return {"$ref": "#/$defs/d0", "$defs": parts | {f"d{n_links}": {"type": "null"}}}


def _rules(n_rules: int, define: str, last: str) -> str:
    rules = [f"a{n}{define}a{n + 1}" for n in range(n_rules)]
    return "\n".join([*rules, f"a{n_rules}{define}{last}"])


_N_RULES: Final = GRAMMAR_CHARS_MAX // 16
HOSTILE: Final[Mapping[str, Grammar]] = {
    "repeated a million times": regex_grammar("a{1,1000000}"),
    "repeated within repeated": regex_grammar("(((([a-z]{1,100} ){1,100},){1,100};){1,100}x)"),
    "catastrophic in others": regex_grammar("(a+)+(b+)+(a|a)*(a|aa)+$"),
    "exponential in states": regex_grammar("[ab]*a[ab]{25}"),
    "quadratic": regex_grammar("a?" * (REGEX_CHARS_MAX // 3) + "a" * (REGEX_CHARS_MAX // 3)),
    "letters of all scripts": regex_grammar(r"(\p{L}{1,100}\p{N}{1,100}){1,100}"),
    "brackets": regex_grammar("(" * 4000 + "a" + ")" * 4000),
    "left recursion without an end": lark_grammar('start: start "a"'),
    "a loop": lark_grammar("start: start"),
    "ambiguous": lark_grammar('start: e\ne: e e e | e e | "a" | '),
    "nothing, often": lark_grammar('start: a*\na: b*\nb: ""*'),
    "a chain of rules": lark_grammar("start: a0\n" + _rules(_N_RULES, ": ", '"a"')),
    "quadratic in a rule": lark_grammar(
        "start: T\nT: /" + "a?" * (GRAMMAR_CHARS_MAX // 3) + "a" * 5000 + "/"
    ),
    "a schema in a grammar": lark_grammar("start: %json " + json.dumps(_chain(200))),
    "brackets in a grammar": lark_grammar("start: " + "(" * 5000 + '"a"' + ")" * 5000),
    "no grammar": gbnf_grammar("root ::= ((((\x00"),
    "a chain in GBNF": gbnf_grammar("root ::= a0\n" + _rules(_N_RULES, " ::= ", '"a"')),
    "brackets in GBNF": gbnf_grammar("root ::= " + "(" * 5000 + '"a"' + ")" * 5000),
    "a loop in GBNF": gbnf_grammar("root ::= a\na ::= b\nb ::= a"),
    "many choices": choice_grammar([f"{number} x" for number in range(CHOICES_MAX)]),
    "a chain of references": schema_grammar(_chain(SCHEMA_NODES_MAX // 5)),
    "many optional properties": schema_grammar(
        {
            "type": "object",
            "properties": {f"p{n}": {"type": "string"} for n in range(SCHEMA_PROPERTIES_MAX)},
            "additionalProperties": False,
        }
    ),
    "a product of alternatives": schema_grammar(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"p{i}{j}": {"type": "string"}}} for j in range(4)]}
                for i in range(10)
            ]
        }
    ),
    "many constants": schema_grammar({"enum": [f"x{n}" for n in range(40_000)]}),
    "a huge array": schema_grammar(
        {"type": "array", "minItems": 10**9, "items": {"type": "string", "minLength": 10**9}}
    ),
}
LONG: Final = SamplingOptions(temperature=1.0, seed=1, num_predict=1500, ignore_eos=True)
SHORT: Final = SamplingOptions(temperature=1.0, seed=1, num_predict=12)


@pytest.fixture(scope="module")
def engine(model_file: Path) -> Iterator[LlamaEngine]:
    start_backends()
    engines = Engines()
    plan = LoadPlan(model_path=str(model_file), n_ctx=2048, n_slots=2, n_batch=128, n_threads=1)
    loaded = engines.load(plan)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    yield loaded
    sys.setswitchinterval(interval)
    engines.close()


def _p95(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.95)]


def test_hostile_grammars_end_in_time_and_slow_nobody_else(
    engine: LlamaEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = Answers(engine)
    answers.submit(0, "Once", SHORT, grammar=lark_grammar('start: "a"'))
    answers.run()  # The vocabulary is made at the first one; that takes long, and once.
    answers.submit(1, "Once upon a time", LONG)
    alone = [_step(answers) for _ in range(60)][10:]
    process = psutil.Process()
    report = []

    for number, (name, grammar) in enumerate(HOSTILE.items(), start=2):
        before, began, steps = process.memory_info().rss, time.monotonic(), list[float]()
        answers.submit(number, "Write.\n", SHORT, grammar=grammar)
        while not {number} & (answers.failed.keys() | answers.finished.keys()):
            steps.append(_step(answers))
        took, grown = time.monotonic() - began, process.memory_info().rss - before
        failed = answers.failed.get(number)
        report.append(
            f"{name}: {took:.2f} s, {grown / MIB:.0f} MiB, steps p95 {_p95(steps) * 1e3:.0f} ms, "
            f"longest {max(steps) * 1e3:.0f} ms; {failed.detail[:90] if failed else 'answered'}"
        )
        assert took < HOSTILE_S, report[-1]
        assert grown < HOSTILE_BYTES, report[-1]
        assert failed is None or failed.code is FailureCode.BAD_REQUEST, report[-1]
        assert max(steps) < STALL_S + SLOWED * _p95(alone), report[-1]
        if 1 in answers.finished:
            pytest.fail("the other answer ended too early to be a witness")

    with capsys.disabled():
        print(f"\nalone: p95 {_p95(alone) * 1e3:.0f} ms\n" + "\n".join(report))
    answers.take(engine.cancel(1))


def _step(answers: Answers) -> float:
    began = time.perf_counter()
    answers.step()
    return time.perf_counter() - began
