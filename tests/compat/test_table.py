"""Every client that people bring does what it can do, against a real daemon with real models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compat.place import Place, a_place
from tests.compat.table import CELLS, Feature, Row

pytestmark = [pytest.mark.process, pytest.mark.model]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One daemon for all clients."""
    with a_place(tmp_path_factory.mktemp("compat")) as one:
        yield one


@pytest.mark.parametrize(
    ("row", "feature"), CELLS, ids=[f"{row.name}-{feature.value}" for row, feature in CELLS]
)
def test_the_client_just_works(row: Row, feature: Feature, place: Place) -> None:
    row.run(feature, place)
