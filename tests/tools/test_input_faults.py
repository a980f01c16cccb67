"""Faults of the input that others live with are kept or mended, and told; the rest is refused by the input's name."""

import gzip
import io
import itertools
import json
import lzma
import re
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pycdlib
import pytest

import cosremaster
from cosremaster.boot.gpt import read_gpt
from cosremaster.errors import CorruptError, ImageError, Place, ProofError, UnsupportedError
from cosremaster.io.source import ByteSource
from cosremaster.units import BLOCK, SECTOR, Sector
from cosremaster.verification.run import verify
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support import judges
from tests.support.small import read_volume

ISOLINUX = Path("/usr/lib/ISOLINUX/isolinux.bin")
TOOLS = ("genisoimage", "isoinfo", "bsdtar", "7z", "xorriso", "isohybrid", "sgdisk", "sfdisk", "cpio", str(ISOLINUX))
DIRECTORIES = 320
"""So many records of directories fill several blocks of their parent, which pycdlib then moves."""


@pytest.fixture(autouse=True)
def _real_tools() -> None:
    tools.require(*TOOLS)


def graft(source: Path, *items: tuple[str, bytes], **options: Any) -> tuple[Path, tuple[str, ...]]:
    """The image after additions to its tree, and the warnings."""
    out = source.with_name("out.iso")
    out.unlink(missing_ok=True)
    add = [cosremaster.InlineFile(f"/{name}", data) for name, data in items]
    result = cosremaster.remaster(source, out, add_iso=add, **options)
    return out, result.warnings


def failures(path: Path) -> set[str]:
    """The checks of verify that fail."""
    return {finding.check for finding in verify(path).findings if finding.is_counted}


PARAMETERS = {"rock_ridge": "rr_name", "joliet": "joliet_path", "udf": "udf_path"}
"""What pycdlib calls a directory's name in each tree."""


def by_pycdlib(path: Path, **form: Any) -> Path:
    """An image with many directories: pycdlib moves the root's records and leaves old ``..`` records behind."""
    iso = pycdlib.PyCdlib()
    iso.new(**form)
    for number in range(DIRECTORIES):
        values = {"rock_ridge": f"dir{number}", "joliet": f"/dir{number}", "udf": f"/dir{number}"}
        names: dict[str, Any] = {PARAMETERS[kind]: value for kind, value in values.items() if kind in form}
        iso.add_directory(f"/DIR{number}", **names)
    iso.write(str(path))
    iso.close()
    return path


