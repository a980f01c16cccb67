"""GPT, Apple partition maps, other firmware's headers, implanted MD5s: as the real tools write them, and damaged."""

import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster.boot.apm import ENTRY_SIZE, ApmEntry, read_apm
from cosremaster.boot.firmware import FirmwareHeader, find_firmware
from cosremaster.boot.gpt import PRIMARY, Gpt, GptEntry, GptHeader, format_guid, read_gpt
from cosremaster.boot.implanted import APPLICATION_USE, AREA_SIZE, ImplantedMd5, Md5Sums, compute_md5_sums
from cosremaster.boot.mbr import Mbr
from cosremaster.errors import ImageError, Place
from cosremaster.records import replace
from cosremaster.units import BLOCK, SECTOR, Sector
from tests.fixtures import tools

PLACE = Place(("in.iso",))
NOISE = random.Random(4).randbytes(400_000)
FILES = {"kernel": NOISE[:70_000], "loader": NOISE[:30_001], "ramdisk": NOISE[:9_000], "big": NOISE}


def reader(raw: bytes) -> Callable[[int, int], bytes]:
    """Reads ``raw`` as a file is read."""
    return lambda at, length: raw[at : at + length]


def _made(folder: Path, *options: str) -> bytes:
    """An image of ``FILES`` by xorriso."""
    tools.require("xorriso")
    root = folder / "tree"
    root.mkdir()
    for name, data in FILES.items():
        (root / name).write_bytes(data)
    said = ["xorriso", "-as", "mkisofs", "-quiet", "-o", str(folder / "made.iso"), *options, str(root)]
    tools.run(said, cwd=root)
    return (folder / "made.iso").read_bytes()


HYBRID = ("-partition_offset", "16", "-appended_part_as_gpt", "-append_partition", "2", "0xef", "loader")
ISOHYBRID = (
    *("-isohybrid-mbr", "/usr/lib/ISOLINUX/isohdpfx.bin", "-b", "loader", "-no-emul-boot", "-boot-load-size", "4"),
    *("-boot-info-table", "-eltorito-alt-boot", "-e", "kernel", "-no-emul-boot", "-isohybrid-gpt-basdat"),
    "-isohybrid-apm-hfsplus",
)

# GPT


@pytest.mark.parametrize("options", [HYBRID, ISOHYBRID], ids=["appended", "isohybrid"])
def test_both_copies_are_those_that_xorriso_wrote(tmp_path: Path, options: tuple[str, ...]) -> None:
    tools.require("/usr/lib/ISOLINUX/isohdpfx.bin", "sgdisk")
    image = _made(tmp_path, *options)
    first = read_gpt(reader(image), PRIMARY, PLACE)
    assert first is not None
    last = read_gpt(reader(image), first.header.alternate_lba, PLACE)
    assert last is not None
    assert (last.header.my_lba, last.header.alternate_lba) == (first.header.alternate_lba, PRIMARY)
    assert last.entries == first.entries
    for copy in (first, last):
        header = copy.header
        at = header.my_lba * SECTOR
        assert header.pack() == image[at : at + SECTOR]
        array = image[header.entries_lba * SECTOR :][: header.entries_size]
        assert copy.pack_array() == array
        assert (header.crc, header.entries_crc) == (header.computed_crc, copy.computed_entries_crc)
    said = tools.run(["xorriso", "-indev", tmp_path / "made.iso", "-report_system_area", "plain"]).decode()
    starts = {int(a): (int(b), int(c)) for a, b, c in re.findall(r"GPT start and size : +(\d+) +(\d+) +(\d+)", said)}
    assert {number: (one.first, one.end - one.first) for number, one in first.used_entries} == starts
    assert f"GPT disk GUID      :      {first.header.guid.hex()}" in said
    if options is HYBRID:  # sgdisk reads no table whose partitions overlap
        assert format_guid(first.header.guid) in tools.run(["sgdisk", "-p", tmp_path / "made.iso"]).decode()


