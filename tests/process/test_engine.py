"""The llama.cpp engine with a real model, in this process: no socket, no daemon, one thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from ollamad.options import SamplingOptions
from ollamad.runners.protocol import FailureCode, FinishReason, Generate, LoadPlan
from ollamad.runners.worker.bindings import start_backends
from ollamad.runners.worker.engine import EngineRefused
from ollamad.runners.worker.llamaengine import LlamaEngine
from tests.process.answers import Answers, alone, quiet
from tests.process.precise import write_precise

pytestmark = [pytest.mark.process, pytest.mark.model]


@pytest.fixture(scope="module")
def precise_path(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose answers do not depend on the batch."""
    start_backends()
    path = tmp_path_factory.mktemp("precise") / "precise.gguf"
    write_precise(model_file, path, n_layers=2)
    return path


@pytest.fixture(scope="module")
def new_engine(precise_path: Path) -> Callable[..., LlamaEngine]:
    def load(*, n_ctx: int = 256, n_slots: int = 4, n_batch: int = 32) -> LlamaEngine:
        plan = LoadPlan(
            model_path=str(precise_path),
            n_ctx=n_ctx,
            n_slots=n_slots,
            n_batch=n_batch,
            n_threads=2,
            kv_type="f32",
            flash_attention="off",
        )
        return LlamaEngine.loaded(plan, quiet)

    return load


@pytest.fixture(scope="module")
def engine(new_engine: Callable[..., LlamaEngine]) -> LlamaEngine:
    return new_engine()


def test_greedy_chooses_the_same_with_a_penalty_that_is_none(engine: LlamaEngine) -> None:
    penalised_by_nothing = SamplingOptions(
        temperature=0, num_predict=12, presence_penalty=1e-9, repeat_last_n=1
    )

    assert alone(engine, "Once upon a time") == alone(
        engine, "Once upon a time", penalised_by_nothing
    )


@pytest.mark.parametrize(("n_slots", "n_batch"), [(1, 2), (2, 2), (2, 8)])
def test_a_batch_may_be_smaller_than_the_sequences_that_texts_are_kept_in(
    new_engine: Callable[..., LlamaEngine], engine: LlamaEngine, n_slots: int, n_batch: int
) -> None:
    """llama.cpp ends the process when a batch has fewer tokens than the context has sequences."""
    small = new_engine(n_slots=n_slots, n_batch=n_batch)
    greedy = SamplingOptions(temperature=0, num_predict=12)

    for prompt in ("Once upon a time", "Once upon a hill", "Once upon a time"):
        assert alone(small, prompt, greedy) == alone(engine, prompt, greedy)


def test_penalties_change_an_answer(engine: LlamaEngine) -> None:
    penalised = SamplingOptions(
        temperature=0, num_predict=12, repeat_penalty=1.5, presence_penalty=1.0, repeat_last_n=-1
    )

    free, varied = alone(engine, "Once upon a time"), alone(engine, "Once upon a time", penalised)

    assert len(set(varied)) > len(set(free))


@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(temperature=1.0, top_k=5, top_p=0.5, min_p=0.1, typical_p=0.9),
        SamplingOptions(temperature=1.0, top_k=0, top_p=1.0),
        SamplingOptions(temperature=1.0, frequency_penalty=2.0, repeat_last_n=0),
        SamplingOptions(temperature=-1.0, frequency_penalty=-2.0),
    ],
)
def test_every_sampler_can_be_used(engine: LlamaEngine, options: SamplingOptions) -> None:
    limited = msgspec.structs.replace(options, seed=1, num_predict=4)

    assert alone(engine, "Once upon a time", limited)


def test_a_penalty_that_makes_no_sense_is_refused(engine: LlamaEngine) -> None:
    with pytest.raises(EngineRefused, match="greater than 0"):
        engine.submit(Generate(id=1, prompt="x", sampling=SamplingOptions(repeat_penalty=0.0)))


def test_a_seed_fixes_an_answer(engine: LlamaEngine) -> None:
    def roll(seed: int) -> list[int]:
        return alone(engine, "Once", SamplingOptions(temperature=2.0, seed=seed, num_predict=12))

    assert roll(5) == roll(5)
    assert roll(5) != roll(6)


def test_a_prompt_that_begins_like_an_earlier_one_is_not_computed_twice(
    new_engine: Callable[..., LlamaEngine],
) -> None:
    engine = new_engine()
    answers = Answers(engine)
    prompt = "The quick brown fox jumps over the lazy dog. " * 4
    answers.submit(1, prompt + "One")
    answers.run()
    answers.submit(2, prompt + "Two")
    answers.run()

    first, second = answers.finished[1].timings, answers.finished[2].timings
    assert first.cached_tokens == 0
    assert second.cached_tokens >= second.prompt_tokens - 3
    assert answers.tokens[2] == alone(new_engine(), prompt + "Two")


