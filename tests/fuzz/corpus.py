"""A small bad file for each fault that real images, users and attackers brought, made from the seeds.

Each was once a traceback, an endless run, a wrong result, or an error of the wrong class.
"""

import gzip
import lzma
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from cosremaster.demo.image import build_archive, directory, regular
from tests.fuzz.seeds import GRUB, MTREE, RECIPE, SYSLINUX, make_seeds, small_root

BLOCK, SECTOR = 2048, 512
PRIMARY = 16 * BLOCK
"""The byte of the primary volume descriptor."""


class BadFile(NamedTuple):
    """A fault: what runs it, the seed that it is made from, and how."""

    target: str
    seed: str
    damage: Callable[[bytearray], bytes | bytearray | None]


def put(at: int, data: bytes) -> Callable[[bytearray], None]:
    """Return what puts ``data`` at byte ``at``."""

    def damage(raw: bytearray) -> None:
        """Put it."""
        raw[at : at + len(data)] = data

    return damage


def put_after(mark: bytes, distance: int, data: bytes, *, last: bool = False) -> Callable[[bytearray], None]:
    """Return what puts ``data`` at ``distance`` bytes from the first or last ``mark``."""

    def damage(raw: bytearray) -> None:
        """Put it."""
        at = (raw.rindex(mark) if last else raw.index(mark)) + distance
        raw[at : at + len(data)] = data

    return damage


def cut(length: int) -> Callable[[bytearray], bytearray]:
    """Return what keeps ``length`` bytes; a negative number cuts so many off."""
    return lambda raw: raw[:length]


def replace_with(data: bytes | Callable[[], bytes]) -> Callable[[bytearray], bytes]:
    """Return what puts ``data`` in the place of all."""
    return lambda _: data if isinstance(data, bytes) else data()


def both(value: int) -> bytes:
    """Return a number in both byte orders."""
    return struct.pack("<I", value) + struct.pack(">I", value)


def root(raw: bytes | bytearray, descriptor: int = PRIMARY) -> int:
    """Return the byte of the root directory."""
    return int.from_bytes(raw[descriptor + 158 : descriptor + 162], "little") * BLOCK


def in_root(distance: int, data: bytes) -> Callable[[bytearray], None]:
    """Return what puts ``data`` at ``distance`` bytes from the root directory's start."""
    return lambda raw: put(root(raw) + distance, data)(raw)


def share_path_tables(raw: bytearray) -> None:
    """Let the big-endian path table begin where the little-endian one does."""
    raw[PRIMARY + 148 : PRIMARY + 152] = raw[PRIMARY + 140 : PRIMARY + 144][::-1]


def share_catalog(raw: bytearray) -> None:
    """Let the little-endian path table begin where the boot catalog does."""
    raw[PRIMARY + 140 : PRIMARY + 144] = raw[17 * BLOCK + 71 : 17 * BLOCK + 75]


def loop_directory(raw: bytearray) -> None:
    """Let the first directory be the root."""
    at = root(raw)
    at += raw[at]
    at += raw[at]
    while not raw[at + 25] & 2:
        at += raw[at]
    raw[at + 2 : at + 10] = raw[PRIMARY + 158 : PRIMARY + 166]


def overlap_directories(raw: bytearray) -> None:
    """Let the root be as long as all directories together."""
    for at in (PRIMARY + 166, root(raw) + 10):
        raw[at : at + 8] = both(6 * BLOCK)


def empty_joliet_names(raw: bytearray) -> None:
    """Let the names of two files in the Joliet tree begin with a NUL, where they end for programs in C."""
    for name in ("vmlinuz", "boot.cat"):
        put_after(name.encode("utf-16-be"), 0, b"\0\0")(raw)


def spoil_udf_tag(raw: bytearray) -> None:
    """Let the tag of the first partition descriptor of UDF say another block; its checksum is wrong then too."""
    put_after(b"\x05\0\x02\0", 12, b"\x77")(raw)


def spoil_udf_files(raw: bytearray, start: int, length: int) -> None:
    """Let ``length`` bytes from ``start`` on be zeros in the UDF file entry of every file (ECMA-167, 4/14.9)."""
    for at in range(0, len(raw), BLOCK):
        if raw[at : at + 4] == b"\x05\x01\x02\0" and raw[at + 27] == 5:
            raw[at + start : at + start + length] = bytes(length)


