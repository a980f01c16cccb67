"""A root file system as an archive for MAAS, LXD or Docker: which nodes it has, packed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosremaster.api.views import Export
from cosremaster.browse.architecture import DEFAULT, find_architecture
from cosremaster.browse.container import NodeRef
from cosremaster.browse.export import MaasResource, RootArchive, find_base_image, gzip_tar, read_release
from cosremaster.browse.extract import acl_warnings, find_root, select_nodes
from cosremaster.browse.root_selection import select_root_nodes
from cosremaster.browse.system_archives import ContainerImage, LxdImage, part_whiteouts
from cosremaster.browse.tar import TarStream, build_tar, sockets_warnings
from cosremaster.codecs.gzip.deflate import check_coder
from cosremaster.io.output import Output
from cosremaster.io.parallel import cpu_count
from cosremaster.io.pieces import PieceTable
from cosremaster.io.spool import Spool
from cosremaster.io.streams import count_chunks, sha256_of
from cosremaster.layers.address import ROOT_NAME
from cosremaster.layers.kept_plain import PlainKeeper
from cosremaster.overlay.attributes import name_some
from cosremaster.progress import ENCODE, SUM, Progress, begin_work
from cosremaster.remastering.request import check_is_list, read_epoch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cosremaster.api.session import ImageSession
    from cosremaster.tree.nodes import Node


def export_archive(
    session: ImageSession, target: Path, address: str, archive: RootArchive, threads: int | None, *, force: bool,
    progress: Progress,
) -> Export:  # fmt: skip
    """Write the root file system at ``address``, or that of the whole image, as ``archive`` says.

    The rest is as :meth:`Image.export` says.
    """
    check_coder(archive.gzip)
    check_is_list(archive.exclude, "exclude")
    source = session.source
    digested = Output(target, source.local_paths, force=force, digest="sha256")
    with digested as output, Spool(output.folder) as spool, PlainKeeper(output.folder) as keeper:
        is_root = address in ("", ROOT_NAME)
        reference = session.enter_root(keeper, progress.warn) if is_root else session.enter_tree(address, keeper=keeper)
        archive = _with_architecture(archive, reference, progress)
        table = pack_archive(reference, archive, spool, threads or cpu_count(), progress)
        output.write(table, None, lambda count: None)
        digest = output.written_digest
        source.check_unchanged()
        if is_root:
            session.opened.check_unchanged()
        command = upload_command(archive, reference, str(target), table.length, digest)
        output.publish()
    return Export(
        files=(str(target), f"{target}.sha256"), size=table.length, sha256=digest.hex(), command=command,
        layer=reference.address,
    )  # fmt: skip


def _with_architecture(archive: RootArchive, reference: NodeRef, progress: Progress) -> RootArchive:
    """Return ``archive`` with the architecture of the root at ``reference``; one that was asked for stays."""
    own = find_architecture(reference.container)
    if not archive.architecture:
        from dataclasses import replace  # noqa: PLC0415 - as in upload_command

        return replace(archive, architecture=f"{own}/generic" if own else DEFAULT)
    if own not in ("", archive.architecture.partition("/")[0]):
        progress.warn(f"{reference.place}: programs in it are for {own}, and not for {archive.architecture}")
    return archive


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
    root = [*find_root(reference), *root]
    for warning in (*acl_warnings(reference), *sockets_warnings(root)):
        progress.warn(warning)
    if isinstance(archive, ContainerImage):
        root, reserved = part_whiteouts(root)
        if reserved:
            progress.warn(f"left out, as in a container image they would remove something: {name_some(reserved)}")
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
