"""Random edits of random tar archives against a model: Python's tarfile writes and reads them, a dictionary unpacks."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main

CODECS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes, "tar.gz": lambda data: gzip.compress(data, mtime=0), "tar.xz": lzma.compress, "tar.bz2": bz2.compress
}  # fmt: skip
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes, "tar.gz": gzip.decompress, "tar.xz": lzma.decompress, "tar.bz2": bz2.decompress
}  # fmt: skip
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
PATHS = [f"{folder}{name}" for folder in ("", "d/", "d/e/", "a" * 60 + "/" + "b" * 60 + "/") for name in "uvwxyz"]


@dataclass(eq=False)
class File:
    """A file, which several names may share."""

    data: bytes
    mode: int
    uid: int


def unpack(archive: tarfile.TarFile) -> dict[str, File]:
    """What a program that unpacks ``archive`` leaves: of a name the last entry, and links to what had it before."""
    files: dict[str, File] = {}
    for member in archive.getmembers():
        name = member.name.removeprefix("./").removeprefix("/")
        if member.islnk():
            files[name] = files[member.linkname.removeprefix("./").removeprefix("/")]
        elif member.isreg():
            data = archive.extractfile(member)
            assert data is not None
            files[name] = File(data.read(), member.mode, member.uid)
    return files


def groups(files: dict[str, File]) -> set[frozenset[str]]:
    """The names that share a file."""
    return {frozenset(name for name, other in files.items() if other is file) for file in files.values()}


def facts(files: dict[str, File]) -> dict[str, tuple[bytes, int, int]]:
    return {name: (file.data, file.mode, file.uid) for name, file in files.items()}


def random_archive(dice: random.Random, style: str, prefix: str) -> bytes:
    """An archive with names that come again, and hard links to what had a name at the time."""
    stream, seen = io.BytesIO(), list[str]()
    headers = {"comment": "global"} if style == "pax" and dice.random() < 0.3 else {}
    with tarfile.open(fileobj=stream, mode="w", format=FORMATS[style], pax_headers=headers) as archive:
        for number in range(dice.randrange(1, 25)):
            name = dice.choice(PATHS)
            info = tarfile.TarInfo(prefix + name)
            info.mode, info.uid, info.mtime = dice.choice((0o644, 0o600, 0o755)), dice.randrange(3), number
            if style == "pax" and dice.random() < 0.3:
                info.pax_headers = {"SCHILY.xattr.user.note": str(number)}
            others = [other for other in seen if other != name and (style != "ustar" or len(other) < 90)]
            if others and dice.random() < 0.4:
                info.type, info.linkname = tarfile.LNKTYPE, prefix + dice.choice(others)
                archive.addfile(info)
            else:
                data = dice.randbytes(dice.choice((0, 1, 511, 512, 513, 2000)))
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            seen.append(name)
    return stream.getvalue()


@pytest.mark.parametrize("seed", range(40))
def test_random_edits(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    style, suffix = dice.choice(list(FORMATS)), dice.choice(list(CODECS))
    prefix = dice.choice(("", "./", "/" if style != "gnu" else ""))
    plain = random_archive(dice, style, prefix)
    source, out, site = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}", tmp_path / "site"
    source.write_bytes(CODECS[suffix](plain))
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        old = unpack(archive)
    expected = dict(old)
    removed = dice.sample(sorted(old), dice.randrange(0, len(old) + 1))
    for name in removed:
        del expected[name]
    for name in dice.sample(PATHS, dice.randrange(1, 5)):
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(dice.choice((8, 600))))
        path.chmod(0o644)
        expected[name] = File(path.read_bytes(), 0o644, 0)
    cosremaster.remaster(source, out, add=[site], remove=removed, remember=False)
    with tarfile.open(out) as archive:
        new = unpack(archive)
        kept = [member for member in archive.getmembers() if "SCHILY.xattr.user.note" in member.pax_headers]
    assert facts(new) == facts(expected)
    assert groups(new) == groups(expected)
    assert len(kept) <= plain.count(b"SCHILY.xattr.user.note")
    assert main(["diff", str(out), str(out)]) == 0
    assert len(gzip_free(out.read_bytes(), suffix)) % 10240 == 0


def gzip_free(data: bytes, suffix: str) -> bytes:
    """The plain bytes of an archive."""
    return UNPACK[suffix](data)
