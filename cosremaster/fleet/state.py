"""What is remembered of a fleet beside its images: fleet.json, SHA256SUMS, and what makes an image current."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from cosremaster.__about__ import __version__
from cosremaster.api.many import digest_file
from cosremaster.deltas.note import note_path
from cosremaster.errors import OverlayError, Place, UsageError
from cosremaster.fleet.read import FleetSite
from cosremaster.io.output import Output
from cosremaster.io.source import ByteSource
from cosremaster.io.streams import sha256_of
from cosremaster.overlay.request import AddPath, OverlayItem, RunScript, host_paths
from cosremaster.records import Struct
from cosremaster.remastering.request import Request, read_epoch

STATE, SUMS = "fleet.json", "SHA256SUMS"
_SCHEMA = 1


class DeltaRecord(Struct, frozen=True, kw_only=True):
    """What fleet.json says of a site that is a delta: the ``size`` and ``sha256`` of the image that it makes.

    ``base_sha256``: of what it makes it from; ``note_sha256``: of the note beside the delta.
    """

    base_sha256: str
    sha256: str
    size: int
    note_sha256: str

    @property
    def plain(self) -> dict[str, Any]:
        """The record as values for JSON."""
        return {
            "base_sha256": self.base_sha256, "result_sha256": self.sha256, "result_size": self.size,
            "note_sha256": self.note_sha256,
        }  # fmt: skip


class SiteRecord(Struct, frozen=True, kw_only=True):
    """What fleet.json says of a site.

    ``state``: ``written``, ``current``, ``failed``, or ``begun`` while it is not known. ``path``: from the folder of
    fleet.json. ``delta``: of a site that is one; ``size`` and ``sha256`` are those of the file all the same. ``key``: a
    digest of all that the image comes from. ``mtime_ns``: of the image. The others are as in
    :class:`~cosremaster.api.many.SiteResult`.
    """

    site: str
    path: str
    state: str
    key: str = ""
    size: int = 0
    sha256: str = ""
    mtime_ns: int = 0
    seconds: float = 0.0
    changes: Mapping[str, int] | None = None
    warnings: tuple[str, ...] = ()
    error: str = ""
    exit_code: int = 0
    delta: DeltaRecord | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """The record as values for JSON (docs/fleet.md)."""
        return {
            "site": self.site, "path": self.path, "state": self.state, "size": self.size, "sha256": self.sha256,
            "seconds": round(self.seconds, 3), "changes": self.changes, "warnings": list(self.warnings),
            "error": self.error or None, "exit_code": self.exit_code, "key": self.key, "mtime_ns": self.mtime_ns,
            "delta": None if self.delta is None else self.delta.plain,
        }  # fmt: skip

    def sums(self) -> Iterator[tuple[str, str]]:
        """Yield digest and path of each file of the site."""
        yield self.sha256, self.path
        if self.delta is not None:
            yield self.delta.note_sha256, str(note_path(Path(self.path)))

    def describes(self, image: Path) -> bool:
        """Return whether the file ``image`` is the one that was written for this site, by its size and time."""
        try:
            status = os.stat(image)
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)

    def describes_note(self, delta: Path) -> bool:
        """Return whether the note beside the file ``delta`` is the one that was written."""
        try:
            return self.delta is not None and digest_file(note_path(delta)) == self.delta.note_sha256
        except OSError:
            return False


class FleetState:
    """The records in fleet.json of ``folder``, by sites, and the digest of the base.

    :raises UsageError: there is a file of this name that is not ours.
    """

    def __init__(self, folder: Path) -> None:
        """Read the records, if there are any."""
        self.folder = folder
        self.records: dict[str, SiteRecord] = {}
        self.base: dict[str, Any] = {}
        path = folder / STATE
        try:
            values = json.loads(path.read_bytes())
            if values["schema"] == _SCHEMA:
                self.base = dict(values["base"])
                self.records = {entry["site"]: _read_record(entry) for entry in values["sites"]}
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise UsageError(f"{path}: is no record of a fleet; move it away") from error

    def digest_base(self, path: Path) -> str:
        """Return the SHA-256 of the file ``path``; it is not read again where its size, time and inode are as before.

        :raises OSError: it cannot be read.
        """
        status = os.stat(path)
        identity = {
            "path": os.path.abspath(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns,
            "ctime_ns": status.st_ctime_ns, "inode": status.st_ino,
        }  # fmt: skip
        if {key: self.base.get(key) for key in identity} != identity:
            self.base = {**identity, "sha256": digest_file(path)}
        return str(self.base["sha256"])

    def digest_far_base(self, name: str, source: ByteSource, *, reads: bool) -> str:
        """Return the SHA-256 of ``source``, which is called ``name``; empty if it has to be read, and not ``reads``.

        It is known where the server tells that nothing changed. :raises ImageError: it cannot be read.
        """
        identity = source.identity()
        state = {"url": name, "identity": identity.name, **identity.state}
        if identity.is_dated and {key: self.base.get(key) for key in state} == state:
            return str(self.base["sha256"])
        if not reads:
            return ""
        self.base = {**state, "sha256": sha256_of(source.chunks(0, source.size)).hex()}
        return str(self.base["sha256"])

    def write(self, *, sync: bool) -> None:
        """Write fleet.json and SHA256SUMS, which has no line for what is not there any more.

        :raises OutputError: they cannot be written.
        """
        values = {"schema": _SCHEMA, "version": __version__, "base": self.base,
                  "sites": [record.plain for record in self.records.values()]}  # fmt: skip
        _write_file(self.folder / STATE, json.dumps(values, indent=1).encode() + b"\n", sync=sync)
        lines = [
            _format_sum(digest, path).encode("utf-8", "surrogateescape")
            for record in self.records.values()
            if record.state in ("written", "current")
            for digest, path in record.sums()
            if os.path.lexists(self.folder / path)
        ]
        _write_file(self.folder / SUMS, b"".join(lines), sync=sync)


def _format_sum(digest: str, path: str) -> str:
    """Return a line of SHA256SUMS, as sha256sum(1) writes it: a backslash before it says that its name has escapes."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n")
    return f"{'' if escaped == path else chr(0x5C)}{digest}  {escaped}\n"


