"""Counting the free clusters of a FAT, against one entry after another."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.boot.fat import count_free_clusters, get_fat_entry


@settings(deadline=None)
@given(st.sampled_from((12, 16, 32)), st.integers(0, 70), st.integers(0, 9), st.randoms(use_true_random=False))
def test_free_clusters_are_those_whose_entry_is_zero(bits: int, count: int, extra: int, random: object) -> None:
    size = -(-(count + 2) * bits // 8) + extra
    table = bytes(random.choice((0, 0, 0, 1, 0x10, 0xF0, 255)) for _ in range(size))  # type: ignore[attr-defined]
    expected = sum(get_fat_entry(table, cluster, bits) == 0 for cluster in range(2, count + 2))
    assert count_free_clusters(table, count, bits) == expected
