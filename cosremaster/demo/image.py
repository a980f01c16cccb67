"""A small image of the debirf shape, made by pure Python: for ``cosremaster demo`` and for tests.

It has every boot record of the real thing, with dummies for boot code; it does not boot. The same bytes come
out every time. Written through pycdlib, whose clock-made dates are then overwritten.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO

import pycdlib
from msgspec import Struct

from cosremaster.boot import pointers
from cosremaster.boot.mbr import Mbr, MbrPartition, encode_chs
from cosremaster.codecs.lzma_module import lzma
from cosremaster.layers.cpio import newc as cpio
from cosremaster.tree.nodes import NodeKind
from cosremaster.units import BLOCK, SECTOR, SECTORS_PER_BLOCK, Lba, Sector

TIME = 1_700_000_000
"""Every mtime in the image: 2023-11-14."""

_DATE = bytes((123, 11, 14, 22, 13, 20, 0))  # ECMA-119, 9.1.5
_LONG_DATE = b"2023111422132000\0"  # ECMA-119, 8.4.26.1
_GEOMETRY = (64, 32)


class DemoEntry(Struct, frozen=True):
    """One entry of an archive. ``mode`` with file type; names of one hard-linked file share ``ino``."""

    path: bytes
    mode: int
    data: bytes = b""
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    ino: int = 0
    rdev: tuple[int, int] = (0, 0)
    mtime: int = TIME
    dev: int = 0


def build_archive(items: Iterable[DemoEntry], magic: bytes = cpio.NEWC) -> bytes:
    """A cpio archive of ``items`` in their order, padded as GNU cpio does."""
    out = bytearray()
    for number, item in enumerate(items, 1):
        header = cpio.HeaderFields(
            ino=item.ino or 1000 + number, mode=item.mode, uid=item.uid, gid=item.gid, nlink=item.nlink,
            mtime=item.mtime, size=len(item.data), rdev=item.rdev, name_size=len(item.path) + 1,
            check=sum(item.data) & cpio.MAX_FIELD if magic == cpio.CRC else 0,
        ).encode(magic)  # fmt: skip
        if item.dev:
            header = cpio.Header(header.raw[:62] + b"%08X" % item.dev + header.raw[70:])
        out += cpio.encode_head(header, item.path) + item.data + bytes(cpio.padding_size(len(item.data)))
    out += cpio.encode_trailer(magic)
    return bytes(out + bytes(-len(out) % cpio.BLOCKING))


def directory(path: bytes, mode: int = 0o755) -> DemoEntry:
    """A directory owned by root."""
    return DemoEntry(path, NodeKind.DIRECTORY | mode, nlink=2)


def regular(path: bytes, data: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> DemoEntry:
    """A regular file."""
    return DemoEntry(path, NodeKind.FILE | mode, data, uid, gid)


def symlink(path: bytes, target: bytes) -> DemoEntry:
    """A symlink."""
    return DemoEntry(path, NodeKind.SYMLINK | 0o777, target)


def root_items() -> tuple[DemoEntry, ...]:
    """A usr-merged root filesystem with all that is easily lost: devices, setuid, owners, hard links, names."""
    return (
        symlink(b"bin", b"usr/bin"),
        directory(b"dev"),
        DemoEntry(b"dev/console", NodeKind.CHAR | 0o600, rdev=(5, 1)),
        directory(b"etc"),
        regular(b"etc/hostname", b"debirf\n"),
        symlink(b"etc/mtab", b"/proc/mounts"),
        regular(b"etc/os-release", b'PRETTY_NAME="debirf demo"\n'),
        directory(b"root", 0o700),
        symlink(b"sbin", b"usr/sbin"),
        directory(b"usr"),
        directory(b"usr/bin"),
        DemoEntry(b"usr/bin/gunzip", NodeKind.FILE | 0o755, nlink=3, ino=77),
        DemoEntry(b"usr/bin/gzip", NodeKind.FILE | 0o755, nlink=3, ino=77),
        regular(b"usr/bin/passwd", b"\x7fELF passwd" * 50, 0o4755),
        DemoEntry(b"usr/bin/zcat", NodeKind.FILE | 0o755, b"\x7fELF gzip " * 400, nlink=3, ino=77),
        directory(b"usr/sbin"),
        regular(b"usr/sbin/init", b"#!/bin/sh\nexec /bin/sh\n", 0o755),
        directory(b"usr/share"),
        regular(b"usr/share/caf\xe9", b"a name that is not UTF-8\n"),
        regular(b"usr/share/words", b"".join(b"word %d\n" % n for n in range(20_000))),
        directory(b"var"),
        regular(b"var/owned", b"by somebody\n", 0o640, 1000, 65534),
    )


def outer_items(name: bytes, packed: bytes) -> tuple[DemoEntry, ...]:
    """What a debirf ``.cgz`` holds around the nested layer ``packed``."""
    return (
        directory(b"bin"),
        regular(b"bin/run-init", b"\x7fELF run-init" * 20, 0o755),
        regular(b"init", b"#!/bin/sh\n# unpacks " + name + b" into a tmpfs and runs its init\n", 0o755),
        regular(name, packed),
    )


def initramfs(name: bytes = b"rootfs.cxz", items: Iterable[DemoEntry] | None = None) -> bytes:
    """A ``.cgz`` with a root filesystem under ``name`` (xz for ``.cxz``, gzip for ``.cgz``)."""
    plain = build_archive(root_items() if items is None else items)
    packed = gzip.compress(plain, 6, mtime=0) if name.endswith(b"gz") else lzma.compress(plain, check=lzma.CHECK_CRC64)
    return gzip.compress(build_archive(outer_items(name, packed)), 6, mtime=0)


def debirf_files(cgz: bytes | None = None) -> dict[str, bytes]:
    """The files of a debirf ISO besides its boot images."""
    return {
        "boot/grub/grub.cfg": b"linux /vmlinuz\ninitrd /debirf-live-demo.cgz\n",
        "debirf-live-demo.cgz": initramfs() if cgz is None else cgz,
        "vmlinuz": b"MZ" + b"kernel" * 30_000,
    }


def build_iso(files: Mapping[str, bytes]) -> bytes:
    """An ISO with ``files`` and the debirf boot records around them."""
    bios, efi = _boot_image(b"bios", 60_000), _fat_head(_boot_image(b"efi", 120_000))
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident="DEBIRF_DEMO", rock_ridge="1.09")
    every = {"EFI/efiboot.img": efi, "boot/grub/bios.img": bios, **files}
    folders = sorted(
        {"/".join(parts[:n]) for path in every for parts in [path.split("/")] for n in range(1, len(parts))}
    )
    for folder in folders:
        iso.add_directory("/" + _identifiers(folder, ""), rr_name=folder.rpartition("/")[2])
    for path, data in every.items():
        iso.add_fp(BytesIO(data), len(data), "/" + _identifiers(path, ".;1"), rr_name=path.rpartition("/")[2])
    iso.add_eltorito(
        "/BOOT/GRUB/BIOS_IMG.;1", bootcatfile="/BOOT/GRUB/BOOT_CAT.;1", rr_bootcatname="boot.cat", boot_load_size=4
    )
    iso.add_eltorito("/EFI/EFIBOOT_IMG.;1", efi=True)
    out = BytesIO()
    iso.write_fp(out)
    places = {}
    for path in ("/BOOT/GRUB/BIOS_IMG.;1", "/EFI/EFIBOOT_IMG.;1"):
        places[path] = Lba(iso.get_record(iso_path=path).extent_location())
    iso.close()
    return _finished(out.getvalue(), places["/BOOT/GRUB/BIOS_IMG.;1"], bios, efi)


def _identifiers(path: str, ending: str) -> str:
    """An ISO 9660 path for a Rock Ridge one."""
    return "".join(c if c.isalnum() or c == "/" else "_" for c in path.upper()) + ending


def _boot_image(what: bytes, length: int) -> bytes:
    return (b"dummy " + what + b" boot image\n").ljust(2600, b".") + bytes(range(256)) * (length // 256)


def _fat_head(image: bytes) -> bytes:
    """``image`` with the boot sector of an empty FAT12 file system of its size, as firmware looks for one."""
    sectors = len(image) // SECTOR
    fields = struct.pack("<HBHBHHBHHHII", SECTOR, 4, 1, 2, 112, sectors, 0xF8, 1, 32, 64, 0, 0)
    head = b"\xeb\x3c\x90DUMMYFAT" + fields
    return head + image[len(head) : 510] + b"\x55\xaa" + image[SECTOR:]


def _finished(raw: bytes, bios_lba: Lba, bios: bytes, efi: bytes) -> bytes:
    """``raw`` with fixed dates, the tables inside the BIOS image, hybrid MBR and appended partition."""
    out = bytearray(raw)
    _fix_dates(out)
    image = bytearray(bios)
    image[2548:2556] = pointers.pack_grub2_image_pointer(bios_lba)
    total = pointers.compute_boot_image_checksum([bytes(image)])
    image[8:64] = pointers.BootInfoTable(Lba(16), bios_lba, len(image), total).pack() + bytes(40)
    out[bios_lba * BLOCK : bios_lba * BLOCK + len(image)] = image
    blocks = len(out) // BLOCK
    appended = efi + bytes(-len(efi) % BLOCK)
    spans = [
        (0x80, 0x83, 0, blocks * SECTORS_PER_BLOCK),
        (0, 0xEF, blocks * SECTORS_PER_BLOCK, len(appended) // SECTOR),
    ]
    partitions = tuple(
        MbrPartition(
            status, encode_chs(start, _GEOMETRY), kind, encode_chs(start + count - 1, _GEOMETRY), Sector(start), count
        )
        for status, kind, start, count in spans
    )
    code = b"dummy hybrid MBR".ljust(0x1B0, b"\0") + pointers.pack_grub2_mbr_pointer(bios_lba) + b"\x11\x22\x33\x44\0\0"
    unused = MbrPartition.parse(bytes(16))
    out[:SECTOR] = Mbr(code, (*partitions, unused, unused)).pack()
    return bytes(out) + appended


def _fix_dates(out: bytearray) -> None:
    """Every date of volume descriptor, directory records and Rock Ridge TF fields."""
    descriptor = 16 * BLOCK
    for date in (813, 830, 864):  # creation, modification, effective (8.4.26 to 8.4.29)
        out[descriptor + date : descriptor + date + len(_LONG_DATE)] = _LONG_DATE
    for start in _records(out, descriptor):
        out[start + 18 : start + 25] = _DATE
        record = bytes(out[start : start + out[start]])
        at = record.find(b"TF", 33)
        if at >= 0:
            stamps = (record[at + 2] - 5) // 7
            out[start + at + 5 : start + at + 5 + 7 * stamps] = _DATE * stamps


def _records(out: bytearray, descriptor: int) -> Iterator[int]:
    """The byte offset of every directory record, the descriptor's own copy of the root's first."""
    yield descriptor + 156
    waiting = [descriptor + 156]
    while waiting:
        lba, length = struct.unpack_from("<I4xI", out, waiting.pop() + 2)
        for block in range(lba * BLOCK, lba * BLOCK + length, BLOCK):
            at = block
            while at < block + BLOCK and out[at]:
                yield at
                if out[at + 25] & 2 and out[at + 33] > 1:
                    waiting.append(at)
                at += out[at]
