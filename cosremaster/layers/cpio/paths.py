"""Where the entries of a cpio archive unpack to, as unpackers follow symlinks in the directories of a name."""

from __future__ import annotations

from collections.abc import Sequence

from cosremaster.layers.cpio.kernel import unpack_row
from cosremaster.layers.cpio.read import index_of
from cosremaster.layers.cpio.rules import is_late_target
from cosremaster.layers.model import Layer
from cosremaster.tree.earlier_symlinks import SymlinksSoFar, lead_through
from cosremaster.tree.nodes import NodeKind
from cosremaster.tree.paths import has_parent_parts


def unpacked_paths(layer: Layer) -> Sequence[bytes]:
    """Return the path that each entry of ``layer`` unpacks to behind the archives before it in its file.

    For the kernel a directory takes the place of a symlink, and a symlink not that of a directory which is not empty;
    busybox leaves either, and makes some symlinks at the end.
    """
    archives = [index_of(archive) for archive in (*layer.preceding, layer)]
    paths = archives[-1].paths
    links = {archive.paths[number] for archive in archives for number in archive.members.targets}
    if not (lead_through(paths, links) or has_parent_parts(paths)):
        return paths
    if not layer.is_in_archive:
        return unpack_row(layer).paths
    symlinks, directories, unpacked = SymlinksSoFar(), set[bytes](), list[bytes]()
    for archive in archives:
        targets, unpacked = archive.members.targets, []
        for number, (name, fields) in enumerate(zip(archive.paths, archive.members.all_fields(), strict=True)):
            path, target = symlinks.resolve(name), targets.get(number)
            unpacked.append(path)
            if fields[1] & 0o170000 == NodeKind.DIRECTORY:
                directories.add(path)
            elif path not in directories and not is_late_target(target or b""):
                symlinks.put(path, target)
    return unpacked
