"""What was read or computed once is not read or computed again, in a remaster or the next of an opened image."""

import gzip
import os
import random
import tarfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pytest

import cosremaster
from cosremaster.browse.container import Container
from cosremaster.codecs import find_codec
from cosremaster.codecs.base import BlockCache, RepackJob
from cosremaster.errors import Place
from cosremaster.io import descriptors
from cosremaster.io.output import Output
from cosremaster.io.pieces import Literal, PieceTable, Range
from cosremaster.io.source import ByteSource
from cosremaster.io.spool import Spool
from cosremaster.io.streams import ByteReader
from cosremaster.layers.decoded import DecodedSource
from cosremaster.layers.model import Layer
from cosremaster.tree.content import BytesContent, PieceContent, is_same_content
from tests.support.small import read_volume, write_small

PLACE = Place(("a.gz",))
ROOM = BlockCache.LIMIT


class CountedSource:
    """A source of bytes that counts what is read of it."""

    name = "counted"

    def __init__(self, data: bytes) -> None:
        self.data, self.count = data, 0

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        for start in range(offset, offset + length, 1000):
            part = self.data[start : min(start + 1000, offset + length)]
            self.count += len(part)
            yield part

    def content(self, sha256: bytes | None = None) -> PieceContent:
        return PieceContent((Range(self, 0, len(self.data)),), sha256)


@pytest.mark.parametrize("limit", [0, 20_000, ROOM])
def test_what_is_in_no_stored_block_is_inflated_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    chance = random.Random(5)
    plain = b"".join(
        chance.randbytes(200_000) + bytes(chance.choices(range(200), k=size)) for size in (9_000, 70_000, 0)
    )
    packed = PieceTable([Literal(gzip.compress(plain, 6, mtime=0))])
    codec = find_codec(packed.read())
    assert codec is not None
    decoding = codec.decode(ByteReader(packed.chunks(), PLACE))
    assert sum(map(len, decoding.chunks())) == len(plain)
    decoded = DecodedSource(packed, decoding.parameters, PLACE, b"", len(plain))
    inflated: list[int] = []
    real = DecodedSource.chunks

    def chunks(self: DecodedSource, offset: int, length: int) -> Iterator[bytes]:
        inflated.append(length)
        return real(self, offset, length)

    monkeypatch.setattr(DecodedSource, "chunks", chunks)
    monkeypatch.setattr(BlockCache, "LIMIT", limit)
    table = PieceTable([Literal(b"x" * 5000), Range(decoded, 0, len(plain), True)])
    cache, results = BlockCache(), list[tuple[bytes, int]]()
    for _ in range(2):
        with Spool(tmp_path) as spool:
            job = RepackJob(
                packed=packed, decoded=decoded, plain=table, spool=spool, threads=1, advance=lambda count: None,
                cache=cache,
            )  # fmt: skip
            result = decoding.parameters.repack(job).table
            results.append((result.read(), sum(inflated)))
        inflated.clear()
    assert results[0][0] == results[1][0]
    assert gzip.decompress(results[0][0]) == b"x" * 5000 + plain
    first, second = results[0][1], results[1][1]
    if limit == ROOM:
        assert 70_000 < first < len(plain), "once, though it is summed and then written"
        assert second == 0
    else:
        assert second > first / 2, "what the cache does not take is inflated each time"


def test_files_are_compared_up_to_the_first_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(1).randbytes(900_000)
    old, new = CountedSource(data), CountedSource(b"?" + data[1:])
    assert not is_same_content(old.content(), new.content())
    assert old.count < len(data)
    assert new.count < len(data)
    old, new = CountedSource(data), CountedSource(data[:-1] + b"?")
    assert not is_same_content(old.content(), new.content())
    assert is_same_content(old.content(), CountedSource(data).content())
    assert is_same_content(old.content(), BytesContent(data))
    assert not is_same_content(old.content(), BytesContent(data[:-1]))
    assert is_same_content(BytesContent(b""), CountedSource(b"").content())
    old, new = CountedSource(data), CountedSource(data)
    assert is_same_content(old.content(), new.content(BytesContent(data).digest()))
    assert (old.count, new.count) == (len(data), 0), "a known digest spares reading"


