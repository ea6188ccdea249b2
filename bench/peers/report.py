"""The end of a run: a table for people, a file for programs, and a picture if there is matplotlib.

The picture is optional because a daemon's checkout should not need a plotting library.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.peers.figures import Better, spread
from bench.peers.results import Results, Row, as_json, rows

HOW_TO_GET_MATPLOTLIB: Final = (
    "no picture: matplotlib is missing. Install it with:"
    " .venv/bin/python -m pip install --require-hashes -r requirements/bench.txt"
)
STYLES: Final = {"ahead": "green", "behind": "red", "even": "", "": "dim"}
COLOURS: Final = {"ahead": "#3a7d44", "behind": "#b23a48", "even": "#8a8a8a"}
QUIET_SHARE: Final = 0.05
"""What a system's own housekeeping may take."""

TICKS: Final = (0.05, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10, 20)
BAR_INCHES: Final = 0.28
WIDTH_WITHOUT_TERMINAL: Final = 150


def number(value: float | None) -> str:
    """Return *value* with three figures that count, and never in powers of ten."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(all_rows: Sequence[Row]) -> Table:
    """Return the table of *all_rows*; the ratio's side that is good is told by an arrow."""
    shown = Table(title="ours / peer, by rounds", title_justify="left", highlight=False)
    for heading in ("model", "case", "figure"):
        shown.add_column(heading, overflow="fold")
    for heading in ("ours", "peer", "ratio", "min", "max", ""):
        shown.add_column(heading, justify="right", no_wrap=True)
    previous = ""
    for row in all_rows:
        arrow = "↑" if row.better is Better.HIGHER else "↓"
        ratio = row.ratio
        shown.add_row(
            row.model if row.model != previous else "",
            row.what,
            f"{row.unit} {arrow}",
            number(row.ours),
            number(row.other),
            *(
                (f"{ratio.median:.2f}", f"{ratio.least:.2f}", f"{ratio.most:.2f}")
                if ratio
                else ("-", "-", "-")
            ),
            row.verdict,
            style=STYLES[row.verdict],
        )
        previous = row.model
    return shown


def show(results: Results) -> None:
    """Print the table, and why something is missing in it."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_WITHOUT_TERMINAL)
    console.print(table(rows(results.series())))
    for (model, case, side), reason in results.left_out.items():
        console.print(f"left out: {case} on {side} ({model}): {reason}", markup=False, style="dim")


def disturbed(results: Results) -> str:
    """Return what a reader must know about the others on the machine."""
    shares = spread(results.disturbances)
    if shares is None:
        return "nothing was measured"
    told = f"others took {shares.median:.0%} of the processor meanwhile, at most {shares.most:.0%}"
    if shares.median <= QUIET_SHARE:
        return told
    return f"{told}: TOO MUCH for figures that are worth keeping; run it on a quiet machine"


def write_json(
    path: Path, results: Results, machine: Mapping[str, object], settings: Mapping[str, object]
) -> None:
    """Write everything that was measured to *path*."""
    document = {
        "machine": machine,
        "settings": settings,
        "series": as_json(results),
        "disturbances": results.disturbances,
        "left_out": [
            {"model": model, "case": case, "side": side, "reason": reason}
            for (model, case, side), reason in results.left_out.items()
        ],
    }
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(document, indent=2, default=str) + "\n", encoding="utf-8")
    partial.replace(path)


def advantage(row: Row, ratio: float) -> float:
    """Return *ratio* turned so that more than 1 is always better."""
    return ratio if row.better is Better.HIGHER or ratio <= 0 else 1 / ratio


def plot(path: Path, results: Results, subtitle: str) -> str | None:
    """Draw the ratios as bars into *path*; return what to do if that cannot be done."""
    try:
        # Not an import statement: type checks must pass without it. Any: its own objects.
        matplotlib: Any = importlib.import_module("matplotlib")
        matplotlib.use("Agg")
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        return HOW_TO_GET_MATPLOTLIB
    bars = [row for row in rows(results.series()) if row.ratio is not None]
    if not bars:
        return "no picture: there is nothing to compare"
    figure, axes = pyplot.subplots(figsize=(11, 1.5 + BAR_INCHES * len(bars)))
    for n, row in enumerate(bars):
        if row.ratio is None:
            raise AssertionError("rows without a ratio were left out")
        middle = advantage(row, row.ratio.median)
        ends = sorted(advantage(row, end) for end in (row.ratio.least, row.ratio.most))
        errors = [[max(0.0, middle - ends[0])], [max(0.0, ends[1] - middle)]]
        axes.barh(n, middle - 1, left=1, color=COLOURS[row.verdict])
        axes.errorbar(middle, n, xerr=errors, color="#333333", linewidth=1, capsize=2)
    axes.set_yticks(range(len(bars)), [f"{row.model}: {row.what} [{row.unit}]" for row in bars])
    axes.invert_yaxis()
    axes.axvline(1.0, color="#333333", linewidth=1)
    axes.set_xscale("log")
    axes.margins(y=0.01)
    left, right = axes.get_xlim()
    ticks = [tick for tick in TICKS if left <= tick <= right]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("times as good as the peer (right of 1 is better); bars: median, whiskers: all")
    axes.set_title(f"ollamad against llama-server\n{subtitle}", fontsize=9)
    axes.tick_params(labelsize=7)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    pyplot.close(figure)
    return None
