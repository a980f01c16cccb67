"""Every family boots after names of its tree were added, removed and renamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures import tools
from tests.fixtures.families import FAMILIES, PAYLOAD, Family, Way
from tests.support import qemu
from tests.support.family_edits import change

BOOTS = [(family, way) for family in FAMILIES.values() for way in family.boots if family.says]


@pytest.mark.parametrize(("family", "way"), BOOTS, ids=[f"{family.name}-{'-'.join(way)}" for family, way in BOOTS])
def test_boots_after_names_came_went_and_changed(family: Family, way: Way, tmp_path: Path, overlay: Path) -> None:
    """What the loader says comes from a file that is put back under its name by two renames, so from a new record."""
    tools.require(*qemu.TOOLS)
    out, words = tmp_path / "out.iso", "NEW-NAMES-AND-IT-BOOTS"
    renames, adds = [], [f"{overlay}:/"]
    for number, (path, says) in enumerate((family.says or {}).items()):
        (tmp_path / f"says-{number}").write_bytes(says(words))
        renames += [f"{path}:/moved-{number}.cfg", f"/moved-{number}.cfg:/{path}"]
        adds.append(f"{tmp_path}/says-{number}:/{path}")
    removes = ["README.txt"] if PAYLOAD in family.exchange else []
    result = change(family.name, out, add_iso=adds, remove_iso=removes, rename_iso=renames)
    assert len(result.iso_exchanged) == len(adds) - 1
    firmware, medium = way
    assert words in qemu.boot(out, firmware=firmware, medium=medium, until=words)
