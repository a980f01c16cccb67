"""Images with CD-ROM XA attributes, by genisoimage and pycdlib: new records have them, or readers lose the place."""

from __future__ import annotations

import io
from pathlib import Path

import pycdlib
import pytest

import cosremaster
from cosremaster import InlineFile, remaster
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support import judges

MAKERS = ("genisoimage-R", "genisoimage-RJ", "genisoimage-", "pycdlib-1.09", "pycdlib-1.12", "pycdlib-")


def make(maker: str, folder: Path, iso: Path) -> None:
    tools.require("genisoimage", *judges.TOOLS)
    tool, _, option = maker.partition("-")
    (folder / "d").mkdir(parents=True)
    (folder / "foo").write_text("foo")
    if tool == "genisoimage":
        run(["genisoimage", "-quiet", "-xa", *(f"-{letter}" for letter in option), "-o", iso, folder])
        return
    image = pycdlib.PyCdlib()
    image.new(xa=True, rock_ridge=option or None)
    image.add_fp(io.BytesIO(b"foo"), 3, "/FOO.;1", rr_name="foo" if option else None)
    image.add_directory("/D", rr_name="d" if option else None)
    image.write(str(iso))
    image.close()


def names(iso: Path) -> set[str]:
    """The names that pycdlib reads, without those of directories."""
    image = pycdlib.PyCdlib()
    image.open(str(iso))
    facade = image.get_rock_ridge_facade() if image.has_rock_ridge() else image.get_iso9660_facade()
    found = {f"{folder}/{name}" for folder, _, files in facade.walk("/") for name in files}
    image.close()
    return {name.removesuffix(";1").removesuffix(".").lower().lstrip("/") for name in found}


@pytest.mark.parametrize("maker", MAKERS)
def test_new_records_begin_as_the_others_do(maker: str, tmp_path: Path) -> None:
    """In a directory that stays, in one that moves, and in a new one; with names that continue."""
    iso, out = tmp_path / "in.iso", tmp_path / "out.iso"
    make(maker, tmp_path / "tree", iso)
    has_rock_ridge = not maker.endswith("-")
    items = [InlineFile("/new.txt", b"new", mode=0o640), InlineFile("/sub/dir/file", b"below"), InlineFile("/d/e", b"")]
    items += [InlineFile(f"/many{number}", b"%d" % number) for number in range(40)]
    if has_rock_ridge:
        items.append(InlineFile("/" + "n" * 200, b"long"))
    remaster(iso, out, add_iso=items)
    expected = {"foo", *(item.dest[1:] for item in items)}
    assert names(out) == expected
    kind = "-R" if has_rock_ridge else "-l"
    listed = run(["isoinfo", kind, "-f", "-i", out]).decode()
    assert "BAD" not in listed
    if has_rock_ridge:
        assert expected <= {line.lstrip("/") for line in listed.splitlines()}
        raw = out.read_bytes()
        at = raw.index(b"NEW.TXT;1") + 9
        sample = raw[raw.index(b"FOO.;1") + 7 :]
        assert raw[at : at + 4] == bytes(4) and raw[at + 6 : at + 14] == sample[6:14] == b"XA" + bytes(6)
        assert raw[at + 4 : at + 6] == (b"\x08\x11" if maker.startswith("g") else bytes(2)), "read by owner and group"
        out.with_suffix(".bad").write_bytes(raw[: at + 6] + bytes(2) + raw[at + 8 :])
        report = cosremaster.verify(out.with_suffix(".bad"))
        assert {finding.check for finding in report.findings if finding.is_counted} == {"rockridge.prefix"}
    assert cosremaster.verify(out).ok
    if not has_rock_ridge:
        return
    again = tmp_path / "again.iso"
    remaster(out, again, remove_iso=["/many*"], rename_iso=["/new.txt:/old.txt"], add_iso=[InlineFile("/z", b"z")])
    assert names(again) == {name for name in expected if not name.startswith("many")} - {"new.txt"} | {"old.txt", "z"}
