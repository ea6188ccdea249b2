"""The program a runner executes: take the descriptor, choose the engine, shut itself in, serve."""

from __future__ import annotations

import argparse
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import trio

from ollamad.runners.worker.confine import Confinement, Orders
from ollamad.runners.worker.engine import EngineLoader
from ollamad.runners.worker.serve import serve

EngineMaker = Callable[[], tuple[EngineLoader, Callable[[], str]]]
"""Imports an engine; returns what loads a model, and what starts the libraries and names them."""


def main(engine: EngineMaker | None = None) -> None:
    """Run a worker on the inherited socket that `--fd` names, with *engine* or the one it names."""
    parser = argparse.ArgumentParser(prog="ollamad-runner")
    parser.add_argument("--fd", type=int, required=True, help="the inherited control socket")
    parser.add_argument("--daemon", help="whose runner this is: for a later life of the daemon")
    parser.add_argument("--engine", choices=tuple(ENGINES), default="llama")
    parser.add_argument("--isolation", choices=("auto", "off"), default="off")
    parser.add_argument("--readable", type=Path, action="append", default=[], help="for models")
    parser.add_argument("--core-dumps", action="store_true")
    parser.add_argument("--cgroup", type=Path, help="the group to join")
    arguments = parser.parse_args()
    # The daemon decides when a runner ends; a Ctrl-C in its terminal is for the daemon.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    confinement = Confinement(
        Orders(
            is_on=arguments.isolation == "auto",
            core_dumps=arguments.core_dumps,
            readable=tuple(arguments.readable),
            cgroup=arguments.cgroup,
        )
    )
    load, start = (engine or ENGINES[arguments.engine])()
    confinement.begin()
    trio.run(_serve, arguments.fd, load, start(), confinement)


def _llama() -> tuple[EngineLoader, Callable[[], str]]:
    # Imported here, because it loads llama.cpp's libraries.
    from ollamad.runners.worker.bindings import start_backends  # noqa: PLC0415
    from ollamad.runners.worker.engines import load_engine  # noqa: PLC0415

    return load_engine, start_backends


def _echo() -> tuple[EngineLoader, Callable[[], str]]:
    from ollamad.runners.worker.echo import EchoEngine  # noqa: PLC0415

    return EchoEngine, lambda: "echo"


ENGINES: dict[str, EngineMaker] = {"llama": _llama, "echo": _echo}


async def _serve(descriptor: int, load: EngineLoader, build: str, confinement: Confinement) -> None:
    end = socket.socket(fileno=descriptor)
    end.setblocking(False)
    await serve(end, load, build, confinement)


if __name__ == "__main__":
    main()
