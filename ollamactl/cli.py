"""The click group: the order of commands, aliases, `--version`, and failures as exit codes.

Exit codes are Ollama's: 0 for success and 1 for every error, wrong usage included. A command
that is interrupted ends with 130, as the shell would say.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from ollamactl.commands.bench import bench
from ollamactl.commands.create import create_model
from ollamactl.commands.events import events
from ollamactl.commands.explain import explain
from ollamactl.commands.looking import gpus, queue, runners, status
from ollamactl.commands.models import copy_model, list_models, remove_models, show_model
from ollamactl.commands.run import run
from ollamactl.commands.running import list_running, stop_model
from ollamactl.commands.serve import serve
from ollamactl.commands.shared import connected
from ollamactl.commands.steering import (
    drain,
    evict,
    log_level,
    pin,
    preload,
    reload,
    reset,
    restart,
    resume,
    unpin,
)
from ollamactl.commands.top import top
from ollamactl.errors import ApiError, CannotConnect, ConnectionLost, CtlError
from ollamactl.helptext import DocumentedCommand
from ollamactl.render import note, write_line
from ollamactl.wire import Version, read_as
from ollamad import __version__
from ollamad.errors import OllamadError

FAILED: Final = 1
INTERRUPTED: Final = 130

ALIASES: Final = {"ls": "list", "start": "serve"}


class OllamactlGroup(click.Group):
    """A group that lists commands in their order here, and fails as Ollama's does."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in two sections: what Ollama has too, and what steers the daemon."""
        here = {command.name for command in ADMIN_COMMANDS}
        sections = (
            ("Commands", [name for name in self.commands if name not in here]),
            ("Commands for the daemon on this machine", [n for n in self.commands if n in here]),
        )
        for title, names in sections:
            with formatter.section(title):
                formatter.write_dl(
                    [(name, self.commands[name].get_short_help_str(60)) for name in names]
                )

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were added."""
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name or alias."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that *args* name. Raises CtlError with suggestions."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            raise unknown_command(self, name)
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,  # Any: click's own signature.
    ) -> NoReturn:
        """Run the program and exit."""
        _reopen_closed_streams()
        for stream in (sys.stdout, sys.stderr):
            # A terminal that cannot show a character shows a question mark, and no traceback.
            if reconfigure := getattr(stream, "reconfigure", None):
                reconfigure(errors="replace")
        try:
            code = super().main(
                args, prog_name or "ollamactl", complete_var, standalone_mode=False, **extra
            )
            sys.stdout.flush()
        except click.UsageError as error:
            _fail(f"{error.format_message()}{_hint(error)}")
        except click.ClickException as error:
            _fail(error.format_message())
        except (CtlError, OllamadError) as error:
            _fail(str(error))
        except (KeyboardInterrupt, click.Abort):
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            _let_go_of_stdout()
            sys.exit(FAILED)
        except OSError as error:
            _let_go_of_stdout()
            _fail(str(error))
        sys.exit(code if isinstance(code, int) else 0)


def _reopen_closed_streams() -> None:
    """Give a program that was started without standard streams (`<&-`) empty ones.

    Otherwise they are None, and the first socket opened would become standard input.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))


def _fail(message: str) -> NoReturn:
    note(f"Error: {message}")
    sys.exit(FAILED)


def _hint(error: click.UsageError) -> str:
    return f"\nTry '{error.ctx.command_path} -h' for help." if error.ctx is not None else ""


def _let_go_of_stdout() -> None:
    """Send what is left in stdout's buffer nowhere: its reader is gone, or its disk is full."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def unknown_command(group: click.Group, name: str) -> CtlError:
    """Return the error for a command that does not exist, with the names that look like it."""
    message = f'unknown command "{name}" for "ollamactl"'
    similar = difflib.get_close_matches(name, [*group.commands, *ALIASES], n=3)
    if similar:
        message += "\n\nDid you mean this?\n" + "".join(f"\t{match}\n" for match in similar)
    return CtlError(message)


def _print_version(ctx: click.Context, option: click.Parameter, is_wanted: bool) -> None:
    if not is_wanted or ctx.resilient_parsing:
        return
    server = None
    try:
        with connected() as client:
            told = read_as(Version, client.get("/api/version"))
            server = told.ollamad or told.version
        write_line(f"ollamad version is {server}")
    except (CannotConnect, ConnectionLost, ApiError):
        write_line("Warning: could not connect to a running ollamad")
    if server != __version__:
        write_line(f"Warning: client version is {__version__}")
    ctx.exit()


@click.group(
    "ollamactl",
    cls=OllamactlGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="'ollamactl COMMAND -h' tells more about a command. "
    "OLLAMA_HOST names the daemon to talk to; its default is 127.0.0.1:11434.",
)
@click.option(
    "-v",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the daemon's version, and this program's if it differs.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run large language models with ollamad."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@click.command("help", cls=DocumentedCommand, short_help="Help about a command.", environment=())
@click.argument("command", required=False)
@click.pass_context
def help_command(ctx: click.Context, command: str | None) -> None:
    """Show the help of COMMAND, or of the whole program."""
    parent = ctx.parent
    if parent is None:
        raise CtlError("help is a command of ollamactl, and of nothing else")
    if command is None:
        click.echo(parent.get_help())
        return
    found = cli.get_command(parent, command)
    if found is None:
        raise unknown_command(cli, command)
    with click.Context(found, info_name=command, parent=parent) as found_ctx:
        click.echo(found.get_help(found_ctx))


ADMIN_COMMANDS: Final[tuple[click.Command, ...]] = (
    status,
    top,
    gpus,
    runners,
    queue,
    events,
    explain,
    preload,
    evict,
    restart,
    reset,
    pin,
    unpin,
    drain,
    resume,
    reload,
    log_level,
)
"""Those that talk to the daemon's admin socket, and so only to one on this machine."""

for _command in (
    serve,
    run,
    stop_model,
    list_models,
    list_running,
    show_model,
    create_model,
    copy_model,
    remove_models,
    bench,
    help_command,
    *ADMIN_COMMANDS,
):
    cli.add_command(_command)
