"""docs/benchmarks.md has no rows that nothing measures any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.groups import COMPARED
from benchmarks.measure import Compared, Row
from benchmarks.pages import renewed, restarted, stale_lines

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


@pytest.mark.parametrize(
    ("machine", "mark"),
    [
        ("2026-11-26, a CPU, 2 cores", ""),
        ("2026-11-29, a CPU, 2 cores", "(2026-11-29) "),
        ("2026-11-29, a CPU, 4 cores", "(2026-11-29, a CPU, 4 cores) "),
    ],
)
def test_a_row_of_another_day_or_machine_says_so(machine: str, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.pages.machine", lambda: machine)
    known = [Compared(what, "ours", "`cp`", "cp", 1.0) for what in ("copy", "move")]
    page = "2026-11-26, a CPU, 2 cores\n\n| copy | `cp` | at most 1 |\n\n- copy, against `cp`: 1 / 2\n"
    rows = [Row(compared, "s", (3.0,), (2.0,)) for compared in known]
    new = renewed(page, rows, known).splitlines()
    assert new[0] == page.splitlines()[0]
    assert [line for line in new if line.startswith("- ")] == [
        f"- {what}, against `cp`: {mark}3 / 2" for what in ("copy", "move")
    ]
    assert sum(line.startswith(("| copy | `cp` | at most 1 | 1.5 |", "| move | `cp` |")) for line in new) == 2


def test_a_page_that_is_made_anew_says_of_its_old_rows_when_they_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.pages.machine", lambda: "2026-11-30, another CPU")
    known = [Compared(what, "ours", "`cp`", "cp", 1.0) for what in ("copy", "move", "link")]
    head = "2026-11-26, a CPU, 2 cores"
    raw = [
        "- copy, against `cp`: 3 / 2",
        "- move, against `cp`: (2026-11-29) 1.5e+02 / 2; 3 / 4",
        "- link, against `cp`: 1 / 2",
    ]
    text = restarted("\n".join([head, "", *(f"| {each.what} | `cp` | at most 1 |" for each in known), "", *raw, ""]))
    assert text.splitlines()[0] == "2026-11-30, another CPU"
    moved = "- move, against `cp`: (2026-11-29, a CPU, 2 cores) 1.5e+02 / 2; 3 / 4"
    assert text.splitlines()[-3:] == [
        f"- copy, against `cp`: ({head}) 3 / 2",
        moved,
        f"- link, against `cp`: ({head}) 1 / 2",
    ]
    new = renewed(text, [Row(known[0], "s", (3.0,), (4.0,), 0.25)], known).splitlines()
    assert new[-3] == "- copy, against `cp`: 3 / 4; meanwhile 25.0% of a core for others"
    assert new[-2:] == text.splitlines()[-2:]
