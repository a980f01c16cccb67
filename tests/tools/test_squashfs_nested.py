"""A squashfs in a squashfs, on an ISO too: it is looked into, and changed in two steps; unsquashfs judges."""

from __future__ import annotations

from pathlib import Path

import cosremaster
from tests.fixtures import tools
from tests.fixtures.tools import run

INNER = "lib/inner.squashfs"


def make_nested(folder: Path) -> Path:
    """A squashfs with another one as a file."""
    tools.require("mksquashfs", "unsquashfs")
    (folder / "in/etc").mkdir(parents=True)
    (folder / "in/etc/hostname").write_bytes(b"old\n")
    (folder / "in/etc/kept").write_bytes(b"kept\n" * 9000)
    (folder / "out/lib").mkdir(parents=True)
    quiet = ("-quiet", "-no-progress")
    run(["mksquashfs", str(folder / "in"), str(folder / "out" / INNER), *quiet, "-comp", "xz"])
    run(["mksquashfs", str(folder / "out"), str(folder / "outer.squashfs"), *quiet, "-b", "4096"])
    return folder / "outer.squashfs"


def test_a_nested_squashfs_is_looked_into(tmp_path: Path) -> None:
    outer = make_nested(tmp_path)
    iso = tmp_path / "x.iso"
    tools.require("xorriso")
    run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", str(iso), "-graft-points", f"live/root.squashfs={outer}"])
    for path, way in ((outer, INNER), (iso, f"live/root.squashfs::{INNER}")):
        with cosremaster.open(path, remember=False) as image:
            assert image.names(f"{way}::etc") == [b"hostname", b"kept"]
            assert image.read(f"{way}::etc/kept") == b"kept\n" * 9000
            assert [line.split()[-1] for line in image.long_lines(way, recursive=True)] == [
                "etc", "etc/hostname", "etc/kept",
            ]  # fmt: skip


def test_a_nested_squashfs_is_changed_in_two_steps(tmp_path: Path) -> None:
    outer = make_nested(tmp_path)
    inner, changed, out = (tmp_path / name for name in ("inner.squashfs", "changed.squashfs", "new.squashfs"))
    with cosremaster.open(outer, remember=False) as image:
        inner.write_bytes(image.read(INNER))
    cosremaster.remaster(
        inner, changed, add=[cosremaster.InlineFile("/etc/hostname", b"new\n")], remember=False
    )  # fmt: skip
    whole = cosremaster.AddPath(changed, f"/{INNER}", unpack=False)
    cosremaster.remaster(outer, out, add=[whole], remember=False)
    assert run(["unsquashfs", "-cat", str(out), INNER]) == changed.read_bytes()
    with cosremaster.open(out, remember=False) as image:
        assert image.read(f"{INNER}::etc/hostname") == b"new\n"
        assert image.read(f"{INNER}::etc/kept") == b"kept\n" * 9000
