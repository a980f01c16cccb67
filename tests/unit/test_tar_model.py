"""Random edits of random tar archives against a model: Python's tarfile writes and reads them, a dictionary unpacks."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.demo.image import build_archive, regular
from cosremaster.errors import CorruptError, Place
from cosremaster.io.output import Output, Written
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.streams import ByteReader
from cosremaster.layers import model
from cosremaster.layers.scan import ALL_DETAILS, MemberScanner
from cosremaster.layers.tar.index import TarIndex
from cosremaster.layers.tar.read import read_index

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


def index_from(plain: bytes, start: int) -> TarIndex:
    """The index of what stands behind byte ``start``; offsets count from the beginning."""
    reader = ByteReader([plain[start:]], Place())
    reader.position = start
    return read_index(reader, 0, MemberScanner(ALL_DETAILS, 1))


def all_of(index: TarIndex) -> list[object]:
    """Everything that an index tells of the entries, and where the archive ends."""
    numbers = range(len(index.entries))
    return [
        [index.entries[number] for number in numbers], [index.entries.digest(number) for number in numbers],
        index.globals, list(index.inner_globals), index.globals_end, index.end, index.has_end, index.version,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_a_front_and_what_is_read_behind_it_are_the_whole_archive(seed: int) -> None:
    dice = random.Random(seed)
    plain = random_archive(dice, list(FORMATS)[seed % 3], dice.choice(("", "./")))
    whole = index_from(plain, 0)
    ends = [entry.end for entry in map(whole.entries.__getitem__, range(len(whole.entries)))]
    reached = set()
    for end in range(0, whole.end + 1024, 256):
        split = whole.split_before(end)
        expected = max([0, *(other for other in ends if other + 512 <= end)])
        if split is None:
            assert expected < whole.globals_end
            continue
        start, front = split
        reached.add(len(front.entries))
        assert len(front.entries) == sum(other + 512 <= end for other in ends)
        assert start == expected
        assert all_of(front.joined(index_from(plain, start))) == all_of(whole)
    assert len(ends) in reached


def test_no_front_is_taken_where_a_global_header_counts_behind_it() -> None:
    for records, is_split in (({"comment": "abc"}, True), ({"uid": "7"}, False)):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, pax_headers=records) as archive:
            for name in "ab":
                archive.addfile(tarfile.TarInfo(name))
        assert (index_from(stream.getvalue(), 0).split_before(2048 + 512) is not None) is is_split


def test_packed_bytes_are_summed_on_a_thread_beside_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a small file are summed by the thread that decodes it."""
    packed = gzip.compress(tar_of_files(), mtime=0)
    table = PieceTable([Literal(packed)])
    found = []
    for cpus, least in ((1, 0), (2, 0), (2, 1 << 24)):
        monkeypatch.setattr(model, "cpu_count", lambda cpus=cpus: cpus)
        monkeypatch.setattr(model, "_LARGE", least)
        indexed = model.index_file(b"a.tar.gz", table, Place())
        assert indexed.digest == hashlib.sha256(packed).digest()
        found.append((indexed.sums, all_of(cast("TarIndex", indexed.archive.contents))))
    assert found[0] == found[1] == found[2]
    monkeypatch.setattr(model, "_LARGE", 0)
    before = threading.active_count()
    with pytest.raises(CorruptError):
        model.index_file(b"a.tar.gz", PieceTable([Literal(packed[:-9])]), Place())
    assert threading.active_count() == before


@pytest.mark.parametrize("suffix", ["tar.xz", "cpio.xz"])
def test_the_proof_reads_what_the_input_has_not(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a single archive in an xz stream only the new end is decoded again; damage to the front is noticed."""
    plain = tar_of_files() if suffix == "tar.xz" else cpio_of_files()
    source, out, site = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}", tmp_path / "site"
    source.write_bytes(lzma.compress(plain, preset=0))
    site.mkdir()
    (site / "new").write_bytes(b"new")
    words = [str(source), str(out), "--add", str(site)]
    for _ in ("a first run", "with its remembered index"):
        result = cosremaster.remaster(source, out, add=[site], force=True)
        told = next(line for line in result.proof if "read to the end" in line)
        assert told.startswith("1 archive with 21 entries read to the end; ")
        assert int(told.split("; ")[1].split()[0]) >= 15
    out.unlink()
    real = Output.write

    def write_damaged(output: Output, *args: Any) -> Written:
        """Write, and change a byte in the middle of what was kept."""
        written = real(output, *args)
        with written.path.open("r+b") as file:
            file.seek(source.stat().st_size // 3)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        return written

    monkeypatch.setattr(Output, "write", write_damaged)
    assert main(words) == 10
    assert not out.exists()
    assert "the result cannot be read" in capsys.readouterr().err


def tar_of_files() -> bytes:
    """An archive with 20 files that do not compress."""
    stream, dice = io.BytesIO(), random.Random(1)
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number in range(20):
            info = tarfile.TarInfo(f"f{number:02}")
            info.size = 100_000
            archive.addfile(info, io.BytesIO(dice.randbytes(info.size)))
    return stream.getvalue()


def cpio_of_files() -> bytes:
    """A cpio archive with as many."""
    dice = random.Random(1)
    return build_archive([regular(b"f%02d" % number, dice.randbytes(100_000)) for number in range(20)])
