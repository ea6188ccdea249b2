"""`explain`: what would happen to a request for a model, and why."""

from __future__ import annotations

import click

from ollamactl.admin import answer_as
from ollamactl.commands.adminshared import (
    ENVIRONMENT,
    ask,
    load_options,
    socket_option,
)
from ollamactl.commands.shared import json_option
from ollamactl.helptext import DocumentedCommand
from ollamactl.listing import Cell, show_table
from ollamactl.render import write_json, write_line
from ollamad.adminwire import Explained
from ollamad.units import format_bytes

option_option = click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option as in a request, such as num_ctx=8192. May be given several times.",
)


@click.command(
    cls=DocumentedCommand,
    short_help="Tell what a request for a model would meet now.",
    environment=ENVIRONMENT,
    examples=(
        ("Would this model fit, and who would have to leave?", "ollamactl explain llama3:70b"),
        ("The same with a longer context:", "ollamactl explain -o num_ctx=32768 llama3:70b"),
    ),
)
@click.argument("model")
@option_option
@socket_option
@json_option
def explain(model: str, options: tuple[str, ...], socket_path: str | None, as_json: bool) -> None:
    """Tell what would happen to a request for MODEL now, and why, without doing it.

    Shows the memory that the model needs by kind, where it would go, and which models would have
    to leave for it.
    """
    answer = ask(socket_path, "Explain", model=model, options=load_options(options))
    if as_json:
        write_json(answer)
    else:
        _show(answer_as(Explained, answer))


def _show(told: Explained) -> None:
    write_line(f"{told.model}: {told.verdict}")
    for line in told.lines:
        write_line(f"  {line}")
    if told.victims:
        write_line(f"  would have to leave: {', '.join(told.victims)}")
    if told.n_gpu_layers:
        write_line(f"  layers on GPUs: {told.n_gpu_layers}")
    if told.demand:
        write_line()
        total = sum(each.bytes for each in told.demand)
        rows: list[list[Cell]] = [
            [each.kind.replace("_", " "), format_bytes(each.bytes)] for each in told.demand
        ]
        rows.append([("in all", "bold"), (format_bytes(total), "bold")])
        show_table(("NEEDS", "MEMORY"), rows, numbers="MEMORY")
    if told.room:
        write_line()
        show_table(
            ("DEVICE", "TAKES", "FREE"),
            [
                [
                    each.device,
                    format_bytes(each.needed_bytes),
                    format_bytes(max(each.free_bytes, 0)),
                ]
                for each in told.room
            ],
            numbers="TAKES FREE",
        )