def test_the_memory_of_the_base_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[bool] = []
    real = Layer.inodes

    def inodes(layer: Layer, removed: Collection[bytes] = frozenset()) -> Iterator[tuple[int, int]]:
        measured.append(bool(removed))
        return real(layer, removed)

    monkeypatch.setattr(Layer, "inodes", inodes)
    (tmp_path / "one/etc").mkdir(parents=True)
    (tmp_path / "one/etc/site").write_bytes(bytes(5000))
    estimates = []
    with cosremaster.open(write_small(tmp_path), remember=False) as image:
        for number in range(3):
            result = image.remaster(tmp_path / f"{number}.iso", cosremaster.Request(add=[tmp_path / "one"]))
            estimates.append(result.memory)
        assert measured == [False, False], "of the root file system and of the archive around it"
        removing = image.remaster(tmp_path / "removed.iso", cosremaster.Request(remove=["etc/hostname"]))
        assert measured == [False, False], "what goes is taken off"
    assert estimates[0] == estimates[1] == estimates[2]
    assert removing.memory != estimates[0]


def test_a_head_start_ends_at_a_replaced_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int | None] = []
    real = Output.start_precopy

    def begin(self: Output, source: ByteSource, limit: int | None = None) -> None:
        limits.append(limit)
        real(self, source, limit)

    monkeypatch.setattr(Output, "start_precopy", begin)
    data = random.Random(2).randbytes(300_000)
    image = write_small(tmp_path, extra={"a.bin": data, "z.bin": data[1:], "tiny": b"x"})
    (tmp_path / "new").write_bytes(data[::-1])
    for name in ("z.bin", "tiny", "new.bin"):
        cosremaster.remaster(image, tmp_path / f"{name}.iso", add_iso=[f"{tmp_path}/new:/{name}"])
    (old,) = (file for file in read_volume(image).files if file.path == b"z.bin")
    assert limits == [old.records[0].lba * 2048, None, None]
    assert (tmp_path / "z.bin.iso").read_bytes().count(data[::-1]) == 1


def test_under_another_codec_nothing_is_copied_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[ByteSource] = []
    monkeypatch.setattr(Output, "start_precopy", lambda self, source, limit=None: begun.append(source))
    archive = tmp_path / "root.tar.xz"
    with tarfile.open(archive, "w:xz") as writer:
        writer.addfile(tarfile.TarInfo("etc/hostname"))
    (tmp_path / "new").write_text("new\n")
    for name, count in (("out.tar.gz", 0), ("out.tar.xz", 1)):
        cosremaster.remaster(archive, tmp_path / name, add=[f"{tmp_path}/new:/etc/"], remember=False)
        assert len(begun) == count
        with tarfile.open(tmp_path / name) as reader:
            assert {"etc/hostname", "etc/new"} <= set(reader.getnames())


@pytest.mark.parametrize("most", [1, 7, 4096, 1 << 20])
@pytest.mark.parametrize("batch", [2, 1024])
def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, batch: int) -> None:
    data = random.Random(3).randbytes(5000)
    (tmp_path / "file").write_bytes(data)
    real, calls = os.preadv, list[int]()

    def preadv(fd: int, views: Sequence[memoryview], offset: int) -> int:
        calls.append(offset)
        short, room = list[memoryview](), most
        for view in views:
            short.append(view[:room])
            room -= len(short[-1])
        return real(fd, short, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(descriptors, "_MAX_BUFFERS", batch)
    sizes = (0, 3, 500, 0, 2000, 1)
    for start in (0, 100, 4000, 5000):
        buffers = [bytearray(size) for size in sizes]
        with (tmp_path / "file").open("rb") as file:
            count = descriptors.read_into(file.fileno(), start, [memoryview(buffer) for buffer in buffers])
        assert count == min(sum(sizes), len(data) - start)
        assert b"".join(buffers)[:count] == data[start : start + count]
    if most > 4096 and batch > len(sizes):
        assert calls[:2] == [0, 100], "one call where everything is read at once"
        assert calls[2] == 4000


def test_the_place_of_a_directory_is_looked_up_once_for_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved: list[bytes] = []
    resolve = Container.resolve

    def counted(self: Container, path: bytes, *, last: bool) -> bytes:
        resolved.append(path)
        return resolve(self, path, last=last)

    monkeypatch.setattr(Container, "resolve", counted)
    tree = tmp_path / "tree"
    for name in ("a/b/1", "a/b/2", "a/b/3", "a/4"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    cosremaster.pack(tree, tmp_path / "root.tar")
    cosremaster.extract(tmp_path / "root.tar", tmp_path / "out")
    assert sorted(path for path in resolved if path) == [b"a", b"a/b"]
    assert (tmp_path / "out/a/b/3").read_text() == "a/b/3"
