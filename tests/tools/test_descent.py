"""`tree` and `find` through all layers: each packed byte is read once, whatever is nested, also by URL."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import tarfile
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.demo.image import build_archive, build_iso, directory, initramfs, regular
from cosremaster.io.files import FileSource
from cosremaster.layers.member_files import MemberFiles
from tests.fixtures.tools import require, run
from tests.support.range_server import serve_file

_NOISE = bytes((index * index * 31 + index // 7) % 251 for index in range(300_000))
"""Bytes that hardly compress, so that a file that is read twice shows."""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A container of each kind, by name, and bytes that are none."""
    require("mksquashfs", "mformat", "mcopy")
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "tree" / "etc").mkdir(parents=True)
    (folder / "tree" / "etc" / "name").write_text("squashfs\n")
    run(["mksquashfs", folder / "tree", folder / "app.squashfs", "-quiet", "-no-progress"])
    fat = folder / "efi.img"
    run(["mformat", "-i", fat, "-C", "-f", "1440", "::"])
    run(["mcopy", "-i", fat, folder / "tree" / "etc" / "name", "::/NAME.TXT"])
    parts = [build_archive([regular(b"early", b"microcode")]), gzip.compress(build_archive([regular(b"main", b"m")]))]
    packed_tar = io.BytesIO()
    with tarfile.open(fileobj=packed_tar, mode="w:xz") as archive:
        for name, data in (("inner.cgz", initramfs()), ("plain", b"p")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return {
        "app.squashfs": (folder / "app.squashfs").read_bytes(), "app.squashfs.gz": gzip.compress(
            (folder / "app.squashfs").read_bytes(), mtime=0
        ), "data.tar.xz": packed_tar.getvalue(), "efi.img": fat.read_bytes(),
        "initrd.img": b"".join(parts), "nested.cgz": initramfs(), "noise": _NOISE,
    }  # fmt: skip


def _as_cpio(kinds: dict[str, bytes]) -> bytes:
    items = [directory(b"boot"), *(regular(b"boot/" + name.encode(), data) for name, data in kinds.items())]
    return build_archive(items)


def _as_tar(kinds: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in kinds.items():
            member = tarfile.TarInfo(f"boot/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture(params=["cpio", "cpio.gz", "cpio.xz", "tar", "tar.gz", "cpio.xz in cpio.gz"])
def packed(request: pytest.FixtureRequest, kinds: dict[str, bytes]) -> bytes:
    """All kinds in an archive."""
    inner = (_as_tar if "tar" in request.param else _as_cpio)(kinds)
    if request.param == "cpio.xz in cpio.gz":
        outer = build_archive(
            [regular(b"rootfs.cxz", lzma.compress(inner, check=lzma.CHECK_CRC32)), regular(b"z", b"")]
        )
        return gzip.compress(outer, mtime=0)
    if request.param.endswith("gz"):
        return gzip.compress(inner, mtime=0)
    return lzma.compress(inner, check=lzma.CHECK_CRC32) if request.param.endswith("xz") else inner


class Counter:
    """Counts the bytes that are read of the file of an image."""

    def __init__(self) -> None:
        self.count = 0


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter, read = Counter(), FileSource.read

    def counting(self: FileSource, offset: int, length: int) -> bytes:
        data = read(self, offset, length)
        counter.count += len(data)
        return data

    monkeypatch.setattr(FileSource, "read", counting)  # which chunks() calls too
    return counter


def _walk(path: Path) -> list[tuple[object, ...]]:
    with cosremaster.open(path) as image:
        return [(entry.address, entry.depth, entry.size, entry.type) for entry in image.walk()]


def test_nothing_is_read_twice(
    packed: bytes, tmp_path: Path, counter: Counter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.img"
    path.write_bytes(packed)
    assert main(["tree", str(path)]) == 0
    assert counter.count <= len(packed) * 1.02 + (1 << 17)  # the first bytes are looked at before
    listed = capsys.readouterr().out
    for name in ("NAME.TXT", "main", "early", "hostname", "etc"):
        assert f"  {name}" in listed
    entries = _walk(path)
    assert len(entries) == listed.count("\n") - 1
    monkeypatch.setattr(MemberFiles, "find", lambda *_: None)
    assert entries == _walk(path)  # the same as if each container were read where it stands


def test_the_bytes_of_an_iso_pass_once(kinds: dict[str, bytes], tmp_path: Path, counter: Counter) -> None:
    path = tmp_path / "in.iso"
    path.write_bytes(build_iso({"live.cgz": gzip.compress(_as_cpio(kinds), mtime=0), "vmlinuz": b"MZ" + bytes(5000)}))
    assert main(["find", str(path), "**/NAME.TXT"]) == 0
    assert counter.count <= os.path.getsize(path) * 1.02 + (1 << 17)
    with serve_file(path.read_bytes()) as served:
        assert main(["tree", served.url]) == 0
        assert served.sent <= os.path.getsize(path)
        assert len(served.log) < 16


def test_a_descent_without_room_reads_again(
    kinds: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.cgz"
    path.write_bytes(gzip.compress(_as_cpio(kinds), mtime=0))
    entries = _walk(path)
    monkeypatch.setattr("cosremaster.layers.member_files.PlainKeeper.take", lambda *_: False)
    assert entries == _walk(path)
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert entries == _walk(path)


def test_one_of_several_archives_is_read_once(kinds: dict[str, bytes], tmp_path: Path, counter: Counter) -> None:
    path = tmp_path / "in.img"
    path.write_bytes(build_archive([regular(b"early", b"")]) + gzip.compress(_as_cpio(kinds), mtime=0))
    assert main(["tree", f"{path}::#2"]) == 0
    assert counter.count <= os.path.getsize(path) * 1.02 + (1 << 17)
