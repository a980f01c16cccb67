"""Images whose packed layers were damaged: a located error, or the right result; never a wrong image."""

import random
from pathlib import Path

import pytest

import cosremaster
from cosremaster.errors import CosremasterError
from tests.fixtures.tools import require, run
from tests.support.small import CGZ, read_volume, write_overlay, write_small


def plain_root(iso: Path) -> bytes:
    """The root filesystem's archive, taken out by other people's tools."""
    packed = run(["bsdtar", "-xOf", iso, CGZ])
    return run(
        ["xz", "-dc"], stdin=run(["bsdtar", "-xOf", "-", "rootfs.cxz"], stdin=run(["gzip", "-dc"], stdin=packed))
    )


def remastered(source: Path, target: Path, overlay: Path, *, remember: bool) -> bytes:
    """The root filesystem of ``source`` with ``overlay``."""
    cosremaster.remaster(source, target, add=[overlay], remember=remember)
    return plain_root(target)


@pytest.mark.parametrize("remember", [False, True])
def test_a_damaged_layer_is_told_or_harmless(tmp_path: Path, remember: bool) -> None:
    require("bsdtar", "gzip", "xz")
    overlay, extra = write_overlay(tmp_path), tmp_path / "extra"
    extra.mkdir()
    (extra / "noise").write_bytes(random.Random(3).randbytes(300_000))
    base = tmp_path / "base.iso"
    cosremaster.remaster(write_small(tmp_path), base, add=[extra])  # spliced, with stored blocks at both levels
    wanted = remastered(base, tmp_path / "good.iso", overlay, remember=remember)
    sound = base.read_bytes()
    (record,) = next(file.records for file in read_volume(base).files if file.path == CGZ.encode())
    start, length = record.lba * 2048, record.length
    chance = random.Random(4)
    told = harmless = 0
    for number in range(60):
        data = bytearray(sound)
        at = start + (chance.randrange(64) if number % 3 == 0 else chance.randrange(length))
        if number % 2:
            data[at] ^= 1 << chance.randrange(8)
        else:
            size = chance.randrange(1, 3000)
            data[at : min(at + size, start + length)] = bytes(min(size, start + length - at))
        base.write_bytes(data)  # the same file: what was remembered of it must not count
        target = tmp_path / f"{number}.iso"
        try:
            found = remastered(base, target, overlay, remember=remember)
        except CosremasterError as error:
            no_root = "base.iso: holds no cpio, squashfs, tar, ext4 or erofs archive"
            assert f"base.iso » {CGZ}" in str(error) or no_root in str(error)
            assert not target.exists()
            told += 1
        else:
            assert found == wanted
            target.unlink()
            harmless += 1
    assert told > 40
    assert harmless, "some bytes of a gzip header may be anything"
