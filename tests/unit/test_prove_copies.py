"""What is compared between an image and its new one: the same bytes once."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cosremaster.io.pieces import PieceTable, Range, have_same_bytes
from cosremaster.io.source import open_file
from cosremaster.iso import prove


def test_bytes_that_two_structures_name_are_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A boot image, a partition of the MBR and one of the GPT may be one range; other ranges are looked at."""
    data = bytearray(random.Random(1).randbytes(9000))
    (tmp_path / "old").write_bytes(data)
    data[5000] ^= 1
    (tmp_path / "new").write_bytes(data)
    compared: list[int] = []

    def compare(first: PieceTable, second: PieceTable) -> bool:
        """Counts the bytes."""
        compared.append(first.length)
        return have_same_bytes(first, second)

    monkeypatch.setattr("cosremaster.iso.prove.have_same_bytes", compare)
    with open_file(tmp_path / "old") as old, open_file(tmp_path / "new") as new:
        before: Any = SimpleNamespace(source=Range(old, 0, old.size))
        after: Any = SimpleNamespace(source=Range(new, 0, new.size))
        plan: Any = SimpleNamespace(overwrites={})
        copies = prove._Copies(before, after, plan)
        assert [copies.are_same(0, 0, 4000) for _ in range(3)] == [True] * 3
        assert [copies.are_same(4000, 4000, 4000) for _ in range(2)] == [False] * 2
        assert not copies.are_same(0, 1, 4000)
    assert compared == [4000] * 3
