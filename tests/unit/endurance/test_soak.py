from __future__ import annotations

import pytest

from tests.endurance.soak import RSS_GROWTH_MAX, Sample, growth


@pytest.mark.parametrize(
    ("rss", "grew"),
    [
        ([100] * 9, 0.0),
        ([100, 100, 900, 100, 100, 100, 100, 100, 900], 0.0),  # Bodies that were being read.
        ([100, 100, 100, 105, 105, 105, 110, 110, 110], 0.1),
        ([100], 0.0),
    ],
)
def test_memory_is_judged_by_medians_of_thirds(rss: list[int], grew: float) -> None:
    assert growth([Sample(one, 0, 0) for one in rss]) == pytest.approx(grew)
    assert RSS_GROWTH_MAX < 0.1