def _write_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Write ``data`` to ``path``, whole or not at all. :raises OutputError: it cannot be written."""
    with Output(path, (), force=True, sync=sync) as output:
        output.write_chunks([data])
        output.publish()


def _read_record(values: Mapping[str, Any]) -> SiteRecord:
    """Return the record in ``values``. :raises TypeError: a value is of another type. :raises KeyError: one lacks."""
    plain = {"error": values["error"] or "", "warnings": tuple(values["warnings"]), "delta": None}
    delta = values.get("delta")
    if delta is not None:
        plain["delta"] = DeltaRecord(
            base_sha256=delta["base_sha256"], sha256=delta["result_sha256"], size=delta["result_size"],
            note_sha256=delta["note_sha256"],
        )  # fmt: skip
    record = SiteRecord(**{**values, **plain})
    texts = [record.site, record.path, record.state, record.key, record.sha256, record.error, *record.warnings]
    counts = [record.size, record.mtime_ns, record.exit_code]
    if record.delta is not None:
        texts += [record.delta.base_sha256, record.delta.sha256, record.delta.note_sha256]
        counts.append(record.delta.size)
    if record.changes is not None:
        texts += record.changes
        counts += dict(record.changes).values()
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text is wanted")
    if not all(type(count) is int for count in counts) or not isinstance(record.seconds, (int, float)):
        raise TypeError("a number is wanted")
    return record


class SiteKeys:
    """Digests of all that images come from; each source of this machine is read once."""

    def __init__(self, base_digest: str, *, delta: bool = False) -> None:
        """Begin with the digest of the base; ``delta``: the sites are deltas."""
        self._base = f"{base_digest} delta" if delta else base_digest
        self._sources: dict[str, str] = {}
        self._stamps: dict[str, bytes] = {}

    def key_of(self, site: FleetSite) -> str:
        """Return the digest of version, base, request and the contents of overlays, in hexadecimal digits.

        :raises OverlayError: a source cannot be read.
        """
        request = site.request
        parts = [__version__, self._base, str(read_epoch()), *_list_values(request)]
        parts += [self._digest_source(path) for path in _list_sources(request)]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()

    def list_changed(self, sites: Iterable[FleetSite]) -> Iterator[FleetSite]:
        """Yield those of ``sites`` of which a source changed since the key was made, as the file system tells."""
        changed = {path for path, stamp in self._stamps.items() if _stamp_tree(path) != stamp}
        for site in sites if changed else ():
            if not changed.isdisjoint(_list_sources(site.request)):
                yield site

    def _digest_source(self, path: str) -> str:
        """Return a digest of the file or folder ``path`` with all that an overlay takes of it."""
        if path not in self._sources:
            self._stamps[path] = _stamp_tree(path)  # first: what changes while it is read has changed
            digest = hashlib.sha256()
            try:
                for part in _describe_tree(path):
                    digest.update(part)
            except OSError as error:
                raise OverlayError(
                    f"cannot be read: {error.strerror}", Place().inside(error.filename or path)
                ) from error
            self._sources[path] = digest.hexdigest()
        return self._sources[path]


def _list_sources(request: Request) -> Iterator[str]:
    """Yield the paths of this machine that ``request`` adds from."""
    for item in chain(request.add, request.add_iso):
        if isinstance(item, OverlayItem):
            yield from map(str, host_paths((item,)))


def _stamp_tree(path: str) -> bytes:
    """Return what tells the file or folder ``path`` from what it was, without its bytes; empty without one."""
    digest = hashlib.sha256()
    try:
        paths = [path]
        for folder, folders, files in os.walk(path):
            folders.sort()
            paths += [os.path.join(folder, name) for name in sorted((*folders, *files))]
        for at in paths:
            status = os.stat(at) if at == path else os.lstat(at)
            values = at, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            digest.update(repr(values).encode("utf-8", "surrogateescape"))
    except OSError:
        return b""
    return digest.digest()


def _list_values(request: Request) -> Iterator[str]:
    """Yield the fields of ``request`` that the bytes of an image depend on."""
    for field in fields(request):
        value = getattr(request, field.name)
        if field.name in ("add", "add_iso"):
            value = [_without_folders(item) for item in value]
        if field.name != "threads":
            yield f"{field.name}={value!r}"


def _without_folders(item: object) -> object:
    """Return ``item`` with the last parts of the paths that it is read from: where they lie changes no image."""
    if isinstance(item, AddPath):
        return replace(item, source=Path(item.source).name, mtree=None if item.mtree is None else "mtree")
    if isinstance(item, RunScript):
        script, files = (None if path is None else Path(path).name for path in (item.script, item.files))
        return replace(item, script=script, files=files)
    return item


def _describe_tree(path: str) -> Iterator[bytes]:
    """Yield what an overlay takes of ``path``: names, kinds, modes, owners, times, attributes, bytes."""
    paths = [path]
    if os.path.isdir(path):
        for folder, folders, files in os.walk(path):
            folders.sort()
            paths += [os.path.join(folder, name) for name in sorted((*folders, *files))]
    first_names: dict[tuple[int, int], int] = {}
    for number, at in enumerate(paths):
        status = os.stat(at) if at == path else os.lstat(at)
        values = (os.path.relpath(at, path), status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime),
                  status.st_size, status.st_rdev)  # fmt: skip
        yield repr(values).encode("utf-8", "surrogateescape")
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):  # names of one file stay that in the image
            yield b"%d" % first_names.setdefault((status.st_dev, status.st_ino), number)
        if stat.S_ISLNK(status.st_mode):
            yield os.fsencode(os.readlink(at))
            continue
        if hasattr(os, "listxattr") and (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            yield repr([(name, os.getxattr(at, name)) for name in sorted(os.listxattr(at))]).encode()
        if stat.S_ISREG(status.st_mode):
            yield digest_file(at).encode()
