"""The frames of `ollamactl top`: one picture of devices, runners, queue and speed. Pure.

A frame is made for a size and never larger: what does not fit is counted instead. When to make
one, and the keyboard, are for `ollamactl/commands/top.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ollamactl.commands.adminshared import (
    device_label,
    expires_cell,
    span,
    speed_cell,
    state_words,
    waits_cell,
)
from ollamactl.listing import FAINT, STYLES, UNKNOWN, Cell, state_cell, text_of
from ollamactl.render import printable
from ollamad.adminwire import Device, Queue, Runner, Sensors, Status, Waiting
from ollamad.units import format_bytes

SPEEDS_KEPT: Final = 40
"""Samples of the speed that the header draws."""
BAR_COLUMNS: Final = 16
ROWS_MIN: Final = 3
"""Rows that each table gets if it has them, before others get more."""
NAME_COLUMNS_MAX: Final = 26
"""Of a longer name the end is shown, which tells models apart."""

_SPARKS: Final = "▁▂▃▄▅▆▇█"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the daemon said, all within a moment."""

    status: Status
    devices: tuple[Device, ...]
    runners: tuple[Runner, ...]
    queue: Queue
    problem: str = ""
    """Why this is not of now."""


class Speeds:
    """The last speeds, for a picture of them."""

    def __init__(self) -> None:
        self._kept: deque[float] = deque(maxlen=SPEEDS_KEPT)

    def take(self, tokens_per_s: float) -> None:
        """Remember one more."""
        self._kept.append(tokens_per_s)

    def sparks(self, n_columns: int) -> str:
        """Return the last ones as a row of bars, the fastest as high as a line."""
        shown = list(self._kept)[-n_columns:] if n_columns > 0 else []
        fastest = max(shown, default=0.0)
        if fastest <= 0:
            return ""
        top = len(_SPARKS) - 1
        return "".join(_SPARKS[round(speed / fastest * top)] for speed in shown)


def frame(
    snapshot: Snapshot, speeds: Speeds, *, columns: int, rows: int, is_live: bool = True
) -> RenderableType:
    """Return a picture of at most *rows* lines."""
    header = [*_header(snapshot, speeds, columns)]
    footer = [Text("q quits", FAINT)] if is_live else []
    # Each table has a line with its headers, and between two there is an empty one.
    tables: Sequence[_Part] = (
        _Part(snapshot.devices, _devices_table),
        _Part(snapshot.runners, _runners_table),
        _Part(snapshot.queue.waiting, _queue_table, snapshot.queue.total),
    )
    free = rows - len(header) - len(footer) - 2 * len(tables)
    shares = share_rows([len(part.items) for part in tables], free)
    body: list[RenderableType] = []
    for part, n_rows in zip(tables, shares, strict=True):
        body += ["", part.draw(n_rows, columns)]
    return Group(*header, *body, *footer)


def share_rows(wanted: Sequence[int], n_rows: int) -> list[int]:
    """Return how many rows each table gets: a few for each first, then in their order."""
    shares, n_rows = [0] * len(wanted), max(n_rows, 0)
    for limit in (ROWS_MIN, max(wanted, default=0)):
        for i, n_wanted in enumerate(wanted):
            more = min(max(min(n_wanted, limit) - shares[i], 0), n_rows)
            shares[i] += more
            n_rows -= more
    return shares


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    items: Sequence[Device] | Sequence[Runner] | Sequence[Waiting]
    table: Callable[[], tuple[Table, Callable[..., list[Cell]]]]
    total: int | None = None
    """How many there are, where not all are listed."""

    def draw(self, n_rows: int, columns: int) -> Table:
        table, row_of = self.table()
        total = self.total if self.total is not None else len(self.items)
        # The last row tells how many are not shown.
        n_shown = min(n_rows, len(self.items))
        if total > n_shown > 0:
            n_shown -= 1
        for item in self.items[:n_shown]:
            table.add_row(*map(text_of, row_of(item)))
        if total > n_shown and n_rows > 0:
            table.add_row(Text(f"... and {total - n_shown} more", FAINT))
        table.width = columns
        return table


