"""Name the package indexes on an ISO whose checksums a change of the tree makes wrong; they are not rewritten.

These are indexes of packages, most of them signed: apt's, RPM's, Alpine's, and the MANIFEST of FreeBSD's installer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cosremaster.checksums.draft import FileChanges
from cosremaster.checksums.names import may_be_package_index
from cosremaster.errors import printable
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.lazy_regex import lazy_regex
from cosremaster.tree.paths import join, parent_of

_MAX_MANIFEST = 1 << 20
_RELEASE = lazy_regex(rb"(?P<root>(?:.*/)?)dists/[^/]+/Release", re.DOTALL)
_REPOMD = lazy_regex(rb"(?P<root>(?:.*/)?)repodata/repomd\.xml", re.DOTALL)
_APKINDEX = lazy_regex(rb"(?P<root>(?:.*/)?)APKINDEX\.tar\.gz", re.DOTALL)


def find_stale_indexes(image: IsoImage, changes: FileChanges) -> Iterator[str]:
    """Yield a warning for each package index that names a file which is replaced, removed or renamed."""
    changed = sorted({*changes.replaced, *changes.removed, *changes.renamed})
    for file in image.files if changed else ():
        if not may_be_package_index(file.path) or file.path in changes.replaced:
            continue
        path = next((path for path in changed if path != file.path and _names(image, file, path)), None)
        if path is not None and changes.new_path(file.path) is not None:
            yield f"{printable(file.path)} has checksums of {printable(path)} and its kin, which are stale now"


def _names(image: IsoImage, file: IsoFile, path: bytes) -> bool:
    """Return True if ``file`` is a package index that has a checksum of the file at ``path``."""
    name = file.path.rpartition(b"/")[2]
    if name == b"Release" and (match := _RELEASE.fullmatch(file.path)):
        is_package = path.endswith((b".deb", b".udeb")) and path.startswith(match["root"])
        return is_package or path.startswith(parent_of(file.path) + b"/")
    if name == b"repomd.xml" and (match := _REPOMD.fullmatch(file.path)):
        is_index = path.startswith(match["root"] + b"repodata/")
        return is_index or (path.startswith(match["root"]) and path.endswith(b".rpm"))
    if name == b"APKINDEX.tar.gz" and (match := _APKINDEX.fullmatch(file.path)):
        return path.endswith(b".apk") and parent_of(path) == parent_of(file.path)
    if name == b"MANIFEST" and file.is_regular and file.size <= _MAX_MANIFEST:
        folder = parent_of(file.path)
        lines = image.bytes_of(file).read().split(b"\n")
        return any(join(folder, line.partition(b"\t")[0]) == path for line in lines if b"\t" in line)
    return False
