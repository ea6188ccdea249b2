"""Ratios are taken round by round, and a verdict needs all rounds to agree."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from bench.peers import report
from bench.peers.figures import Better, Figure, Spread, percentile, ratios, spread
from bench.peers.results import LIMIT, OURS, PEER, Results, rows

SPEED = Figure("speed", "tokens/s", Better.HIGHER)
WAIT = Figure("wait", "ms", Better.LOWER)


def some_results(
    figure: Figure,
    ours: list[float | None],
    peer: list[float | None],
    limit: list[float] = (),  # type: ignore[assignment]
) -> Results:
    results = Results()
    for side, values in ((OURS, ours), (PEER, peer), (LIMIT, limit)):
        for n, value in enumerate(values):
            results.add("m", "c", "a case", figure, side, n_round=n, value=value)
    return results


def test_a_percentile_is_one_of_the_values() -> None:
    assert [percentile([4.0, 1.0, 3.0, 2.0], each) for each in (0, 50, 51, 95, 100)] == [
        *(1.0, 2.0, 3.0, 4.0, 4.0)
    ]
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


def test_a_spread_has_the_middle_of_the_values() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(1.0, 2.0, 3.0)
    assert spread([]) is None


def test_a_round_that_one_side_missed_has_no_ratio() -> None:
    assert ratios([2.0, None, 9.0], [1.0, 5.0, 3.0]) == [2.0, 3.0]


@pytest.mark.parametrize(
    ("figure", "ours", "verdict"),
    [
        (SPEED, [110.0, 120.0], "ahead"),
        (SPEED, [90.0, 80.0], "behind"),
        (SPEED, [90.0, 120.0], "even"),
        (WAIT, [90.0, 80.0], "ahead"),
        (WAIT, [110.0, 120.0], "behind"),
    ],
)
def test_a_verdict_needs_every_round(
    figure: Figure, ours: list[float | None], verdict: str
) -> None:
    row = rows(some_results(figure, ours, [100.0, 100.0]).series())[0]

    assert row.verdict == verdict


def test_a_limit_makes_a_row_of_its_own() -> None:
    peer, limit = rows(some_results(SPEED, [90.0], [100.0], [120.0]).series())

    assert (peer.other, limit.other) == (100.0, 120.0)
    assert limit.ratio == Spread(0.75, 0.75, 0.75)
    assert limit.what.endswith("/ limit")


def test_rounds_keep_their_places_when_a_side_stops() -> None:
    results = some_results(SPEED, [90.0, 80.0, 70.0], [100.0])

    assert results.series()[0].values[PEER] == [100.0, None, None]


def test_the_table_tells_what_is_better_and_who_is() -> None:
    shown = io.StringIO()
    results = some_results(WAIT, [50.0, 40.0], [100.0, 100.0])
    Console(file=shown, width=140).print(report.table(rows(results.series())))

    assert "ms ↓" in shown.getvalue()
    assert "0.45" in shown.getvalue()
    assert "ahead" in shown.getvalue()


def test_the_file_has_every_value(tmp_path: Path) -> None:
    results = some_results(SPEED, [90.0, None], [100.0, 100.0])
    results.left_out["m", "json", OURS] = "not supported"
    report.write_json(tmp_path / "x.json", results, {"processor": "p"}, {"rounds": 2})
    document = json.loads((tmp_path / "x.json").read_text())

    assert document["series"][0]["values"] == {OURS: [90.0, None], PEER: [100.0, 100.0]}
    assert document["series"][0]["ratio"]["median"] == 0.9
    assert document["left_out"][0]["reason"] == "not supported"


def test_an_advantage_is_more_than_one_in_either_direction() -> None:
    faster, shorter = (
        rows(some_results(figure, [2.0], [1.0]).series())[0] for figure in (SPEED, WAIT)
    )

    assert report.advantage(faster, 2.0) == 2.0
    assert report.advantage(shorter, 2.0) == 0.5


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (1234.5, "1,234"), (12.34, "12.3"), (0.123, "0.12")]
)
def test_numbers_have_three_figures_that_count(value: float | None, text: str) -> None:
    assert report.number(value) == text
