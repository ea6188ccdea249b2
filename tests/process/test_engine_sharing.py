"""Sharing, cutting and batching change no answer, whatever a model's memory is like."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ollamad.options import SamplingOptions
from ollamad.runners.protocol import FinishReason, LoadPlan, MemoryKind
from ollamad.runners.worker.bindings import start_backends
from ollamad.runners.worker.llamaengine import LlamaEngine
from tests.process.answers import Answers, Engines, alone
from tests.process.precise import write_precise
from tests.process.tinymodels import write_gemma3, write_mamba

pytestmark = [pytest.mark.process, pytest.mark.model]

N_CTX = 192
NEAR_TIE_NATS = 0.001
FIRST = "The quick brown fox jumps over the lazy dog. " * 4
PROMPTS = (
    "sea",
    "the old sea",
    FIRST + "One two three",
    FIRST + "One two four",
    FIRST + "Ten",
    "The quick brown fox sleeps. " * 5,
    "moon " * 70,
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model file and how it is loaded."""

    path: Path
    kind: MemoryKind
    engines: Engines
    swa_full: bool = False

    def engine(self, *, n_slots: int = 4, prefix_reuse: bool = True) -> LlamaEngine:
        """Load it."""
        plan = LoadPlan(
            model_path=str(self.path),
            n_ctx=N_CTX,
            n_slots=n_slots,
            n_batch=48,
            n_threads=2,
            kv_type="f32",
            flash_attention="off",
            swa_full=self.swa_full,
            prefix_reuse=prefix_reuse,
        )
        engine = self.engines.load(plan)
        assert engine.memory_kind is self.kind
        return engine


