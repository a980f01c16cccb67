"""The public face: an image with a method for everything that can be done with it, and functions for one-off use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cosremaster.errors import LayerError, UsageError
from cosremaster.io.urls import ImagePath, parse_image_path, split_image_path
from cosremaster.layers.scan import MAX_EXPAND, ScanOptions
from cosremaster.progress import COPY, Progress, SilentProgress, begin_work

if TYPE_CHECKING:
    from typing import TypedDict

    from typing_extensions import Unpack

    from cosremaster.api.info import ImageInfo, LayerInfo
    from cosremaster.api.results import Plan, Preparation, Result
    from cosremaster.api.views import Export, ExportKeywords, Extraction
    from cosremaster.browse.compare import Difference
    from cosremaster.browse.container import Container, NodeRef
    from cosremaster.browse.entry import FileEntry
    from cosremaster.browse.export import RootArchive
    from cosremaster.io.pieces import PieceTable
    from cosremaster.io.source import ByteSource
    from cosremaster.layers.address import Address
    from cosremaster.layers.find import ImageLayers
    from cosremaster.layers.kept_plain import PlainKeeper
    from cosremaster.layers.member_files import Keepers
    from cosremaster.layers.model import Layer
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
    expand by more than this ratio are refused as a bomb.

    >>> import cosremaster
    >>> with cosremaster.open("vendor.iso") as image:
    ...     print(image.read("vmlinuz")[:2])
    b'MZ'
    """

    def __init__(
        self, path: ImagePath, *, remember: bool = True, check_index: bool = False, max_expand: int = MAX_EXPAND
    ) -> None:
        """Remember the path or URL; the image is opened by the first method that reads it."""
        self.path = parse_image_path(path)
        self._remember, self._check_index, self._max_expand = remember, check_index, max_expand
        self._closing = ExitStack()
        self._lock = threading.RLock()
        self._source: ByteSource | None = None
        self._containers: dict[Address, tuple[Container, int]] = {}
        self._opened: OpenedImage | None = None

    def __enter__(self) -> Image:
        """Return the image itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the image."""
        self.close()

    def __reduce__(self) -> tuple[Callable[[], Image], tuple[()]]:
        """Return how another process makes the same image: it opens the path, with the same options."""
        make = partial(
            type(self), self.path, remember=self._remember, check_index=self._check_index, max_expand=self._max_expand
        )
        return make, ()

    def close(self) -> None:
        """Close the image, when the index of its layers is stored."""
        self._closing.close()

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
        from cosremaster.api.info import InfoParts, make_info  # noqa: PLC0415
        from cosremaster.boot_config.boot_menus import find_boot_menus  # noqa: PLC0415 - a remaster needs none of these
        from cosremaster.boot_memory.needs import (  # noqa: PLC0415
            estimate_image_memory,
            estimate_live_systems,
            estimate_packed_memory,
        )
        from cosremaster.iso.far_images import is_far  # noqa: PLC0415
        from cosremaster.layers.find import find_archive_files  # noqa: PLC0415

        opened = self._remastering
        image, layers, chosen, problem = opened.image, None, None, ""
        if deep or layer is not None:
            image_layers = opened.layers(layer, progress)
            layers = image_layers.layers
            chosen, problem = self._choose(image_layers, layer)
        menus = None if image.volume is None else find_boot_menus(image.volume, quick=not deep)
        loaded: Collection[bytes] = ()
        if menus is not None and is_far(image):  # else all files are looked at, whether a menu loads them or not
            from cosremaster.boot_config.boot_lines import list_loaded_files  # noqa: PLC0415

            loaded = list_loaded_files(menus.menus, image)
        archives, filesystems = find_archive_files(image, loaded)
        if layers is None:
            memory = estimate_packed_memory(
                (archive.path, archive.size) for archive in archives if archive.format.is_initramfs
            )
        else:
            memory = estimate_image_memory(image, layers)
        mounted = None
        if filesystems.roots:
            from cosremaster.layers.stacks import find_mounted_root  # noqa: PLC0415 - only live images have such roots

            mounted = find_mounted_root(image, opened.facts, [file.path for file in filesystems.roots])
        live_memory = () if mounted is None else estimate_live_systems(image, mounted.stack, opened.facts, memory)
        parts = InfoParts(image, archives, filesystems, layers, chosen, menus, memory, problem, mounted, live_memory)
        return make_info(parts)

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

        image_layers = self._remastering.layers(layer, progress)
        chosen, _ = self._choose(image_layers, layer)
        return layer_infos(self._remastering.image, image_layers.layers, chosen)

    @property
    def index_file(self) -> Path | None:
        """The file that keeps the index of the layers for later runs; None if there is none."""
        return self._remastering.remembered_at

    def names(self, address: str = "", *, recursive: bool = False, follow: bool = True) -> list[bytes]:
        """Return the names in the directory or archive at ``address``, sorted.

        ``recursive``: the paths of all below.
        """
        reference = self._enter(address, follow=follow)
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

        reference = self._enter(address, follow=False)
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

        reference = self._enter(address, follow=follow)
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

        reference = self._find(address, follow=follow)
        entry, node = entry_of(reference, extents=True), reference.node
        if not full:
            return entry
        contains = reference.container.kind if not node.path else None
        if node.path and is_container(node, reference.container):
            contains = enter_if_container(reference).container.kind
        digest = None if node.content is None else node.content.digest().hex()
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
        members = self._closing.enter_context(MemberKeeper())
        reference = self._enter(address, members=members)
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
        reference = self._find(address)
        if reference.node.content is None:
            raise LayerError(f"is a {reference.node.kind.noun}, which has no bytes", reference.place)
        yield from reference.node.content.table().chunks()

    def tar_chunks(self, address: str = "") -> Iterator[bytes]:
        """Yield a tar archive of what is at ``address``, in chunks."""
        from cosremaster.browse.extract import select_nodes  # noqa: PLC0415 - as all of browse: a remaster needs none
        from cosremaster.browse.tar import build_tar  # noqa: PLC0415 - the same

        yield from build_tar(select_nodes(self._enter(address))).table().chunks()

    def extract(
        self, address: str, target: StrPath, *, as_tar: bool = False, force: bool = False,
        progress: Progress | None = None,
    ) -> Extraction:  # fmt: skip
        """Write what is at ``address`` to the new folder ``target``, or to a tar archive.

        Nothing is written outside ``target``, which appears only when it is complete. Without root, owners and device
        nodes go to ``TARGET.mtree``, and extended attributes other than those of users are left out; a tar archive
        keeps everything. ``force`` replaces an existing archive.

        >>> import cosremaster
        >>> with cosremaster.open("vendor.iso") as image:
        ...     print(image.extract("debirf-live-demo.cgz::rootfs.cxz::etc", "etc").files)
        2

        :raises LayerError: nothing is there. :raises OutputError: the target cannot be written.
        """
        from cosremaster.api.views import Extraction  # noqa: PLC0415 - the same
        from cosremaster.browse.extract import extract_nodes, select_nodes  # noqa: PLC0415 - as all of browse: a remaster needs none
        from cosremaster.browse.tar import build_tar  # noqa: PLC0415 - the same

        target, progress = Path(target), progress or SilentProgress()
        nodes = select_nodes(self._enter(address))
        size = sum(node.content.size for node in nodes if node.content is not None)
        kinds = [node.kind.noun for node in nodes]
        if as_tar:
            table, made = build_tar(nodes).table(), None
            size = table.length
            self._write(table, target, force, progress)
        else:
            with begin_work(progress, f"extract to {target}", size, COPY, "extract") as advance:
                made = extract_nodes(nodes, target, advance)
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
        target, progress = Path(target), progress or SilentProgress()
        if archive is not None:
            return self._export_archive(target, address, archive, threads, force=force, progress=progress)
        from cosremaster.api.network_boot import plan_network_boot  # noqa: PLC0415 - a remaster needs none of it
        from cosremaster.api.views import Export  # noqa: PLC0415 - the same
        from cosremaster.browse.extract import extract_nodes  # noqa: PLC0415 - the same

        boot = plan_network_boot(self._enter(address).container, entry)
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

        return find_base_image(read_release(self._enter(ROOT_NAME).container))

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

        name = "" if target is None or delta else Path(target).name
        if not name and not delta and self._remastering.image.kind == "disk":
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

        name = "" if options.get("delta") else Path(target).name  # what a delta makes is what this image is
        with self._changing(request or Request(), name) as (opened, asked):
            if opened is not self._remastering:
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

        return self._remastering.prepare(request or Request(), progress=progress)[1]

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
        with self._changing(request, Path(target).name) as (opened, _):
            if opened is not self._remastering:
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
        """
        from cosremaster.verification.run import verify  # noqa: PLC0415 - a remaster needs none of it

        paths = [os.fsencode(path).strip(b"/") for path in changed]
        report = verify(
            self.path, against=against, changed=paths, changed_volume=changed_volume, deep=deep,
            max_expand=self._max_expand, progress=progress,
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

        old = self._open_side(address)
        new = other._open_side(address if other_address is None else other_address, old.container)
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
            self.path, target, against=against, changed=paths, force=force, max_expand=self._max_expand,
            progress=progress,
        )  # fmt: skip

    def check_digest(self, name: str, digits: str, *, progress: Progress | None = None) -> None:
        """Read the whole image and compare its digest ``name`` with the hexadecimal ``digits``.

        :raises ImageError: the digest differs. :raises UsageError: there is no such digest.
        """
        self._remastering.expect(name, digits, progress=progress)

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
        opened = self._remastering
        image = opened.image
        if ".t" not in target.lower():  # this module is not loaded for an ISO
            yield opened, request
            return
        from cosremaster.api.new_tar import layer_to_take, makes_tar, open_as_tar  # noqa: PLC0415 - few ask for a tar

        if not makes_tar(image, target):
            yield opened, request
            return
        from dataclasses import replace  # noqa: PLC0415 - takes time to load

        from cosremaster.layers.address import ROOT_NAME  # noqa: PLC0415 - a remaster needs none

        layer = layer_to_take(request)
        reference = self._enter(layer or ROOT_NAME)
        with open_as_tar(reference, self._browsing, self.path, keeps_parts=self._remember) as archive:
            yield archive, replace(request, layer=None)

    @property
    def _remastering(self) -> OpenedImage:
        """The image with its structures read."""
        with self._lock:
            if self._opened is None:
                from cosremaster.remastering.image import OpenedImage  # noqa: PLC0415 - browsing needs none of it

                opened = OpenedImage(
                    self.path, remember=self._remember, check_index=self._check_index, max_expand=self._max_expand
                )
                self._opened = self._closing.enter_context(opened)
            return self._opened

    @property
    def _browsing(self) -> ByteSource:
        """The image as bytes."""
        with self._lock:
            if self._source is None:
                from cosremaster.io.source import open_source  # noqa: PLC0415 - a remaster opens it by itself

                self._source = self._closing.enter_context(open_source(self.path))
            return self._source

    def _choose(self, image_layers: ImageLayers, layer: str | None) -> tuple[Layer | None, str]:
        """Return the layer that additions go to; None and the reason where there is none."""
        from cosremaster.layers.find import choose_layer  # noqa: PLC0415 - browsing needs none of it

        opened = self._remastering
        try:
            address = None if layer is None else opened.address_in(layer)
            return choose_layer(opened.image, image_layers, address, opened.facts), ""
        except LayerError as error:
            return None, error.message

    def _parse(self, address: str) -> Address:
        """Return ``address`` in this image as the parts of a path through its containers.

        :raises LayerError: it begins with ``@root``, and there is no root file system, or several.
        """
        from cosremaster.layers.address import ROOT_NAME, parse_address  # noqa: PLC0415 - a remaster needs none

        parts: Address = parse_address(address) if address else ()
        if address.partition("::")[0] != ROOT_NAME:
            return parts
        return (*self._address_inside(self._choose_root()), *parts[1:])

    def _choose_root(self, keeper: PlainKeeper | None = None) -> Layer:
        """Return the root file system; ``keeper``: keeps plain bytes that are decoded for it.

        :raises LayerError: there is none, or there are several.
        """
        from cosremaster.layers.find import choose_layer  # noqa: PLC0415 - a remaster needs none of it

        opened = self._remastering
        return choose_layer(opened.image, opened.layers(keeper=keeper), None, opened.facts)

    def _address_inside(self, layer: Layer) -> Address:
        """Return the address inside the image of all that the file of ``layer`` unpacks to."""
        from cosremaster.layers.address import without_numbers  # noqa: PLC0415 - a remaster needs none of it

        address = without_numbers(layer.address)
        return address[1:] if self._remastering.image.is_single_file else address

    def _enter_root(self, keeper: PlainKeeper) -> NodeRef:
        """Return the root directory of the root file system; where it was indexed, that is not done again.

        ``keeper``: keeps plain bytes that are decoded for it.
        """
        from cosremaster.browse import container as containers  # noqa: PLC0415 - a remaster needs none
        from cosremaster.layers.address import ROOT_NAME  # noqa: PLC0415 - the same

        layer = self._choose_root(keeper)
        own = os.fsencode(self._browsing.name)
        container = containers.container_of(layer, (own, *self._address_inside(layer)))
        if container is None:
            return self._enter(ROOT_NAME)
        return containers.NodeRef(container, containers.ROOT)

    def _find(self, address: str, *, follow: bool = True, enters: bool = False, **keepers: Unpack[Keepers]) -> NodeRef:
        """Return the node at ``address``; ``keepers`` keep what is decoded on the way.

        ``enters``: the root of the archive, if it is one.
        """
        from cosremaster.browse import container as containers  # noqa: PLC0415 - a remaster needs none

        parts, members = self._parse(address), keepers.get("members")
        options = containers.ALONE._replace(max_expand=self._max_expand, **keepers)
        inner = parts if enters else parts[:-1]
        with self._lock:
            way = containers.open_once(self._containers, self._browsing, parts, options, inner)
        node = containers.follow(*way, last=follow, inner=inner, members=members)
        return containers.enter_if_container(node, members=members) if enters else node

    def _enter(self, address: str, *, follow: bool = True, **keepers: Unpack[Keepers]) -> NodeRef:
        """Return the node at ``address``, or the root of the archive that it is; ``keepers`` as in :meth:`_find`."""
        return self._find(address, follow=follow, enters=True, **keepers)

    def _open_side(self, address: str, beside: Container | None = None) -> NodeRef:
        """Return the node at ``address`` for a comparison, in containers that know digests."""
        from cosremaster.browse.container import enter_if_container, follow, open_container  # noqa: PLC0415 - a remaster needs none

        options = ScanOptions(digests=True, nesting=0, edits=False, max_expand=self._max_expand)
        parts = self._parse(address)
        return enter_if_container(follow(*open_container(self._browsing, parts, options, beside)), beside)

    def _write(self, table: PieceTable, target: Path, force: bool, progress: Progress) -> None:
        """Write ``table`` to the new file ``target``."""
        from cosremaster.io.output import Output  # noqa: PLC0415 - browsing needs none of it

        source = self._browsing
        with Output(target, source.local_paths, force=force) as output:
            with begin_work(progress, f"write {target}", table.length, COPY, "extract") as advance:
                output.write(table, None, advance)
            source.check_unchanged()
            output.publish()

    def _export_archive(
        self, target: Path, address: str, archive: RootArchive, threads: int | None, *, force: bool, progress: Progress
    ) -> Export:  # fmt: skip
        """Write the root file system at ``address``, or that of the whole image, as ``archive`` says."""
        from cosremaster.api.root_export import pack_archive, upload_command  # noqa: PLC0415 - a remaster needs none of it
        from cosremaster.api.views import Export  # noqa: PLC0415 - the same
        from cosremaster.codecs.gzip.deflate import check_coder  # noqa: PLC0415 - the same
        from cosremaster.io.output import Output  # noqa: PLC0415 - the same
        from cosremaster.io.parallel import cpu_count  # noqa: PLC0415 - the same
        from cosremaster.io.spool import Spool  # noqa: PLC0415 - the same
        from cosremaster.layers.address import ROOT_NAME  # noqa: PLC0415 - the same
        from cosremaster.layers.kept_plain import PlainKeeper  # noqa: PLC0415 - the same

        check_coder(archive.gzip)
        source = self._browsing
        digested = Output(target, source.local_paths, force=force, digest="sha256")
        with digested as output, Spool(output.folder) as spool, PlainKeeper(output.folder) as keeper:
            is_root = address in ("", ROOT_NAME)
            reference = self._enter_root(keeper) if is_root else self._enter(address, keeper=keeper)
            table = pack_archive(reference, archive, spool, threads or cpu_count(), progress)
            output.write(table, None, lambda count: None)
            digest = output.written_digest
            source.check_unchanged()
            if is_root:
                self._remastering.check_unchanged()
            command = upload_command(archive, reference, str(target), table.length, digest)
            output.publish()
        return Export(
            files=(str(target), f"{target}.sha256"), size=table.length, sha256=digest.hex(), command=command,
            layer=reference.address,
        )  # fmt: skip


def open(  # noqa: A001 - as gzip.open
    path: ImagePath, *, remember: bool = True, check_index: bool = False, max_expand: int = MAX_EXPAND
) -> Image:
    """Open the image at ``path``, which may be a URL; the arguments are those of :class:`Image`.

    :raises ImageError: it cannot be read, or is neither an ISO 9660 image nor an archive.
    """
    image = Image(path, remember=remember, check_index=check_index, max_expand=max_expand)
    assert image._remastering
    return image


def inspect(
    source: ImagePath, *, deep: bool = False, layer: str | None = None, max_expand: int = MAX_EXPAND,
    progress: Progress | None = None,
) -> ImageInfo:  # fmt: skip
    """Return the facts about the image ``source``; see :meth:`Image.info`.

    >>> import cosremaster
    >>> print(cosremaster.inspect("vendor.iso").volume_id)
    DEBIRF_DEMO
    """
    with Image(source, max_expand=max_expand) as image:
        return image.info(deep=deep, layer=layer, progress=progress)


if TYPE_CHECKING:

    class VerifyKeywords(TypedDict, total=False):
        """The keywords of :meth:`Image.verify`."""

        against: ImagePath | None
        changed: Collection[str | bytes]
        changed_volume: bool
        deep: bool
        digest: bool


def verify(
    source: ImagePath, *, max_expand: int = MAX_EXPAND, progress: Progress | None = None,
    **options: Unpack[VerifyKeywords],
) -> VerificationReport:  # fmt: skip
    """Check every pointer of the image ``source``; see :meth:`Image.verify`.

    >>> import cosremaster
    >>> report = cosremaster.verify("vendor.iso", deep=True)
    >>> print(report.ok, [finding.message for finding in report.findings if finding.is_counted])
    True []
    """
    with Image(source, max_expand=max_expand) as image:
        return image.verify(progress=progress, **options)


def diff(
    old: StrPath, new: StrPath, *, text: bool = False, max_expand: int = MAX_EXPAND
) -> Iterator[Difference]:  # fmt: skip
    """Yield how ``new`` differs from ``old``: two images, or addresses in them; see :meth:`Image.diff`.

    >>> import cosremaster
    >>> result = cosremaster.remaster("vendor.iso", "site.iso", add=["site/"])
    >>> for difference in cosremaster.diff("vendor.iso", "site.iso"):
    ...     print(difference.what, difference.where, difference.details)
    added debirf-live-demo.cgz::rootfs.cxz::etc/motd ('file, 8 bytes',)
    """
    with (
        image_at(old, max_expand=max_expand) as (image, address),
        image_at(new, max_expand=max_expand) as (other, new_address),
    ):
        yield from image.diff(other, address, new_address, text=text)


def extract(
    address: StrPath, target: StrPath, *, as_tar: bool = False, force: bool = False, max_expand: int = MAX_EXPAND,
    progress: Progress | None = None,
) -> Extraction:  # fmt: skip
    """Write what is at ``address``, as in ``"in.iso::live.cgz::etc"``, to ``target``; see :meth:`Image.extract`."""
    with image_at(address, max_expand=max_expand) as (image, inner):
        return image.extract(inner, target, as_tar=as_tar, force=force, progress=progress)


def export(
    address: StrPath, target: StrPath, *, max_expand: int = MAX_EXPAND, progress: Progress | None = None,
    **options: Unpack[ExportKeywords],
) -> Export:  # fmt: skip
    """Write what a network boot, or MAAS, takes of what is at ``address``.

    Options and the rest are those of :meth:`Image.export`: ``archive``, ``entry``, ``threads``, ``force``.
    """
    with image_at(address, max_expand=max_expand) as (image, inner):
        return image.export(target, address=inner, progress=progress, **options)


def ls(address: StrPath, *, recursive: bool = False, max_expand: int = MAX_EXPAND) -> tuple[FileEntry, ...]:
    """Return the entries of the directory or archive at ``address``; see :meth:`Image.ls`.

    >>> import cosremaster
    >>> print([entry.path for entry in cosremaster.ls("vendor.iso")])
    [b'EFI', b'boot', b'debirf-live-demo.cgz', b'vmlinuz']
    """
    with image_at(address, max_expand=max_expand) as (image, inner):
        return image.ls(inner, recursive=recursive)


def read(address: StrPath, *, max_expand: int = MAX_EXPAND) -> bytes:
    """Return the bytes of the file at ``address``, as in ``"in.iso::live.cgz::etc/hostname"``.

    See :meth:`Image.read`.
    """
    with image_at(address, max_expand=max_expand) as (image, inner):
        return image.read(inner)


@contextmanager
def image_at(address: StrPath, *, max_expand: int = MAX_EXPAND) -> Iterator[tuple[Image, str]]:
    """Open the image that ``address`` begins with, and give it with the rest of the address.

    :raises UsageError: ``address`` cannot be parsed.
    """
    from cosremaster.browse.container import split_address  # noqa: PLC0415 - a remaster needs none of it

    text = os.fspath(address)
    path, _ = split_address(text)
    with Image(path, max_expand=max_expand) as image:
        yield image, split_image_path(text)[2]
