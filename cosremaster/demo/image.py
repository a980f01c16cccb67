"""Make a small image in the layout of debirf, in pure Python: for ``cosremaster demo`` and for tests.

It has every boot record of a real image, with dummies for boot code; it does not boot. The bytes are the same every
time: pycdlib writes the image, and its dates, which come from the clock, are overwritten.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO

import pycdlib

from cosremaster.boot import pointers
from cosremaster.boot.mbr import Mbr, MbrPartition, encode_chs
from cosremaster.codecs.lzma_module import lzma
from cosremaster.layers.cpio import newc as cpio
from cosremaster.records import Struct
from cosremaster.tree.nodes import NodeKind
from cosremaster.units import BLOCK, SECTOR, SECTORS_PER_BLOCK, Lba, Sector

TIME = 1_700_000_000
"""The mtime of every file in the image: 2023-11-14."""

_DATE = bytes((123, 11, 14, 22, 13, 20, 0))  # ECMA-119, 9.1.5
_LONG_DATE = b"2023111422132000\0"  # ECMA-119, 8.4.26.1
_GEOMETRY = (64, 32)


class DemoEntry(Struct, frozen=True):
    """An entry of a cpio archive. ``mode`` includes the file type; names of one hard-linked file share ``ino``."""

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
    """Return a cpio archive of ``items`` in their order, padded as by GNU cpio."""
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
    """Return a directory of root."""
    return DemoEntry(path, NodeKind.DIRECTORY | mode, nlink=2)


def regular(path: bytes, data: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> DemoEntry:
    """Return a regular file."""
    return DemoEntry(path, NodeKind.FILE | mode, data, uid, gid)


def symlink(path: bytes, target: bytes) -> DemoEntry:
    """Return a symlink."""
    return DemoEntry(path, NodeKind.SYMLINK | 0o777, target)


def root_items() -> tuple[DemoEntry, ...]:
    """Return a usr-merged root filesystem with everything that is easily lost.

    That is: devices, set-user-ID bits, owners, hard links and names that are not UTF-8.
    """
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
    """Return the entries of a debirf ``.cgz`` around the compressed nested layer ``packed``."""
    return (
        directory(b"bin"),
        regular(b"bin/run-init", b"\x7fELF run-init" * 20, 0o755),
        regular(b"init", b"#!/bin/sh\n# unpacks " + name + b" into a tmpfs and runs its init\n", 0o755),
        regular(name, packed),
    )


def initramfs(name: bytes = b"rootfs.cxz", items: Iterable[DemoEntry] | None = None) -> bytes:
    """Return a ``.cgz`` with a root filesystem in the file ``name`` (xz for ``.cxz``, gzip for ``.cgz``)."""
    plain = build_archive(root_items() if items is None else items)
    packed = gzip.compress(plain, 6, mtime=0) if name.endswith(b"gz") else lzma.compress(plain, check=lzma.CHECK_CRC64)
    return gzip.compress(build_archive(outer_items(name, packed)), 6, mtime=0)


def debirf_files(cgz: bytes | None = None) -> dict[str, bytes]:
    """Return the files of a debirf ISO without its boot images."""
    return {
        "boot/grub/grub.cfg": b"linux /vmlinuz\ninitrd /debirf-live-demo.cgz\n",
        "debirf-live-demo.cgz": initramfs() if cgz is None else cgz,
        "vmlinuz": b"MZ" + b"kernel" * 30_000,
    }


def build_iso(files: Mapping[str, bytes]) -> bytes:
    """Return an ISO with ``files`` and the boot records of debirf."""
    bios, efi = _boot_image(b"bios", 60_000), _with_fat_boot_sector(_boot_image(b"efi", 120_000))
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident="DEBIRF_DEMO", rock_ridge="1.09")
    all_files = {"EFI/efiboot.img": efi, "boot/grub/bios.img": bios, **files}
    directories = {
        "/".join(parts[:depth]) for parts in (path.split("/") for path in all_files) for depth in range(1, len(parts))
    }
    for path in sorted(directories):
        iso.add_directory("/" + _iso_path(path, ""), rr_name=path.rpartition("/")[2])
    for path, data in all_files.items():
        iso.add_fp(BytesIO(data), len(data), "/" + _iso_path(path, ".;1"), rr_name=path.rpartition("/")[2])
    iso.add_eltorito(
        "/BOOT/GRUB/BIOS_IMG.;1", bootcatfile="/BOOT/GRUB/BOOT_CAT.;1", rr_bootcatname="boot.cat", boot_load_size=4
    )
    iso.add_eltorito("/EFI/EFIBOOT_IMG.;1", efi=True)
    out = BytesIO()
    iso.write_fp(out)
    bios_lba = Lba(iso.get_record(iso_path="/BOOT/GRUB/BIOS_IMG.;1").extent_location())
    iso.close()
    return _finish(out.getvalue(), bios_lba, bios, efi)


def _iso_path(path: str, ending: str) -> str:
    """Return the ISO 9660 path for a Rock Ridge path."""
    return "".join(char if char.isalnum() or char == "/" else "_" for char in path.upper()) + ending


def _boot_image(name: bytes, length: int) -> bytes:
    """Return a dummy boot image of about ``length`` bytes."""
    return (b"dummy " + name + b" boot image\n").ljust(2600, b".") + bytes(range(256)) * (length // 256)


def _with_fat_boot_sector(image: bytes) -> bytes:
    """Return ``image`` with the boot sector of an empty FAT12 file system of its size, which firmware looks for."""
    sectors = len(image) // SECTOR
    fields = struct.pack("<HBHBHHBHHHII", SECTOR, 4, 1, 2, 112, sectors, 0xF8, 1, 32, 64, 0, 0)
    head = b"\xeb\x3c\x90DUMMYFAT" + fields
    return head + image[len(head) : 510] + b"\x55\xaa" + image[SECTOR:]


def _finish(raw: bytes, bios_lba: Lba, bios: bytes, efi: bytes) -> bytes:
    """Return the ISO ``raw`` with fixed dates, the tables in its BIOS image, a hybrid MBR and an appended partition."""
    out = bytearray(raw)
    _fix_dates(out)
    image = bytearray(bios)
    image[2548:2556] = pointers.pack_grub2_image_pointer(bios_lba)
    checksum = pointers.compute_boot_image_checksum([bytes(image)])
    image[8:64] = pointers.BootInfoTable(Lba(16), bios_lba, len(image), checksum).pack() + bytes(40)
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
    """Overwrite every date in the volume descriptor, the directory records and the Rock Ridge TF fields."""
    descriptor = 16 * BLOCK
    for date in (813, 830, 864):  # creation, modification, effective (8.4.26 to 8.4.29)
        out[descriptor + date : descriptor + date + len(_LONG_DATE)] = _LONG_DATE
    for start in _record_offsets(out, descriptor):
        out[start + 18 : start + 25] = _DATE
        record = bytes(out[start : start + out[start]])
        field = record.find(b"TF", 33)
        if field >= 0:
            count = (record[field + 2] - 5) // 7
            out[start + field + 5 : start + field + 5 + 7 * count] = _DATE * count


def _record_offsets(out: bytearray, descriptor: int) -> Iterator[int]:
    """Yield the byte offset of every directory record, first that of the root's record in the volume descriptor."""
    yield descriptor + 156
    pending = [descriptor + 156]
    while pending:
        lba, length = struct.unpack_from("<I4xI", out, pending.pop() + 2)
        for block in range(lba * BLOCK, lba * BLOCK + length, BLOCK):
            offset = block
            while offset < block + BLOCK and out[offset]:
                yield offset
                if out[offset + 25] & 2 and out[offset + 33] > 1:
                    pending.append(offset)
                offset += out[offset]
