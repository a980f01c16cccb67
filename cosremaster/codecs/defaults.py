"""The codec that the name of a file says, and the parameters of a new stream of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosremaster.codecs.base import StreamParameters

_ENDS = {
    ".tar": "none", ".cpio": "none", ".gz": "gzip", ".tgz": "gzip", ".cgz": "gzip", ".xz": "xz", ".txz": "xz",
    ".cxz": "xz", ".zst": "zstd", ".tzst": "zstd", ".bz2": "bzip2", ".tbz": "bzip2", ".tbz2": "bzip2", ".lz4": "lz4",
}  # fmt: skip

_WHOLE = {"cgz": "cpio", "cxz": "cpio", "tgz": "tar", "txz": "tar", "tzst": "tar", "tbz": "tar", "tbz2": "tar"}
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
    return _ENDS.get(dot + end)


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


def new_parameters(codec: str) -> StreamParameters:
    """Return the parameters of a new stream of ``codec``. :raises KeyError: there are none of such a codec.

    :raises ImportError: its library is not installed.
    """
    if codec == "none":
        from cosremaster.codecs.plain import PlainParameters  # noqa: PLC0415 - each loads its library

        return PlainParameters()
    if codec == "gzip":
        from cosremaster.codecs.gzip.repack import GzipParameters  # noqa: PLC0415 - the same

        return GzipParameters(_GZIP_HEADER, 1)
    if codec == "xz":
        from cosremaster.codecs.xz.repack import XzParameters  # noqa: PLC0415 - the same

        return XzParameters(_CRC32, (), 1)
    if codec == "zstd":
        from cosremaster.codecs.zstd import ZstdParameters  # noqa: PLC0415 - the same

        return ZstdParameters(_ZSTD_WINDOW, True, True, ())
    if codec == "bzip2":
        from cosremaster.codecs.bzip2 import Bzip2Parameters  # noqa: PLC0415 - the same

        return Bzip2Parameters(_BZIP2_LEVEL, ())
    if codec in ("lz4", "lz4-legacy"):
        from cosremaster.codecs.lz4 import Lz4LegacyParameters, Lz4Parameters  # noqa: PLC0415 - the same

        is_frame = codec == "lz4"
        return Lz4Parameters(_LZ4_BLOCK, False, (True, False), ()) if is_frame else Lz4LegacyParameters(())
    raise KeyError(codec)
