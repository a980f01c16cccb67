"""What the sites of a fleet are made from: the base, by path or URL, or an inner base with what is common to all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cosremaster.api.delta import apply
from cosremaster.api.image import Image
from cosremaster.deltas.note import note_path
from cosremaster.errors import CosremasterError, ImageError, Place
from cosremaster.fleet.state import FleetState
from cosremaster.io.output import Output
from cosremaster.io.part_files import lock_part
from cosremaster.io.source import ByteSource, keep_whole, open_source
from cosremaster.io.streams import count_chunks
from cosremaster.io.urls import Url
from cosremaster.progress import Progress, SilentProgress
from cosremaster.records.tuples import NamedTuple
from cosremaster.remastering.request import Request

_INNER = ".cosremaster-fleet-base"
"""The beginning of the names of inner bases."""


class SiteBase(NamedTuple):
    """What sites are made from: ``image``, a path or URL, and the ``delta`` that makes it of the fleet's own base."""

    image: str
    delta: Path | None = None


class FleetBase:
    """The base of a fleet, held open where it is on another machine: what was fetched of it stays here.

    :raises ImageError: it cannot be read.
    """

    def __init__(self, base: Path | Url) -> None:
        """Open a base on another machine."""
        self.base = base
        self._source: ByteSource | None = open_source(base) if isinstance(base, Url) else None

    def __enter__(self) -> FleetBase:
        """Return the base itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        if self._source is not None:
            self._source.close()

    @property
    def ending(self) -> str:
        """What the name of the base ends in."""
        return Path(self.base.name).suffix

    def digest(self, state: FleetState, *, reads: bool) -> str:
        """Return the SHA-256 of the base, as ``state`` knows it, or else read; of one far away only if it ``reads``.

        It is empty where it is not known. :raises ImageError: the base cannot be read.
        """
        if isinstance(self.base, Path):
            try:
                return state.digest_base(self.base)
            except OSError as error:
                raise ImageError(f"cannot be read: {error.strerror}", Place((str(self.base),))) from error
        assert self._source is not None
        if reads:
            keep_whole(self._source)
        return state.digest_far_base(str(self.base), self._source, reads=reads)

    @contextmanager
    def make_site_base(
        self, folder: Path, common: Request | None, *, delta: bool, is_shared: bool, check_index: bool,
        progress: Progress | None,
    ) -> Iterator[SiteBase]:  # fmt: skip
        """Give what sites are made from: the base, or an inner one in ``folder`` in which what is ``common`` is done.

        ``delta``: the sites become deltas of the base; ``is_shared``: other processes make them. Inner bases are
        removed at the end, and so are their indexes. They are locked meanwhile: what a killed run left is not.
        """
        with ExitStack() as stack:
            text = self.base.text if isinstance(self.base, Url) else str(self.base)
            if common is None and not (is_shared and self._source is not None):
                yield SiteBase(text)
                return
            _remove_stale_bases(folder)
            inner = folder / f"{_INNER}-{os.urandom(4).hex()}{self.ending}"
            stack.callback(_remove_base, inner)
            if common is None:
                self._copy(inner, progress)
                made = SiteBase(str(inner))
            elif delta:
                made = self._make_by_delta(inner, common, stack, check_index=check_index, progress=progress)
            else:
                with Image(self.base, check_index=check_index) as image:
                    image.remaster(inner, common, sync=False, progress=progress)
                made = SiteBase(str(inner))
            lock_part(stack.enter_context(open(inner, "rb+")).fileno())
            yield made

    def _make_by_delta(
        self, inner: Path, common: Request, stack: ExitStack, *, check_index: bool, progress: Progress | None
    ) -> SiteBase:
        """Make the image ``inner`` of the base by a delta, which is removed with it."""
        delta = inner.with_name(f"{inner.name}.vcdiff")
        for path in (delta, note_path(delta)):
            stack.callback(path.unlink, missing_ok=True)
        with Image(self.base, check_index=check_index) as image:
            image.remaster(delta, common, delta=True, sync=False, progress=progress)
        for path in (delta, note_path(delta)):
            lock_part(stack.enter_context(path.open("rb+")).fileno())
        apply(self.base, delta, inner, sync=False, progress=progress)
        return SiteBase(str(inner), delta)

    def _copy(self, target: Path, progress: Progress | None) -> None:
        """Write the base, which is far away, to ``target``, so that it comes once for all processes."""
        assert self._source is not None
        source = self._source
        with Output(target, (), force=False, sync=False) as output:
            with (progress or SilentProgress()).step(f"fetch {self.base}", source.size) as advance:
                output.write_chunks(count_chunks(source.chunks(0, source.size), advance))
            source.check_unchanged()
            output.publish()


def _remove_stale_bases(folder: Path) -> None:
    """Remove the inner bases in ``folder`` that killed runs left."""
    for path in folder.glob(f"{_INNER}-*"):
        with suppress(OSError), open(path, "rb+") as file:
            if lock_part(file.fileno()):
                path.unlink()


def _remove_base(path: Path) -> None:
    """Remove the image ``path``, if it is there, and its index."""
    with suppress(CosremasterError, OSError):
        with Image(path) as image:
            index = image.index_file
        if index is not None:
            index.unlink(missing_ok=True)
    with suppress(OSError):
        path.unlink(missing_ok=True)
