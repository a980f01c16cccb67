"""Sharing blocks: where a copy is cut, and what happens where a file system shares none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.errors import OutputError
from cosremaster.io import clone
from cosremaster.io import source as io_source
from cosremaster.io.source import copy_bytes, open_source
from tests.support.examples import examples

BLOCK = 4096
DATA = os.urandom(40 * BLOCK + 77)


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.sampled_from([512, 4096, 65536]))
def test_a_copy_is_cut_into_edges_and_whole_blocks(offset: int, length: int, position: int, block: int) -> None:
    parts = list(clone.cut_at_blocks(offset, length, position, block))
    at = offset
    for start, count, _ in parts:
        assert start == at and count > 0
        at += count
    assert at == offset + length, "every byte, in order"
    shared = [(start, count) for start, count, is_shareable in parts if is_shareable]
    assert len(shared) <= 1 and len(parts) <= 3
    first = -(-offset // block) * block
    whole = (offset + length) // block * block - first
    if (offset - position) % block or whole < clone.MIN_SHARED:
        assert not shared and len(parts) <= 1
    else:
        assert shared == [(first, whole)], "as many blocks as there are"


def _copied(tmp_path: Path, start: int, position: int, observed: list[bytes] | None = None) -> bytes:
    """What is copied of a file's bytes from ``start`` on behind ``position`` other bytes."""
    (tmp_path / "in").write_bytes(DATA)
    observe = None if observed is None else (lambda view: observed.append(bytes(view)))
    with open_source(tmp_path / "in") as source, (tmp_path / "out").open("wb", buffering=0) as file:
        file.write(b"x" * position)
        counts = copy_bytes(source, file.fileno(), start, len(DATA) - start, lambda error: OutputError("no"), observe)
        assert sum(counts) == len(DATA) - start
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == position + len(DATA) - start
    return (tmp_path / "out").read_bytes()[position:]


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.EIO])
def test_a_file_system_that_shares_nothing_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    asked: list[object] = []

    def refuse(*arguments: object) -> None:
        asked.append(arguments)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(io_source, "may_share_blocks", lambda device: True)
    monkeypatch.setattr("fcntl.ioctl", refuse)
    assert _copied(tmp_path, 100, 100) == DATA[100:]
    assert len(asked) == 1, "it was asked once, for the middle"


@pytest.mark.parametrize("position", [100, 100 + BLOCK, 100 + 7 * BLOCK])
def test_only_whole_blocks_are_shared_and_all_bytes_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, position: int
) -> None:
    shared: list[tuple[int, int, int]] = []

    def share(source_fd: int, fd: int, offset: int, length: int, at: int) -> bool:
        shared.append((offset, length, at))
        os.pwrite(fd, os.pread(source_fd, length, offset), at)
        return True

    monkeypatch.setattr(io_source, "may_share_blocks", lambda device: True)
    monkeypatch.setattr(io_source, "block_size_of", lambda fd: BLOCK)
    monkeypatch.setattr(io_source, "share_range", share)
    observed: list[bytes] = []
    assert _copied(tmp_path, 100, position, observed) == DATA[100:] == b"".join(observed)
    assert shared == [(BLOCK, 39 * BLOCK, position - 100 + BLOCK)]
    assert _copied(tmp_path, 100, position + 1) == DATA[100:] and len(shared) == 1, "no block begins where another does"


def test_the_kernel_copies_many_bytes_and_no_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For few that begin inside a block, btrfs first brings that block to the disk."""
    lengths: list[int] = []
    real = os.copy_file_range

    def copy(source_fd: int, fd: int, count: int, offset: int) -> int:
        lengths.append(count)
        return real(source_fd, fd, count, offset)

    monkeypatch.setattr(os, "copy_file_range", copy)
    assert _copied(tmp_path, 100, 102) == DATA[100:] and lengths == [len(DATA) - 100]
    start = len(DATA) - (1 << 16)
    assert _copied(tmp_path, start, 102) == DATA[start:] and len(lengths) == 1
