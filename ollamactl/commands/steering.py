"""`evict`, `restart`, `reset`, `pin`, `unpin`, `preload`, `drain`, `resume`, `reload`,
`log-level`: change what the daemon does.
"""

from __future__ import annotations

import typing

import click

from ollamactl.admin import READ_TIMEOUT_S, answer_as
from ollamactl.commands.adminshared import (
    ENVIRONMENT,
    ask,
    load_options,
    socket_option,
)
from ollamactl.commands.explain import option_option
from ollamactl.commands.shared import json_option
from ollamactl.helptext import DocumentedCommand
from ollamactl.progress import waiting
from ollamactl.render import write_json, write_line
from ollamad.adminwire import Level, Reloaded, Reset


def _order(
    socket_path: str | None,
    method: str,
    done: str,
    *,
    as_json: bool,
    **parameters: object,
) -> None:
    """Call a method that changes something and has nothing to tell; say that it is done."""
    answer = ask(socket_path, method, timeout_s=READ_TIMEOUT_S, **parameters)
    if as_json:
        write_json(answer)
    else:
        write_line(done)


@click.command(
    cls=DocumentedCommand,
    short_help="Unload a model to free its memory.",
    environment=ENVIRONMENT,
    examples=(
        ("Unload when its requests have ended:", "ollamactl evict llama3.2"),
        ("Unload now, ending its requests:", "ollamactl evict --force llama3.2"),
    ),
)
@click.argument("model")
@click.option("--force", is_flag=True, help="Do not wait for the requests that use it.")
@socket_option
@json_option
def evict(model: str, force: bool, socket_path: str | None, as_json: bool) -> None:
    """Unload MODEL: when the requests that use it have ended, or at once with --force.

    The command does not wait for it; 'ollamactl events' shows when it is done. It takes no new
    requests meanwhile; the next one loads the model anew.
    """
    how = "now" if force else "when its requests have ended"
    _order(
        socket_path,
        "Evict",
        f"'{model}' leaves {how}",
        as_json=as_json,
        model=model,
        force=force or None,
    )


@click.command(
    cls=DocumentedCommand,
    short_help="Give a model a new runner.",
    environment=ENVIRONMENT,
    examples=(("Replace the process that holds a model:", "ollamactl restart llama3.2"),),
)
@click.argument("model")
@socket_option
@json_option
def restart(model: str, socket_path: str | None, as_json: bool) -> None:
    """Replace the runner of MODEL by a new one, when the requests that use it have ended."""
    done = f"'{model}' gets a new runner when its requests have ended"
    _order(socket_path, "Restart", done, as_json=as_json, model=model)


@click.command(
    cls=DocumentedCommand,
    short_help="Forget that a model failed.",
    environment=ENVIRONMENT,
    examples=(("Try a model again that cools after crashes:", "ollamactl reset llama3.2"),),
)
@click.argument("model")
@socket_option
@json_option
def reset(model: str, socket_path: str | None, as_json: bool) -> None:
    """Forget the failures of MODEL, so that it is started again at once.

    A model whose runner fails too often is refused for a while ('ollamactl status' shows it
    cooling). Use this when the cause is gone.
    """
    answer = ask(socket_path, "Reset", model=model)
    if as_json:
        write_json(answer)
    elif answer_as(Reset, answer).was_cooling:
        write_line(f"'{model}' may be started again")
    else:
        write_line(f"'{model}' was not cooling")


@click.command(
    cls=DocumentedCommand,
    short_help="Keep a model in memory.",
    environment=ENVIRONMENT,
    examples=(("Never unload a model to make room:", "ollamactl pin llama3.2"),),
)
@click.argument("model")
@socket_option
@json_option
def pin(model: str, socket_path: str | None, as_json: bool) -> None:
    """Keep MODEL in memory, whoever needs room and however long nobody uses it.

    Until 'ollamactl unpin', or the daemon's end; the configuration can pin models for good.
    """
    _order(socket_path, "Pin", f"'{model}' stays in memory", as_json=as_json, model=model)


