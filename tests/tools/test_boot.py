"""Boot records: catalogs and tables that genisoimage and xorriso wrote, partition tables, and damage."""

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster.boot.eltorito import BootCatalog, BootEntry, find_catalog, parse_catalog
from cosremaster.boot.mbr import SIGNATURE, ChsGeometry, Mbr, MbrPartition, encode_chs
from cosremaster.boot.pointers import (
    GRUB2_IMAGE_OFFSET,
    MBR_POINTER_OFFSET,
    BootInfoTable,
    compute_boot_image_checksum,
    pack_grub2_image_pointer,
    pack_grub2_mbr_pointer,
    pack_isolinux_mbr_pointer,
)
from cosremaster.errors import ImageError, Place
from cosremaster.units import BLOCK, Lba, Sector, lba_offset
from tests.fixtures import tools

PLACE = Place(("in.iso",))
NOISE = random.Random(3).randbytes(1 << 20)
IMAGES = {"bios.img": NOISE[:6000], "efi.img": NOISE[:4096], "odd.img": NOISE[:4099], "floppy.img": bytes(1_474_560)}
TABLE = ("-no-emul-boot", "-boot-load-size", "4", "-boot-info-table")

SHAPES = {
    "one": ("-b", "bios.img", *TABLE),
    "two": ("-b", "bios.img", *TABLE, "-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot"),
    "three": (
        "-b", "odd.img", *TABLE, "-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot",
        "-eltorito-alt-boot", "-b", "bios.img", *TABLE,
    ),
    "floppy": ("-b", "floppy.img"),
}  # fmt: skip
WRITERS = {"genisoimage": ("genisoimage", "-quiet"), "xorriso": ("xorriso", "-as", "mkisofs", "-quiet")}


def _iso(folder: Path, writer: str, *options: str) -> Path:
    """A small ISO of ``IMAGES`` made by a real tool."""
    tools.require(writer)
    root = folder / "tree"
    root.mkdir()
    for name, data in IMAGES.items():
        (root / name).write_bytes(data)
    tools.run([*WRITERS[writer], "-o", folder / "made.iso", "-c", "boot.cat", *options, root])
    return folder / "made.iso"


def _catalog(image: bytes) -> BootCatalog:
    """The catalog of an image whose boot record is the second volume descriptor."""
    lba = find_catalog(image[17 * BLOCK : 18 * BLOCK])
    assert lba is not None
    start = lba_offset(lba)
    return parse_catalog(image[start : start + BLOCK], lba, start, PLACE)


def _reported(iso: Path) -> tuple[int, list[tuple[str, bool, str, int, int]]]:
    """What xorriso says: the catalog's LBA, and platform, bootable, emulation, sectors and LBA of each entry."""
    tools.require("xorriso")
    said = tools.run(["xorriso", "-indev", iso, "-report_el_torito", "plain"]).decode()
    rows = [line.split(":", 1)[1].split() for line in said.splitlines() if line.startswith("El Torito boot img")]
    (lba,) = (int(line.split(":")[1].split()[0]) for line in said.splitlines() if line.startswith("El Torito catalog"))
    return lba, [(row[1], row[2] == "y", row[3], int(row[6]), int(row[7])) for row in rows]


