"""What is remembered of a fleet beside its images: fleet.json, SHA256SUMS, and what makes an image current."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from cosremaster.__about__ import __version__
from cosremaster.api.many import digest_file
from cosremaster.deltas.note import note_path
from cosremaster.errors import OverlayError, Place, UsageError
from cosremaster.fleet.read import FleetSite
from cosremaster.io.links import walk_links
from cosremaster.io.output import Output, format_sum_line
from cosremaster.io.source import ByteSource, own_bytes
from cosremaster.io.streams import sha256_of
from cosremaster.overlay.request import AddPath, OverlayItem, RunScript, host_paths
from cosremaster.records import Struct
from cosremaster.records import replace as replace_record
from cosremaster.remastering.request import Request, parse_item, parse_run, read_epoch

STATE, SUMS = "fleet.json", "SHA256SUMS"
_SCHEMA = 1
_EDGE = 1 << 16
"""Bytes at the beginning and the end of a base that are compared."""


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

    @property
    def is_made(self) -> bool:
        """Whether the image of the site is as it should be, by its state."""
        return self.state in ("written", "current")

    def sums(self) -> Iterator[tuple[str, str]]:
        """Yield digest and path of each file of the site."""
        yield self.sha256, self.path
        if self.delta is not None and self.delta.note_sha256:
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
    """The records in fleet.json of ``folder``, by sites, and the digest of the base. ``is_new``: there is no such file.

    :raises UsageError: there is a file of this name that is not ours.
    """

    def __init__(self, folder: Path) -> None:
        """Read the records, if there are any."""
        self.folder = folder
        self.records: dict[str, SiteRecord] = {}
        self.base: dict[str, Any] = {}
        self.is_new = False
        path = folder / STATE
        try:
            values = json.loads(path.read_bytes())
            if values["schema"] != _SCHEMA:
                raise ValueError("a record of another kind")
            self.base = dict(values["base"])
            self.records = {entry["site"]: _read_record(entry) for entry in values["sites"]}
        except (FileNotFoundError, NotADirectoryError):
            self.is_new = True
            return
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise UsageError(f"{path}: is no record of a fleet; move it away") from error

    @property
    def base_sha256(self) -> str:
        """The SHA-256 of the base, once it is known."""
        return str(self.base.get("sha256", ""))

    def digest_base(self, path: Path, source: ByteSource) -> str:
        """Return the SHA-256 of the file ``path``, which ``source`` reads, and behind it those of images below it.

        They are not read again where device, inode, size and times are as before, and the first and last bytes.

        :raises OSError, ImageError: it cannot be read.
        """
        identity, file = source.identity(), own_bytes(source)
        edges = file.read(0, _EDGE), file.read(max(file.size - _EDGE, 0), _EDGE)
        state = {
            "path": os.path.abspath(path), "identity": identity.name, **identity.state,
            "edges": sha256_of(edges).hex(),
        }  # fmt: skip
        if not (identity.is_dated and self._is_base_in(state)):
            first, *below = [digest_file(path) for path in source.local_paths or (path,)]
            self.base = {**state, "sha256": first, "below_sha256": below}
        return "".join((self.base_sha256, *map(str, self.base.get("below_sha256", ()))))

    def digest_far_base(self, name: str, source: ByteSource, *, reads: bool) -> str:
        """Return the SHA-256 of ``source``, which is called ``name``; empty if it has to be read, and not ``reads``.

        It is known where the server tells that nothing changed. :raises ImageError: it cannot be read.
        """
        identity, file = source.identity(), own_bytes(source)
        state = {"url": name, "identity": identity.name, **identity.state}
        if identity.is_dated and self._is_base_in(state):
            return self.base_sha256
        if not reads:
            return ""
        self.base = {**state, "sha256": sha256_of(file.chunks(0, file.size)).hex()}
        return self.base_sha256

    def _is_base_in(self, state: Mapping[str, Any]) -> bool:
        """Return whether the digest that is known is of the base in this ``state``."""
        return bool(self.base_sha256) and {key: self.base.get(key) for key in state} == state

    def write(self, *, sync: bool) -> None:
        """Write fleet.json and SHA256SUMS, which has no line for what is not there any more.

        :raises OutputError: they cannot be written.
        """
        values = {"schema": _SCHEMA, "version": __version__, "base": self.base,
                  "sites": [record.plain for record in self.records.values()]}  # fmt: skip
        _write_file(self.folder / STATE, json.dumps(values, indent=1).encode() + b"\n", sync=sync)
        _write_file(self.folder / SUMS, self._sum_lines(), sync=sync)

    def is_written(self) -> bool:
        """Return whether both files say the same already, but for which images were current."""
        try:
            written, lines = FleetState(self.folder), (self.folder / SUMS).read_bytes()
        except (OSError, UsageError):
            return False
        own, other = (list(map(_as_current, state.records.values())) for state in (self, written))
        return own == other and lines == self._sum_lines()

    def _sum_lines(self) -> bytes:
        """Return SHA256SUMS."""
        lines = [
            format_sum_line(digest, path).encode("utf-8", "surrogateescape")
            for record in self.records.values()
            if record.is_made
            for digest, path in record.sums()
            if os.path.lexists(self.folder / path)
        ]
        return b"".join(lines)


def _as_current(record: SiteRecord) -> SiteRecord:
    """Return ``record`` as that of an image that is current, if it is there."""
    return replace_record(record, state="current") if record.is_made else record


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
        parts += [self._digest_source(path) for path in list_sources(request)]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()

    def list_changed(self, sites: Iterable[FleetSite]) -> Iterator[FleetSite]:
        """Yield those of ``sites`` of which a source changed since the key was made, as the file system tells."""
        changed = {path for path, stamp in self._stamps.items() if stamp_tree(path) != stamp}
        for site in sites if changed else ():
            if not changed.isdisjoint(list_sources(site.request)):
                yield site

    def _digest_source(self, path: str) -> str:
        """Return a digest of the file or folder ``path`` with all that an overlay takes of it."""
        if path not in self._sources:
            self._stamps[path] = stamp_tree(path)  # first: what changes while it is read has changed
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


def list_sources(request: Request) -> Iterator[str]:
    """Yield the paths of this machine that ``request`` adds from. :raises UsageError: a text in it is no item."""
    yield from map(str, host_paths(item for name in _PARSERS for item in _list_items(request, name)))


_PARSERS: dict[str, Callable[[Any], OverlayItem]] = {
    "add": partial(parse_item, option="--add"), "run": parse_run, "add_iso": partial(parse_item, option="--add-iso"),
}  # fmt: skip
"""What makes items of the elements of a request's fields."""


