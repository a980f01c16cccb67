"""Small images made by pure Python, with the things that tests want to vary."""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from cosremaster.demo.image import (
    DemoEntry,
    build_archive,
    build_iso,
    debirf_files,
    directory,
    initramfs,
    regular,
    root_items,
)
from cosremaster.io.source import open_source
from cosremaster.iso.model import IsoImage
from cosremaster.iso.read import read_image

CGZ = "debirf-live-demo.cgz"


def write_small(folder: Path, cgz: bytes | None = None, extra: dict[str, bytes] | None = None) -> Path:
    """The demo's image, with another ``.cgz`` or more files where given."""
    target = folder / "in.iso"
    target.write_bytes(build_iso({**debirf_files(cgz), **(extra or {})}))
    return target


def without_layer(files: dict[str, bytes]) -> bytes:
    """An ISO with ``files`` and boot records, but no initramfs."""
    return build_iso({"vmlinuz": b"MZ" + bytes(5000), **files})


def read_volume(path: Path) -> IsoImage:
    """The ISO 9660 volume in the file ``path``, as it is read; its data cannot be read any more."""
    with open_source(path) as source:
        return read_image(source)


def packed_root(items: Iterable[DemoEntry] | None = None) -> bytes:
    """A root filesystem as a single archive under gzip."""
    return gzip.compress(build_archive(root_items() if items is None else items), 6, mtime=0)


def root_without_devices() -> list[DemoEntry]:
    """A root filesystem that unpackers make without being root."""
    return [item for item in root_items() if item.mode & 0o170000 not in (0o020000, 0o060000)]


def write_overlay(folder: Path) -> Path:
    """A folder with one script and one configuration file."""
    overlay = folder / "overlay"
    (overlay / "etc").mkdir(parents=True)
    (overlay / "etc/motd").write_text("welcome\n")
    script = overlay / "site.sh"
    script.write_text("#!/bin/sh\necho site\n")
    script.chmod(0o755)
    return overlay


def stored_lzop(plain: bytes, size: int = 1 << 18) -> bytes:
    """``plain`` as lzop would write what does not shrink: a header, stored blocks, the end."""
    head = struct.pack(">HHHBBIIIIB", 0x1040, 0x20A0, 0x0940, 1, 5, 1, 0, 0, 0, 0)
    out = b"\x89LZO\x00\r\n\x1a\n" + head + struct.pack(">I", zlib.adler32(head))
    for start in range(0, len(plain), size):
        block = plain[start : start + size]
        out += struct.pack(">III", len(block), len(block), zlib.adler32(block)) + block
    return out + bytes(4)


def broken_inside(offset_from_end: int = 400) -> bytes:
    """A ``.cgz`` that is sound itself around an xz layer with one flipped bit in its data."""
    packed = bytearray(lzma.compress(build_archive(root_items())))
    packed[len(packed) - offset_from_end] ^= 0x10
    return gzip.compress(build_archive([directory(b"bin"), regular(b"rootfs.cxz", bytes(packed))]), mtime=0)


__all__ = [
    "CGZ", "DemoEntry", "broken_inside", "initramfs", "packed_root", "root_without_devices", "stored_lzop",
    "without_layer", "write_overlay", "write_small",
]  # fmt: skip
