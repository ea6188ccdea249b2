"""The official `openai` Python client against the real daemon with real models."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import numpy as np
import ollama
import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.process.conftest import MODEL
from tests.process.daemonprocess import DaemonProcess, a_daemon
from tests.process.minilm import RankHead, write_minilm

pytestmark = [pytest.mark.process, pytest.mark.model]

SKY: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Why is the sky blue?"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
SLOT_FREE_WITHIN_S = 10


@pytest.fixture
def api(daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    """The official client, talking to the daemon."""
    with openai.OpenAI(
        base_url=f"{daemon.url}/v1", api_key="anything", max_retries=0, timeout=120
    ) as talking:
        yield talking


@pytest.fixture(scope="module")
def minilm(daemon: DaemonProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of an embedding model in the daemon."""
    client = ollama.Client(daemon.url)
    path = write_minilm(tmp_path_factory.mktemp("minilm") / "minilm.gguf")
    client.create("me/minilm:f16", files={"minilm.gguf": client.create_blob(path)})
    yield "me/minilm:f16"
    client.delete("me/minilm:f16")
    client._client.close()


def test_models_are_listed_and_retrieved(api: openai.OpenAI, minilm: str) -> None:
    models = {model.id: model for model in api.models.list()}

    assert {MODEL, minilm} <= set(models)
    assert models[MODEL].owned_by == "library"
    assert api.models.retrieve(minilm).owned_by == "me"
    with pytest.raises(openai.NotFoundError) as caught:
        api.models.retrieve("me/nobody:x")
    assert caught.value.code == "model_not_found"


def test_a_chat_is_answered_and_repeats_with_its_seed(api: openai.OpenAI) -> None:
    def ask(seed: int) -> Any:
        return api.chat.completions.create(
            model=MODEL, messages=SKY, max_completion_tokens=20, seed=seed
        )

    ask(5)  # From now on its prompt comes from the cache, and is the same to the last bit.
    first, again, other = ask(5), ask(5), ask(2**63 - 1)

    assert first.choices[0].finish_reason == "length"
    assert first.choices[0].message.role == "assistant"
    assert first.choices[0].message.content == again.choices[0].message.content
    assert first.choices[0].message.content != other.choices[0].message.content
    assert first.usage.completion_tokens == 20
    assert again.usage.prompt_tokens_details.cached_tokens > 0
    assert first.system_fingerprint == "fp_ollama"
    assert first.id != again.id


def test_a_stream_says_the_same_and_what_it_cost(api: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": SKY, "max_tokens": 24, "temperature": 0}
    whole = api.chat.completions.create(**asked)
    chunks = list(
        api.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )

    *told, last = chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in told)
    assert text == whole.choices[0].message.content
    assert told[0].choices[0].delta.role == "assistant"
    assert told[-1].choices[0].finish_reason == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 24
    assert len(told) > 4  # Tokens faster than sixty a second travel together.


