"""The core under random events: what must hold after every step, whatever happens.

The world and what is asserted of it are in `kernelworld`. Hypothesis takes the steps here, so that
a failure shrinks to the few that matter; `make soak-kernel` takes very many without it.
"""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.machine.kernelworld import ACTIONS, World, walk
from tools import soak_kernel

STEPS = 50
EXAMPLES = 100
"""Steps that Hypothesis takes, and how often: five thousand together."""
WALKS = 100
STEPS_IN_WALK = 200
"""Twenty thousand more, in a few seconds."""

_CHANCE = st.randoms(use_true_random=False)


class CoreMachine(RuleBasedStateMachine):
    """Plays a world around a core. Each rule is one kind of step."""

    @initialize(chance=_CHANCE)
    def begin(self, chance: random.Random) -> None:
        self.world = World(chance)

    @rule(action=st.sampled_from([action for _, action in ACTIONS]), chance=_CHANCE)
    def step(self, action: object, chance: random.Random) -> None:
        action(self.world, chance)  # type: ignore[operator]
        self.world.check_nothing_is_overlooked()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.end()


TestCoreMachine = CoreMachine.TestCase
TestCoreMachine.settings = settings(stateful_step_count=STEPS, max_examples=EXAMPLES, deadline=None)


def test_twenty_thousand_random_steps_break_nothing() -> None:
    for seed in range(WALKS):
        walk(seed, STEPS_IN_WALK)


def test_a_walk_takes_every_kind_of_step() -> None:
    taken = walk(1, 2_000)

    assert taken.keys() == {action.__name__ for _, action in ACTIONS} | {"end"}


def test_the_soak_walks_as_many_steps_as_it_is_told() -> None:
    assert soak_kernel.soak(n_steps=500, first_seed=7).total() >= 500
