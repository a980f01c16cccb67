"""`cosremaster verify`: sound images of every family pass, and each seeded fault is told by its own finding."""

import json
import random
import struct
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster import Directory, InlineFile
from cosremaster.boot.gpt import PRIMARY, Gpt, GptEntry, read_gpt
from cosremaster.cli import main
from cosremaster.crc import crc16_xmodem
from cosremaster.errors import Place
from cosremaster.io.source import open_source
from cosremaster.iso.ecma119.records import DirectoryRecord
from cosremaster.iso.udf.read import compute_tag_checksum
from cosremaster.records import replace
from cosremaster.units import BLOCK, SECTOR, Sector, lba_offset
from cosremaster.verification.finding import Level, VerificationReport
from cosremaster.verification.run import verify
from cosremaster.verification.subject import Subject, read_subject
from tests.fixtures import families, tools
from tests.support.small import CGZ, broken_inside, write_small

NOISE = random.Random(8).randbytes(BLOCK)


@pytest.fixture(scope="module", autouse=True)
def _real_tools() -> None:
    tools.require(*families.TOOLS)


@cache
def image(name: str) -> bytes:
    """A family's image."""
    return families.build(name).read_bytes()


def failing(report: VerificationReport) -> set[str]:
    """The checks that fail."""
    return {finding.check for finding in report.findings if finding.is_counted}


@pytest.mark.parametrize("name", families.FAMILIES)
def test_sound_images_of_every_family_pass(name: str) -> None:
    path = families.build(name)
    report = verify(path)
    assert [finding for finding in report.findings if finding.level is Level.FAILS] == []
    assert report.ok and report.at_level(Level.HOLDS)
    assert report.size == path.stat().st_size


@pytest.mark.parametrize("name", ["debian", "ubuntu", "grub-mkrescue", "fedora", "udf-boot", "nameless"])
def test_an_image_is_as_it_is_itself(name: str) -> None:
    path = families.build(name)
    assert verify(path, against=path).ok


# Where things stand


class Broken:
    """An image's bytes to be damaged, and where things stand in them."""

    def __init__(self, name: str, folder: Path) -> None:
        self.raw = bytearray(image(name))
        self._folder = folder
        path = folder / "sound.iso"
        path.write_bytes(self.raw)
        with open_source(path) as source:
            self.subject: Subject = read_subject(source)

    def report(self, *, deep: bool = False) -> VerificationReport:
        """What verify finds now."""
        path = self._folder / "broken.iso"
        path.write_bytes(self.raw)
        return verify(path, deep=deep)

    def put(self, offset: int, data: bytes) -> None:
        """Other bytes at an offset."""
        self.raw[offset : offset + len(data)] = data

    def flip(self, offset: int) -> None:
        """One bit."""
        self.raw[offset] ^= 0x10

    def number(self, offset: int, value: int, order: str = "<I") -> None:
        """A number in one byte order."""
        self.put(offset, struct.pack(order, value))

    def both(self, offset: int, value: int) -> None:
        """A number in both."""
        self.put(offset, struct.pack("<I", value) + struct.pack(">I", value))

    def record(self, ending: bytes, tree: int = 0) -> DirectoryRecord:
        """The record of a tree whose identifier begins so."""
        records = self.subject.trees[tree].records
        return next(one for one in records if one.identifier.replace(b"\0", b"").upper().startswith(ending))

    def entry(self, number: int = 0) -> int:
        """Where an El Torito entry stands."""
        assert self.subject.catalog is not None
        return self.subject.catalog.entries[number].offset

    def boot_image(self, number: int = 0) -> int:
        """Where an El Torito entry leads."""
        assert self.subject.catalog is not None
        return lba_offset(self.subject.catalog.entries[number].lba)

    def gpt(self, copy: str, change: Callable[[Gpt], Gpt]) -> None:
        """Another GPT in the backup or both copies, with sums that hold."""
        for header in (PRIMARY, self.backup) if copy == "both" else (self.backup,):
            found = read_gpt(lambda at, size: bytes(self.raw[at : at + size]), header, Place())
            assert found is not None
            new = change(found)
            new = Gpt(replace(new.header, entries_crc=new.computed_entries_crc), new.entries)
            new = Gpt(replace(new.header, crc=new.header.computed_crc), new.entries)
            self.put(header * SECTOR, new.header.pack())
            self.put(found.header.entries_lba * SECTOR, new.pack_array())

    @property
    def protective(self) -> int:
        """Where the MBR's entry stands that announces the GPT."""
        assert self.subject.mbr is not None
        return _partition(next(number for number, one in self.subject.mbr.used_partitions if one.type == 0xEE))

    @property
    def backup(self) -> Sector:
        """The backup header's sector."""
        assert self.subject.gpt is not None
        return self.subject.gpt.header.alternate_lba


