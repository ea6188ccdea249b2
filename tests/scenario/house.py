"""A supervisor on fakes, in virtual time: the house in which stories happen."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import trio

from ollamad.config import RunnerConfig, SchedulingConfig
from ollamad.errors import OllamadError
from ollamad.gpu.devices import HOST
from ollamad.modelinfo import ModelDetails, StoredModel, WeightsId
from ollamad.modelpolicy import ModelPolicy
from ollamad.names import ModelName
from ollamad.options import LoadOptions, SamplingOptions
from ollamad.runners.protocol import Finished
from ollamad.runners.spare import SpareLauncher
from ollamad.supervisor.core import Core
from ollamad.supervisor.leases import Lease
from ollamad.supervisor.loop import Loop
from ollamad.supervisor.runnertask import ReadAheadOf, no_read_ahead
from ollamad.supervisor.service import Supervisor, no_policy
from ollamad.units import GIB, MIB
from tests.fakes.launcher import FakeLauncher, Script
from tests.values import a_core, some_facts


def a_model(name: str, *, weights_bytes: int = GIB) -> StoredModel:
    """Return a stored model of this name."""
    return StoredModel(
        name=ModelName.parse(name),
        digest="0" * 64,
        size_bytes=weights_bytes,
        modified_at=datetime(2026, 1, 1, tzinfo=UTC),
        details=ModelDetails(
            parent_model="",
            format="gguf",
            family="llama",
            families=("llama",),
            parameter_size="1B",
            quantization_level="Q4_0",
        ),
        weights_id=WeightsId(name),
        weights_path=Path("/models") / name,
        facts=some_facts(weights_bytes=weights_bytes),
        capabilities=("completion",),
    )


LLAMA = a_model("llama:8b")
QWEN = a_model("qwen:8b")
GEMMA = a_model("gemma:27b", weights_bytes=3 * GIB)

SPARE_BYTES = 25 * MIB

_NO_OPTIONS = LoadOptions()


@dataclasses.dataclass
class House:
    """A running supervisor and what it stands on."""

    core: Core
    loop: Loop
    supervisor: Supervisor
    launcher: FakeLauncher

    def assert_nothing_is_left(self) -> None:
        """Nothing runs, nothing is reserved, nobody waits."""
        assert self.launcher.alive == []
        assert self.core.residents == {}
        assert self.core.budget.reserved_bytes(HOST) == 0
        assert self.core.line.n_waiting == 0
        assert self.loop.runners == ()


@contextlib.asynccontextmanager
async def a_house(
    *scripts: Script,
    memory_bytes: int = 8 * GIB,
    scheduling: SchedulingConfig | None = None,
    runner: RunnerConfig | None = None,
    has_spare: bool = False,
    read_ahead: ReadAheadOf = no_read_ahead,
    by_label: Mapping[str, tuple[Script, ...]] | None = None,
    policies: Callable[[str], ModelPolicy] = no_policy,
) -> AsyncIterator[House]:
    """Run a supervisor; stop it at the end and check that nothing is left."""
    runner = runner or RunnerConfig()
    async with trio.open_nursery() as processes:
        launcher = FakeLauncher(processes, *scripts, by_label=by_label)
        core = a_core(memory_bytes=memory_bytes, scheduling=scheduling, runner=runner)
        spare = SpareLauncher(launcher, runner, own_bytes=lambda _pid: SPARE_BYTES)
        loop = Loop(core, spare if has_spare else launcher, runner, read_ahead)
        house = House(core, loop, Supervisor(loop, policies), launcher)
        async with trio.open_nursery() as nursery:
            await nursery.start(loop.run)
            if has_spare:
                nursery.start_soon(spare.run)
            yield house
            await house.supervisor.drain()
            nursery.cancel_scope.cancel()
        house.assert_nothing_is_left()
        processes.cancel_scope.cancel()


async def answer(lease: Lease, prompt: str = "one two three") -> str:
    """Return the whole answer to *prompt*. Raises what it ends with."""
    mailbox = lease.generate(prompt, SamplingOptions())
    text = ""
    while not isinstance(event := await mailbox.take(), Finished):
        text += event.text
    return text


@contextlib.asynccontextmanager
async def leased(house: House, model: StoredModel = LLAMA) -> AsyncIterator[Lease]:
    """Hold a lease for the block."""
    lease = await house.supervisor.lease(model, _NO_OPTIONS)
    try:
        yield lease
    finally:
        lease.release()


async def error_of_lease(house: House, model: StoredModel) -> OllamadError:
    """Return what a lease is refused with."""
    try:
        lease = await house.supervisor.lease(model, _NO_OPTIONS)
    except OllamadError as exc:
        return exc
    lease.release()
    raise AssertionError("the lease was granted")
