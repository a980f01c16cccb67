"""``cosremaster.remaster()`` on small images: layers of every shape, its typed result, warnings, removal, memory."""

from __future__ import annotations

import gzip
import lzma
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cosremaster
from cosremaster.boot_memory import estimate
from cosremaster.demo.image import build_archive, directory, initramfs, outer_items, regular, root_items
from cosremaster.errors import LayerError, OverlayError, Place, SizeError
from cosremaster.io.streams import ByteReader
from cosremaster.layers.cpio.newc import NewcEntry, read_entries
from cosremaster.remastering import context
from tests.fixtures import tools
from tests.support.listener import Listener
from tests.support.small import CGZ, DemoEntry, packed_root, write_overlay, write_small


def files_of(iso: Path) -> dict[str, bytes]:
    """The ISO's files as xorriso reads them."""
    tools.require("xorriso")
    folder = iso.parent / f"{iso.stem}-files"
    tools.run(["xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/", folder])
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def member(plain: bytes, name: str) -> bytes:
    """A member of a cpio archive as GNU cpio reads it."""
    tools.require("cpio")
    return tools.run(["cpio", "-i", "--quiet", "--to-stdout", name], stdin=plain)


def names_of(plain: bytes) -> list[bytes]:
    """The names in a cpio archive, in order."""
    return [entry.name for entry in _entries(plain)][:-1]


def _entries(plain: bytes) -> Iterator[NewcEntry]:
    return read_entries(ByteReader([plain], Place()))


DOTTED = tuple(
    DemoEntry(b"./" + item.path, item.mode, item.data, nlink=item.nlink, ino=item.ino) for item in root_items()
)

SHAPES = {
    "rootfs.cxz": (initramfs(), f"{CGZ}::rootfs.cxz"),
    "roots.cxz": (initramfs(b"roots.cxz"), f"{CGZ}::roots.cxz"),
    "rootfs.cgz": (initramfs(b"rootfs.cgz"), f"{CGZ}::rootfs.cgz"),
    "any name": (initramfs(b"payload"), f"{CGZ}::payload"),
    "names with ./": (initramfs(items=DOTTED), f"{CGZ}::rootfs.cxz"),
    "not nested": (packed_root(), CGZ),
    "not nested, xz": (lzma.compress(build_archive(root_items()), check=lzma.CHECK_CRC32), CGZ),
    "not compressed": (build_archive(root_items()), CGZ),
    "nested in an uncompressed archive": (
        build_archive(outer_items(b"rootfs.cxz", lzma.compress(build_archive(root_items())))),
        f"{CGZ}::rootfs.cxz",
    ),
    "nested uncompressed": (
        gzip.compress(build_archive(outer_items(b"rootfs", build_archive(root_items())))),
        f"{CGZ}::rootfs",
    ),
    "an initrd inside the system": (
        packed_root([*root_items(), directory(b"boot"), regular(b"boot/initrd.img", packed_root([directory(b"bin")]))]),
        CGZ,
    ),
}


def unpacked(cgz: bytes, address: str) -> bytes:
    """The plain archive at ``address``, by the real tools."""
    for name in address.split("::")[1:]:
        cgz = member(_plain(cgz), name)
    return _plain(cgz)


def _plain(data: bytes) -> bytes:
    for magic, tool in ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ", "xz")):
        if data.startswith(magic):
            return tools.run([tool, "-dc"], stdin=data)
    return data


@pytest.mark.parametrize("shape", SHAPES)
def test_layers_are_found_by_content(tmp_path: Path, shape: str) -> None:
    cgz, address = SHAPES[shape]
    source, overlay, target = write_small(tmp_path, cgz), write_overlay(tmp_path), tmp_path / "out.iso"
    result = cosremaster.remaster(source, target, add=[overlay])
    assert result.layer == address
    assert (result.added, result.replaced, result.unchanged) == ((b"etc/motd", b"site.sh"), (), ())
    old, new = (files_of(iso) for iso in (source, target))
    assert {name: data for name, data in old.items() if name != CGZ} == {n: d for n, d in new.items() if n != CGZ}
    plain = unpacked(new[CGZ], address)
    prefix = b"./" if shape == "names with ./" else b""
    assert names_of(plain) == [*names_of(unpacked(cgz, address)), prefix + b"etc/motd", prefix + b"site.sh"]
    assert member(plain, "*site.sh" if prefix else "site.sh") == b"#!/bin/sh\necho site\n"


@pytest.mark.parametrize("check", [lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256])
def test_xz_keeps_its_check(tmp_path: Path, check: int) -> None:
    packed = lzma.compress(build_archive(root_items()), check=check)
    source = write_small(tmp_path, gzip.compress(build_archive(outer_items(b"rootfs.cxz", packed))))
    cosremaster.remaster(source, tmp_path / "out.iso", add=[write_overlay(tmp_path)])
    new = member(_plain(files_of(tmp_path / "out.iso")[CGZ]), "rootfs.cxz")
    assert new[:8] == packed[:8]
    (tmp_path / "new.xz").write_bytes(new)
    tools.run(["xz", "-t", tmp_path / "new.xz"])


