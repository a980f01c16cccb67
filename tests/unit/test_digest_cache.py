"""Digests for lists of checksums: each file is read once, and all of them are a step of the progress."""

from __future__ import annotations

import hashlib

from cosremaster.checksums.lists import DigestCache
from cosremaster.io.pieces import Literal, PieceTable
from tests.support.listener import Listener


def test_all_files_are_a_step() -> None:
    """A list of thousands of files would be as many lines in a pipe."""
    tables = [PieceTable([Literal(bytes([number]) * (number + 1))]) for number in range(5)]
    listener = Listener()
    cache = DigestCache(listener)
    cache.read((b"f%d" % number, table, digest) for number, table in enumerate(tables) for digest in ("md5", "sha256"))
    assert listener.steps == {"sum 5 files": (15, 15)}
    assert cache.get(tables[3], "md5") == hashlib.md5(b"\3" * 4).hexdigest()
    cache.read([(b"again", tables[0], "md5"), (b"new", PieceTable([Literal(b"x")]), "md5")])
    assert listener.steps == {"sum 5 files": (15, 15), "sum new": (1, 1)}
    cache.read((b"both", PieceTable([Literal(text)]), "md5") for text in (b"old", b"newer"))
    assert listener.steps["sum both"] == (8, 8)
    cache.read([])
    assert len(listener.steps) == 3
