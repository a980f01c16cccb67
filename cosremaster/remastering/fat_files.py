"""Files in the FAT file systems of an image: copies of files on the ISO's tree follow them.

systemd-boot reads kernel and initramfs from the file system that it lies in, so media with it (Arch, rescue discs) have
both twice: on the tree for BIOS, and in the EFI system partition. What changes on the tree changes there too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from cosremaster.boot.fat_edit import FatEdits, edit_fat
from cosremaster.boot.fat_names import fold_path
from cosremaster.errors import OverlayError, SizeError, UnsupportedError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import same_bytes
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.fats import LocatedFat, find_fats
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.remastering.fat_changes import FatChange, FatPlan

KEEP_COPIES = "--keep-fat-copies leaves the copies in FAT file systems as they are"


class _Original(Struct, frozen=True):
    """A file on the tree that gets new bytes: its path, and the old and the new bytes."""

    path: bytes
    old: PieceTable
    new: PieceTable


def plan_fat_files(image: IsoImage, edits: IsoEdits, *, keep_copies: bool = False) -> FatPlan:
    """Return ``edits`` with the same new bytes for the copies of exchanged files in FAT file systems.

    A copy has the same bytes, whatever its name.

    :param keep_copies: leave the copies as they are, with a warning.
    :raises OverlayError: when a copy has several originals, whose new bytes differ.
    :raises UnsupportedError: when a FAT file system cannot be changed safely.
    :raises SizeError: when it has no room.
    """
    originals = sorted(_list_originals(image, edits), key=lambda original: original.path)
    if not originals:
        return FatPlan(edits)
    found = find_fats(image, edits)
    warnings = [f"{name}: copies of changed files in it, if any, stay as they are: {error}"
                for name, error in found.unreadable]  # fmt: skip
    changes = list[FatChange]()
    unchanged = {fold_path(file.path): file for file in image.files if file.path not in edits.replaced}
    for fat in found.fats:
        copies = _find_copies(fat, originals, image, unchanged)
        if keep_copies:
            warnings += [
                f"{fat.name} » {printable(path)} stays as it is, a copy of the old {printable(original.path)}"
                for path, original in copies.items()
            ]
        elif copies:
            table = _exchange_files(fat, {path: original.new for path, original in copies.items()})
            edits = place_fat(edits, fat, table)
            paths = {path: original.path for path, original in copies.items()}
            changes.append(FatChange(name=fat.name, exchanged=tuple(sorted(paths)), copies=paths))
    return FatPlan(edits, tuple(changes), tuple(warnings))


def place_fat(edits: IsoEdits, fat: LocatedFat, table: PieceTable) -> IsoEdits:
    """Return ``edits`` with the bytes ``table`` for the file system ``fat``."""
    if fat.paths:
        return edits.with_contents(dict.fromkeys(fat.paths, table))
    return edits.with_areas({fat.offset: table})


def _list_originals(image: IsoImage, edits: IsoEdits) -> Iterator[_Original]:
    """Yield the files on the tree that ``edits`` exchange; of names that share their bytes only the first."""
    seen = set[object]()
    for file in image.files:
        new = edits.replaced.get(file.path)
        key = (file.start, file.size, id(new))
        if new is not None and file.size and not file.zisofs_offset and key not in seen:
            seen.add(key)
            yield _Original(file.path, image.bytes_of(file), new)


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
        table = fat.table_of(file) if file.size in by_size else PieceTable(())
        candidates = by_size.get(file.size, ())
        equal = [original for original in candidates if same_bytes(original.old.chunks(), table.chunks())]
        namesake = unchanged.get(fold_path(path))
        if not equal or (
            namesake is not None
            and namesake.size == file.size
            and same_bytes(image.bytes_of(namesake).chunks(), table.chunks())
        ):
            continue
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


def _exchange_files(fat: LocatedFat, replaced: Mapping[bytes, PieceTable]) -> PieceTable:
    """Return the bytes of ``fat`` with ``replaced``, new bytes of its files by path.

    :raises UnsupportedError: when it cannot be changed safely.
    :raises SizeError: when it has no room.
    """
    try:
        return fat.table.patched(edit_fat(fat.fat, FatEdits(replaced=replaced)))
    except (SizeError, UnsupportedError) as error:
        raise type(error)(f"{error.message} ({KEEP_COPIES})", error.place) from error
