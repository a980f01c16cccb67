"""docs/boot.md is what was measured, and what was measured is still so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot_table import measure, peers
from tests.boot_table.render import PAGE, load, render
from tests.fixtures import families, tools

RESULTS = load()
TOO_LARGE = "data-large"
"""Its copies take gigabytes; `make boot-table` measures it."""


def test_the_page_is_rendered_from_the_results() -> None:
    assert PAGE.read_text() == render(RESULTS)
    assert list(RESULTS["families"]) == list(families.FAMILIES)
    assert list(RESULTS["peers"]) == list(peers.FAMILIES)


def test_ours_keeps_everything() -> None:
    for name, rows in RESULTS["peers"].items():
        assert rows, name
        for what, marks in rows.items():
            assert set(marks) == set(peers.TOOLS)
            given_up = name == "grub-mkrescue" and marks["cosremaster"] == "lost"
            assert marks["cosremaster"] in ("kept", "yes") or given_up, (name, what)


def test_every_image_boots_as_it_did() -> None:
    """`tests/tools/test_families.py` boots the edited images; this is what `make boot-table` saw of all."""
    for name, row in RESULTS["families"].items():
        expected = {" ".join(way): [True, True] for way in measure.ways(families.FAMILIES[name])}
        assert row["boots"] == expected, name


@pytest.mark.parametrize("name", [name for name in families.FAMILIES if name != TOO_LARGE])
def test_a_family_still_earns_its_marks(tmp_path: Path, name: str) -> None:
    tools.require(*families.TOOLS)
    told = RESULTS["families"][name]
    row, _ = measure.marks(name, tmp_path)
    assert (row.inspect, row.copy, row.verify) == (told["inspect"], told["copy"], told["verify"]) == (True, True, True)
    assert row.edit == told["edit"] != "refused"
