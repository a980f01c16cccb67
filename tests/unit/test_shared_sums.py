"""SHA-256 of files that begin alike: by hashlib's own sum of the whole file."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, Request
from cosremaster.errors import ImageError
from cosremaster.io import shared_sums
from cosremaster.io.files import FileSource
from cosremaster.io.parallel import CancelledError, StopFlag
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.io.shared_sums import MIN_SHARED, MOST_STATES, SharedSums
from tests.support.small import write_small

SIZE = 4 * MIN_SHARED + 1234


class _Counted(FileSource):
    """A file that counts the bytes that are read of it."""

    count = 0

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fills ``views``."""
        self.count += sum(map(len, views))
        super().read_into(offset, views)


@pytest.fixture
def base(tmp_path: Path) -> _Counted:
    path = tmp_path / "base"
    path.write_bytes(random.Random(7).randbytes(SIZE))
    return _Counted(path)


def _sum(sums: SharedSums, folder: Path, pieces: Sequence[Piece]) -> tuple[str, str]:
    """The digest that ``sums`` takes of a file of ``pieces``, and hashlib's."""
    table = PieceTable(pieces)
    path = folder / f"file-{threading.get_ident()}"
    path.write_bytes(table.read())
    with FileSource(path) as file:
        return sums.sum(table, file, StopFlag()), hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_table_has_the_sum_of_its_file(base: _Counted, tmp_path: Path) -> None:
    """Files of random pieces, of which many begin alike, on several threads."""
    sums, failed = SharedSums(base), list[object]()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(12):
            pieces: list[Piece] = [Literal(bytes([chance.randrange(2)]))]
            for _ in range(chance.randrange(4)):
                offset = chance.choice((0, 0, 5, MIN_SHARED))
                length = chance.choice((MIN_SHARED, MIN_SHARED, MIN_SHARED - 1, 2 * MIN_SHARED + 7))
                pieces += [Range(base, offset, length), Zeros(chance.choice((0, 3)))]
            if len(set(_sum(sums, tmp_path, pieces))) != 1:
                failed.append(pieces)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and sums._states


def test_what_files_begin_with_alike_is_read_once(base: _Counted, tmp_path: Path) -> None:
    sums, long = SharedSums(base), Range(base, 100, 2 * MIN_SHARED)
    tail = Range(base, 0, MIN_SHARED)
    assert len(set(_sum(sums, tmp_path, [Literal(b"head"), long, Literal(b"1"), tail]))) == 1
    base.count = 0
    assert len(set(_sum(sums, tmp_path, [Literal(b"head"), long, Literal(b"2"), tail]))) == 1
    assert base.count == tail.length, "behind other bytes the same range is summed again"
    base.count = 0
    assert len(set(_sum(sums, tmp_path, [Literal(b"Head"), long]))) == 1
    assert base.count == long.length, "nor is it known behind another beginning"


def test_few_states_are_kept(base: _Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_sums, "MIN_SHARED", 16)
    sums = SharedSums(base)
    for number in range(MOST_STATES + 20):
        _sum(sums, tmp_path, [Literal(b"%d" % number), Range(base, 0, 16)])
    assert len(sums._states) == MOST_STATES
    base.count = 0
    _sum(sums, tmp_path, [Literal(b"%d" % (MOST_STATES + 19)), Range(base, 0, 16)])
    assert not base.count, "the newest stay"


def test_a_base_on_another_machine_is_not_read_again(
    base: _Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Counted, "is_far", True)
    sums = SharedSums(base)
    table = PieceTable([Literal(b"head"), Range(base, 100, 2 * MIN_SHARED)])
    (tmp_path / "file").write_bytes(table.read())
    base.count = 0
    with FileSource(tmp_path / "file") as file:
        digits = sums.sum(table, file, StopFlag())
    assert digits == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest() and not base.count


def test_a_sum_that_nobody_wants_ends(base: _Counted) -> None:
    stop = StopFlag()
    stop.set()
    with pytest.raises(CancelledError):
        SharedSums(base).sum(PieceTable([Range(base, 0, SIZE)]), base, stop)


def test_a_remaster_tells_the_digest_of_its_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(add=[InlineFile("/etc/site", b"north" * 999)])
    monkeypatch.setattr(shared_sums, "MIN_SHARED", 512)
    with cosremaster.open(write_small(tmp_path)) as image:
        for name in ("one", "two"):  # the second takes states of the first over
            result = image.remaster(tmp_path / name, request, sha256=True)
            assert result.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert not image.remaster(tmp_path / "three", request).sha256

        def fail(*_: object) -> str:
            raise ImageError("cannot be read: Input/output error")

        monkeypatch.setattr(SharedSums, "sum", fail)
        with pytest.raises(ImageError):
            image.remaster(tmp_path / "four", request, sha256=True)
    assert not (tmp_path / "four").exists()
