"""The real daemon with a launcher whose first runner pauses at a point: `POINT [OPTIONS]`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import trio

from ollamad.app import Daemon
from ollamad.configfile import LoadedConfig, load_config
from ollamad.log import configure
from ollamad.runners.isolation import isolation_for
from ollamad.runners.launch import ProcessLauncher, RunnerProcess, RunnerSpec
from tests.endurance.faultyworker import PAUSE_OPTION

PROGRAM: Final = "tests.endurance.faultyworker"


class FirstFaulty:
    """Starts one runner that pauses, and then sound ones."""

    def __init__(self, loaded: LoadedConfig, point: str) -> None:
        isolation = isolation_for(loaded.config.runner, loaded.config.store.models_path)
        self._faulty = ProcessLauncher(
            isolation, program=PROGRAM, worker_arguments=(PAUSE_OPTION, point)
        )
        self._sound = ProcessLauncher(isolation)
        self._has_begun = False

    async def launch(self, spec: RunnerSpec) -> RunnerProcess:
        launcher = self._sound if self._has_begun else self._faulty
        self._has_begun = True
        return await launcher.launch(spec)


def run(point: str, file: Path) -> None:
    def read() -> LoadedConfig:
        return load_config({"http.port": "0"}, os.environ, file)

    loaded = read()
    configure(loaded.config.log, sys.stderr, os.environ)

    async def main() -> None:
        await Daemon(loaded, read, FirstFaulty(loaded, point)).run()

    trio.run(main)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
