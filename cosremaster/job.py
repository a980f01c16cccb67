"""The whole remaster: a request, an opened image that serves any number of them, and what came of it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cosremaster import cpio
from cosremaster.bare import is_bare
from cosremaster.errors import UsageError, show
from cosremaster.files import FileSource, Spool
from cosremaster.iso.encode import MAX_EXTENT, unchanged_plan
from cosremaster.layers.address import Address, format_address, parse_address
from cosremaster.layers.edit import apply_edits
from cosremaster.layers.index import MAX_EXPAND, Effort
from cosremaster.nodes import Action, Edits
from cosremaster.output import DIGESTS, Output
from cosremaster.overlay.request import Add, read_additions
from cosremaster.parallel import cores
from cosremaster.pieces import PieceTable
from cosremaster.pipeline import (
    Found,
    PackedLayer,
    Packing,
    Plan,
    choose_layer,
    find_layers,
    found_again,
    open_image,
    pack_holders,
    pack_layer,
    plan_overlay,
    plan_result,
    row_warnings,
    size_warnings,
    whole_file,
    write_image,
)
from cosremaster.progress import Progress, Silent
from cosremaster.remembered import index_path, recall, remember


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be done to an image.

    ``add``: files and directories, as :class:`Add`, a path, or text like ``"site/:/opt"``; ``remove``: paths
    inside the layer. ``layer``: an address as in ``"live.cgz::rootfs.cxz"``, found by content when None.
    ``source_date_epoch`` (seconds; the environment's SOURCE_DATE_EPOCH when None) bounds new mtimes.
    ``threads``: as many as there are processors when None. ``xz_preset``: 0 to 9 for what xz has to encode, 6
    when None; ``always_compress``: also what does not shrink.
    """

    add: Iterable[str | Path | Add] = ()
    remove: Iterable[str | bytes] = ()
    layer: str | None = None
    threads: int | None = None
    xz_preset: int | None = None
    always_compress: bool = False
    source_date_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class _Settled:
    """A request with its defaults filled in and its texts read."""

    adds: tuple[Add, ...]
    removes: tuple[bytes, ...]
    wanted: Address | None
    threads: int
    newest: int | None

    @property
    def empty(self) -> bool:
        """Nothing is asked for but a copy."""
        return not self.adds and not self.removes and self.wanted is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a remaster did. Paths are bytes, relative to the layer's root; sizes are bytes.

    ``packed``: the layers packed again, the inner first, with how many of their compressed bytes were kept.
    ``proof``: what was found true of the finished image, a line each. ``identical``: nothing had to change,
    the output is the input byte for byte.
    """

    layer: str | None
    added: tuple[bytes, ...] = ()
    replaced: tuple[bytes, ...] = ()
    removed: tuple[bytes, ...] = ()
    unchanged: tuple[bytes, ...] = ()
    parents: tuple[bytes, ...] = ()
    input_size: int
    output_size: int
    layer_file: str | None = None
    layer_file_size: int = 0
    packed: tuple[PackedLayer, ...] = ()
    warnings: tuple[str, ...] = ()
    proof: tuple[str, ...]
    identical: bool


class OpenedImage:
    """An image that was opened once and serves any number of remasters, from several threads.

    Its layers are indexed when first needed, once. Closes with its context. ``remember``: use and keep what
    indexing learned in the user's cache directory; ``check_index``: before using it, compare the SHA-256 of the
    files of the image that it describes. ``max_expand``: a layer that expands by more is taken for a bomb.
    """

    def __init__(
        self, source: str | Path, *, remember: bool = True, check_index: bool = False, max_expand: int = MAX_EXPAND
    ) -> None:
        self.path = Path(source)
        self._remember = remember
        self._check_index = check_index
        self._effort = Effort(max_expand=max_expand)
        self._file = FileSource(self.path)
        try:
            self.image = open_image(self._file)
        except BaseException:
            self._file.close()
            raise
        self._found: dict[bytes | None, Found] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> OpenedImage:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def remembered_at(self) -> Path | None:
        """The file that remembers this image's index; None where there is none."""
        path = index_path(self._file)
        return path if path.exists() else None

    def address_in(self, layer: str) -> Address:
        """The layer that ``layer`` means in this image. A bare initramfs is the first container itself.

        :raises UsageError: it is no address.
        """
        address = parse_address(layer)
        name = self.image.files[0].path if is_bare(self.image) else None
        return address if name is None or address[0] == name else (name, *address)

    def layers(self, layer: str | None = None, progress: Progress | None = None) -> Found:
        """The layers of the image, or of the file that ``layer`` names. Raises as ``find_layers``."""
        wanted = None if layer is None else self.address_in(layer)
        key = None if wanted is None else wanted[0]
        with self._lock:
            if key not in self._found:
                self._found[key] = self._find(wanted, progress or Silent())
            return self._found[key]

    def _find(self, wanted: Address | None, progress: Progress) -> Found:
        """The layers, from a remembered index where one fits."""
        known = recall(self._file, self.image, check=self._check_index) if self._remember else None
        if known is not None:
            files = [one for one in known.files if wanted is None or one.path == wanted[0]]
            if files or wanted is None:
                return found_again(self.image, files, known.others)
        found = find_layers(self.image, wanted, progress, self._effort)
        if self._remember and wanted is None and not found.refused:
            remember(self._file, found.files, found.others)
        return found

    def remaster(
        self,
        target: str | Path,
        request: Request,
        *,
        force: bool = False,
        digest: str | None = None,
        progress: Progress | None = None,
    ) -> Result:
        """Writes the image to ``target`` as ``request`` wants it.

        ``force`` replaces an existing target. ``digest`` (``sha256`` or ``md5``) writes ``TARGET.sha256`` beside
        it, as sha256sum does. :raises CosremasterError: one of its kinds; the target is then not there.
        """
        progress = progress or Silent()
        settled = _settle(request)
        if digest is not None and digest not in DIGESTS:
            raise UsageError(f"no digest is called {digest!r}; there are {', '.join(DIGESTS)}")
        with (
            Output(Path(target), (self.path,), force=force, digest=digest) as output,
            Spool(output.folder, MAX_EXTENT) as spool,
        ):
            plan = self._plan(request, settled, spool, progress)
            proof = write_image(self.image, plan.result, output, self._file, progress)
        return _result(plan, proof)

    def plan(self, request: Request, *, progress: Progress | None = None) -> Plan:
        """What :meth:`remaster` would write. Packs what has to be packed, into a temporary file that goes away."""
        with Spool(Path(tempfile.gettempdir()), MAX_EXTENT) as spool:
            return self._plan(request, _settle(request), spool, progress or Silent())

    def _plan(self, request: Request, settled: _Settled, spool: Spool, progress: Progress) -> Plan:
        if settled.empty:
            nothing = Edits(frozenset(), (), (), (), ())
            return Plan(
                image=self.image, layer=None, edits=nothing, packed=(), result=unchanged_plan(self.image), warnings=()
            )
        # What is wrong with the additions is told before the long work.
        additions, notes = read_additions(settled.adds, settled.newest, cpio.MAX_FIELD)
        found = self.layers(request.layer, progress)
        wanted = None if request.layer is None else self.address_in(request.layer)
        chosen = choose_layer(self.image, found, wanted)
        edits = plan_overlay(chosen, additions, settled.removes)
        packed: tuple[PackedLayer, ...] = ()
        exchanged: dict[bytes, PieceTable] = {}
        if not edits.empty:
            packing = Packing(
                spool=spool,
                threads=settled.threads,
                progress=progress,
                preset=request.xz_preset,
                always_compress=request.always_compress,
            )
            inner = pack_layer(chosen, apply_edits(chosen, edits), packing)
            packed = pack_holders(chosen, inner, packing)
            exchanged[chosen.address[0]] = whole_file(chosen, packed[-1])
        result = plan_result(self.image, self._file, exchanged)
        warnings = (*notes, *edits.warnings, *row_warnings(chosen, found, edits))
        warnings = (*warnings, *size_warnings(self.image, exchanged))
        for warning in warnings:
            progress.warn(warning)
        return Plan(image=self.image, layer=chosen, edits=edits, packed=packed, result=result, warnings=warnings)


