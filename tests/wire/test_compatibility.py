"""`docs/compatibility.md` is true: its routes are those there are, and its claims have tests."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from trio.testing import MockClock

from tests.wire.apps import noted_apps, routes_of
from tests.wire.site import a_site

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "compatibility.md"
VERDICTS: Final = {"same", "better", "not supported"}
BESIDE_QUART: Final = {
    ("HEAD", "/"),
    ("HEAD", "/api/blobs/<digest>"),
    ("POST", "/api/blobs/<digest>"),
}
"""Routes that other parts of the application answer."""

_ROUTE: Final = re.compile(r"`(GET|HEAD|POST|PUT|PATCH|DELETE) (/[^`]*)`")
_PARAMETER: Final = re.compile(r"<[^>]+>|\{[^}]+\}")
_TEST: Final = re.compile(r"`(test_\w+)`")
_DEFINED: Final = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
_HEAD: Final = ["route or field", "verdict", "note", "test"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One claim."""

    what: str
    verdict: str
    note: str
    tests: tuple[str, ...]

    @property
    def routes(self) -> set[tuple[str, str]]:
        return {(method, unnamed(path)) for method, path in _ROUTE.findall(self.what)}


def unnamed(path: str) -> str:
    """Return *path* with its parameters' places only: the page may call them what it likes."""
    return _PARAMETER.sub("<>", path)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


@cache
def rows() -> tuple[Row, ...]:
    """Return the rows of all tables with these four columns."""
    found = []
    is_inside = False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            is_inside = False
        elif cells(line) == _HEAD:
            is_inside = True
        elif is_inside and not set(line) <= set("|-: "):
            what, verdict, note, test = cells(line)
            found.append(Row(what, verdict, note, tuple(_TEST.findall(test))))
    return tuple(found)


@cache
def all_tests() -> frozenset[str]:
    """Return the names of all tests that there are."""
    names: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        names.update(
            re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
        )
    return frozenset(names)


def test_the_page_has_rows() -> None:
    assert len(rows()) > 50


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.what)
def test_a_row_has_a_verdict_and_what_is_claimed_has_a_test(row: Row) -> None:
    assert row.verdict in VERDICTS
    if row.verdict == "not supported":
        assert row.note, "what does the caller get?"
    else:
        assert row.tests, "every claim has a test"
    if row.verdict == "better":
        assert row.note, "better how?"
    assert set(row.tests) <= all_tests()


async def test_every_route_is_on_the_page_and_every_route_on_the_page_is_there(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = noted_apps(monkeypatch)
    async with a_site(tmp_path):
        real = routes_of(made[0]) | BESIDE_QUART

    told = set().union(*(row.routes for row in rows() if row.verdict != "not supported"))
    assert told == {(method, unnamed(path)) for method, path in real}
