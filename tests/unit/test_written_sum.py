"""The digest of a file that is taken while it is written: of what the file holds, with its holes."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile
from cosremaster.cli import main
from cosremaster.errors import CorruptError, ImageError, ProofError
from cosremaster.io.written_sum import WrittenSum
from tests.support.range_server import serve_file
from tests.support.small import write_small


def ignore_progress(count: int) -> None:
    """Takes what progress is told."""


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_digest_of_what_was_written_with_holes(tmp_path: Path, seed: int) -> None:
    """Parts, holes between them and one at the end, which is in the file only when it has its full length."""
    numbers, path = random.Random(seed), tmp_path / "file"
    file_sum, summed = WrittenSum(path), 0

    def advance(count: int) -> None:
        """Adds up what was told."""
        nonlocal summed
        summed += count

    with path.open("wb", buffering=0) as file:
        for _ in range(numbers.randrange(1, 12)):
            count = numbers.choice((1, 4096, 70_000, 1 << 20, 3_000_001))
            if numbers.random() < 0.5:
                file.write(numbers.randbytes(count))
            else:
                file.seek(count, os.SEEK_CUR)
            file_sum.add(count)
        file.truncate(file.tell())
    file_sum.finish()
    assert file_sum.result(advance) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert summed == path.stat().st_size


def test_an_empty_file_has_the_digest_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file_sum = WrittenSum(tmp_path / "file")
    file_sum.finish()
    assert file_sum.result(ignore_progress) == hashlib.sha256().hexdigest()


def test_a_file_that_is_shorter_than_what_was_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10)
    file_sum = WrittenSum(tmp_path / "file")
    file_sum.add(11)
    file_sum.finish()
    with pytest.raises(ProofError, match="is shorter than what was written"):
        file_sum.result(ignore_progress)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    file_sum = WrittenSum(tmp_path / "nowhere")
    file_sum.finish()
    with pytest.raises(ImageError, match="cannot be opened"):
        file_sum.result(ignore_progress)


def test_a_sum_that_nobody_wants_ends_its_thread(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = threading.active_count()
    file_sum = WrittenSum(tmp_path / "file")
    file_sum.add(1)
    file_sum.stop()
    for _ in range(100):
        if threading.active_count() == before:
            break
        threading.Event().wait(0.05)
    assert threading.active_count() == before


def test_what_is_copied_wrongly_is_noticed_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest is of the bytes in the file: a kernel that copies others than it was asked for is seen."""
    base = write_small(tmp_path, extra={"pad": random.Random(2).randbytes(400_000)})
    delta, target = tmp_path / "d.vcdiff", tmp_path / "out"
    cosremaster.remaster(base, delta, add=[InlineFile("/etc/site", b"7")], delta=True, sync=False)
    right = os.copy_file_range

    def copy_others(source: int, target: int, count: int, offset: int) -> int:
        """Copies what stands a byte further."""
        return right(source, target, count, offset - 1 if offset else 1)

    monkeypatch.setattr(os, "copy_file_range", copy_others)
    with pytest.raises(CorruptError, match="makes a file whose sha256 is"):
        cosremaster.apply(base, delta, target, sync=False)
    assert not target.exists()
    monkeypatch.undo()
    cosremaster.apply(base, delta, target, sync=False)


def test_a_base_by_url_comes_once(tmp_path: Path) -> None:
    """The command takes a URL as the function does; what is summed and what is copied is fetched once."""
    base = write_small(tmp_path, extra={"pad": random.Random(2).randbytes(4_000_000)})
    delta, target = tmp_path / "d.vcdiff", tmp_path / "out"
    made = cosremaster.remaster(base, delta, add=[InlineFile("/etc/site", b"7")], delta=True, sync=False)
    assert made.delta is not None
    data = base.read_bytes()
    with serve_file(data) as server:
        assert main(["apply", server.url, str(delta), str(target), "--quiet", "--no-sync"]) == 0
        assert len(data) <= server.sent < len(data) + (1 << 16)
    assert hashlib.sha256(target.read_bytes()).hexdigest() == made.delta.sha256
    with serve_file(data[::-1]) as server:
        assert main(["apply", server.url, str(delta), str(tmp_path / "other"), "--quiet", "--no-sync"]) == 3
    assert not (tmp_path / "other").exists()
