"""The program of a dry run: what the engine would allocate for a plan, without allocating it.

Reads a `LoadPlan` as JSON from standard input and writes `BufferSizes` as JSON. It runs in a child
of its own that ends with it, because llama.cpp answers some damaged files with an abort. Its memory
and its time are limited by itself, and by whoever starts it; and it shuts itself in like a runner,
so that a hostile file reaches nothing but itself.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final

import msgspec

from ollamad.buffersizes import BufferSizes
from ollamad.runners.protocol import LoadPlan
from ollamad.runners.worker import bindings
from ollamad.runners.worker.confine import Confinement, Orders
from ollamad.runners.worker.embeddingmodel import EmbeddingModel
from ollamad.runners.worker.engine import EngineRefused
from ollamad.runners.worker.llama import open_as_engine

PLAN_BYTES_MAX: Final = 1 << 20
DATA_BYTES_MAX: Final = 2 << 30
"""Memory of its own. A dry run takes about 60 MiB, and running states, which are not simulated."""
CPU_S_MAX: Final = 20
"""Processor time. A dry run takes a tenth of a second; reading a large vocabulary, a second."""


def main() -> int:
    """Do one dry run and return the exit status."""
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES_MAX, DATA_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        plan = msgspec.json.decode(sys.stdin.buffer.read(PLAN_BYTES_MAX), type=LoadPlan)
        files = tuple(map(Path, (plan.model_path, *plan.adapter_paths)))
        Confinement(Orders(is_on=True, readable=files)).begin()
        bindings.start_backends()
        sizes = simulate(plan)
    except (EngineRefused, msgspec.DecodeError) as exc:
        sys.stderr.write(f"E {exc}\n")
        return 1
    if sizes is None:
        sys.stderr.write("E llama.cpp said no sizes\n")
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(sizes))
    sys.stdout.buffer.flush()
    return 0


def simulate(plan: LoadPlan) -> BufferSizes | None:
    """Return the buffers of *plan*, opened as the engine would. Raises EngineRefused."""
    if plan.embedding:
        EmbeddingModel(plan, _ignore_progress, is_dry=True)
    else:
        open_as_engine(plan, _ignore_progress, is_dry=True)
    return bindings.buffer_log.sizes()


def _ignore_progress(_fraction: float) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
