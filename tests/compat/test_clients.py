"""Every client that people bring does what it can do, against a real daemon with real models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache

import pytest

from tests.compat.place import a_place
from tests.compat.rows import ROWS, Feature, Row
from tests.compat.table import n_failed, render
from tests.compat.trial import Outcome, try_row

CELLS = [
    pytest.param(row, feature, id=f"{row.name}-{feature.value}")
    for row in ROWS
    for feature in row.features
]

Tried = Callable[[Row], Mapping[Feature, Outcome]]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    """Tries a client the first time it is asked for; one daemon is enough for all."""
    with a_place(tmp_path_factory.mktemp("compat")) as place:

        @cache
        def once(name: str) -> Mapping[Feature, Outcome]:
            (row,) = [one for one in ROWS if one.name == name]
            return try_row(row, place)

        yield lambda row: once(row.name)


@pytest.mark.process
@pytest.mark.model
@pytest.mark.parametrize(("row", "feature"), CELLS)
def test_the_client_just_works(row: Row, feature: Feature, tried: Tried) -> None:
    failure = tried(row)[feature].failure

    assert not failure, failure


def test_the_table_tells_what_passed_what_failed_and_what_there_is_not() -> None:
    passed = {
        row.name: {feature: Outcome(feature=feature, took_s=1.0) for feature in row.features}
        for row in ROWS
    }
    failed = {
        **passed,
        "ollama": {Feature.CHAT: Outcome(feature=Feature.CHAT, took_s=1.0, failure="no")},
    }

    client, _version, chat, streaming, *_ = (list(one.cells) for one in render(failed).columns)

    assert (n_failed(passed), n_failed(failed)) == (0, 1)
    assert client == [row.name for row in ROWS]
    assert (chat[0], streaming[0]) == ("[bold red]FAIL[/bold red]", "[dim]n/a[/dim]")
    assert "pass" in str(chat[1])
