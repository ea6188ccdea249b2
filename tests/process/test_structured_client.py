"""Structured output with the official `ollama` client, a real daemon and a real model."""

from __future__ import annotations

import re
from typing import Any, Literal

import ollama
import pydantic
import pytest

from tests.process.conftest import MODEL

pytestmark = [pytest.mark.process, pytest.mark.model]

ASKED = [{"role": "user", "content": "Describe a pet."}]
WARM = {"temperature": 1, "seed": 4, "num_predict": 200}


class Pet(pydantic.BaseModel):
    """As an application declares it."""

    name: str = pydantic.Field(max_length=12)
    kind: Literal["cat", "dog", "fish"]
    age: int = pydantic.Field(ge=0, le=30)
    owner: str | None = pydantic.Field(default=None, max_length=12)


def test_an_answer_is_read_by_the_class_that_asked_for_it(client: ollama.Client) -> None:
    answer = client.chat(MODEL, ASKED, format=Pet.model_json_schema(), options=WARM)

    pet = Pet.model_validate_json(answer.message.content or "")
    assert answer.done_reason == "stop"
    assert 0 <= pet.age <= 30


def test_a_stream_is_an_answer_of_that_form_as_well(client: ollama.Client) -> None:
    parts = client.chat(MODEL, ASKED, format=Pet.model_json_schema(), options=WARM, stream=True)

    pet = Pet.model_validate_json("".join(part.message.content or "" for part in parts))
    assert 0 <= pet.age <= 30


def test_a_format_may_be_a_regular_expression(client: ollama.Client) -> None:
    asked: Any = {"regex": "[0-9]{4}-[0-9]{2}"}  # The client's type knows schemas only.

    answer = client.generate(MODEL, "When was it?", format=asked, options=WARM)

    assert re.fullmatch("[0-9]{4}-[0-9]{2}", answer.response or "")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"type": "array", "uniqueItems": True}, '"uniqueItems" at the root'),
        ({"type": "string", "pattern": "[a-"}, "unclosed character class"),
        ({"gbnf": "root ::= ("}, "the gbnf cannot be kept to"),
    ],
)
def test_what_cannot_be_kept_to_is_an_error_before_the_first_byte(
    client: ollama.Client, asked: Any, words: str
) -> None:
    with pytest.raises(ollama.ResponseError, match=words) as caught:
        list(client.chat(MODEL, ASKED, format=asked, options=WARM, stream=True))

    assert caught.value.status_code == 400
