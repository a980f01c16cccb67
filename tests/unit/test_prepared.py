"""An image that is prepared and not written: its bytes are those that a remaster writes, wherever they come from."""

from __future__ import annotations

import gc
import gzip
import os
import random
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster import AddPath, BaseRange, InlineFile, Prepared, Request
from cosremaster.codecs import find_codec
from cosremaster.codecs.gzip.repack import STORED
from cosremaster.demo.image import build_archive, root_items
from cosremaster.errors import ImageError, OutputError, OverlayError, Place, ProofError, UsageError
from cosremaster.io.blobs import LARGE, BlobStore, StoredBlob
from cosremaster.io.framed import ConcatSource, FramedSource
from cosremaster.io.frozen import SHARED, FrozenTable, freeze_table
from cosremaster.io.output import Output
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.io.source import ByteSource, open_source
from cosremaster.io.spool import Spool
from cosremaster.io.streams import ByteReader
from cosremaster.layers.decoded import DecodedSource
from cosremaster.overlay.scan import HostFile
from tests.fixtures.tools import require, run
from tests.support.small import write_small

NOISE = random.Random(20).randbytes(2 << 20)
SHORT, LONG = SHARED - 1, LARGE + 77
EARLY = Request(add=[InlineFile("/etc/hostname", b"site-7\n")], xz_preset=0)


def host_file(path: Path, data: bytes) -> HostFile:
    """A file of the user with ``data``, as it is scanned."""
    path.write_bytes(data)
    return HostFile(os.fsencode(path), len(data), path.stat().st_mtime_ns)


def decoded(plain: bytes) -> DecodedSource:
    """The plain bytes of a gzip stream, which are decoded when they are read."""
    packed, place = PieceTable([Literal(gzip.compress(plain, 1))]), Place(("in.gz",))
    codec = find_codec(packed.read())
    assert codec is not None
    decoding = codec.decode(ByteReader(packed.chunks(), place))
    assert b"".join(decoding.chunks()) == plain
    return DecodedSource(packed, decoding.parameters, place, b"", len(plain))


def pieces_of_every_kind(folder: Path, base: ByteSource, spool: Spool) -> dict[str, list[Piece]]:
    """Short and long pieces of each kind that plans have."""
    file, small = host_file(folder / "large", NOISE), host_file(folder / "small", NOISE[:SHORT])
    made = spool.append([NOISE[5 : LONG + 5]], packed=True)
    plain = decoded(NOISE[9:300_009] * 4)
    mixed = PieceTable(
        [Literal(b"head"), Range(file, 1, LONG), made.cut(7, 9000), Zeros(99_999), Range(plain, 4, 70_000)]
    )
    without_files = PieceTable([made.cut(3, 200_000), Range(base, 1, 70_000)])
    crc = zlib.crc32(mixed.read())
    framed, nested = (
        FramedSource(mixed, STORED, crc),
        FramedSource(PieceTable([Zeros(5), Range(file, 0, LONG)]), STORED),
    )
    around = FramedSource(PieceTable([Literal(b"xz"), nested.piece()]), STORED)
    return {
        "literal": [Literal(b"abc"), Literal(NOISE[:5000]), Literal(NOISE[1 : LONG + 1])],
        "zeros": [Zeros(3), Zeros(LONG)],
        "base": [Range(base, 0, 7), Range(base, 4097, 500_000)],
        "spool": [made.cut(1, 20), made.cut(100, 9000), made],
        "file": [Range(small, 1, 100), Range(file, 2, 9000), Range(file, 3, LONG), Range(file, 1, LONG)],
        "frames": [
            framed.piece(), framed.piece().cut(65_530, 65_560), around.piece(),
            FramedSource(without_files, STORED).piece(),
        ],
        "concatenated": [
            Range(ConcatSource(mixed, crc), 3, mixed.length - 5), Range(ConcatSource(without_files, 0), 0, 100)
        ],
        "decoded": [
            Range(plain, 300, 10), Range(plain, 20, 600_000), Range(plain, 0, 1_200_000), Range(plain, 5, SHARED)
        ],
    }  # fmt: skip


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[tuple[ByteSource, Spool]]:
    """A base, and a spool as a plan has one."""
    (tmp_path / "base").write_bytes(NOISE[::-1])
    with open_source(tmp_path / "base") as base, Spool(tmp_path) as spool:
        yield base, spool


