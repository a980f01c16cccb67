"""An address into an archive in an archive: the outer one is read once, and what is not entered is not decoded."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

import cosremaster
from cosremaster.browse import container
from cosremaster.demo.image import build_archive, regular, root_items
from cosremaster.errors import LayerError
from cosremaster.layers.model import index_file
from cosremaster.layers.scan import MemberScanner
from tests.support.small import CGZ, write_small

INNER = f"{CGZ}::rootfs.cxz"


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The archives that are read from front to back, in order."""
    paths: list[bytes] = []

    def count(path: bytes, *arguments: object) -> object:
        paths.append(path)
        index: Callable[..., object] = index_file
        return index(path, *arguments)

    monkeypatch.setattr(container, "index_file", count)
    return paths


def test_the_outer_archive_is_read_once(tmp_path: Path, readings: list[bytes]) -> None:
    path = write_small(tmp_path)
    with cosremaster.open(path) as image:
        assert b"hostname" in image.names(f"{INNER}::etc")
        assert image.read(f"{INNER}::etc/hostname") == b"debirf\n"
        assert image.ls(f"{INNER}::etc")[0].address == f"{path}::{INNER}::etc/hostname"
    assert readings == [CGZ.encode()]


def test_an_image_that_is_the_archive_is_read_once(tmp_path: Path, readings: list[bytes]) -> None:
    with cosremaster.open(write_small(tmp_path)) as image:
        (tmp_path / "in.cgz").write_bytes(image.read(CGZ))
    readings.clear()
    assert cosremaster.ls(f"{tmp_path / 'in.cgz'}::rootfs.cxz::etc")[0].name == b"hostname"
    assert len(readings) == 1


def test_what_is_not_entered_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_small(tmp_path)

    def refuse(*_: object) -> bytes:
        raise AssertionError("an archive is indexed that nobody enters")

    monkeypatch.setattr(MemberScanner, "_index", refuse)
    assert cosremaster.read(f"{path}::{INNER}")[:6] == b"\xfd7zXZ\0"
    assert b"init" in [entry.name for entry in cosremaster.ls(f"{path}::{CGZ}")]


def test_the_last_entry_of_a_name_counts(tmp_path: Path) -> None:
    packed = lzma.compress(build_archive(root_items()), check=lzma.CHECK_CRC64)
    first = [regular(b"rootfs.cxz", packed), regular(b"rootfs.cxz", b"plain\n")]
    path = write_small(tmp_path, cgz=gzip.compress(build_archive(first), mtime=0))
    assert cosremaster.read(f"{path}::{INNER}") == b"plain\n"
    with pytest.raises(LayerError, match="is no archive"):
        cosremaster.ls(f"{path}::{INNER}::etc")