def test_several_answers_come_side_by_side(api: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": SKY, "max_tokens": 12, "seed": 3, "n": 2}
    whole = api.chat.completions.create(**asked)
    texts = ["", ""]
    order = []
    for chunk in api.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            order.append(choice.index)

    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.choices[0].message.content != whole.choices[1].message.content
    assert all(texts)
    assert texts[0] != texts[1]
    assert order.index(1) < len(order) - 1 - order[::-1].index(0), "one after the other"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 24


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(api: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": SKY, "max_tokens": 24, "temperature": 0}
    free = api.chat.completions.create(**asked).choices[0].message.content or ""
    word = free.split()[4]

    stopped = api.chat.completions.create(**asked, stop=[word, "\0"]).choices[0]

    assert stopped.finish_reason == "stop"
    assert stopped.message.content == free[: free.index(word)]


def test_log_probabilities_are_those_of_the_tokens(api: openai.OpenAI) -> None:
    (choice,) = api.chat.completions.create(
        model=MODEL,
        messages=SKY,
        max_tokens=8,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
    ).choices

    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert len(choice.logprobs.content) == 8
    for step in choice.logprobs.content:
        assert len(step.top_logprobs) == 3
        assert step.top_logprobs[0].token == step.token
        assert step.logprob == pytest.approx(step.top_logprobs[0].logprob)
    text = b"".join(bytes(step.bytes or ()) for step in choice.logprobs.content).decode()
    assert text == choice.message.content


def test_a_bias_keeps_a_token_away(api: openai.OpenAI, client: ollama.Client) -> None:
    def answer(**more: Any) -> str:
        (choice,) = api.completions.create(
            model=MODEL, prompt="The sky is", max_tokens=1, temperature=0, **more
        ).choices
        return str(choice.text)

    context = client.generate(
        MODEL, "The sky is", raw=False, options={"temperature": 0, "num_predict": 1}
    ).context
    assert context is not None

    assert answer(logit_bias={str(context[-1]): -100}) != answer()


# What an answer must look like


class Place(pydantic.BaseModel):
    """A place, as people write such models."""

    kind: Literal["city", "country"]
    inhabitants: int = pydantic.Field(ge=0, le=99_999_999)
    is_capital: bool


def test_a_pydantic_model_is_parsed(api: openai.OpenAI) -> None:
    answer = api.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Tell me of Paris, as JSON."}],
        response_format=Place,
        max_completion_tokens=100,
    )

    place = answer.choices[0].message.parsed
    assert isinstance(place, Place)
    assert answer.choices[0].finish_reason == "stop"


def test_json_mode_and_other_servers_guides(api: openai.OpenAI) -> None:
    def ask(**more: Any) -> str:
        answer = api.chat.completions.create(
            model=MODEL, messages=SKY, max_tokens=60, temperature=0, **more
        )
        return answer.choices[0].message.content or ""

    assert ask(extra_body={"guided_choice": ["yes", "no"]}) in {"yes", "no"}
    assert ask(extra_body={"guided_regex": "[0-9]{3}"}).isdigit()
    assert ask(extra_body={"grammar": 'root ::= "a" "b"'}) == "ab"
    assert ask(response_format={"type": "json_object"}).startswith("{")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_a_tool_that_must_be_called_is_called_as_it_says(
    api: openai.OpenAI, choice: Any, stream: bool
) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is the weather in Rome?"}],
        "tools": [WEATHER],
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "max_tokens": 120,
    }
    if stream:
        with api.chat.completions.stream(**asked) as events:
            answer: Any = events.get_final_completion()
    else:
        answer = api.chat.completions.create(**asked)

    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city", "unit"}
    assert arguments["unit"] in {"celsius", "fahrenheit"}
    assert call.id.startswith("call_")


# Completions


