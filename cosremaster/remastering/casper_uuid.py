"""casper's pair of UUIDs: an initramfs with ``conf/uuid.conf`` takes only a medium with that UUID (casper(7)).

Its ``matches_uuid`` compares the text with that of every ``.disk/casper-uuid*`` on the medium, without newlines at the
end. An edit of an initramfs keeps both; what takes one of them away, or changes it, is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cosremaster.errors import CosremasterError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import IsoImage
from cosremaster.layers.model import build_layers, index_file
from cosremaster.layers.scan import ScanOptions
from cosremaster.remastering.companions import CASPER_UUID

if TYPE_CHECKING:
    from cosremaster.remastering.plan_layers import LayerChange

_IN_INITRAMFS = b"conf/uuid.conf"
_INITRAMFS_NAME = b"initr"
_MAX_UUID = 1 << 12
_QUICK = ScanOptions(digests=False, nesting=0, edits=False)


def find_uuid_warnings(image: IsoImage, edits: IsoEdits, changes: Sequence[LayerChange]) -> Iterator[str]:
    """Yield a warning for each UUID of casper that only one side has after ``edits``, which hold the ``changes``."""
    before = {file.path: _read(image.bytes_of(file)) for file in image.files if file.path.startswith(CASPER_UUID)}
    after = _uuids_after(image, edits)
    for path, uuid in before.items():
        if uuid and uuid not in after:
            yield (
                f"{printable(path)} no longer has the UUID {printable(uuid)}: an initramfs of casper that has it in"
                f" {printable(_IN_INITRAMFS)} does not find this medium (the kernel argument ignore_uuid lets it)"
            )
    for path, new in _changed_initramfs(image, edits, changes):
        if new is None:
            yield (
                f"{printable(path)} loses {printable(_IN_INITRAMFS)}, by which casper knows its own medium: it takes"
                " the first that has a live system"
            )
        elif new not in after and (before or after):
            yield (
                f"{printable(path)} wants a medium with the UUID {printable(new)} ({printable(_IN_INITRAMFS)}), which"
                f" no {printable(CASPER_UUID)}* on the ISO has: casper does not find this medium (the kernel argument"
                " ignore_uuid lets it)"
            )


def _uuids_after(image: IsoImage, edits: IsoEdits) -> set[bytes]:
    """Return the UUIDs that the medium has after ``edits``."""
    paths = {file.path: edits.new_path(file.path) or b"" for file in image.files}
    tables = {
        paths[file.path]: edits.replaced.get(file.path) or image.bytes_of(file)
        for file in image.files
        if paths[file.path].startswith(CASPER_UUID)
    }
    added = (node for node in edits.added if node.path.startswith(CASPER_UUID))
    tables |= {node.path: node.content.table() for node in added if node.content is not None}
    return {_read(table) for table in tables.values()}


def _changed_initramfs(
    image: IsoImage, edits: IsoEdits, changes: Sequence[LayerChange]
) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield the path of each initramfs whose UUID changes, with the new one; None where it is removed."""
    for change in changes:
        new = next((node for node, _ in change.edits.additions if node.path == _IN_INITRAMFS), None)
        if change.layer.format.random_access or change.layer.parent is not None:
            continue
        if new is not None and new.content is not None:
            yield change.paths[0], _read(new.content.table())
        elif _IN_INITRAMFS in change.edits.removed_paths:
            yield change.paths[0], None
    edited = {path for change in changes for path in change.paths}
    for path, table in edits.replaced.items():
        if path not in edited and path.rpartition(b"/")[2].startswith(_INITRAMFS_NAME):
            uuid = _find_uuid(image, path, table)
            if uuid is not None:
                yield path, uuid


def _find_uuid(image: IsoImage, path: bytes, table: PieceTable) -> bytes | None:
    """Return the UUID in the initramfs ``table``; None where it has none, or cannot be read."""
    place = image.place.inside(path)
    try:
        layers = build_layers(index_file(path, table, place, _QUICK), table, place)
    except CosremasterError:
        return None
    nodes = [layer.tree().get(_IN_INITRAMFS) for layer in layers if not layer.format.random_access]
    contents = [node.content for node in nodes if node is not None and node.content is not None]
    return _read(contents[-1].table()) if contents else None


def _read(table: PieceTable) -> bytes:
    """Return the UUID in a small file."""
    return table.read(0, min(_MAX_UUID, table.length)).rstrip(b"\n")
