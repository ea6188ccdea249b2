"""`Measurer`: asks the engine what a plan would allocate, in a child that is thrown away.

The child may crash on a damaged file, hang, or say nonsense: then the answer is "unknown", and
arithmetic has to do. It takes about a fifth of a second and 60 MiB, and reads the model's header
and vocabulary, no weights.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Final

import msgspec
import trio

from ollamad.buffersizes import BufferSizes
from ollamad.runners.launch import runner_environment
from ollamad.runners.protocol import LoadPlan

_log = logging.getLogger(__name__)

PATIENCE_S: Final = 10.0
"""How long a dry run may take. A large vocabulary on a busy machine takes a second."""
DRY_RUNS_MAX: Final = 1
"""Dry runs at the same time; more would take cores from those who compute."""
ANSWER_BYTES_MAX: Final = 4096
"""What is read of a dry run's answer, which has about a hundred bytes."""
_COMMAND: Final = (sys.executable, "-P", "-m", "ollamad.runners.worker.dryrun")
_WITHOUT_GPUS: Final = {"CUDA_VISIBLE_DEVICES": "-1"}
"""A dry run must not take a GPU's memory, which a context alone would."""


class Measurer:
    """Does dry runs, one after the other."""

    def __init__(self, *, command: tuple[str, ...] = _COMMAND) -> None:
        self._command = command
        self._limiter = trio.CapacityLimiter(DRY_RUNS_MAX)

    async def measure(self, plan: LoadPlan) -> BufferSizes | None:
        """Return the buffers of *plan* in main memory, `None` if they cannot be known.

        Never longer than `PATIENCE_S`, once it is its turn. However it ends, the child has ended
        before.
        """
        on_host = msgspec.structs.replace(plan, n_gpu_layers=0, tensor_split=())
        async with self._limiter:
            with trio.move_on_after(PATIENCE_S) as patience:
                return await self._dry_run(msgspec.json.encode(on_host))
        if patience.cancelled_caught:
            _log.warning(f"a dry run took longer than {PATIENCE_S:g} s and was ended")
        return None

    async def _dry_run(self, plan: bytes) -> BufferSizes | None:
        try:
            process = await trio.lowlevel.open_process(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**runner_environment(os.environ), **_WITHOUT_GPUS},
            )
        except OSError as exc:
            _log.warning(f"a dry run cannot be started: {exc}")
            return None
        try:
            answer = await _converse(process, plan)
            status = await process.wait()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await trio.aclose_forcefully(_stdout_of(process))
        if status != 0:
            _log.info(f"a dry run ended with status {status}: arithmetic has to do")
            return None
        try:
            return msgspec.json.decode(answer, type=BufferSizes)
        except msgspec.DecodeError as exc:
            _log.warning(f"a dry run answered nonsense: {exc}")
            return None


async def _converse(process: trio.Process, plan: bytes) -> bytes:
    """Give the child its plan and return the beginning of its answer."""
    assert process.stdin is not None  # noqa: S101 - asked for by the caller
    answer = b""
    async with process.stdin as to_child:
        try:
            await to_child.send_all(plan)
        except trio.BrokenResourceError:
            return answer  # It ended before it had read all; its status says more.
    stdout = _stdout_of(process)
    while len(answer) < ANSWER_BYTES_MAX:
        piece = await stdout.receive_some(ANSWER_BYTES_MAX - len(answer))
        if not piece:
            break
        answer += piece
    return answer


def _stdout_of(process: trio.Process) -> trio.abc.ReceiveStream:
    assert process.stdout is not None  # noqa: S101 - asked for above
    return process.stdout