EMULATIONS = {0: "none", 1: "fd1.2", 2: "fd1.4", 3: "fd2.8", 4: "hd"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("writer", WRITERS)
def test_catalogs_are_read_as_xorriso_reads_them(tmp_path: Path, writer: str, shape: str) -> None:
    iso = _iso(tmp_path, writer, *SHAPES[shape])
    image = iso.read_bytes()
    catalog = _catalog(image)
    lba, entries = _reported(iso)
    assert catalog.lba == lba
    platforms = {0: "BIOS", 0xEF: "UEFI"}
    assert entries == [
        (platforms[one.platform], one.is_bootable, EMULATIONS[one.media], one.load_sectors, one.lba)
        for one in catalog.entries
    ]
    for one in catalog.entries:
        assert image[one.offset : one.offset + 32] == one.raw
        assert any(image[lba_offset(one.lba) :].startswith(data[:8]) for data in IMAGES.values())
    end = lba_offset(catalog.lba) + catalog.length
    assert not any(image[end - 32 : lba_offset(Lba(catalog.lba + 1))]), "one empty entry ends it, nothing follows"


def test_an_emulated_floppy_is_as_long_as_a_floppy(tmp_path: Path) -> None:
    (entry,) = _catalog(_iso(tmp_path, "genisoimage", *SHAPES["floppy"]).read_bytes()).entries
    assert (entry.media, entry.minimum_size) == (2, 1_474_560)
    assert entry.describe() == f"BIOS, 1.44 MB floppy, loads {entry.load_sectors} sectors"


def test_descriptors_of_others_have_no_catalog() -> None:
    assert find_catalog(b"\1CD001\1" + bytes(2041)) is None
    assert find_catalog(b"\0CD001\1" + b"OTHER SYSTEM".ljust(2041, b"\0")) is None
    assert find_catalog(b"\1CD001\1" + b"EL TORITO SPECIFICATION".ljust(2041, b"\0")) is None


def _validation() -> bytes:
    """A sound validation entry: with its signature, all words add up to zero."""
    return b"\1" + bytes(27) + (-(0x0001 + 0xAA55) & 0xFFFF).to_bytes(2, "little") + b"\x55\xaa"


def _entry(lba: int, sectors: int = 4) -> bytes:
    return struct.pack("<BBHBxHI20x", 0x88, 0, 0, 0, sectors, lba)


def _section(mark: int, platform: int, count: int) -> bytes:
    return struct.pack("<BBH28x", mark, platform, count)


EXTENSION = b"\x44" + bytes(31)
SOUND = (
    _validation() + _entry(50) + _section(0x90, 0xEF, 2) + _entry(60) + EXTENSION * 2 + _entry(61)
    + _section(0x91, 1, 1) + _entry(70) + _section(0x91, 1, 1) + _entry(80)
)  # fmt: skip


def test_sections_and_extensions_are_walked_to_the_last_header() -> None:
    catalog = parse_catalog(SOUND.ljust(BLOCK, b"\0"), Lba(40), lba_offset(Lba(40)), PLACE)
    seen = [(one.platform, one.lba, (one.offset - 40 * BLOCK) // 32) for one in catalog.entries]
    assert seen == [(0, 50, 1), (0xEF, 60, 3), (0xEF, 61, 6), (1, 70, 8)]


def test_an_entry_without_section_header_is_one() -> None:
    """As on Mageia 4's media; in front of sections, and between them. Behind the last section nothing is."""
    lone = _validation() + _entry(50) + _entry(55) + _entry(56) + _section(0x90, 0xEF, 1) + _entry(60) + _entry(61)
    lone += _section(0x91, 0, 1) + _entry(70) + _entry(80)
    catalog = parse_catalog(lone.ljust(BLOCK, b"\0"), Lba(40), 0, PLACE)
    assert [(entry.platform, entry.lba) for entry in catalog.entries] == [
        (0, 50), (0, 55), (0, 56), (0xEF, 60), (0xEF, 61), (0, 70),
    ]  # fmt: skip
    assert catalog.length == 10 * 32


@pytest.mark.parametrize("at", [0, 1, 4, 28, 30, 31])
def test_a_wrong_validation_entry_is_told(at: int) -> None:
    raw = bytearray(SOUND.ljust(BLOCK, b"\0"))
    raw[at] ^= 0x10
    with pytest.raises(ImageError, match=r"^in\.iso @0x14000: El Torito boot catalog has no sound validation entry$"):
        parse_catalog(bytes(raw), Lba(40), 0x14000, PLACE)


@pytest.mark.parametrize("length", [0, 1, 31])
def test_a_catalog_shorter_than_its_validation_entry_is_told(length: int) -> None:
    with pytest.raises(ImageError, match="no sound validation entry"):
        parse_catalog(SOUND[:length], Lba(40), 0, PLACE)


@pytest.mark.parametrize(
    "raw",
    [_validation(), _validation() + _entry(50), _validation() + _entry(50) + _section(0x90, 0, 0) * 62],
    ids=["validation alone", "no end", "headers only"],
)
def test_a_catalog_that_does_not_end_is_told(raw: bytes) -> None:
    with pytest.raises(ImageError, match="El Torito boot catalog does not end"):
        parse_catalog(raw, Lba(40), 0, PLACE)


@given(st.lists(st.tuples(st.integers(32, len(SOUND) + 64), st.integers(0, 255)), max_size=6), st.integers(0, 400))
def test_mutated_catalogs_raise_only_image_errors(mutations: list[tuple[int, int]], fill: int) -> None:
    raw = bytearray(SOUND.ljust(BLOCK, b"\0"))
    for at, value in mutations:
        raw[at] = value
    raw[len(SOUND) :: 32] = bytes((fill & 0xFF,)) * len(raw[len(SOUND) :: 32])
    raw[-64:] = bytes(64)  # what runs to the very end is the case above
    try:
        catalog = parse_catalog(bytes(raw), Lba(40), 0, PLACE)
    except ImageError as error:
        assert str(error) == "in.iso @0x0: El Torito boot catalog does not end"
    else:
        assert catalog.length <= BLOCK
        assert all(isinstance(one, BootEntry) and len(one.raw) == 32 and one.describe() for one in catalog.entries)


# Pointers


@pytest.mark.parametrize("name", ["bios.img", "odd.img", "efi.img"])
@pytest.mark.parametrize("writer", WRITERS)
def test_the_boot_info_table_is_the_one_that_the_writer_made(tmp_path: Path, writer: str, name: str) -> None:
    image = _iso(tmp_path, writer, "-b", name, *TABLE).read_bytes()
    (entry,) = _catalog(image).entries
    start, length = lba_offset(entry.lba), len(IMAGES[name])
    booted = image[start : start + length]
    table = BootInfoTable.parse(booted[:64])
    assert (table.descriptor, table.image, table.length) == (16, entry.lba, length)
    for step in (1, 7, length):
        assert compute_boot_image_checksum(booted[at : at + step] for at in range(0, length, step)) == table.checksum
    assert table.pack() == booted[8:24]
    assert compute_boot_image_checksum([IMAGES[name]]) == table.checksum, "the table lies outside its sum"


def test_grub_pointers_are_those_that_xorriso_writes(tmp_path: Path) -> None:
    hybrid = tmp_path / "hybrid.img"
    hybrid.write_bytes(NOISE[:432] + bytes(80))
    image = _iso(tmp_path, "xorriso", *SHAPES["one"], "--grub2-boot-info", "--grub2-mbr", str(hybrid)).read_bytes()
    (entry,) = _catalog(image).entries
    at = lba_offset(entry.lba) + GRUB2_IMAGE_OFFSET
    assert image[at : at + 8] == pack_grub2_image_pointer(entry.lba)
    assert image[MBR_POINTER_OFFSET : MBR_POINTER_OFFSET + 8] == pack_grub2_mbr_pointer(entry.lba)


def test_isolinux_pointer_is_a_sector() -> None:
    assert pack_isolinux_mbr_pointer(Lba(0x123456)) == (0x123456 * 4).to_bytes(4, "little")


# The master boot record


@given(st.binary(min_size=510, max_size=510))
def test_any_mbr_comes_back(raw: bytes) -> None:
    mbr = Mbr.parse(raw + SIGNATURE)
    assert mbr is not None
    assert mbr.pack() == raw + SIGNATURE
    assert [one.pack() for one in mbr.partitions] == [raw[at : at + 16] for at in range(446, 510, 16)]


def test_without_its_signature_there_is_no_mbr() -> None:
    assert Mbr.parse(bytes(512)) is None
    assert Mbr.parse(b"") is None


def _mbr(*partitions: MbrPartition) -> Mbr:
    empty = MbrPartition.parse(bytes(16))
    return Mbr(bytes(446), (*partitions, *[empty] * 4)[:4])


def _partition(start: int, count: int, geometry: ChsGeometry) -> MbrPartition:
    first, last = encode_chs(start, geometry), encode_chs(start + count - 1, geometry)
    return MbrPartition(0x80, first, 0x17, last, Sector(start), count)


@pytest.mark.parametrize(("heads", "track"), [(64, 32), (255, 63), (16, 63), (128, 32)])
def test_the_geometry_that_xorriso_wrote_is_found(tmp_path: Path, heads: int, track: int) -> None:
    options = ("-partition_offset", "16", "-partition_hd_cyl", str(heads), "-partition_sec_hd", str(track))
    image = _iso(tmp_path, "xorriso", *SHAPES["one"], *options).read_bytes()
    mbr = Mbr.parse(image[:512])
    assert mbr is not None and mbr.pack() == image[:512]
    ((number, partition),) = mbr.used_partitions
    assert (number, partition.start, partition.end) == (1, 64, len(image) // 512)
    geometry = mbr.find_geometry()
    assert geometry is not None
    assert encode_chs(partition.start, (heads, track)) == partition.first
    assert encode_chs(partition.end - 1, geometry) == partition.last
    assert geometry == (heads, track) or encode_chs(partition.end - 1, (heads, track)) == partition.last


@pytest.mark.parametrize("geometry", [(255, 63), (64, 32), (128, 32), (16, 63), (240, 63), (7, 11), (1, 1), (255, 1)])
def test_a_geometry_is_found_from_two_partitions(geometry: ChsGeometry) -> None:
    size = geometry[0] * geometry[1]
    mbr = _mbr(_partition(1, size * 5 + 3, geometry), _partition(size * 600, size * 100 - 1, geometry))
    found = mbr.find_geometry()
    assert found is not None
    for _, one in mbr.used_partitions:
        assert encode_chs(one.end - 1, found) == one.last
        assert encode_chs(one.start, found) == one.first
    assert found == geometry


@pytest.mark.parametrize(("geometry", "last"), [((255, 63), "feffff"), ((64, 32), "3fe0ff"), ((16, 63), "0fffff")])
def test_what_lies_beyond_the_last_cylinder_is_the_last_address(geometry: ChsGeometry, last: str) -> None:
    heads, track = geometry
    for sector in (1024 * heads * track - 1, 1024 * heads * track, 0xFFFFFFFF):
        assert encode_chs(sector, geometry).hex() == last
    assert encode_chs(1024 * heads * track - 2, geometry).hex() != last
    assert _mbr(_partition(64, 0xF0000000, geometry)).find_geometry() == geometry


def test_nothing_explains_empty_tables_or_nonsense() -> None:
    assert _mbr().find_geometry() is None
    nonsense = MbrPartition(0, b"\0\0\0", 0x17, b"\0\0\0", Sector(64), 1000)
    assert _mbr(nonsense).find_geometry() is None


def test_known_addresses() -> None:
    """Sector 2,048 of a 255/63 disk is cylinder 0, head 32, sector 33, as every fdisk shows."""
    assert encode_chs(2048, (255, 63)) == bytes((32, 33, 0))
    assert encode_chs(300 * 64 * 32, (64, 32)) == bytes((0, 1 | 0x40, 300 - 256))


@given(st.integers(0, 1 << 24), st.integers(1, 1 << 24), st.integers(0, 1 << 24), st.integers(1, 1 << 24))
def test_a_partition_is_placed_elsewhere(start: int, count: int, new_start: int, new_count: int) -> None:
    geometry = (64, 32)
    old = _partition(start, count, geometry)
    assert old.moved_to(Sector(start), count, None) is old
    assert old.moved_to(Sector(new_start), new_count, geometry) == _partition(new_start, new_count, geometry)
    blind = old.moved_to(Sector(new_start), new_count, None)
    assert (blind.first, blind.last, blind.start, blind.count) == (old.first, old.last, new_start, new_count)


def test_a_partition_that_grows_keeps_the_first_address_it_had() -> None:
    odd = MbrPartition(0x80, b"\1\2\3", 0x17, b"\4\5\6", Sector(64), 100)
    grown = odd.moved_to(Sector(64), 200, (64, 32))
    assert (grown.first, grown.last, grown.type, grown.status) == (b"\1\2\3", encode_chs(263, (64, 32)), 0x17, 0x80)