KINDS = ("literal", "zeros", "base", "spool", "file", "frames", "concatenated", "decoded", "all")


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_of_each_kind_are_those_of_the_written_file_from_many_threads(
    kind: str, tmp_path: Path, sources: tuple[ByteSource, Spool]
) -> None:
    base, spool = sources
    by_kind = pieces_of_every_kind(tmp_path, base, spool)
    pieces = (
        by_kind[kind]
        if kind != "all"
        else [piece for pieces in zip(*by_kind.values(), strict=False) for piece in pieces]
    )
    table = PieceTable([*pieces, Literal(b"."), *reversed(pieces)])
    with Output(tmp_path / "written", (), force=False) as output:
        output.write(table, base, lambda count: None)
        output.publish()
    written = (tmp_path / "written").read_bytes()
    frozen = freeze_table(table, base, BlobStore(tmp_path))
    spool.__exit__()  # the temporary files of a plan end with it
    assert frozen.size == len(written)
    assert b"".join(frozen.chunks(0, frozen.size)) == written
    assert frozen.read(frozen.size - 3, 100) == written[-3:]
    assert (frozen.read(frozen.size, 1), frozen.read(frozen.size + 5, 1)) == (b"", b"")

    def read_somewhere(seed: int) -> list[int]:
        """The offsets at which bytes are wrong."""
        chance, wrong = random.Random(seed), []
        for _ in range(12):
            offset = chance.randrange(len(written))
            length = chance.choice((1, 512, 70_000, 300_000))
            short = min(length // 3, len(written) - offset)
            buffers = [bytearray(short // 2), bytearray(short - short // 2)]
            frozen.fill(offset, [memoryview(buffer) for buffer in buffers])
            if frozen.read(offset, length) != written[offset : offset + length]:
                wrong.append(offset)
            if b"".join(buffers) != written[offset : offset + length // 3]:
                wrong.append(offset)
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert [wrong for wrong in pool.map(read_somewhere, range(8)) if wrong] == []
    assert join_segments(frozen, NOISE[::-1], 1, frozen.size - 2) == written[1:-1]


def join_segments(table: FrozenTable | Prepared, base: bytes, offset: int, length: int) -> bytes:
    """What a server sends for a range: bytes, and ranges of the base's file."""
    parts = list(table.segments(offset, length))
    assert all(len(part) <= 1 << 20 for part in parts if isinstance(part, bytes))
    return b"".join(
        part if isinstance(part, bytes) else base[part.offset : part.offset + part.length] for part in parts
    )


def test_what_comes_from_where_is_counted(tmp_path: Path, sources: tuple[ByteSource, Spool]) -> None:
    base, spool = sources
    file = host_file(tmp_path / "large", NOISE)
    made = spool.append([NOISE[:LONG]], packed=True)
    table = PieceTable([
        Literal(b"own"), Zeros(70), Range(base, 9, 400), Literal(bytes(SHARED)), made,
        FramedSource(PieceTable([Range(file, 0, LONG)]), STORED).piece(), Range(base, 0, 5),
    ])  # fmt: skip
    frames = LONG + 5 * -(-LONG // 65535)
    frozen = freeze_table(table, base, BlobStore(tmp_path))
    assert frozen.sizes() == cosremaster.OriginSizes(
        pieces=7, base=405, zeros=70, own=3, shared=SHARED, stored=LONG, files=frames
    )
    assert frozen.files == (file,)


REQUESTS = {
    "nothing": Request(),
    "added": Request(add=[InlineFile("/etc/site", b"7")], xz_preset=0),
    "replaced early": EARLY,
    "removed": Request(remove=["/etc/os-release"], xz_preset=0),
    "on the ISO": Request(add_iso=[InlineFile("/site.cfg", b"x" * 5000)]),
    "arguments": Request(kernel_args=["console=ttyS0"]),
    "volume id": Request(volume_id="SITE_7"),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_prepared_image_is_the_written_one(kind: str, tmp_path: Path) -> None:
    image = write_small(tmp_path)
    with cosremaster.open(image) as opened:
        written = opened.remaster(tmp_path / "out.iso", REQUESTS[kind])
        prepared = opened.prepare(REQUESTS[kind])
    expected = (tmp_path / "out.iso").read_bytes()
    with prepared:
        assert prepared.size == len(expected) == written.output_size
        assert prepared.identical is written.identical is (kind == "nothing")
        assert prepared.warnings == written.warnings
        assert b"".join(prepared.chunks()) == expected
        assert join_segments(prepared, image.read_bytes(), 0, prepared.size) == expected
        buffer = bytearray(5000)
        prepared.read_into(30_000, [memoryview(buffer)[:1], memoryview(buffer)[1:]])
        assert buffer == expected[30_000:35_000]
        assert prepared.descriptor is not None
        assert os.pread(prepared.descriptor, 5, 0x8001) == b"CD001"


@pytest.mark.parametrize("name", ["in.cpio", "in.cpio.gz"])
def test_an_initramfs_is_prepared_too(name: str, tmp_path: Path) -> None:
    plain = build_archive(root_items())
    (tmp_path / name).write_bytes(gzip.compress(plain, mtime=0) if name.endswith("gz") else plain)
    with cosremaster.open(tmp_path / name) as opened:
        opened.remaster(tmp_path / f"out-{name}", EARLY)
        with opened.prepare(EARLY) as prepared:
            assert b"".join(prepared.chunks()) == (tmp_path / f"out-{name}").read_bytes()
            assert any("read to the end" in line for line in prepared.proof)


def test_it_outlives_its_image_and_closes_the_base_with_the_last(tmp_path: Path) -> None:
    image = write_small(tmp_path)
    with cosremaster.open(image) as opened:
        first, second = opened.prepare(EARLY), opened.prepare(REQUESTS["added"])
    descriptor = first.descriptor
    assert descriptor is not None
    assert descriptor == second.descriptor
    first.close()
    first.close()
    assert second.read(0x8001, 5) == b"CD001"
    with second.using():
        second.close()
        os.fstat(descriptor)  # whoever reads ends first
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    for prepared in (first, second):
        with pytest.raises(UsageError, match=r"in\.iso \(prepared\) is closed"):
            prepared.read(0, 1)
        with pytest.raises(UsageError, match="is closed"):
            list(prepared.segments(0, 1))


def test_what_uses_it_reads_on_though_somebody_closes_it(tmp_path: Path) -> None:
    with cosremaster.open(write_small(tmp_path)) as opened:
        prepared = opened.prepare(EARLY)
    whole = b"".join(prepared.chunks())
    with prepared.using():
        prepared.close()
        assert prepared.read(0, len(whole)) == whole
        assert b"".join(prepared.chunks()) == whole
        assert b"".join(part if isinstance(part, bytes) else bytes(part.length) for part in prepared.segments(0, 9))
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(prepared.read, 0x8001, 5).result() == b"CD001"
    with pytest.raises(UsageError, match="is closed"):
        prepared.read(0, 1)
    with pytest.raises(UsageError, match="is closed"), prepared.using():
        pass


def test_a_closed_one_is_not_read_while_the_image_is_open(tmp_path: Path) -> None:
    with cosremaster.open(write_small(tmp_path)) as opened:
        opened.prepare(EARLY).close()
        prepared = opened.prepare(EARLY)
        prepared.close()
        with pytest.raises(UsageError, match="is closed"):
            prepared.read(0, 1)
        assert opened.read("vmlinuz")[:2] == b"MZ"


def test_a_changed_base_is_an_error_and_not_other_bytes(tmp_path: Path) -> None:
    image = write_small(tmp_path)
    with cosremaster.open(image) as opened, opened.prepare(EARLY) as prepared:
        prepared.check_unchanged()
        os.utime(image, ns=(0, 0))
        for read in (lambda: prepared.read(0, 9), lambda: list(prepared.chunks()), prepared.check_unchanged):
            with pytest.raises(ImageError, match=r"in\.iso: changed while it was being read"):
                read()
        with pytest.raises(ImageError, match="changed while"):
            prepared.read_into(0, [memoryview(bytearray(9))])


def test_a_changed_qcow2_base_is_an_error_and_not_other_bytes(tmp_path: Path) -> None:
    """The disk in it has no descriptor of its own."""
    require("qemu-img")
    image, disk = write_small(tmp_path), tmp_path / "base.qcow2"
    run(["qemu-img", "convert", "-O", "qcow2", image, disk])
    with cosremaster.open(disk) as opened, opened.prepare(EARLY) as prepared:
        assert prepared.read(0x8001, 5) == b"CD001"
        with disk.open("r+b") as file:
            file.seek(-9000, os.SEEK_END)
            file.write(b"other")
        with pytest.raises(ImageError, match=r"base\.qcow2: changed while it was being read"):
            b"".join(prepared.chunks())


def test_a_base_that_was_cut_off_is_an_error(tmp_path: Path) -> None:
    image = write_small(tmp_path)
    with cosremaster.open(image) as opened, opened.prepare(EARLY) as prepared:
        os.truncate(image, 40_000)
        for offset in (0x8001, 39_999, 300_000):
            with pytest.raises(ImageError):
                prepared.read(offset, 5)


def test_a_changed_file_of_the_user_is_an_error_where_it_is_read(tmp_path: Path) -> None:
    image, large, small = write_small(tmp_path), tmp_path / "large", tmp_path / "small"
    large.write_bytes(NOISE)
    small.write_bytes(b"config")
    request = Request(add=[AddPath(large, "/opt/large"), AddPath(small, "/opt/small")])
    with cosremaster.open(image) as opened, opened.prepare(request) as prepared:
        assert prepared.origins().files > len(NOISE)
        expected = b"".join(prepared.chunks())
        small.unlink()  # it was taken over
        assert b"".join(prepared.chunks()) == expected
        large.write_bytes(NOISE[::-1])
        os.utime(large, ns=(0, 0))
        assert prepared.read(0x8001, 5) == b"CD001"
        for read in (lambda: list(prepared.chunks()), prepared.check_unchanged):
            with pytest.raises(OverlayError, match="large: changed while it was being read"):
                read()
        large.unlink()
        with pytest.raises(OverlayError, match="large: cannot be opened"):
            prepared.check_unchanged()


def test_the_identity_stays_and_stands_for_the_bytes(tmp_path: Path) -> None:
    image = write_small(tmp_path)

    def identity(request: Request) -> str:
        """The identity after the image was opened anew."""
        with cosremaster.open(image) as opened, opened.prepare(request) as prepared:
            return prepared.identity()

    kinds = ("nothing", "added", "arguments")
    first = {identity(REQUESTS[kind]) for kind in kinds}
    assert {identity(REQUESTS[kind]) for kind in kinds} == first
    assert len(first) == len(kinds)
    os.utime(image, ns=(0, 0))
    assert first.isdisjoint({identity(REQUESTS[kind]) for kind in kinds})


def test_every_difference_of_a_table_is_in_its_digest(tmp_path: Path, sources: tuple[ByteSource, Spool]) -> None:
    base, spool = sources
    file, other = host_file(tmp_path / "a", NOISE), host_file(tmp_path / "b", NOISE)
    made = spool.append([NOISE], packed=True)
    tables: list[list[Piece]] = [
        [Literal(b"ab")], [Literal(b"abc")], [Zeros(2)], [Range(base, 0, 2)], [Range(base, 1, 2)], [Range(base, 0, 3)],
        [Range(base, 0, 1), Range(base, 5, 1)], [Range(file, 0, LONG)], [Range(file, 1, LONG)], [Range(other, 0, LONG)],
        [made.cut(0, LONG)], [made.cut(1, LONG)], [made.cut(0, 9000)], [made.cut(1, 9000)], [Zeros(2), Literal(b"ab")],
        [FramedSource(PieceTable([Range(file, 0, LONG)]), STORED).piece()],
        [FramedSource(PieceTable([Range(file, 1, LONG)]), STORED).piece()],
        [FramedSource(PieceTable([Range(file, 0, LONG), Literal(b"a")]), STORED).piece().cut(0, 9)],
        [FramedSource(PieceTable([Range(file, 0, LONG), Literal(b"b")]), STORED).piece().cut(0, 9)],
    ]  # fmt: skip
    store = BlobStore(tmp_path)
    digests = [freeze_table(PieceTable(table), base, store).digest for table in tables]
    assert len(set(digests)) == len(tables)
    assert [freeze_table(PieceTable(table), base, BlobStore(tmp_path)).digest for table in tables] == digests


def test_equal_contents_are_kept_once(tmp_path: Path, sources: tuple[ByteSource, Spool]) -> None:
    base, spool = sources
    store = BlobStore(tmp_path)
    open_files = len(os.listdir("/proc/self/fd"))
    made = spool.append([NOISE], packed=True)
    planned = [PieceTable([Literal(b"%d" % number), made, Literal(NOISE[:9000])]) for number in range(9)]
    tables = [freeze_table(table, base, store) for table in planned]
    assert len({id(holder) for table in tables for holder in table._holders}) == 2
    assert store._end == len(NOISE)
    assert len(os.listdir("/proc/self/fd")) == open_files + 2  # the spool, and the file of all large blobs
    del tables[1:]
    assert tables[0].read(1, 50) == NOISE[:50]
    tables.clear()
    gc.collect()
    assert (store._end, len(store._blobs)) == (0, 0)
    del store
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == open_files + 1
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_blob_that_goes_after_its_store_touches_no_other_file(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    blob = store.put([NOISE], len(NOISE))
    assert isinstance(blob, StoredBlob)
    fd = store._fd
    assert fd is not None
    store.__del__()  # as where a garbage collector takes both, in its order
    with (tmp_path / "other").open("wb", buffering=0) as other:
        os.dup2(other.fileno(), fd)
    try:
        os.write(fd, b"kept")
        blob.__del__()
        assert (tmp_path / "other").read_bytes() == b"kept"
    finally:
        os.close(fd)
    del blob, store


@settings(max_examples=30)
@given(st.data())
def test_room_in_the_file_of_blobs_is_given_once(data: st.DataObject) -> None:
    store = BlobStore(Path("/tmp"))
    held: dict[int, int] = {}
    for _ in range(data.draw(st.integers(1, 30))):
        if bool(held) and data.draw(st.booleans()):
            start = data.draw(st.sampled_from(sorted(held)))
            store.free_room(start, held.pop(start))
        else:
            length = data.draw(st.integers(1, 5))
            held[store._take_room(length)] = length
        rooms = sorted([*((start, start + length) for start, length in held.items()), *store._rooms])
        assert [start for start, _ in rooms] == [0, *(end for _, end in rooms)][: len(rooms)]
        assert store._end == (rooms[-1][1] if rooms else 0)
        assert not store._rooms or rooms[-1] != store._rooms[-1]


def test_a_folder_without_room_is_one_sentence(tmp_path: Path, sources: tuple[ByteSource, Spool]) -> None:
    base, _ = sources
    with pytest.raises(OutputError, match="cannot write temporary data: No such file or directory"):
        freeze_table(PieceTable([Literal(NOISE)]), base, BlobStore(tmp_path / "missing"))


def test_what_cannot_be_proved_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = FrozenTable.fill

    def fill(table: FrozenTable, offset: int, views: list[memoryview]) -> None:
        """Read a volume id that is not the planned one."""
        real(table, offset, views)
        for at in range(0x8028, 0x8030):
            if len(views) == 1 and offset <= at < offset + len(views[0]):
                views[0][at - offset] = 0x41

    monkeypatch.setattr(FrozenTable, "fill", fill)
    monkeypatch.setattr(FrozenTable, "read", _filled)
    with cosremaster.open(write_small(tmp_path)) as opened, pytest.raises(ProofError, match="the volume id is"):
        opened.prepare(EARLY)


def _filled(table: FrozenTable, offset: int, length: int) -> bytes:
    """The bytes that ``table`` fills in."""
    buffer = bytearray(min(length, table.size - offset))
    table.fill(offset, [memoryview(buffer)])
    return bytes(buffer)


def test_segments_of_an_unchanged_image_are_one_range(tmp_path: Path) -> None:
    image = write_small(tmp_path)
    with cosremaster.open(image) as opened, opened.prepare() as prepared:
        assert list(prepared.segments(5, 100)) == [BaseRange(5, 100)]
        assert list(prepared.segments(prepared.size - 5, 100)) == [BaseRange(prepared.size - 5, 5)]
        assert list(prepared.segments(prepared.size, 100)) == []
