"""`events`: what happens in the daemon, as it happens."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.text import Text

from ollamactl.admin import event_of
from ollamactl.commands.adminshared import ENVIRONMENT, administered, socket_option
from ollamactl.commands.shared import json_option
from ollamactl.helptext import DocumentedCommand
from ollamactl.listing import STYLES
from ollamactl.render import note, printable, write_json, write_line
from ollamad.adminwire import Event

KIND_COLUMNS = 12


@click.command(
    cls=DocumentedCommand,
    short_help="Watch what happens.",
    environment=ENVIRONMENT,
    examples=(
        ("Watch loads, evictions, crashes and devices:", "ollamactl events"),
        ("Crashes only, for a script:", "ollamactl events --kind crashed --json"),
    ),
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Only events of this kind, such as evicting or crashed. May be given several times.",
)
@click.option("--model", help="Only events of this model, by the name that events show.")
@socket_option
@json_option
def events(
    kinds: tuple[str, ...], model: str | None, socket_path: str | None, as_json: bool
) -> None:
    """Show what happens in the daemon, as it happens, until interrupted.

    Requests that wait with their place, loads with their progress, models that are ready, leave
    or crash, answers that went on after a crash, and devices that change. With --json one object
    a line. Where this program is too slow to follow, it is told how many events were lost.
    """
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    with administered(socket_path) as client:
        for answer in client.events():
            told = event_of(answer)
            if told.missed:
                note(f"Warning: {told.missed} events were lost, this program was too slow")
            event = told.event
            if event is None or (kinds and event.kind not in kinds):
                continue
            if model is not None and event.model != model:
                continue
            if as_json:
                write_json(answer["event"], indent=None)
            elif sys.stdout.isatty():
                console.print(_line(event))
            else:
                write_line(_line(event).plain)


def _line(event: Event) -> Text:
    when = event.at.partition("T")[2].partition(".")[0]
    line = Text(f"{when}  ", "dim")
    line.append(f"{printable(event.kind):<{KIND_COLUMNS}} ", "bold")
    line.append(printable(event.message).replace("\n", " "), STYLES.get(event.level.value, ""))
    if event.fraction is not None:
        line.append(f"  {event.fraction:.0%}", "dim")
    return line
