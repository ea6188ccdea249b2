"""Predicted against measured: real models in real runners, each within a twentieth.

Three predictions are held against what the runner says it holds: the arithmetic alone, with a dry
run's sizes, and with what the load itself taught.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ollamad.config import RunnerConfig
from ollamad.convert.gguffacts import facts
from ollamad.convert.ggufheader import read_header
from ollamad.modelinfo import WeightsId
from ollamad.options import LoadOptions
from ollamad.runners.client import LifeMessage, RunnerClient
from ollamad.runners.launch import ProcessLauncher, RunnerSpec
from ollamad.runners.logs import RunnerLog
from ollamad.runners.measuring import Measurer
from ollamad.runners.protocol import Hello, Loaded, LoadFailed, LoadPlan, MemoryUse
from ollamad.runners.stopping import Patience, stop
from ollamad.supervisor.compat import PlanDefaults, learn, options_key, plans
from ollamad.supervisor.events import Subject
from ollamad.units import format_bytes
from tests.process.minilm import write_minilm
from tests.process.tinymodels import write_gemma3, write_mamba

pytestmark = [pytest.mark.process, pytest.mark.model]

TOLERANCE = 0.05
GEMMA_VARIABLE = "OLLAMAD_TEST_GEMMA3"
"""Names a file of Gemma 3 270M, which no package carries."""

Find = Callable[[Path, Path], Path]
"""From a folder to write in and the embedded model to the model to test."""


def embedded(_folder: Path, source: Path) -> Path:
    return source


def gemma3(_folder: Path, _source: Path) -> Path:
    path = os.environ.get(GEMMA_VARIABLE)
    if not path:
        pytest.skip(f"{GEMMA_VARIABLE} does not name a GGUF file of Gemma 3 270M")
    return Path(path)


def minilm(folder: Path, _source: Path) -> Path:
    return write_minilm(folder / "minilm.gguf")


def tiny_gemma3(folder: Path, source: Path) -> Path:
    write_gemma3(source, folder / "gemma.gguf")
    return folder / "gemma.gguf"


def tiny_mamba(folder: Path, source: Path) -> Path:
    write_mamba(source, folder / "mamba.gguf")
    return folder / "mamba.gguf"


@dataclasses.dataclass
class Case:
    """A model with options."""

    find: Find
    options: LoadOptions = dataclasses.field(default_factory=LoadOptions)

    def __str__(self) -> str:
        stated = [
            f"{name}={value}"
            for name in self.options.__struct_fields__
            if (value := getattr(self.options, name)) is not None
        ]
        return "-".join([self.find.__name__, *stated])


CASES = [
    Case(embedded),
    Case(embedded, LoadOptions(n_ctx=512, n_batch=64)),
    Case(embedded, LoadOptions(n_ctx=8192, kv_type="q8_0")),
    Case(embedded, LoadOptions(use_mmap=False)),
    Case(embedded, LoadOptions(flash_attention="off")),
    Case(embedded, LoadOptions(embedding=True)),
    Case(gemma3),
    Case(gemma3, LoadOptions(n_ctx=32768)),
    Case(gemma3, LoadOptions(n_ctx=4096, swa_full=False)),
    Case(gemma3, LoadOptions(use_mmap=False)),
    Case(minilm),
    Case(tiny_gemma3, LoadOptions(n_ctx=2048, swa_full=False)),
    Case(tiny_mamba),
]


def a_subject(path: Path) -> Subject:
    return Subject(
        weights_id=WeightsId("one"),
        name="one",
        model_path=str(path),
        facts=facts(read_header(path)),
    )


async def memory_of(plan: LoadPlan) -> MemoryUse:
    """Load *plan* in a runner and return what it says it holds."""
    process = await ProcessLauncher().launch(RunnerSpec(label="measured"))
    settled = trio.Event()
    said: list[Loaded | LoadFailed] = []

    def life(message: LifeMessage) -> None:
        if isinstance(message, Hello):
            client.load(plan)
        if isinstance(message, Loaded | LoadFailed):
            said.append(message)
            settled.set()

    client = RunnerClient(process.stream, life)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        nursery.start_soon(RunnerLog("measured", lines_kept=50).read, process.output)
        with trio.fail_after(60):
            await settled.wait()
        await stop(process, client.shut_down, Patience(ask_s=10, terminate_s=10))
    (message,) = said
    assert isinstance(message, Loaded), message
    return message.memory


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_what_a_model_needs_is_known_within_a_twentieth(
    case: Case, tmp_path: Path, model_file: Path
) -> None:
    subject = a_subject(case.find(tmp_path, model_file))
    defaults = PlanDefaults(RunnerConfig(), n_cores=2)
    plan, by_arithmetic = next(plans(subject, case.options, defaults))

    memory = await memory_of(plan)
    sizes = await Measurer().measure(plan)
    assert sizes == memory.buffers, "a dry run says what the load says"
    assert sizes is not None
    learn(defaults.learned, plan, by_arithmetic, memory)
    assert defaults.learned.buffers(options_key(plan)) == sizes
    _, by_experience = next(plans(subject, case.options, defaults))

    predicted = {
        "arithmetic": by_arithmetic.total_bytes,
        "a dry run": by_arithmetic.corrected(sizes).total_bytes,
        "experience": by_experience.total_bytes,
    }
    measured = memory.held_bytes
    missed = {how: n_bytes / measured - 1 for how, n_bytes in predicted.items()}
    print(
        f"\n{case}: {format_bytes(measured)} measured; "
        + ", ".join(f"{how} {by:+.1%}" for how, by in missed.items())
    )
    assert {how: by for how, by in missed.items() if abs(by) > TOLERANCE} == {}
