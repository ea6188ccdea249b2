"""Walk the kernel through very many random steps: `python -m tools.soak_kernel [--steps N]`.

Each walk has a world of its own and a seed; one that breaks something says which, and that seed
walks the same way again. What is asserted after each step is in `tests.machine.kernelworld`.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from typing import Final

from tests.machine.kernelworld import walk

STEPS: Final = 1_000_000
STEPS_IN_WALK: Final = 500
STEPS_BETWEEN_LINES: Final = 100_000


def soak(n_steps: int, first_seed: int) -> collections.Counter[str]:
    """Take at least *n_steps* steps and return how often each kind was taken.

    Raises AssertionError when something does not hold.
    """
    taken: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    seed, n_told = first_seed, 0
    while (n_taken := taken.total()) < n_steps:
        if n_taken - n_told >= STEPS_BETWEEN_LINES:
            n_told = n_taken
            print(f"{n_taken} steps, {time.monotonic() - began:.0f} s", flush=True)
        taken += walk(seed, STEPS_IN_WALK)
        seed += 1
    print(f"{taken.total()} steps in {seed - first_seed} walks, {time.monotonic() - began:.0f} s")
    return taken


def main(arguments: list[str] | None = None) -> int:
    """Walk, and print what was done; return 0 if everything held."""
    parser = argparse.ArgumentParser(prog="soak_kernel", description="Walk the kernel at random.")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps to take at least")
    parser.add_argument("--seed", type=int, default=1, help="the first walk's seed")
    options = parser.parse_args(arguments)
    for name, count in soak(options.steps, options.seed).most_common():
        print(f"  {name:<24}{count:>9}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
