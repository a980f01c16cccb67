"""The images of sites: planned when they are first asked for, kept while their sources stay as they are."""

from __future__ import annotations

import gc
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from weakref import ref

from cosremaster.api.image import Image
from cosremaster.api.network_boot import plan_network_boot
from cosremaster.browse.container import open_container
from cosremaster.errors import CosremasterError, ImageError, LayerError, Place, UnsupportedError, UsageError
from cosremaster.io.pieces import PieceTable, Zeros
from cosremaster.io.remote import RemoteSource, open_remote
from cosremaster.io.shared_use import SharedUse
from cosremaster.io.streams import CHUNK
from cosremaster.io.urls import AbsentFileError, ChangedFileError, Url
from cosremaster.iso.read import has_volume
from cosremaster.overlay.request import host_paths
from cosremaster.records.tuples import NamedTuple
from cosremaster.remastering.request import parse_item
from cosremaster.serve.fingerprint import Fingerprint, take_fingerprint
from cosremaster.serve.looks import Look, Pace, Watched, WatchedFiles, WatchedUrl, join_looks
from cosremaster.serve.metrics import Metrics
from cosremaster.serve.ranges import Representation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cosremaster.io.source import SourceIdentity
    from cosremaster.remastering.prepared import Prepared
    from cosremaster.remastering.request import Request

IMAGE_TYPE = "application/x-iso9660-image"
FILE_TYPE = "application/octet-stream"
SCRIPT_TYPE = "text/plain; charset=utf-8"

CHECK_INTERVAL = 1.0
"""Seconds for which the sources of a site are not looked at again."""
CHECK_SHARE = 50
"""Looking at a site's sources takes at most a part of the time of which this is the inverse."""
COLLECTION = 8
"""Plans after which what they left is collected: trees of pycdlib, which are cycles. Otherwise what sites keep is
scattered among them, and takes twice the memory.
"""
URL_INTERVAL = 10.0
"""Seconds for which a base by URL is not asked for again: each time is a request to its server."""
FAILURE_INTERVAL = 5.0
"""Seconds for which a site that cannot be planned is not tried again."""
TRIALS = 3
"""Times that a site is read at most before a plan, where it changes meanwhile."""
SETTLING = 1.02
"""Seconds from the beginning of one in which a file changed until no change has the same date, nor, where the clock of
a file system is coarse, the same state. That clock may lag by the rest.
"""


class SiteSource(NamedTuple):
    """What a site's image is made of.

    ``files``: the files that say so; ``expect``: names of digests that the base must have, and their digits.
    """

    base: Path | Url
    request: Request
    files: tuple[Path, ...]
    expect: tuple[tuple[str, str], ...] = ()

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All files and folders of this machine that the image depends on."""
        request = self.request
        items = [parse_item(item, "--add") for item in (*request.add, *request.add_iso)]
        base = () if isinstance(self.base, Url) else (self.base,)
        return tuple(dict.fromkeys((*base, *self.files, *host_paths(items))))


class _OpenedBase:
    """A base that sites are planned with; dropped, it closes behind the last of them.

    ``state``: that of its file, if it is on this machine. ``watched``: whether its bytes are still those of the server,
    if it is not.
    """

    def __init__(self, place: Path | Url, image: Image, state: Fingerprint, remote: RemoteSource | None) -> None:
        """Keep the arguments: where it is, the opened image, and its bytes where it is on another machine."""
        self.place, self.image, self.state = place, image, state
        self.watched = None if remote is None else WatchedUrl(remote, URL_INTERVAL)
        self.use = SharedUse(partial(_close_base, image, remote), str(place))
        self._checked: dict[tuple[str, str], CosremasterError | None] = {}

    @property
    def is_changed(self) -> bool:
        """Whether its server was seen to have another file now, or none."""
        return self.watched is not None and self.watched.is_changed

    def is_stale(self) -> bool:
        """Return whether it cannot be read any more as it was opened. A server that says nothing is no change."""
        try:
            self.image.check_unchanged()
        except (AbsentFileError, ChangedFileError):
            return True
        except CosremasterError:
            return self.watched is None
        return False

    def check(self, expect: Sequence[tuple[str, str]]) -> None:
        """Check the digests ``expect``, each once: sites that have the base in common may expect different ones.

        :raises ImageError: one differs.
        """
        for each in expect:
            if each not in self._checked:
                try:
                    self.image.check_digest(*each)
                except ImageError as error:
                    self._checked[each] = error
                else:
                    self._checked[each] = None
            fault = self._checked[each]
            if fault is not None:
                raise fault.with_traceback(None)  # which would become longer each time


def _close_base(image: Image, remote: RemoteSource | None) -> None:
    """Close a base; what was planned with it stays readable."""
    image.close()
    if remote is not None:
        remote.close()


class SiteCatalog(Protocol):
    """The sites that are served."""

    @property
    def title(self) -> str:
        """What the page of the sites is called."""
        ...

    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences about what should be a site and was none, when the names were last read."""
        ...

    def names(self) -> Collection[str]:
        """Return the names of all sites, as they are now. :raises CosremasterError: they cannot be read."""
        ...

    def read_site(self, name: str) -> SiteSource:
        """Return what the site ``name`` is made of, as it is now. :raises CosremasterError: it has faults."""
        ...


