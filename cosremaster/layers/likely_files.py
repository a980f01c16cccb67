"""Which files of an image on another machine may be layers, by their names and sizes: each look is a request."""

from __future__ import annotations

import re
from collections.abc import Collection

from cosremaster.iso.far_images import Candidate, choose_candidates, warn_of_unread
from cosremaster.iso.model import SourceImage
from cosremaster.lazy_regex import lazy_regex

_MOST = 16
_LARGE = 4 << 20
"""Bytes of a file that may be a layer whatever its name is."""

_NAME = lazy_regex(
    rb"init(?:rd|ramfs|rfs)|rootfs|ramdisk|squash|filesystem|microcode|ucode|modloop|airootfs"
    rb"|\.(?:cgz|cxz|cpio|squashfs|sfs|sqfs|erofs|ext[234]|img|gz|xz|zst|lz4?|lzma|lzo|bz2|tar|t[gxb]z|tbz2|tzst|xzm|lzm|sb|ufs|snap)"
    rb"(?:\.[a-z0-9]{1,4})?$",
    re.IGNORECASE,
)
_PACKAGE = lazy_regex(rb"\.(?:u?deb|rpm|apk|exe|msi|cab|zip|jar|iso|pdf|mp[34]|png|jpe?g|html?|txt)$", re.IGNORECASE)


def choose_likely_files(image: SourceImage, loaded: Collection[bytes]) -> set[bytes]:
    """Return the paths of the files of ``image`` that are looked at; the others are warned of.

    ``loaded``: by boot menus, which are looked at in any case.
    """
    by_start: dict[int, list[bytes]] = {}
    for file in image.files:
        if file.size:
            by_start.setdefault(file.start, []).append(file.path)
    sizes = {file.path: file.size for file in image.files}
    candidates = [Candidate(path, sizes[path], _is_likely(path, sizes[path])) for path in map(min, by_start.values())]
    names = set(loaded)
    certain = {min(paths) for paths in by_start.values() if not names.isdisjoint(paths)}
    chosen = choose_candidates(candidates, certain, _MOST)
    if len(chosen) < len(candidates):
        warn_of_unread(image, len(candidates) - len(chosen), "layers (--deep looks into all)")
    return {path for paths in by_start.values() if min(paths) in chosen for path in paths}


def _is_likely(path: bytes, size: int) -> bool:
    """Return whether name and size of the file ``path`` speak for a layer."""
    name = path.rpartition(b"/")[2]
    return _NAME.search(name) is not None or (size >= _LARGE and _PACKAGE.search(name) is None)
