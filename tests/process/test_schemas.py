"""Two hundred answers by twenty schemas, judged by a validator that knows nothing of grammars.

Temperature 1, a small model, eight at a time: whatever a schema allows comes up. An answer that
was cut at its length is no JSON; it is counted apart, and another one is asked for.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from ollamad.http.answer.structured import schema_grammar
from ollamad.options import SamplingOptions
from ollamad.runners.protocol import FinishReason, LoadPlan
from ollamad.runners.worker.bindings import start_backends
from ollamad.runners.worker.llamaengine import LlamaEngine
from tests.process.answers import Answers, Engines

pytestmark = [pytest.mark.process, pytest.mark.model]

N_ANSWERS: Final = 10
"""Complete answers by each schema."""
N_PREDICT: Final = 250
CUT_MAX: Final = 10
"""Answers that may be cut at their length."""


def _object(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the schema of an object that has all of *properties* and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


def _text(n_chars: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": n_chars}


SCHEMAS: Final[Mapping[str, dict[str, Any]]] = {
    "flat": _object(
        {
            "name": _text(20),
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "is_student": {"type": "boolean"},
        }
    ),
    "nested": _object(
        {
            "person": _object(
                {"name": _text(12), "home": _object({"street": _text(15), "city": _text(10)})}
            ),
            "since": {"type": "integer", "minimum": 1900, "maximum": 2100},
        }
    ),
    "enums": _object(
        {
            "colour": {"enum": ["red", "green", "blue", "light blue"]},
            "level": {"enum": [1, 2.5, None, True, "high", {"a": [1, 2]}, [3]]},
        }
    ),
    "bounded array": {
        "type": "array",
        "items": {"type": "integer", "minimum": -5, "maximum": 5},
        "minItems": 2,
        "maxItems": 6,
    },
    "array of objects": {
        "type": "array",
        "items": _object({"id": {"type": "integer", "minimum": 1, "maximum": 99}, "tag": _text(8)}),
        "minItems": 1,
        "maxItems": 3,
    },
    "definitions": {
        "$defs": {
            "Point": _object(
                {
                    "x": {"type": "number", "minimum": -1, "maximum": 1},
                    "y": {"type": "number", "minimum": -1, "maximum": 1},
                }
            )
        },
        **_object({"from": {"$ref": "#/$defs/Point"}, "to": {"$ref": "#/$defs/Point"}}),
    },
    "any of": _object(
        {
            "value": {
                "anyOf": [
                    _text(10),
                    {"type": "integer", "minimum": 0, "maximum": 9},
                    {"type": "null"},
                ]
            }
        }
    ),
    "patterns": _object(
        {
            "phone": {"type": "string", "pattern": r"^\+[0-9]{2} [0-9]{3}-[0-9]{4}$"},
            "code": {"type": "string", "pattern": "^(A|B)[0-9]+[a-f]?$", "maxLength": 8},
            "word": {"type": "string", "pattern": "oo", "maxLength": 10},
        }
    ),
    "numbers": _object(
        {
            "open": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "third": {"type": "integer", "multipleOf": 3, "minimum": -30, "maximum": 30},
            "halves": {"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 10},
            "big": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
        }
    ),
    "constants": _object(
        {"version": {"const": 2}, "kind": {"const": "report"}, "rest": {"const": {"a": [None]}}}
    ),
    "optional": {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 0, "maximum": 9},
            "b": _text(5),
            "c": {"type": "boolean"},
            "d": {"type": "null"},
        },
        "required": ["b"],
        "additionalProperties": False,
    },
    "map": {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z]{1,6}$"},
        "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 99},
        "minProperties": 1,
        "maxProperties": 4,
    },
    "days": _object(
        {
            "born": {"type": "string", "format": "date"},
            "seen": {"type": "string", "format": "date-time"},
            "at": {"type": "string", "format": "time"},
            "for": {"type": "string", "format": "duration", "maxLength": 16},
        }
    ),
    "formats": _object(
        {
            "mail": {"type": "string", "format": "email", "maxLength": 24},
            "id": {"type": "string", "format": "uuid"},
            "v4": {"type": "string", "format": "ipv4"},
            "v6": {"type": "string", "format": "ipv6"},
            "host": {"type": "string", "format": "hostname", "maxLength": 20},
            "link": {"type": "string", "format": "uri", "maxLength": 30},
        }
    ),
    "recursion": {
        "$ref": "#/$defs/Node",
        "examples": [{"v": 1, "next": {"v": 2, "next": None}}, {"v": 4, "next": None}],
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {
                    "v": {"type": "integer", "minimum": 0, "maximum": 9},
                    "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Node"}]},
                },
                "required": ["v", "next"],
                "additionalProperties": False,
            }
        },
    },
    "tuple": {
        "type": "array",
        "prefixItems": [_text(8), {"type": "integer", "minimum": 0, "maximum": 99}],
        "items": {"type": "boolean"},
        "minItems": 2,
        "maxItems": 4,
    },
    "one of": {
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
        "discriminator": {"propertyName": "kind"},
        "$defs": {
            "Cat": _object({"kind": {"const": "cat"}, "lives": {"enum": [7, 9]}}),
            "Dog": _object({"kind": {"const": "dog"}, "name": _text(8)}),
        },
    },
    "all of": {
        "allOf": [
            {
                "type": "object",
                "properties": {"a": {"type": "integer", "minimum": 1}},
                "required": ["a"],
            },
            {
                "type": "object",
                "properties": {"a": {"type": "integer", "maximum": 50}, "b": _text(6)},
                "required": ["b"],
            },
        ],
        "properties": {"a": True, "b": True},
        "additionalProperties": False,
    },
    "types": _object(
        {
            "either": {"type": ["integer", "boolean"], "minimum": 0, "maximum": 9},
            "maybe": {"type": ["string", "null"], "maxLength": 6},
        }
    ),
    "pydantic": {
        "title": "Trip",
        "description": "As the library of that name writes it.",
        "type": "object",
        "$defs": {"Mode": {"enum": ["car", "train"], "title": "Mode", "type": "string"}},
        "properties": {
            "mode": {"$ref": "#/$defs/Mode", "description": "How"},
            "seats": {
                "default": 1,
                "exclusiveMinimum": 0,
                "maximum": 8,
                "title": "Seats",
                "type": "integer",
            },
            "note": {
                "anyOf": [{"maxLength": 20, "type": "string"}, {"type": "null"}],
                "default": None,
                "title": "Note",
            },
            "path": {"format": "path", "maxLength": 12, "title": "Path", "type": "string"},
        },
        "required": ["mode"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def engine(model_file: Path) -> Iterator[LlamaEngine]:
    start_backends()
    engines = Engines()
    plan = LoadPlan(model_path=str(model_file), n_ctx=640, n_slots=8, n_batch=256, n_threads=1)
    yield engines.load(plan)
    engines.close()


def test_two_hundred_answers_keep_to_twenty_schemas(
    engine: LlamaEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(SCHEMAS) == 20
    answers = Answers(engine)
    missing = dict.fromkeys(SCHEMAS, N_ANSWERS)
    seeds = dict.fromkeys(SCHEMAS, 0)
    wrong: list[tuple[str, str, str]] = []
    n_cut, numbers = 0, itertools.count()

    while any(missing.values()) and n_cut <= CUT_MAX:
        asked: dict[int, str] = {}
        for name in [name for name, n_missing in missing.items() for _ in range(n_missing)]:
            asked[number := next(numbers)] = name
            _ask(answers, number, name, seeds[name])
            seeds[name] += 1
        answers.run()
        assert answers.failed == {}
        for number, name in asked.items():
            if answers.finished[number].reason is FinishReason.LENGTH:
                n_cut += 1
                continue
            missing[name] -= 1
            if error := _error(SCHEMAS[name], answers.text[number]):
                wrong.append((name, answers.text[number], error))

    n_complete = len(SCHEMAS) * N_ANSWERS - sum(missing.values())
    n_tokens, n_forced = sum(map(len, answers.tokens.values())), engine.gauges.forced_tokens
    with capsys.disabled():
        print(
            f"\n{n_complete} complete answers, {len(wrong)} invalid; {n_cut} cut at {N_PREDICT} "
            f"tokens; {n_tokens} tokens, {n_forced} of them forced"
        )
    assert wrong == []
    assert n_complete == 200


def _ask(answers: Answers, number: int, name: str, seed: int) -> None:
    schema = SCHEMAS[name]
    examples = "".join(f"{json.dumps(example)}\n" for example in schema.get("examples", ()))
    sampling = SamplingOptions(
        temperature=1.0, top_k=0, top_p=1.0, seed=seed, num_predict=N_PREDICT
    )
    prompt = f"Examples of {name} in JSON:\n{examples}"
    answers.submit(number, prompt, sampling, grammar=schema_grammar(schema))


def _error(schema: Mapping[str, Any], text: str) -> str:
    """Return what is wrong with an answer; empty if nothing is."""
    kind = jsonschema.Draft202012Validator
    try:
        kind(schema, format_checker=kind.FORMAT_CHECKER).validate(json.loads(text))
    except (ValueError, jsonschema.ValidationError) as exc:
        return str(exc).partition("\n")[0]
    return ""