def test_completions_echo_choose_the_best_and_tell_log_probabilities(api: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": "Once upon", "max_tokens": 6}
    asked["temperature"] = 0
    plain = api.completions.create(**asked)
    echoed = api.completions.create(**asked, echo=True)
    best = api.completions.create(**asked, best_of=3, n=2)
    told = api.completions.create(**asked, logprobs=2).choices[0]
    streamed = "".join(c.choices[0].text for c in api.completions.create(**asked, stream=True))

    assert echoed.choices[0].text == "Once upon" + plain.choices[0].text
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage is not None
    assert best.usage.completion_tokens == 18
    assert streamed == plain.choices[0].text == told.text
    assert told.logprobs is not None
    assert len(told.logprobs.tokens or ()) == 6
    assert "".join(told.logprobs.tokens or ()) == told.text
    assert [len(tops) for tops in told.logprobs.top_logprobs or ()] == [2] * 6


def test_prompts_may_be_tokens(api: openai.OpenAI, client: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 6}
    native = client.generate(MODEL, "The sky is", options=options)
    assert native.context is not None
    prompt = list(native.context[:-6])

    (choice,) = api.completions.create(
        model=MODEL, prompt=prompt, max_tokens=6, temperature=0
    ).choices

    assert choice.text == native.response


# Vectors and rankings


def test_vectors_are_the_native_ones_in_both_encodings(
    api: openai.OpenAI, client: ollama.Client, minilm: str
) -> None:
    texts = ["The sea is blue.", "A parser has a null pointer."]
    native = np.array(client.embed(minilm, texts).embeddings)
    base64 = api.embeddings.create(model=minilm, input=texts)
    numbers = api.embeddings.create(model=minilm, input=texts, encoding_format="float")
    short = api.embeddings.create(model=minilm, input=texts[0], dimensions=64)

    assert np.abs(np.array([one.embedding for one in base64.data]) - native).max() < 1e-6
    assert np.abs(np.array([one.embedding for one in numbers.data]) - native).max() < 1e-6
    assert [one.index for one in base64.data] == [0, 1]
    assert base64.usage.prompt_tokens > 8
    assert len(short.data[0].embedding) == 64


def test_an_empty_text_has_a_vector_and_a_long_one_is_refused(
    api: openai.OpenAI, minilm: str
) -> None:
    assert len(api.embeddings.create(model=minilm, input="").data[0].embedding) == 384
    with pytest.raises(openai.BadRequestError) as caught:
        api.embeddings.create(model=minilm, input="sea " * 2000)
    assert caught.value.code == "context_length_exceeded"
    cut = api.embeddings.create(model=minilm, input="sea " * 2000, extra_body={"truncate": True})
    assert cut.usage.prompt_tokens == 512


def test_a_ranker_says_how_relevant_documents_are(
    daemon: DaemonProcess, client: ollama.Client, tmp_path_factory: pytest.TempPathFactory
) -> None:
    head = RankHead.random(384, seed=7)
    path = write_minilm(tmp_path_factory.mktemp("ranker") / "ranker.gguf", rank_head=head)
    client.create("ranker", files={"ranker.gguf": client.create_blob(path)})
    body = {"model": "ranker", "query": "sea", "documents": ["water", "stone"], "top_n": 2}

    answer = httpx.post(f"{daemon.url}/v1/rerank", json=body).json()

    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    client.delete("ranker")


# Errors, and clients that leave


def test_errors_are_the_clients_errors(api: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        api.chat.completions.create(model="nobody", messages=SKY)
    with pytest.raises(openai.BadRequestError) as long:
        api.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "word " * 9000}]
        )
    with pytest.raises(openai.BadRequestError) as wrong:
        api.chat.completions.create(model=MODEL, messages=SKY, temperature="hot")  # type: ignore[call-overload]
    with pytest.raises(openai.NotFoundError) as absent:
        api.images.generate(prompt="a cat", model=MODEL)

    assert missing.value.code == "model_not_found"
    assert long.value.code == "context_length_exceeded"
    assert "but the context holds 4096" in str(long.value)
    assert (wrong.value.param, wrong.value.type) == ("temperature", "invalid_request_error")
    assert "images are not supported" in str(absent.value)


def busy_slots(client: ollama.Client) -> int:
    """Return how many answers are being computed."""
    models = client._client.get("/api/ps").json()["models"]
    return sum(model["engine"]["slots_busy"] for model in models if model.get("engine"))


@pytest.mark.parametrize("n", [1, 2])
def test_a_stream_that_is_closed_frees_its_slots_at_once(
    api: openai.OpenAI, client: ollama.Client, n: int
) -> None:
    stream = api.chat.completions.create(
        model=MODEL,
        messages=SKY,
        n=n,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    stream.close()

    deadline = time.monotonic() + SLOT_FREE_WITHIN_S
    while busy_slots(client):
        assert time.monotonic() < deadline, "somebody computes for nobody"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with a small context, whose answers do not heal."""
    folder = tmp_path_factory.mktemp("small")
    config = folder / "config.toml"
    config.write_text("[scheduling]\nheal_attempts_max = 0\n")
    environ = {"OLLAMA_NUM_PARALLEL": "1", "OLLAMA_CONTEXT_LENGTH": "256"}
    with a_daemon(folder, environ, "--config", str(config)) as running:
        yield running


def test_an_answer_ends_where_the_context_does(small: DaemonProcess) -> None:
    with openai.OpenAI(base_url=f"{small.url}/v1", api_key="x", max_retries=0) as api:
        answer = api.chat.completions.create(
            model=MODEL, messages=SKY, max_tokens=100_000, extra_body={"ignore_eos": True}
        )

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert 240 <= answer.usage.total_tokens <= 257


def test_a_runner_that_cannot_be_replaced_ends_a_stream_with_an_error(
    small: DaemonProcess,
) -> None:
    with openai.OpenAI(base_url=f"{small.url}/v1", api_key="x", max_retries=0) as api:
        stream = api.chat.completions.create(
            model=MODEL, messages=SKY, stream=True, extra_body={"ignore_eos": True}
        )
        chunks = iter(stream)
        next(chunks)
        (runner,) = small.runners()
        runner.kill()
        with pytest.raises(openai.APIError) as caught:
            for _ in chunks:
                pass

    assert caught.value.type == "api_error"
    assert caught.value.message
