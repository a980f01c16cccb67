"""Export a root file system as a tar archive, for MAAS and others."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from cosremaster.browse.architecture import DEFAULT
from cosremaster.browse.container import Container
from cosremaster.browse.tar import TarStream
from cosremaster.codecs.base import RepackJob
from cosremaster.codecs.defaults import split_codec
from cosremaster.codecs.gzip.repack import GzipParameters
from cosremaster.errors import UsageError
from cosremaster.io.pieces import PieceTable
from cosremaster.io.spool import Spool
from cosremaster.lazy_regex import lazy_regex

_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time, unknown system (RFC 1952, 2.3)
_NAME = lazy_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]*(?:/[A-Za-z0-9][A-Za-z0-9._+-]*)?")


def gzip_tar(
    tar: TarStream, spool: Spool, threads: int, advance: Callable[[int], None], coder: str = "zlib"
) -> PieceTable:
    """Compress ``tar`` with gzip, by zlib at level 6 or by another ``coder``.

    The bytes of a coder are the same at any time, with any number of threads.
    """
    plain = tar.table()
    job = RepackJob(
        packed=PieceTable([]), decoded=tar, plain=plain, spool=spool, threads=threads, advance=advance,
        gzip_coder=coder,
    )  # fmt: skip
    return GzipParameters(_HEADER, 1).repack(job).table


@dataclass(frozen=True, kw_only=True)
class RootArchive:
    """What an archive of a root file system has.

    ``architecture``: as in ``arm64/generic``; empty: that of the programs in it, or else ``amd64/generic``.
    ``exclude``: patterns of paths that are left out. ``clean``: without what belongs to one machine (docs/usage.md
    lists it). ``sparse``: holes of files take no place, in GNU tar's form. ``gzip``: what packs it, ``"zlib"`` or the
    faster ``"isal"``, which has to be installed and makes more bytes.
    """

    architecture: str = ""
    exclude: tuple[str, ...] = ()
    clean: bool = False
    sparse: bool = False
    gzip: str = "zlib"


@dataclass(frozen=True, kw_only=True)
class MaasResource(RootArchive):
    """A custom image as MAAS names it.

    ``name``: as in ``jammy`` or ``custom/jammy``, without a slash below ``custom/``; ``title``: what MAAS shows, the
    last part of the name when empty. ``base_image``: MAAS' own image that
    installs it, as in ``ubuntu/jammy``; empty to leave it out. ``profile``: that of the command, as in ``maas login``.

    :raises UsageError: MAAS accepts no such name.
    """

    name: str
    title: str = ""
    base_image: str = ""
    profile: str = "admin"

    def __post_init__(self) -> None:
        """Complete and check the names."""
        if "/" not in self.name:
            object.__setattr__(self, "name", f"custom/{self.name}")
        if not self.title:
            object.__setattr__(self, "title", self.name.rpartition("/")[2])
        wanted = [("name", self.name), ("profile", self.profile)]
        others = [("architecture", self.architecture), ("base image", self.base_image)]
        for what, value in [*wanted, *(pair for pair in others if pair[1])]:
            if not _NAME.fullmatch(value):
                raise UsageError(f"MAAS takes no {what} {value!r}: letters, digits, . _ + - and one / in it")

    @property
    def file_name(self) -> str:
        """The name of the archive's file."""
        return self.name.rpartition("/")[2] + ".tar.gz"

    def command(self, path: str, size: int, sha256: bytes) -> str:
        """Return the shell command that uploads the archive at ``path``; ``size`` is in bytes."""
        words = [
            *("maas", self.profile, "boot-resources", "create", f"name={self.name}", f"title={self.title}"),
            f"architecture={self.architecture or DEFAULT}",
            *([f"base_image={self.base_image}"] if self.base_image else ()),
            *("filetype=tgz", f"sha256={sha256.hex()}", f"size={size}"),
            f"content@={path}",
        ]
        return " ".join(shlex.quote(word) for word in words)


def names_gzip_tar(name: str) -> bool:
    """Return whether ``name`` is that of a tar archive under gzip, which is what MAAS calls ``tgz``."""
    plain, codec = split_codec(name)
    return codec == "gzip" and plain.lower().endswith(".tar")


def read_release(root: Container) -> dict[str, str]:
    """Return the values of os-release(5) of the system in ``root``; empty if it has none."""
    node = root.node(root.resolve(b"etc/os-release", last=True))
    if node is None or node.content is None:
        return {}
    text = node.content.head(1 << 16).decode("utf-8", "replace")
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def find_base_image(values: dict[str, str]) -> str:
    """Return the ``base_image`` of a system by its os-release(5); empty for another than Ubuntu.

    MAAS installs a custom image with an ephemeral system of its own, and it has those of Ubuntu's releases.
    """
    system, release = (values.get(key, "") for key in ("ID", "VERSION_CODENAME"))
    base_image = f"{system}/{release}"
    return base_image if system == "ubuntu" and _NAME.fullmatch(base_image) else ""
