"""What another engine makes of an answer that was begun elsewhere: cut at every place.

The first run is recorded as the daemon sees it. For each place a second engine is given the tokens
that had come, and its answer must be the rest of the first run's: no text lost, none twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ollamad.options import SamplingOptions
from ollamad.runners.protocol import (
    Delta,
    Finished,
    FinishReason,
    Generate,
    Grammar,
    GrammarKind,
    LoadPlan,
)
from ollamad.runners.worker.bindings import start_backends
from ollamad.runners.worker.llamaengine import LlamaEngine
from tests.process.answers import Engines
from tests.process.precise import write_precise

pytestmark = [pytest.mark.process, pytest.mark.model]

PROMPT = "Once upon a time"
N_CTX = 96


@pytest.fixture(scope="module")
def engine(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    """A small model whose answers do not depend on the batch."""
    start_backends()
    path = tmp_path_factory.mktemp("precise") / "precise.gguf"
    write_precise(model_file, path, n_layers=2)
    engines = Engines()
    yield engines.load(
        LoadPlan(
            model_path=str(path),
            n_ctx=N_CTX,
            n_slots=2,
            n_batch=64,
            n_threads=2,
            kv_type="f32",
            flash_attention="off",
        )
    )
    engines.close()


class Run:
    """What came of one request to an engine, delta by delta."""

    def __init__(self, engine: LlamaEngine, request: Generate) -> None:
        self.deltas: list[Delta] = []
        self.finished: Finished | None = None
        engine.submit(request)
        while engine.has_work:
            result = engine.step()
            assert not result.failed, result.failed
            self.deltas.extend(result.deltas)
            for finished in result.finished:
                self.finished = finished

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for delta in self.deltas for token in delta.tokens)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def end(self) -> Finished:
        assert self.finished is not None
        return self.finished


def a_request(sampling: SamplingOptions, **more: Any) -> Generate:
    return Generate(id=1, prompt=PROMPT, sampling=sampling, **more)


def assert_every_cut_heals(
    engine: LlamaEngine,
    sampling: SamplingOptions,
    *,
    same_tokens: bool = True,
    every: int = 1,
    **more: Any,
) -> Run:
    """Return the run that was not interrupted. The cuts are counted from its end."""
    whole = Run(engine, a_request(sampling, **more))
    for n_seen in range(len(whole.deltas), -1, -every):
        seen = whole.deltas[:n_seen]
        answered = tuple(token for delta in seen for token in delta.tokens)
        # Of another partition nothing in the cache is used: as on another runner.
        rest = Run(
            engine, a_request(sampling, answered=answered, partition=f"after {n_seen}", **more)
        )
        assert all(delta.tokens for delta in rest.deltas)
        if rest.deltas:
            assert rest.deltas[0].offset == len(answered)
        assert rest.end.timings.generated_tokens == len(rest.tokens)
        assert rest.end.reason is whole.end.reason
        n_all = whole.end.timings.generated_tokens
        if same_tokens:
            assert answered + rest.tokens == whole.tokens
            text = "".join(delta.text for delta in seen) + rest.text + rest.end.rest
            assert text == whole.text + whole.end.rest
            assert rest.end.timings.prompt_tokens == whole.end.timings.prompt_tokens
        else:
            assert len(answered) + len(rest.tokens) == n_all
    return whole


SAMPLINGS = {
    "greedy": SamplingOptions(temperature=0, num_predict=24),
    "seeded": SamplingOptions(temperature=1.2, seed=7, top_k=0, top_p=1.0, num_predict=24),
    "penalties": SamplingOptions(
        temperature=0.9, seed=8, repeat_penalty=1.4, presence_penalty=0.6, num_predict=24
    ),
    "dry": SamplingOptions(
        temperature=0.9, seed=9, dry_multiplier=0.8, dry_allowed_length=1, num_predict=24
    ),
    "xtc": SamplingOptions(
        temperature=1.0, seed=10, xtc_probability=0.5, xtc_threshold=0.1, num_predict=24
    ),
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_rest_of_an_answer_is_what_it_would_have_been(engine: LlamaEngine, name: str) -> None:
    whole = assert_every_cut_heals(engine, SAMPLINGS[name])

    assert len(whole.tokens) == 24
    assert whole.end.reason is FinishReason.LENGTH


def test_mirostat_goes_on_with_another_mood_but_loses_nothing(engine: LlamaEngine) -> None:
    sampling = SamplingOptions(temperature=1.0, seed=3, mirostat=2, num_predict=16)

    assert_every_cut_heals(engine, sampling, same_tokens=False)


def test_a_stop_text_across_the_cut_is_found(engine: LlamaEngine) -> None:
    plain = Run(engine, a_request(SAMPLINGS["seeded"]))
    middle = len(plain.text) // 2
    stop = plain.text[middle - 6 : middle + 6]  # Of several tokens.
    sampling = SamplingOptions(
        temperature=1.2, seed=7, top_k=0, top_p=1.0, num_predict=24, stop=(stop,)
    )

    whole = assert_every_cut_heals(engine, sampling)

    assert whole.end.reason is FinishReason.STOP
    assert whole.text + whole.end.rest == plain.text[: plain.text.index(stop)]


def test_what_was_held_back_for_a_stop_text_comes_once_at_the_end(engine: LlamaEngine) -> None:
    plain = Run(engine, a_request(SAMPLINGS["greedy"]))
    stop = plain.text[-5:] + "\ufffe never"
    sampling = SamplingOptions(temperature=0, num_predict=24, stop=(stop,))

    whole = assert_every_cut_heals(engine, sampling)

    assert whole.end.rest == plain.text[-5:]


def test_characters_of_several_tokens_are_not_torn(engine: LlamaEngine) -> None:
    grammar = Grammar(GrammarKind.REGEX, "[🙂🐝漢]{6}")
    sampling = SamplingOptions(temperature=1.5, seed=4, num_predict=60)

    whole = assert_every_cut_heals(engine, sampling, grammar=grammar)

    assert len(whole.text) == 6
    assert len(whole.tokens) > 6


def test_a_grammar_goes_on_where_it_was(engine: LlamaEngine) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 6},
            "colour": {"enum": ["red", "green"]},
        },
        "required": ["name", "colour"],
        "additionalProperties": False,
    }
    grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema))
    sampling = SamplingOptions(temperature=1.2, seed=5, num_predict=70)

    whole = assert_every_cut_heals(engine, sampling, grammar=grammar)

    assert set(json.loads(whole.text)) == {"name", "colour"}
    assert whole.end.timings.forced_tokens


def test_probabilities_are_told_once_for_each_token(engine: LlamaEngine) -> None:
    whole = Run(engine, a_request(SAMPLINGS["greedy"], n_logprobs=2))
    rest = Run(
        engine,
        a_request(SAMPLINGS["greedy"], n_logprobs=2, answered=whole.tokens[:9], partition="x"),
    )

    told = [step for delta in whole.deltas for step in delta.logprobs][9:]
    again = [step for delta in rest.deltas for step in delta.logprobs]
    assert [step.chosen.token for step in again] == [step.chosen.token for step in told]
    for one, other in zip(again, told, strict=True):
        assert one.chosen.logprob == pytest.approx(other.chosen.logprob, abs=1e-3)


def test_an_answer_that_ended_with_its_context_ends_there_again(engine: LlamaEngine) -> None:
    whole = assert_every_cut_heals(engine, SamplingOptions(temperature=0, seed=1), every=9)

    assert whole.end.reason is FinishReason.LENGTH
    assert len(whole.tokens) < N_CTX


def test_an_answer_longer_than_its_context_goes_on(engine: LlamaEngine) -> None:
    """What moved cells hold and what is computed anew are not quite the same numbers."""
    sampling = SamplingOptions(temperature=0, num_predict=2 * N_CTX, num_keep=4)

    whole = Run(engine, a_request(sampling, shift=True))
    assert len(whole.tokens) == 2 * N_CTX
    for n_seen in (N_CTX - 8, N_CTX, N_CTX + 30, 2 * N_CTX - 1, 2 * N_CTX):
        answered = whole.tokens[:n_seen]
        rest = Run(
            engine, a_request(sampling, shift=True, answered=answered, partition=f"x{n_seen}")
        )
        assert len(answered) + len(rest.tokens) == 2 * N_CTX
        assert rest.end.reason is FinishReason.LENGTH