def _header(snapshot: Snapshot, speeds: Speeds, columns: int) -> list[Text]:
    status = snapshot.status
    first = Text("ollamad ", "bold", no_wrap=True, overflow="ellipsis")
    first.append(f"{printable(status.version)}  ")
    first.append(status.state.value, STYLES.get(status.state.value, ""))
    first.append(f"  up {span(status.uptime_s)}")
    first.append(f"  {printable(status.listen)}", FAINT)
    second = Text(no_wrap=True, overflow="ellipsis")
    second.append(f"{status.tokens_per_s:,.1f} tokens/s", "bold")
    second.append(f"  {status.requests} running, {snapshot.queue.total} waiting")
    second.append(f"  {status.generated_tokens:,} tokens  ", FAINT)
    second.append(speeds.sparks(columns - len(second.plain)), "cyan")
    lines = [first, second]
    if snapshot.problem:
        text = f"not of now: {printable(snapshot.problem)}".replace("\n", " ")
        lines.append(Text(text, "bold red", no_wrap=True, overflow="ellipsis"))
    elif status.cooling:
        told = ", ".join(f"{each.model} ({span(each.retry_after_s)})" for each in status.cooling)
        lines.append(
            Text(f"cooling: {printable(told)}", "yellow", no_wrap=True, overflow="ellipsis")
        )
    return lines


def _table(*headers: str, numbers: str = "") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    right = numbers.split(" ")
    for i, name in enumerate(headers):
        table.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=2 if i == 0 else 3 if name == "WAITS FOR" else None,
            min_width=8 if i == 0 else None,
        )
    return table


def _devices_table() -> tuple[Table, Callable[[Device], list[Cell]]]:
    return _table("DEVICE", "HEALTH", "MEMORY", "FREE", "BUSY", "TEMP", numbers="FREE BUSY TEMP"), (
        _device_row
    )


def _device_row(device: Device) -> list[Cell]:
    sensors = device.sensors or Sensors()
    busy = f"{sensors.utilisation:.0%}" if sensors.utilisation is not None else UNKNOWN
    heat = f"{sensors.temperature_c:.0f} C" if sensors.temperature_c is not None else UNKNOWN
    label = device_label(device)
    name = device.name if device.name and device.name != label else ""
    return [
        f"{label}  {name}".rstrip(),
        state_cell(device.health.value),
        memory_bar(device),
        format_bytes(max(device.free_bytes, 0)),
        busy,
        heat,
    ]


def memory_bar(device: Device) -> str:
    """Return what of a device is ours, others', and free: `█████▒▒░░░░░░░░░`."""
    capacity = max(device.capacity_bytes, 1)
    # What is there at all is seen, however little it is.
    ours = min(math.ceil(device.reserved_bytes / capacity * BAR_COLUMNS), BAR_COLUMNS)
    others = min(math.ceil(device.others_bytes / capacity * BAR_COLUMNS), BAR_COLUMNS - ours)
    return "█" * ours + "▒" * others + "░" * (BAR_COLUMNS - ours - others)


def short_name(name: str) -> str:
    """Return *name*, or its end if it is long: `…/my-model:70b-q4`."""
    return name if len(name) <= NAME_COLUMNS_MAX else f"…{name[1 - NAME_COLUMNS_MAX :]}"


def _runners_table() -> tuple[Table, Callable[[Runner], list[Cell]]]:
    headers = ("MODEL", "STATE", "MEMORY", "SLOTS", "CACHE", "TOKENS/S", "LEAVES")
    return _table(*headers, numbers="MEMORY SLOTS CACHE TOKENS/S"), _runner_row


def _runner_row(runner: Runner) -> list[Cell]:
    engine = runner.engine
    used = f"{engine.kv_used / engine.kv_cells:.0%}" if engine and engine.kv_cells else UNKNOWN
    return [
        short_name(runner.model),
        state_cell(runner.state.value, state_words(runner)),
        format_bytes(runner.held_bytes),
        f"{engine.slots_busy if engine else 0}/{runner.n_slots}",
        used,
        speed_cell(runner.tokens_per_s),
        expires_cell(runner),
    ]


def _queue_table() -> tuple[Table, Callable[[Waiting], list[Cell]]]:
    return _table("WAITING", "PLACE", "WAITED", "WAITS FOR", numbers="PLACE WAITED"), _waiting_row


def _waiting_row(waiting: Waiting) -> list[Cell]:
    return [
        short_name(waiting.model),
        str(waiting.place),
        span(waiting.waited_s),
        waits_cell(waiting),
    ]
