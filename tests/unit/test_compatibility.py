"""docs/compatibility.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_every_row_names_a_test() -> None:
    page = (REPOSITORY / "docs/compatibility.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and " --- " not in line]
    rows = [row for row in rows if not row.endswith("| test |")]
    assert len(rows) > 40
    for row in rows:
        path, _, name = row.rstrip(" |").rpartition("| ")[2].partition("::")
        text = (REPOSITORY / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", text, re.MULTILINE), row
