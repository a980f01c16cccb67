"""cpio against the tools that made or must read it: GNU cpio, bsdcpio and busybox; and against damage."""

import itertools
import os
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster.browse.names import UNREAD
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.io.streams import ByteReader
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.read import read_index
from cosremaster.layers.scan import MemberScanner, ScanOptions
from cosremaster.tree.paths import normal_name, normal_names
from tests.fixtures import tools

EPOCH = 1_700_000_000
PLACE = Place(("a.cpio",))

MAKERS = {
    "GNU newc": ("cpio", "-o0", "-H", "newc", "--quiet"),
    "GNU crc": ("cpio", "-o0", "-H", "crc", "--quiet"),
    "bsdcpio": ("bsdcpio", "-o0", "-H", "newc", "--quiet"),
    "busybox": ("busybox", "cpio", "-o0", "-H", "newc"),
}
READERS = {"GNU": ("cpio", "--quiet"), "bsdcpio": ("bsdcpio", "--quiet"), "busybox": ("busybox", "cpio")}


def _tree(root: Path) -> list[bytes]:
    """A small tree of every kind that needs no root; returns its names in order."""
    root.mkdir()
    (root / "dir").mkdir()
    for size in range(6):
        (root / f"file{'x' * size}").write_bytes(b"\xffbcde"[:size])
    (root / "dir" / "linked").write_bytes(b"linked data")
    (root / "dir" / "other").hardlink_to(root / "dir" / "linked")
    (root / "setuid").write_bytes(b"#!/bin/sh\n")
    (root / "setuid").chmod(0o4751)
    (root / "symlink").symlink_to("dir/linked")
    os.mkfifo(root / "fifo")
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9\n\x01")).write_bytes(b"latin-1")
    names = sorted(os.path.relpath(path, os.fsencode(root)) for path in _walk(os.fsencode(root)))
    for name in names:
        os.utime(os.fsencode(root) + b"/" + name, (EPOCH, EPOCH), follow_symlinks=False)
    return names


def _walk(root: bytes) -> Iterable[bytes]:
    for folder, folders, files in os.walk(root):
        yield from (os.path.join(folder, name) for name in (*folders, *files))


def _read(archive: bytes, step: int = 7) -> list[cpio.NewcEntry]:
    chunks = (archive[start : start + step] for start in range(0, len(archive), step))
    return list(cpio.read_entries(ByteReader(chunks, PLACE)))


def _data(archive: bytes, entry: cpio.NewcEntry) -> bytes:
    return archive[entry.data_offset : entry.data_offset + entry.header.size]


@pytest.fixture(params=MAKERS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[bytes], bytes]:
    """A tree, its names, and the archive that a real tool made of it."""
    command = MAKERS[request.param]
    tools.require(command[0])
    root = tmp_path / "tree"
    names = _tree(root)
    return root, names, tools.run(command, cwd=root, stdin=b"".join(name + b"\0" for name in names))


def test_archives_of_real_tools_are_read_and_packed_as_they_were(made: tuple[Path, list[bytes], bytes]) -> None:
    _root, names, archive = made
    entries = _read(archive)
    assert sorted(entry.name for entry in entries) == sorted([*names, cpio.TRAILER])
    end = 0
    for entry in entries:
        assert entry.offset == end
        assert cpio.encode_head(entry.header, entry.name) == archive[entry.offset : entry.data_offset]
        end = entry.end
    assert not archive[end:].strip(b"\0")


def test_headers_of_real_tools_say_what_the_file_system_says(made: tuple[Path, list[bytes], bytes]) -> None:
    root, _names, archive = made
    groups: dict[int, list[bytes]] = {}
    for entry in _read(archive)[:-1]:
        path, header, data = os.fsencode(root) + b"/" + entry.name, entry.header, _data(archive, entry)
        wanted = os.lstat(path)
        assert (header.mode, header.uid, header.gid) == (wanted.st_mode, wanted.st_uid, wanted.st_gid)
        assert (header.mtime, header.rdev) == (EPOCH, (0, 0))
        if stat.S_ISLNK(wanted.st_mode):
            assert data == os.readlink(path)
        elif stat.S_ISREG(wanted.st_mode):
            assert wanted.st_nlink == 1 or header.nlink == 2
            assert data in ((wanted.st_nlink > 1 and b""), Path(os.fsdecode(path)).read_bytes())
        if header.nlink > 1 and stat.S_ISREG(header.mode):
            groups.setdefault(header.ino, []).append(data)
        if header.magic == cpio.CRC and data and stat.S_ISREG(header.mode):
            assert cpio.sum_data([data[:2], data[2:]]) == header.check != 0
    assert len(groups) == 1
    assert b"linked data" in next(iter(groups.values()))


