"""`ps` and `stop`: what is in memory."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from ollamactl.commands.models import ID_CHARS
from ollamactl.commands.shared import connected, json_option, show, unload
from ollamactl.errors import ApiError, CtlError
from ollamactl.helptext import DocumentedCommand
from ollamactl.render import processor_share, relative_time, table, write, write_json
from ollamactl.wire import RunningModel, RunningModels, read_as
from ollamad.units import format_bytes_decimal


@click.command(
    "ps",
    cls=DocumentedCommand,
    short_help="List running models.",
    examples=(
        ("What is loaded, where, and until when:", "ollamactl ps"),
        ("The same for a script:", "ollamactl ps --json | jq '.models[].size_vram'"),
    ),
)
@click.argument("prefix", default="")
@json_option
def list_running(prefix: str, as_json: bool) -> None:
    """List the models in memory, the one that stays longest first.

    With PREFIX only those whose name begins with it. PROCESSOR tells how much of a model lies in
    the memory of the GPUs, UNTIL when it leaves if nobody uses it.
    """
    with connected() as client:
        answer = client.get("/api/ps")
    models = read_as(RunningModels, answer).models or []
    wanted = [model.name.startswith(prefix) for model in models]
    if as_json:
        entries = zip(answer.get("models") or (), wanted, strict=True)
        write_json({"models": [entry for entry, is_wanted in entries if is_wanted]})
        return
    now = datetime.now(UTC)
    rows = [
        (
            model.name,
            model.digest[:ID_CHARS],
            format_bytes_decimal(model.size),
            processor_share(model.size, model.size_vram),
            str(model.context_length),
            _until(model, now),
        )
        for model, is_wanted in zip(models, wanted, strict=True)
        if is_wanted
    ]
    write(table(("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"), rows))


def _until(model: RunningModel, now: datetime) -> str:
    if model.expires_at <= now:
        return "Stopping..."
    return relative_time(model.expires_at, now)


@click.command(
    "stop",
    cls=DocumentedCommand,
    short_help="Stop a running model.",
    examples=(("Free the memory of a model:", "ollamactl stop llama3.2"),),
)
@click.argument("model")
@json_option
def stop_model(model: str, as_json: bool) -> None:
    """Unload MODEL from memory; it stays in the store.

    Requests in progress are finished first. A model that is not loaded is no error.
    """
    with connected() as client:
        try:
            show(client, model)
            unload(client, model)
        except ApiError as error:
            if error.status == 404:
                raise CtlError(f'couldn\'t find model "{model}" to stop') from error
            raise
    if as_json:
        write_json({"stopped": model}, indent=None)