@click.command(
    cls=DocumentedCommand,
    short_help="Let a model be unloaded again.",
    environment=ENVIRONMENT,
    examples=(("Undo 'ollamactl pin':", "ollamactl unpin llama3.2"),),
)
@click.argument("model")
@socket_option
@json_option
def unpin(model: str, socket_path: str | None, as_json: bool) -> None:
    """Let MODEL be unloaded when others need room, or when nobody uses it for long."""
    _order(socket_path, "Unpin", f"'{model}' may be unloaded", as_json=as_json, model=model)


@click.command(
    cls=DocumentedCommand,
    short_help="Load a model before it is asked for.",
    environment=ENVIRONMENT,
    examples=(
        ("Load, and return when it answers:", "ollamactl preload llama3.2"),
        ("With a context of its own:", "ollamactl preload -o num_ctx=16384 llama3.2"),
    ),
)
@click.argument("model")
@option_option
@socket_option
@json_option
def preload(model: str, options: tuple[str, ...], socket_path: str | None, as_json: bool) -> None:
    """Load MODEL and wait until it answers requests.

    It waits in line like a request, and other models may have to leave for it. Interrupting the
    command gives up the wait.
    """
    given = load_options(options)
    with waiting(f"loading {model} "):
        answer = ask(socket_path, "Preload", timeout_s=None, model=model, options=given)
    if as_json:
        write_json(answer)
    else:
        write_line(f"'{model}' is loaded")


@click.command(
    cls=DocumentedCommand,
    short_help="Take no new requests.",
    environment=ENVIRONMENT,
    examples=(
        ("Before maintenance:", "ollamactl drain"),
        ("Is it done?", "ollamactl status --json | jq '.requests + .runners'"),
    ),
)
@socket_option
@json_option
def drain(socket_path: str | None, as_json: bool) -> None:
    """Take no new requests, let answers that are under way end, and unload the models.

    New requests are refused with 503 and a time to try again. The daemon goes on running;
    'ollamactl resume' ends the drain.
    """
    done = "new requests are refused; end this with 'ollamactl resume'"
    _order(socket_path, "Drain", done, as_json=as_json)


@click.command(
    cls=DocumentedCommand,
    short_help="Take requests again after a drain.",
    environment=ENVIRONMENT,
    examples=(("After maintenance:", "ollamactl resume"),),
)
@socket_option
@json_option
def resume(socket_path: str | None, as_json: bool) -> None:
    """Take new requests again, after 'ollamactl drain'."""
    _order(socket_path, "Resume", "new requests are taken", as_json=as_json)


@click.command(
    cls=DocumentedCommand,
    short_help="Read the configuration anew.",
    environment=ENVIRONMENT,
    examples=(("After editing ollamad.toml:", "ollamactl reload"),),
)
@socket_option
@json_option
def reload(socket_path: str | None, as_json: bool) -> None:
    """Read the configuration anew and apply what can change while serving, as SIGHUP does.

    A configuration with a mistake changes nothing, and the mistake is shown.
    """
    answer = ask(socket_path, "Reload")
    if as_json:
        write_json(answer)
        return
    told = answer_as(Reloaded, answer)
    write_line(f"changed: {', '.join(told.changed) or 'nothing'}")
    if told.needs_restart:
        write_line(f"after a restart of the daemon: {', '.join(told.needs_restart)}")


@click.command(
    "log-level",
    cls=DocumentedCommand,
    short_help="Change how much the daemon logs.",
    environment=ENVIRONMENT,
    examples=(("See what it decides and why:", "ollamactl log-level debug"),),
)
@click.argument("level", type=click.Choice([each.value for each in Level]))
@socket_option
@json_option
def log_level(
    level: typing.Literal["debug", "info", "warning", "error"],
    socket_path: str | None,
    as_json: bool,
) -> None:
    """Log messages of LEVEL and above, until the configuration is read again.

    Prompts and answers are never logged.
    """
    _order(socket_path, "SetLogLevel", f"log level {level}", as_json=as_json, level=level)