def open(source: str | Path, *, remember: bool = True, check_index: bool = False) -> OpenedImage:  # noqa: A001
    """The image ``source``, opened, as :class:`OpenedImage` tells.

    :raises ImageError: it cannot be read, or is no ISO 9660 image.
    """
    return OpenedImage(source, remember=remember, check_index=check_index)


def remaster(
    source: str | Path,
    target: str | Path,
    *,
    add: Iterable[str | Path | Add] = (),
    remove: Iterable[str | bytes] = (),
    layer: str | None = None,
    force: bool = False,
    threads: int | None = None,
    xz_preset: int | None = None,
    always_compress: bool = False,
    source_date_epoch: int | None = None,
    digest: str | None = None,
    remember: bool = True,
    check_index: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Writes the image ``source`` to ``target`` with files added to its root filesystem.

    The arguments are those of :class:`Request`, :class:`OpenedImage` and :meth:`OpenedImage.remaster`.

    :raises CosremasterError: one of its kinds (docs/exit-codes.md); the target is then not there.
    """
    request = Request(
        add=add, remove=remove, layer=layer, threads=threads, xz_preset=xz_preset, always_compress=always_compress,
        source_date_epoch=source_date_epoch,
    )  # fmt: skip
    with open(source, remember=remember, check_index=check_index) as image:
        return image.remaster(target, request, force=force, digest=digest, progress=progress)


def _settle(request: Request) -> _Settled:
    """:raises UsageError: the request makes no sense."""
    threads = cores() if request.threads is None else request.threads
    if threads < 1:
        raise UsageError(f"{threads} threads cannot do anything")
    if request.xz_preset is not None and request.xz_preset not in range(10):
        raise UsageError(f"xz has presets 0 to 9, not {request.xz_preset}")
    return _Settled(
        adds=tuple(_as_add(item) for item in request.add),
        removes=tuple(os.fsencode(path) for path in request.remove),
        wanted=None if request.layer is None else parse_address(request.layer),
        threads=threads,
        newest=_newest() if request.source_date_epoch is None else request.source_date_epoch,
    )


def _result(plan: Plan, proof: tuple[str, ...]) -> Result:
    image, layer, edits = plan.image, plan.layer, plan.edits
    outer = None if layer is None else layer.address[0]
    sizes = {file.path: file.size for file in image.files} | dict(plan.result.changed)
    return Result(
        layer=None if layer is None else format_address(layer.address),
        added=edits.paths(Action.ADDED), replaced=edits.paths(Action.REPLACED), removed=edits.removed,
        unchanged=edits.unchanged, parents=edits.paths(Action.PARENT),
        input_size=image.size, output_size=plan.result.table.length,
        layer_file=None if outer is None else show(outer), layer_file_size=0 if outer is None else sizes[outer],
        packed=plan.packed, warnings=plan.warnings, proof=proof, identical=plan.identical,
    )  # fmt: skip


def _as_add(item: str | Path | Add) -> Add:
    if isinstance(item, Add):
        return item
    return Add.parse(item) if isinstance(item, str) else Add(item)


def _newest() -> int | None:
    """SOURCE_DATE_EPOCH (reproducible-builds.org). :raises UsageError: it is set and no number."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds")
    return min(int(text), cpio.MAX_FIELD)
