"""The table of clients and features: which are tried, and what came of it.

`python -m tests.compat.table` (`make compat`) prints it; `test_table.py` runs the same cells as
tests. Clients are imported when they are tried: some take seconds.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import importlib.metadata
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.compat.place import Place, a_place

WIDTH_CHARS: Final = 140
"""Of the table where no terminal says how wide it is."""


class Feature(enum.StrEnum):
    """What clients do. Each is a method of a client's class."""

    CHAT = "chat"
    STREAMING = "streaming"
    TOOLS = "tools"
    STRUCTURED_OUTPUT = "structured_output"
    EMBEDDINGS = "embeddings"
    ERRORS = "errors"
    CANCELLATION = "cancellation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One client, as it is used."""

    package: str
    room: str
    """The module with its class, `Client`."""
    route: str = ""
    """Which of several APIs it speaks; given to its class."""
    lacks: Mapping[Feature, str] = dataclasses.field(default_factory=dict)
    """What the client has no function for, and why."""

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return f"{self.package} ({self.route})" if self.route else self.package

    def run(self, feature: Feature, place: Place) -> None:
        """Try *feature*. Raises whatever goes wrong."""
        room = importlib.import_module(f"tests.compat.{self.room}")
        client = room.Client(place, self.route) if self.route else room.Client(place)
        getattr(client, feature.value)()


_NO_EMBEDDINGS: Final = {Feature.EMBEDDINGS: "Anthropic's API has none"}
ROWS: Final = (
    Row(package="ollama", room="ollamaclient"),
    Row(package="openai", room="openaiclient"),
    Row(package="anthropic", room="anthropicclient", lacks=_NO_EMBEDDINGS),
    Row(package="langchain-ollama", room="langchainclient"),
    Row(package="litellm", room="litellmclient", route="ollama_chat"),
    Row(package="litellm", room="litellmclient", route="openai"),
    Row(package="litellm", room="litellmclient", route="anthropic", lacks=_NO_EMBEDDINGS),
)
CELLS: Final = tuple(
    (row, feature) for row in ROWS for feature in Feature if feature not in row.lacks
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a cell: nothing, or what went wrong."""

    took_s: float
    failure: str = ""


def try_cell(row: Row, feature: Feature, place: Place) -> Outcome:
    """Try one cell, whatever a client of somebody else's may raise."""
    began = time.monotonic()
    try:
        row.run(feature, place)
    except Exception:  # noqa: BLE001 - a table tells of every failure
        return Outcome(time.monotonic() - began, traceback.format_exc())
    return Outcome(time.monotonic() - began)


def render(outcomes: Mapping[tuple[str, Feature], Outcome]) -> Table:
    """Return the table."""
    table = Table(title="clients and features")
    table.add_column("client")
    table.add_column("version")
    for feature in Feature:
        table.add_column(feature.value.replace("_", " "), justify="center")
    for row in ROWS:
        marks = [_mark(outcomes.get((row.name, feature))) for feature in Feature]
        table.add_row(row.name, importlib.metadata.version(row.package), *marks)
    return table


def _mark(outcome: Outcome | None) -> str:
    if outcome is None:
        return "[dim]n/a[/dim]"
    if outcome.failure:
        return "[bold red]FAIL[/bold red]"
    return f"[green]pass[/green] [dim]{outcome.took_s:.1f} s[/dim]"


def main() -> int:
    """Try all cells and print the table; return 0 if all passed."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_CHARS)
    outcomes: dict[tuple[str, Feature], Outcome] = {}
    with tempfile.TemporaryDirectory() as folder, a_place(Path(folder)) as place:
        for row, feature in CELLS:
            outcomes[row.name, feature] = try_cell(row, feature, place)
    for (name, feature), outcome in outcomes.items():
        if outcome.failure:
            console.rule(f"{name}: {feature.value}")
            console.print(outcome.failure, markup=False, highlight=False)
    console.print(render(outcomes))
    return int(any(outcome.failure for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