class ServedFile(NamedTuple):
    """Bytes to serve: what they are, and how ``length`` of them are read from an offset on.

    ``is_slow``: reading waits for another machine.
    """

    representation: Representation
    read: Callable[[int, int], bytes]
    is_slow: bool = False


class ServedSite:
    """The image of a site, which is not written, and what is made of it: its digest, the files of a network boot.

    Who reads it does so inside :meth:`using`.
    """

    def __init__(
        self, name: str, source: SiteSource, base: _OpenedBase, inputs: tuple[Watched | WatchedUrl, ...],
        state: Fingerprint, prepared: Prepared, before: Representation | None = None,
    ) -> None:  # fmt: skip
        """Keep the arguments; ``inputs`` are the files of the source and its base, and ``state`` is theirs.

        ``base``: with which it was planned; it is held by nobody when it is dropped. ``before``: what was served under
        the name until now. Another image has another date, which is not older: the files that it is made of may be,
        where a folder took the place of another.
        """
        self.name, self.source, self.inputs, self.state, self._prepared = name, source, inputs, state, prepared
        self.base = ref(base)
        self._use = SharedUse(prepared.close, name)
        etag = prepared.identity()
        self._is_remote = isinstance(source.base, Url)
        modified = None if self._is_remote else state.changed
        if modified is not None and before is not None and before.modified is not None:
            modified = max(modified, before.modified + (before.etag != etag))
        image = Representation(prepared.size, etag, modified, IMAGE_TYPE)
        self.image = ServedFile(image, prepared.read, self._is_remote)
        self.warnings = prepared.warnings
        self.fresh_until = self.renewal = 0.0
        self._lock = threading.Lock()
        self._digest: ServedFile | None = None
        self._boot: Mapping[str, ServedFile] | None = None

    def using(self) -> AbstractContextManager[None]:
        """Return a context in which the image stays readable, whoever closes it. :raises UsageError: it is closed."""
        return self._use.using()

    def close(self) -> None:
        """Let no new answer begin; those that read go on."""
        self._use.close()

    @property
    def has_digest(self) -> bool:
        """Whether the digest is computed."""
        return self._digest is not None

    @property
    def has_boot_files(self) -> bool:
        """Whether the files of a network boot are looked up."""
        return self._boot is not None

    def digest_file(self) -> ServedFile:
        """Return the file of sha256sum(1) for the image, all of which is read the first time."""
        with self._lock:
            if self._digest is None:
                digest = hashlib.sha256()
                for offset in range(0, self.image.representation.size, CHUNK):
                    digest.update(self._prepared.read(offset, CHUNK))
                text = f"{digest.hexdigest()}  {self.name}.iso\n".encode()
                self._digest = self._small_file("sha256", text, SCRIPT_TYPE)
            return self._digest

    def boot_files(self) -> Mapping[str, ServedFile]:
        """Return the files of a network boot by their names: those of the script ``boot.ipxe``, and itself.

        ``vmlinuz`` and ``initrd`` are there under any name: ``initrd`` is all that the kernel unpacks.
        :raises LayerError: the image has no kernel or no initramfs, or several.
        """
        with self._lock:
            if self._boot is None:
                self._boot = self._plan_boot()
            return self._boot

    def _plan_boot(self) -> Mapping[str, ServedFile]:
        """Return what :meth:`boot_files` does, read from the image."""
        source = PreparedSource(self._prepared, f"{self.name}.iso", is_far=self._is_remote)
        boot = plan_network_boot(open_container(source)[0])
        *loaded, script = boot.nodes
        tables = [PieceTable([]) if node.content is None else node.content.table() for node in loaded]
        files = {"vmlinuz": self._table_file("vmlinuz", tables[0]), "initrd": self._join_initrds(tables[1:])}
        for node, table in zip(loaded, tables, strict=True):
            name = node.path.decode("ascii")
            files[name] = self._table_file(name, table)
        assert script.content is not None
        files["boot.ipxe"] = self._small_file("boot.ipxe", script.content.head(script.content.size), SCRIPT_TYPE)
        return files

    def _join_initrds(self, tables: Sequence[PieceTable]) -> ServedFile:
        """Return ``tables`` as one initramfs: the kernel unpacks them in turn, each from a multiple of 4 bytes on."""
        pieces = [piece for table in tables for piece in (*table.pieces, Zeros(-table.length % 4))]
        return self._table_file("initrd", tables[0] if len(tables) == 1 else PieceTable(pieces))

    def _table_file(self, name: str, table: PieceTable) -> ServedFile:
        """Return the bytes ``table`` as the file ``name`` of this site."""
        return ServedFile(self._describe(name, table.length, FILE_TYPE), table.read, self._is_remote)

    def _small_file(self, name: str, data: bytes, media_type: str) -> ServedFile:
        """Return ``data`` as the file ``name`` of this site."""
        return ServedFile(
            self._describe(name, len(data), media_type), lambda offset, length: data[offset : offset + length]
        )

    def _describe(self, name: str, size: int, media_type: str) -> Representation:
        """Return what is said of the file ``name``, which is as new as the image."""
        image = self.image.representation
        etag = hashlib.sha256(f"{image.etag} {name}".encode()).hexdigest()
        return Representation(size, etag, image.modified, media_type)