def spoil_udf_and_name(raw: bytearray) -> None:
    """Let the CRC of the first partition descriptor of UDF be wrong, and a Rock Ridge name have a NUL in it."""
    put_after(b"\x05\0\x02\0", 204, b"\x6b")(raw)
    put_after(b"NM\x0c\x01\0vmlinuz", 7, b"\0")(raw)


def move_gpt_partition(raw: bytearray) -> None:
    """Let the second partition in the primary array end elsewhere; the array's sum is wrong then."""
    at = raw.index(b"EFI PART")
    entries = struct.unpack_from("<Q", raw, at + 72)[0] * SECTOR
    raw[entries + 128 + 40] ^= 0x21


def lose_gpt_array(raw: bytearray) -> None:
    """Let the primary GPT have no entries, and name a sector in the volume for the backup."""
    raw[SECTOR + 32 : SECTOR + 40] = struct.pack("<Q", 200)
    at = struct.unpack_from("<Q", raw, SECTOR + 72)[0] * SECTOR
    raw[at : at + 512] = bytes(512)


def gpt(change: Callable[[bytearray, int], None]) -> Callable[[bytearray], None]:
    """Return what changes the primary GPT header, which begins at the given byte."""
    return lambda raw: change(raw, SECTOR)


def archive_with(**fields: bytes) -> bytes:
    """Return a cpio archive whose first header has other digits in the fields."""
    places = {"ino": 6, "mode": 14, "size": 54, "names": 94}
    raw = bytearray(small_root())
    for name, digits in fields.items():
        raw[places[name] : places[name] + 8] = digits
    return bytes(raw)


def symlink_with_nul() -> bytes:
    """Return an archive with a symlink as the kernel's gen_init_cpio writes it."""
    link = regular(b"bin", b"usr/bin\0", 0o777)
    return build_archive([link._replace(mode=0o120777) if hasattr(link, "_replace") else link, directory(b"usr")])


def deep_archive(levels: int) -> bytes:
    """Return an archive of directories in directories."""
    names = [b"/".join([b"d"] * count) for count in range(1, levels)]
    return build_archive([directory(name) for name in names])


def nest(levels: int) -> bytes:
    """Return archives in archives."""
    data = small_root()
    for _ in range(levels):
        data = build_archive([regular(b"init", b"#!"), regular(b"rootfs.cgz", gzip.compress(data, mtime=0))])
    return gzip.compress(data, mtime=0)


def double_variables(count: int) -> bytes:
    """Return a recipe whose variables double."""
    lines = [b'v0 = "xxxxxxxx"', *(b'v%d = "${v%d}${v%d}"' % (n, n - 1, n - 1) for n in range(1, count))]
    return b'input = "in.iso"\noutput = "${v%d}"\n[variables]\n' % (count - 1) + b"\n".join(lines) + b"\n"


