"""The request for a remaster: as the user writes it, and normalized, with texts parsed and defaults filled in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

from cosremaster.boot_config.request import BootSettings, read_boot_settings
from cosremaster.errors import LayerError, UsageError
from cosremaster.io.parallel import cpu_count
from cosremaster.iso.model import SourceImage
from cosremaster.layers.address import Address, parse_address
from cosremaster.layers.formats import Repacking
from cosremaster.lazy_log import LazyLogger
from cosremaster.lazy_regex import lazy_regex
from cosremaster.overlay.addition import PreparedItem
from cosremaster.overlay.patterns import Pattern, parse_inner_pattern
from cosremaster.overlay.request import AddPath, OverlayItem, RunScript
from cosremaster.records import Struct, replace
from cosremaster.records.lazy_dataclass import dataclass
from cosremaster.remastering.fat_request import FatRequest, split_iso_request
from cosremaster.remastering.iso_tree import IsoTreeRequest, Rename
from cosremaster.remastering.select_layers import LayerSelector
from cosremaster.tree.limits import MAX_NUMBER
from cosremaster.tree.nodes import resolve_links
from cosremaster.tree.paths import SymlinkLoopError
from cosremaster.tree.superseding import SupersedeMode
from cosremaster.units import BLOCK

if TYPE_CHECKING:
    from cosremaster.io.source import ByteSource


_LOG = LazyLogger(__name__)
_MAX_ALIGNMENT = 1 << 20  # bytes
_SIZE = lazy_regex(r"([0-9]{1,9})([kKmM]?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The changes that a remaster makes to an image.

    ``add``: additions to the root file system, in order: an :class:`AddPath`, a path, text like ``"site/:/opt"``, or
    items made from nothing: :class:`InlineFile`, :class:`Symlink`, :class:`Directory`, or a :class:`RunScript`, whose
    changes count as additions. ``run``: scripts (paths) and commands (other texts) that run when all is added
    (docs/run.md). ``remove``: patterns of paths in
    the layer that are removed before anything is added (``*`` and ``?`` do not cross ``/``, ``**`` does, a backslash
    takes the next character literally); a pattern that matches nothing is an error unless ``allow_missing``.
    ``force_type``: additions may replace entries of another type, a directory with its contents. ``maas_clean``: remove
    what belongs to one machine alone, before anything is added (docs/usage.md lists it).

    ``add_iso``: additions to the ISO's own tree, like ``add``; an existing file gets the new bytes. ``remove_iso``:
    patterns of paths that are removed from that tree first; ``rename_iso``: then other names, ``"/old:/new"`` or a pair
    (docs/iso-tree.md). A path such as ``/EFI/efiboot.img::/EFI/BOOT`` leads into a FAT file system (docs/fat.md).

    ``drop_hfsplus`` allows to give up an HFS+ file system over the tree. ``keep_sums``: leave
    lists of checksums on the ISO, such as md5sum.txt, as they are, though their lines for changed files become wrong.
    ``drop_signatures``: remove signatures and dm-verity hashes beside files that change, and the kernel arguments that
    demand them (docs/squashfs.md).
    ``keep_fat_copies``: leave copies of changed files in FAT file systems as they are (docs/fat.md).

    ``layer``: the address of the layer to change, as in ``"live.cgz::rootfs.cxz"``, a pattern of addresses, ``"all"``
    for every layer like a system, or several of these; None finds the root file system by content.
    ``as_layer``: a name for a new layer that the changes go to; the file systems of the root stay as they are and lie
    under it (docs/squashfs.md).
    ``source_date_epoch``: seconds since 1970; new modification times are not later; None takes the environment's
    SOURCE_DATE_EPOCH. ``threads``: None for one per processor. ``xz_preset``: 0 to 9, the effort for what xz has to
    encode; None for 6. ``gzip``: what packs gzip, ``"zlib"`` or the faster ``"isal"``, which has to be installed and
    makes more bytes. ``always_compress``: let xz compress also data that do not shrink. New blocks of a squashfs are
    packed as its old ones.

    ``repack_metadata``: write all metadata of a squashfs layer anew, so that names of removed files go; ``repack``:
    move its data together too, so that removed files can no longer be read (docs/squashfs.md). Both work without other
    changes.

    ``supersede``: ``"auto"``, ``"never"`` or ``"always"``: whether replaced entries of a cpio archive stay in it, so
    that what stands behind them needs no compression again (docs/formats.md).

    ``align``: bytes, such as 4096 or ``"4K"``: data that have to move on an ISO move by a multiple of so many, so that
    file systems can share them with the input (docs/fleet.md).

    ``kernel_args``, ``remove_kernel_args`` and ``replace_kernel_args`` (``"KEY=OLD=NEW"``) change kernel arguments in
    every boot menu (docs/kernel-args.md); ``allow_missing`` holds for arguments to remove or replace too. ``volume_id``
    and ``volume_date`` (ISO 8601 with time zone, or ``"@seconds"``) change the volume; ``retarget``: boot menus that
    search for the volume by its old id or date search for the new one.
    """

    add: Iterable[str | os.PathLike[str] | OverlayItem] = ()
    remove: Iterable[str | bytes] = ()
    add_iso: Iterable[str | os.PathLike[str] | OverlayItem] = ()
    remove_iso: Iterable[str | bytes] = ()
    rename_iso: Iterable[str | tuple[str, str]] = ()
    drop_hfsplus: bool = False
    keep_sums: bool = False
    keep_fat_copies: bool = False
    drop_signatures: bool = False
    allow_missing: bool = False
    force_type: bool = False
    maas_clean: bool = False
    layer: str | Iterable[str] | None = None
    as_layer: str | None = None
    threads: int | None = None
    xz_preset: int | None = None
    always_compress: bool = False
    gzip: str = "zlib"
    repack_metadata: bool = False
    repack: bool = False
    supersede: str = "auto"
    align: int | str | None = None
    source_date_epoch: int | None = None
    kernel_args: Iterable[str] = ()
    remove_kernel_args: Iterable[str] = ()
    replace_kernel_args: Iterable[str] = ()
    volume_id: str | None = None
    volume_date: str | None = None
    retarget: bool = False
    run: Iterable[str | os.PathLike[str] | RunScript] = ()


