"""Files in the FAT file systems of an image: copies of files on the ISO's tree follow them.

systemd-boot reads kernel and initramfs from the file system that it lies in, so media with it (Arch, rescue discs) have
both twice: on the tree for BIOS, and in the EFI system partition. What changes on the tree changes there too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cosremaster.boot.fat_edit import FatEdits, edit_fat
from cosremaster.boot.fat_names import fold_path, fold_paths
from cosremaster.boot.uki import INITRAMFS, KERNEL
from cosremaster.errors import ImageError, OverlayError, SizeError, UnsupportedError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import same_bytes
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.fats import FoundFats, LocatedFat
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.iso.unified_kernels import find_unified_kernels
from cosremaster.layers.address import format_address
from cosremaster.records import Struct, replace
from cosremaster.remastering.fat_changes import FatChange, FatPlan
from cosremaster.remastering.fat_overlay import FatOverlay, key_of
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Node, NodeKind

KEEP_COPIES = "--keep-fat-copies leaves the copies in FAT file systems as they are"


class _Original(Struct, frozen=True):
    """A file that gets new bytes: its path, the old and the new bytes, and its place for people.

    ``fat``: the key of the FAT file system that it is in; None for the tree.
    """

    path: bytes
    old: PieceTable
    new: PieceTable
    label: str
    fat: object = None


def plan_fat_files(
    image: IsoImage, edits: IsoEdits, found: FoundFats, overlays: Sequence[FatOverlay] = (), *,
    keep_copies: bool = False,
) -> FatPlan:  # fmt: skip
    """Return ``edits`` with the new bytes of FAT file systems, of those that were ``found`` after ``edits``.

    ``overlays`` are made. Then copies of files that got other bytes get the same: a file with the bytes of a changed
    file on the tree, whatever its name, or with the path and the bytes of one that an overlay changes.

    :param keep_copies: leave the copies as they are, with a warning.
    :raises OverlayError: when a copy has several originals, whose new bytes differ.
    :raises UnsupportedError: when a FAT file system cannot be changed safely.
    :raises SizeError: when it has no room.
    """
    by_key = {overlay.fat: overlay for overlay in overlays}
    originals = sorted(_list_originals(image, edits), key=lambda original: original.path)
    inner_originals = [original for fat in found.fats for original in _list_inner_originals(fat, by_key)]
    warnings = [f"{name}: copies of changed files in it, if any, stay as they are: {error}"
                for name, error in found.unreadable if originals]  # fmt: skip
    warnings += _warn_of_old_tree_files(image, edits, inner_originals)
    warnings += _warn_of_unified_kernels(image, found.fats, [*originals, *inner_originals])
    unchanged = {fold_path(file.path): file for file in image.files if file.path not in edits.replaced}
    changes = list[FatChange]()
    for fat in found.fats:
        overlay = by_key.get(key_of(fat)) or FatOverlay(fat=key_of(fat), edits=FatEdits())
        copies = _find_copies(fat, originals, image, unchanged) | _find_inner_copies(fat, inner_originals)
        touched = {*overlay.before, *overlay.after}
        copies = {path: original for path, original in copies.items() if path not in touched}
        if keep_copies:
            warnings += [
                f"{fat.name} » {printable(path)} stays as it is, a copy of the old {original.label}"
                for path, original in copies.items()
            ]
            copies = {}
        change = _make_change(fat, overlay, copies)
        if change.changes_bytes:
            new_files = {path: original.new for path, original in copies.items()}
            fat_edits = replace(overlay.edits, replaced={**overlay.edits.replaced, **new_files})
            edits = place_fat(edits, fat, _edit_files(fat, fat_edits, has_copies=bool(copies)))
        if change.changes_bytes or change.unchanged:
            changes.append(change)
    return FatPlan(edits, tuple(changes), tuple(warnings))


def _make_change(fat: LocatedFat, overlay: FatOverlay, copies: Mapping[bytes, _Original]) -> FatChange:
    """Return what ``overlay`` and the exchange of ``copies`` change in ``fat``."""
    before, after = dict(overlay.before), dict(overlay.after)
    for path, original in copies.items():
        mtime = fat.files[path].mtime
        node = Node(path=path, kind=NodeKind.FILE, mode=0o644, mtime=mtime, content=PieceContent(original.old.pieces))
        before[path], after[path] = node, replace(node, content=PieceContent(original.new.pieces))
    return FatChange(
        name=fat.name, address=format_address([fat.address]),
        added=tuple(entry.path for entry in overlay.edits.added),
        exchanged=tuple(sorted([*overlay.edits.replaced, *copies])), removed=overlay.edits.removed,
        unchanged=overlay.unchanged, copies={path: original.label for path, original in copies.items()},
        before=before, after=after,
    )  # fmt: skip


def place_fat(edits: IsoEdits, fat: LocatedFat, table: PieceTable) -> IsoEdits:
    """Return ``edits`` with the bytes ``table`` for the file system ``fat``."""
    if fat.paths:
        return edits.with_contents(dict.fromkeys(fat.paths, table))
    return edits.with_areas({fat.offset: table})


def _list_originals(image: IsoImage, edits: IsoEdits) -> Iterator[_Original]:
    """Yield the files on the tree that ``edits`` exchange; of names that share their bytes only the first.

    Files that only another tree or UDF shows come too.
    """
    seen, paths = set[object](), set[bytes]()
    for tree in image.trees:
        for file in tree.files:
            new = edits.replaced.get(file.path)
            key = (file.start, file.size, id(new))
            if new is not None and file.size and not file.zisofs_offset and key not in seen and file.path not in paths:
                seen.add(key)
                paths.add(file.path)
                yield _Original(file.path, image.bytes_of(file), new, printable(file.path))
    for names, udf_file in image.udf.named_files() if image.udf is not None else ():
        path = "/".join(names).encode("utf-8", "surrogatepass")
        new = edits.replaced.get(path)
        if new is not None and udf_file.size and path not in paths:
            paths.add(path)
            old = PieceTable([image.source.cut(start, start + size) for start, size in udf_file.ranges])
            yield _Original(path, old, new, printable(path))


def _find_copies(
    fat: LocatedFat, originals: Iterable[_Original], image: IsoImage, unchanged: Mapping[str, IsoFile]
) -> dict[bytes, _Original]:
    """Return the files in ``fat`` that are copies of ``originals``, by path, each with its original.

    :param unchanged: the files on the tree that keep their bytes, by their folded path. The copy of such a file that
        has its path too stays as it is, though ``originals`` had the same bytes.
    :raises OverlayError: when originals of one copy get different bytes.
    """
    by_size: dict[int, list[_Original]] = defaultdict(list)
    for original in originals:
        by_size[original.old.length].append(original)
    copies = dict[bytes, _Original]()
    for path, file in sorted(fat.files.items()):
        equal = [original for original in by_size.get(file.size, ()) if fat.holds(file, original.old)]
        namesake = unchanged.get(fold_path(path))
        is_of_namesake = namesake is not None and namesake.size == file.size
        if equal and not (is_of_namesake and namesake and fat.holds(file, image.bytes_of(namesake))):
            copies[path] = _choose_original(fat, path, equal)
    return copies


def _choose_original(fat: LocatedFat, path: bytes, equal: Sequence[_Original]) -> _Original:
    """Return the one of ``equal`` that the file ``path`` in ``fat`` is a copy of: that of its path, else of its name.

    :raises OverlayError: when several are possible, and get different bytes.
    """
    same_path = [original for original in equal if fold_path(original.path) == fold_path(path)]
    name = fold_path(path).rpartition("/")[2]
    same_name = [original for original in equal if fold_path(original.path).rpartition("/")[2] == name]
    choices = same_path or same_name or equal
    if any(not same_bytes(choices[0].new.chunks(), other.new.chunks()) for other in choices[1:]):
        names = " and ".join(printable(original.path) for original in choices)
        raise OverlayError(
            f"is a copy of {names}, which get different contents ({KEEP_COPIES})", fat.fat.place.inside(path)
        )
    return choices[0]


def _list_inner_originals(fat: LocatedFat, overlays: Mapping[object, FatOverlay]) -> Iterator[_Original]:
    """Yield the files in ``fat`` that ``overlays`` exchange."""
    overlay = overlays.get(key_of(fat))
    for path, new in overlay.edits.replaced.items() if overlay else ():
        old = fat.table_of(fat.files[path])
        if old.length:
            yield _Original(path, old, new, f"{fat.name} » {printable(path)}", key_of(fat))


def _find_inner_copies(fat: LocatedFat, originals: Iterable[_Original]) -> dict[bytes, _Original]:
    """Return the files in ``fat`` that have path and bytes of ``originals`` in other FAT file systems."""
    names = fold_paths(fat.files)
    copies = dict[bytes, _Original]()
    for original in originals:
        path = names.get(fold_path(original.path))
        if path is None or original.fat == key_of(fat) or fat.files[path].size != original.old.length:
            continue
        if fat.holds(fat.files[path], original.old):
            copies.setdefault(path, original)
    return copies


def _warn_of_old_tree_files(image: IsoImage, edits: IsoEdits, originals: Iterable[_Original]) -> Iterator[str]:
    """Yield a warning for each file on the tree that keeps the old bytes of ``originals``, files in a FAT."""
    for original in originals:
        for file in image.files:
            if (
                file.size == original.old.length
                and file.path not in edits.replaced
                and edits.new_path(file.path) is not None
                and same_bytes(image.bytes_of(file).chunks(), original.old.chunks())
            ):
                yield f"{printable(file.path)} on the ISO's own tree keeps the old bytes of {original.label}"


def _warn_of_unified_kernels(
    image: IsoImage, fats: Iterable[LocatedFat], originals: Sequence[_Original]
) -> Iterator[str]:
    """Yield a warning for each unified kernel image that has the old bytes of ``originals`` inside."""
    for kernel in find_unified_kernels(image, fats) if originals else ():
        for section in (kernel.section(KERNEL), kernel.section(INITRAMFS)):
            for original in originals:
                if section is not None and _begins_or_ends_with(section, original.old):
                    yield f"{kernel.name}, a unified kernel image, keeps the old {original.label} inside"


def _begins_or_ends_with(section: PieceTable, old: PieceTable) -> bool:
    """Return whether ``section``, of which an initramfs may be the last of several in a row, has ``old`` at an end."""
    if section.length < old.length:
        return False
    return any(
        same_bytes(section.cut(start, start + old.length).chunks(), old.chunks())
        for start in sorted({0, section.length - old.length})
    )


def _edit_files(fat: LocatedFat, edits: FatEdits, *, has_copies: bool) -> PieceTable:
    """Return the bytes of ``fat`` after ``edits``; ``has_copies``: some of them are of copies that could stay.

    :raises UnsupportedError: when it cannot be changed safely.
    :raises SizeError: when it has no room.
    """
    try:
        return fat.table.patched(edit_fat(fat.fat, edits))
    except SizeError as error:
        room = f"--remove-iso '{format_address([fat.address])}::PATH' makes room"
        ways = f"{room}, {KEEP_COPIES}" if has_copies else room
        raise SizeError(f"{error.message} ({ways})", error.place) from error
    except (UnsupportedError, ImageError) as error:
        way = f" ({KEEP_COPIES})" if has_copies else ""
        raise type(error)(f"{error.message}{way}", error.place) from error
