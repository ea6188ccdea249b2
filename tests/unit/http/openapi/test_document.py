"""The document says what the rows and the types say."""

from __future__ import annotations

from typing import Any

import jsonschema
import msgspec
import pytest

from ollamad.http.openapi.document import document
from ollamad.http.openapi.rows import EVENTS, Api, Reply, Row
from ollamad.http.openapi.table import APIS


class Question(msgspec.Struct, kw_only=True):
    """What is asked."""

    text: str
    how: Any = None


class Answer(msgspec.Struct):
    """What is answered."""

    text: str


class Wrong(msgspec.Struct):
    """What went wrong."""

    error: str


def an_api(name: str, *rows: Row, **fields: Any) -> Api:
    return Api(name=name, words="For tests.", error=Wrong, rows=rows, **fields)


ASK = Row(
    method="POST",
    path="/ask/{whom}",
    name="ask",
    summary="Ask somebody.",
    request=Question,
    replies=(Reply((Answer,), words="It."), Reply((Answer, Wrong), EVENTS)),
    errors=(404, 503),
)
WHOM = {"whom": "Whoever is asked."}


def test_an_operation_has_its_body_its_answers_and_its_failures() -> None:
    made = document([an_api("test", ASK, parameters=WHOM)])

    operation = made["paths"]["/ask/{whom}"]["post"]
    (parameter,) = operation["parameters"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert parameter["name"] == "whom"
    assert body == {"$ref": "#/components/schemas/test.Question"}
    assert operation["responses"]["200"] == {
        "description": "It.",
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/test.Answer"}},
            "text/event-stream": {
                "schema": {  # Of one event.
                    "type": "object",
                    "properties": {
                        "event": {"type": "string"},
                        "data": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": {
                                "anyOf": [
                                    {"$ref": "#/components/schemas/test.Answer"},
                                    {"$ref": "#/components/schemas/test.Wrong"},
                                ]
                            },
                        },
                    },
                    "required": ["data"],
                }
            },
        },
    }
    assert operation["responses"]["503"] == {"$ref": "#/components/responses/test.503"}
    assert "Retry-After" in made["components"]["responses"]["test.503"]["headers"]


def test_a_stream_may_end_with_a_word_that_is_no_json() -> None:
    row = Row(
        method="GET",
        path="/",
        name="hear",
        summary="Hear.",
        replies=(Reply((Answer,), EVENTS, ends_with="[OVER]"),),
    )

    made = document([an_api("test", row)])

    content = made["paths"]["/"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    _, last = content["schema"]["properties"]["data"]["anyOf"]
    assert last == {"const": "[OVER]"}


def test_types_of_two_apis_may_have_the_same_name() -> None:
    other = Row(method="GET", path="/", name="look", summary="Look.", replies=(Reply((Answer,)),))

    made = document([an_api("one", ASK, parameters=WHOM), an_api("two", other)])

    assert {"one.Answer", "two.Answer"} <= set(made["components"]["schemas"])


def test_what_a_type_cannot_say_of_a_field_is_said_beside_it() -> None:
    how = {"type": "string", "enum": ["kindly"]}

    made = document([an_api("test", ASK, parameters=WHOM, fields={(Question, "how"): how})])

    shown = made["components"]["schemas"]["test.Question"]["properties"]["how"]
    assert shown == {**how, "default": None}


def test_an_answer_without_a_body_has_no_content() -> None:
    row = Row(
        method="HEAD", path="/", name="touch", summary="Touch.", replies=(Reply(content_type=""),)
    )

    operation = document([an_api("test", row)])["paths"]["/"]["head"]

    assert operation["responses"] == {"200": {"description": "OK."}}


def test_every_row_has_a_name_of_its_own_and_a_sentence() -> None:
    rows = [row for api in APIS for row in api.rows]

    assert len({(api.name, row.name) for api in APIS for row in api.rows}) == len(rows)
    assert len({(row.method, row.path) for row in rows}) == len(rows)
    for row in rows:
        assert row.summary.endswith("."), row.name


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
def test_every_schema_is_one(api: Api) -> None:
    schemas = document([api])["components"]["schemas"]

    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_whoever_changes_a_document_changes_no_other() -> None:
    made = document(APIS)
    made["components"]["schemas"]["ollama.Options"]["properties"].clear()
    made["components"]["schemas"]["ollama.ChatRequest"]["properties"]["think"].clear()

    schemas = document(APIS)["components"]["schemas"]
    assert schemas["ollama.Options"]["properties"]
    assert schemas["ollama.ChatRequest"]["properties"]["think"]


def test_names_of_types_tell_no_modules() -> None:
    """Two types of one API with the same name would have those of their modules in front."""
    names = document(APIS)["components"]["schemas"]

    assert [name for name in names if name.count(".") != 1 or "_" in name] == []


def test_references_lead_somewhere() -> None:
    made = document(APIS)

    def check(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(reference := value.get("$ref"), str):
                target = made
                for step in reference.removeprefix("#/").split("/"):
                    target = target[step]
            for inner in value.values():
                check(inner)
        elif isinstance(value, list):
            for inner in value:
                check(inner)

    check(made)