_LISTS = ("add", "remove", "add_iso", "remove_iso", "rename_iso", "kernel_args", "remove_kernel_args",
          "replace_kernel_args", "run")  # fmt: skip
"""The fields of a request that are lists alone."""


class NormalizedRequest(Struct, frozen=True, kw_only=True):
    """A :class:`Request` whose texts are parsed and whose defaults are filled in; every step reads this one value.

    ``codec``: that of the output, where its name says another than that of an input which is one archive.
    ``layers``: the layers that are named; none finds the root file system by content. ``max_mtime``: seconds since
    1970; None for no limit. ``step``: data on an ISO move by multiples of so many blocks. ``part_size``: of a
    preparation, which cuts layers into parts of so many bytes at most; None for another request.
    """

    additions: tuple[OverlayItem, ...]
    removals: tuple[Pattern, ...]
    iso_additions: tuple[OverlayItem, ...]
    iso_removals: tuple[Pattern, ...]
    fats: tuple[FatRequest, ...]
    iso_renames: tuple[Rename, ...]
    drop_hfsplus: bool
    keep_checksums: bool
    keep_fat_copies: bool
    drop_signatures: bool
    allow_missing: bool
    force_type: bool
    maas_clean: bool
    layers: tuple[LayerSelector, ...]
    as_layer: bytes | None
    threads: int
    xz_preset: int | None
    always_compress: bool
    gzip: str
    repacking: Repacking
    supersede: SupersedeMode
    step: int
    max_mtime: int | None
    boot_settings: BootSettings
    codec: str | None = None
    part_size: int | None = None

    @property
    def is_for_layer(self) -> bool:
        """The request names a layer, or changes one."""
        is_wanted = self.additions or self.removals or self.maas_clean or self.layers or self.repacking or self.codec
        return bool(is_wanted) or self._is_for_cleaning

    @property
    def _is_for_cleaning(self) -> bool:
        """``--supersede never`` is all that is asked: superseded entries of the root file system are to go."""
        tree = self.iso_additions or self.iso_removals or self.iso_renames or self.fats or self.drop_hfsplus
        is_sole = not tree and self.as_layer is None and self.boot_settings.is_empty
        return self.supersede is SupersedeMode.NEVER and self.part_size is None and is_sole

    def with_replaced_arguments(self, texts: Sequence[str]) -> NormalizedRequest:
        """Return this request with replacements of kernel arguments more, each as ``KEY=OLD=NEW``."""
        if not texts:
            return self
        further = read_boot_settings(replace=texts).replace
        settings = replace(self.boot_settings, replace=(*self.boot_settings.replace, *further))
        return replace(self, boot_settings=settings)

    def iso_tree(self, items: Sequence[PreparedItem]) -> IsoTreeRequest:
        """Return the part of the request about the ISO's own tree; ``items``: its additions, prepared."""
        return IsoTreeRequest(
            add=items, remove=self.iso_removals, rename=self.iso_renames, allow_missing=self.allow_missing,
            force_type=self.force_type,
        )  # fmt: skip


