"""Damaged and hostile tar archives: an error with its place, or what other programs read; never a traceback."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import re
import shutil
import subprocess
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import CorruptError, CosremasterError, Place
from cosremaster.io.streams import ByteReader
from cosremaster.layers.scan import ALL_DETAILS, MemberScanner
from cosremaster.layers.tar.blocks import with_checksum
from cosremaster.layers.tar.encode import encode_pax
from cosremaster.layers.tar.entries import TarEntry
from cosremaster.layers.tar.index import TarIndex
from cosremaster.layers.tar.read import read_index
from tests.fixtures.tools import load_module

BLOCK = 512


def read(data: bytes) -> TarIndex:
    return read_index(ByteReader([data], Place(("a.tar",))), 0, MemberScanner(ALL_DETAILS, 1))


def header(name: bytes = b"f", kind: bytes = b"0", size: bytes = b"0" * 11, **fields: bytes) -> bytes:
    """A header of ustar form with any bytes in its fields."""
    block = bytearray(name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0"))
    block += fields.get("mtime", b"0" * 11 + b"\0") + b" " * 8 + kind + fields.get("link", b"").ljust(100, b"\0")
    block += fields.get("magic", b"ustar\x0000")
    block = block.ljust(BLOCK, b"\0")
    at = int(fields.get("at", b"0"))
    if at:
        block[at : at + len(fields["raw"])] = fields["raw"]
    return with_checksum(bytes(block))


def pax(*records: tuple[bytes, bytes]) -> bytes:
    return encode_pax(records, b"f", 0)


def raw_pax(data: bytes) -> bytes:
    return header(b"x", b"x", b"%011o" % len(data)) + data + bytes(-len(data) % BLOCK)


def small_archive(style: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=style) as archive:
        for number in range(4):
            info = tarfile.TarInfo("d/" * 60 + f"f{number}")
            info.size, info.mtime = 700, 5
            archive.addfile(info, io.BytesIO(bytes([65 + number]) * 700))
    return stream.getvalue()


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_cut_off_at_every_block(style: int) -> None:
    whole = small_archive(style)
    index = read(whole)
    starts = {index.entries[number].start for number in range(len(index.entries))} | {index.end}
    for size in range(BLOCK, index.end + 1, BLOCK):
        if size not in starts:
            with pytest.raises(CorruptError) as caught:
                read(whole[:size])
            assert caught.value.place is not None
            assert caught.value.place.offset is not None
        else:  # as for GNU tar the end may be missing, but a warning says so
            assert "may be cut off" in read(whole[:size]).oddity
    for size in range(1, index.end, 97):
        if size % BLOCK:
            with pytest.raises(CorruptError):
                read(whole[:size])


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": lambda data: bytes(load_module("zstandard").ZstdCompressor(write_checksum=True).compress(data)),
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_archive_that_is_cut_off_leaves_no_output(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = random.Random(5)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number in range(4):
            info = tarfile.TarInfo(f"f{number}")
            info.size = 700
            archive.addfile(info, io.BytesIO(dice.randbytes(700)))
    packed, source, out = PACKERS[suffix](stream.getvalue()), tmp_path / f"in.tar.{suffix}", tmp_path / f"out.{suffix}"
    (tmp_path / "new").write_bytes(b"new")
    codes = (3, 4) if suffix in ("bz2", "zst") else (4,)  # nothing can be told from a part of their first block
    for size in [*range(512, len(packed), 512), len(packed) - 1]:
        source.write_bytes(packed[:size])
        assert main([str(source), str(out), "--add", f"{tmp_path / 'new'}:/", "--quiet"]) in codes, size
        told = capsys.readouterr().err
        assert told.startswith(f"cosremaster: {source}")
        assert re.search("too early|cut off early|corrupt", told)
        assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} == {source.name, "new"}


def test_a_missing_end_is_told_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = small_archive(tarfile.GNU_FORMAT)
    (tmp_path / "in.tar").write_bytes(whole[: read(whole).end])
    (tmp_path / "file").write_text("new")
    assert main([str(tmp_path / "in.tar"), str(tmp_path / "out.tar"), "--add", f"{tmp_path / 'file'}:/etc/"]) == 0
    assert "may be cut off; an edit writes them" in capsys.readouterr().err
    out = (tmp_path / "out.tar").read_bytes()
    assert out.startswith(whole[: read(whole).end])
    assert not any(out[-1024:])


DAMAGE: dict[str, tuple[bytes, str]] = {
    "checksum": (header()[:-1] + b"x" + bytes(1024), "checksum of its header"),
    "size": (header(size=b"00000x00000") + bytes(1024), "the size in its header is no octal number"),
    "negative size": (header(size=b"\xff" * 12) + bytes(1024), "a size of -1 bytes"),
    "huge size": (header(size=b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7) + bytes(1024), "too early"),
    "larger size": (header(size=b"\x80" + b"\xff" * 11) + bytes(1024), "more than 63 bits"),
    "size beyond the end": (header(size=b"%011o" % 5000) + bytes(1024), "ends 3,976 bytes too early"),
    "owner": (header(at=b"108", raw=b"\xff" * 8) + bytes(1024), "no system has an owner -1"),
    "large owner": (pax((b"uid", b"%d" % (1 << 32))) + header() + bytes(1024), "no system has an owner 4294967296"),
    "time": (header(mtime=b"no time now!") + bytes(1024), "the time in its header is no octal number"),
    "pax length zero": (raw_pax(b"0 path=a\n") + header() + bytes(1024), "another length than it says"),
    "pax length short": (raw_pax(b"5 path=a\n") + header() + bytes(1024), "another length than it says"),
    "pax length long": (raw_pax(b"99 path=a\n") + header() + bytes(1024), "another length than it says"),
    "pax without a length": (raw_pax(b"path=a\n") + header() + bytes(1024), "does not begin with its length"),
    "pax without a value": (raw_pax(b"8 path\n\n") + header() + bytes(1024), "another length than it says"),
    "pax size": (pax((b"size", b"-5")) + header() + bytes(1024), "the size in its pax header is no number"),
    "pax huge size": (pax((b"size", b"9" * 19)) + header() + bytes(1024), "is no number"),
    "pax time": (pax((b"mtime", b"1e9")) + header() + bytes(1024), "the time in its pax header is no number"),
    "pax name with a NUL": (pax((b"path", b"a\0b")) + header() + bytes(1024), "holds a NUL"),
    "pax owner": (pax((b"uid", b"%d" % (1 << 63))) + header() + bytes(1024), "an owner in its pax header is no number"),
    "pax without an entry": (pax((b"path", b"a")) + bytes(1024), "no entry follows"),
    "base 64": (pax((b"LIBARCHIVE.xattr.user.a", b"!!")) + header() + bytes(1024), "no base 64"),
    "huge pax header": (header(b"x", b"x", b"%011o" % (1 << 32)) + bytes(1024), "have more than 16 MiB"),
    "huge long name": (header(b"L", b"L", b"%011o" % (1 << 23)) + bytes(1024), "a name of 8,388,608 bytes"),
    "sparse of another form": (header(kind=b"S") + bytes(1024), "another form than GNU's"),
    "sparse version": (pax((b"GNU.sparse.major", b"7")) + header() + bytes(1024), "a sparse file of an unknown form"),
    "sparse overlap": (
        pax((b"GNU.sparse.map", b"0,10,5,10"), (b"GNU.sparse.size", b"99")) + header(size=b"%011o" % 20) + bytes(2048),
        "overlap, or leave the file",
    ),
    "sparse beyond the end": (
        pax((b"GNU.sparse.map", b"90,10"), (b"GNU.sparse.size", b"99")) + header(size=b"%011o" % 10) + bytes(2048),
        "overlap, or leave the file",
    ),
    "sparse sum": (
        pax((b"GNU.sparse.map", b"0,10"), (b"GNU.sparse.size", b"99")) + header(size=b"%011o" % 20) + bytes(2048),
        "tells of 10 bytes, and 20 are stored",
    ),
    "sparse half": (
        pax((b"GNU.sparse.map", b"0,10,20"), (b"GNU.sparse.size", b"99")) + header(size=b"%011o" % 10) + bytes(2048),
        "an offset without a size",
    ),
    "sparse 1.0 without a map": (
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")) + header()
        + bytes(1024),
        "longer than its data",
    ),
    "sparse 1.0 of many parts": (
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
        + header(size=b"%011o" % BLOCK) + b"99999999\n".ljust(BLOCK, b"\0") + bytes(1024),
        "more than 4,194,304 parts",
    ),
    "sparse 1.0 with a long number": (
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
        + header(size=b"%011o" % BLOCK) + b"1" * BLOCK + bytes(1024),
        "too long",
    ),
    "old sparse overlap": (
        header(kind=b"S", magic=b"ustar  \0", at=b"386", size=b"%011o" % 20,
               raw=b"00000000000\0" + b"00000000012\0" + b"00000000005\0" + b"00000000012\0" + bytes(48) + b"\0"
               + b"00000000100\0")
        + bytes(2048),
        "overlap, or leave the file",
    ),
    "old sparse sum": (
        header(kind=b"S", magic=b"ustar  \0", at=b"386", size=b"%011o" % 20,
               raw=b"00000000000\0" + b"00000000012\0" + bytes(72) + b"\0" + b"00000000100\0")
        + bytes(2048),
        "tells of 10 bytes, and 20 are stored",
    ),
    "sparse 0.0 half": (
        pax((b"GNU.sparse.size", b"99"), (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.offset", b"0"),
            (b"GNU.sparse.offset", b"5")) + header(size=b"%011o" % 10) + bytes(2048),
        "an offset without a size",
    ),
    "pax headers without an end": (pax((b"path", b"a")) * 4, "no entry follows"),
    "pax headers larger than any": (
        (header(b"x", b"x", b"%011o" % (1 << 20)) + b"1048576 comment=".ljust((1 << 20) - 1, b"x") + b"\n") * 17,
        "have more than 16 MiB",
    ),
    "old sparse without an end": (
        header(kind=b"S", magic=b"ustar  \0", at=b"482", raw=b"\1") + (b"\0" * 504 + b"\1" + b"\0" * 7) * 3,
        "too early",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_told_with_its_place(case: str) -> None:
    data, message = DAMAGE[case]
    with pytest.raises(CorruptError) as caught:
        read(data)
    assert message in str(caught.value)
    assert str(caught.value).startswith("a.tar")


def test_a_damaged_archive_leaves_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = bytearray(small_archive(tarfile.PAX_FORMAT))
    whole[read(bytes(whole)).entries[2].head + 5] ^= 1
    (tmp_path / "in.tar").write_bytes(whole)
    assert main([str(tmp_path / "in.tar"), str(tmp_path / "out.tar"), "--remove", "d"]) == 4
    assert capsys.readouterr().err.startswith(f"cosremaster: {tmp_path / 'in.tar'} @0x")
    assert not (tmp_path / "out.tar").exists()


def test_sizes_of_entries_without_data_are_ignored_unless_data_follow() -> None:
    stated = header(b"d/", b"5", b"%011o" % 4096) + header(b"l", b"1", b"%011o" % 700, link=b"d") + header(b"e")
    assert [entry.name for entry in entries(stated + bytes(1024))] == [b"d/", b"l", b"e"]
    given = header(b"d", b"0", b"%011o" % 4) + b"data".ljust(BLOCK, b"\0")
    meant = given + header(b"l", b"1", b"%011o" % 4, link=b"d") + b"data".ljust(BLOCK, b"\0") + header(b"e")
    assert [entry.name for entry in entries(meant + bytes(1024))] == [b"d", b"l", b"e"]


def entries(data: bytes) -> list[TarEntry]:
    index = read(data)
    return [index.entries[number] for number in range(len(index.entries))]


def test_signed_checksums_and_odd_numbers() -> None:
    block = bytearray(header(b"\xff\xfe name"))
    signed = sum(byte - 256 if byte > 127 else byte for byte in block) - sum(block[148:156]) + 256
    block[148:156] = b"%6o\0 " % signed
    assert read(bytes(block) + bytes(1024)).entries.names == [b"\xff\xfe name"]
    block = bytearray(header(b"spaces", size=b"       12 "))
    assert read(bytes(block) + bytes(BLOCK) + bytes(1024)).entries[0].stored == 10
    negative = header(mtime=b"\xff" * 12)
    assert read(negative + bytes(1024)).entries[0].mtime == -1
    assert read(pax((b"mtime", b"-1.5")) + header() + bytes(1024)).entries[0].mtime == -2


def test_global_headers_count_until_they_are_replaced() -> None:
    first = header(b"g", b"g", b"%011o" % 9) + b"9 uid=77\n".ljust(BLOCK, b"\0")
    last = header(b"g", b"g", b"%011o" % 7) + b"7 uid=\n".ljust(BLOCK, b"\0")
    index = read(
        first + header(b"a") + pax((b"uid", b"5")) + header(b"b") + header(b"c") + last + header(b"d") + bytes(1024)
    )
    assert [index.entries[number].uid for number in range(4)] == [77, 5, 77, 0]


def test_a_bomb_of_names_takes_little_memory_and_time() -> None:
    plain = header(b"a name of an entry like many others") * 30_000 + bytes(1024)
    start = time.process_time()
    assert len(read(plain).entries) == 30_000
    assert time.process_time() - start < 15
    tracemalloc.start()
    index = read(plain[: 5_000 * BLOCK] + bytes(1024))
    assert tracemalloc.get_traced_memory()[0] < 5_000 * 250
    tracemalloc.stop()
    assert len(index.entries) == 5_000


def test_more_entries_than_any_system_has_are_a_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosremaster.layers.tar.read.MAX_ENTRIES", 10)
    with pytest.raises(CorruptError, match="more than 10 entries are taken for a bomb"):
        read(header() * 11 + bytes(1024))


def test_a_hard_link_to_nothing_is_told_when_it_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = header(b"etc/link", b"1", link=b"etc/nothing")
    (tmp_path / "in.tar").write_bytes(header(b"etc/", b"5") + link + bytes(10240 - 1024))
    assert main(["ls", f"{tmp_path / 'in.tar'}::etc"]) == 0
    assert capsys.readouterr().out == "link\n"
    assert main(["cat", f"{tmp_path / 'in.tar'}::etc/link"]) == 4
    assert "is a hard link to etc/nothing, which no entry before it has" in capsys.readouterr().err


def test_hard_links_that_cannot_be_made_are_findings(tmp_path: Path) -> None:
    """To nothing, to a later name, to the link itself, to a directory: GNU tar and bsdtar end with an error."""
    image, good = tmp_path / "a.tar", header(b"file") + header(b"sound", b"1", link=b"./file") + header(b"dir/", b"5")
    image.write_bytes(good + bytes(1024))
    assert cosremaster.verify(image, deep=True).ok
    links = [(b"none", b"no/such"), (b"later", b"last"), (b"self", b"self"), (b"dir/up", b"up"), (b"down", b"dir")]
    bad = b"".join(header(name, b"1", link=text) for name, text in links)
    image.write_bytes(good + bad + header(b"last") + bytes(1024))
    expected = [
        (f"{name.decode()} is a hard link to {text.decode()}, which no entry before it has", BLOCK * at)
        for at, (name, text) in enumerate(links[:-1], start=3)
    ]
    expected.append(("down is a hard link to dir, a directory, which can have no such name", BLOCK * 7))
    for deep in (False, True):
        report = cosremaster.verify(image, deep=deep)
        assert not report.ok
        assert [(finding.message, finding.place.offset) for finding in report.findings if finding.place] == expected
    for command in (["tar", "-xf"], ["bsdtar", "-xf"]):
        if shutil.which(command[0]):
            assert subprocess.run([*command, image], cwd=tmp_path, check=False, capture_output=True).returncode


def test_any_changed_byte_is_an_error_or_another_archive() -> None:
    whole = small_archive(tarfile.GNU_FORMAT)
    for change in range(0, 6 * BLOCK, 7):
        data = bytearray(whole)
        data[change] ^= 0x41
        try:
            read(bytes(data))
        except CosremasterError as error:
            assert error.place is not None


def timed_archive(style: int, dice: random.Random) -> bytes:
    """An archive with times of all lengths, as GNU tar writes them, and entries of every usual kind."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=style) as archive:
        for number in range(30):
            info = tarfile.TarInfo("d" * dice.choice((1, 90, 150)) + f"/f{number}" + dice.choice(("", "", "/")))
            info.mtime = dice.randrange(1 << 32)
            info.type = dice.choice((b"0", b"0", b"0", b"\0", b"1", b"2", b"3", b"5", b"6"))
            info.linkname = "" if info.type in b"0\0356" else "f" * dice.choice((1, 99))
            info.uname = dice.choice(("", "root"))
            if style == tarfile.PAX_FORMAT:
                info.pax_headers = {}
                for keyword in dice.sample(("mtime", "atime", "ctime", "comment"), dice.randrange(4)):
                    fraction = f"{dice.random():.9f}"[1 : dice.randrange(1, 11)]
                    info.pax_headers[keyword] = f"{dice.randrange(1 << 34)}{fraction}"
            info.size = dice.choice((0, 0, 1, 600)) if info.type in b"0\0" else 0
            archive.addfile(info, io.BytesIO(b"x" * info.size))
    return stream.getvalue()


