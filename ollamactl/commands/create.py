"""`ollamactl create`: a new model from a Modelfile."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from ollamactl.commands.shared import connected, json_option
from ollamactl.errors import ApiError, CtlError
from ollamactl.helptext import DocumentedCommand
from ollamactl.progress import Report
from ollamactl.recipe import build_request, read_modelfile
from ollamactl.render import note, write_json
from ollamactl.wire import CreateStatus, JsonObject, read_as
from ollamad.names import ModelName


@click.command(
    "create",
    cls=DocumentedCommand,
    short_help="Create a model.",
    examples=(
        ("From the Modelfile in this folder:", "ollamactl create my-assistant"),
        ("From a GGUF file:", "echo FROM ./model.gguf | ollamactl create my-model -f -"),
        ("Smaller, from full precision:", "ollamactl create my-model -f Modelfile -q Q4_K_M"),
    ),
)
@click.argument("model")
@click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(path_type=Path),
    default=Path("Modelfile"),
    metavar="PATH",
    help="The Modelfile; - reads standard input. Default: Modelfile in the current folder.",
)
@click.option(
    "-q", "--quantize", metavar="TYPE", help="Quantize to this type, for example Q4_K_M or Q8_0."
)
@json_option
def create_model(model: str, path: Path, quantize: str | None, as_json: bool) -> None:
    """Create MODEL as a Modelfile describes it.

    FROM in the Modelfile names a stored model or a GGUF file; relative paths start at the
    Modelfile's folder. Files are sent to the daemon, which may be on another machine; what it
    has already is not sent again. Progress goes to standard error.
    """
    ModelName.parse(model)
    modelfile = read_modelfile(path, sys.stdin.buffer)
    for warning in modelfile.warnings:
        note(warning)
    with connected() as client, Report() as report:
        # Hashing may take minutes: better to hear now that nobody is there.
        client.probe()
        report.step("gathering model components")
        request = build_request(modelfile, path.parent, client, report)
        request |= {"model": model, "stream": True}
        if quantize:
            request["quantize"] = quantize
        try:
            with contextlib.closing(client.stream("/api/create", request)) as statuses:
                last = _follow(statuses, report)
        except ApiError as error:
            raise CtlError(error.with_status) from error
        if last != "success":
            raise CtlError("the daemon ended the creation without saying success; see its log")
    if as_json:
        write_json({"created": model}, indent=None)


def _follow(statuses: Iterator[JsonObject], report: Report) -> str:
    """Show what the daemon does; return the last thing it said."""
    last = ""
    for answer in statuses:
        status = read_as(CreateStatus, answer)
        last = status.status
        if status.total > 0:
            report.bar(
                f"{status.status} {status.digest}",
                status.status,
                completed=status.completed,
                total=status.total,
            )
        else:
            report.step(status.status)
    return last
