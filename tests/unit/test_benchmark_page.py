"""docs/benchmarks.md has no rows that nothing measures any more."""

from __future__ import annotations

from pathlib import Path

from benchmarks.groups import COMPARED
from benchmarks.measure import Compared
from benchmarks.pages import stale_lines

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def test_every_row_is_still_measured() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert not stale_lines(text, COMPARED)
    lines = stale_lines(text, [])
    assert sum(line.startswith("| ") for line in lines) == sum(line.startswith("- ") for line in lines) >= 20


def test_a_row_of_nothing_is_stale() -> None:
    known = Compared("copy", "ours", "`cp`", "cp", 1.0)
    page = "| copy | `cp` | at most 1 |\n| copy | `dd` | at most 1 |\n- copy, against `dd`: 1 / 2\n"
    assert stale_lines(page, [known]) == ["| copy | `dd` | at most 1 |", "- copy, against `dd`: 1 / 2"]