def told_of(data: bytes, step: int) -> object:
    """All that reading ``data`` in chunks of ``step`` bytes tells, or the error."""
    chunks = [data[start : start + step] for start in range(0, len(data), step)]
    try:
        index = read_index(ByteReader(chunks, Place(("a.tar",))), 0, MemberScanner(ALL_DETAILS, 1))
    except CorruptError as error:
        return error.message, error.place
    numbers = range(len(index.entries))
    style = index.style
    return (
        [index.entries[number] for number in numbers], [index.entries.digest(number) for number in numbers],
        index.end, index.has_end, style.name, style.users, style.slashes, style.prefixes, style.is_gnu, style.is_ustar,
    )  # fmt: skip


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_entries_are_the_same_whether_their_headers_are_at_hand_or_come_in_parts(style: int) -> None:
    """Headers that are wholly in a chunk are read in fewer steps."""
    dice, errors = random.Random(style), 0
    for _ in range(10):
        whole = timed_archive(style, dice)
        assert told_of(whole, len(whole)) == told_of(whole, 100) == told_of(whole, 1536)
        starts = [entry.start for entry in entries(whole)]
        for _ in range(40):
            at, size = dice.choice(starts) + dice.randrange(3 * BLOCK), dice.choice((1, 1, 8))
            head = at - at % BLOCK
            changed = bytearray(whole)
            changed[at : at + size] = dice.choice((dice.randbytes(size), b"7" * size, b" " * size, bytes(size)))
            if dice.random() < 0.7:
                changed[head : head + BLOCK] = with_checksum(bytes(changed[head : head + BLOCK]))
            expected = told_of(bytes(changed), 100)
            assert told_of(bytes(changed), len(changed)) == expected
            errors += len(expected) == 2 if isinstance(expected, tuple) else 0
    assert errors


def test_links_in_a_circle_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hard links that lead to each other, to themselves, and by way of symlinks that lead in a circle."""
    circle = header(b"a", b"1", link=b"b") + header(b"b", b"1", link=b"a") + header(b"c", b"1", link=b"c")
    circle += header(b"s", b"2", link=b"t") + header(b"t", b"2", link=b"s") + header(b"d", b"1", link=b"s/x")
    (tmp_path / "in.tar").write_bytes(circle + bytes(1024))
    assert main(["ls", str(tmp_path / "in.tar")]) == 0
    assert capsys.readouterr().out.split() == ["a", "b", "c", "d", "s", "t"]
    for name in "abcd":
        assert main(["cat", f"{tmp_path / 'in.tar'}::{name}"]) == 4
        assert "is a hard link to" in capsys.readouterr().err
    assert main([str(tmp_path / "in.tar"), str(tmp_path / "out.tar"), "--remove", "a"]) == 0
    capsys.readouterr()
    assert main(["extract", str(tmp_path / "in.tar"), str(tmp_path / "out")]) == 4
    assert main(["export", str(tmp_path / "in.tar"), "--maas", "x", "--output", str(tmp_path / "x.tar.gz")]) == 4
    assert not (tmp_path / "x.tar.gz").exists()
