"""Every family boots after files of it were replaced."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cosremaster import remaster
from tests.fixtures import families, tools
from tests.fixtures.families import FAMILIES, PAYLOAD, Family, Way
from tests.fixtures.tools import run
from tests.support import qemu
from tests.support.family_images import HFS, exchanged, image, source

BOOTS = [(family, way) for family in FAMILIES.values() for way in family.boots if family.says]


NEW_WORDS = "WORDS-OF-THE-EXCHANGED-FILE"


def edited(family: Family, folder: Path) -> Path:
    """The family's image with other words to say, in a file that grew, and a grown file before others."""
    iso, out = image(family.name), folder / "out.iso"
    adds = []
    for number, (path, says) in enumerate((family.says or {}).items()):
        new = folder / f"says-{number}"
        new.write_bytes(says(NEW_WORDS) + b"\n" * 6000)
        adds.append(f"{new}:/{path}")
    if PAYLOAD in family.exchange:
        adds.append(f"{source(folder, random.Random(9).randbytes(2_000_000))}:/{PAYLOAD}")
    result = remaster(iso, out, add_iso=adds, drop_hfsplus=family.name in HFS)
    assert len(result.iso_exchanged) == len(adds)
    return out


@pytest.mark.parametrize(("family", "way"), BOOTS, ids=[f"{family.name}-{'-'.join(way)}" for family, way in BOOTS])
def test_boots_after_as_before(family: Family, way: Way, tmp_path: Path) -> None:
    tools.require(*qemu.TOOLS)
    firmware, medium = way
    said = qemu.boot(edited(family, tmp_path), firmware=firmware, medium=medium, until=NEW_WORDS)
    assert NEW_WORDS in said


def test_an_emulated_floppy_still_boots_when_a_file_behind_it_grew(tmp_path: Path) -> None:
    tools.require(*qemu.TOOLS)
    family, out = FAMILIES["memtest86+"], tmp_path / "out.iso"
    exchanged(image(family.name), out, family.exchange[0], bytes(700_000))
    assert family.hears in qemu.boot(out, firmware="bios", medium="disc", until=family.hears)


@pytest.mark.parametrize(("name", "path", "way"), [
    ("isohybrid", "isolinux/isolinux.bin", ("bios", "disc")), ("isohybrid", "isolinux/isolinux.bin", ("bios", "disk")),
    ("ubuntu", "boot/grub/i386-pc/eltorito.img", ("bios", "disk")),
    ("debian", "boot/grub/efi.img", ("uefi", "disc")), ("debian", "boot/grub/efi.img", ("uefi", "disk")),
])  # fmt: skip
def test_boots_from_a_boot_image_that_grew_and_moved(name: str, path: str, way: Way, tmp_path: Path) -> None:
    tools.require(*qemu.TOOLS)
    iso, out = image(name), tmp_path / "out.iso"
    old = run(["isoinfo", "-R", "-i", iso, "-x", f"/{path}"])
    exchanged(iso, out, path, old + bytes(400_000))
    firmware, medium = way
    assert families.WORDS in qemu.boot(out, firmware=firmware, medium=medium, until=families.WORDS)
