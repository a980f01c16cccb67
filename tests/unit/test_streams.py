"""Byte streams, piece tables, spools, the output file and ordered threads, each held against plain bytes."""

import errno
import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster.errors import CorruptError, ImageError, OutputError, Place, SizeError
from cosremaster.io import pieces
from cosremaster.io.descriptors import write_all, write_error
from cosremaster.io.output import Output
from cosremaster.io.parallel import CancelledError, StopFlag, ordered_map
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros, have_same_bytes
from cosremaster.io.source import open_source
from cosremaster.io.spool import Spool
from cosremaster.io.streams import CHUNK, ByteReader, count_chunks

PLACE = Place(("t",))


@dataclass(frozen=True, eq=False)
class Memory:
    """A source of pieces that holds its bytes."""

    data: bytes
    name: str = "memory"

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        for start in range(offset, offset + length, 3):
            yield self.data[start : min(start + 3, offset + length)]


# ByteReader

CHUNKS = st.lists(st.binary(max_size=9), max_size=9)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read_some", "read_upto", "peek", "read_exactly", "skip", "read_parts"]), st.integers(0, 20)
    )
)


def _take(reader: ByteReader, way: str, count: int) -> bytes:
    """The next ``count`` bytes in one of the ways a reader offers; they are consumed but by ``peek``."""
    if way == "read_parts":
        return b"".join(reader.read_parts(count))
    if way == "skip":
        reader.skip(count)
        return b""
    taken = getattr(reader, way)(count)
    assert isinstance(taken, bytes)
    return taken


def _check_step(reader: ByteReader, data: bytes, way: str, count: int) -> None:
    """One step does what it would do on ``data``."""
    start = reader.position
    wanted = data[start : start + count]
    if way in ("read_exactly", "skip", "read_parts") and len(wanted) < count:
        with pytest.raises(CorruptError, match=f"^t @0x{len(data):X}: ends {count - len(wanted)} bytes too early$"):
            _take(reader, way, count)
        assert reader.position == len(data)
        return
    taken = _take(reader, way, count)
    if way == "read_some":
        assert wanted.startswith(taken) and bool(taken) == bool(wanted)
    else:
        assert taken == (b"" if way == "skip" else wanted)
    assert reader.position - start == {"peek": 0, "read_some": len(taken)}.get(way, len(wanted))
    if way == "read_upto":
        reader.unread(taken)
        assert reader.position == start
        assert reader.read_upto(count) == wanted


@given(CHUNKS, STEPS)
def test_a_reader_is_its_bytes_in_a_row(chunks: list[bytes], steps: list[tuple[str, int]]) -> None:
    data = b"".join(chunks)
    reader = ByteReader(chunks, PLACE)
    for way, count in steps:
        _check_step(reader, data, way, count)
        assert reader.next_place == PLACE.at(reader.position)
    position = reader.position
    assert b"".join(reader.read_rest()) == data[position:]
    assert reader.position == len(data)


def test_a_reader_consumes_its_chunks_no_further_than_asked() -> None:
    pulled: list[int] = []
    reader = ByteReader(count_chunks([b"abc", b"def", b"ghi"], pulled.append), PLACE)
    assert reader.read_upto(4) == b"abcd"
    assert reader.peek(2) == b"ef"
    assert pulled == [3, 3]


# Piece tables

SOURCES = (Memory(bytes(range(100))), Memory(bytes(range(100, 200))))
RANGES = st.builds(
    lambda source, start, length, packed: Range(source, start, min(length, 100 - start), packed),
    st.sampled_from(SOURCES), st.integers(0, 100), st.integers(0, 30), st.booleans(),
)  # fmt: skip
PIECES = st.lists(st.one_of(st.binary(max_size=9).map(Literal), st.integers(0, 9).map(Zeros), RANGES), max_size=12)


def _plain(piece: Piece) -> bytes:
    match piece:
        case Literal(data):
            return data
        case Zeros(length):
            return bytes(length)
        case Range(Memory(data), offset, length):
            return data[offset : offset + length]
    raise AssertionError(piece)


def _bytes(table: PieceTable) -> bytes:
    made = b"".join(table.chunks())
    assert len(made) == table.length
    return made


