from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.data.select import partition, select
from edgeq.errors import DataError
from edgeq.types import Dataset, Sample

FULL = Dataset(tuple(Sample(f"{i:04}", Path(f"{i:04}.jpg"), i) for i in range(1000)), (), None, "here")


def test_even_spread_in_order() -> None:
    chosen = [sample.truth for sample in select(FULL, 50).samples]
    assert [index // 20 for index in chosen] == list(range(50))


def test_same_every_time_and_other_with_another_seed() -> None:
    assert select(FULL, 64) == select(FULL, 64)
    assert select(FULL, 64, seed=1) != select(FULL, 64)


@pytest.mark.parametrize("count", [1, 7, 333, 999, 1000])
def test_exact_count_and_partition(count: int) -> None:
    taken, rest = partition(FULL, count, seed=3)
    assert len(taken.samples) == count
    assert sorted(s.key for s in taken.samples + rest.samples) == [s.key for s in FULL.samples]


def test_more_than_there_are_and_none() -> None:
    assert select(FULL, 5000) is FULL
    with pytest.raises(DataError, match="1 or more"):
        select(FULL, 0)
