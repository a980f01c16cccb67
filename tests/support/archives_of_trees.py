"""Trees and the archives that GNU cpio makes of them, packed by real compressors; and what unpackers make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cosremaster.remastering.image import OpenedImage
from tests.fixtures import tools
from tests.fixtures.tools import EPOCH, run

PACKERS: Mapping[str, Sequence[str]] = {
    "plain": ["cat"],
    "gzip": ["gzip", "-9n"],
    "xz": ["xz", "--check=crc32"],
    "zstd": ["zstd", "-q", "-9"],
    "lz4": ["lz4", "-q"],
    "lz4-legacy": ["lz4", "-q", "-l"],
    "lzop": ["lzop", "-q"],
    "bzip2": ["bzip2"],
}


def write_tree(folder: Path, files: Mapping[str, str]) -> Path:
    """A folder with ``files``: text by path; ``-> x`` for a symlink to x; a path that ends in / for a directory."""
    for name, text in files.items():
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text.removeprefix("-> "))
        elif not name.endswith("/"):
            path.write_text(text)
            path.chmod(0o755 if text.startswith("#!") else 0o644)
    return folder


def pack_tree(folder: Path, packer: str = "gzip") -> bytes:
    """What GNU cpio and a compressor make of the tree ``folder``."""
    tools.require("cpio", "find", *([] if packer == "plain" else [PACKERS[packer][0]]))
    run(["find", str(folder), "-exec", "touch", "-hd", f"@{EPOCH}", "{}", "+"])
    script = "find . -mindepth 1 -print0 | LC_ALL=C sort -z | cpio -0 --reproducible --quiet -o -H newc"
    plain = run(["sh", "-c", script], cwd=folder)
    return run(list(PACKERS[packer]), stdin=plain)


def unpack(archive: bytes, folder: Path) -> dict[str, str]:
    """What GNU cpio unpacks one plain ``archive`` to, over what is in ``folder``: texts of regular files by path."""
    tools.require("cpio")
    folder.mkdir(exist_ok=True)
    run(["cpio", "-i", "-d", "-u", "--quiet"], stdin=archive, cwd=folder)
    return texts_in(folder)


def texts_in(folder: Path) -> dict[str, str]:
    """The texts of the regular files in ``folder``, by path."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


UNPACKERS: Mapping[bytes, Sequence[str]] = {
    b"\x1f\x8b": ["gzip", "-dc"],
    b"\x28\xb5": ["zstd", "-q", "-dc"],
    b"\xfd7": ["xz", "-dc"],
    b"07": ["cat"],
}
"""By the first two bytes of a stream."""


def unpack_row(file: Path, folder: Path) -> dict[str, str]:
    """What the archives in ``file`` unpack to one after another, as in the kernel, by GNU cpio and the compressors.

    Where each begins is known from our own reader. Checks that it is at a multiple of 4, as the kernel demands.
    """
    with OpenedImage(file, remember=False) as opened:
        row = opened.layers().layers[-1].concatenation
    assert row is not None
    data = file.read_bytes()
    for start, end in row.streams:
        assert start % 4 == 0
        stream = data[start:end]
        unpack(run(list(UNPACKERS[stream[:2]]), stdin=stream), folder)
    return texts_in(folder)
