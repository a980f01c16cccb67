"""The public face: an image with a method for everything that can be done with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from cosremaster.api.session import ImageSession
from cosremaster.errors import LayerError, UsageError
from cosremaster.io.urls import ImagePath
from cosremaster.layers.scan import MAX_EXPAND
from cosremaster.lazy_path import make_path
from cosremaster.progress import COPY, Progress, SilentProgress, begin_work

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Unpack

    from cosremaster.api.info import ImageInfo, LayerInfo
    from cosremaster.api.results import Plan, Preparation, Result
    from cosremaster.api.views import Export, Extraction
    from cosremaster.browse.compare import Difference
    from cosremaster.browse.entry import FileEntry
    from cosremaster.browse.export import RootArchive
    from cosremaster.io.pieces import PieceTable
    from cosremaster.io.urls import Url
    from cosremaster.remastering.image import OpenedImage
    from cosremaster.remastering.output_options import OutputKeywords
    from cosremaster.remastering.prepared import Prepared
    from cosremaster.remastering.request import Request
    from cosremaster.tree.nodes import Row
    from cosremaster.verification.finding import VerificationReport

StrPath: TypeAlias = str | os.PathLike[str]
"""A path on this machine; of an image that is read also its URL, as text."""


class Image:
    """A bootable image: an ISO 9660 image, or an initramfs in a file of its own. A context manager.

    Nothing here changes the image; :meth:`remaster` writes a new one. Parts of the image are read when a method needs
    them, once, and serve every later call; several threads may use one image. An *address* says where something is
    inside the image, as in ``"live.cgz::rootfs.cxz::etc/hostname"``: a path on the ISO, a path in the archive that this
    file is, and so on; ``""`` is the image itself, and ``@root``
    in front the root file system, wherever it lies. Another process that gets an image by pickle opens it anew.

    ``remember``: use and keep the index of the layers in the user's cache directory; ``check_index``: before a kept
    index is used, compare the SHA-256 of the files that it describes. ``max_expand``: data beyond the first GiB that
    expand by more than this ratio are refused as a bomb. ``progress``: is told of files that are read because an
    address leads into them; methods that take a progress tell that of their own work.

    >>> import cosremaster
    >>> with cosremaster.open("vendor.iso") as image:
    ...     print(image.read("vmlinuz")[:2])
    b'MZ'
    """

    def __init__(
        self, path: ImagePath, *, remember: bool = True, check_index: bool = False, max_expand: int = MAX_EXPAND,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        """Remember the path or URL; the image is opened by the first method that reads it."""
        self._session = ImageSession(
            path, remember=remember, check_index=check_index, max_expand=max_expand, progress=progress
        )

    @property
    def path(self) -> Path | Url:
        """The path of the image, or its URL."""
        return self._session.path

    def __enter__(self) -> Image:
        """Return the image itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the image."""
        self.close()

    def __reduce__(self) -> tuple[Callable[[], Image], tuple[()]]:
        """Return how another process makes the same image: it opens the path, with the same options."""
        session = self._session
        make = partial(
            type(self), session.path, remember=session.remember, check_index=session.check_index,
            max_expand=session.max_expand,
        )  # fmt: skip
        return make, ()

    def close(self) -> None:
        """Close the image, when the index of its layers is stored."""
        self._session.closing.close()

    def info(
        self, *, deep: bool = False, layer: str | None = None, progress: Progress | None = None
    ) -> ImageInfo:  # fmt: skip
        """Return the facts about the image. ``deep``: read every layer; ``layer``: read only the file of this layer.

        >>> import cosremaster
        >>> with cosremaster.open("vendor.iso") as image:
        ...     print(image.info().kind, image.info(deep=True).root_layer)
        iso9660 debirf-live-demo.cgz::rootfs.cxz

        :raises ImageError: the image cannot be read, or is neither an ISO 9660 image nor an archive.
        :raises LayerError: there is no such layer. :raises CorruptError: a layer is damaged.
        """
        from cosremaster.api.info import gather_info  # noqa: PLC0415 - a remaster needs none of it

        return gather_info(self._session, deep=deep, layer=layer, progress=progress)

    def layers(self, layer: str | None = None, *, progress: Progress | None = None) -> tuple[LayerInfo, ...]:
        """Return the layers of the image, or of the file that ``layer`` names; outer ones come before inner ones.

        >>> import cosremaster
        >>> with cosremaster.open("vendor.iso") as image:
        ...     for layer in image.layers():
        ...         print(layer.address, layer.codec, layer.entries)
        debirf-live-demo.cgz gzip 4
        debirf-live-demo.cgz::rootfs.cxz xz 22

        :raises LayerError: there is no such layer. :raises CorruptError: a layer is damaged.
        """
        from cosremaster.api.info import layer_infos  # noqa: PLC0415 - a remaster needs none of it

        image_layers = self._session.opened.layers(layer, progress)
        chosen, _ = self._session.choose_layer(image_layers, layer)
        return layer_infos(self._session.opened.image, image_layers.layers, chosen)

    @property
    def index_file(self) -> Path | None:
        """The file that keeps the index of the layers for later runs; None if there is none."""
        return self._session.opened.remembered_at

    def names(self, address: str = "", *, recursive: bool = False, follow: bool = True) -> list[bytes]:
        """Return the names in the directory or archive at ``address``, sorted.

        ``recursive``: the paths of all below.
        """
        reference = self._session.enter(address, follow=follow)
        path = reference.node.path
        start = len(path) + bool(path)
        below = reference.container.walk_below(path) if recursive else reference.container.list_names(path)
        return [name[start:] for name in below]

    def long_lines(self, address: str = "", *, recursive: bool = False, human: bool = False) -> Iterator[str]:
        """Return the lines of ``ls -l`` of the directory or archive at ``address``, sorted by path.

        A symlink at its end is not followed; a file alone is its only line. ``recursive``: a line for all below, too,
        but not inside archives; the tree is read on the way. ``human``: sizes as 1.5K or 20M, as by ``ls -lh``.

        :raises LayerError: nothing is there.
        """
        from cosremaster.browse.report import format_long_lines  # noqa: PLC0415 - as all of browse: a remaster needs none
        from cosremaster.tree.nodes import NodeKind, row_of  # noqa: PLC0415 - the same

        reference = self._session.enter(address, follow=False)
        node, start = reference.node, 0
        rows: Iterator[Row] = iter((row_of(node),))
        if node.kind is NodeKind.DIRECTORY:
            start = len(node.path) + bool(node.path)
            rows = reference.container.walk_rows(node.path, recursive=recursive)
        return chain.from_iterable(format_long_lines(row, start, human=human) for row in rows)

    def ls(self, address: str = "", *, recursive: bool = False, follow: bool = True) -> tuple[FileEntry, ...]:
        """Return the entries of the directory or archive at ``address``, sorted; a file alone is its only entry.

        ``recursive``: all entries below, but not those inside archives (:meth:`walk` enters these).

        >>> import cosremaster
        >>> with cosremaster.open("vendor.iso") as image:
        ...     print([entry.name for entry in image.ls("debirf-live-demo.cgz::rootfs.cxz::etc")])
        [b'hostname', b'mtab', b'os-release']

        :raises LayerError: nothing is there.
        """
        from cosremaster.browse.container import NodeRef  # noqa: PLC0415 - as all of browse: a remaster needs none
        from cosremaster.browse.entry import entry_of  # noqa: PLC0415 - the same
        from cosremaster.tree.nodes import NodeKind  # noqa: PLC0415 - the same

        reference = self._session.enter(address, follow=follow)
        container = reference.container
        if reference.node.kind is not NodeKind.DIRECTORY:
            return (entry_of(reference),)
        nodes = container.walk_nodes(reference.node.path, recursive=recursive)
        return tuple(entry_of(NodeRef(container, node)) for node in nodes)

    def stat(self, address: str = "", *, full: bool = False, follow: bool = False) -> FileEntry:
        """Return the entry at ``address``; a symlink at its end is not followed.

        ``full``: with ``sha256`` and ``contains``.

        :raises LayerError: nothing is there.
        """
        from dataclasses import replace  # noqa: PLC0415 - as all of browse: a remaster needs none

        from cosremaster.browse.container import enter_if_container, is_container  # noqa: PLC0415 - the same
        from cosremaster.browse.entry import entry_of  # noqa: PLC0415 - the same
        from cosremaster.tree.content import has_large_holes  # noqa: PLC0415 - the same

        reference = self._session.find(address, follow=follow)
        entry, node = entry_of(reference, extents=True), reference.node
        if not full:
            return entry
        contains = reference.container.kind if not node.path else None
        if node.path and is_container(node, reference.container):
            contains = enter_if_container(reference).container.kind
        content = node.content
        digest = None if content is None or has_large_holes(content) else content.digest().hex()
        return replace(entry, sha256=digest, contains=contains)

    def walk(self, address: str = "", pattern: str | None = None, *, levels: int | None = None) -> Iterator[FileEntry]:
        """Yield all entries below ``address``, also inside archives; directories and archives before what is in them.

        ``pattern``: only entries whose path in their file system matches; ``*`` does not cross ``/``, ``**`` does.
        ``levels``: only as deep as that.

        >>> import cosremaster
        >>> with cosremaster.open("vendor.iso") as image:
        ...     print([entry.address for entry in image.walk(pattern="**/hostname")])
        ['vendor.iso::debirf-live-demo.cgz::rootfs.cxz::etc/hostname']

        :raises LayerError: nothing is there. :raises CorruptError: an archive is damaged.
        """
        from cosremaster.browse.entry import entry_of  # noqa: PLC0415 - as all of browse: a remaster needs none
        from cosremaster.browse.walk import walk  # noqa: PLC0415 - the same
        from cosremaster.layers.member_files import MemberKeeper  # noqa: PLC0415 - the same
        from cosremaster.overlay.patterns import Pattern  # noqa: PLC0415 - the same
        from cosremaster.tree.nodes import NodeKind  # noqa: PLC0415 - the same

        compiled = None if pattern is None else Pattern(os.fsencode(pattern))
        members = self._session.closing.enter_context(MemberKeeper())
        reference = self._session.enter(address, members=members)
        if reference.node.kind is not NodeKind.DIRECTORY:
            return
        for below, depth in walk(reference.container, reference.node.path, members, levels=levels):
            if compiled is None or compiled.matches(below.node.path):
                yield entry_of(below, depth)

    def read(self, address: str) -> bytes:
        """Return the bytes of the file at ``address``; symlinks are followed.

        >>> import cosremaster
        >>> with cosremaster.open("vendor.iso") as image:
        ...     print(image.read("debirf-live-demo.cgz::rootfs.cxz::etc/hostname"))
        b'debirf\\n'

        :raises LayerError: no file is there.
        """
        return b"".join(self.chunks(address))

    def chunks(self, address: str) -> Iterator[bytes]:
        """Yield the bytes of the file at ``address`` in chunks. Raises as :meth:`read`."""
        reference = self._session.find(address)
        if reference.node.content is None:
            raise LayerError(f"is a {reference.node.kind.noun}, which has no bytes", reference.place)
        yield from reference.node.content.table().chunks()

    def tar_chunks(self, address: str = "", *, progress: Progress | None = None) -> Iterator[bytes]:
        """Yield a tar archive of what is at ``address``, in chunks; ``progress`` is warned of what it lacks."""
        from cosremaster.browse.extract import acl_warnings, find_root, select_nodes  # noqa: PLC0415 - as all of browse: a remaster needs none
        from cosremaster.browse.tar import build_tar, sockets_warnings  # noqa: PLC0415 - the same

        reference = self._session.enter(address)
        nodes = [*find_root(reference), *select_nodes(reference)]
        for warning in (*acl_warnings(reference), *sockets_warnings(nodes)):
            (progress or SilentProgress()).warn(warning)
        yield from build_tar(nodes).table().chunks()

    def extract(
        self, address: str, target: StrPath, *, as_tar: bool = False, force: bool = False,
        progress: Progress | None = None,
    ) -> Extraction:  # fmt: skip
        """Write what is at ``address`` to the new folder ``target``, or to a tar archive.

        Nothing is written outside ``target``, which appears only when it is complete. Of a directory ``target`` itself
        has owner, mode and time. Without root, owners and device nodes, and all that ``target`` itself would have, go
        to ``TARGET.mtree``, and extended attributes other than those of users are left out; a tar archive
        keeps everything but sockets. ``force`` replaces an existing archive.

        >>> import cosremaster
        >>> with cosremaster.open("vendor.iso") as image:
        ...     print(image.extract("debirf-live-demo.cgz::rootfs.cxz::etc", "etc").files)
        2

        :raises LayerError: nothing is there. :raises OutputError: the target cannot be written.
        """
        from cosremaster.api.views import Extraction  # noqa: PLC0415 - the same
        from cosremaster.browse.extract import acl_warnings, extract_nodes, find_root, select_nodes  # noqa: PLC0415 - as all of browse: a remaster needs none
        from cosremaster.browse.tar import build_tar, sockets_warnings  # noqa: PLC0415 - the same

        target, progress = make_path(target), progress or SilentProgress()
        reference = self._session.enter(address)
        nodes, root = select_nodes(reference), find_root(reference)
        for warning in acl_warnings(reference):
            progress.warn(warning)
        size = sum(node.content.size for node in nodes if node.content is not None)
        if as_tar:
            nodes = [*root, *nodes]
            table, made = build_tar(nodes).table(), None
            for warning in sockets_warnings(nodes):
                progress.warn(warning)
            size = table.length
            self._write(table, target, force, progress)
        else:
            with begin_work(progress, f"extract to {target}", size, COPY, "extract") as advance:
                made = extract_nodes(nodes, target, advance, root=next(iter(root), None))
        kinds = [node.kind.noun for node in nodes]
        files, directories = kinds.count("file"), kinds.count("directory")
        return Extraction(
            entries=len(nodes), files=files, directories=directories, others=len(nodes) - files - directories,
            size=size, mtree=None if made is None else made.mtree,
            without_xattrs=() if made is None else made.without_xattrs,
        )  # fmt: skip

    def export(
        self, target: StrPath, *, address: str = "", archive: RootArchive | None = None, entry: str = "",
        threads: int | None = None, force: bool = False, progress: Progress | None = None,
    ) -> Export:  # fmt: skip
        """Write what a network boot takes to the new folder ``target``: kernel, initramfs and an iPXE script.

        They are those of the boot menu's default entry, or of the one that ``entry`` names: its number, title or label.
        ``archive``: write the layer at ``address``, or the root file system of the image, as a tar archive for MAAS
        (:class:`MaasResource`), LXD (:class:`LxdImage`) or Docker (:class:`ContainerImage`) instead, and its checksum
        to ``TARGET.sha256``. ``threads`` compress it, None for one per processor; ``force`` replaces an existing file.

        :raises LayerError: there is no kernel or no initramfs, or several. :raises UsageError: there is no such entry.
        :raises UnsupportedError: iPXE cannot start the entry. :raises OutputError: it cannot be written.
        """
        target, progress = make_path(target), progress or SilentProgress()
        if archive is not None:
            from cosremaster.api.root_export import export_archive  # noqa: PLC0415 - a remaster needs none of it

            return export_archive(self._session, target, address, archive, threads, force=force, progress=progress)
        from cosremaster.api.network_boot import plan_network_boot  # noqa: PLC0415 - a remaster needs none of it
        from cosremaster.api.views import Export  # noqa: PLC0415 - the same
        from cosremaster.browse.extract import extract_nodes  # noqa: PLC0415 - the same

        boot = plan_network_boot(self._session.enter(address).container, entry)
        nodes = boot.nodes
        with begin_work(progress, f"export to {target}", None, COPY, "extract") as advance:
            extract_nodes(nodes, target, advance, notes=False)
        files = tuple(f"{target}/{node.path.decode(errors='backslashreplace')}" for node in nodes)
        return Export(files=files, entry=boot.entry)

    def find_base_image(self) -> str:
        """Return MAAS' own image that installs the root file system, as in ``ubuntu/jammy``; empty for another system
        than Ubuntu.

        :raises LayerError: there is no root file system.
        """
        from cosremaster.browse.export import find_base_image, read_release  # noqa: PLC0415 - a remaster needs none of it
        from cosremaster.layers.address import ROOT_NAME  # noqa: PLC0415 - the same

        return find_base_image(read_release(self._session.enter(ROOT_NAME).container))

    def find_architecture(self) -> str:
        """Return the architecture of the programs in the root file system, as in ``amd64/generic``, which stands for
        one where none says it, too.

        :raises LayerError: there is no root file system.
        """
        from cosremaster.browse.architecture import DEFAULT, find_architecture  # noqa: PLC0415 - as in find_base_image
        from cosremaster.layers.address import ROOT_NAME  # noqa: PLC0415 - the same

        name = find_architecture(self._session.enter(ROOT_NAME).container)
        return f"{name}/generic" if name else DEFAULT

    def plan(
        self, request: Request | None = None, *, target: StrPath | None = None, report: StrPath | None = None,
        force: bool = False, delta: bool = False, progress: Progress | None = None,
    ) -> Plan:  # fmt: skip
        """Return what :meth:`remaster` would do. Layers are compressed, so that sizes are exact.

        What was compressed is kept in the user's cache directory, unless the image was opened with ``remember=False``:
        a remaster that compresses the same bytes takes it.

        ``target``: the output, whose name may ask for a tar archive or another codec; of a disk image a tar archive
        is planned without it. ``report``: a file for what would happen to each path, as JSON (docs/report.md);
        ``force`` replaces it. ``delta``: with the size of the delta that would be written.

        >>> import cosremaster
        >>> from cosremaster import InlineFile, Request
        >>> with cosremaster.open("vendor.iso") as image:
        ...     print(image.plan(Request(add=[InlineFile("/etc/site", b"7")])).added)
        (b'etc/site',)

        Raises as :meth:`remaster`.
        """
        from cosremaster.api.results import make_plan  # noqa: PLC0415 - a remaster needs none of it
        from cosremaster.remastering.request import Request  # noqa: PLC0415 - browsing needs none of it

        name = "" if target is None or delta else make_path(target).name
        if not name and not delta and self._session.opened.image.kind == "disk":
            name = f"{self.path.name}.tar"
        with self._changing(request or Request(), name) as (opened, asked):
            plan = opened.plan(asked, target=name, report=report, force=force, delta=delta, progress=progress)
            return make_plan(plan)

    def remaster(
        self, target: StrPath, request: Request | None = None, *, progress: Progress | None = None,
        **options: Unpack[OutputKeywords],
    ) -> Result:  # fmt: skip
        """Write the image to ``target`` with the changes of ``request``.

        Where the end of the name ``target`` says tar (``.tar``, ``.tar.gz``, ``.tgz``) and the image is none, its root
        file system becomes a new tar archive: of a disk image, an ISO, a squashfs or an initramfs.

        Options: ``force`` replaces an existing target. ``digest`` (``sha256`` or ``md5``) writes ``TARGET.sha256``
        beside it, as sha256sum does. ``report``: a file for what happened to each path, as JSON (docs/report.md).
        ``sync=False`` does not wait until all is on the disk. ``read_back`` compares every byte of the file, read from
        the disk. ``sha256``: the result tells the digest of the file. ``expect``: digests that this image must have, as
        in ``["sha256:HEX"]``. ``delta`` writes the difference from this image in place of a new one, and
        ``TARGET.json``, which says for what (docs/delta.md); with ``plain`` other decoders than xdelta3 read it; for
        the base of the delta ``base_delta``, which made this image.

        >>> import cosremaster
        >>> from cosremaster import InlineFile, Request
        >>> with cosremaster.open("vendor.iso") as image:
        ...     result = image.remaster("site.iso", Request(add=[InlineFile("/etc/site", b"7")]))
        >>> print(result.added, len(result.proof) > 0)
        (b'etc/site',) True

        :raises CosremasterError: one of its kinds (docs/exit-codes.md); there is no target then.
        """
        from cosremaster.remastering.request import Request  # noqa: PLC0415 - browsing needs none of it

        name = "" if options.get("delta") else make_path(target).name  # what a delta makes is what this image is
        with self._changing(request or Request(), name) as (opened, asked):
            if opened is not self._session.opened:
                self._expect(options.pop("expect", ()), progress)
            plan, proof = opened.remaster(target, asked, progress=progress, **options)
        from cosremaster.api.results import Result, changes_of_plan  # noqa: PLC0415 - after the work: dataclasses take time

        return Result(**changes_of_plan(plan), proof=proof, sha256=plan.sha256)

    def prepare(self, request: Request | None = None, *, progress: Progress | None = None) -> Prepared:
        """Return the image with the changes of ``request`` without writing it: to be read in parts, or served.

        It is proved as one that is written, its bytes are the same, and it lives on when this image is closed
        (docs/prepared.md).

        >>> import cosremaster
        >>> from cosremaster import InlineFile, Request
        >>> with cosremaster.open("vendor.iso") as image:
        ...     prepared = image.prepare(Request(add=[InlineFile("/etc/site", b"7")]))
        >>> with prepared:
        ...     print(prepared.read(0x8001, 5), len(prepared.identity()))
        b'CD001' 64

        Raises as :meth:`remaster`.
        """
        from cosremaster.remastering.request import Request  # noqa: PLC0415 - browsing needs none of it

        return self._session.opened.prepare(request or Request(), progress=progress)[1]

    def write_base(
        self, target: StrPath, *, block_size: int | str = 4 << 20, layer: str | Iterable[str] | None = None,
        threads: int | None = None, xz_preset: int | None = None, progress: Progress | None = None,
        **options: Unpack[OutputKeywords],
    ) -> Preparation:  # fmt: skip
        """Write the image to ``target`` as a base for many remasters, in which an early change costs little.

        What is in it stays as it is. Each layer under xz, lz4, and where no kernel unpacks it zstd or bzip2, is cut
        into parts of at most ``block_size`` decoded bytes (or text such as ``"4M"``) that are compressed one without
        the others; files that people change early get parts of their own (docs/prepare.md). A base that is prepared
        already is copied.

        ``layer``: the layers that are meant, as in :class:`Request`; None for all. The options are those of
        :meth:`remaster`.

        >>> import cosremaster
        >>> with cosremaster.open("vendor.iso") as image:
        ...     result = image.write_base("base.iso")
        >>> print([layer.layer for layer in result.layers if layer.reason is None])
        ['debirf-live-demo.cgz::rootfs.cxz']
        >>> with cosremaster.open("base.iso") as base:
        ...     print(base.write_base("again.iso").identical)
        True

        :raises CosremasterError: one of its kinds (docs/exit-codes.md); there is no target then.
        """
        import time  # noqa: PLC0415 - nothing else here takes the time

        from cosremaster.remastering.request import Request, parse_size  # noqa: PLC0415 - browsing needs none of it

        begun = time.monotonic()
        request = Request(layer=layer, threads=threads, xz_preset=xz_preset)
        size = parse_size(block_size)
        with self._changing(request, make_path(target).name) as (opened, _):
            if opened is not self._session.opened:
                raise UsageError(f"{target}: a preparation keeps what {self.path} is, which is no tar archive")
            plan, proof = opened.write_base(target, request, size, progress=progress, **options)
        from cosremaster.api.results import make_preparation  # noqa: PLC0415 - after the work: dataclasses take time

        return make_preparation(plan, proof, time.monotonic() - begun)

    def verify(
        self, *, against: ImagePath | None = None, changed: Collection[str | bytes] = (), changed_volume: bool = False,
        deep: bool = False, digest: bool = False, progress: Progress | None = None,
    ) -> VerificationReport:  # fmt: skip
        """Check every pointer of the image.

        ``against``: the image that it was made from, whose own faults do not count.

        ``changed``: paths on the image, or in FAT file systems on it, that were meant to change; ``changed_volume``:
        the volume id and date were. ``deep``: decode every layer and check lists of checksums. ``digest``: compare with
        the digest files beside the image, as ``sha256sum -c`` does.

        >>> import cosremaster
        >>> with cosremaster.open("vendor.iso") as image:
        ...     print(image.verify().ok)
        True

        :raises ImageError: a file cannot be opened or read.
        :raises UsageError: a path in ``changed`` is in neither image.
        """
        from cosremaster.verification.run import verify  # noqa: PLC0415 - a remaster needs none of it

        paths = [os.fsencode(path).strip(b"/") for path in changed]
        report = verify(
            self.path, against=against, changed=paths, changed_volume=changed_volume, deep=deep,
            max_expand=self._session.max_expand, progress=progress,
        )  # fmt: skip
        if not digest:
            return report
        from cosremaster.verification.digest_files import check_digest_files  # noqa: PLC0415 - the same

        return report.with_findings(check_digest_files(self.path, progress or SilentProgress()))

    def diff(
        self, other: Image, address: str = "", other_address: str | None = None, *, text: bool = False
    ) -> Iterator[Difference]:
        """Yield the differences of ``other`` from this image, by meaning: boot records, files, entries of archives.

        ``address``: compare only what is there, with ``other_address`` in ``other``, the same address when None.
        ``text``: with a unified diff of text files.

        >>> import cosremaster
        >>> with cosremaster.open("vendor.iso") as old, cosremaster.open("vendor.iso") as new:
        ...     print(list(old.diff(new)))
        []

        :raises LayerError: nothing is there. :raises CorruptError: an archive is damaged.
        """
        from cosremaster.browse.compare import compare_nodes  # noqa: PLC0415 - as all of browse: a remaster needs none

        old = self._session.open_side(address)
        new = other._session.open_side(address if other_address is None else other_address, old.container)
        yield from compare_nodes(old, new, text=text)

    def write_page(
        self, target: StrPath, *, against: ImagePath | None = None, changed: Collection[str | bytes] = (),
        force: bool = False, progress: Progress | None = None,
    ) -> None:  # fmt: skip
        """Write everything about the image to ``target`` as an HTML page of one file (docs/html.md).

        ``against``: the image that it was made from, for what changed; ``changed``: boot images that were meant to.
        ``force`` replaces an existing target. :raises CorruptError: a layer is damaged.
        """
        from cosremaster.reports.build import write_overview  # noqa: PLC0415 - a remaster needs none of it

        paths = [os.fsencode(path).strip(b"/") for path in changed]
        write_overview(
            self.path, target, against=against, changed=paths, force=force, max_expand=self._session.max_expand,
            progress=progress,
        )  # fmt: skip

    def check_digest(self, name: str, digits: str, *, progress: Progress | None = None) -> None:
        """Read the whole image and compare its digest ``name`` with the hexadecimal ``digits``.

        :raises ImageError: the digest differs. :raises UsageError: there is no such digest.
        """
        self._session.opened.expect(name, digits, progress=progress)

    def check_unchanged(self) -> None:
        """Compare size and time of the image's file, or what its server tells of it, with those at the opening.

        :raises ImageError: it is another now.
        """
        self._session.opened.check_unchanged()

    def _expect(self, digests: Iterable[str], progress: Progress | None) -> None:
        """Compare the image with ``digests``, as in ``sha256:HEX``. Raises as :meth:`check_digest`."""
        from cosremaster.remastering.output_options import OutputOptions  # noqa: PLC0415 - rarely asked for by itself

        for name, digits in OutputOptions(expect=digests).expected_digests():
            self.check_digest(name, digits, progress=progress)

    @contextmanager
    def _changing(self, request: Request, target: str) -> Iterator[tuple[OpenedImage, Request]]:
        """Give the image that ``request`` changes, and what remains of the request.

        That is the image itself, or its root as a new tar archive where the name ``target`` says so.
        """
        opened = self._session.opened
        image = opened.image
        if ".t" not in target.lower():  # this module is not loaded for an ISO
            yield opened, request
            return
        from cosremaster.api.new_tar import layer_to_take, makes_tar, open_as_tar  # noqa: PLC0415 - few ask for a tar

        if not makes_tar(image, target):
            yield opened, request
            return
        from cosremaster.layers.address import ROOT_NAME  # noqa: PLC0415 - a remaster needs none
        from cosremaster.records.lazy_dataclass import replace  # noqa: PLC0415 - the same

        layer, warnings, session = layer_to_take(request), list[str](), self._session
        root = None if layer else session.find_root()[0]
        merged = None if root is None else session.enter_merged_root(root, warnings.append)
        reference = merged or session.enter_tree(layer or ROOT_NAME)
        with open_as_tar(reference, session.source, self.path, warnings, keeps_parts=session.remember) as archive:
            yield archive, replace(request, layer=None)

    def _write(self, table: PieceTable, target: Path, force: bool, progress: Progress) -> None:
        """Write ``table`` to the new file ``target``."""
        from cosremaster.io.output import Output  # noqa: PLC0415 - browsing needs none of it

        source = self._session.source
        with Output(target, source.local_paths, force=force) as output:
            with begin_work(progress, f"write {target}", table.length, COPY, "extract") as advance:
                output.write(table, None, advance)
            source.check_unchanged()
            output.publish()


def open(  # noqa: A001 - as gzip.open
    path: ImagePath, *, remember: bool = True, check_index: bool = False, max_expand: int = MAX_EXPAND,
    progress: Progress | None = None,
) -> Image:  # fmt: skip
    """Open the image at ``path``, which may be a URL; the arguments are those of :class:`Image`.

    :raises ImageError: it cannot be read, or is neither an ISO 9660 image nor an archive.
    """
    image = Image(path, remember=remember, check_index=check_index, max_expand=max_expand, progress=progress)
    assert image._session.opened
    return image
