from __future__ import annotations

from ollamad.buffersizes import BufferSizes
from ollamad.config import RunnerConfig
from ollamad.options import LoadOptions
from ollamad.runners.protocol import LoadPlan
from ollamad.supervisor.compat import PlanDefaults, plans
from ollamad.supervisor.exactdemand import ExactDemand
from tests.values import a_subject

SIZES = BufferSizes(context_bytes=1000, compute_bytes=2000, output_bytes=10)
DEFAULTS = LoadOptions()


class Engine:
    """Says *sizes* of every plan, and remembers of which."""

    def __init__(self, sizes: BufferSizes | None = SIZES) -> None:
        self.sizes = sizes
        self.asked: list[LoadPlan] = []

    async def measure(self, plan: LoadPlan) -> BufferSizes | None:
        self.asked.append(plan)
        return self.sizes


def some_defaults() -> PlanDefaults:
    return PlanDefaults(RunnerConfig(), n_cores=2)


async def test_what_the_engine_says_is_what_the_next_plans_need() -> None:
    engine, defaults = Engine(), some_defaults()

    assert await ExactDemand(defaults, engine.measure).learn(a_subject(), DEFAULTS)

    assert [plan.n_slots for plan in engine.asked] == [4, 2, 1]
    for _, demand in plans(a_subject(), DEFAULTS, defaults):
        assert (demand.kv_cache_bytes, demand.compute_bytes) == (1000, 2000)


async def test_the_engine_is_asked_once_about_each_plan() -> None:
    engine = Engine()
    exact = ExactDemand(some_defaults(), engine.measure)
    await exact.learn(a_subject(), DEFAULTS)

    assert not await exact.learn(a_subject(), DEFAULTS)
    assert await exact.learn(a_subject(), LoadOptions(n_ctx=512))
    assert len(engine.asked) == 6


async def test_an_engine_that_cannot_say_is_not_asked_about_fewer_slots() -> None:
    engine, defaults = Engine(sizes=None), some_defaults()
    before = list(plans(a_subject(), DEFAULTS, defaults))

    assert not await ExactDemand(defaults, engine.measure).learn(a_subject(), DEFAULTS)

    assert len(engine.asked) == 1
    assert list(plans(a_subject(), DEFAULTS, defaults)) == before
