"""Names that only UDF or Joliet shows: genisoimage hides them from ISO 9660, as every Windows disc does."""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pycdlib
import pytest

import cosremaster
from cosremaster import remaster
from cosremaster.errors import CosremasterError, OverlayError, UnsupportedError
from cosremaster.io.source import open_source
from cosremaster.iso.read import read_image
from cosremaster.iso.udf.patch import seal_descriptor
from cosremaster.verification.run import verify
from tests.fixtures import tools
from tests.support import judges
from tests.support.small import read_volume

NOISE = random.Random(7).randbytes(40_000)
DISC = {
    "readme.txt": b"This disc holds a UDF file system.\n",
    "bootmgr": NOISE[:5000], "sources/boot.wim": NOISE[:12_345], "sources/install.wim": NOISE,
    "sources/empty.ini": b"", "sources/de-de/text.mui": b"Textes\n\n", "boot/etfsboot.com": NOISE[:4096],
}  # fmt: skip
"""The layout of a Windows disc; ISO 9660 shows the first file alone."""
HIDDEN = ("bootmgr", "sources", "boot")
TREES = {"udf": ("-udf",), "joliet": ("-J",), "joliet-ridge": ("-J", "-R"), "both": ("-J", "-udf", "-R")}


def _build(folder: Path, files: dict[str, bytes], *options: str) -> Path:
    tools.require("genisoimage")
    for name, data in files.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes(data)
    tools.run(["genisoimage", "-quiet", "-V", "DISC", *options, "-o", folder / "in.iso", folder / "tree"])
    return folder / "in.iso"


def _disc(folder: Path, tree: str = "udf", *options: str) -> Path:
    hidden = [word for name in HIDDEN for word in ("-hide", name)]
    return _build(folder, DISC, *TREES[tree], *hidden, *options)


def _write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def _by_pycdlib(iso: Path, kind: str) -> dict[str, bytes]:
    """The files of UDF (``udf``) or Joliet (``joliet``), by pycdlib."""
    opened, contents = pycdlib.PyCdlib(), dict[str, bytes]()
    opened.open(str(iso))
    for folder, _, names in opened.walk(**{f"{kind}_path": "/"}):
        for name in names:
            path = f"{folder.rstrip('/')}/{name}"
            data = io.BytesIO()
            opened.get_file_from_iso_fp(data, **{f"{kind}_path": path})
            contents[path.lstrip("/")] = data.getvalue()
    opened.close()
    return contents


def _by_7z(iso: Path, folder: Path) -> dict[str, bytes]:
    """The files of UDF, by 7-Zip."""
    target = folder / f"7z-{iso.name}"
    tools.run(["7z", "x", "-y", "-tudf", f"-o{target}", iso])
    unpacked = {str(path.relative_to(target)): path for path in target.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in unpacked.items()}


def _expect(iso: Path, tree: str, files: dict[str, bytes], folder: Path) -> None:
    """Other programs see these files in UDF and in Joliet."""
    if tree in ("udf", "both"):
        assert _by_pycdlib(iso, "udf") == files
        assert _by_7z(iso, folder) == files
        assert f"numfiles={len(files)}\n" in tools.run(["udfinfo", iso]).decode()
    if tree != "udf":
        assert _by_pycdlib(iso, "joliet") == files
    assert not judges.complaints(iso) - {line for line in judges.complaints(iso) if "aution" in line}


def _shown(iso: Path) -> set[str]:
    """What ISO 9660 alone shows, in small letters."""
    lines = tools.run(["isoinfo", "-f", "-i", iso]).decode().splitlines()
    return {line.lower().partition(";")[0].strip("/.") for line in lines}


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("size", [0, 12_345, 4000, 500_000])
def test_a_file_is_exchanged_at_its_place(tmp_path: Path, tree: str, size: int) -> None:
    iso, out = _disc(tmp_path, tree), tmp_path / "out.iso"
    new = random.Random(size).randbytes(size)
    (tmp_path / "new.wim").write_bytes(new)
    result = remaster(iso, out, add_iso=[f"{tmp_path}/new.wim:/sources/boot.wim"])
    assert (result.iso_exchanged, result.iso_added) == ((b"sources/boot.wim",), ())
    _expect(out, tree, {**DISC, "sources/boot.wim": new}, tmp_path)
    assert _shown(out) == {"readme.txt"}
    grown = out.stat().st_size - iso.stat().st_size
    assert grown <= max(0, size - 12_345) + 6 * 2048