IMAGES: Mapping[str, BadFile] = {
    "volume-size-zero": BadFile("image", "demo", put(PRIMARY + 80, bytes(8))),
    "volume-size-beyond": BadFile("image", "demo", put(PRIMARY + 80, both(1 << 30))),
    "blocks-of-512": BadFile("image", "demo", put(PRIMARY + 128, b"\0\2\2\0")),
    "no-terminator": BadFile("image", "plain", put(17 * BLOCK, bytes(BLOCK))),
    "cut-in-descriptor": BadFile("image", "plain", cut(PRIMARY + 700)),
    "cut-in-directory": BadFile("image", "bridge", cut(-500_000)),
    "root-outside": BadFile("image", "plain", put(PRIMARY + 158, both(1 << 31))),
    "root-huge": BadFile("image", "plain", put(PRIMARY + 166, both((1 << 32) - 1))),
    "root-empty": BadFile("image", "plain", put(PRIMARY + 166, both(0))),
    "root-without-dots": BadFile("image", "demo", in_root(0, bytes(BLOCK))),
    "dot-of-one-byte": BadFile("image", "demo", in_root(0, b"\x01")),
    "dot-elsewhere": BadFile("image", "demo", in_root(2, both(3))),
    "dots-disagree-by-order": BadFile("image", "demo", in_root(6, b"\xff")),
    "directory-in-itself": BadFile("image", "plain", loop_directory),
    "directories-overlap": BadFile("image", "plain", overlap_directories),
    "path-tables-in-one-block": BadFile("image", "plain", share_path_tables),
    "path-table-over-descriptors": BadFile("image", "plain", put(PRIMARY + 140, struct.pack("<I", 16))),
    "directory-that-is-associated": BadFile("image", "gpt", put_after("loader".encode("utf-16-be"), -8, b"\x06")),
    "path-table-over-catalog": BadFile("image", "bridge", share_catalog),
    "path-table-size-zero": BadFile("image", "plain", put(PRIMARY + 132, bytes(8))),
    "path-table-size-huge": BadFile("image", "plain", put(PRIMARY + 132, both(1 << 28))),
    "nul-in-rock-ridge-name": BadFile("image", "bridge", put_after(b"NM\x0c\x01\0vmlinuz", 7, b"\0")),
    "slash-in-rock-ridge-name": BadFile("image", "bridge", put_after(b"NM\x0c\x01\0vmlinuz", 7, b"/")),
    "dots-in-rock-ridge-name": BadFile("image", "bridge", put_after(b"NM\x0c\x01\0vmlinuz", 2, b"\x07\x01\0..")),
    "field-of-one-byte": BadFile("image", "bridge", put_after(b"NM\x0c\x01\0vmlinuz", 2, b"\x01")),
    "slash-in-identifier": BadFile("image", "plain", put_after(b"VMLINUZ.;1", 3, b"/")),
    "er-elsewhere": BadFile("image", "bridge", put_after(b"CE\x1c\x01", 4, both(1 << 20))),
    "er-in-itself": BadFile("image", "bridge", put_after(b"ER\xed\x01", 0, b"CE\x1c\x01")),
    "joliet-odd-name": BadFile("image", "bridge", put_after("vmlinuz".encode("utf-16-be"), -1, b"\x0d")),
    "joliet-surrogate": BadFile("image", "bridge", put_after("vmlinuz".encode("utf-16-be"), 0, b"\xd8\0")),
    "more-extents-announced": BadFile("image", "plain", put_after(b"VMLINUZ.;1", -8, b"\x80")),
    "file-in-directory": BadFile("image", "plain", put_after(b"VMLINUZ.;1", -31, both(20))),
    "file-of-4-gib": BadFile("image", "plain", put_after(b"VMLINUZ.;1", -23, both((1 << 32) - 1))),
    "catalog-outside": BadFile("image", "bridge", put(17 * BLOCK + 71, b"\xff\xff\xff\x7f")),
    "boot-image-outside": BadFile("image", "bridge", put_after(b"\x55\xaa\x88", 10, b"\xff\xff\xff\x7f")),
    "catalog-without-end": BadFile("image", "bridge", put_after(b"\x55\xaa\x88", 34, b"\x90\0\xff\xff" * 300)),
    "gpt-256-entries": BadFile("image", "gpt", gpt(lambda raw, at: put(at + 80, struct.pack("<I", 256))(raw))),
    "gpt-huge-entries": BadFile("image", "gpt", gpt(lambda raw, at: put(at + 84, struct.pack("<I", 1 << 31))(raw))),
    "gpt-header-sum": BadFile("image", "gpt", gpt(lambda raw, at: put(at + 16, b"\1\2\3\4")(raw))),
    "gpt-array-sum": BadFile("image", "gpt", gpt(lambda raw, at: put(at + 88, b"\1\2\3\4")(raw))),
    "gpt-backup-elsewhere": BadFile("image", "gpt", gpt(lambda raw, at: put(at + 32, struct.pack("<Q", 1 << 60))(raw))),
    "gpt-backup-in-volume": BadFile("image", "gpt", gpt(lambda raw, at: put(at + 32, struct.pack("<Q", 200))(raw))),
    "gpt-cut-off": BadFile("image", "gpt", cut(-20_000)),
    "gpt-backup-cut-off": BadFile("image", "gpt", cut(-SECTOR)),
    "mbr-partition-behind": BadFile("image", "isohybrid", put(446 + 12, b"\xff\xff\xff\xff")),
    "mbr-partitions-alike": BadFile("image", "isohybrid", lambda raw: put(462, bytes(raw[446:462]))(raw)),
    "apm-many-entries": BadFile("image", "isohybrid", put_after(b"PM\0\0", 4, b"\xff\xff\xff\xff")),
    "udf-anchor-gone": BadFile("image", "bridge", put(256 * BLOCK, bytes(BLOCK))),
    "udf-sequence-elsewhere": BadFile("image", "bridge", put(256 * BLOCK + 20, b"\xff\xff\xff\x7f")),
    "udf-partition-elsewhere": BadFile("image", "bridge", put_after(b"\x05\0\x02\0", 188, b"\xff\xff\xff\x7f")),
    "implanted-sum-malformed": BadFile("image", "plain", put(PRIMARY + 883, b"ISO MD5SUM = zz;SKIPSECTORS = -1;RHLI")),
    "empty-name": BadFile("image", "plain", put_after(b"VMLINUZ.;1", 0, b";")),
    "two-empty-names": BadFile("image", "bridge", empty_joliet_names),
    "two-equal-names": BadFile("image", "bridge", put_after(b"NM\x0f\x01\0init", 5, b"vmlinuz\0\0\0")),
    "udf-tag-of-another-block": BadFile("image", "bridge", spoil_udf_tag),
    "nul-in-name-beside-wrong-udf": BadFile("image", "bridge", spoil_udf_and_name),
    "udf-files-without-extents": BadFile("image", "bridge", lambda raw: spoil_udf_files(raw, 172, 4)),
    "udf-files-without-size": BadFile("image", "bridge", lambda raw: spoil_udf_files(raw, 56, 8)),
    "gpt-primary-gone": BadFile("image", "gpt", put(SECTOR, bytes(63 * SECTOR))),
    "gpt-array-gone-and-backup-in-volume": BadFile("image", "gpt", lose_gpt_array),
    "gpt-partition-elsewhere": BadFile("image", "gpt", move_gpt_partition),
}
LAYERS: Mapping[str, BadFile] = {
    "no-trailer": BadFile("layer", "plain", lambda raw: raw[: raw.rindex(b"070701")]),
    "garbage-behind": BadFile("layer", "plain", lambda raw: raw + b"garbage"),
    "cut-in-header": BadFile("layer", "plain", cut(50)),
    "cut-in-data": BadFile("layer", "plain", cut(-900)),
    "sizes-of-4-gib": BadFile("layer", "plain", replace_with(archive_with(size=b"FFFFFFFF"))),
    "names-of-4-gib": BadFile("layer", "plain", replace_with(archive_with(names=b"FFFFFFFF"))),
    "name-of-no-byte": BadFile("layer", "plain", replace_with(archive_with(names=b"00000000"))),
    "digits-with-signs": BadFile("layer", "plain", replace_with(archive_with(size=b"+000 0_0"))),
    "mode-of-no-kind": BadFile("layer", "plain", replace_with(archive_with(mode=b"FFFFFFFF"))),
    "symlink-with-nul": BadFile("layer", "plain", replace_with(symlink_with_nul)),
    "absolute-and-up": BadFile("layer", "plain", replace_with(lambda: build_archive([regular(b"../../x", b"y")]))),
    "deep": BadFile("layer", "plain", replace_with(lambda: gzip.compress(deep_archive(400), mtime=0))),
    "nested-deep": BadFile("layer", "nested", replace_with(lambda: nest(12))),
    "nested-cut": BadFile(
        "layer", "nested",
        replace_with(lambda: gzip.compress(build_archive([regular(b"initramfs.cpio", small_root()[:700])]), mtime=0)),
    ),
    "gzip-cut": BadFile("layer", "gzip", cut(-12)),
    "gzip-sum": BadFile("layer", "gzip", put_after(b"\x1f\x8b", 40, b"\xff\xff")),
    "gzip-without-data": BadFile("layer", "gzip", cut(12)),
    "joined-at-any-byte": BadFile("layer", "gzip", lambda raw: raw + b"" + lzma.compress(small_root())),
    "zeros-for-ever": BadFile("layer", "gzip", replace_with(lambda: gzip.compress(bytes(1 << 24), mtime=0))),
    "bomb": BadFile(
        "layer", "gzip",
        replace_with(lambda: gzip.compress(build_archive([regular(b"zeros", bytes(1 << 24))]), mtime=0)),
    ),
    "xz-cut": BadFile("layer", "xz", cut(-8)),
    "xz-index": BadFile("layer", "xz", lambda raw: put(len(raw) - 16, b"\xff\xff\xff\xff")(raw)),
    "xz-flipped": BadFile("layer", "xz", put(60, b"\xaa\x55")),
    "lzma-size-wrong": BadFile("layer", "lzma", put(5, struct.pack("<Q", 1 << 40))),
    "lzma-dictionary-huge": BadFile("layer", "lzma", put(1, b"\xff\xff\xff\xff")),
    "joined-broken": BadFile("layer", "joined", lambda raw: put(raw.index(b"\x1f\x8b") + 30, b"\xff\xff\xff")(raw)),
}  # fmt: skip
OTHERS: Mapping[str, BadFile] = {
    "fat-chain-in-itself": BadFile("fat", "fat12", put(SECTOR + 3, b"\x02\x20\x00" * 8)),
    "fat-chain-outside": BadFile("fat", "fat12", put(SECTOR + 3, b"\xef\xee\xfe" * 8)),
    "fat-clusters-of-nothing": BadFile("fat", "fat12", put(13, b"\0")),
    "fat-sectors-of-nothing": BadFile("fat", "fat12", put(11, b"\0\0")),
    "fat-without-tables": BadFile("fat", "fat12", put(16, b"\0")),
    "fat-root-everywhere": BadFile("fat", "fat12", put(17, b"\xff\xff")),
    "fat-cut": BadFile("fat", "fat12", cut(3000)),
    "fat-size-huge": BadFile("fat", "fat12", put_after(b"KERNEL  ", 28, b"\xff\xff\xff\xff")),
    "fat-directory-in-itself": BadFile("fat", "wide", put_after(b"BOOT       ", 26, b"\x02\0")),
    "grub-open-quote": BadFile("menu", "grub", replace_with(GRUB.replace(b"'a b'", b"'a b"))),
    "grub-open-brace": BadFile("menu", "grub", replace_with(GRUB + b"menuentry { linux /vmlinuz ${")),
    "grub-ends-in-backslash": BadFile("menu", "grub", replace_with(b"linux /vmlinuz quiet \\")),
    "syslinux-open-quote": BadFile("menu", "syslinux", replace_with(SYSLINUX.replace(b"quiet", b'"quiet'))),
    "syslinux-without-lines": BadFile("menu", "syslinux", replace_with(b"LABEL a\rKERNEL b\rAPPEND c")),
    "syslinux-kernel-line-for-init": BadFile(
        "menu", "syslinux", replace_with(b"LABEL a\nKERNEL /vmlinuz a -- b\nAPPEND initrd=/initrd.img\n")
    ),
    "entry-of-options": BadFile("menu", "entry", replace_with(b"options\noptions a\nlinux\n")),
    "mtree-up": BadFile("mtree", "mtree", replace_with(MTREE + b"..\n..\n..\n")),
    "mtree-escape": BadFile("mtree", "mtree", replace_with(MTREE + b"a\\9 type=file\n\\ x\n")),
    "mtree-numbers": BadFile("mtree", "mtree", replace_with(MTREE + b"a mode=99999999999 uid=-1 time=1e400\n")),
    "mtree-device": BadFile("mtree", "mtree", replace_with(MTREE + b"a type=char device=native,,\n")),
    "recipe-doubles": BadFile("recipe", "recipe", replace_with(lambda: double_variables(22))),
    "recipe-cycle": BadFile("recipe", "recipe", replace_with(b'[variables]\na = "${b}"\nb = "${a}"\n')),
    "recipe-nested": BadFile("recipe", "recipe", replace_with(b"a = " + b"[" * 900 + b"]" * 900)),
    "recipe-types": BadFile("recipe", "recipe", replace_with(RECIPE.replace(b'"/srv/"', b"7"))),
    "recipe-no-text": BadFile("recipe", "recipe", replace_with(b"\xff\xfe\0")),
    "index-of-other-bytes": BadFile("index", "nothing", replace_with(bytes(range(256)))),
    "index-of-quotes": BadFile("index", "nothing", replace_with(b"".join(b'\0%c\x80"' % n for n in range(60)))),
}
CORPUS: Mapping[str, BadFile] = {**IMAGES, **LAYERS, **OTHERS}


def make_corpus(target: str, folder: Path) -> dict[str, bytes]:
    """Return the bad files of ``target`` by their names; ``folder`` is for the seeds."""
    seeds = make_seeds(target, folder)
    files = {}
    for name, bad in CORPUS.items():
        if bad.target == target:
            raw = bytearray(seeds[bad.seed])
            damaged = bad.damage(raw)
            files[name] = bytes(raw if damaged is None else damaged)
    return files
