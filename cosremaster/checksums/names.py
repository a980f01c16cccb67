"""Names of files that may hold checksums of others; of an image without any nothing more of this room is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cosremaster.iso.model import IsoFile, IsoTree
from cosremaster.lazy_regex import lazy_regex

MAX_LIST = 1 << 24
"""Bytes; a longer file is not taken for a list, because all lines of a list are held in memory."""
_MAX_LOOSE = 1 << 20
"""The same for files of other names than lists have."""

_KINDS = rb"(?:md5|sha1|sha224|sha256|sha384|sha512|b2|blake2b?)"
_ENDING = rb"(?:\.(?:txt|lst|list|chk|check))?"
_NAME = lazy_regex(rb"\.?(?:" + _KINDS + rb"(?:sums?)?|checksums?|digests?)" + _ENDING, re.IGNORECASE)
COMPANION = lazy_regex(rb"(?P<of>.+)\.(?:" + _KINDS + rb"(?:sums?)?|digests?)" + _ENDING, re.IGNORECASE | re.DOTALL)
_LOOSE = lazy_regex(rb"(?<![a-z0-9])(?:" + _KINDS + rb"(?:sums?)?|checksums?|digests?)(?![a-z0-9])", re.IGNORECASE)
"""What other names of lists have in them, such as ``md5sum-x86_64.txt``; such a file has nothing but checksums."""
TREEINFO_NAMES = (b".treeinfo", b"treeinfo")
_SUSE_CONTENT = b"content"
_SIGNATURES = (b".gpg", b".asc", b".sig", b".sign")
_PACKAGE_INDEXES = frozenset((b"Release", b"repomd.xml", b"APKINDEX.tar.gz", b"MANIFEST"))
_WORDS = (b"md5", b"sha", b"b2", b"blake2", b"checksum", b"digest", b"treeinfo", _SUSE_CONTENT,
          *(name.lower() for name in _PACKAGE_INDEXES))  # fmt: skip
"""What any name of a list or an index has in it, in small letters."""


def is_list(path: bytes) -> bool:
    """Return True if a file of this name is a checksum list, provided that it has a line with a checksum."""
    name = path.rpartition(b"/")[2]
    return bool(_NAME.fullmatch(name) or COMPANION.fullmatch(name)) or name.lower() in TREEINFO_NAMES


def may_be_list(file: IsoFile) -> bool:
    """Return True if a file of this name and size may be a checksum list, which its lines must tell."""
    name = file.path.rpartition(b"/")[2]
    if is_list(file.path):
        return file.size <= MAX_LIST
    return file.size <= _MAX_LOOSE and (name.lower() == _SUSE_CONTENT or bool(_LOOSE.search(name)))


def signature_paths(path: bytes) -> Iterator[bytes]:
    """Yield the paths that a detached signature of the file ``path`` could have."""
    yield from (path + ending for ending in _SIGNATURES)


def is_signature(path: bytes) -> bool:
    """Return True if a file of this name is the detached signature of a checksum list."""
    return any(path.endswith(ending) and is_list(path[: -len(ending)]) for ending in _SIGNATURES)


def may_be_package_index(path: bytes) -> bool:
    """Return True if a file of this name may be an index of packages with their checksums."""
    return path.rpartition(b"/")[2] in _PACKAGE_INDEXES


def may_hold_checksums(file: IsoFile) -> bool:
    """Return True if a file of this name and size may be a checksum list or an index of packages."""
    return may_be_list(file) or may_be_package_index(file.path)


def any_may_hold_checksums(tree: IsoTree) -> bool:
    """Return True if :func:`may_hold_checksums` is true of one of the files of ``tree``, which may be very many."""
    names = tree.join_names(b"\n").lower()
    return any(word in names for word in _WORDS) and any(map(may_hold_checksums, tree.files))