FORMS: dict[str, dict[str, Any]] = {
    "plain": {}, "rock-ridge": {"rock_ridge": "1.09"}, "joliet": {"joliet": 3}, "udf": {"udf": "2.60"},
    "both": {"rock_ridge": "1.12", "joliet": 3}, "enhanced": {"interchange_level": 4},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_stale_records_of_directories_are_mended_where_the_tree_is_written(form: str, tmp_path: Path) -> None:
    source = by_pycdlib(tmp_path / "in.iso", **FORMS[form])
    assert "record.dot" in failures(source)
    before = judges.tree(source)
    out, warnings = graft(source, ("NEW.TXT", b"new"))
    assert any("led elsewhere were mended" in warning for warning in warnings)
    assert failures(out) == set()
    after = judges.tree(out)
    (new,) = after.keys() - before.keys()
    assert new.upper() == "NEW.TXT" and {name: after[name] for name in before} == before
    pycdlib.PyCdlib().open(str(out))


def test_content_alone_changes_nothing_of_stale_records(tmp_path: Path) -> None:
    iso = pycdlib.PyCdlib()
    iso.new()
    for number in range(DIRECTORIES):
        iso.add_directory(f"/DIR{number}")
    iso.add_fp(io.BytesIO(b"old"), 3, "/FILE.TXT;1")
    iso.write(str(tmp_path / "in.iso"))
    out, warnings = graft(tmp_path / "in.iso", ("FILE.TXT", b"new"))
    assert warnings == ()
    old, new = (path.read_bytes() for path in (tmp_path / "in.iso", out))
    assert old.replace(b"old", b"new") == new


def plain_image(folder: Path, *options: str) -> Path:
    """An image of a few directories by genisoimage."""
    for name in ("alpha/sub", "beta", "gamma"):
        (folder / "tree" / name).mkdir(parents=True)
        (folder / "tree" / name / "file").write_text(name)
    tools.run(["genisoimage", "-quiet", *options, "-o", folder / "in.iso", folder / "tree"])
    return folder / "in.iso"


def path_tables(raw: bytes | bytearray, descriptor: int = 16) -> tuple[int, int]:
    """The blocks of the little-endian and the big-endian path table."""
    at = descriptor * BLOCK
    return int.from_bytes(raw[at + 140 : at + 144], "little"), int.from_bytes(raw[at + 148 : at + 152], "big")


def test_a_stale_path_table_is_mended(tmp_path: Path) -> None:
    source = plain_image(tmp_path, "-R")
    raw = bytearray(source.read_bytes())
    little, _ = path_tables(raw)
    raw[little * BLOCK + 12] ^= 7  # the block of the first directory below the root
    source.write_bytes(raw)
    assert failures(source) == {"pathtable.little"}
    out, warnings = graft(source, ("new", b"new"))
    assert warnings == ("ISO 9660: path tables that disagreed with the directories were mended",)
    assert failures(out) == set()
    assert judges.tree(out).keys() == judges.tree(source).keys() | {"new"}


def test_path_tables_in_one_block_get_blocks_of_their_own(tmp_path: Path) -> None:
    source = plain_image(tmp_path, "-R")
    raw = bytearray(source.read_bytes())
    little, big = path_tables(raw)
    raw[16 * BLOCK + 148 : 16 * BLOCK + 152] = little.to_bytes(4, "big")
    source.write_bytes(raw)
    assert failures(source) == {"pathtable.big"}
    out, warnings = graft(source, ("new", b"new"))
    assert warnings == ("ISO 9660: path tables that shared blocks were mended: each got its own",)
    assert failures(out) == set()
    assert big not in path_tables(out.read_bytes())
    assert judges.tree(out).keys() == judges.tree(source).keys() | {"new"}


def test_a_path_table_that_reaches_into_files_is_refused(tmp_path: Path) -> None:
    source = plain_image(tmp_path, "-R")
    raw = bytearray(source.read_bytes())
    first = raw.index(b"alpha/sub") // BLOCK  # a file's data
    raw[16 * BLOCK + 140 : 16 * BLOCK + 144] = first.to_bytes(4, "little")
    source.write_bytes(raw)
    with pytest.raises(ImageError, match=r"^/.+/in\.iso "):
        graft(source, ("new", b"new"))
    assert not (tmp_path / "out.iso").exists()


def test_a_path_table_in_the_boot_catalog_is_refused(tmp_path: Path) -> None:
    source = plain_image(tmp_path, "-R", "-b", "alpha/sub/file", "-no-emul-boot", "-c", "boot.cat")
    raw = bytearray(source.read_bytes())
    raw[16 * BLOCK + 140 : 16 * BLOCK + 144] = raw[17 * BLOCK + 71 : 17 * BLOCK + 75]  # El Torito, figure 7
    source.write_bytes(raw)
    with pytest.raises(ImageError, match="a directory or path table shares blocks with another structure"):
        graft(source, ("dir/new", b"new"))
    assert not (tmp_path / "out.iso").exists()


def test_a_path_table_in_a_file_that_udf_alone_shows_is_refused(tmp_path: Path) -> None:
    source = plain_image(tmp_path, "-R", "-udf", "-hide", "alpha")
    raw = bytearray(source.read_bytes())
    block = raw.index(b"alpha/sub\0") // BLOCK
    raw[16 * BLOCK + 140 : 16 * BLOCK + 144] = block.to_bytes(4, "little")
    source.write_bytes(raw)
    with pytest.raises(ImageError, match="alpha/sub/file: shares blocks with a path table"):
        graft(source, ("dir/new", b"new"))
    assert not (tmp_path / "out.iso").exists()


@pytest.mark.parametrize("options", [("-R",), ()])
def test_a_directory_that_is_an_associated_file_is_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    """ECMA-119 forbids it (9.1.6), and some readers show nothing below it."""
    source = plain_image(tmp_path, *options)
    raw = bytearray(source.read_bytes())
    root = int.from_bytes(raw[16 * BLOCK + 158 : 16 * BLOCK + 162], "little") * BLOCK
    raw[raw.index(b"BETA", root) - 8] |= 4
    source.write_bytes(raw)
    with pytest.raises(ImageError, match="is a directory and an associated file"):
        graft(source, ("new", b"new"))
    assert not (tmp_path / "out.iso").exists()


def test_relocated_directories_move_behind_the_directory_that_holds_their_records(tmp_path: Path) -> None:
    """libarchive reads front to back; the relocation directory comes after the directories that name what is in it."""
    (tmp_path / "tree/a/1/2/3/4/5/6/7/8/9").mkdir(parents=True)
    (tmp_path / "tree/a/1/2/3/4/5/6/7/8/9/file").write_text("deep")
    source = plain_image(tmp_path, "-R")
    before = judges.tree(source)
    names = [f"{'long-name-' * 10}{number}" for number in range(40)]
    out, _ = graft(source, *((name, b"new") for name in names))
    after = judges.tree(out)
    assert after.keys() == before.keys() | set(names)
    assert {name: after[name] for name in before if name != "."} == {n: v for n, v in before.items() if n != "."}


def test_the_root_of_a_bridge_gives_its_attributes_to_a_new_directory_with_long_names(tmp_path: Path) -> None:
    """The area of the root's fields moves to blocks that are full of anchors on the image."""
    source = plain_image(tmp_path, "-R", "-udf")
    before = judges.tree(source)
    names = [f"new/{'long-name-' * 15}{number}" for number in range(3)]
    out, _ = graft(source, *((name, b"new") for name in names))
    assert judges.tree(out).keys() == before.keys() | {"new", *names}
    assert failures(out) == set()
    assert judges.udf(out, tmp_path / "udf").keys() >= set(names)


def test_the_session_is_known_when_its_root_directory_has_moved(tmp_path: Path) -> None:
    """Images of xorriso's own mode have a copy of the descriptors, which is looked for near what it names."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("old")
    source = tmp_path / "in.iso"
    tools.run(["xorriso", "-outdev", source, "-map", tmp_path / "tree", "/", "-commit", "-end"])
    tools.run(["xorriso", "-dev", source, "-map", tmp_path / "tree/file", "/second", "-commit", "-end"])
    before = judges.tree(source)
    names = [f"{'long-name-' * 10}{number}" for number in range(40)]
    out, _ = graft(source, *((name, b"new") for name in names))
    assert judges.tree(out).keys() == before.keys() | set(names)
    assert failures(out) == set()
    assert (
        "WARNING" not in subprocess.run(["xorriso", "-indev", out], capture_output=True, text=True, check=True).stderr
    )
    again, _ = graft(out.rename(tmp_path / "again.iso"), ("later", b"later"))
    assert judges.tree(again).keys() == before.keys() | {*names, "later"}


# Partition tables


def hybrid_by_pycdlib(path: Path) -> Path:
    """An isohybrid by pycdlib, whose GPT has wrong sums of its entries."""
    iso = pycdlib.PyCdlib()
    iso.new()
    for name, data in (("ISOLINUX.BIN", ISOLINUX.read_bytes()), ("EFIBOOT.IMG", b"efi")):
        iso.add_fp(io.BytesIO(data), len(data), f"/{name};1")
    iso.add_eltorito("/ISOLINUX.BIN;1", "/BOOT.CAT;1", boot_load_size=4, boot_info_table=True)
    iso.add_eltorito("/EFIBOOT.IMG;1", efi=True)
    iso.add_isohybrid(efi=True)
    iso.write(str(path))
    iso.close()
    return path


def sgdisk_says(path: Path) -> list[str]:
    """What sgdisk says of headers and tables."""
    lines = subprocess.run(["sgdisk", "-p", path], capture_output=True, text=True, check=False).stderr.splitlines()
    return [line for line in lines if line.startswith(("Main", "Backup"))]


@pytest.mark.parametrize("name", ["NEW.TXT", "EFIBOOT.IMG", "ISOLINUX.BIN"])
def test_sums_of_a_gpt_that_were_wrong_stay_wrong(name: str, tmp_path: Path) -> None:
    source = hybrid_by_pycdlib(tmp_path / "in.iso")
    assert "Main partition table: ERROR" in sgdisk_says(source)
    data = ISOLINUX.read_bytes() + bytes(5000) if name == "ISOLINUX.BIN" else b"new" * 3000
    out, warnings = graft(source, (name, data))
    assert any(warning.startswith("the GPT's copies have wrong sums") for warning in warnings)
    assert sgdisk_says(out) == sgdisk_says(source)
    assert failures(out) == failures(source)
    assert dict(tree_data(out))[name] == len(data)


def tree_data(path: Path) -> list[tuple[str, int]]:
    """The names and sizes of files as isoinfo lists them."""
    lines = (line.split() for line in tools.run(["isoinfo", "-l", "-i", path]).decode().splitlines())
    return [(words[-1].partition(";")[0], int(words[4])) for words in lines if len(words) > 10 and words[0][0] == "-"]


def make_gpt_image(folder: Path) -> Path:
    """An ISO with an appended partition in a GPT."""
    (folder / "tree").mkdir()
    (folder / "tree/file").write_bytes(b"x" * 50_000)
    (folder / "esp").write_bytes(b"\xeb" + bytes(509) + b"\x55\xaa" + bytes(40_000))
    tools.run([
        "xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", folder / "in.iso", "-partition_offset", "16",
        "-appended_part_as_gpt", "-append_partition", "2", "0xef", folder / "esp", folder / "tree",
    ])  # fmt: skip
    return folder / "in.iso"


@pytest.mark.parametrize("byte", [24, 26, 31])
@pytest.mark.parametrize("is_summed", [False, True])
def test_a_backup_gpt_that_says_another_place_stays_a_copy(tmp_path: Path, byte: int, *, is_summed: bool) -> None:
    source = make_gpt_image(tmp_path)
    raw = bytearray(source.read_bytes())
    start = struct.unpack_from("<Q", raw, SECTOR + 32)[0] * SECTOR
    raw[start + byte] ^= 0x41
    if is_summed:
        raw[start + 16 : start + 20] = bytes(4)
        raw[start + 16 : start + 20] = struct.pack("<I", zlib.crc32(raw[start : start + 92]))
    source.write_bytes(raw)
    out, _ = graft(source, ("new", b"new" * 40_000))
    assert failures(out) == failures(source)
    expected = {"gpt.own-place"} if is_summed else {"gpt.own-place", "gpt.backup-header-sum"}
    assert {check for check in failures(source) if check.startswith("gpt.")} == expected
    assert sgdisk_says(out) == sgdisk_says(source)


@pytest.mark.parametrize("copy", ["primary", "backup"])
def test_the_other_copy_of_a_gpt_stays_right(copy: str, tmp_path: Path) -> None:
    make_gpt_image(tmp_path)
    raw = bytearray((tmp_path / "in.iso").read_bytes())
    primary = read_gpt(lambda at, size: bytes(raw[at : at + size]), Sector(1), Place())
    assert primary is not None
    header = 1 if copy == "primary" else primary.header.alternate_lba
    raw[header * SECTOR + 20] ^= 1  # reserved bytes, which the header's sum covers
    (tmp_path / "in.iso").write_bytes(raw)
    out, warnings = graft(tmp_path / "in.iso", ("new", b"new" * 40_000))
    assert warnings[0].startswith(f"the GPT's {copy} copy has wrong sums")
    assert [(line, "OK" if copy.title() not in line.replace("Main", "Primary") or "table" in line else "ERROR")
            for line in ("Main header", "Backup header", "Main partition table", "Backup partition table")] == [
        (line.partition(":")[0], line.partition(": ")[2]) for line in sgdisk_says(out)
    ]  # fmt: skip
    assert failures(out) == failures(tmp_path / "in.iso")


@pytest.mark.parametrize("fault", ["names another sector", "is gone"])
def test_the_backup_gpt_in_the_last_sector_is_written_anew_where_no_primary_is_sound(
    fault: str, tmp_path: Path
) -> None:
    """Firmware reads the last sector, whatever sector a damaged primary copy names (UEFI 2.10, 5.3.2)."""
    source = make_gpt_image(tmp_path)
    raw = bytearray(source.read_bytes())
    if fault == "is gone":
        raw[SECTOR : 64 * SECTOR] = bytes(63 * SECTOR)
    else:
        raw[SECTOR + 32 : SECTOR + 40] = struct.pack("<Q", 200)
    source.write_bytes(raw)
    out, _ = graft(source, ("new", b"new" * 40_000))
    before, after = partitions(source), partitions(out)
    assert len(before) == 3 and after.keys() == before.keys()
    (old, new), made = (list(table.values())[1] for table in (before, after)), out.read_bytes()
    assert new.start > old.start and made[new.start : new.stop] == raw[old.start : old.stop]
    assert verify(out, against=source, changed=[b"new"]).ok


def test_the_tree_of_a_partition_is_no_session_where_it_names_the_same_block(tmp_path: Path) -> None:
    """With 130 files its root stands as many blocks behind the primary one as the partition behind block 0."""
    source = make_gpt_image(tmp_path)
    names = [f"{'long-name-' * 10}{number}" for number in range(130)]
    out, _ = graft(source, *((name, b"new") for name in names))
    assert failures(out) == failures(source)
    assert len(read_volume(out).trees) == 2 and read_volume(out).session_lba == 0
    again, _ = graft(out.rename(tmp_path / "again.iso"), ("later", b"later"))
    assert judges.tree(again).keys() == judges.tree(source).keys() | {*names, "later"}


def test_an_image_on_the_image_is_no_tree_of_it_where_a_partition_is_made_of_it(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/file").write_text("inner")
    (tmp_path / "outer").mkdir()
    tools.run(["genisoimage", "-quiet", "-R", "-o", tmp_path / "outer/inner.iso", tmp_path / "inner"])
    source = tmp_path / "in.iso"
    tools.run(["genisoimage", "-quiet", "-R", "-o", source, tmp_path / "outer"])
    start = next(file.start for file in read_volume(source).files if file.path == b"inner.iso")
    raw = bytearray(source.read_bytes())
    sectors = (tmp_path / "outer/inner.iso").stat().st_size // SECTOR
    raw[446:462] = b"\0\xfe\xff\xff\x83\xfe\xff\xff" + struct.pack("<II", start * BLOCK // SECTOR, sectors)
    raw[510:512] = b"\x55\xaa"
    source.write_bytes(raw)
    assert failures(source) == set()
    out, _ = graft(source, *((f"{'long-name-' * 10}{number}", b"new") for number in range(60)))
    assert len(read_volume(out).trees) == 1 and failures(out) == set()
    assert judges.tree(out).keys() > judges.tree(source).keys()


def partitions(path: Path) -> dict[str, range]:
    """The bytes of each GPT partition by its GUID, as sfdisk reads the table."""
    listed = json.loads(run(["sfdisk", "--json", path]))["partitiontable"]
    assert listed["label"] == "gpt"
    return {
        entry["uuid"]: range(entry["start"] * SECTOR, (entry["start"] + entry["size"]) * SECTOR)
        for entry in listed["partitions"]
    }


def test_isolinux_behind_an_image_of_one_block_keeps_its_pointer(tmp_path: Path) -> None:
    """The sector that ISOLINUX's code loads may also be read as GRUB2's of the block before."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/efi.img").write_bytes(b"efi")
    (tmp_path / "tree/isolinux.bin").write_bytes(ISOLINUX.read_bytes())
    (tmp_path / "sort").write_text("tree/efi.img 2\ntree/isolinux.bin 1\n")
    source = tmp_path / "in.iso"
    options = [*("-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table")]
    options += ["-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot"]
    tools.run(["genisoimage", "-quiet", "-R", "-sort", "sort", *options, "-o", source, "tree"], cwd=tmp_path)
    tools.run(["isohybrid", "-u", source])
    pointer = struct.unpack_from("<I", source.read_bytes(), 0x1B0)[0]
    assert {finding.check for finding in verify(source).findings} >= {"mbr.pointer"}
    for name, data in (("efi.img", b"e" * 9000), ("isolinux.bin", ISOLINUX.read_bytes() + bytes(9000)), ("n", b"n")):
        out, _ = graft(source, (name, data))
        raw = out.read_bytes()
        moved = struct.unpack_from("<I", raw, 0x1B0)[0]
        assert raw[moved * SECTOR + 64 :][:2000] == ISOLINUX.read_bytes()[64:][:2000]
        assert moved == pointer or name == "efi.img"
        assert failures(out) <= failures(source)


