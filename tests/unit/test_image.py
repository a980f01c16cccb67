"""The public class Image, beside the examples of docs/api.md (test_api_page)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import cosremaster
from cosremaster.browse import container
from cosremaster.errors import ImageError, LayerError
from cosremaster.io.streams import ByteReader
from cosremaster.layers.model import IndexedFile, index_file
from cosremaster.layers.scan import MemberScanner
from tests.support.small import CGZ, write_overlay, write_small

ROOT = f"{CGZ}::rootfs.cxz"


class AnyPath:
    """A path that is neither text nor a pathlib path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def test_paths_may_be_any_path_like(tmp_path: Path) -> None:
    source, overlay = AnyPath(write_small(tmp_path)), AnyPath(write_overlay(tmp_path))
    out, report = AnyPath(tmp_path / "out.iso"), AnyPath(tmp_path / "out.json")
    assert cosremaster.remaster(source, out, add=[overlay], report=report).added == (b"etc/motd", b"site.sh")
    assert cosremaster.verify(out, against=source, changed=[CGZ]).ok
    assert [difference.what for difference in cosremaster.diff(source, out)].count("added") == 2
    with cosremaster.open(out) as image:
        assert image.extract(f"{ROOT}::etc", AnyPath(tmp_path / "etc")).files >= 1
    assert (tmp_path / "etc/motd").read_text() == "welcome\n"


def test_archives_are_read_once_for_all_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inner archive is indexed by the reading of the outer one (test_descent), or by one of its own."""
    indexed: list[bytes] = []
    real, real_inner = index_file, MemberScanner._index

    def noted(path: bytes, *rest: object, **more: object) -> IndexedFile:
        indexed.append(path)
        return real(path, *rest, **more)  # type: ignore[arg-type]

    def noted_inner(self: MemberScanner, reader: ByteReader, size: int, name: bytes, *rest: Any) -> bytes:
        indexed.append(name)
        return real_inner(self, reader, size, name, *rest)

    monkeypatch.setattr(container, "index_file", noted)
    monkeypatch.setattr(MemberScanner, "_index", noted_inner)
    with cosremaster.open(write_small(tmp_path)) as image:
        for _ in range(2):
            assert image.read(f"{ROOT}::etc/hostname") == b"debirf\n"
            assert image.ls(f"{ROOT}::etc")[0].name == b"hostname"
            assert image.names(ROOT)
    assert indexed == [CGZ.encode(), b"rootfs.cxz"]


def test_an_image_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(b"text")
    with pytest.raises(ImageError):
        cosremaster.open(tmp_path / "none")


def test_a_directory_has_no_bytes(tmp_path: Path) -> None:
    with (
        cosremaster.open(write_small(tmp_path)) as image,
        pytest.raises(LayerError, match="directory, which has no bytes"),
    ):
        image.read(f"{ROOT}::etc")


def test_a_closed_image_reads_nothing_more(tmp_path: Path) -> None:
    image = cosremaster.open(write_small(tmp_path))
    info = image.info(deep=True)
    image.close()
    assert info.root_layer == ROOT
    assert info.values["image"]["kind"] == "iso9660" and info.lines
    image.close()


def test_a_plan_is_what_the_remaster_does(tmp_path: Path) -> None:
    request = cosremaster.Request(add=[write_overlay(tmp_path)])
    with cosremaster.open(write_small(tmp_path)) as image:
        plan = image.plan(request)
        result = image.remaster(tmp_path / "out.iso", request)
    for name in ("layer", "added", "packed", "sums", "memory", "output_size", "warnings", "identical"):
        assert getattr(plan, name) == getattr(result, name), name