def test_the_packed_layer_is_stored_in_gzip(tmp_path: Path) -> None:
    noise = regular(b"noise", os.urandom(400_000))
    source = write_small(tmp_path, initramfs(items=[*root_items(), noise]))
    cosremaster.remaster(source, tmp_path / "out.iso", add=[write_overlay(tmp_path)])
    cgz = files_of(tmp_path / "out.iso")[CGZ]
    packed = member(_plain(cgz), "rootfs.cxz")
    stored = [at for at in range(0, len(packed) - 100, 1000) if packed[at : at + 100] in cgz]
    assert len(stored) > 0.95 * len(packed) / 1000  # all but the ends and what crosses a block's head
    assert len(cgz) < len(packed) + 5 * (len(packed) // 65_535 + 1) + 2000


def test_chosen_layer(tmp_path: Path) -> None:
    source = write_small(tmp_path)
    overlay = write_overlay(tmp_path)
    result = cosremaster.remaster(source, tmp_path / "out.iso", add=[overlay], layer=f"/{CGZ}")
    assert result.layer == CGZ
    assert b"site.sh" in names_of(_plain(files_of(tmp_path / "out.iso")[CGZ]))
    with pytest.raises(LayerError, match="has no layer"):
        cosremaster.remaster(source, tmp_path / "no.iso", add=[overlay], layer=f"{CGZ}::rootfs.cxz::x")
    assert not (tmp_path / "no.iso").exists()


def test_remove(tmp_path: Path) -> None:
    source = write_small(tmp_path)
    result = cosremaster.remaster(source, tmp_path / "out.iso", remove=["/bin/zcat", b"usr/share", "etc/hostname"])
    assert result.removed == (b"etc/hostname", b"usr/bin/zcat", b"usr/share")
    plain = unpacked(files_of(tmp_path / "out.iso")[CGZ], f"{CGZ}::rootfs.cxz")
    left = names_of(plain)
    assert not {b"usr/bin/zcat", b"usr/share", b"usr/share/words", b"etc/hostname"} & set(left)
    assert member(plain, "usr/bin/gzip") == b"\x7fELF gzip " * 400  # zcat carried the group's data
    with pytest.raises(OverlayError, match="cannot be removed: it is not there"):
        cosremaster.remaster(source, tmp_path / "no.iso", remove=["nothing"])


def test_source_date_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    os.utime(overlay / "site.sh", (900_000_000, 900_000_000))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    cosremaster.remaster(source, tmp_path / "out.iso", add=[overlay])
    plain = unpacked(files_of(tmp_path / "out.iso")[CGZ], f"{CGZ}::rootfs.cxz")
    times = {entry.name: entry.header.mtime for entry in _entries(plain)}
    assert times[b"etc/motd"] == 1_000_000_000
    assert times[b"site.sh"] == 900_000_000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(cosremaster.UsageError, match="SOURCE_DATE_EPOCH"):
        cosremaster.remaster(source, tmp_path / "no.iso", add=[overlay])


def test_progress_counts_every_byte_and_warnings_are_in_the_result(tmp_path: Path) -> None:
    source, overlay = (
        write_small(tmp_path, extra={"md5sum.txt": b"0" * 32 + b"  " + CGZ.encode()}),
        write_overlay(tmp_path),
    )
    (overlay / "site.sh").chmod(0o644)
    listener = Listener()
    result = cosremaster.remaster(source, tmp_path / "out.iso", add=[overlay], progress=listener)
    packed = [f"index {CGZ}", "pack rootfs.cxz", f"pack {CGZ}"]
    assert list(listener.steps) == [*packed, f"sum {CGZ}", "write", "prove"]
    for title, (total, done) in listener.steps.items():
        assert title == "prove" or total == done > 0, title
    assert tuple(listener.warnings) == result.warnings
    assert result.warnings == (
        "site.sh begins with #! but is not executable",
        f"md5sum.txt: its sums of {CGZ} were wrong before, and stay so",
    )
    assert (result.input_size, result.output_size) == (source.stat().st_size, (tmp_path / "out.iso").stat().st_size)
    assert (result.layer_file, result.layer_file_size) == (CGZ, len(files_of(tmp_path / "out.iso")[CGZ]))
    assert not result.identical


def test_warns_at_grubs_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "LARGEST_LOADED", 5000)
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    result = cosremaster.remaster(source, tmp_path / "out.iso", add=[overlay])
    assert f"{CGZ} is " in result.warnings[0]
    assert "GRUB loads it whole below 2 GiB" in result.warnings[0]
    assert "--add-iso" in result.warnings[0]


def test_refuses_a_layer_that_no_iso_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "MAX_EXTENT", 20_000)
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    (overlay / "noise").write_bytes(os.urandom(30_000))
    with pytest.raises(SizeError, match="more than one file of an ISO"):
        cosremaster.remaster(source, tmp_path / "out.iso", add=[overlay])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.iso", "overlay"]


MEASURE = """
import re, sys
from cosremaster.cli import main
code = main(sys.argv[1:])
print(code, re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""  # getrusage would count the memory of the test that started the process


@pytest.mark.parametrize("megabytes", [8, 400])
def test_memory_is_flat(tmp_path: Path, megabytes: int) -> None:
    """128 MiB, an encoder of 94 MiB for the one thread, its block of 24 MiB and the next: 270 MiB whatever the size."""
    line = b"a line that packs well, so that the test is quick\n" * 20_971
    source = write_small(tmp_path, initramfs(items=[*root_items(), regular(b"big", line * megabytes)]))
    overlay = write_overlay(tmp_path)
    words = f"{source} {tmp_path / 'out.iso'} --threads 1 --quiet --add {overlay}".split()
    done = subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, check=True)
    code, kibibytes = done.stdout.split()
    assert code == "0"
    assert int(kibibytes) < (128 + 94 + 2 * 24) * 1024
