"""Holes of files may be larger than any disk: nobody reads them, and where files are written they stay holes."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster.browse.extract import extract_nodes
from cosremaster.browse.tar import build_tar
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros, list_unlike_spans
from cosremaster.tree.content import PieceContent, has_large_holes, is_same_content
from cosremaster.tree.nodes import Node, NodeKind

TIB = 1 << 40


class BytesSource:
    """A source of bytes in memory."""

    name = "bytes"

    def __init__(self, data: bytes) -> None:
        self._data = data

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield the bytes."""
        yield self._data[offset : offset + length]


SOURCES = [BytesSource(bytes(range(16)) * 8), BytesSource(bytes(range(16, 32)) * 8)]

_PIECES = st.one_of(
    st.integers(1, 9).map(Zeros),
    st.sampled_from((b"a", b"ab", bytes(3), b"b" * 7)).map(Literal),
    st.tuples(st.sampled_from(SOURCES), st.integers(0, 20), st.integers(1, 9)).map(lambda values: Range(*values)),
)


def _content(*pieces: Piece) -> PieceContent:
    return PieceContent(pieces)


@given(st.lists(_PIECES, max_size=8), st.lists(_PIECES, max_size=8))
def test_bytes_beside_unlike_spans_are_the_same(pieces: list[Piece], others: list[Piece]) -> None:
    length = min(PieceTable(pieces).length, PieceTable(others).length)
    first, second = PieceTable(pieces).cut(0, length), PieceTable(others).cut(0, length)
    spans, (data, other) = list(list_unlike_spans(first, second)), (first.read(), second.read())
    assert all(0 <= start < end <= length for start, end in spans)
    assert all(end < start for (_, end), (start, _) in pairwise(spans))
    inside = {at for start, end in spans for at in range(start, end)}
    assert all(data[at] == other[at] for at in range(length) if at not in inside)
    assert not list(list_unlike_spans(first, first))
    assert is_same_content(_content(*first.pieces), _content(*second.pieces)) == (data == other)


def test_files_are_compared_without_their_holes() -> None:
    head, tail = Range(SOURCES[0], 0, 16), Literal(b"end")
    content = _content(head, Zeros(TIB), tail)
    assert has_large_holes(content) and not has_large_holes(_content(Zeros(1 << 20), Literal(bytes(9))))
    assert is_same_content(content, _content(Literal(bytes(range(16))), Zeros(TIB - 5), Zeros(5), tail))
    assert not is_same_content(content, _content(head, Zeros(TIB), Literal(b"enD")))
    assert not is_same_content(content, _content(head, Zeros(TIB - 1), Literal(b"x"), tail))


def test_an_extracted_file_keeps_its_holes(tmp_path: Path) -> None:
    holes = (
        Zeros(1 << 34),
        Literal(b"middle"),
        Zeros(5000),
        Literal(bytes(7)),
        Zeros(100),
        Literal(b"x"),
        Zeros(1 << 34),
    )
    nodes = [Node(path=b"log", kind=NodeKind.FILE, mode=0o644, content=_content(*holes))]
    seen: list[int] = []
    extract_nodes(nodes, tmp_path / "out", seen.append, notes=False)
    status = (tmp_path / "out" / "log").stat()
    assert status.st_size == sum(seen) == sum(piece.length for piece in holes)
    with (tmp_path / "out" / "log").open("rb") as file:
        file.seek((1 << 34) - 3)
        assert file.read(5120) == bytes(3) + b"middle" + bytes(5000 + 7 + 100) + b"x" + bytes(3)
        if hasattr(os, "SEEK_DATA"):
            assert os.lseek(file.fileno(), 0, os.SEEK_DATA) in range(1 << 33, (1 << 34) + 1)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_new_tar_archive_leaves_large_holes_out(sparse: bool) -> None:
    contents = {"large": _content(Zeros(TIB), Literal(b"end")), "small": _content(Zeros(1 << 16), Literal(b"end"))}
    nodes = [
        Node(path=name.encode(), kind=NodeKind.FILE, mode=0o644, content=content) for name, content in contents.items()
    ]
    table = build_tar(nodes, sparse=sparse).table()
    assert table.length < 1 << 20
    data = table.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {member.name: member for member in archive}
        assert {name: member.size for name, member in members.items()} == {"large": TIB + 3, "small": (1 << 16) + 3}
        assert [member.name for member in members.values() if member.sparse] == [
            "large",
            *(["small"] if sparse else []),
        ]
        small, large = (archive.extractfile(members[name]) for name in ("small", "large"))
        assert small is not None and large is not None
        assert small.read() == bytes(1 << 16) + b"end"
        large.seek(TIB - 2)
        assert large.read() == b"\0\0end"
