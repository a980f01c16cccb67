"""What the sites of a fleet are made from: the base, by path or URL, or an inner base with what is common to all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cosremaster.api.delta import apply
from cosremaster.api.image import Image
from cosremaster.deltas.note import note_path
from cosremaster.errors import CosremasterError, ImageError, Place
from cosremaster.fleet.split import SplitRequests
from cosremaster.fleet.state import FleetState, stamp_tree
from cosremaster.io.output import Output
from cosremaster.io.part_files import lock_part
from cosremaster.io.source import ByteSource, keep_whole, open_source
from cosremaster.io.streams import count_chunks
from cosremaster.io.urls import Url
from cosremaster.progress import Progress, SilentProgress
from cosremaster.records.tuples import NamedTuple
from cosremaster.remastering.image import OpenedImage
from cosremaster.remastering.request import Request

if TYPE_CHECKING:
    from cosremaster.api.results import Result

_INNER = ".cosremaster-fleet-base"
"""The beginning of the names of inner bases."""


class SiteBase(NamedTuple):
    """What sites are made from: ``image``, a path or URL, and the ``delta`` that makes it of the fleet's own base.

    ``has_common``: what is common to all sites is done in it; ``warnings``: what was to be said of that.
    """

    image: str
    delta: Path | None = None
    has_common: bool = False
    warnings: tuple[str, ...] = ()


class FleetBase:
    """The base of a fleet, held open where it is on another machine: what was fetched of it stays here.

    :raises ImageError: it cannot be read.
    """

    def __init__(self, base: Path | Url) -> None:
        """Open a base on another machine."""
        self.base = base
        self._source: ByteSource | None = open_source(base) if isinstance(base, Url) else None
        self._stamps: dict[str, bytes] = {}

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
                with open_source(self.base) as source:
                    self._stamps = {path: stamp_tree(path) for path in map(str, (self.base, *source.local_paths))}
                    return state.digest_base(self.base, source)
            except OSError as error:
                raise ImageError(f"cannot be read: {error.strerror}", Place((str(self.base),))) from error
        assert self._source is not None
        if reads:
            keep_whole(self._source)
        return state.digest_far_base(str(self.base), self._source, reads=reads)

    @property
    def is_replaced(self) -> bool:
        """Whether a base of this machine is another file than the one that was summed, was for a while, or changed."""
        return any(stamp_tree(path) != stamp for path, stamp in self._stamps.items())

    @contextmanager
    def make_site_base(
        self, folder: Path, split: SplitRequests, wholes: Sequence[Request], *, delta: bool, is_shared: bool,
        check_index: bool, progress: Progress | None,
    ) -> Iterator[SiteBase]:  # fmt: skip
        """Give what sites are made from: the base, or an inner one in ``folder`` in which what is common is done.

        ``wholes``: all that is wanted of each site; what that means in the base has to be what the rest of it means in
        an inner base. ``delta``: the sites become deltas of the base; ``is_shared``: other processes make them.
        Inner bases are removed at the end, and so are their indexes. They are locked meanwhile: what a killed run left
        is not.
        """
        with ExitStack() as stack:
            made: SiteBase | None = None
            _remove_stale_bases(folder)
            if split.common is not None:
                made = self._do_common(folder, split, wholes, stack, delta=delta, check_index=check_index,
                                       progress=progress)  # fmt: skip
            if made is None and is_shared and self._source is not None:
                made = self._copy(folder, stack, progress)
            yield made or SiteBase(self.base.text if isinstance(self.base, Url) else str(self.base))

    def _do_common(
        self, folder: Path, split: SplitRequests, wholes: Sequence[Request], stack: ExitStack, *, delta: bool,
        check_index: bool, progress: Progress | None,
    ) -> SiteBase | None:  # fmt: skip
        """Make an inner base, which ``stack`` removes; None where sites would change something else in it."""
        common = split.common
        assert common is not None
        with ExitStack() as own:
            inner = self._name_inner(folder, own)
            if delta:
                made, result = self._make_by_delta(inner, common, own, check_index=check_index, progress=progress)
            else:
                with Image(self.base, check_index=check_index) as image:
                    result = image.remaster(inner, common, sync=False, progress=progress)
                made = SiteBase(str(inner), has_common=True, warnings=tuple(result.warnings))
            _lock(inner, own)
            is_layer_common = any((common.add, common.remove, common.maas_clean))
            changing = [
                whole for whole, rest in zip(wholes, split.rests, strict=True) if is_layer_common and _is_for_tree(rest)
            ]
            if not (changing or any(map(_is_for_layer, split.rests))) or self._means_the_same(
                inner, wholes[0], changing, frozenset(result.iso_exchanged), check_index=check_index
            ):
                stack.push(own.pop_all())
                return made
        return None

    def _means_the_same(
        self, inner: Path, whole: Request, changing: Sequence[Request], exchanged: frozenset[bytes], *,
        check_index: bool,
    ) -> bool:  # fmt: skip
        """Return whether the layers that ``whole`` means in the base are those that it means in the ``inner`` one.

        They are not where a menu, a removal or a rename on the ISO leads to another root, nor where ``exchanged`` files
        hold them, or one of ``changing``, requests of sites that change the tree, exchanges these, which a single run
        refuses.
        """
        try:
            with OpenedImage(self.base, check_index=check_index) as image:
                meant = image.list_meant_files(whole)
                paths = frozenset(path for file in meant for path in file.paths)
                if paths & exchanged or any(_exchanges(image, request, paths) for request in changing):
                    return False
            with OpenedImage(inner) as image:
                return image.list_meant_files(whole) == meant
        except CosremasterError:  # each site tells what is wrong
            return False

    def _name_inner(self, folder: Path, stack: ExitStack) -> Path:
        """Return the name of a new inner base in ``folder``, which ``stack`` removes."""
        inner = folder / f"{_INNER}-{os.urandom(4).hex()}{self.ending}"
        stack.callback(_remove_base, inner)
        return inner

    def _make_by_delta(
        self, inner: Path, common: Request, stack: ExitStack, *, check_index: bool, progress: Progress | None
    ) -> tuple[SiteBase, Result]:
        """Make the image ``inner`` of the base by a delta, which is removed with it."""
        delta = inner.with_name(f"{inner.name}.vcdiff")
        for path in (delta, note_path(delta)):
            stack.callback(path.unlink, missing_ok=True)
        with Image(self.base, check_index=check_index) as image:
            result = image.remaster(delta, common, delta=True, sync=False, progress=progress)
        for path in (delta, note_path(delta)):
            _lock(path, stack)
        apply(self.base, delta, inner, sync=False, progress=progress)
        return SiteBase(str(inner), delta, has_common=True, warnings=tuple(result.warnings)), result

    def _copy(self, folder: Path, stack: ExitStack, progress: Progress | None) -> SiteBase:
        """Write the base, which is far away, to ``folder``, so that it comes once for all processes."""
        assert self._source is not None
        inner, source = self._name_inner(folder, stack), self._source
        with Output(inner, (), force=False, sync=False) as output:
            with (progress or SilentProgress()).step(f"fetch {self.base}", source.size) as advance:
                output.write_chunks(count_chunks(source.chunks(0, source.size), advance))
            source.check_unchanged()
            output.publish()
        _lock(inner, stack)
        return SiteBase(str(inner))


def _lock(path: Path, stack: ExitStack) -> None:
    """Lock the file ``path`` while ``stack`` is open, so that no other run takes it for what was left over."""
    lock_part(stack.enter_context(path.open("rb+")).fileno())


def _exchanges(image: OpenedImage, request: Request, paths: frozenset[bytes]) -> bool:
    """Return whether ``request`` exchanges one of the files ``paths``; where it fails, its site tells why."""
    try:
        return image.exchanges(request, paths)
    except CosremasterError:
        return False


def _is_for_tree(rest: Request) -> bool:
    """Return whether the ``rest`` of a site changes the ISO's own tree."""
    return any((rest.add_iso, rest.remove_iso, rest.rename_iso))


def _is_for_layer(rest: Request) -> bool:
    """Return whether the ``rest`` of a site changes a layer, or names one."""
    return any((rest.add, rest.remove, rest.run, rest.maas_clean, rest.layer))


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