def test_a_table_of_sgdisk_moves_to_a_larger_disk_as_sgdisk_moves_it(tmp_path: Path) -> None:
    tools.require("sgdisk")
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    tools.run(["sgdisk", "-n", "1:64:127", "-c", "1:ESP é", "-t", "1:ef00", "-n", "3:256:511", disk])
    before = read_gpt(reader(disk.read_bytes()), PRIMARY, PLACE)
    assert before is not None
    assert next((number, one.label, one.first, one.last) for number, one in before.used_entries) == (
        1,
        "ESP é",
        64,
        127,
    )
    with disk.open("r+b") as file:
        file.truncate(3 << 20)
    tools.run(["sgdisk", "-e", disk])
    raw = disk.read_bytes()
    end = Sector(len(raw) // SECTOR - 1)
    usable = Sector(end - 33)
    common = {"last_usable": usable, "entries": before.entries}
    primary = before.moved_to(my_lba=PRIMARY, alternate_lba=end, entries_lba=before.header.entries_lba, **common)  # type: ignore[arg-type]
    backup = before.moved_to(my_lba=end, alternate_lba=PRIMARY, entries_lba=Sector(end - 32), **common)  # type: ignore[arg-type]
    assert primary == read_gpt(reader(raw), PRIMARY, PLACE)
    assert backup == read_gpt(reader(raw), end, PLACE)


@given(st.binary(min_size=504, max_size=504))
def test_any_gpt_header_comes_back(raw: bytes) -> None:
    header = GptHeader.parse(b"EFI PART" + raw)
    assert header is not None
    assert header.pack() == b"EFI PART" + raw
    size = min(header.size, SECTOR)
    whole = bytearray(header.pack())
    whole[16:20] = bytes(4)
    assert header.computed_crc == zlib.crc32(whole[:size])


@given(st.binary(min_size=128, max_size=256))
def test_any_gpt_entry_comes_back(raw: bytes) -> None:
    entry = GptEntry.parse(raw)
    assert entry.pack() == raw
    assert entry.is_used == any(raw[:16])
    assert isinstance(entry.label, str)


@given(st.lists(st.tuples(st.integers(512, 1023), st.integers(0, 255)), max_size=8), st.integers(0, 20_000))
def test_mutated_and_truncated_tables_raise_only_image_errors(mutations: list[tuple[int, int]], length: int) -> None:
    entries = tuple(GptEntry.parse(bytes((number,)) * 128) for number in range(128))
    header = GptHeader(
        revision=0x10000, size=92, crc=0, reserved=0, my_lba=PRIMARY, alternate_lba=Sector(99), first_usable=Sector(34),
        last_usable=Sector(66), guid=bytes(16), entries_lba=Sector(2), entry_count=128, entry_size=128, entries_crc=0,
        rest=bytes(420),
    )  # fmt: skip
    table = Gpt(header, entries)
    raw = bytearray(bytes(512) + table.header.pack() + table.pack_array())
    for at, value in mutations:
        raw[at] = value
    try:
        read_gpt(reader(bytes(raw[:length])), PRIMARY, PLACE)
    except ImageError as error:
        assert re.search(r"^in\.iso @0x200: GPT (header has impossible sizes|entry array lies outside)", str(error))


def test_a_disk_without_gpt_has_none() -> None:
    assert read_gpt(reader(bytes(4096)), PRIMARY, PLACE) is None
    assert read_gpt(reader(b""), PRIMARY, PLACE) is None


# The Apple partition map


def test_the_map_is_the_one_that_xorriso_wrote(tmp_path: Path) -> None:
    tools.require("/usr/lib/ISOLINUX/isohdpfx.bin")
    image = _made(tmp_path, *ISOHYBRID)
    table = read_apm(reader(image), PLACE)
    assert table is not None
    said = tools.run(["xorriso", "-indev", tmp_path / "made.iso", "-report_system_area", "plain"]).decode()
    (size,) = re.findall(r"APM block size +: +(\d+)", said)
    starts = re.findall(r"APM start and size : +\d+ +(\d+) +(\d+)", said)
    assert table.block_size == int(size)
    assert [(str(one.start), str(one.count)) for one in table.entries[1:]] == starts  # it leaves the map itself out
    assert image[table.entries[1].start * table.block_size :].startswith(FILES["kernel"])
    assert table.entries[0].kind == "Apple_partition_map"
    for index, entry in enumerate(table.entries):
        at = table.entry_offset(index)
        assert entry.pack() == image[at : at + ENTRY_SIZE]


@given(st.binary(min_size=510, max_size=510), st.integers(0, 1 << 31), st.integers(0, 1 << 31))
def test_any_apm_entry_comes_back_and_moves(raw: bytes, start: int, count: int) -> None:
    entry = ApmEntry.parse(b"PM" + raw)
    assert entry is not None
    assert entry.pack() == b"PM" + raw
    moved = entry.moved_to(start, count)
    assert (moved.start, moved.end) == (start, start + count)
    assert replace(moved, start=entry.start, count=entry.count, data_count=entry.data_count) == entry
    assert isinstance(moved.kind + moved.label, str)


def _map(size: int, count: int, told: bytes) -> bytes:
    entry = b"PM\0\0" + count.to_bytes(4, "big") + bytes(504)
    return told.ljust(size, b"\0") + b"".join(entry.ljust(size, b"\0") for _ in range(count))


@pytest.mark.parametrize("size", [512, 2048])
@pytest.mark.parametrize("announced", [True, False])
def test_maps_of_both_block_sizes_are_found(size: int, announced: bool) -> None:
    told = b"ER" + size.to_bytes(2, "big") + b"\0\0\x10\0" if announced else b"\x33\xed"
    table = read_apm(reader(_map(size, 3, told)), PLACE)
    assert table is not None
    assert (table.block_size, len(table.entries), table.blocks) == (size, 3, 4096 if announced else 0)


def test_damaged_maps_are_told() -> None:
    raw = _map(2048, 3, b"ER\x08\0")
    with pytest.raises(ImageError, match=r"^in\.iso @0x1800: Apple partition map has no entry 3$"):
        read_apm(reader(raw[:6200]), PLACE)
    for count in (0, 65, 0xFFFFFFFF):
        claimed = raw[:2052] + count.to_bytes(4, "big") + raw[2056:]
        with pytest.raises(ImageError, match=r"^in\.iso @0x800: Apple partition map claims"):
            read_apm(reader(claimed), PLACE)
    assert read_apm(reader(bytes(9000)), PLACE) is None
    assert read_apm(reader(b""), PLACE) is None


# Other firmware


def _firmware(image: bytes) -> FirmwareHeader:
    (found,) = find_firmware(image[: 16 * BLOCK], Mbr.parse(image[:SECTOR]))
    return found


SHAPES = {
    "MIPS volume header": (("-mips-boot", "loader", "-mips-boot", "kernel"), ("loader", "kernel")),
    "DEC Alpha boot block": (("-alpha-boot", "loader"), ("loader",)),
    "HP-PA PALO header": (
        (
            *("-hppa-cmdline", "0/vmlinux", "-hppa-bootloader", "loader", "-hppa-kernel-32", "kernel"),
            *("-hppa-kernel-64", "big", "-hppa-ramdisk", "ramdisk"),
        ),
        ("kernel", "ramdisk", "big", "loader"),
    ),
    "PReP": (("-prep-boot-part", "loader"), ("loader",)),
    "Sun disk label": (("-sparc-label", "sun", "-B", "kernel,loader,..."), ("kernel", "loader")),
}


@pytest.mark.parametrize("name", SHAPES)
def test_headers_point_at_the_files_that_xorriso_was_given(tmp_path: Path, name: str) -> None:
    options, files = SHAPES[name]
    image = _made(tmp_path, *options)
    found = _firmware(image)
    assert found.name == name
    assert found.has_valid_checksum in (True, None)
    data = [image[one.start : one.start + one.length] for one in found.targets]
    for file in files:
        assert any(one.startswith(FILES[file][: len(one)]) and len(one) >= len(FILES[file]) - 511 for one in data)
    for one in found.targets:
        assert 0 < one.pointer_offset < SECTOR


def test_the_dec_boot_block_points_at_the_program(tmp_path: Path) -> None:
    elf = struct.pack("<24xII", 0x80030000, 52).ljust(52, b"\0") + struct.pack("<IIII4x", 1, 2048, 0x80030000, 0)
    (tmp_path / "elf").write_bytes((elf[:68] + struct.pack("<I", 8192)).ljust(2048, b"\0") + NOISE[:8192])
    image = _made(tmp_path, "-mipsel-boot", "elf", "-graft-points", f"/elf={tmp_path / 'elf'}")
    found = _firmware(image)
    assert (found.name, [one.length for one in found.targets]) == ("DEC boot block", [8192])
    assert image[found.targets[0].start :].startswith(NOISE[:8192])


def test_chrp_is_a_partition_over_the_volume(tmp_path: Path) -> None:
    image = _made(tmp_path, "-chrp-boot-part")
    found = _firmware(image)
    assert (found.name, [(one.start, one.length) for one in found.targets]) == ("CHRP", [(0, len(image))])


@pytest.mark.parametrize("name", ["MIPS volume header", "Sun disk label", "DEC Alpha boot block"])
def test_a_wrong_sum_is_seen(tmp_path: Path, name: str) -> None:
    image = bytearray(_made(tmp_path, *SHAPES[name][0]))
    image[40] ^= 4
    assert _firmware(bytes(image)).has_valid_checksum is False


@given(st.binary(max_size=700))
def test_any_bytes_are_looked_at_without_an_error(raw: bytes) -> None:
    for found in find_firmware(raw, None):
        assert all(0 < one.pointer_offset < SECTOR and one.length >= 0 for one in found.targets)


def test_noise_has_no_header() -> None:
    for seed in range(300):
        assert find_firmware(random.Random(seed).randbytes(BLOCK), None) == ()


# Implanted MD5


@pytest.mark.parametrize("size", [3_000_000, 700_000, 350_001])
def test_sums_are_those_that_implantisomd5_wrote(tmp_path: Path, size: int) -> None:
    tools.require("implantisomd5", "checkisomd5", "xorriso")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/data").write_bytes(random.Random(size).randbytes(size))
    iso = tmp_path / "made.iso"
    tools.run(["xorriso", "-as", "mkisofs", "-quiet", "-o", iso, tmp_path / "tree"])
    tools.run(["implantisomd5", iso])
    raw = bytearray(iso.read_bytes())
    area = 16 * BLOCK + APPLICATION_USE
    implanted = ImplantedMd5.parse(bytes(raw[area : area + AREA_SIZE]))
    assert implanted is not None
    assert implanted.pack() == raw[area : area + AREA_SIZE]
    total = (int.from_bytes(raw[16 * BLOCK + 84 : 16 * BLOCK + 88], "big") - implanted.skip) * BLOCK

    def sums(image: bytearray, step: int) -> Md5Sums:
        chunks = (bytes(image[at : at + step]) for at in range(0, len(image), step))
        return compute_md5_sums(chunks, area, total, implanted.count)

    assert {sums(raw, step) for step in (999, 1 << 15, 1 << 22)} == {implanted.sums}
    raw[len(raw) // 2] ^= 1
    iso.write_bytes(raw)
    with pytest.raises(AssertionError, match="checkisomd5"):
        tools.run(["checkisomd5", iso])
    changed = sums(raw, 1 << 15)
    assert changed != implanted.sums
    raw[area : area + AREA_SIZE] = implanted.with_sums(changed).pack()
    iso.write_bytes(raw)
    tools.run(["checkisomd5", iso])


@given(st.binary(max_size=AREA_SIZE), st.integers(0, AREA_SIZE))
def test_mutated_areas_are_parsed_or_not(noise: bytes, at: int) -> None:
    sound = b"ISO MD5SUM = " + b"0" * 32 + b";SKIPSECTORS = 15;RHLISOSTATUS=0;FRAGMENT SUMS = "
    sound = (sound + b"1" * 60 + b";FRAGMENT COUNT = 20;THIS IS").ljust(AREA_SIZE)
    raw = (sound[:at] + noise + sound[at + len(noise) :])[:AREA_SIZE]
    found = ImplantedMd5.parse(raw)
    if found is not None:
        assert found.pack() == raw
        renewed = found.with_sums(Md5Sums(b"f" * 32, b"e" * 60))
        assert len(renewed.pack()) == AREA_SIZE
        assert ImplantedMd5.parse(renewed.pack()) == renewed or not found.count
