"""Extended attributes of the user's files, which no layer can hold yet (xattr(7), acl(5), capabilities(7))."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from cosremaster.errors import Place, printable

CAPABILITY = "security.capability"
ACLS = ("system.posix_acl_access", "system.posix_acl_default")
SHOWN = 3
"""Paths that a warning about many of them names."""


class AttributedPath(Struct, frozen=True):
    """A path of an overlay, and the names of its extended attributes that somebody gave it."""

    path: bytes
    names: tuple[str, ...]


def select_given(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the attributes ``names`` that a person or a package gave.

    All others in the classes ``security`` and ``system`` are this machine's own (labels of SELinux, sums of IMA).
    """
    return tuple(
        sorted(name for name in names if name.startswith(("user.", "trusted.")) or name in (CAPABILITY, *ACLS))
    )


def list_attributes(host_path: bytes, directory: int | None, name: bytes) -> tuple[str, ...]:
    """Return the given attributes of the file ``host_path``, which has the name ``name`` in the open ``directory``."""
    if not hasattr(os, "listxattr"):
        return ()
    try:
        return select_given(os.listxattr(host_path, follow_symlinks=directory is None))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or directory is None:
            return ()  # the file system has none
    try:
        return select_given(os.listxattr(b"/proc/self/fd/%d/%s" % (directory, name), follow_symlinks=False))
    except OSError:
        return ()


def attribute_warnings(attributed: Sequence[AttributedPath], place: Place, *, is_single: bool) -> Iterator[str]:
    """Yield the warnings that the attributes of the source ``place`` are not taken over.

    Each file with capabilities has its own, as its program lacks rights without them. ``is_single``: the source is one
    file.
    """
    for entry in attributed:
        if CAPABILITY in entry.names:
            origin = place if is_single else place.inside(entry.path)
            yield f"{origin}: its file capabilities are not taken over: no layer holds them"
    for noun, names in (("ACLs", set(ACLS)), ("extended attributes", None)):
        paths = [entry.path for entry in attributed if _has_any(entry.names, names)]
        if paths:
            yield f"{place}: {noun} are not taken over, no layer holds them: {name_some(paths)}"


def _has_any(names: Sequence[str], wanted: set[str] | None) -> bool:
    """Return whether one of ``names`` is in ``wanted``; None: it is neither an ACL nor a capability."""
    if wanted is None:
        return any(name != CAPABILITY and name not in ACLS for name in names)
    return not wanted.isdisjoint(names)


def name_some(paths: Sequence[bytes]) -> str:
    """Return the first of ``paths`` as text, and how many more there are."""
    shown = ", ".join(printable(path) for path in paths[:SHOWN])
    return f"{shown} and {len(paths) - SHOWN:,} more" if len(paths) > SHOWN else shown
