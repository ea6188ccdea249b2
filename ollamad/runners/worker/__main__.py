"""The program a runner executes: take the descriptor, choose the engine, serve."""

from __future__ import annotations

import argparse
import signal
import socket

import trio

from ollamad.runners.worker.engine import EngineLoader
from ollamad.runners.worker.serve import serve


def main() -> None:
    """Run a worker on the inherited socket that `--fd` names."""
    parser = argparse.ArgumentParser(prog="ollamad-runner")
    parser.add_argument("--fd", type=int, required=True, help="the inherited control socket")
    parser.add_argument("--engine", choices=("llama", "echo"), default="llama")
    arguments = parser.parse_args()
    # The daemon decides when a runner ends; a Ctrl-C in its terminal is for the daemon.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    load, build = _engine(arguments.engine)
    trio.run(_serve, arguments.fd, load, build)


def _engine(name: str) -> tuple[EngineLoader, str]:
    if name == "echo":
        from ollamad.runners.worker.echo import EchoEngine  # noqa: PLC0415

        return EchoEngine, "echo"
    # Imported here, because it loads llama.cpp's libraries.
    from ollamad.runners.worker.bindings import start_backends  # noqa: PLC0415
    from ollamad.runners.worker.engines import load_engine  # noqa: PLC0415

    return load_engine, start_backends()


async def _serve(descriptor: int, load: EngineLoader, build: str) -> None:
    end = socket.socket(fileno=descriptor)
    end.setblocking(False)
    await serve(end, load, build)


if __name__ == "__main__":
    main()
