"""Steps an engine by hand and keeps what it says."""

from __future__ import annotations

from typing import Any

from ollamad.options import SamplingOptions
from ollamad.runners.protocol import Failed, Finished, Generate, LoadPlan, StepLogprob
from ollamad.runners.worker.engine import StepResult
from ollamad.runners.worker.llamaengine import LlamaEngine

GREEDY = SamplingOptions(temperature=0, num_predict=12)


def quiet(_fraction: float) -> None:
    """Nobody watches the load."""


class Engines:
    """Loads engines, and frees all of them at the end: each holds its weights and its cache."""

    def __init__(self) -> None:
        self._loaded: list[LlamaEngine] = []

    def load(self, plan: LoadPlan) -> LlamaEngine:
        """Return an engine for *plan*."""
        engine = LlamaEngine.loaded(plan, quiet)
        self._loaded.append(engine)
        return engine

    def close(self) -> None:
        """Free all."""
        while self._loaded:
            self._loaded.pop().close()


class Answers:
    """What the requests to one engine came to."""

    def __init__(self, engine: LlamaEngine) -> None:
        self.engine = engine
        self.tokens: dict[int, list[int]] = {}
        self.text: dict[int, str] = {}
        self.logprobs: dict[int, list[StepLogprob]] = {}
        self.finished: dict[int, Finished] = {}
        self.failed: dict[int, Failed] = {}

    def submit(
        self, request_id: int, prompt: str, sampling: SamplingOptions = GREEDY, **more: Any
    ) -> None:
        """Ask for an answer."""
        self.tokens[request_id] = list(more.get("answered", ()))
        self.text[request_id], self.logprobs[request_id] = "", []
        self.engine.submit(Generate(id=request_id, prompt=prompt, sampling=sampling, **more))

    def step(self) -> None:
        """Let the engine compute one batch."""
        self.take(self.engine.step())

    def take(self, result: StepResult) -> None:
        """Keep what came of a step, and check that nothing is lost or said twice."""
        for delta in result.deltas:
            assert delta.offset == len(self.tokens[delta.id]), "a token was lost or doubled"
            self.tokens[delta.id].extend(delta.tokens)
            self.text[delta.id] += delta.text
            self.logprobs[delta.id].extend(delta.logprobs)
        for finished in result.finished:
            assert finished.id not in self.finished, "a request ended twice"
            self.finished[finished.id] = finished
            self.text[finished.id] += finished.rest
        for failed in result.failed:
            assert failed.id not in self.failed, "a request failed twice"
            self.failed[failed.id] = failed

    def run(self) -> None:
        """Step until nothing is left to compute."""
        while self.engine.has_work:
            self.step()


def alone(
    engine: LlamaEngine, prompt: str, sampling: SamplingOptions = GREEDY, **more: Any
) -> list[int]:
    """Return the tokens of one answer, with nobody else there."""
    answers = Answers(engine)
    answers.submit(1, prompt, sampling, **more)
    answers.run()
    assert not answers.failed
    return answers.tokens[1]
