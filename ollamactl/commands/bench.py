"""`ollamactl bench`: how fast is this machine with this model?"""

from __future__ import annotations

import dataclasses
import sys
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ollamactl.benchmark import FULL, QUICK, Benchmark, Measured, check_can_write
from ollamactl.commands.shared import NAMES_SHOWN_MAX, connected, json_option, show_stored
from ollamactl.errors import CtlError
from ollamactl.helptext import DocumentedCommand
from ollamactl.http import Client
from ollamactl.progress import Report
from ollamactl.render import printable, processor_share, write_json
from ollamactl.wire import RunningModel, RunningModels, ShownModel, StoredModels, read_as

UNKNOWN: Final = "-"
WIDTH_WITHOUT_TERMINAL: Final = 100


@click.command(
    cls=DocumentedCommand,
    short_help="Measure how fast a model runs.",
    examples=(
        ("Measure the model that is loaded, or the only one:", "ollamactl bench"),
        ("A first impression of a certain model:", "ollamactl bench --quick llama3.2"),
        (
            "Tokens per second with one stream, for a script:",
            "ollamactl bench --json smollm2:135m | jq '.decode[0].tokens_per_s'",
        ),
    ),
)
@click.argument("model", required=False)
@click.option("--quick", is_flag=True, help="Shorter answers, fewer streams, one prompt.")
@click.option("--warm", is_flag=True, help="Do not unload the model first to time its load.")
@json_option
def bench(model: str | None, *, quick: bool, warm: bool, as_json: bool) -> None:
    """Measure how fast MODEL runs on the daemon's machine.

    Without MODEL it is the one that is loaded, or the only one in the store.

    LOAD is the time from a request to a model in memory; for it the model is unloaded first,
    once its requests have ended. FIRST TOKEN is the wait for an answer to a short prompt. PREFILL
    is how fast a prompt is read, by the daemon's own clock. DECODE is how fast answers are
    written: by one stream, and by several at once in sum. No text is used twice, so that nothing
    comes from a cache, and nothing is left to chance.

    It takes about a minute on a machine that suits the model. A step that takes longer than a
    minute (15 s with --quick) is broken off, and its result tells so. Other requests to the
    daemon at the same time make the results worse, and are slowed down themselves.
    """
    plan = QUICK if quick else FULL
    with connected() as client:
        name = model or _default_model(client)
        shown = show_stored(client, name)
    check_can_write(shown.capabilities, name)
    benchmark = Benchmark(connected, name, plan)
    with Report() as report:
        measured = benchmark.run(report.step, is_warm=warm)
    running = benchmark.running()
    if as_json:
        write_json(_document(name, measured, running))
        return
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console = Console(file=sys.stdout, highlight=False, width=WIDTH_WITHOUT_TERMINAL)
    console.print(_table(name, shown, measured, running, step_s=plan.step_s))


def _default_model(client: Client) -> str:
    """Return the model to measure if none is named.

    1. One model is loaded: that one.
    2. One model is stored: that one.
    3. Nothing is stored: there is nothing to measure.
    4. Several: it is the user's to choose.
    """
    loaded = [each.name for each in read_as(RunningModels, client.get("/api/ps")).models or []]
    if len(loaded) == 1:  # 1
        return loaded[0]
    stored = [each.name for each in read_as(StoredModels, client.get("/api/tags")).models or []]
    if len(stored) == 1:  # 2
        return stored[0]
    if not stored:  # 3
        raise CtlError("nothing is in the store: add a model with 'ollamactl create'")
    several = loaded or stored  # 4
    names = ", ".join(several[:NAMES_SHOWN_MAX])
    more = ", ..." if len(several) > NAMES_SHOWN_MAX else ""
    state = "loaded" if loaded else "in the store"
    raise CtlError(
        f"several models are {state} ({names}{more}), name one: ollamactl bench {several[0]}"
    )


def _document(name: str, measured: Measured, running: RunningModel | None) -> dict[str, object]:
    return {
        "model": name,
        "context_length": running.context_length if running else None,
        "size": running.size if running else None,
        "size_vram": running.size_vram if running else None,
        **dataclasses.asdict(measured),
    }


def _table(
    name: str, shown: ShownModel, measured: Measured, running: RunningModel | None, *, step_s: float
) -> Table:
    details = (shown.details.parameter_size, shown.details.quantization_level)
    about = [name, *(part for part in details if part)]
    if running is not None:
        about.append(processor_share(running.size, running.size_vram))
        about.append(f"context {running.context_length}")
    table = Table(
        box=SIMPLE_HEAD, title=Text(printable("  ".join(about)), "bold"), title_justify="left"
    )
    table.add_column("MEASURED")
    table.add_column("RESULT", justify="right", no_wrap=True)
    table.add_column("")
    late = f"not within {step_s:.0f} s"
    table.add_row("load", _seconds(measured.load_s), _load_note(measured))
    table.add_row(
        "first token", _seconds(measured.first_token_s), "" if measured.first_token_s else late
    )
    for prefill in measured.prefill:
        rate = prefill.tokens_per_s
        table.add_row(
            f"prefill, {prefill.n_tokens:,} tokens", _rate(rate), "" if rate is not None else late
        )
    alone = next((each.tokens_per_s for each in measured.decode if each.n_streams == 1), None)
    for decode in measured.decode:
        notes: list[str] = []
        if decode.n_streams > 1 and decode.tokens_per_s and alone:
            notes.append(f"{decode.tokens_per_s / alone:.1f} times one stream")
        if decode.is_cut:
            notes.append(f"broken off after {step_s:.0f} s")
        streams = "stream" if decode.n_streams == 1 else "streams"
        table.add_row(
            f"decode, {decode.n_streams} {streams}", _rate(decode.tokens_per_s), ", ".join(notes)
        )
    return table


def _load_note(measured: Measured) -> str:
    return "" if measured.load_s is not None else "not measured: the model stayed loaded"


def _seconds(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value * 1e3:,.0f} ms" if value < 1 else f"{value:,.2f} s"


def _rate(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:,.0f} tokens/s" if value >= 100 else f"{value:,.1f} tokens/s"
