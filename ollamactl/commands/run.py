"""`ollamactl run`: one answer to a prompt, or a conversation at the terminal."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any, Final

import click

from ollamactl.answer import AnswerPrinter, print_statistics
from ollamactl.chat import Chat, ChatSettings
from ollamactl.commands.shared import connected, json_option, show_stored
from ollamactl.errors import ApiError, CtlError
from ollamactl.helptext import HOST_VARIABLE, PROXY_VARIABLES, DocumentedCommand
from ollamactl.history import history_path
from ollamactl.http import Client
from ollamactl.progress import waiting
from ollamactl.promptline import PromptLine
from ollamactl.render import write, write_json
from ollamactl.wire import Embedded, Piece, ShownModel, read_as, to_text
from ollamad.units import parse_duration_s

STDIN_BYTES_MAX: Final = 64 << 20
"""The longest prompt taken from a pipe; no context holds as much."""

_THINK: Final = {"true": True, "false": False} | {
    level: level for level in ("high", "medium", "low", "max")
}


class _RunCommand(DocumentedCommand):
    """A command whose `--think` takes a value only after an equals sign."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse *args*, with a bare `--think` made explicit.

        Left to click, `--think why` would take the prompt's first word as the value.
        """
        end = args.index("--") if "--" in args else len(args)
        explicit = ["--think=true" if arg == "--think" else arg for arg in args[:end]]
        return super().parse_args(ctx, explicit + args[end:])


def _keep_alive(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            parse_duration_s(value)
        except ValueError as error:
            raise CtlError(str(error)) from error
    return value


def _format(ctx: click.Context, option: click.Parameter, value: str | None) -> object:
    if not value or value == "json":
        return value or None
    try:
        schema = json.loads(value)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise CtlError(
            f'invalid value for --format: "{value}" (must be json, or a JSON Schema object)'
        )
    return schema


def _think(ctx: click.Context, option: click.Parameter, value: str | None) -> bool | str | None:
    if value is not None and value not in _THINK:
        raise CtlError(
            f'invalid value for --think: "{value}" (must be true, false, high, medium, low, or max)'
        )
    return None if value is None else _THINK[value]


@click.command(
    cls=_RunCommand,
    short_help="Run a model.",
    examples=(
        ("Talk to a model (/bye or Ctrl-D leaves):", "ollamactl run llama3.2"),
        ("Ask one question:", 'ollamactl run llama3.2 "Why is the sky blue?"'),
        ("Ask about a file:", 'ollamactl run llama3.2 "Summarise this:" < report.txt'),
        (
            "Load a model and keep it for an hour:",
            "ollamactl run llama3.2 --keepalive 1h < /dev/null",
        ),
        (
            "Get JSON of a certain shape:",
            'ollamactl run llama3.2 --format "$(cat schema.json)" hello',
        ),
    ),
    environment=(
        HOST_VARIABLE,
        ("OLLAMA_NOHISTORY", "1 keeps no history of what you type."),
        ("XDG_STATE_HOME", "Where the history lies, in ollamad/history. Default ~/.local/state."),
        ("VISUAL, EDITOR", "The editor that Ctrl-G opens. Default vi."),
        ("NO_COLOR", "Set to anything, thinking is not shown in grey."),
        PROXY_VARIABLES,
    ),
)
@click.argument("model")
@click.argument("prompt", nargs=-1)
@click.option(
    "--keepalive",
    metavar="DURATION",
    callback=_keep_alive,
    help="How long the model stays in memory afterwards: 5m, 1h30m, 0, -1s for ever.",
)
@click.option("--verbose", is_flag=True, help="Print statistics after each answer, to stderr.")
@click.option("--nowordwrap", is_flag=True, help="Do not wrap lines at the terminal's width.")
@click.option(
    "--format",
    "answer_format",
    metavar="FORMAT",
    callback=_format,
    help="Constrain the answer: json, or a JSON Schema as text.",
)
@click.option(
    "--think",
    metavar="[=LEVEL]",
    callback=_think,
    help="Whether the model thinks first: --think, or --think=true, false, high, medium, low, max. "
    "By default models that can think do.",
)
@click.option("--hidethinking", is_flag=True, help="Let the model think, but do not print it.")
@json_option
def run(
    *,
    model: str,
    prompt: tuple[str, ...],
    keepalive: str | None,
    verbose: bool,
    nowordwrap: bool,
    answer_format: object,
    think: bool | str | None,
    hidethinking: bool,
    as_json: bool,
) -> None:
    """Run MODEL: answer PROMPT, or talk.

    The words of PROMPT are joined with spaces. What is piped into standard input is put in front
    of them. Without PROMPT, and with a terminal at both ends, a conversation begins; type /? in it
    for help. An empty prompt only loads the model.

    The answer goes to standard output as it arrives, statistics and errors go to standard error.
    With --json, each piece of the answer is printed as one JSON object a line, as received.
    """
    settings = ChatSettings(
        keep_alive=keepalive,
        format=answer_format,
        think=think,
        hides_thinking=hidethinking,
        is_verbose=verbose,
        wraps=not nowordwrap,
    )
    with connected() as client:
        shown = show_stored(client, model)
        capabilities = shown.capabilities or ()
        if think is None and "thinking" in capabilities:
            settings.think = True
        is_interactive = not prompt and sys.stdin.isatty() and sys.stdout.isatty()
        if is_interactive and not as_json:
            _converse(client, model, shown, settings)
            return
        text = _whole_prompt(prompt)
        if "embedding" in capabilities and "completion" not in capabilities:
            _embed(client, model, text, keepalive)
        else:
            _answer_once(client, model, text, settings, as_json=as_json)


def _whole_prompt(words: tuple[str, ...]) -> str:
    """Return the prompt: what is piped in, then the arguments."""
    prompt = " ".join(words)
    if sys.stdin.isatty():
        return prompt
    piped = sys.stdin.buffer.read(STDIN_BYTES_MAX + 1)
    if len(piped) > STDIN_BYTES_MAX:
        raise CtlError(f"standard input is longer than {STDIN_BYTES_MAX >> 20} MiB, send less")
    text = piped.decode("utf-8", errors="replace")
    return " ".join(part for part in (text, prompt) if part)


def _answer_once(
    client: Client, model: str, prompt: str, settings: ChatSettings, *, as_json: bool
) -> None:
    printer = AnswerPrinter(hides_thinking=settings.hides_thinking, wraps=settings.wraps)
    body = settings.request(model) | {"prompt": prompt, "stream": True}
    last = Piece()
    with (
        waiting() as spinner,
        contextlib.closing(client.stream("/api/generate", body)) as pieces,
    ):
        try:
            for answer in pieces:
                last = read_as(Piece, answer)
                if as_json:
                    spinner.over()
                    write_json(answer, indent=None)
                    continue
                if last.response or last.thinking:
                    spinner.over()
                printer.take(last)
        except KeyboardInterrupt:
            # Stopping an answer is how a user ends one: it is no failure, and has no statistics.
            spinner.over()
            printer.break_off()
            return
        except CtlError as error:
            spinner.over()
            printer.break_off()
            raise _with_status(error) from error
    printer.finish()
    if prompt and not as_json:
        write("\n\n")
    if settings.is_verbose:
        print_statistics(last)


def _embed(client: Client, model: str, text: str, keep_alive: str | None) -> None:
    if not text:
        raise CtlError(
            f'embedding models require input text. Usage: ollamactl run {model} "your text here"'
        )
    body: dict[str, Any] = {"model": model, "input": text}
    if keep_alive is not None:
        body["keep_alive"] = keep_alive
    with waiting():
        answer = client.ask("POST", "/api/embed", body, read_timeout_s=None)
    vectors = read_as(Embedded, answer).embeddings or [[]]
    write(to_text(vectors[0]) + "\n")


def _converse(client: Client, model: str, shown: ShownModel, settings: ChatSettings) -> None:
    load = settings.request(model) | {"prompt": "", "stream": False}
    try:
        with waiting(f"loading {model}"):
            client.ask("POST", "/api/generate", load, read_timeout_s=None)
    except ApiError as error:
        raise _with_status(error) from error
    line = PromptLine(history_path(os.environ))
    Chat(client, model, shown, settings).run(line.ask)


def _with_status(error: CtlError) -> CtlError:
    return CtlError(error.with_status) if isinstance(error, ApiError) else error
