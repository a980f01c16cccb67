"""The codec that the name of a file says, and the parameters of a new stream of it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cosremaster.errors import UsageError

if TYPE_CHECKING:
    from cosremaster.codecs.base import StreamParameters

_ENDS = {
    ".tar": "none", ".cpio": "none", ".gz": "gzip", ".tgz": "gzip", ".cgz": "gzip", ".xz": "xz", ".txz": "xz",
    ".cxz": "xz", ".zst": "zstd", ".tzst": "zstd", ".bz2": "bzip2", ".tbz": "bzip2", ".tbz2": "bzip2", ".lz4": "lz4",
    ".lzo": "lzop", ".tzo": "lzop",
}  # fmt: skip

_UNWRITTEN = {".lzma": "lzma", ".tlz": "lzma", ".lz": "lzip", ".z": "compress", ".br": "brotli"}
"""Ends that say a codec for which there are no new streams."""

_KINDS = {"tar": "tar", "cpio": "cpio", "squashfs": "squashfs", "sqfs": "squashfs", "sfs": "squashfs", "erofs": "erofs",
          "zip": "zip", "7z": "7z", "qcow2": "qcow2", "iso": "iso"}  # fmt: skip

_WHOLE = {
    "cgz": "cpio",
    "cxz": "cpio",
    "tgz": "tar",
    "txz": "tar",
    "tzst": "tar",
    "tbz": "tar",
    "tbz2": "tar",
    "tzo": "tar",
}
"""The archive that a short end says beside its codec."""

_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time, unknown system (RFC 1952, 2.3)
_CRC32 = 1
"""The check of xz that every kernel knows."""

_ZSTD_WINDOW = 8 << 20
_BZIP2_LEVEL = 9
_LZ4_BLOCK = 7


def codec_in_name(name: str) -> str | None:
    """Return the codec that the end of ``name`` says, as in ``root.tar.gz``; None where it says none."""
    _, dot, end = name.lower().rpartition(".")
    return _ENDS.get(dot + end) or _UNWRITTEN.get(dot + end)


def kind_in_name(name: str) -> str | None:
    """Return the kind of archive or file system that the end of ``name`` says, before a codec's; None for none."""
    return _KINDS.get(split_codec(name)[0].rpartition(".")[2].lower())


def initramfs_codec(codec: str | None) -> str | None:
    """Return the form of ``codec`` that kernels read an initramfs under: of lz4 the older one."""
    return "lz4-legacy" if codec == "lz4" else codec


def split_codec(name: str) -> tuple[str, str]:
    """Return ``name`` as that of the plain file, with a small end, and its codec: ``.tar`` and ``xz`` for ``.txz``."""
    stem, dot, end = name.rpartition(".")
    codec = _ENDS.get(dot + end.lower(), "none")
    whole = _WHOLE.get(end.lower())
    if whole is not None:
        return f"{stem}.{whole}", codec
    return (name, codec) if codec == "none" else (stem, codec)


_LZOP_FLAGS = 3
"""Adler-32 of the plain and of the packed bytes of each block, as lzop's own."""

_LZOP_HEADER = b"\x89LZO\0\r\n\x1a\n" + bytes.fromhex(
    "1040 20a0 0940 03 09 00000003 000081a4 00000000 00000000 00 2afe028e"
)
"""As lzop 1.04 writes at level 9, for a file without a name and a time: the versions of it and its library, the version
that reads it, method, level, flags, mode, both halves of the time, length of the name, Adler-32 of these."""

_NEW: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "none": ("plain", "PlainParameters", ()),
    "gzip": ("gzip.repack", "GzipParameters", (_GZIP_HEADER, 1)),
    "xz": ("xz.repack", "XzParameters", (_CRC32, (), 1)),
    "zstd": ("zstd", "ZstdParameters", (_ZSTD_WINDOW, True, True, ())),
    "bzip2": ("bzip2", "Bzip2Parameters", (_BZIP2_LEVEL, ())),
    "lz4": ("lz4", "Lz4Parameters", (_LZ4_BLOCK, False, (True, False), ())),
    "lz4-legacy": ("lz4", "Lz4LegacyParameters", ((),)),
    "lzop": ("lzop", "LzopParameters", (_LZOP_HEADER, _LZOP_FLAGS, ())),
}
"""By the codec's name: module, class and arguments of the parameters of a new stream."""


def new_parameters(codec: str) -> StreamParameters:
    """Return the parameters of a new stream of ``codec``. :raises UsageError: there are none of such a codec.

    :raises ImportError: its library is not installed.
    """
    if codec not in _NEW:
        raise UsageError(f"nothing new is written under {codec}: .gz, .xz, .zst, .bz2, .lz4 and .lzo are possible")
    module, class_name, arguments = _NEW[codec]
    parameters: StreamParameters = getattr(import_module(f"cosremaster.codecs.{module}"), class_name)(*arguments)
    return parameters
