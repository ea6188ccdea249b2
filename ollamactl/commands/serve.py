"""`ollamactl serve`: becomes the daemon."""

from __future__ import annotations

import os
import sys

import click

from ollamactl.helptext import DocumentedCommand


@click.command(
    cls=DocumentedCommand,
    context_settings={"ignore_unknown_options": True},
    short_help="Start ollamad (also: start).",
    examples=(
        ("Serve on the default address until Ctrl-C:", "ollamactl serve"),
        ("Serve all interfaces of this machine:", "OLLAMA_HOST=0.0.0.0 ollamactl serve"),
    ),
    environment=(
        ("OLLAMA_HOST", "The address to listen on. Default 127.0.0.1:11434."),
        ("OLLAMA_MODELS", "The folder of the model store."),
        ("OLLAMA_KEEP_ALIVE", "How long an idle model stays in memory. Default 5m."),
        ("OLLAMA_CONTEXT_LENGTH", "The context length where a model and a request name none."),
        ("OLLAMA_DEBUG", "1 logs what the daemon decides and why."),
    ),
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[DAEMON-OPTIONS]...")
def serve(arguments: tuple[str, ...]) -> None:
    """Start the daemon in the foreground.

    This program is replaced by 'ollamad serve'; all arguments are passed on to it, and
    'ollamactl serve -- --help' shows them. On a machine where ollamad is installed as a system
    service, use 'systemctl start ollamad' instead.
    """
    sys.stdout.flush()
    # -P: a folder called ollamad in the current directory must not be run instead.
    command = [sys.executable, "-P", "-m", "ollamad", "serve", *arguments]
    os.execv(sys.executable, command)  # noqa: S606 - becoming the daemon is the purpose
