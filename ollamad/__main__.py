"""The daemon's command line: read the configuration, then serve or show it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ollamad import __version__, app
from ollamad.configfile import LoadedConfig, config_as_json, load_config, render_config
from ollamad.errors import ConfigError, StartupError
from ollamad.log import configure, get_logger

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_config_option = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    envvar="OLLAMAD_CONFIG",
    help="The TOML file to read. Without it: the service's configuration folder, "
    "~/.config/ollamad/ollamad.toml, or /etc/ollamad/ollamad.toml, whichever is there.",
)


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="ollamad")
def cli() -> None:
    """Run large language models on this machine and serve them over HTTP.

    Settings come from a TOML file, then OLLAMA_* variables, then options; `ollamad config` shows
    each value and where it came from. Talk to the daemon with `ollamactl`, or with any client of
    Ollama's API.
    """


@cli.command()
@_config_option
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", help="TCP port to listen on.  [default: 11434]")
@click.option("--models", help="Folder that holds the models.")
@click.option("--admin-socket", help="Path of the admin socket.  [default: see ollamad config]")
@click.option("--log-level", help="debug, info, warning or error.  [default: info]")
@click.option("--log-format", help="auto, text, json or journal.  [default: auto]")
def serve(  # noqa: PLR0917 - click passes them by name
    file: Path | None,
    host: str | None,
    port: str | None,
    models: str | None,
    admin_socket: str | None,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Serve until told to stop.

    SIGTERM and SIGINT let answers that are under way end, then stop; a second one does not wait.
    SIGHUP reads the configuration again and applies what can change while serving.
    """
    flags = {
        "http.host": host,
        "http.port": port,
        "store.models_path": models,
        "admin.socket_path": admin_socket,
        "log.level": log_level,
        "log.format": log_format,
    }

    def read() -> LoadedConfig:
        return load_config(flags, os.environ, file)

    loaded = read()
    configure(loaded.config.log, sys.stderr, os.environ)
    log = get_logger(__name__)
    for warning in loaded.warnings:
        log.warning(warning)
    app.run(loaded, read)


@cli.command()
@_config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def config(file: Path | None, as_json: bool) -> None:
    """Show each setting's value and where it came from."""
    loaded = load_config({}, os.environ, file)
    click.echo(config_as_json(loaded) if as_json else render_config(loaded))
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)


def main() -> None:
    """Run the command line; what keeps the daemon from starting is one line, not a traceback."""
    try:
        cli.main(prog_name="ollamad", standalone_mode=True)
    except ConfigError as exc:
        click.echo(f"Error: bad configuration: {exc}", err=True)
        sys.exit(2)
    except StartupError as exc:
        click.echo(f"Error: {exc}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
