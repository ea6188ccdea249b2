"""What the commands share: the client that OLLAMA_HOST names, and the `--json` flag."""

from __future__ import annotations

import os
from typing import Final

import click

from ollamactl.errors import ApiError
from ollamactl.host import parse_host
from ollamactl.http import READ_TIMEOUT_S, Client
from ollamactl.render import note
from ollamactl.wire import JsonObject, ShownModel, StoredModels, read_as

NAMES_SHOWN_MAX: Final = 10
"""Stored models that the message about an unknown one lists."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for programs to read."
)


def connected() -> Client:
    """Return a client for the daemon that OLLAMA_HOST names. Nothing is sent yet."""
    address = parse_host(os.environ.get("OLLAMA_HOST", ""))
    for warning in address.warnings:
        note(f"Warning: {warning}")
    return Client(address)


def show(client: Client, model: str, *, verbose: bool = False) -> JsonObject:
    """Return what the daemon tells of *model*. Raises ApiError."""
    body = {"model": model, "verbose": verbose}
    return client.ask("POST", "/api/show", body, read_timeout_s=READ_TIMEOUT_S)


def show_stored(client: Client, model: str) -> ShownModel:
    """Return what the daemon tells of *model*; if it is not stored, say what is."""
    try:
        return read_as(ShownModel, show(client, model))
    except ApiError as error:
        if error.status != 404:
            raise
        raise ApiError(f"{_not_stored(client, model)}") from error


def unload(client: Client, model: str) -> None:
    """Ask the daemon to unload *model* once it is idle. Raises ApiError."""
    body = {"model": model, "prompt": "", "keep_alive": 0, "stream": False}
    client.ask("POST", "/api/generate", body, read_timeout_s=READ_TIMEOUT_S)


def _not_stored(client: Client, model: str) -> str:
    stored = read_as(StoredModels, client.get("/api/tags")).models or []
    if not stored:
        return (
            f"model '{model}' is not in the store, and nothing else is: "
            "add one with 'ollamactl create'"
        )
    names = ", ".join(entry.name for entry in stored[:NAMES_SHOWN_MAX])
    more = ", ..." if len(stored) > NAMES_SHOWN_MAX else ""
    return f"model '{model}' is not in the store; stored: {names}{more} (see 'ollamactl list')"
