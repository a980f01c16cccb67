"""What the kernel unpacks archives to where their entries meet each other (init/initramfs.c), entry by entry.

Nearly always the last entry of a path is what counts there. But the kernel writes a file into the one that stands at
its name, so that it changes under all its names; a directory that is not empty stays, whatever comes; a device keeps
its numbers; and a further name of a hard-linked file takes the place of what is there, even of its first name.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cosremaster.layers.cpio.read import index_of
from cosremaster.records import Struct
from cosremaster.tree.nodes import NodeKind
from cosremaster.tree.paths import SymlinkLoopError, normal_name, parent_of, resolve_in_root

if TYPE_CHECKING:
    from cosremaster.layers.model import Layer

_TYPE = 0o170000
_FILE, _SYMLINK, _DIRECTORY = int(NodeKind.FILE), int(NodeKind.SYMLINK), int(NodeKind.DIRECTORY)


class KernelFile(Struct):
    """What stands at a path, or at several. ``kind``: its type, as in st_mode; ``target``: the text of a symlink.

    ``attributes``: the number of the entry that gave it owner, mode and time; ``data``: of that which gave it its
    bytes, its text or its device numbers.
    """

    kind: int
    attributes: int
    data: int
    target: bytes = b""


class KernelTree:
    """The tree that entries are unpacked into, one after another; ``files``: by path.

    ``is_strict``: nothing goes into a directory that no entry made, as for the kernel. Otherwise it is shown there.
    """

    def __init__(self, *, is_strict: bool = False) -> None:
        """Begin without files."""
        self.files: dict[bytes, KernelFile] = {}
        self._is_strict = is_strict
        self._counts = Counter[bytes]()  # of what stands in each directory
        self._first_names: dict[tuple[int, ...], bytes] = {}  # by device, inode number and type

    def end_archive(self) -> None:
        """Forget the hard links, as the kernel does at a trailer."""
        self._first_names.clear()

    def unpack(
        self, number: int, name: bytes, fields: tuple[int, ...], target: bytes = b"", data: int | None = None
    ) -> bytes:
        """Unpack the entry ``number``, and return the path that its name means, whatever comes of it.

        ``fields``: the 13 numbers of its header; ``target``: the text of a symlink; ``data``: the number of the entry
        that had its bytes before an edit, if it is another one.
        """
        kind = fields[1] & _TYPE
        is_slashed, is_directory = name.endswith(b"/"), kind == _DIRECTORY
        path = self._locate(name, follow_last=is_slashed and is_directory)
        key = (*fields[7:9], fields[0], kind) if fields[4] > 1 and kind not in (_DIRECTORY, _SYMLINK) else None
        if not (is_directory or (path and not is_slashed)) or not self._has_directory(path):
            if key is not None:
                self._first_names.setdefault(key, name)
        elif is_directory:
            self._make_directory(path, number)
        elif kind == _SYMLINK:
            if self._remove(path):
                self._put(path, KernelFile(kind, number, number, target))
        else:
            self._make_other(path, name, fields, key, (number, number if data is None else data))
        return path

    def _make_directory(self, path: bytes, number: int) -> None:
        """Make a directory at ``path``, or give that which is there the attributes of entry ``number``."""
        file = self.files.get(path)
        if file is not None and file.kind == _DIRECTORY:
            file.attributes = number
        elif file is None or self._remove(path):
            self._put(path, KernelFile(_DIRECTORY, number, number))

    def _make_other(
        self, path: bytes, name: bytes, fields: tuple[int, ...], key: tuple[int, ...] | None, numbers: tuple[int, int]
    ) -> None:
        """Make a file or a device at ``path``, or write into what is there.

        ``key``: of an entry of a hard-linked file; ``numbers``: of the entry, and of that which had its bytes.
        """
        kind, size = fields[1] & _TYPE, fields[6]
        number, data = numbers
        file, is_linked = self.files.get(path), False
        if file is not None and file.kind != kind:
            self._remove(path)
        if key is not None and key in self._first_names:
            self._remove(path)
            file = self.files.get(self._locate(self._first_names[key]))
            if file is None or file.kind == _DIRECTORY or path in self.files:
                return  # no link can be made, and the entry is skipped
            self._put(path, file)
            is_linked = True
        elif key is not None:
            self._first_names[key] = name
        file = self.files.get(path)
        if file is None:
            self._put(path, KernelFile(kind, number, data))
        elif file.kind == kind and kind == _FILE:
            file.attributes = number
            if size or not is_linked:
                file.data = data
        elif file.kind == kind and not is_linked:
            file.attributes = number

    def _put(self, path: bytes, file: KernelFile) -> None:
        """Put ``file`` at ``path``, where nothing is."""
        self.files[path] = file
        self._counts[parent_of(path)] += 1

    def _remove(self, path: bytes) -> bool:
        """Remove what is at ``path``, but no directory with something in it; return whether nothing is there then."""
        file = self.files.get(path)
        if file is None:
            return True
        if file.kind == _DIRECTORY and self._counts[path]:
            return False
        del self.files[path]
        self._counts[parent_of(path)] -= 1
        return True

    def _has_directory(self, path: bytes) -> bool:
        """Return whether something can be made at ``path``: its directory is there, or no entry made it."""
        parent = parent_of(path)
        file = self.files.get(parent)
        return not parent or (file.kind == _DIRECTORY if file is not None else not self._is_strict)

    def _locate(self, name: bytes, *, follow_last: bool = False) -> bytes:
        """Return the real path that ``name`` means; a symlink at its end is followed if ``follow_last``."""
        path = normal_name(name)
        parent = parent_of(path)
        file = self.files.get(parent)
        if not follow_last and b".." not in path and (not parent or (file is not None and file.kind == _DIRECTORY)):
            return path
        try:
            return resolve_in_root(path, self._link_target, follow_last=follow_last)
        except SymlinkLoopError:
            return path

    def _link_target(self, path: bytes) -> bytes | None:
        """Return the text of the symlink at ``path``, None for no symlink."""
        file = self.files.get(path)
        return file.target if file is not None and file.kind == _SYMLINK else None


class UnpackedRow(Struct, frozen=True):
    """What archives unpack to: ``files`` by path, and the ``paths`` that the entries of the last of them mean."""

    files: dict[bytes, KernelFile]
    paths: list[bytes]


def unpack_row(layer: Layer) -> UnpackedRow:
    """Return what the kernel makes of ``layer`` behind the archives before it, made once.

    Entries are counted through all of these archives.
    """
    row: UnpackedRow | None = layer.derived.get("kernel")
    if row is not None:
        return row
    tree, number, paths = KernelTree(), 0, list[bytes]()
    for archive in (*layer.preceding, layer):
        index, paths = index_of(archive), []
        targets = index.members.targets
        for at, (name, fields) in enumerate(zip(index.members.names, index.members.all_fields(), strict=True)):
            paths.append(tree.unpack(number, name, fields, targets.get(at, b"")))
            number += 1
        if index.has_trailer:
            tree.end_archive()
    row = layer.derived["kernel"] = UnpackedRow(tree.files, paths)
    return row
