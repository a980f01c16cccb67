"""Plain bytes of a slow stream are read again from a temporary file, and decoded again where that has no room."""

import io
import random
import shutil
import tarfile
from collections import namedtuple
from pathlib import Path

import pytest

import cosremaster
from cosremaster.errors import OutputError
from cosremaster.io.spool import Spool
from cosremaster.layers import kept_plain
from cosremaster.layers.kept_plain import BLOCK, KeptPlain, PlainKeeper
from tests.support.decoders import note_xz_decoders

PLAIN = random.Random(5).randbytes(BLOCK // 2) * 7 + b"end"
PARTS = [PLAIN[at : at + 300_007] for at in range(0, len(PLAIN), 300_007)]


def _keep(keeper: PlainKeeper) -> KeptPlain:
    """All of PLAIN, kept."""
    kept = keeper.keep("xz")
    assert kept is not None
    assert list(kept.watch(PARTS)) == PARTS
    return kept


@pytest.mark.parametrize(
    ("offset", "length"), [(0, len(PLAIN)), (0, 0), (BLOCK - 1, 2), (2 * BLOCK, BLOCK), (len(PLAIN) - 3, 3)]
)
def test_any_range_is_read_again(tmp_path: Path, offset: int, length: int) -> None:
    with PlainKeeper(tmp_path) as keeper:
        kept = _keep(keeper)
        assert kept.is_complete
        assert b"".join(kept.chunks(offset, length)) == PLAIN[offset : offset + length]
        assert not list(tmp_path.iterdir())
    assert not kept.is_complete  # who reads on decodes
    assert keeper.keep("xz") is None


def test_a_stream_that_was_not_read_to_its_end_is_not_complete(tmp_path: Path) -> None:
    with PlainKeeper(tmp_path) as keeper:
        kept = keeper.keep("bzip2")
        assert kept is not None
        chunks = kept.watch(PARTS)
        for _ in PARTS[1:]:
            next(chunks)
        assert not kept.is_complete


def test_what_decodes_fast_is_not_kept(tmp_path: Path) -> None:
    with PlainKeeper(tmp_path) as keeper:
        assert [keeper.keep(codec) for codec in ("none", "gzip", "zstd", "lz4")] == [None] * 4


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1, 1, kept_plain.SHARE * BLOCK))
    with PlainKeeper(tmp_path) as keeper:
        assert not _keep(keeper).is_complete


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OutputError("no space left on device")

    monkeypatch.setattr(Spool, "append", fail)
    with PlainKeeper(tmp_path) as keeper:
        assert not _keep(keeper).is_complete


def test_damage_of_the_temporary_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PlainKeeper(tmp_path) as keeper:
        kept = _keep(keeper)
        whole = Spool.chunks
        monkeypatch.setattr(
            Spool, "chunks", lambda *args: (chunk[:1000] + b"x" + chunk[1001:] for chunk in whole(*args))
        )
        with pytest.raises(OutputError, match="temporary data are damaged"):
            list(kept.chunks(0, 1))


def test_an_archive_under_another_codec_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "in.tar.xz", "w:xz", preset=0) as tar:
        info = tarfile.TarInfo("etc/noise")
        info.size = 6_000_000  # more than the end that stays in memory
        tar.addfile(info, io.BytesIO(random.Random(6).randbytes(info.size)))
    (tmp_path / "motd").write_text("site\n")
    add = [f"{tmp_path}/motd:/etc/"]
    with monkeypatch.context() as patch:
        patch.setattr(kept_plain, "SLOW_CODECS", frozenset())
        cosremaster.remaster(tmp_path / "in.tar.xz", tmp_path / "plain.tar.gz", add=add, remember=False)
    begun = note_xz_decoders(monkeypatch)
    cosremaster.remaster(tmp_path / "in.tar.xz", tmp_path / "out.tar.gz", add=add, remember=False)
    assert begun == ["decode"]
    assert (tmp_path / "out.tar.gz").read_bytes() == (tmp_path / "plain.tar.gz").read_bytes()