def test_a_caller_may_take_part_of_the_data(made: tuple[Path, list[bytes], bytes]) -> None:
    archive = made[2]
    reader = ByteReader([b"before", archive], PLACE)
    reader.skip(6)
    seen = []
    for number, entry in enumerate(cpio.read_entries(reader)):
        assert reader.position == 6 + entry.data_offset
        taken = reader.read_exactly(min(number % 3, entry.header.size))
        assert taken == _data(archive, entry)[: len(taken)]
        seen.append(entry)
    assert seen == _read(archive)


# Archives of our own


def _header(
    size: int = 0, name: bytes = b"", *, ino: int = 1, mode: int = 0o100644, nlink: int = 1, mtime: int = EPOCH
) -> cpio.Header:
    return cpio.HeaderFields(
        ino=ino, mode=mode, uid=7, gid=8, nlink=nlink, mtime=mtime, size=size, name_size=len(name) + 1
    ).encode()


def _entry(name: bytes, data: bytes = b"", **fields: int) -> bytes:
    header = _header(len(data), name, **fields)
    return cpio.encode_head(header, name) + data + bytes(cpio.padding_size(len(data)))


def _archive(*entries: bytes) -> bytes:
    return b"".join((*entries, cpio.encode_trailer()))


def _our_archive() -> bytes:
    return _archive(
        _entry(b"d", mode=0o040751, nlink=2, ino=10),
        _entry(b"d/one", ino=11, nlink=2),
        _entry(b"d/two", b"shared", ino=11, nlink=2),
        _entry(b"empty", ino=12, mode=0o100600),
        _entry(b"caf\xe9", b"12345", ino=13, mode=0o104755, mtime=0xFFFFFFF),
        _entry(b"link", b"d/two", ino=14, mode=0o120777),
        _entry(b"pipe", ino=15, mode=0o010644),
    )


@pytest.mark.parametrize("reader", READERS)
def test_our_archive_is_extracted_by_real_tools(tmp_path: Path, reader: str) -> None:
    tools.require(READERS[reader][0])
    tools.run([*READERS[reader], "-idm"], cwd=tmp_path, stdin=_our_archive())
    root = os.fsencode(tmp_path)
    assert sorted(os.listdir(root)) == [b"caf\xe9", b"d", b"empty", b"link", b"pipe"]
    assert (tmp_path / "d" / "one").read_bytes() == b"shared"
    assert (tmp_path / "d" / "one").samefile(tmp_path / "d" / "two")
    with open(root + b"/caf\xe9", "rb") as file:
        assert file.read() == b"12345"
    found = os.lstat(root + b"/caf\xe9")
    assert (found.st_mtime, stat.S_IMODE(found.st_mode) & 0o777) == (0xFFFFFFF, 0o755)
    assert os.readlink(root + b"/link") == b"d/two"
    assert stat.S_ISFIFO(os.lstat(root + b"/pipe").st_mode)
    assert (tmp_path / "empty").stat().st_size == 0
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o751


@pytest.mark.parametrize("reader", READERS)
def test_owners_and_devices_are_listed_by_real_tools(reader: str) -> None:
    tools.require(READERS[reader][0])
    header = cpio.HeaderFields(
        ino=5, mode=0o020620, uid=0xFFFF, gid=1234, nlink=1, mtime=EPOCH, size=0, rdev=(5, 1), name_size=8
    ).encode()
    numbers = ["-n"] if reader != "busybox" else []
    said = tools.run([*READERS[reader], "-itv", *numbers], stdin=_archive(cpio.encode_head(header, b"console")))
    words = said.decode().replace(",", " ").replace("/", " ").split()
    assert (words[0], words[-1]) == ("crw--w----", "console")
    assert {"65535", "1234"} <= set(words)
    assert {"Nov", "14"} <= set(words) or "2023-11-14" in words
    if reader != "busybox":  # which lists no device numbers
        assert {"5", "1"} <= set(words)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 255, 4094, 4095])