def _partition(number: int) -> int:
    return 446 + 16 * (number - 1)


def _entries(change: Callable[[GptEntry], GptEntry], number: int = 1) -> Callable[[Gpt], Gpt]:
    def changed(gpt: Gpt) -> Gpt:
        entries = list(gpt.entries)
        entries[number - 1] = change(entries[number - 1])
        return Gpt(gpt.header, tuple(entries))

    return changed


def _retag(broken: Broken, block: int) -> None:
    """A UDF descriptor's CRC and checksum made to hold again."""
    at = block * BLOCK
    length = int.from_bytes(broken.raw[at + 10 : at + 12], "little")
    broken.number(at + 8, crc16_xmodem(bytes(broken.raw[at + 16 : at + 16 + length])), "<H")
    broken.raw[at + 4] = compute_tag_checksum(bytes(broken.raw[at : at + 16]))


def _udf(block: int, offset: int, value: int, order: str = "<I") -> Callable[[Broken], None]:
    def damage(broken: Broken) -> None:
        broken.number(block * BLOCK + offset, value, order)
        _retag(broken, block)

    return damage


def _cut(blocks: int) -> Callable[[Broken], None]:
    def damage(broken: Broken) -> None:
        del broken.raw[-blocks * BLOCK :]

    return damage


def _at(offset: int, data: bytes) -> Callable[[Broken], None]:
    return lambda broken: broken.put(offset, data)


def _flip(offset: int) -> Callable[[Broken], None]:
    return lambda broken: broken.flip(offset)


def _rock_ridge(broken: Broken, field: bytes) -> int:
    """Where a field of a file's record stands."""
    start = broken.record(b"PAYLOAD").offset
    return broken.raw.index(field, start, start + 250)


def _file_entry(broken: Broken, length: int) -> int:
    """The block of the UDF file entry of a file so long."""
    for block in range(257, 400):
        at = block * BLOCK
        kind, size = int.from_bytes(broken.raw[at : at + 2], "little"), broken.raw[at + 56 : at + 64]
        if kind == 261 and int.from_bytes(size, "little") == length:
            return block
    raise AssertionError("no such file entry")


def _udf_file(offset: int, change: int) -> Callable[[Broken], None]:
    def damage(broken: Broken) -> None:
        block = _file_entry(broken, 123_456)
        at = block * BLOCK + offset
        broken.number(at, int.from_bytes(broken.raw[at : at + 4], "little") + change)
        _retag(broken, block)

    return damage


def _record(ending: bytes, offset: int, value: int, tree: int = 0) -> Callable[[Broken], None]:
    """``value`` more in a both-endian number of a record."""

    def damage(broken: Broken) -> None:
        at = broken.record(ending, tree).offset + offset
        broken.both(at, int.from_bytes(broken.raw[at : at + 4], "little") + value)

    return damage