@given(PIECES, st.data())
def test_a_table_is_its_bytes_and_is_cut_like_them(pieces: list[Piece], draw: st.DataObject) -> None:
    table, plain = PieceTable(pieces), b"".join(map(_plain, pieces))
    assert _bytes(table) == plain
    start = draw.draw(st.integers(0, len(plain)))
    end = draw.draw(st.integers(start, len(plain)))
    assert _bytes(table.cut(start, end)) == plain[start:end]
    again = PieceTable([*table.cut(0, start).pieces, *table.cut(start, len(plain)).pieces])
    assert _bytes(again) == plain
    if not any(isinstance(piece, Literal) for piece in pieces):
        assert again.pieces == table.pieces, "a cut leaves no seam"


@given(PIECES, st.data())
def test_a_patched_table_is_its_bytes_patched(pieces: list[Piece], draw: st.DataObject) -> None:
    table, plain = PieceTable(pieces), bytearray(b"".join(map(_plain, pieces)))
    edges = sorted(draw.draw(st.sets(st.integers(0, len(plain)), max_size=8)))
    patches = [(start, bytes(x ^ 0xFF for x in plain[start:end])) for start, end in pairwise(edges)]
    patches = draw.draw(st.permutations(patches[::2]))
    for offset, data in patches:
        plain[offset : offset + len(data)] = data
    assert _bytes(table.patched(patches)) == plain


def test_neighbours_are_joined_only_where_they_continue_each_other() -> None:
    one, other = SOURCES
    assert PieceTable([Range(one, 0, 5), Zeros(0), Range(one, 5, 5)]).pieces == (Range(one, 0, 10),)
    assert PieceTable([Zeros(5), Literal(b""), Zeros(5)]).pieces == (Zeros(10),)
    for apart in (Range(one, 6, 5), Range(other, 5, 5), Range(one, 5, 5, packed=True)):
        assert len(PieceTable([Range(one, 0, 5), apart]).pieces) == 2


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 1), (0, 6)])
def test_a_cut_outside_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="leaves a table of 5 bytes"):
        PieceTable([Literal(b"hello")]).cut(start, end)


@pytest.mark.parametrize("patches", [[(0, b"ab"), (1, b"c")], [(4, b"ab")], [(-1, b"a")]])
def test_patches_that_overlap_or_leave_are_refused(patches: list[tuple[int, bytes]]) -> None:
    with pytest.raises(ValueError, match="overlaps another or the end"):
        PieceTable([Literal(b"hello")]).patched(patches)


def test_many_zeros_come_in_small_chunks() -> None:
    chunks = list(Zeros(2 * CHUNK + 1).chunks())
    assert sum(map(len, chunks)) == 2 * CHUNK + 1
    assert max(map(len, chunks)) == CHUNK


# Files


def test_a_spool_gives_back_what_was_appended_and_has_no_name(tmp_path: Path) -> None:
    big = os.urandom(CHUNK + 1)
    with Spool(tmp_path) as spool:
        first = spool.append([b"ab", b"", b"c"], packed=True)
        second = spool.append([big], packed=False)
        assert (first, second) == (Range(spool, 0, 3, True), Range(spool, 3, len(big), False))
        assert b"".join(second.chunks()) == big
        assert b"".join(first.chunks()) == b"abc"
        assert spool.size == 3 + len(big)
        assert not list(tmp_path.iterdir())


def test_a_spool_refuses_what_passes_its_limit(tmp_path: Path) -> None:
    with Spool(tmp_path, limit=5) as spool:
        spool.append([b"12345"], packed=True)
        with pytest.raises(SizeError, match="passes 5 bytes"):
            spool.append([b"6"], packed=True)


def test_a_spool_needs_its_folder(tmp_path: Path) -> None:
    with Spool(tmp_path / "missing") as spool, pytest.raises(OutputError, match="cannot write temporary data: No such"):
        spool.append([b"x"], packed=True)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    with (tmp_path / "f").open("wb") as file:
        write_all(file.fileno(), b"0123456789", lambda error: write_error(error, "it", PLACE))
    assert (tmp_path / "f").read_bytes() == b"0123456789"


def test_a_full_disk_is_an_output_error() -> None:
    with open("/dev/full", "wb") as full, pytest.raises(OutputError, match="t: cannot write it: No space left"):
        write_all(full.fileno(), b"x", lambda error: write_error(error, "it", PLACE))


