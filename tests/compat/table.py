"""The table of clients and features: `python -m tests.compat.table` (`make compat`) prints it.

`test_clients.py` runs the same cells as tests.
"""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.compat.place import a_place
from tests.compat.rows import ROWS, Feature
from tests.compat.trial import Outcome, try_row

WIDTH_CHARS: Final = 140
"""Of the table where no terminal says how wide it is."""

Outcomes = Mapping[str, Mapping[Feature, Outcome]]
"""By the names of rows; what is not there is nothing the client can do."""


def render(outcomes: Outcomes) -> Table:
    """Return the table."""
    table = Table(title="clients and features")
    table.add_column("client")
    table.add_column("version")
    for feature in Feature:
        table.add_column(feature.value.replace("_", " "), justify="center")
    for row in ROWS:
        marks = [_mark(outcomes[row.name].get(feature)) for feature in Feature]
        table.add_row(row.name, importlib.metadata.version(row.package), *marks)
    return table


def n_failed(outcomes: Outcomes) -> int:
    """Return how many cells failed."""
    return sum(bool(outcome.failure) for cells in outcomes.values() for outcome in cells.values())


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
    with tempfile.TemporaryDirectory() as folder, a_place(Path(folder)) as place:
        outcomes = {row.name: try_row(row, place) for row in ROWS}
    for name, cells in outcomes.items():
        for feature, outcome in cells.items():
            if outcome.failure:
                console.rule(f"{name}: {feature.value}")
                console.print(outcome.failure, markup=False, highlight=False)
    console.print(render(outcomes))
    return int(n_failed(outcomes) > 0)


if __name__ == "__main__":
    sys.exit(main())