def test_names_of_any_length_and_bytes_come_through(reader: str, length: int) -> None:
    tools.require(READERS[reader][0])
    name = (b"\xff" * 99 + b"/") * 41
    name = name[: length - 1] + b"\xfe"
    archive = _archive(_entry(name, b"data"), _entry(b"after"))
    assert [entry.name for entry in _read(archive)] == [name, b"after", cpio.TRAILER]
    listed = tools.run([*READERS[reader], "-it"], stdin=archive).split(b"\n")[:2]
    shown = bytes(byte if byte < 0x80 else ord("?") for byte in name)  # by busybox 1.38, not by 1.35
    assert listed == [name, b"after"] or (reader == "busybox" and listed == [shown, b"after"])


@pytest.mark.parametrize("wrong", [0, 1])
def test_gnu_cpio_verifies_the_sums_we_write(wrong: int) -> None:
    tools.require("cpio")
    data = bytes(range(256)) * 5
    old = cpio.HeaderFields(ino=1, mode=0o100644, size=3, name_size=2).encode(cpio.CRC)
    header = old.with_data(len(data), cpio.sum_data([data]) + wrong)
    archive = cpio.encode_head(header, b"f") + data + cpio.encode_trailer(cpio.CRC)
    done = subprocess.run(["cpio", "-i", "--only-verify-crc"], input=archive, capture_output=True, check=False)
    assert (b"checksum error" in done.stderr) == bool(wrong)


def test_new_data_leaves_the_other_fields() -> None:
    old = _header(3, b"f", ino=0xFFFFFFFF, mode=0o104755, nlink=9)
    new = old.with_data(0xFFFFFFFF, 5)
    fields = ("magic", "ino", "mode", "uid", "gid", "nlink", "mtime", "dev", "rdev", "namesize")
    assert [getattr(new, field) for field in fields] == [getattr(old, field) for field in fields]
    assert (new.size, new.check) == (0xFFFFFFFF, 5)


# Damage


def test_every_truncation_is_told_with_its_place() -> None:
    archive = _our_archive()
    end = _read(archive)[-1].data_offset
    for length in range(end):
        with pytest.raises(CorruptError) as caught:
            _read(archive[:length])
        place = caught.value.place
        assert place is not None and place.parts[0] == "a.cpio"
        assert place.offset is not None and place.offset <= length


@given(
    st.lists(
        st.tuples(st.integers(0, len(_our_archive()) - 1), st.one_of(st.integers(0, 255), st.sampled_from(b"0Ff")))
    )
)
def test_mutations_raise_nothing_unexpected(mutations: list[tuple[int, int]]) -> None:
    archive = bytearray(_our_archive())
    for at, value in mutations:
        archive[at] = value
    try:
        entries = _read(bytes(archive), 64)
    except (CorruptError, UnsupportedError) as error:
        assert str(error).startswith("a.cpio") and "@0x" in str(error)
    else:
        assert entries[-1].data_offset <= len(archive), "the trailer's own data, if it claims any, are its reader's"
        assert len(entries) <= len(archive) // cpio.HEADER_SIZE


FIELDS = (
    "inode number", "mode", "user id", "group id", "link count", "mtime", "file size",
    "device major", "device minor", "rdev major", "rdev minor", "name size", "check",
)  # fmt: skip


@pytest.mark.parametrize("index", range(13), ids=FIELDS)
@pytest.mark.parametrize("junk", [b"0000000G", b"+0000001", b" 0000001", b"0x000001", b"0000_001", b"0000001\n"])
def test_a_field_that_is_not_hexadecimal_is_named(index: int, junk: bytes) -> None:
    first = _entry(b"first", b"12345")
    second = bytearray(_entry(b"second"))
    second[6 + 8 * index : 14 + 8 * index] = junk
    with pytest.raises(CorruptError) as caught:
        _read(_archive(first, bytes(second)))
    assert str(caught.value) == f"a.cpio @0x{len(first):X}: {FIELDS[index]} field is not hexadecimal"


@pytest.mark.parametrize("magic", [b"070707", b"\xc7\x71\0\0\0\0", b"\0\0\0\0\0\0", b"07070A"])
def test_other_formats_are_told(magic: bytes) -> None:
    first = _entry(b"first")
    with pytest.raises(CorruptError, match=rf"^a\.cpio @0x{len(first):X}: no cpio header here \(magic is b'"):
        _read(_archive(first, magic + _entry(b"second")[6:]))


