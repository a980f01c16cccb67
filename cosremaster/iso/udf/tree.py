"""A UDF file system as an editable tree, beside those of directory records."""

from __future__ import annotations

from cosremaster.iso.ecma119.identifiers import UdfIdentifierRules
from cosremaster.iso.ecma119.records import DirectoryRecord, Extent
from cosremaster.iso.tree_edit.directories import UDF, DirectoryEntry, EditableDirectory, EditableTree
from cosremaster.iso.udf.read import FILE_ID_SIZE, SYMLINK_TYPE, Udf, UdfDirectory, UdfFile
from cosremaster.records import Struct
from cosremaster.units import BLOCK, Lba

_NO_BLOCK = Lba(0)


class UdfTree(Struct):
    """A UDF file system as an editable tree. It has no directory records, but dummy ones with each file's data.

    ``entry_blocks``: the image's block of each file entry, by the id of the :class:`DirectoryEntry` that names it.
    ``original_directories``: directories on the image, by the id of the :class:`EditableDirectory`.
    ``files``: the files by the image's block of their file entry.
    """

    udf: Udf
    tree: EditableTree
    entry_blocks: dict[int, Lba]
    original_directories: dict[int, UdfDirectory]
    files: dict[Lba, UdfFile]

    def find_file(self, entry: DirectoryEntry) -> UdfFile:
        """Return the file entry that ``entry``, which is on the image, names."""
        if entry.directory is not None:
            return self.original_directories[id(entry.directory)].file_entry
        return self.files[self.entry_blocks[id(entry)]]


def read_udf_tree(udf: Udf) -> UdfTree:
    """Return ``udf`` as an editable tree; each entry's ``primary_name`` is its own name."""
    by_block = {directory.block: directory for directory in udf.directories}
    files = {Lba(file.entry_offset // BLOCK): file for file in udf.files}
    root = _make_directory(udf.directories[0], None)
    entry_blocks: dict[int, Lba] = {}
    originals = {id(root): udf.directories[0]}
    waiting = [(udf.directories[0], root)]
    while waiting:
        original, parent = waiting.pop()
        for file_identifier in original.identifiers:
            block = Lba(udf.partition.start + file_identifier.icb_block)
            name = file_identifier.name.encode("utf-8", "surrogatepass")
            name_start = FILE_ID_SIZE + int.from_bytes(file_identifier.raw[36:38], "little")
            identifier = file_identifier.raw[name_start : name_start + file_identifier.raw[19]]
            entry = DirectoryEntry(name, identifier, shown_name=name)
            if block in by_block:
                entry.directory = _make_directory(by_block[block], parent)
                entry.directory.entry = entry
                originals[id(entry.directory)] = by_block[block]
                waiting.append((by_block[block], entry.directory))
                extent = entry.directory.extent or Extent(_NO_BLOCK, 0)
            else:
                file = files[block]
                if file.is_inline:
                    extent = Extent(block, file.size)
                else:  # one that has a size and no extents has no data either
                    extent = Extent(file.extents[0][0], file.size) if file.extents else Extent(_NO_BLOCK, 0)
            entry.records = (DirectoryRecord(0, extent.lba, extent.length, 0, (), identifier),)
            entry_blocks[id(entry)] = block
            parent.entries.append(entry)
    has_symlinks = any(file.file_type == SYMLINK_TYPE for file in udf.files)
    tree = EditableTree(UDF, Lba(0), (), root, UdfIdentifierRules(), has_symlinks=has_symlinks)
    return UdfTree(udf, tree, entry_blocks, originals, files)


def _make_directory(original: UdfDirectory, parent: EditableDirectory | None) -> EditableDirectory:
    """Return the editable directory for one on the image."""
    file_entry = original.file_entry
    lba = file_entry.extents[0][0] if file_entry.extents else original.block
    level = parent.level + 1 if parent else 1
    directory = EditableDirectory(Extent(lba, file_entry.size), parent, level, parent)
    if parent is None:
        directory.parent = directory
    return directory