def normalize_request(request: Request, image: SourceImage) -> NormalizedRequest:
    """Return ``request`` for ``image`` with its texts parsed and its defaults filled in.

    :raises UsageError: a text cannot be parsed, a number is out of its range, options contradict each other, or a
        single value stands where several may.
    """
    for name in _LISTS:
        check_is_list(getattr(request, name), name)
    threads = cpu_count() if request.threads is None else request.threads
    if threads < 1:
        raise UsageError(f"{threads} threads cannot do anything")
    _LOG.debug("%s: up to %d threads", image.place, threads)
    if request.xz_preset is not None and request.xz_preset not in range(10):
        raise UsageError(f"xz has presets 0 to 9, not {request.xz_preset}")
    if request.gzip != "zlib":
        from cosremaster.codecs.gzip.deflate import check_coder  # noqa: PLC0415 - few ask for another coder

        check_coder(request.gzip)
    iso = split_iso_request([parse_item(item, "--add-iso") for item in request.add_iso], request.remove_iso)
    return NormalizedRequest(
        additions=(*(parse_item(item, "--add") for item in request.add), *map(parse_run, request.run)),
        removals=tuple(parse_inner_pattern(os.fsencode(path)) for path in request.remove),
        iso_additions=iso.additions, iso_removals=iso.removals, fats=iso.fats,
        iso_renames=tuple(Rename.parse(rename) for rename in request.rename_iso),
        drop_hfsplus=request.drop_hfsplus, keep_checksums=request.keep_sums,
        keep_fat_copies=request.keep_fat_copies, drop_signatures=request.drop_signatures,
        allow_missing=request.allow_missing,
        force_type=request.force_type, maas_clean=request.maas_clean,
        layers=parse_layers(request.layer, image), as_layer=_parse_layer_name(request),
        threads=threads, xz_preset=request.xz_preset, always_compress=request.always_compress, gzip=request.gzip,
        repacking=_choose_repacking(request), supersede=_parse_supersede(request.supersede),
        step=parse_alignment(request.align),
        max_mtime=read_epoch() if request.source_date_epoch is None else request.source_date_epoch,
        boot_settings=read_boot_settings(
            add=request.kernel_args, remove=request.remove_kernel_args, replace=request.replace_kernel_args,
            volume_id=request.volume_id, volume_date=request.volume_date, retarget=request.retarget,
            allow_missing=request.allow_missing,
        ),
    )  # fmt: skip


def check_is_list(values: object, name: str) -> None:
    """Check that the field ``name`` has several ``values``: a text is one of its letters. :raises UsageError: it is."""
    if isinstance(values, (str, bytes, os.PathLike, OverlayItem)):
        raise UsageError(f"{name} is a list, and {values!r} is none: {name}=[{values!r}] is one")


def parse_size(size: int | str, what: str = "block size") -> int:
    """Return the bytes that ``size`` means, as in ``256K``; ``what``: whose. :raises UsageError: it is no size."""
    if isinstance(size, int):
        return size
    match = _SIZE.fullmatch(size)
    if match is None:
        raise UsageError(f"{what} {size!r}: bytes, or a number with K or M are wanted, as in 256K")
    return int(match[1]) << {"": 0, "k": 10, "m": 20}[match[2].lower()]


def parse_alignment(size: int | str | None) -> int:
    """Return the blocks in the alignment ``size``; None: a single one. :raises UsageError: it is no power of two."""
    count = BLOCK if size is None else parse_size(size, "--align")
    if not BLOCK <= count <= _MAX_ALIGNMENT or count & (count - 1):
        raise UsageError(f"--align {size}: a power of two between 2K and 1M is wanted, such as 4096")
    return count // BLOCK


def _parse_supersede(text: str) -> SupersedeMode:
    """Return the mode called ``text``. :raises UsageError: there is none."""
    try:
        return SupersedeMode(text)
    except ValueError:
        modes = ", ".join(mode.value for mode in SupersedeMode)
        raise UsageError(f"--supersede knows {modes}, not {text!r}") from None


def _choose_repacking(request: Request) -> Repacking:
    """Return what ``request`` wants repacked."""
    if request.repack:
        return Repacking.DATA
    return Repacking.METADATA if request.repack_metadata else Repacking.NOTHING


def _parse_layer_name(request: Request) -> bytes | None:
    """Return the name of the new layer, None without. :raises UsageError: it is none, or layers are named besides."""
    if request.as_layer is None:
        return None
    if request.layer:
        raise UsageError("--as-layer makes a new layer over the root, so --layer cannot choose another")
    if request.repack or request.repack_metadata:
        raise UsageError("--as-layer leaves the file systems of the root as they are, so nothing of them is repacked")
    from cosremaster.layers.layer_names import check_layer_name  # noqa: PLC0415 - few ask for a new layer

    return check_layer_name(request.as_layer)


