"""Names that only UDF or Joliet shows: genisoimage hides them from ISO 9660, as every Windows disc does."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.errors import UnsupportedError
from tests.fixtures import tools


def _build(folder: Path, files: dict[str, bytes], *options: str) -> Path:
    tools.require("genisoimage")
    for name, data in files.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes(data)
    tools.run(["genisoimage", "-quiet", *options, "-o", folder / "in.iso", folder / "tree"])
    return folder / "in.iso"


@pytest.mark.parametrize(("options", "kind"), [(("-udf",), "UDF"), (("-J",), "Joliet"), (("-J", "-R"), "Joliet")])
def test_no_second_directory_of_a_name_is_made(tmp_path: Path, options: tuple[str, ...], kind: str) -> None:
    files = {"readme.txt": b"disc", "sources/boot.wim": b"OLD"}
    iso = _build(tmp_path, files, *options, "-hide", "sources")
    (tmp_path / "new").write_bytes(b"NEW")
    with pytest.raises(UnsupportedError, match=f"sources: has other things .* in its {kind} tree"):
        remaster(iso, tmp_path / "out.iso", add_iso=[f"{tmp_path}/new:/sources/boot.wim"])