def test_a_file_is_read_at_any_offset_and_its_end_and_change_are_told(tmp_path: Path) -> None:
    path, data = tmp_path / "f", os.urandom(CHUNK + 5)
    path.write_bytes(data)
    with open_source(path) as source:
        assert (source.size, source.name) == (len(data), str(path))
        assert b"".join(source.chunks(3, CHUNK + 2)) == data[3:]
        assert source.read(CHUNK, 100) == data[CHUNK:]
        with pytest.raises(ImageError, match=f"f @0x{len(data):X}: ends 1 bytes too early$"):
            list(source.chunks(4, CHUNK + 2))
        source.check_unchanged()
        os.utime(path, (1, 1))
        with pytest.raises(ImageError, match="changed while"):
            source.check_unchanged()


def test_a_missing_file_or_a_directory_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be opened: No such file"):
        open_source(tmp_path / "missing")
    with pytest.raises(ImageError, match="is a directory, and no image"):
        open_source(tmp_path)


def test_a_fifo_without_a_writer_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    code = (
        "import sys; from pathlib import Path; from cosremaster.io.source import open_source;"
        "open_source(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "fifo"], capture_output=True, text=True, timeout=5, check=False
    )
    assert "ImageError" in done.stderr


# The output file

TABLE = PieceTable([Literal(b"result")])


def _write(target: Path, *, force: bool = False, inputs: tuple[Path, ...] = (), meanwhile: bytes | None = None) -> None:
    """Writes and publishes ``TABLE``; ``meanwhile`` is what somebody else puts there before it is published."""
    with Output(target, inputs, force=force) as output:
        written = output.write(TABLE, None, lambda _count: None).path
        assert written.parent == output.folder
        assert written.read_bytes() == b"result"
        if meanwhile is not None:
            target.write_bytes(meanwhile)
        output.publish()


def test_an_output_appears_when_published_and_the_umask_decides_its_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        _write(tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out").read_bytes() == b"result"
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["out"]


def test_an_existing_target_is_replaced_only_by_force(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(OutputError, match="out: exists already"):
        _write(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"old"
    _write(tmp_path / "out", force=True)
    assert (tmp_path / "out").read_bytes() == b"result"
    assert os.listdir(tmp_path) == ["out"]


def test_a_symlink_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("sub/real")
    (tmp_path / "sub").mkdir()
    _write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "sub") == ["real"]


@pytest.mark.parametrize("way", ["itself", "symlink", "hard link", "dots"])
def test_the_input_is_never_the_output(tmp_path: Path, way: str) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"precious")
    if way == "symlink":
        target.symlink_to("in")
    elif way == "hard link":
        target.hardlink_to(source)
    else:
        target = source if way == "itself" else tmp_path / ".." / tmp_path.name / "in"
    with pytest.raises(OutputError, match="is the input itself"):
        _write(target, force=True, inputs=(source,))
    assert source.read_bytes() == b"precious"


def test_targets_that_are_no_file_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for target, said in (
        (tmp_path, "is a directory"),
        (tmp_path / "fifo", "is no regular file"),
        (tmp_path / "missing" / "out", f"there is no folder {tmp_path}/missing"),
    ):
        with pytest.raises(OutputError, match=f"^{target}: .*{said}"):
            _write(target, force=True)
    assert os.listdir(tmp_path) == ["fifo"]


def test_a_name_too_long_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        _write(tmp_path / ("a" * 300))


def test_nothing_is_left_without_publish(tmp_path: Path) -> None:
    with Output(tmp_path / "out", (), force=False) as output:
        output.write(TABLE, None, lambda _count: None)
        assert len(os.listdir(tmp_path)) == 1
    assert not os.listdir(tmp_path)


def test_nothing_is_left_when_a_piece_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"short")
    with (
        open_source(tmp_path / "in") as source,
        pytest.raises(ImageError, match="ends 5 bytes too early"),
        Output(tmp_path / "out", (), force=False) as output,
    ):
        output.write(PieceTable([Literal(b"x"), Range(source, 0, 10)]), None, lambda _count: None)
    assert os.listdir(tmp_path) == ["in"]


