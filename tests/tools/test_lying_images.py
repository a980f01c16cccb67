"""Images that are cut off, or whose partition tables tell what cannot be: one sentence, and no output."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cosremaster
from cosremaster.errors import CosremasterError, ImageError, UnsupportedError
from tests.fixtures import tools
from tests.support.small import packed_root

SECTOR = 512
HEADER, ARRAY = SECTOR, 2 * SECTOR


def build(folder: Path) -> Path:
    """An image with a root file system and an EFI partition behind its volume, in a GPT as Ubuntu has it."""
    (folder / "tree").mkdir()
    (folder / "tree/live.gz").write_bytes(packed_root())
    (folder / "tree/md5sum.txt").write_text(f"{'0' * 32}  ./live.gz\n")
    (folder / "esp").write_bytes(b"\xeb" + bytes(509) + b"\x55\xaa" + bytes(range(256)) * 200)
    tools.run([
        "xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", folder / "in.iso", "-appended_part_as_gpt",
        "-append_partition", "2", "0xef", folder / "esp", folder / "tree",
    ])  # fmt: skip
    return folder / "in.iso"


@pytest.fixture(autouse=True)
def _real_tools() -> None:
    tools.require("xorriso", "genisoimage", "isoinfo")


CHANGES: tuple[dict[str, Any], ...] = (
    {"add": [cosremaster.InlineFile("/etc/x", b"x")]},
    {"remove_iso": ["md5sum.txt"]},
    {"rename_iso": ["/live.gz:/other.gz"]},
    {},
)


def outcomes(source: Path) -> list[type[Exception] | None]:
    """What each of several changes, and a copy, end with; there is an output only where nothing is wrong."""
    raised: list[type[Exception] | None] = []
    for change in CHANGES:
        out = source.with_name("out.iso")
        out.unlink(missing_ok=True)
        try:
            cosremaster.remaster(source, out, **change)
            raised.append(None)
        except CosremasterError as error:
            assert str(error).startswith(str(source))
            assert not out.exists()
            raised.append(type(error))
    return raised


def test_an_image_that_is_cut_off_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    source = build(tmp_path)
    assert outcomes(source) == [None] * len(CHANGES)
    whole = source.read_bytes()
    (volume,) = struct.unpack_from("<I", whole, 32768 + 80)
    esp = whole.index((tmp_path / "esp").read_bytes())
    assert esp >= volume * 2048
    for length in (len(whole) - 1, len(whole) - SECTOR, esp + 60_000, esp + 20_000, esp, volume * 2048 - 1, 100_000):
        source.write_bytes(whole[:length])
        with pytest.raises(ImageError, match="is cut off"):
            cosremaster.inspect(source)
        assert outcomes(source) == [ImageError] * len(CHANGES)


def reseal(raw: bytearray) -> None:
    """Make the sums of the primary GPT right, as far as its sizes allow."""
    first, count, size = struct.unpack_from("<QII", raw, HEADER + 72)
    raw[HEADER + 88 : HEADER + 92] = zlib.crc32(raw[first * SECTOR :][: count * size]).to_bytes(4, "little")
    raw[HEADER + 16 : HEADER + 20] = bytes(4)
    raw[HEADER + 16 : HEADER + 20] = zlib.crc32(raw[HEADER : HEADER + 92]).to_bytes(4, "little")


def put(form: str, offset: int, *values: int) -> Callable[[bytearray], None]:
    """A change of numbers in the image."""
    return lambda raw: struct.pack_into(form, raw, offset, *values)


LIES: dict[str, tuple[Callable[[bytearray], None], bool, type[Exception]]] = {
    "more entries than there is room": (put("<I", HEADER + 80, 256), True, UnsupportedError),
    "the same, with wrong sums": (put("<I", HEADER + 80, 252), False, UnsupportedError),
    "entries in the volume": (put("<Q", HEADER + 72, 64), True, UnsupportedError),
    "entries over the header": (put("<Q", HEADER + 72, 1), True, UnsupportedError),
    "a header that says it is elsewhere": (put("<Q", HEADER + 24, 64), True, UnsupportedError),
    "a partition behind the end": (put("<QQ", ARRAY + 128 + 32, 10_000, 20_000), True, ImageError),
    "a partition behind the end, wrong sums": (
        put("<QQ", ARRAY + 128 + 32, 10_000, 20_000),
        False,
        UnsupportedError,
    ),
    "a partition that ends before it begins": (put("<QQ", ARRAY + 128 + 32, 600, 500), True, UnsupportedError),
    "a backup far behind the end": (put("<Q", HEADER + 32, 1 << 40), True, ImageError),
    "a backup in the volume": (put("<Q", HEADER + 32, 1), True, UnsupportedError),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_gpt_that_lies_is_refused_where_it_would_be_followed(tmp_path: Path, lie: str) -> None:
    source = build(tmp_path)
    change, sealed, error = LIES[lie]
    raw = bytearray(source.read_bytes())
    change(raw)
    if sealed:
        reseal(raw)
    source.write_bytes(raw)
    *changed, copied = outcomes(source)
    assert changed == [error] * len(changed)
    assert copied is (ImageError if error is ImageError else None)
    if copied is None:
        assert source.with_name("out.iso").read_bytes() == raw


def test_a_boot_image_too_large_for_its_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/boot.img").write_bytes(b"boot" * 2000)
    tools.run([
        "genisoimage", "-quiet", "-R", "-b", "boot.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table",
        "-o", tmp_path / "in.iso", tmp_path / "tree",
    ])  # fmt: skip
    with (tmp_path / "big").open("wb") as file:
        file.truncate(9 << 30)
    item = cosremaster.AddPath(tmp_path / "big", "/boot.img")
    with pytest.raises(cosremaster.SizeError, match="whose table holds its length"):
        cosremaster.remaster(tmp_path / "in.iso", tmp_path / "out.iso", add_iso=[item])
    assert not (tmp_path / "out.iso").exists()


@pytest.mark.parametrize("lists", [False, True])
def test_a_volume_of_size_zero_stays_an_image(tmp_path: Path, lists: bool) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/live.gz").write_bytes(packed_root())
    if lists:
        (tmp_path / "tree/md5sum.txt").write_bytes(tools.run(["md5sum", "./live.gz"], cwd=tmp_path / "tree"))
    source, out = tmp_path / "in.iso", tmp_path / "out.iso"
    tools.run(["genisoimage", "-quiet", "-R", "-o", source, tmp_path / "tree"])
    raw = bytearray(source.read_bytes())
    raw[32768 + 80 : 32768 + 88] = bytes(8)
    source.write_bytes(raw)
    changes: tuple[dict[str, Any], ...] = (CHANGES[0], {"add_iso": [cosremaster.InlineFile("/h", b"h")]})
    for change in changes:
        try:
            cosremaster.remaster(source, out, force=True, **change)
        except CosremasterError as error:
            assert str(error).startswith(str(source))
            continue
        names = tools.run(["isoinfo", "-R", "-f", "-i", out]).split()
        assert names == [b"/h", b"/live.gz", b"/md5sum.txt"][0 if "add_iso" in change else 1 : 3 if lists else 2]
