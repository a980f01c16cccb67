"""The state of files and folders of this machine: other when one of them may have changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from cosremaster.io.links import walk_links
from cosremaster.records.tuples import NamedTuple


class Fingerprint(NamedTuple):
    """The state of files. ``changed``: the second in which the last of them changed, whatever times they were given.

    So does a symlink on the way to one, by which another file is there: that may have changed long before.
    """

    digest: bytes
    changed: int


def take_fingerprint(paths: Iterable[Path]) -> Fingerprint:
    """Return the state of ``paths`` and of all below them; what is missing or unreadable has a state too."""
    digest, changed = hashlib.sha256(), 0
    for path in paths:
        for name, status in chain(walk_links(os.fsencode(path)), _walk(os.fsencode(path))):
            digest.update(b"%d %b " % (len(name), name))
            if isinstance(status, OSError):
                digest.update(b"error %d\n" % (status.errno or 0))
                continue
            values = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            )
            digest.update(repr(values).encode())
            changed = max(changed, int(status.st_ctime))
    return Fingerprint(digest.digest(), changed)


def _walk(path: bytes) -> Iterator[tuple[bytes, os.stat_result | OSError]]:
    """Yield ``path``, whose symlinks are followed, and all below it, where none is."""
    try:
        yield path, os.stat(path)
    except OSError as error:
        yield path, error
    pending = [path]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except NotADirectoryError:
            continue
        except OSError as error:
            yield folder, error
            continue
        for entry in listed:
            try:
                yield entry.path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
            except OSError as error:
                yield entry.path, error