def test_an_answer_ends_at_its_limit_and_at_the_contexts(
    new_engine: Callable[..., LlamaEngine],
) -> None:
    engine = new_engine(n_ctx=32, n_slots=1)
    answers = Answers(engine)
    answers.submit(1, "Once upon a time", SamplingOptions(temperature=0, num_predict=3))
    answers.run()
    answers.submit(2, "Once upon a time", SamplingOptions(temperature=0))
    answers.run()

    assert len(answers.tokens[1]) == 3
    assert answers.finished[2].reason in {FinishReason.LENGTH, FinishReason.STOP}
    prompt_tokens = answers.finished[2].timings.prompt_tokens
    assert prompt_tokens + len(answers.tokens[2]) <= 32


@pytest.mark.parametrize(
    ("prompt", "code"),
    [("", FailureCode.BAD_REQUEST), ("word " * 300, FailureCode.CONTEXT_TOO_LONG)],
)
def test_what_cannot_be_computed_is_refused_at_once(
    engine: LlamaEngine, prompt: str, code: FailureCode
) -> None:
    with pytest.raises(EngineRefused) as caught:
        engine.submit(Generate(id=1, prompt=prompt))

    assert caught.value.code is code
    assert not engine.has_work


def test_token_ids_of_another_model_are_refused(engine: LlamaEngine) -> None:
    with pytest.raises(EngineRefused, match="does not have"):
        engine.submit(Generate(id=1, prompt="x", context=(1, 10**6)))


def test_a_prefill_that_is_interrupted_leaves_the_others_whole_and_alarms_nobody(
    new_engine: Callable[..., LlamaEngine], capfd: pytest.CaptureFixture[str]
) -> None:
    engine = new_engine(n_ctx=1024, n_batch=256)
    answers = Answers(engine)
    answers.submit(1, "Once upon a time")
    answers.step()
    answers.submit(2, "word " * 600)
    abort_flag = engine._model._abort
    clear = abort_flag.clear

    def clear_and_interrupt() -> None:
        clear()
        engine.interrupt(2)

    abort_flag.clear = clear_and_interrupt  # type: ignore[method-assign]
    capfd.readouterr()
    answers.step()  # Interrupted as soon as it has begun.
    abort_flag.clear = clear  # type: ignore[method-assign]
    assert capfd.readouterr().err == ""
    answers.take(engine.cancel(2))
    answers.run()

    assert answers.finished[2].reason is FinishReason.CANCELLED
    assert answers.tokens[1] == alone(new_engine(), "Once upon a time")


def test_a_model_with_broken_weights_is_found_when_it_is_loaded(
    model_file: Path, tmp_path: Path
) -> None:
    start_backends()
    path = tmp_path / "poisoned.gguf"
    write_precise(model_file, path, n_layers=1, poisoned=True)

    with pytest.raises(EngineRefused, match="cannot compute a first token"):
        LlamaEngine.loaded(
            LoadPlan(model_path=str(path), n_ctx=64, n_slots=1, n_batch=32, n_threads=1), quiet
        )


def test_a_request_that_meets_damaged_weights_ends_alone_and_the_others_go_on(
    model_file: Path, tmp_path: Path
) -> None:
    """Its cells hold NaN, also after it: neither those beside it nor the next may read them.

    That is what flash attention gives. Without it, llama.cpp multiplies them by 0, which is NaN.
    """
    start_backends()
    sound, damaged = tmp_path / "sound.gguf", tmp_path / "damaged.gguf"
    write_precise(model_file, sound, n_layers=2)
    plan = LoadPlan(
        model_path=str(sound),
        n_ctx=128,
        n_slots=3,
        n_batch=64,
        n_threads=2,
        kv_type="f32",
        flash_attention="on",
    )
    expected = Answers(LlamaEngine.loaded(plan, quiet))
    (bad,) = expected.engine.tokenize(" lighthouse"[:4], add_special=False)[:1]
    write_precise(model_file, damaged, n_layers=2, poisoned_token=bad)
    plan = msgspec.structs.replace(plan, model_path=str(damaged))
    answers = Answers(LlamaEngine.loaded(plan, quiet))
    for one in (expected, answers):
        one.submit(1, "The sea is")
        one.submit(2, "One two three four")
    poison = answers.engine._model.piece(bad).decode()

    answers.submit(3, f"The{poison} of the house")
    answers.run()
    expected.run()
    for one in (expected, answers):
        one.submit(4, "A day in the rain")
        one.run()

    assert answers.failed[3].code is FailureCode.ENGINE
    assert "computed no number" in answers.failed[3].detail
    for request in (1, 2, 4):
        assert answers.tokens[request] == expected.tokens[request]