Fault = tuple[str, str, str, Callable[[Broken], None]]
LBA, LENGTH = 2, 10
PVD = 16 * BLOCK
FAULTS: Sequence[Fault] = (
    # what is wrong, the family, the check that tells, how it is made
    ("space size differs by byte order", "debian", "volume.both-endian", _flip(PVD + 84)),
    ("cut off in the middle", "debian", "volume.size", _cut(1200)),
    ("no terminator", "debian", "volume.unreadable", _at(PVD + 3 * BLOCK, bytes(BLOCK))),
    ("logical blocks of 512 bytes", "plain", "volume.block-size", _at(PVD + 128, b"\0\2\2\0")),
    ("little-endian path table stale", "debian", "pathtable.little",
     lambda b: b.flip(lba_offset(b.subject.descriptors[0].path_tables[0].lba) + 12)),
    ("big-endian path table stale", "debian", "pathtable.big",
     lambda b: b.flip(lba_offset(b.subject.descriptors[0].path_tables[-1].lba) + 15)),
    ("file's block wrong", "debian", "extent.overlap", _record(b"PAYLOAD", LBA, 3)),
    ("file's block differs by byte order", "debian", "record.both-endian",
     lambda b: b.flip(b.record(b"PAYLOAD").offset + 7)),
    ("file longer than the image", "plain", "record.outside", _record(b"PAYLOAD", LENGTH, 1 << 30)),
    ("file behind the volume", "plain", "record.outside-volume",
     lambda b: b.both(PVD + 80, b.record(b"ZZ_LAST").lba + 10)),
    ("parent directory wrong", "plain", "record.dot",
     lambda b: b.both(lba_offset(b.record(b"MAIN").lba) + b.raw[lba_offset(b.record(b"MAIN").lba)] + LBA, 30)),
    ("further extents announced", "plain", "record.extents",
     lambda b: b.put(b.record(b"PAYLOAD").offset + 25, b"\x80")),
    ("directory inside itself", "plain", "tree.unreadable",
     lambda b: b.both(b.record(b"MAIN").offset + LBA, b.record(b"POOL").lba)),
    ("Joliet stale", "debian", "tree.joliet", _record(b"PAYLOAD", LBA, -40, 1)),
    ("Joliet length stale", "debian", "tree.joliet", _record(b"PAYLOAD", LENGTH, 7, 1)),
    ("second tree disagrees", "ubuntu", "tree.second", _record(b"PAYLOAD", LBA, -16, 2)),
    ("second Joliet tree disagrees", "ubuntu", "tree.second", _record(b"PAYLOAD", LENGTH, -1, 3)),
    ("second volume's size wrong", "ubuntu", "volume.size",
     lambda b: b.both(32 * BLOCK + 80, len(b.raw) // BLOCK)),
    ("mode says directory", "debian", "rockridge.mode",
     lambda b: b.put(_rock_ridge(b, b"PX") + 4, struct.pack("<I", 0o40755) + struct.pack(">I", 0o40755))),
    ("mode differs by byte order", "debian", "rockridge.both-endian", lambda b: b.flip(_rock_ridge(b, b"PX") + 5)),
    ("name longer than its record", "debian", "rockridge.malformed",
     lambda b: b.put(_rock_ridge(b, b"NM") + 2, b"\xf0")),
    ("no Rock Ridge name", "debian", "rockridge.name", lambda b: b.put(_rock_ridge(b, b"NM"), b"XX")),
    ("boot catalog's sum", "plain", "eltorito.catalog", lambda b: b.flip(b.entry() - 8)),
    ("boot entry neither bootable nor not", "plain", "eltorito.entry", lambda b: b.put(b.entry(), b"\x42")),
    ("boot entry behind the image", "plain", "eltorito.outside", lambda b: b.number(b.entry() + 8, 1 << 24)),
    ("boot entry inside a file", "plain", "eltorito.inside",
     lambda b: b.number(b.entry() + 8, b.record(b"PAYLOAD").lba + 3)),
    ("boot entry inside an appended partition", "ubuntu", "eltorito.inside",
     lambda b: b.number(b.entry(1) + 8, b.boot_image(1) // BLOCK + 1)),
    ("boot entry at blank blocks", "plain", "eltorito.blank",
     lambda b: b.number(b.entry() + 8, len(b.raw) // BLOCK - 20)),
    ("boot-info-table of another image", "plain", "bootinfo.place",
     lambda b: b.number(b.boot_image() + 12, b.subject.blocks - 9)),
    ("boot-info-table's length", "plain", "bootinfo.length", lambda b: b.number(b.boot_image() + 16, 4096)),
    ("boot image changed", "plain", "bootinfo.sum", lambda b: b.flip(b.boot_image() + 3000)),
    ("grub2-boot-info stale", "ubuntu", "grub2.image", lambda b: b.flip(b.boot_image() + 2549)),
    ("ISOLINUX pointer of the MBR stale", "debian", "mbr.pointer", _flip(433)),
    ("GRUB2 pointer of the MBR stale", "ubuntu", "mbr.pointer", _flip(433)),
    ("partition over the volume too short", "isohybrid", "mbr.short",
     lambda b: b.number(_partition(1) + 12, 1000)),
    ("partition behind the image", "isohybrid", "mbr.bounds",
     lambda b: b.number(_partition(1) + 12, len(b.raw) // SECTOR + 8)),
    ("partitions that share sectors", "isohybrid", "mbr.overlap",
     lambda b: b.put(_partition(2), b"\0\xfe\xff\xff\x83\xfe\xff\xff" + struct.pack("<II", 2048, len(b.raw) // 512))),
    ("CHS address stale", "debian", "mbr.chs", lambda b: b.put(_partition(1) + 5, b"\x07\x05\x09")),
    ("partition neither active nor not", "debian", "mbr.status", lambda b: b.put(_partition(1), b"\x12")),
    ("EFI partition leads elsewhere", "debian", "partition.no-fat",
     lambda b: b.number(_partition(2) + 8, b.record(b"PAYLOAD").lba * 4)),
    ("EFI partition too short", "debian", "partition.fat", lambda b: b.number(_partition(2) + 12, 64)),
    ("EFI partition unknown to the GPT", "debian", "gpt.mbr",
     lambda b: b.number(_partition(2) + 8, b.record(b"PAYLOAD").lba * 4)),
    ("GPT announced and not there", "ubuntu", "mbr.protective", _at(SECTOR, bytes(SECTOR))),
    ("primary GPT gone, backup there", "ubuntu", "gpt.primary", _at(SECTOR, bytes(SECTOR))),
    ("protective partition too short", "ubuntu", "mbr.protective",
     lambda b: b.number(b.protective + 12, 5000)),
    ("GPT header's sum", "debian", "gpt.primary-header-sum", _flip(SECTOR + 57)),
    ("GPT entries' sum", "debian", "gpt.primary-array-sum",
     lambda b: b.flip(12 * SECTOR + 60)),
    ("GPT sizes impossible", "debian", "gpt.unreadable", _at(SECTOR + 84, b"\1\0\0\0")),
    ("backup header's sum", "debian", "gpt.backup-header-sum", lambda b: b.flip(b.backup * SECTOR + 57)),
    ("backup entries' sum", "debian", "gpt.backup-array-sum", lambda b: b.flip((b.backup - 1) * SECTOR + 3)),
    ("backup gone", "debian", "gpt.backup", lambda b: b.put(b.backup * SECTOR, bytes(SECTOR))),
    ("backup cut off", "ubuntu", "gpt.backup", _cut(1)),
    ("backup of an older table", "ubuntu", "gpt.copies",
     lambda b: b.gpt("backup", _entries(lambda one: replace(one, last=Sector(one.last - 8))))),
    ("backup says another place", "ubuntu", "gpt.own-place",
     lambda b: b.gpt("backup", lambda g: Gpt(replace(g.header, my_lba=Sector(77)), g.entries))),
    ("backup leads to no primary", "ubuntu", "gpt.alternate",
     lambda b: b.gpt("backup", lambda g: Gpt(replace(g.header, alternate_lba=Sector(2)), g.entries))),
    ("GPT partition behind the image", "ubuntu", "gpt.bounds",
     lambda b: b.gpt("both", _entries(lambda one: replace(one, last=Sector(1 << 30)), 2))),
    ("GPT partition beyond every disk", "ubuntu", "gpt.bounds",
     lambda b: b.gpt("both", _entries(lambda one: replace(one, first=Sector(1 << 63), last=Sector(1 << 63)), 2))),
    ("backup beyond every disk", "ubuntu", "gpt.backup", _at(SECTOR + 32, bytes(7) + b"\xf0")),
    ("GPT partitions that share sectors", "ubuntu", "gpt.overlap",
     lambda b: b.gpt("both", _entries(lambda one: replace(one, last=Sector(one.last + 16))))),
    ("GPT partition ends inside its file system", "ubuntu", "gpt.short",
     lambda b: b.gpt("both", _entries(lambda one: replace(one, last=Sector(one.last - 16))))),
    ("last usable sector in the backup", "ubuntu", "gpt.last-usable",
     lambda b: b.gpt("both", lambda g: Gpt(replace(g.header, last_usable=Sector(b.backup - 9)), g.entries))),
    ("EFI system partition too short", "grub-mkrescue", "partition.fat",
     lambda b: b.gpt("both", _entries(lambda one: replace(one, last=Sector(one.first + 40)), 2))),
    ("Apple map counts wrong", "debian", "apm.count", _at(BLOCK * 2 + 4, struct.pack(">I", 9))),
    ("Apple map lacks an entry", "debian", "apm.unreadable", _at(BLOCK * 2, b"XX")),
    ("Apple partition behind the image", "debian", "apm.bounds", _at(BLOCK * 2 + 12, struct.pack(">I", 1 << 24))),
    ("Apple partition leads elsewhere", "debian", "apm.hfs",
     lambda b: b.number(BLOCK * 2 + 8, b.record(b"PAYLOAD").lba, ">I")),
    ("HFS+ without its copy", "grub-mkrescue", "apm.hfs-copy",
     lambda b: b.number(BLOCK * 3 + 12, int.from_bytes(b.raw[BLOCK * 3 + 12 : BLOCK * 3 + 16], "big") - 3, ">I")),
    ("Apple partitions that share blocks", "grub-mkrescue", "apm.overlap",
     lambda b: b.number(BLOCK * 2 + 12, int.from_bytes(b.raw[BLOCK * 2 + 12 : BLOCK * 2 + 16], "big") + 9, ">I")),
    ("MIPS header's sum", "mips", "firmware.sum", _flip(73)),
    ("Sun label's sum", "sun", "firmware.sum", _flip(20)),
    ("MIPS header leads to no file", "mips", "firmware.target", lambda b: b.number(80, 4 * 20, ">I")),
    ("HP-PA header leads behind the image", "hppa", "firmware.outside", lambda b: b.number(240, 1 << 30, ">I")),
    ("Alpha header leads to no file", "alpha", "firmware.target", lambda b: b.number(488, 4 * 20, "<Q")),
    ("UDF tag's checksum", "udf", "udf.tag-checksum", _flip(34 * BLOCK + 4)),
    ("UDF descriptor's CRC", "udf", "udf.crc", _flip(35 * BLOCK + 90)),
    ("UDF descriptor of another place", "udf", "udf.tag-place", _udf(50, 12, 51)),
    ("UDF partition behind the volume", "udf", "udf.partition", _udf(34, 192, 5000)),
    ("UDF sequences differ", "udf", "udf.sequences", _udf(50, 192, 400)),
    ("UDF integrity stale", "udf", "udf.integrity", _udf(64, 84, 400)),
    ("UDF file's size stale", "udf", "udf.file-size", _udf_file(56, 5)),
    ("UDF file's block stale", "udf", "udf.file", _udf_file(180, 1)),
    ("UDF's last anchor gone", "udf", "udf.last-anchor", lambda b: b.put(len(b.raw) - BLOCK, NOISE)),
    ("UDF's first anchor gone", "udf", "udf.unreadable", _at(256 * BLOCK, bytes(BLOCK))),
    ("file changed below an implanted MD5", "fedora", "md5.implanted",
     lambda b: b.flip(lba_offset(b.record(b"PAYLOAD").lba) + 9)),
    ("implanted MD5's fragments", "fedora", "md5.fragments",
     lambda b: b.put(b.raw.index(b"FRAGMENT SUMS = ") + 20, b"0" if b.raw[b.raw.index(b"FRAGMENT SUMS = ") + 20] != 48
                     else b"1")),
    ("implanted MD5 mangled", "fedora", "md5.malformed",
     lambda b: b.put(b.raw.index(b"ISO MD5SUM = ") + 20, b"z")),
)  # fmt: skip


@pytest.mark.parametrize(("fault", "name", "check", "damage"), FAULTS, ids=[one[0] for one in FAULTS])
def test_a_seeded_fault_is_told(
    tmp_path: Path, fault: str, name: str, check: str, damage: Callable[[Broken], None]
) -> None:
    broken = Broken(name, tmp_path)
    before = bytes(broken.raw)
    damage(broken)
    assert broken.raw != before, "nothing was damaged"
    assert check in failing(broken.report())


def test_partitions_are_judged_by_the_copy_of_the_gpt_that_systems_read(tmp_path: Path) -> None:
    """That is the first whose sums hold (UEFI 2.10, 5.3.2); what one says whose sums are wrong is read by nobody."""
    broken = Broken("ubuntu", tmp_path)
    first = struct.unpack_from("<Q", broken.raw, SECTOR + 72)[0] * SECTOR
    broken.flip(first + 128 + 40)  # where the second partition ends
    assert failing(broken.report()) == {"gpt.primary-array-sum", "gpt.copies"}
    broken.flip(broken.backup * SECTOR + 57)
    assert failing(broken.report()) == {"gpt.primary-array-sum", "gpt.backup-header-sum", "gpt.copies"}


def test_every_fault_of_a_udf_tag_is_told(tmp_path: Path) -> None:
    """A change may mend its checksum alone: the wrong place was there before."""
    broken = Broken("udf", tmp_path)
    broken.flip(34 * BLOCK + 12)
    assert failing(broken.report()) >= {"udf.tag-checksum", "udf.tag-place"}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_noise_in_the_structures_never_ends_in_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    broken = Broken(data.draw(st.sampled_from(["debian", "ubuntu", "udf-boot", "fedora"])), tmp_path)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(
            st.one_of(st.integers(0, 90 * BLOCK), st.integers(len(broken.raw) - 40 * SECTOR, len(broken.raw) - 9))
        )
        broken.put(at, data.draw(st.binary(min_size=1, max_size=8)))
    if data.draw(st.booleans()):
        del broken.raw[data.draw(st.integers(0, len(broken.raw))) :]
    if broken.raw:
        for finding in broken.report().findings:
            assert finding.check and finding.message
            assert "\n" not in f"{finding.place}{finding.message}"


def _copy(name: str, folder: Path, change: Callable[[Broken], None]) -> tuple[Path, Path]:
    """A family's image and one made from it."""
    broken = Broken(name, folder)
    change(broken)
    made = folder / "made.iso"
    made.write_bytes(broken.raw)
    return folder / "sound.iso", made


BESIDE: Sequence[Fault] = (
    ("file changed", "data-both", "against.file", lambda b: b.flip(lba_offset(b.record(b"PAYLOAD").lba) + 70_000)),
    ("file shorter", "data-both", "against.file", _record(b"PAYLOAD", LENGTH, -1)),
    ("file renamed", "data-bare", "against.missing", lambda b: b.put(b.record(b"PAYLOAD").offset + 33, b"Q")),
    ("file under a new name", "data-bare", "against.extra", lambda b: b.put(b.record(b"PAYLOAD").offset + 33, b"Q")),
    ("volume's date changed", "data-both", "against.volume", lambda b: b.put(PVD + 830, b"2001")),
    ("volume id changed", "data-both", "against.volume", lambda b: b.put(PVD + 40, b"OTHER")),
    ("Joliet descriptor gone", "data-both", "against.descriptors", lambda b: b.put(PVD + BLOCK, b"\xff")),
    ("boot image changed", "ubuntu", "against.boot", lambda b: b.flip(b.boot_image() + 5000)),
    ("MBR's code changed", "ubuntu", "against.code", _flip(100)),
    ("partition's type changed", "debian", "against.mbr", lambda b: b.put(_partition(2) + 4, b"\x0c")),
    ("disk GUID changed", "ubuntu", "against.gpt",
     lambda b: b.gpt("both", lambda g: Gpt(replace(g.header, guid=bytes(16)), g.entries))),
    ("appended partition changed", "ubuntu", "against.partition", lambda b: b.flip(b.boot_image(1) + 40_000)),
)  # fmt: skip


@pytest.mark.parametrize(("fault", "name", "check", "damage"), BESIDE, ids=[one[0] for one in BESIDE])
def test_what_differs_from_the_original_is_told(
    tmp_path: Path, fault: str, name: str, check: str, damage: Callable[[Broken], None]
) -> None:
    original, made = _copy(name, tmp_path, damage)
    report = verify(made, against=original)
    assert check in failing(report)
    assert not report.ok


def test_what_was_meant_to_change_may_differ(tmp_path: Path) -> None:
    original, made = _copy("data-both", tmp_path, lambda b: b.flip(lba_offset(b.record(b"PAYLOAD").lba) + 9))
    path = families.PAYLOAD
    assert failing(verify(made, against=original)) == {"against.file"}
    (finding,) = (one for one in verify(made, against=original).findings if one.is_counted)
    assert finding.place.parts[1:] == (path,)
    assert verify(made, against=original, changed=[path.encode()]).ok


def test_what_was_meant_to_change_is_somewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = families.build("data-both")
    words = ["verify", str(original), "--against", str(original), "--changed"]
    assert main([*words, "README.txt"]) == main([*words, "/pool/"]) == main([*words, "pool/main"]) == 0
    capsys.readouterr()
    for path, meant in (
        ("READNE.txt", "; did you mean README.txt?"),
        ("pool/mian", "; did you mean pool/main?"),
        ("x", ""),
    ):
        assert main([*words, "README.txt", "--changed", path]) == 2
        assert capsys.readouterr() == ("", f"cosremaster: {path} was to be changed, and is in neither image{meant}\n")
    assert main(["inspect", str(original), "--html", str(tmp_path / "a"), *words[2:], "READNE.txt"]) == 2
    assert not list(tmp_path.iterdir())


def test_the_originals_own_faults_do_not_count_twice(tmp_path: Path) -> None:
    original, made = _copy("debian", tmp_path, lambda b: b.flip(b.backup * SECTOR + 16))
    assert failing(verify(made)) == {"gpt.backup-header-sum"}
    report = verify(made, against=made)
    assert report.ok
    assert [one.check for one in report.findings if one.is_preexisting] == ["gpt.backup-header-sum"]
    assert not verify(made, against=original).ok


def test_deep_decodes_every_layer(tmp_path: Path) -> None:
    sound = write_small(tmp_path)
    assert {one.check for one in verify(sound, deep=True).findings} >= {"layer.decodes"}
    (tmp_path / "other").mkdir()
    broken = write_small(tmp_path / "other", broken_inside())
    assert verify(broken).ok, "only decoding shows it"
    (finding,) = (one for one in verify(broken, deep=True).findings if one.level is Level.FAILS)
    assert (finding.check, finding.place.parts[1:]) == ("layer.corrupt", (CGZ, "rootfs.cxz"))


@pytest.mark.parametrize(("tool", "name"), [("md5sum", "md5sum.txt"), ("sha256sum", "SHA256SUMS")])
def test_deep_compares_lists_of_sums(tmp_path: Path, tool: str, name: str) -> None:
    tools.require("xorriso")
    tree = tmp_path / "tree"
    (tree / "pool").mkdir(parents=True)
    for path in ("pool/a.deb", "pool/b.deb", "README"):
        (tree / path).write_bytes(NOISE + path.encode())
    (tree / name).write_bytes(tools.run([tool, "./pool/a.deb", "./pool/b.deb", "README"], cwd=tree))
    iso = tmp_path / "sums.iso"
    tools.run(["xorriso", "-as", "mkisofs", "-quiet", "-r", "-o", iso, tree])
    report = verify(iso, deep=True)
    assert report.ok
    assert "sums.stale" in {one.check for one in report.at_level(Level.HOLDS)}
    raw = iso.read_bytes()
    iso.write_bytes(raw.replace(b"  ./pool/b.deb", b"  ./pool/B.deb").replace(NOISE + b"README", NOISE + b"readme"))
    assert verify(iso).ok, "only summing shows it"
    assert failing(verify(iso, deep=True)) == {"sums.stale", "sums.missing"}


def test_what_is_odd_is_noted_and_does_not_fail(tmp_path: Path) -> None:
    broken = Broken("udf", tmp_path)
    _udf(64, 88 + 32 + 4, 77)(broken)
    report = broken.report()
    assert report.ok
    assert [one.check for one in report.at_level(Level.NOTE)] == ["udf.counts"]


def test_memory_stays_flat_where_all_of_an_image_is_summed(tmp_path: Path) -> None:
    tools.require("xorriso", "implantisomd5")
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "large.img").open("wb") as file:
        file.truncate(500 << 20)
    iso = tmp_path / "large.iso"
    tools.run(["xorriso", "-as", "mkisofs", "-quiet", "-r", "-o", iso, tree])
    tools.run(["implantisomd5", iso])
    code = "import sys; from cosremaster.verification.run import verify; print(verify(sys.argv[1]).ok)"
    code += "; print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    ok, peak = tools.run([sys.executable, "-c", code, iso]).decode().split()
    assert ok == "True"
    assert int(peak) < 64 * 1024, "KiB"


# The command


def test_the_command_tells_each_pointer_and_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    path = families.build("debian")
    assert main(["verify", str(path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith(f"{path}: sound (")
    assert any(line.startswith("ok   mbr.pointer: ISOLINUX hybrid MBR: loads sector ") for line in said)
    assert any(line.startswith("ok   eltorito.entry: El Torito entry 2 (UEFI): leads to ") for line in said)


def test_the_command_ends_with_1_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, made = _copy("debian", tmp_path, _flip(433))
    assert main(["verify", str(made)]) == 1
    said = capsys.readouterr().out
    assert f"FAIL mbr.pointer: {made} @0x1B0: ISOLINUX hybrid MBR: loads sector" in said
    assert f"{made}: NOT SOUND (" in said


def test_json_is_what_the_docs_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, made = _copy("debian", tmp_path, lambda b: b.flip(b.backup * SECTOR + 16))
    assert main(["verify", "--json", "--against", str(original), str(made)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"schema", "version", "image", "size", "ok", "counts", "findings"}
    assert (report["schema"], report["ok"], report["counts"]["fails"]) == (1, False, 1)
    for finding in report["findings"]:
        assert set(finding) == {"level", "check", "message", "place", "offset", "before"}
        assert finding["level"] in ("holds", "note", "fails")
    documented = (Path(__file__).parents[2] / "docs/verify.md").read_text()
    for name in ("schema", "image", "size", "ok", "counts", "findings", "level", "check", "place", "offset", "before"):
        assert f"`{name}`" in documented


def test_every_check_is_documented() -> None:
    documented = (Path(__file__).parents[2] / "docs/verify.md").read_text()
    package = Path(__file__).parents[2] / "cosremaster/verification"
    told = {one[2] for one in (*FAULTS, *BESIDE)}
    assert len(FAULTS) >= 30
    for check in told:
        assert f"`{check}`" in documented, check
    named = "".join(path.read_text() for path in package.glob("*.py"))
    for check in told:
        family, _, rest = check.partition(".")
        assert f'"{check}"' in named or f'f"{family}.' in named, rest


def test_nonsense_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.iso"
    empty.write_bytes(b"")
    assert main(["verify", str(empty)]) == 1
    assert "is no ISO 9660 image" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "missing.iso")]) == 3
    assert main(["verify", "--changed", "a", str(empty)]) == 2


LONG = "a long name that joliet cuts away because it has more than sixty-four characters in it.txt"
NAMED = [b"site", b"README.txt", b"pool/main", b"moved/here"]


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's image with names that came, went and changed; each is made once."""
    folder, made = tmp_path_factory.mktemp("names"), dict[str, Path]()

    def make(name: str) -> Path:
        if name not in made:
            made[name] = folder / f"{name}.iso"
            cosremaster.remaster(
                families.build(name), made[name], remove_iso=["README.txt"], rename_iso=["pool/main:/moved/here"],
                add_iso=[
                    InlineFile(f"/site/data/{LONG}", b"x" * 5000), InlineFile(f"/site/empty-{LONG}", b""),
                    Directory(f"/site/directory-{LONG}"),
                ],
            )  # fmt: skip
        return made[name]

    return make


@pytest.mark.parametrize("name", ["debian", "ubuntu", "udf", "data-deep", "data-joliet", "data-bare"])
def test_names_that_were_meant_to_change_pass_and_others_fail(name: str, renamed: Callable[[str], Path]) -> None:
    out, original = renamed(name), families.build(name)

    def odd(*changed: bytes) -> set[str]:
        found = verify(out, against=original, changed=changed).findings
        return {"/".join(one.place.parts[1:]).lower() for one in found if one.is_counted}

    assert odd(*NAMED) == set()
    assert odd(*NAMED[:3], b"moved") == set()
    assert odd(*NAMED[1:]) >= {"site"}
    assert odd(b"site", *NAMED[2:]) == {"readme.txt"}
    for fewer, where in ((NAMED[2], "pool/main"), (NAMED[3], "moved/here")):
        left = odd(*(one for one in NAMED if one != fewer))
        assert where in left and all(one.startswith(where.split("/")[0]) for one in left)
    assert odd(*NAMED[:2], b"pool", b"moved") >= {"pool/main"}, "a directory that both have covers itself alone"


def test_a_name_that_only_joliet_has_otherwise_is_told(tmp_path: Path, renamed: Callable[[str], Path]) -> None:
    data = bytearray(renamed("data-both").read_bytes())
    name = "zz-last.bin".encode("utf-16-be")
    assert data.count(name) == 1
    at = data.index(name)
    data[at : at + len(name)] = "zz-lost.bin".encode("utf-16-be")
    (tmp_path / "odd.iso").write_bytes(data)
    found = verify(tmp_path / "odd.iso", against=families.build("data-both"), changed=NAMED).findings
    counted = [one for one in found if one.check.startswith("against.") and one.is_counted]
    assert [(one.place.parts[1:], one.check) for one in counted] == [
        (("zz-last.bin",), "against.missing"), (("zz-lost.bin",), "against.extra")
    ]  # fmt: skip
