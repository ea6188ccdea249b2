"""What was measured, round by round, and the rows that a reader sees of it.

Pure. A round in which one side failed has None there, so that rounds keep their places.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from bench.peers.figures import Better, Figure, Spread, is_ahead, ratios, spread

OURS = "ollamad"
PEER = "llama-server"
LIMIT = "limit"
"""llama-batched-bench, which takes the peer's place in the rows against the limit."""

SERVERS = (OURS, PEER)


@dataclasses.dataclass(slots=True)
class Series:
    """One figure of one case: its values by side, one a round."""

    model: str
    case: str
    title: str
    figure: Figure
    values: dict[str, list[float | None]] = dataclasses.field(default_factory=dict)

    def of(self, side: str) -> list[float]:
        """Return what was measured on *side*."""
        return [value for value in self.values.get(side, ()) if value is not None]

    def ratio(self, against: str = PEER) -> Spread | None:
        """Return the spread of the ratios ours/*against* over the rounds."""
        return spread(ratios(self.values.get(OURS, []), self.values.get(against, [])))


class Results:
    """All series of a run."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, str], Series] = {}
        self.left_out: dict[tuple[str, str, str], str] = {}
        """Why a case was not measured, by model, case and side."""

        self.disturbances: list[float] = []
        """The share of the processor that others took, by measurement."""

    def add(
        self,
        model: str,
        case: str,
        title: str,
        figure: Figure,
        side: str,
        *,
        n_round: int,
        value: float | None,
    ) -> Series:
        """Note a value of round *n_round* (from 0), and return its series."""
        key = (model, case, figure.name)
        series = self._series.setdefault(key, Series(model, case, title, figure))
        values = series.values.setdefault(side, [])
        values.extend([None] * (n_round + 1 - len(values)))
        values[n_round] = value
        return series

    def series(self) -> list[Series]:
        """Return every series, with the rounds of all sides in line."""
        found = list(self._series.values())
        for each in found:
            n_rounds = max(map(len, each.values.values()))
            for values in each.values.values():
                values.extend([None] * (n_rounds - len(values)))
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    model: str
    what: str
    unit: str
    better: Better
    ours: float | None
    other: float | None
    ratio: Spread | None

    @property
    def verdict(self) -> str:
        """`ahead` or `behind` if all rounds agree, `even` if they do not; empty without a pair."""
        if self.ratio is None:
            return ""
        ends = {is_ahead(ratio, self.better) for ratio in (self.ratio.least, self.ratio.most)}
        return "even" if len(ends) == 2 else "ahead" if ends == {True} else "behind"


def rows(all_series: Iterable[Series]) -> list[Row]:
    """Return the rows of a table: one a figure, and one more where there is a limit."""
    found: list[Row] = []
    for series in all_series:
        for against in (PEER, LIMIT):
            if against is LIMIT and LIMIT not in series.values:
                continue
            ours, other = spread(series.of(OURS)), spread(series.of(against))
            found.append(
                Row(
                    model=series.model,
                    what=series.title + (" / limit" if against is LIMIT else ""),
                    unit=series.figure.unit,
                    better=series.figure.better,
                    ours=ours.median if ours else None,
                    other=other.median if other else None,
                    ratio=series.ratio(against),
                )
            )
    return found


def as_json(results: Results) -> list[Mapping[str, object]]:
    """Return every series with all of its values, for programs."""
    return [
        {
            "model": series.model,
            "case": series.case,
            "title": series.title,
            "figure": series.figure.name,
            "unit": series.figure.unit,
            "better": series.figure.better.value,
            "values": series.values,
            "ratio": dataclasses.asdict(ratio) if (ratio := series.ratio()) else None,
            "ratio_to_limit": dataclasses.asdict(ratio) if (ratio := series.ratio(LIMIT)) else None,
        }
        for series in results.series()
    ]