class PreparedSource:
    """An image that is not written, as a :class:`~cosremaster.io.source.ByteSource`."""

    descriptor = None
    local_paths: tuple[Path, ...] = ()

    def __init__(self, prepared: Prepared, name: str, *, is_far: bool) -> None:
        """Keep the arguments; ``name`` is the image's in messages."""
        self.is_far = is_far
        self._prepared, self.name, self.place, self.size = prepared, name, Place((name,)), prepared.size
        self.read, self.read_into, self.check_unchanged = prepared.read, prepared.read_into, prepared.check_unchanged

    def __enter__(self) -> PreparedSource:
        """Return the source itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: its owner closes it."""

    def close(self) -> None:
        """Do nothing: its owner closes it."""

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``offset`` on, in chunks."""
        return self._prepared.chunks(offset, length)

    def identity(self) -> SourceIdentity:
        """Return its identity."""
        from cosremaster.io.source import SourceIdentity  # noqa: PLC0415 - no index of it is kept

        return SourceIdentity(f"prepared-{self._prepared.identity()}", {})


class SiteImages:
    """The images of the sites of ``catalog``, the last ``limit`` of them; ``metrics`` count plans.

    Threads may share it.
    """

    def __init__(self, catalog: SiteCatalog, limit: int, metrics: Metrics | None = None) -> None:
        """Begin without images."""
        self.catalog, self._limit, self.metrics = catalog, limit, metrics or Metrics()
        self._sites: OrderedDict[str, ServedSite] = OrderedDict()
        self._files = WatchedFiles()
        self._bases: dict[Path | Url, _OpenedBase] = {}
        self._failures: dict[str, tuple[float, CosremasterError]] = {}
        self._served: dict[str, Representation] = {}
        self._lock = threading.Lock()  # of all that is kept, for moments
        self._opening = threading.Lock()  # which may take long

    def __len__(self) -> int:
        """Return how many images are kept."""
        return len(self._sites)

    def known_site(self, name: str) -> ServedSite | None:
        """Return the image of the site ``name`` if it is kept, whether or not its sources changed."""
        return self._sites.get(name)

    def fresh_site(self, name: str) -> ServedSite | None:
        """Return the image of the site ``name`` if it is kept, and its sources were looked at a moment ago."""
        site = self._sites.get(name)
        if site is None or time.monotonic() >= site.fresh_until:
            return None
        with self._lock:
            if name in self._sites:
                self._sites.move_to_end(name)
        return site

    def check_site(self, name: str) -> ServedSite | None:
        """Return the image of the site ``name`` if it is kept, and its sources are as they were."""
        site = self._sites.get(name)
        if site is None:
            return None
        look = join_looks(each.look(_pace()) for each in site.inputs)
        if look.state != site.state:
            site.fresh_until = 0.0
            return None
        site.fresh_until, site.renewal = look.until, look.renewal
        return site

    def is_due(self, site: ServedSite) -> bool:
        """Return whether it is time to look at the sources of ``site`` again, though they count a little longer.

        It is so for no other who asks before somebody does.
        """
        if time.monotonic() < site.renewal:
            return False
        site.renewal = site.fresh_until
        return True

    def find_site(self, name: str) -> ServedSite:
        """Return the image of the site ``name`` as its sources are now. Only one thread at a time asks for a site.

        :raises CosremasterError: it cannot be planned.
        """
        site = self.check_site(name)
        if site is not None:
            return site
        failed_until, error = self._failures.get(name, (0.0, None))
        if error is not None and time.monotonic() < failed_until:
            raise error.with_traceback(None)  # which would become longer each time
        begun = time.monotonic()
        try:
            site = self._plan_site(name)
        except CosremasterError as failure:
            self._forget(name)
            self.metrics.plans_failed += 1
            self._failures[name] = time.monotonic() + FAILURE_INTERVAL, failure
            raise
        self._failures.pop(name, None)
        self.metrics.plans_made += 1
        self.metrics.planning_microseconds += round((time.monotonic() - begun) * 1e6)
        self._keep(site)
        if not self.metrics.plans_made % COLLECTION:
            gc.collect()
        return site

    def _plan_site(self, name: str) -> ServedSite:
        """Return the planned image of the site ``name``. :raises CosremasterError: it cannot be planned."""
        source, files, looks = self._read_source(name)
        begun = time.monotonic()
        with self._using_base(source) as base:
            inputs: tuple[Watched | WatchedUrl, ...] = files
            if base.watched is not None:
                inputs = (*files, base.watched)
                looks.append(base.watched.look(_pace()))
            look = join_looks(looks)
            prepared = base.image.prepare(source.request)
            site = ServedSite(name, source, base, inputs, look.state, prepared, self._served.get(name))
        try:
            if not has_volume(PreparedSource(prepared, name, is_far=False)):
                raise UnsupportedError("is no ISO 9660 image, and no other is served", Place((str(source.base),)))
        except BaseException:
            site.close()
            raise
        taken = time.monotonic() - begun
        site.fresh_until, site.renewal = look.until + taken, look.renewal + taken
        return site

    def _read_source(self, name: str) -> tuple[SiteSource, tuple[Watched, ...], list[Look]]:
        """Return what the site ``name`` is made of, and its files with looks at them that are older than that.

        So what changes from the looks on is seen the next time. Which files these are says the recipe, so it is read
        once before them, too. What changed in this very second is looked at when that is over: by then who copies
        files may be ready, and no other image has its date, here or in another process.

        :raises CosremasterError: it has faults.
        """
        source = self.catalog.read_site(name)
        for trial in range(TRIALS):
            files, begun = self._files.find(source.inputs), time.time()
            looks = [each.look_again(_pace()) for each in files]
            before, source = source.inputs, self.catalog.read_site(name)
            end = join_looks(looks).state.changed + SETTLING
            if not trial and begun < end <= begun + SETTLING:
                time.sleep(max(0, end - time.time()))
            elif source.inputs == before:
                return source, files, looks
        raise UsageError(f"the site {name} changes while it is read")

    @contextmanager
    def _using_base(self, source: SiteSource) -> Iterator[_OpenedBase]:
        """Return a context in which the base of ``source`` is open, opened anew if it changed.

        Where planning fails and the base is another by now, it is dropped. :raises CosremasterError: it cannot be
        opened, or is not as expected.
        """
        base = self._take_base(source)
        if base is None:
            with self._opening:  # somebody else may have opened it meanwhile
                base = self._take_base(source) or self._open_base(source)
        try:
            base.check(source.expect)
            yield base
        except CosremasterError:
            if base.is_stale():
                self._drop_base(base)
            raise
        finally:
            base.use.end()

    def _take_base(self, source: SiteSource) -> _OpenedBase | None:
        """Return the base of ``source`` for a user more, who ends; None where it is not open, or changed."""
        with self._lock:
            base = self._bases.get(source.base)
            if base is not None:
                base.use.begin()
        if base is None:
            return None
        if base.state == _state_of_base(source.base) and not base.is_changed:
            return base
        self._drop_base(base)
        base.use.end()
        return None

    def _open_base(self, source: SiteSource) -> _OpenedBase:
        """Return the base of ``source``, opened now, for a user more, who ends. Raises as :meth:`_using_base`."""
        state = _state_of_base(source.base)
        with ExitStack() as stack:
            # Before the image, which then has the same bytes; if not, it is the watch that says too early: changed.
            remote = stack.enter_context(open_remote(source.base)) if isinstance(source.base, Url) else None
            if remote is not None:
                remote.check_each_fetch()
            image = stack.enter_context(Image(source.base))
            base = _OpenedBase(source.base, image, state, remote)
            base.check(source.expect)
            image.info()
            stack.pop_all()
        base.use.begin()
        with self._lock:
            self._bases[source.base] = base
        return base

    def _drop_base(self, base: _OpenedBase) -> None:
        """Let ``base`` be opened anew by who plans next; it closes behind those who plan with it now."""
        with self._lock:
            if self._bases.get(base.place) is not base:
                return
            del self._bases[base.place]
        base.use.close()

    def _keep(self, site: ServedSite) -> None:
        """Keep ``site``, and drop those that nobody asked for longest where there are too many."""
        with self._lock:
            dropped = [self._sites.pop(site.name, None)]
            self._sites[site.name] = site
            self._served[site.name] = site.image.representation
            while len(self._sites) > self._limit:
                dropped.append(self._sites.popitem(last=False)[1])
            self.metrics.planned_sites = len(self._sites)
        for each in dropped:
            if each is not None:
                each.close()

    def drop(self, site: ServedSite) -> None:
        """Drop ``site``, which cannot be read any more, and let its base be opened anew."""
        if self._sites.get(site.name) is site:
            self._forget(site.name)
        base = site.base()
        if base is not None:
            self._drop_base(base)

    def _forget(self, name: str) -> None:
        """Drop the image of the site ``name``."""
        with self._lock:
            site = self._sites.pop(name, None)
            self.metrics.planned_sites = len(self._sites)
        if site is not None:
            site.close()

    def close(self) -> None:
        """Drop all images, and close the bases."""
        for name in list(self._sites):
            self._forget(name)
        for base in list(self._bases.values()):
            self._drop_base(base)


def _state_of_base(place: Path | Url) -> Fingerprint:
    """Return the state of the base at ``place``, if it is on this machine."""
    return take_fingerprint([] if isinstance(place, Url) else [place])


def _pace() -> Pace:
    """Return how often is looked."""
    return Pace(CHECK_INTERVAL, CHECK_SHARE)


def find_boot_file(site: ServedSite, name: str) -> ServedFile:
    """Return the file ``name`` of the network boot of ``site``. :raises LayerError: there is none of the name."""
    files = site.boot_files()
    if name not in files:
        raise LayerError(f"a network boot of {site.name} has {', '.join(sorted(files))}, and no {name}")
    return files[name]