def find_new_codec(image: SourceImage, target: str) -> str | None:
    """Return the codec that the name ``target`` says of ``image``, an archive file, where the two names differ in it.

    A name that stays as it was changes nothing, whatever the file is in truth.

    :raises UsageError: the name says another kind of archive or image, a file system, a delta, or a codec of one that
        has none.
    """
    if target.lower().endswith(".vcdiff"):
        raise UsageError(f"{target}: the name says a delta, which --delta writes")
    from cosremaster.codecs.defaults import codec_in_name, initramfs_codec, kind_in_name  # noqa: PLC0415 - who looks at an image writes none

    own = os.path.basename(image.place.parts[0]) if image.volume else os.fsdecode(image.files[0].path)
    kind, codec = kind_in_name(target), codec_in_name(target)
    is_other_kind = kind not in (None, kind_in_name(own))
    if not is_other_kind and codec == codec_in_name(own):
        return None
    own_kind, has_codec = _identify_kind(image)
    if is_other_kind and kind != own_kind:
        raise UsageError(f"{target}: the name says {kind}, and {own} stays {_hint_at_kind(own_kind, kind)}")
    if not has_codec:
        if codec not in (None, "none"):
            raise UsageError(f"{target}: the name says {codec}, under which no {_noun_of(own_kind)} is written")
        return None
    if image.kind == "initramfs" and target.lower().endswith(".lz"):  # or LZMA there
        return None
    return initramfs_codec(codec) if image.kind == "initramfs" else codec


def _identify_kind(image: SourceImage) -> tuple[str, bool]:
    """Return the kind of ``image`` as ends of names say it, and whether it is or can be compressed as a whole."""
    if image.volume:
        return "iso", False
    from cosremaster.io.pieces import PieceTable  # noqa: PLC0415 - few outputs have another name than the input
    from cosremaster.layers.identify import identify_table  # noqa: PLC0415 - the same

    identified = identify_table(PieceTable([image.source]))
    assert identified.format is not None
    return identified.format.name, not identified.format.random_access or not identified.codec.is_identity


def _noun_of(kind: str) -> str:
    """Return the ``kind`` of an image for people."""
    return {"iso": "ISO image", "cpio": "cpio archive", "tar": "tar archive"}.get(kind, f"{kind} file system")


def _hint_at_kind(own_kind: str, kind: str | None) -> str:
    """Return what an image of ``own_kind`` stays, and what makes ``kind`` of it."""
    if own_kind == "iso":
        return "an ISO image (cosremaster extract takes out what is in it)"
    if kind not in ("cpio", "tar", "squashfs"):
        return own_kind
    commands = "pack makes" if own_kind in ("cpio", "tar") else "extract and cosremaster pack make"
    return f"{own_kind} (cosremaster {commands} one of another)"


def parse_layers(texts: str | Iterable[str] | None, image: SourceImage) -> tuple[LayerSelector, ...]:
    """Return the layers of ``image`` that ``texts`` name. :raises UsageError: one of them is no address."""
    listed = () if texts is None else (texts,) if isinstance(texts, str) else texts
    selectors = (LayerSelector.parse(text) for text in listed)
    return tuple(
        selector if selector.address is None else replace(selector, address=_address_in(image, selector.address))
        for selector in selectors
    )


def parse_layer_address(text: str, image: SourceImage) -> Address:
    """Return the address of a layer of ``image``. :raises UsageError: ``text`` is no address."""
    return _address_in(image, parse_address(text))


def _address_in(image: SourceImage, address: Address) -> Address:
    """Return ``address`` in ``image``, with symlinks on the ISO followed.

    An image without a volume is the first container itself. :raises LayerError: symlinks lead in a loop.
    """
    if image.is_single_file:
        return address if address[0] == image.files[0].path else (image.files[0].path, *address)
    volume = image.volume
    if volume is None or any(file.path == address[0] and file.size for file in image.files):
        return address
    from cosremaster.iso.nodes import read_nodes  # noqa: PLC0415 - only a name that is no file needs the tree

    nodes = read_nodes(volume, cast("ByteSource", volume.source.source))

    try:
        return (resolve_links(address[0], nodes.get), *address[1:])
    except SymlinkLoopError as error:
        raise LayerError("symlinks lead in a loop", image.place.inside(address[0])) from error


def parse_item(item: str | os.PathLike[str] | OverlayItem, option: str) -> OverlayItem:
    """Return ``item`` as a value; ``option`` is named in errors."""
    if isinstance(item, str):
        return AddPath.parse(item, option)
    return AddPath(item) if isinstance(item, os.PathLike) else item


def parse_run(run: str | os.PathLike[str] | RunScript) -> RunScript:
    """Return ``run`` as a value. :raises UsageError: a text is neither a file nor a command."""
    if isinstance(run, str):
        return RunScript.parse(run)
    return RunScript(run) if isinstance(run, os.PathLike) else run


def read_epoch() -> int | None:
    """Return SOURCE_DATE_EPOCH (reproducible-builds.org), None without. :raises UsageError: it is no number."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds")
    return min(int(text), MAX_NUMBER)