def test_nothing_is_left_when_a_write_fails(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (
        pytest.raises(OutputError, match="cannot write the output: File too large"),
        Output(tmp_path / "out", (), force=False) as output,
    ):
        resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK, limit[1]))
        try:
            output.write(PieceTable([Zeros(2 * CHUNK)]), None, lambda _count: None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_file_made_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    with pytest.raises(OutputError, match="it was made while we worked"):
        _write(tmp_path / "out", meanwhile=b"other")
    assert (tmp_path / "out").read_bytes() == b"other"
    _write(tmp_path / "out", force=True, meanwhile=b"other")
    _write(tmp_path / "new")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "new").read_bytes() == b"result"
    assert sorted(os.listdir(tmp_path)) == ["new", "out"]


# Threads


@pytest.mark.parametrize("most", [None, 3, 4])
def test_results_come_in_order_and_few_are_under_way(most: int | None) -> None:
    pulled: list[int] = []
    running: set[int] = set()
    crowds: list[int] = []

    def items() -> Iterator[int]:
        for item in range(30):
            pulled.append(item)
            yield item

    def slow_first(item: int, _stop: StopFlag) -> int:
        running.add(item)
        crowds.append(len(running))
        time.sleep(0.003 * (3 - item % 3))
        running.discard(item)
        return item * item

    for number, result in enumerate(ordered_map(slow_first, items(), 3, most)):
        assert result == number * number
        assert len(pulled) <= number + (most or 6), "more were pulled and not yet handed out"
    assert number == 29
    assert max(crowds) <= 3


def test_who_is_done_does_not_wait_for_one_before() -> None:
    others = threading.Barrier(2, timeout=10)

    def work(item: int, _stop: StopFlag) -> int:
        if item in (0, 2):  # the third begins while the first goes on
            others.wait()
        return item

    assert list(ordered_map(work, range(4), 2)) == [0, 1, 2, 3]


def test_threads_work_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=10)
    assert sorted(ordered_map(lambda _item, _stop: together.wait(), range(2), 2)) == [0, 1]


def test_work_takes_no_more_threads_than_allowed_and_these_end_with_it() -> None:
    threads = list[threading.Thread]()

    def work(item: int, _stop: StopFlag) -> int:
        """Note the thread; each stays in memory, so no other is taken for it."""
        threads.append(threading.current_thread())
        return item

    assert list(ordered_map(work, range(200), 3)) == list(range(200))
    assert len(threads) == 200 and 1 < len(set(threads)) <= 3
    for thread in set(threads):
        thread.join(10)
        assert not thread.is_alive()


def test_an_exception_comes_where_its_result_would_have() -> None:
    results = ordered_map(lambda item, _stop: 6 // item, [3, 2, 0, 1], 2)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_an_exception_of_the_items_is_passed_on_and_stops_the_work() -> None:
    assert _stopped_by(list, fail=True) == ["stopped"]


def test_who_goes_away_stops_the_work() -> None:
    assert _stopped_by(lambda results: results.close(), fail=False) == ["stopped"]


def _stopped_by(end: Callable[..., object], *, fail: bool) -> list[str]:
    """What happened to work that would go on for ever, when ``end`` was done to its results."""
    seen: list[str] = []
    endless = threading.Event()

    def work(item: int, stop: StopFlag) -> int:
        try:
            while item:
                endless.set()
                stop.check()
                time.sleep(0.001)
        except CancelledError:
            seen.append("stopped")
            raise
        return item

    def items() -> Iterator[int]:
        yield from (0, 1)
        if fail:
            assert endless.wait(10)
            raise KeyError
        yield 0

    results = ordered_map(work, items(), 2)
    if fail:
        with pytest.raises(KeyError):
            end(results)
    else:
        assert next(results) == 0
        assert endless.wait(10)
        end(results)
    return seen


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 40))
def test_tables_of_the_same_bytes(first: bytes, second: bytes, cut: int) -> None:
    """However they are cut, and where they differ in a single byte."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "CHUNK", 16)
        table = PieceTable([Literal(first[:cut]), Literal(first[cut:])])
        assert have_same_bytes(table, PieceTable([Literal(first)]))
        assert have_same_bytes(table, PieceTable([Literal(second)])) == (first == second)
        if first:
            changed = bytes([*first[:-1], first[-1] ^ 1])
            assert not have_same_bytes(table, PieceTable([Literal(changed)]))
