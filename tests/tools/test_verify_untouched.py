"""`cosremaster verify` of images as their makers leave them: odd ones get notes, and damage in them still fails."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pycdlib
import pytest

from cosremaster.io.source import open_source
from cosremaster.iso.read import read_image
from cosremaster.iso.udf.patch import seal_descriptor
from cosremaster.units import BLOCK, SECTOR
from cosremaster.verification.finding import Level
from cosremaster.verification.run import verify
from tests.fixtures import tools

ISOLINUX = Path("/usr/lib/ISOLINUX")
TOOLS = ("xorriso", "genisoimage", "sgdisk", "mkfs.fat", str(ISOLINUX / "isolinux.bin"), str(ISOLINUX / "isohdpfx.bin"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with files for an image."""
    tools.require(*TOOLS)
    for name in ("sources/boot.wim", "sources/install.wim", "live/kernel", "a-very-long-name-of-a-file.text"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(name.encode() * 500)
    (tmp_path / "tree/isolinux.bin").write_bytes((ISOLINUX / "isolinux.bin").read_bytes())
    with (tmp_path / "tree/efi.img").open("wb") as file:
        file.truncate(1 << 20)
    tools.run(["mkfs.fat", tmp_path / "tree/efi.img"])
    return tmp_path / "tree"


def checks(path: Path, level: Level) -> set[str]:
    """The names of the findings of a level."""
    return {finding.check for finding in verify(path).findings if finding.level is level}


def genisoimage(tree: Path, *options: str | Path) -> Path:
    """An image by genisoimage."""
    path = tree.with_name("in.iso")
    tools.run(["genisoimage", "-quiet", "-o", path, *options, tree], cwd=tree)
    return path


ISOLINUX_BOOT = ("-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table")
LIVE_BUILD: Sequence[tuple[str, ...]] = (
    ("-partition_offset", "16", "-isohybrid-gpt-basdat"),
    ("-partition_offset", "16", "-isohybrid-gpt-basdat", "-isohybrid-apm-hfsplus"),
    ("-partition_offset", "64", "-isohybrid-gpt-basdat", "-no-pad"),
    ("-partition_offset", "16", "-isohybrid-gpt-hfsplus", "-partition_cyl_align", "all"),
)


@pytest.mark.parametrize("options", LIVE_BUILD, ids=" ".join)
def test_hybrids_with_a_partition_offset_are_sound(options: tuple[str, ...], tree: Path) -> None:
    path = tree.with_name("in.iso")
    hybrid = ("-isohybrid-mbr", ISOLINUX / "isohdpfx.bin", *ISOLINUX_BOOT, "-eltorito-alt-boot", "-e", "efi.img")
    tools.run(["xorriso", "-as", "mkisofs", "-quiet", "-r", "-J", "-o", path, *hybrid, "-no-emul-boot", *options, tree])
    assert checks(path, Level.FAILS) == set()


HIDDEN: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "from-iso": (("-J", "-hide", "kernel"), {"tree.only"}),
    "catalog": (("-J", *ISOLINUX_BOOT, "-hide", "boot.cat"), {"tree.only"}),
    "from-joliet": (("-J", "-R", "-hide-joliet", "kernel"), {"tree.hidden"}),
    "both": (("-J", "-R", "-hide-joliet", "kernel", "-hide", "boot.wim"), {"tree.hidden", "tree.only"}),
    "udf": (("-udf", "-hide", "sources"), {"udf.only"}),
    "udf-rock-ridge": (
        ("-udf", "-R", "-hide", "boot.wim", "-hide-joliet", "kernel"),
        {"tree.only", "tree.hidden", "udf.hidden"},
    ),
    "udf-joliet": (("-udf", "-J", "-hide", "sources"), {"tree.only"}),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_files_hidden_from_a_tree_are_noted(name: str, tree: Path) -> None:
    options, expected = HIDDEN[name]
    path = genisoimage(tree, *options)
    assert checks(path, Level.FAILS) == set()
    assert {check for check in checks(path, Level.NOTE) if check.endswith(("only", "hidden"))} == expected


def stale_joliet(raw: bytearray) -> None:
    """A Joliet record of a file that leads to blocks that nothing uses."""
    at = raw.rindex("kernel".encode("utf-16-be")) - 33
    block = len(raw) // BLOCK - 3
    raw[at + 2 : at + 10] = block.to_bytes(4, "little") + block.to_bytes(4, "big")


def stale_long_joliet(raw: bytearray) -> None:
    """The same of a file whose name the primary tree has shortened."""
    at = raw.rindex("a-very-long-name".encode("utf-16-be")) - 33
    block = len(raw) // BLOCK - 4
    raw[at + 2 : at + 10] = block.to_bytes(4, "little") + block.to_bytes(4, "big")


def joliet_in_another_file(raw: bytearray) -> None:
    """A Joliet record that leads into another file."""
    at = raw.rindex("boot.wim".encode("utf-16-be")) - 33
    block = raw.index(b"sources/install.wim" * 400) // BLOCK + 1
    raw[at + 2 : at + 10] = block.to_bytes(4, "little") + block.to_bytes(4, "big")


@pytest.mark.parametrize("damage", [stale_joliet, stale_long_joliet, joliet_in_another_file])
def test_stale_records_beside_hidden_files_fail(damage: Callable[[bytearray], None], tree: Path) -> None:
    path = genisoimage(tree, "-J", "-hide", "isolinux.bin")
    raw = bytearray(path.read_bytes())
    damage(raw)
    path.write_bytes(raw)
    assert "tree.joliet" in checks(path, Level.FAILS)


def test_data_of_udf_alone_behind_the_image_fail(tree: Path) -> None:
    """Behind the volume of ISO 9660 they may be: Windows' discs have them there."""
    path = genisoimage(tree, "-udf", "-hide", "sources", "-hide", "kernel")
    raw = bytearray(path.read_bytes())
    end = raw.index(b"sources/install.wim" * 400) // BLOCK + 1
    at = 16 * BLOCK + 80  # the volume's size
    raw[at : at + 8] = end.to_bytes(4, "little") + end.to_bytes(4, "big")
    path.write_bytes(raw)
    assert "udf.file" not in checks(path, Level.FAILS)
    with open_source(path) as source:
        udf = read_image(source).udf
    assert udf is not None
    (file,) = (file for name, file in udf.named_files() if name[-1] == "install.wim")
    entry = bytearray(raw[file.entry_offset : file.entry_offset + BLOCK])
    (block,) = struct.unpack_from("<I", entry, file.allocation_offset + 4)
    struct.pack_into("<I", entry, file.allocation_offset + 4, block + len(raw) // BLOCK)
    raw[file.entry_offset : file.entry_offset + BLOCK] = seal_descriptor(entry)
    path.write_bytes(raw)
    assert checks(path, Level.FAILS) == {"udf.unreadable"}, "it leads out of its partition"


def test_symlinks_of_udf_are_no_files_of_iso_9660(tmp_path: Path) -> None:
    iso = pycdlib.PyCdlib()
    iso.new(rock_ridge="1.09", udf="2.60")
    iso.add_symlink("/SYM.;1", "sym", "target", udf_symlink_path="/sym", udf_target="target")
    iso.write(str(tmp_path / "in.iso"))
    iso.close()
    assert checks(tmp_path / "in.iso", Level.FAILS) == set()


def freebsd(tree: Path) -> Path:
    """An image as FreeBSD's release scripts make it: a GPT's first 32 KiB over a finished image."""
    path, disk = genisoimage(tree, "-R"), tree.with_name("disk")
    with disk.open("wb") as file:
        file.truncate(path.stat().st_size)
    tools.run(["sgdisk", "-o", "-a", "1", "-n", "1:64:127", disk])
    path.write_bytes(disk.read_bytes()[:32768] + path.read_bytes()[32768:])
    return path


def test_a_gpt_without_a_backup_in_the_volume_is_noted(tree: Path) -> None:
    path = freebsd(tree)
    assert checks(path, Level.FAILS) == set()
    assert "gpt.backup" in checks(path, Level.NOTE)


def test_a_backup_of_which_the_header_is_gone_fails(tree: Path) -> None:
    path = freebsd(tree)
    disk = tree.with_name("disk").read_bytes()
    path.write_bytes(path.read_bytes()[: -33 * SECTOR] + disk[-33 * SECTOR : -SECTOR] + bytes(SECTOR))
    assert "gpt.backup" in checks(path, Level.FAILS)


def test_a_directory_that_is_its_own_parent_is_noted(tree: Path) -> None:
    """Directories too deep for the standard are left out by genisoimage; the last one left is empty."""
    (tree / "1/2/3/4/5/6/7/8").mkdir(parents=True)
    path = genisoimage(tree)
    assert checks(path, Level.FAILS) == set()
    assert "record.parent" in checks(path, Level.NOTE)