@pytest.mark.parametrize(
    ("namesize", "said"), [(0, "name of 0 bytes"), (4097, "name of 4,097 bytes"), (5, "name does not end with a NUL")]
)
def test_an_impossible_name_is_told(namesize: int, said: str) -> None:
    entry = _entry(b"a" * 9)
    entry = entry[:94] + b"%08x" % namesize + entry[102:]
    with pytest.raises(CorruptError, match=rf"^a\.cpio @0x0: {said}$"):
        _read(_archive(entry))


def test_data_that_ends_too_early_names_its_entry() -> None:
    archive = _entry(b"first") + _entry(b"caf\xe9", b"12345678")
    with pytest.raises(CorruptError) as caught:
        _read(archive[:-3])
    assert str(caught.value) == rf"a.cpio » caf\xe9 @0x{len(archive) - 3:X}: ends 3 bytes too early"


@pytest.mark.parametrize(
    ("path", "normal"), [(b"/a//b/./c/", b"a/b/c"), (b".", b""), (b"/", b""), (b"./a", b"a"), (b"..a/.b", b"..a/.b")]
)
def test_names_are_normal_paths(path: bytes, normal: bytes) -> None:
    assert normal_name(path) == normal


# Names alone, which are read in a way of their own


ENTRIES = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name),
        st.binary(max_size=30),
        st.sampled_from([0o100644, 0o040755, 0o120777, 0o010600, 0o140600, 0o000600, 0o170000, 0o100644 | 1 << 20]),
    ),
    max_size=12,
)


def _scanned(archive: bytes, step: int, effort: ScanOptions) -> tuple[list[bytes], int, int] | str:
    """The paths, how many they are and where the archive ended, or the error."""
    reader = ByteReader((archive[at : at + step] for at in range(0, len(archive), step)), PLACE)
    try:
        found = read_index(reader, 0, MemberScanner(effort, 1))
    except CorruptError as error:
        return str(error)
    return [*found.paths], found.entry_count, reader.position


@given(ENTRIES, st.integers(1, 700), st.data())
def test_names_alone_are_those_of_the_entries_and_so_are_the_errors(
    entries: list[tuple[bytes, bytes, int]], step: int, data: st.DataObject
) -> None:
    sound = _archive(*(_entry(name, text, mode=mode) for name, text, mode in entries)) + bytes(9)
    archive = bytearray(sound)
    for at in data.draw(st.lists(st.integers(0, len(sound) - 1), max_size=2)):
        archive[at] = data.draw(st.sampled_from([0, 0x30, 0x31, 0x37, 0x46, 0x67, 0xFF]))
    archive = archive[: data.draw(st.integers(0, len(archive)))] if data.draw(st.booleans()) else archive
    _same_names(bytes(archive), step)


def _same_names(archive: bytes, step: int) -> None:
    whole = ScanOptions(digests=False, nesting=0, edits=False, tail=0)
    scanned = _scanned(archive, step, whole)
    assert _scanned(archive, step, UNREAD) == scanned
    counted = _scanned(archive, step, whole._replace(counts=True))
    assert counted == (scanned if isinstance(scanned, str) else ([], *scanned[1:]))


@pytest.mark.parametrize("step", [1, 7, 237, 700])
@pytest.mark.parametrize("modes", [(0o100644, 0o100644), (0o120777, 0o100644), (0o040755, 0o120777)])
def test_wherever_an_archive_is_cut_the_error_is_the_same(modes: tuple[int, int], step: int) -> None:
    for data in (b"", b"\0", b"abcdefg"):
        sound = _archive(_entry(b"\x01", b"\0", mode=modes[0]), _entry(b"\x01" * 10, data, mode=modes[1]))
        for end in range(len(sound)):
            _same_names(sound[:end], step)


ODD_NAMES = [b".", b"a", b"a/b", b"./a", b"././a", b"./", b"/a", b"a//b", b"a/.", b"a/", b"", b".a", b"a/.b", b"a\n/b"]


@pytest.mark.parametrize("count", range(4))
def test_normal_names_are_each_a_normal_name(count: int) -> None:
    for names in itertools.product(ODD_NAMES, repeat=count):
        assert list(normal_names(names)) == [normal_name(name) for name in names]