# A file of archives without an ISO


def archive(text: str) -> bytes:
    """A small cpio archive."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "init").write_text(text)
        return tools.run(["cpio", "-o", "-H", "newc", "--quiet"], stdin=b"init\n", cwd=Path(folder))


def compressed_oddly() -> bytes:
    """A gzip file whose length is no multiple of 4."""
    sizes = (gzip.compress(archive("x" * count), mtime=0) for count in itertools.count(1))
    return next(data for data in sizes if len(data) % 4)


def test_joined_archives_are_copied_wherever_they_begin(tmp_path: Path) -> None:
    source, out = tmp_path / "initrd", tmp_path / "out"
    source.write_bytes(compressed_oddly() + lzma.compress(archive("2"), check=lzma.CHECK_CRC32))
    cosremaster.remaster(source, out)
    assert out.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-20], lambda raw: raw[:40] + b"\xff\xff\xff" + raw[43:]], ids=["cut", "changed"]
)
def test_a_damaged_archive_is_refused_by_its_name(damage: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "initrd", tmp_path / "out"
    source.write_bytes(damage(gzip.compress(archive("text" * 100), mtime=0)))
    with pytest.raises((CorruptError, UnsupportedError)) as caught:
        cosremaster.remaster(source, out)
    assert str(caught.value).startswith(f"{source}")
    assert [path.name for path in tmp_path.iterdir()] == ["initrd"]


def test_no_message_names_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = plain_image(tmp_path)

    def fail(result: ByteSource, _: object) -> None:
        raise ImageError("malformed directory record", result.place.inside("file").at(7))

    monkeypatch.setattr("cosremaster.iso.tree_edit.verify.prove_directories", fail)
    message = f"{tmp_path}/out.iso » file @0x7: the result cannot be read: malformed directory record"
    with pytest.raises(ProofError, match=re.escape(message)):
        graft(source, ("new", b"new"))
    assert not (tmp_path / "out.iso").exists()


def test_a_directory_that_moves_to_its_own_block(tmp_path: Path) -> None:
    """Where no file keeps the blocks behind the directories, all of them move, and one may come to where it was."""
    image, iso, out = pycdlib.PyCdlib(), tmp_path / "in.iso", tmp_path / "out.iso"
    image.new(joliet=3)
    for number in range(1, 295):
        image.add_directory(f"/DIR{number}", joliet_path=f"/dir{number}")
    image.write(str(iso))
    image.close()
    for count in (1, 30, 120):
        items = [cosremaster.InlineFile(f"/file{number}", b"%d" % number) for number in range(count)]
        cosremaster.remaster(iso, out, add_iso=items, force=True)
        listed = run(["isoinfo", "-J", "-f", "-i", out]).decode().split()
        assert {f"/file{number}" for number in range(count)} <= set(listed) and len(listed) == 294 + count
        assert cosremaster.verify(out).ok