def _list_items(request: Request, name: str) -> list[OverlayItem]:
    """Return the items in the field ``name`` of ``request``. :raises UsageError: a text in it is none."""
    return [_PARSERS[name](item) for item in getattr(request, name)]


def stamp_tree(path: str) -> bytes:
    """Return what tells the file or folder ``path`` from what it was, without its bytes; empty without one.

    A symlink on the way to it is a part of that: it may have led elsewhere for a while.
    """
    digest = hashlib.sha256()
    try:
        for link, status in walk_links(os.fsencode(path)):
            digest.update(repr((link, status.st_ino, status.st_ctime_ns)).encode())
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
        if field.name in _PARSERS:
            value = [_without_folders(item) for item in _list_items(request, field.name)]
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
        values = (os.path.relpath(at, path), status.st_mode, status.st_uid, status.st_gid,
                  status.st_mtime_ns // 1_000_000_000, status.st_size, status.st_rdev)  # fmt: skip
        yield repr(values).encode("utf-8", "surrogateescape")
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):  # names of one file stay that in the image
            yield b"%d" % first_names.setdefault((status.st_dev, status.st_ino), number)
        if stat.S_ISLNK(status.st_mode):
            yield os.fsencode(os.readlink(at))
            continue
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            yield repr(list(_read_attributes(at))).encode("utf-8", "surrogateescape")
        if stat.S_ISREG(status.st_mode):
            yield digest_file(at).encode()


def _read_attributes(path: str) -> Iterator[tuple[str, bytes | None]]:
    """Yield names and values of the extended attributes of ``path``; None for one that cannot be read.

    There are none where the file system has no such thing.
    """
    names: list[str] = []
    with suppress(AttributeError, OSError):
        names = os.listxattr(path)
    for name in sorted(names):
        try:
            yield name, os.getxattr(path, name)
        except OSError:
            yield name, None
