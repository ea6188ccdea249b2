"""`list`, `show`, `cp` and `rm`: what is in the store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import click

from ollamactl.commands.shared import connected, json_option, show, unload
from ollamactl.errors import ApiError, CtlError
from ollamactl.helptext import DocumentedCommand
from ollamactl.http import READ_TIMEOUT_S
from ollamactl.render import note, relative_time, table, write, write_json, write_line
from ollamactl.showpage import show_page
from ollamactl.wire import ShownModel, StoredModels, read_as
from ollamad.units import format_bytes_decimal

ID_CHARS: Final = 12
"""How much of a digest tables show."""


@click.command(
    "list",
    cls=DocumentedCommand,
    short_help="List models (also: ls).",
    examples=(
        ("All stored models:", "ollamactl list"),
        ("Those whose name begins with llama:", "ollamactl ls llama"),
        ("Their names, for a script:", "ollamactl list --json | jq -r '.models[].name'"),
    ),
)
@click.argument("prefix", default="")
@json_option
def list_models(prefix: str, as_json: bool) -> None:
    """List the models in the store, the newest first.

    With PREFIX only those whose name begins with it, in upper or lower case. ID is the beginning
    of the manifest's digest: models with the same ID are the same.
    """
    with connected() as client:
        answer = client.get("/api/tags")
    models = read_as(StoredModels, answer).models or []
    wanted = [model.name.lower().startswith(prefix.lower()) for model in models]
    if as_json:
        entries = zip(answer.get("models") or (), wanted, strict=True)
        write_json({"models": [entry for entry, is_wanted in entries if is_wanted]})
        return
    now = datetime.now(UTC)
    rows = [
        (
            model.name,
            model.digest[:ID_CHARS],
            "-" if model.remote_model else format_bytes_decimal(model.size),
            relative_time(model.modified_at, now),
        )
        for model, is_wanted in zip(models, wanted, strict=True)
        if is_wanted
    ]
    write(table(("NAME", "ID", "SIZE", "MODIFIED"), rows))


@click.command(
    "show",
    cls=DocumentedCommand,
    short_help="Show information for a model.",
    examples=(
        ("What is worth knowing:", "ollamactl show llama3.2"),
        ("Begin a model of your own from it:", "ollamactl show --modelfile llama3.2 > Modelfile"),
        ("All metadata and tensors:", "ollamactl show -v llama3.2"),
    ),
)
@click.argument("model")
@click.option("--license", "wants_license", is_flag=True, help="Show the licence of the model.")
@click.option("--modelfile", "wants_modelfile", is_flag=True, help="Show the model's Modelfile.")
@click.option("--parameters", "wants_parameters", is_flag=True, help="Show its parameters.")
@click.option("--template", "wants_template", is_flag=True, help="Show its prompt template.")
@click.option("--system", "wants_system", is_flag=True, help="Show its system message.")
@click.option("-v", "--verbose", is_flag=True, help="Add metadata and tensors.")
@json_option
def show_model(model: str, verbose: bool, as_json: bool, **wanted: bool) -> None:
    """Show what the store knows of MODEL.

    Without an option that selects one field, a page with the model's architecture, size,
    capabilities, parameters, system message and licence.
    """
    fields = [name.removeprefix("wants_") for name, is_wanted in wanted.items() if is_wanted]
    if len(fields) > 1:
        raise CtlError(
            "only one of '--license', '--modelfile', '--parameters', '--system', or '--template' "
            "can be specified"
        )
    with connected() as client:
        answer = show(client, model, verbose=verbose)
    if as_json:
        write_json({field: answer.get(field, "") for field in fields} if fields else answer)
        return
    shown = read_as(ShownModel, answer)
    match fields:
        case []:
            write(show_page(shown, verbose=verbose))
        case ["license"]:
            write_line(shown.license)
        case ["modelfile"]:
            write_line(shown.modelfile)
        case ["parameters"]:
            write_line(shown.parameters)
        case ["template"]:
            write(shown.template)
        case _:
            write(shown.system)


@click.command(
    "cp",
    cls=DocumentedCommand,
    short_help="Copy a model.",
    examples=(("Give a model a second name:", "ollamactl cp llama3.2 my-assistant"),),
)
@click.argument("source")
@click.argument("destination")
@json_option
def copy_model(source: str, destination: str, as_json: bool) -> None:
    """Give the model SOURCE the additional name DESTINATION.

    The files are shared, so a copy needs no space. A model that has the name already is replaced.
    """
    with connected() as client:
        body = {"source": source, "destination": destination}
        client.ask("POST", "/api/copy", body, read_timeout_s=READ_TIMEOUT_S)
    if as_json:
        write_json({"copied": source, "to": destination}, indent=None)
    else:
        write_line(f"copied '{source}' to '{destination}'")


@click.command(
    "rm",
    cls=DocumentedCommand,
    short_help="Remove a model.",
    examples=(
        ("Remove a model:", "ollamactl rm llama3.2"),
        ("Remove several:", "ollamactl rm mistral phi3:mini"),
    ),
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@json_option
def remove_models(models: tuple[str, ...], as_json: bool) -> None:
    """Remove each MODEL from the store, and from memory.

    Files that another model shares stay. The first model that cannot be removed ends the command.
    With --json, one object a line for each removed model.
    """
    with connected() as client:
        for model in models:
            try:
                unload(client, model)
            except ApiError as error:
                if error.status != 404:
                    note(f"Warning: unable to stop model '{model}': {error}")
            client.ask("DELETE", "/api/delete", {"model": model}, read_timeout_s=READ_TIMEOUT_S)
            if as_json:
                write_json({"deleted": model}, indent=None)
            else:
                write_line(f"deleted '{model}'")