@pytest.mark.parametrize("tree", TREES)
def test_files_and_directories_are_added_where_a_tree_has_the_directory(tmp_path: Path, tree: str) -> None:
    iso, out = _disc(tmp_path, tree), tmp_path / "out.iso"
    new = {"sources/ei.cfg": b"[Channel]\n", "sources/$OEM$/$1/setup.cmd": NOISE[:3000], "auto.xml": b"<x/>\n"}
    result = remaster(iso, out, add_iso=[_write(tmp_path / "add", new)])
    assert result.iso_added == (b"auto.xml", b"sources/$OEM$", b"sources/$OEM$/$1", b"sources/$OEM$/$1/setup.cmd",
                                b"sources/ei.cfg")  # fmt: skip
    _expect(out, tree, {**DISC, **new}, tmp_path)
    assert _shown(out) == {"readme.txt", "auto.xml"}
    again = tmp_path / "again.iso"
    remaster(iso, again, add_iso=[tmp_path / "add"])
    assert again.read_bytes() == out.read_bytes(), "the same input, the same output"


@pytest.mark.parametrize("tree", TREES)
def test_names_are_removed_and_renamed(tmp_path: Path, tree: str) -> None:
    iso, out = _disc(tmp_path, tree), tmp_path / "out.iso"
    remaster(iso, out, remove_iso=["sources/install.wim", "boot"], rename_iso=["sources/de-de:/sources/en-us"])
    files = {name: data for name, data in DISC.items() if name != "sources/install.wim" and "boot/" not in name}
    files["sources/en-us/text.mui"] = files.pop("sources/de-de/text.mui")
    _expect(out, tree, files, tmp_path)
    assert b"\0" * len(NOISE) in out.read_bytes() or out.stat().st_size < iso.stat().st_size


@pytest.mark.parametrize("tree", TREES)
def test_all_at_once(tmp_path: Path, tree: str) -> None:
    """A hidden file grows beside additions, and files of the shown directories move with it."""
    iso, out = _disc(tmp_path, tree), tmp_path / "out.iso"
    new = {"sources/boot.wim": NOISE * 5, "sources/install.wim": b"small", "readme.txt": b"new\n", "x/y": b"y"}
    remaster(iso, out, add_iso=[_write(tmp_path / "add", new)], remove_iso=["bootmgr"])
    files = {**DISC, **new}
    del files["bootmgr"]
    _expect(out, tree, files, tmp_path)
    assert _shown(out) == {"readme.txt", "x", "x/y"}


@pytest.mark.parametrize("tree", ["udf", "both", "joliet"])
def test_lists_of_checksums_follow_what_other_trees_show(tmp_path: Path, tree: str) -> None:
    def lines(files: dict[str, bytes]) -> bytes:
        return b"".join(f"{hashlib.md5(data).hexdigest()}  ./{name}\n".encode() for name, data in files.items())

    files = {"a.txt": b"a\n", "sources/boot.wim": NOISE[:5000], "sources/c": b"c\n"}
    iso = _build(tmp_path, {**files, "md5sum.txt": lines(files)}, *TREES[tree], "-hide", "sources")
    assert verify(iso, deep=True).ok
    (tmp_path / "new").write_bytes(b"new\n")
    out, kind = tmp_path / "out.iso", "joliet" if tree == "joliet" else "udf"
    remaster(iso, out, add_iso=[f"{tmp_path}/new:/sources/boot.wim"], rename_iso=["sources/c:/sources/d"])
    files = {"a.txt": b"a\n", "sources/boot.wim": b"new\n", "sources/d": b"c\n"}
    assert _by_pycdlib(out, kind) == {**files, "md5sum.txt": lines(files)}
    assert verify(out, deep=True).ok
    remaster(iso, tmp_path / "less.iso", remove_iso=["sources"])
    files = {"a.txt": b"a\n"}
    assert _by_pycdlib(tmp_path / "less.iso", kind) == {**files, "md5sum.txt": lines(files)}


