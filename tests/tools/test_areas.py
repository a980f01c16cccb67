"""What records name beside files is kept: continuation areas, ER above all, and the blocks of empty files and symlinks.

Linux, isoinfo, xorriso and libarchive show no name of Rock Ridge where a root's ER field is lost.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, remaster
from cosremaster.errors import ProofError
from cosremaster.io.source import open_source
from cosremaster.iso.prove_areas import prove_areas
from cosremaster.iso.read import read_image
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support import judges
from tests.support.makers import make_rock_ridge

BLOCK = 2048
MAKERS = ("R", "RJ", "R-no-pad", "RJ-no-pad", "bsdtar", "pycdlib", "pycdlib-joliet", "xorriso")


def make(maker: str, folder: Path, iso: Path) -> None:
    """Makes an image of ``folder`` with Rock Ridge by the maker's real tool."""
    tools.require("genisoimage", *judges.TOOLS)
    make_rock_ridge(maker, folder, iso)


def names(iso: Path) -> dict[str, set[str]]:
    """The paths that each reader shows, without directories."""
    listed = {
        "isoinfo": run(["isoinfo", "-R", "-f", "-i", iso]),
        "bsdtar": run(["bsdtar", "-tf", iso]),
        "xorriso": run(["xorriso", "-indev", iso, "-find", "/", "-not", "-type", "d", "-exec", "echo"]),
    }
    return {
        reader: {line.strip("'").removeprefix("./").strip("/") for line in text.decode().splitlines()} - {".", ""}
        for reader, text in listed.items()
    }


@pytest.mark.parametrize("maker", MAKERS)
def test_all_files_leave_and_others_come(maker: str, tmp_path: Path) -> None:
    """As people edit a seed for cloud-init; one new file is larger than all old ones."""
    folder, iso, out = tmp_path / "seed", tmp_path / "seed.iso", tmp_path / "out.iso"
    folder.mkdir()
    for name in ("meta-data", "user-data"):
        (folder / name).write_text(name)
    make(maker, folder, iso)
    new = [InlineFile("/network-config", b"n"), InlineFile("/user-data", b"u" * 5000)]
    remaster(iso, out, remove_iso=["/*"], add_iso=new)
    assert set(map(frozenset, names(out).values())) == {frozenset({"network-config", "user-data"})}
    assert cosremaster.verify(out).ok
    emptied = tmp_path / "empty.iso"
    remaster(out, emptied, remove_iso=["/*"])
    assert set(map(frozenset, names(emptied).values())) == {frozenset()}


@pytest.mark.parametrize("maker", ["R", "RJ-no-pad", "bsdtar", "pycdlib", "xorriso"])
@pytest.mark.parametrize("kind", ["symlink", "empty"])
@pytest.mark.parametrize("how", ["removed", "emptied", "shorter"])
def test_the_volume_does_not_end_before_what_records_name(maker: str, kind: str, how: str, tmp_path: Path) -> None:
    folder, iso, out = tmp_path / "tree", tmp_path / "in.iso", tmp_path / "out.iso"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_bytes(name.encode() * 9000)
    if kind == "symlink":
        (folder / "last").symlink_to("a")
    else:
        (folder / "last").touch()
    make(maker, folder, iso)
    expected = {"a", "b", "last"}
    if how == "removed":
        remaster(iso, out, remove_iso=["/b", "/a"])
        expected = {"last"}
    else:
        data = b"" if how == "emptied" else b"short"
        remaster(iso, out, add_iso=[InlineFile("/a", data), InlineFile("/b", data)])
    assert set(map(frozenset, names(out).values())) == {frozenset(expected)}
    assert cosremaster.verify(out, against=iso, changed=[b"a", b"b"]).ok


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / ("n" * 200)).write_text("named by a record that continues")
    make("RJ", tmp_path / "seed", tmp_path / "seed.iso")
    assert cosremaster.verify(tmp_path / "seed.iso").ok
    return tmp_path / "seed.iso"


def failures(iso: Path) -> set[str]:
    return {finding.check for finding in cosremaster.verify(iso).findings if finding.is_counted}


def test_verify_misses_the_er_field(seed: Path) -> None:
    raw = bytearray(seed.read_bytes())
    at = raw.index(b"ER\xed\x01") // BLOCK * BLOCK
    for damage in (bytes(BLOCK), b"M2\n\0".ljust(BLOCK, b"\0")):
        raw[at : at + BLOCK] = damage
        seed.write_bytes(raw)
        assert failures(seed) == {"rockridge.extension"}
    raw[at : at + 4] = b"ER\xff\x01"
    seed.write_bytes(raw)
    assert "rockridge.malformed" in failures(seed)


def test_verify_misses_areas_that_are_not_in_the_volume_or_in_a_file(seed: Path) -> None:
    raw = seed.read_bytes()
    with open_source(seed) as source:
        image = read_image(source)
    (file,) = image.files
    for block, check in ((image.blocks, "rockridge.area"), (file.start, "rockridge.area")):
        at = raw.index(b"CE\x1c\x01", raw.index(b"N" * 8) - 60)  # that of the file's record
        lba = block.to_bytes(4, "little") + block.to_bytes(4, "big")
        broken = seed.with_suffix(f".{block}.iso")
        broken.write_bytes(raw[: at + 4] + lba + raw[at + 12 :] + bytes(BLOCK))
        assert check in failures(broken), block


def test_the_proof_compares_what_a_root_says(seed: Path) -> None:
    with open_source(seed) as source:
        image = read_image(source)
    assert any(field[:2] == b"ER" for field in image.trees[0].extension_fields)
    prove_areas(image, image)
    raw = bytearray(seed.read_bytes())
    at = raw.index(b"ER\xed\x01")
    raw[at : at + 4] = b"XX\xed\x01"
    seed.write_bytes(raw)
    with open_source(seed) as source, pytest.raises(ProofError, match="other SUSP fields"):
        prove_areas(image, read_image(source))