@pytest.fixture(scope="module")
def cases(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    start_backends()
    folder = tmp_path_factory.mktemp("tiny")
    write_precise(model_file, folder / "whole.gguf", n_layers=2)
    write_gemma3(model_file, folder / "window.gguf")
    write_mamba(model_file, folder / "state.gguf")
    window = folder / "window.gguf"
    return {
        "whole": Case(folder / "whole.gguf", MemoryKind.WHOLE, Engines()),
        "window": Case(window, MemoryKind.WINDOW, Engines()),
        "roomy-window": Case(window, MemoryKind.WINDOW, Engines(), swa_full=True),
        "state": Case(folder / "state.gguf", MemoryKind.RECURRENT, Engines()),
    }


@pytest.fixture(autouse=True)
def freed(cases: dict[str, Case]) -> Iterator[None]:
    yield
    for case in cases.values():
        case.engines.close()


@pytest.fixture(params=["whole", "window", "roomy-window", "state"])
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


@pytest.fixture(params=["whole", "roomy-window", "state"])
def sharing(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    """A model whose beginnings can be shared among running requests."""
    return cases[request.param]


def how(seed: int) -> SamplingOptions:
    return SamplingOptions(temperature=0, num_predict=2 + seed % 16, seed=seed)


def assert_as_alone(
    tokens: list[int],
    reference: LlamaEngine,
    prompt: str,
    sampling: SamplingOptions,
    n_tokens: int | None,
) -> None:
    """Hold an answer against the one that *reference* gives with nobody else there.

    They may part where two tokens are equally likely but for the last bits of a sum, which depend
    on how many tokens are computed together.
    """
    answers = Answers(reference)
    answers.submit(1, prompt, sampling, n_logprobs=5)
    answers.run()
    solo = answers.tokens[1][:n_tokens]
    if tokens == solo:
        return
    at = next(i for i, pair in enumerate(zip(tokens, solo, strict=False)) if pair[0] != pair[1])
    likely = {one.token: one.logprob for one in answers.logprobs[1][at].top}
    gap = likely[solo[at]] - likely[tokens[at]]
    assert gap < NEAR_TIE_NATS, f"token {at} is another, {gap} nats less likely"


@pytest.mark.parametrize("seed", range(3))
def test_any_interleaving_gives_each_request_its_solo_answer(case: Case, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    engine = case.engine()
    answers = Answers(engine)
    asked: dict[int, tuple[str, SamplingOptions]] = {}
    cancelled: set[int] = set()
    for number in range(14):
        asked[number] = (chance.choice(PROMPTS), how(chance.randrange(100)))
        answers.submit(number, *asked[number])
        for _ in range(chance.choice((0, 1, 3, 20))):
            answers.step()
        if chance.random() < 0.2:
            leaving = chance.choice(list(asked))
            answers.take(engine.cancel(leaving))
            cancelled.add(leaving)
    answers.run()

    assert answers.failed == {}
    assert set(answers.finished) == set(asked)
    reference = case.engine(n_slots=1, prefix_reuse=False)
    for number, (prompt, sampling) in asked.items():
        n_tokens = None
        if answers.finished[number].reason is FinishReason.CANCELLED:
            assert number in cancelled
            n_tokens = len(answers.tokens[number])
        assert_as_alone(answers.tokens[number], reference, prompt, sampling, n_tokens)
    gauges = engine.gauges
    assert (gauges.slots_busy, gauges.waiting) == (0, 0)
    assert gauges.kv_used <= gauges.kv_cells


def test_a_prompt_that_many_share_is_computed_once_also_when_they_arrive_together(
    sharing: Case,
) -> None:
    engine = sharing.engine()
    answers = Answers(engine)
    for number in range(4):
        answers.submit(number, f"{FIRST}{number}", SamplingOptions(temperature=0, num_predict=3))
    answers.run()

    timings = [answers.finished[number].timings for number in range(4)]
    n_shared = len(engine.tokenize(FIRST, add_special=True)) - 1
    assert timings[0].cached_tokens == 0
    assert all(t.cached_tokens >= n_shared for t in timings[1:])
    n_computed = sum(t.prompt_tokens - t.cached_tokens for t in timings)
    assert n_computed < timings[0].prompt_tokens * 1.5


def test_a_conversation_goes_on_where_it_was(case: Case) -> None:
    engine = case.engine()
    answers = Answers(engine)
    answers.submit(1, FIRST, how(9))
    answers.run()
    context = (*engine.tokenize(FIRST, add_special=True), *answers.tokens[1])
    answers.submit(2, " And then", how(5), context=context, add_special=False)
    answers.run()

    timings = answers.finished[2].timings
    # The last token of an answer was never computed, and others only with it.
    assert timings.cached_tokens >= len(context) - 1
    reference = case.engine(n_slots=1, prefix_reuse=False)
    again = Answers(reference)
    again.submit(2, " And then", how(5), context=context, add_special=False)
    again.run()
    assert again.tokens[2] == answers.tokens[2]


def test_what_one_partition_computed_another_does_not_find(case: Case) -> None:
    engine = case.engine()
    answers = Answers(engine)
    for number, partition in enumerate(("alice", "bob", "alice")):
        answers.submit(number, FIRST + "x y z", how(3), partition=partition)
        answers.run()

    cached = [answers.finished[number].timings.cached_tokens for number in range(3)]
    assert cached[:2] == [0, 0]
    if case.kind is not MemoryKind.RECURRENT:  # A state is kept at a prompt's end, not before it.
        assert cached[2] > 0


def test_nothing_is_kept_where_that_is_turned_off(case: Case) -> None:
    engine = case.engine(prefix_reuse=False)
    answers = Answers(engine)
    for number in range(2):
        answers.submit(number, FIRST, how(3))
        answers.run()

    assert answers.finished[1].timings.cached_tokens == 0
    assert engine.gauges.kv_used == 0


def test_idle_texts_give_way_to_requests(case: Case) -> None:
    engine = case.engine(n_slots=2)
    answers = Answers(engine)
    for number in range(40):
        answers.submit(number, f"{number} " + "word " * (20 + number), how(3))
        answers.run()

    assert answers.failed == {}
    assert len(answers.finished) == 40
    assert engine.gauges.kv_used <= engine.gauges.kv_cells


@pytest.mark.parametrize("n_before", [1, 7, 20])
def test_an_answer_goes_on_in_another_runner_as_if_nothing_had_happened(
    case: Case, n_before: int
) -> None:
    sampling = SamplingOptions(temperature=1.5, top_k=20, seed=7, num_predict=30)
    whole = Answers(case.engine())
    whole.submit(1, "Once upon a time", sampling)
    whole.run()

    rest = Answers(case.engine())
    answered = tuple(whole.tokens[1][:n_before])
    rest.submit(1, "Once upon a time", sampling, answered=answered)
    rest.run()

    assert rest.tokens[1] == whole.tokens[1]
    assert whole.text[1].endswith(rest.text[1])


def test_who_else_is_there_does_not_change_what_chance_chooses(
    case: Case, new_prompts: Callable[[], list[str]]
) -> None:
    sampling = SamplingOptions(temperature=1.0, top_k=40, seed=11, num_predict=15)
    engine = case.engine()
    by_itself = alone(engine, "Once upon a time", sampling)

    answers = Answers(case.engine())
    for number, prompt in enumerate(new_prompts()):
        answers.submit(number + 10, prompt, SamplingOptions(temperature=1.0, seed=number))
        answers.step()
    answers.submit(1, "Once upon a time", sampling)
    while 1 not in answers.finished:
        answers.step()

    assert answers.tokens[1] == by_itself


@pytest.fixture
def new_prompts() -> Callable[[], list[str]]:
    return lambda: ["sea " * 10, "moon " * 33, FIRST]


def test_an_answer_that_outgrows_the_context_goes_on_if_it_may(case: Case) -> None:
    sampling = SamplingOptions(temperature=1.0, seed=3, num_predict=2 * N_CTX, ignore_eos=True)
    answers = Answers(case.engine(n_slots=2))
    answers.submit(1, FIRST, sampling, shift=True)
    answers.submit(2, FIRST, sampling, shift=False)
    answers.run()

    assert len(answers.tokens[1]) == 2 * N_CTX
    assert answers.finished[2].reason is FinishReason.LENGTH
    prompt_tokens = answers.finished[2].timings.prompt_tokens
    assert prompt_tokens + len(answers.tokens[2]) == N_CTX
    assert answers.tokens[1][: len(answers.tokens[2])] == answers.tokens[2]