@pytest.mark.parametrize("options", [("-J",), ("-J", "-R"), ("-udf",), ("-J", "-udf", "-iso-level", "3")])
def test_names_that_a_tree_shortens_are_not_shown_twice(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Nothing but their names tells empty files and empty directories; where these differ, they may be the same."""
    names = ["é-ä", "ü.ö", "x" * 60 + "-one", "y" * 90, "z" * 91, "a.b.c é", "é" * 70]
    for name in names:
        (tmp_path / "tree/files").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree/files" / name).touch()
        (tmp_path / "tree" / name).mkdir()
    (tmp_path / "tree" / names[0] / "full").write_bytes(b"data")
    iso = _build(tmp_path, {}, "-input-charset", "utf-8", *options)
    assert len(cosremaster.ls(iso, recursive=True)) == 2 * len(names) + 2


@pytest.mark.parametrize("options", [("-R",), ()])
def test_a_name_of_shared_data_is_exchanged_alone(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Two names of a file, one of them in UDF alone: the other keeps its bytes."""
    _write(tmp_path / "tree", {"a.bin": NOISE, "z": b"z"})
    os.link(tmp_path / "tree/a.bin", tmp_path / "tree/b.bin")
    iso = _build(tmp_path, {}, "-udf", "-cache-inodes", "-hide", "b.bin", *options)
    for name in ("a.bin", "b.bin"):
        out = tmp_path / f"{name}.iso"
        (tmp_path / "new").write_bytes(b"new bytes")
        remaster(iso, out, add_iso=[f"{tmp_path}/new:/{name}"])
        assert _by_pycdlib(out, "udf") == {"a.bin": NOISE, "b.bin": NOISE, "z": b"z"} | {name: b"new bytes"}
        shown = tools.run(["isoinfo", "-R", "-i", out, "-x", "/a.bin" if options else "/A.BIN;1"])
        assert shown == (b"new bytes" if name == "a.bin" else NOISE)


def test_other_data_under_the_name_are_exchanged_in_each_tree(tmp_path: Path) -> None:
    """README.TXT in ISO 9660 is another file than readme.txt in UDF."""
    iso = pycdlib.PyCdlib()
    iso.new(udf="2.60")
    iso.add_fp(io.BytesIO(b"see UDF\n"), 8, iso_path="/README.TXT;1")
    iso.add_fp(io.BytesIO(b"welcome\n"), 8, udf_path="/readme.txt")
    iso.write(str(tmp_path / "in.iso"))
    iso.close()
    (tmp_path / "new").write_bytes(b"new bytes\n")
    remaster(tmp_path / "in.iso", tmp_path / "out.iso", add_iso=[f"{tmp_path}/new:/readme.txt"])
    assert _by_pycdlib(tmp_path / "out.iso", "udf") == {"readme.txt": b"new bytes\n"}
    assert tools.run(["isoinfo", "-i", tmp_path / "out.iso", "-x", "/README.TXT;1"]) == b"new bytes\n"
    remaster(tmp_path / "in.iso", tmp_path / "less.iso", remove_iso=["readme.txt"])
    assert _by_pycdlib(tmp_path / "less.iso", "udf") == {}
    assert _shown(tmp_path / "less.iso") == set()


@pytest.mark.parametrize("tree", ["udf", "both"])
def test_symlinks_are_added_where_udf_alone_shows_the_directory(tmp_path: Path, tree: str) -> None:
    iso, out = _disc(tmp_path, tree), tmp_path / "out.iso"
    (tmp_path / "add/sources").mkdir(parents=True)
    for name, target in (("up", "../bootmgr"), ("root", "/boot/ž"), ("here", "./boot.wim")):
        os.symlink(target, tmp_path / "add/sources" / name)
    result = remaster(iso, out, add_iso=[tmp_path / "add"])
    assert any("7-Zip opens no UDF" in warning for warning in result.warnings)
    opened = pycdlib.PyCdlib()
    opened.open(str(out))
    assert all(opened.get_record(udf_path=f"/sources/{name}").is_symlink() for name in ("up", "root", "here"))
    opened.close()
    targets = {
        entry.name.decode(): entry.target.decode() for entry in cosremaster.ls(f"{out}::sources") if entry.target
    }
    assert targets == {"up": "../bootmgr", "root": "/boot/ž", "here": "./boot.wim"}


@pytest.mark.parametrize(("tree", "kind"), [("joliet", "symlink"), ("joliet-ridge", "symlink"), ("udf", "FIFO")])
def test_what_no_tree_holds_is_refused(tmp_path: Path, tree: str, kind: str) -> None:
    iso, added = _disc(tmp_path, tree), _write(tmp_path / "add", {"sources/a": b"a"})
    if kind == "FIFO":
        os.mkfifo(added / "sources/x")
    else:
        os.symlink("a", added / "sources/x")
    with pytest.raises(UnsupportedError, match=f"sources/x: a {kind} cannot be added: no tree that shows its"):
        remaster(iso, tmp_path / "out.iso", add_iso=[added])


@pytest.mark.parametrize(("asked", "error", "words"), [
    ({"remove_iso": ["sources/none.wim"]}, OverlayError, "sources/none.wim: cannot be removed: it is not there"),
    ({"remove_iso": ["boot/etfsboot.com"]}, UnsupportedError, "etfsboot.com: is a boot image"),
    ({"rename_iso": ["sources:/boot/etfsboot.com/x"]}, CosremasterError, "etfsboot.com"),
])  # fmt: skip
def test_what_cannot_be_is_named(tmp_path: Path, asked: dict[str, Any], error: type[Exception], words: str) -> None:
    boot = ("-b", "boot/etfsboot.com", "-no-emul-boot", "-boot-load-size", "8", "-hide", "boot.catalog")
    iso = _disc(tmp_path, "udf", *boot)
    with pytest.raises(error, match=words):
        remaster(iso, tmp_path / "out.iso", **asked)
    assert not (tmp_path / "out.iso").exists()


def test_a_hidden_boot_image_is_exchanged(tmp_path: Path) -> None:
    """The El Torito entry follows a boot image that UDF alone shows."""
    boot = ("-b", "boot/etfsboot.com", "-no-emul-boot", "-boot-load-size", "8", "-hide", "boot.catalog")
    iso, out = _disc(tmp_path, "udf", *boot), tmp_path / "out.iso"
    new = {"boot/etfsboot.com": NOISE[:9000], "sources/boot.wim": NOISE[:30_000]}
    remaster(iso, out, add_iso=[_write(tmp_path / "add", new)])
    assert _by_7z(out, tmp_path).items() >= new.items()  # pycdlib takes the load size for the file's
    report = tools.run(["xorriso", "-indev", out, "-report_el_torito", "plain"]).decode()
    (line,) = (line for line in report.splitlines() if "boot img" in line and "BIOS" in line)
    lba = int(line.split()[-1])
    assert out.read_bytes()[lba * 2048 :].startswith(NOISE[:9000])


@pytest.mark.parametrize("tree", TREES)
def test_verify_takes_a_hidden_boot_image_that_was_meant_to_change(tmp_path: Path, tree: str) -> None:
    boot = ("-b", "boot/etfsboot.com", "-no-emul-boot", "-boot-load-size", "8", "-hide", "boot.catalog")
    iso, out = _disc(tmp_path, tree, *boot), tmp_path / "out.iso"
    remaster(iso, out, add_iso=[_write(tmp_path / "add", {"boot/etfsboot.com": NOISE[:9000]})])
    assert verify(out, against=iso, changed=[b"boot/etfsboot.com"]).ok
    faults = [finding.check for finding in verify(out, against=iso).findings if finding.is_counted]
    assert "against.boot" in faults


def _set_both_endian(raw: bytearray, at: int, number: int) -> None:
    raw[at : at + 8] = number.to_bytes(4, "little") + number.to_bytes(4, "big")


@pytest.mark.parametrize("size", [100, 700_000])
def test_a_volume_may_end_before_the_data_of_udf(tmp_path: Path, size: int) -> None:
    """Windows discs: ISO 9660 covers its README, and UDF's last anchor ends the image."""
    boot = ("-b", "boot/etfsboot.com", "-no-emul-boot", "-boot-load-size", "8", "-hide", "boot.catalog")
    iso, out = _disc(tmp_path, "udf", *boot), tmp_path / "out.iso"
    raw = bytearray(iso.read_bytes())
    _set_both_endian(raw, 16 * 2048 + 80, 284)
    iso.write_bytes(raw)
    new = {"sources/boot.wim": random.Random(size).randbytes(size), "sources/ei.cfg": b"[Channel]\n"}
    remaster(iso, out, add_iso=[_write(tmp_path / "add", new)])
    assert _by_7z(out, tmp_path) == {**DISC, **new, "boot.catalog": b""}
    tools.run(["7z", "t", "-tudf", out])
    done = subprocess.run(["udfinfo", out], capture_output=True, text=True, check=True)
    assert f"blocks={out.stat().st_size // 2048}\n" in done.stdout and "Warning" not in done.stderr
    assert read_volume(out).blocks == 284
    assert verify(out).ok
    root, more = tmp_path / "root.iso", {"autounattend.xml": b"<x/>\n", "sources/boot.wim": NOISE}
    remaster(iso, root, add_iso=[_write(tmp_path / "more", more)])
    assert _by_7z(root, tmp_path) == {**DISC, **more, "boot.catalog": b""}
    assert tools.run(["isoinfo", "-i", root, "-x", "/AUTOUNAT.XML;1"]) == b"<x/>\n"
    assert read_volume(root).files[0].spans[0].end <= read_volume(root).blocks
    assert verify(root).ok


@pytest.mark.parametrize("tree", TREES)
def test_verify_compares_what_other_trees_show(tmp_path: Path, tree: str) -> None:
    iso, out = _disc(tmp_path, tree), tmp_path / "out.iso"
    (tmp_path / "new").write_bytes(NOISE[5000:17_345])
    remaster(iso, out, add_iso=[f"{tmp_path}/new:/sources/boot.wim"])
    assert verify(out).ok and verify(out, against=iso, changed=[b"sources/boot.wim"]).ok
    found = {finding.message for finding in verify(out, against=iso).findings if finding.is_counted}
    kinds = {"udf": ["UDF"], "both": ["Joliet", "UDF"]}.get(tree, ["Joliet"])
    assert found == {f"does not hold what it holds in the original's {kind} tree" for kind in kinds}


@pytest.mark.parametrize("changed", ["big.bin", "a.bin"])
def test_a_size_that_iso_9660_cuts_off_is_read_from_udf(tmp_path: Path, changed: str) -> None:
    """What genisoimage -allow-limited-size makes of files above 4 GiB, here by a shorter length in the record."""
    files = {"a.bin": b"first\n", "big.bin": NOISE, "z.bin": b"last\n"}
    iso, out = _build(tmp_path, files, "-udf"), tmp_path / "out.iso"
    raw = bytearray(iso.read_bytes())
    (record,) = (file.records[0] for file in read_volume(iso).files if file.path == b"BIG.BIN")
    _set_both_endian(raw, record.offset + 10, 5000)
    iso.write_bytes(raw)
    assert cosremaster.read(f"{iso}::BIG.BIN") == NOISE
    new = random.Random(1).randbytes(90_000)
    (tmp_path / "new").write_bytes(new)
    remaster(iso, out, add_iso=[f"{tmp_path}/new:/{changed}"])
    assert _by_7z(out, tmp_path) == {**files, changed: new}


def test_data_inside_a_file_entry_are_read_and_exchanged(tmp_path: Path) -> None:
    """UDF may hold small files in their file entries (ECMA-167, 4/14.6.8); GRUB reads them, 7-Zip complains."""
    iso, out = _disc(tmp_path), tmp_path / "out.iso"
    with open_source(iso) as source:
        udf = read_image(source).udf
        assert udf is not None
        (file,) = (file for file in udf.files if file.path[-1] == "text.mui")
        raw = bytearray(source.read(file.entry_offset, 2048))
    raw[34] = raw[34] & ~7 | 3
    raw[64:72] = bytes(8)
    raw[172:176] = (8).to_bytes(4, "little")
    raw[176:] = b"Textes\n\n".ljust(2048 - 176, b"\0")
    image = bytearray(iso.read_bytes())
    image[file.entry_offset : file.entry_offset + 2048] = seal_descriptor(raw, 176 + 8 - 16)
    image[file.extents[0][0] * 2048 : file.extents[0][0] * 2048 + 5] = b"....."
    iso.write_bytes(image)
    assert tools.run(["grub-fstest", iso, "cat", "(loop0)/sources/de-de/text.mui"]) == b"Textes\n\n"
    assert cosremaster.read(f"{iso}::sources/de-de/text.mui") == b"Textes\n\n"
    new = {"sources/boot.wim": NOISE[:100], "sources/de-de/text.mui": NOISE[:7000]}
    remaster(iso, out, add_iso=[_write(tmp_path / "add", new)])
    assert _by_7z(out, tmp_path) == {**DISC, **new}
    plain = tmp_path / "plain.iso"
    remaster(iso, plain, remove_iso=["boot"])
    assert tools.run(["grub-fstest", plain, "cat", "(loop0)/sources/de-de/text.mui"]) == b"Textes\n\n"
