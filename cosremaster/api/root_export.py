"""A root file system as an archive for MAAS, LXD or Docker: which nodes it has, packed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosremaster.browse.container import NodeRef
from cosremaster.browse.export import MaasResource, RootArchive, find_base_image, gzip_tar, read_release
from cosremaster.browse.extract import select_nodes
from cosremaster.browse.root_selection import select_root_nodes
from cosremaster.browse.system_archives import ContainerImage, LxdImage
from cosremaster.browse.tar import TarStream, build_tar
from cosremaster.io.pieces import PieceTable
from cosremaster.io.spool import Spool
from cosremaster.io.streams import count_chunks, sha256_of
from cosremaster.progress import ENCODE, SUM, Progress, begin_work
from cosremaster.remastering.request import read_epoch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cosremaster.tree.nodes import Node


def pack_archive(
    reference: NodeRef, archive: RootArchive, spool: Spool, threads: int, progress: Progress
) -> PieceTable:
    """Return the bytes of ``archive`` of the root file system at ``reference``; what is compressed goes to ``spool``.

    :raises UsageError: an excluded path is no pattern. Raises as reading the root does.
    """
    layer = reference.container.layer
    if layer is not None and not layer.format.random_access and layer.index.oddity:
        progress.warn(f"{layer.place} {layer.index.oddity}")
    root, unused = select_root_nodes(select_nodes(reference), archive.exclude, clean=archive.clean)
    for text in unused:
        progress.warn(f"nothing is called {text}, which was to be excluded")
    if isinstance(archive, LxdImage):
        root = archive.nodes(root, _creation_time(root), read_release(reference.container))
    tar = build_tar(root, sparse=archive.sparse)
    plain_digest = ""
    if isinstance(archive, ContainerImage):  # an image names its layer by both checksums
        with begin_work(progress, "sum the layer", tar.table().length, SUM) as advance:
            plain_digest = sha256_of(count_chunks(tar.table().chunks(), advance)).hex()
    packed = _compress(tar, spool, threads, progress, archive.gzip)
    if isinstance(archive, ContainerImage):
        return archive.archive(packed, plain_digest, _creation_time(root)).table()
    return packed


def _compress(tar: TarStream, spool: Spool, threads: int, progress: Progress, coder: str) -> PieceTable:
    """Return ``tar`` under gzip, packed by ``coder``."""
    with begin_work(progress, "pack", tar.table().length, ENCODE, f"gzip by {coder}, {threads} threads") as advance:
        return gzip_tar(tar, spool, threads, advance, coder)


def _creation_time(root: Iterable[Node]) -> int:
    """Return SOURCE_DATE_EPOCH, or else the latest time in ``root``, in seconds since 1970: the same on each run.

    :raises UsageError: SOURCE_DATE_EPOCH is no number.
    """
    epoch = read_epoch()
    return max((node.mtime for node in root), default=0) if epoch is None else epoch


def upload_command(archive: RootArchive, reference: NodeRef, path: str, size: int, digest: bytes) -> str | None:
    """Return the shell command that hands over the ``archive`` at ``path``, of ``size`` bytes."""
    if isinstance(archive, MaasResource):
        from dataclasses import replace  # noqa: PLC0415 - MAAS alone has a base image

        base_image = archive.base_image or find_base_image(read_release(reference.container))
        return replace(archive, base_image=base_image).command(path, size, digest)
    if isinstance(archive, LxdImage | ContainerImage):
        return archive.command(path)
    return None
