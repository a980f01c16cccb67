"""The layers of an opened image, indexed when they are first needed and kept for every later remaster."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING

from cosremaster.io.parallel import CancelledError, StopFlag, Worker
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import SourceImage
from cosremaster.layers.address import Address
from cosremaster.layers.cache import index_path, is_remembered, load_index, store_index
from cosremaster.layers.find import ImageLayers, WatchFile, find_layers, group_shared_paths, layers_from_index
from cosremaster.layers.identify import identify
from cosremaster.layers.inner import open_inner_layers
from cosremaster.layers.model import IndexedFile, Layer, build_layers, index_file
from cosremaster.layers.packed_sums import check_sums
from cosremaster.layers.scan import ScanOptions
from cosremaster.lazy_log import LazyLogger
from cosremaster.progress import Progress, SilentProgress
from cosremaster.records import replace

if TYPE_CHECKING:
    from pathlib import Path

    from cosremaster.iso.edits import IsoEdits
    from cosremaster.layers.boot_facts import BootFacts, BootLine
    from cosremaster.layers.kept_plain import PlainKeeper

_LOG = LazyLogger(__name__)


class LayerIndex:
    """The layers of ``image``, which is in ``source``; several threads may use it.

    The packed bytes that a kept index stands for are read beside other work, and compared with its checksums: nobody
    may rely on the layers before :meth:`check`.

    ``remember``: use and keep the index in the user's cache directory; ``check_index``: before a kept index is used,
    compare the SHA-256 of the files of the image that it describes.
    """

    def __init__(
        self, image: SourceImage, source: ByteSource, options: ScanOptions, *, remember: bool, check_index: bool
    ) -> None:
        """Begin without an index."""
        self._image, self._source, self._options = image, source, options
        self.reads_on_demand = image.is_single_file and identify(partial(source.read, 0)).reads_on_demand
        """Whether the image is a file system that is read when it is needed: no index would save anything."""
        self._remember = remember and source.identity().has_name and not self.reads_on_demand
        self._check_index = check_index
        self._layers: dict[bytes | None, ImageLayers] = {}
        self._storing: Worker[bool] | None = None
        self._checks: list[Worker[None]] = []
        self._stop = StopFlag()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Wait until the index is stored, and end comparing: the image is read no more."""
        self._stop.set()
        for worker in self._checks:
            worker.join()
        self.wait()

    def check(self) -> None:
        """Wait until the bytes of the image are known to be those that a kept index stands for.

        :raises CorruptError: they are not, with the first place that differs. :raises ImageError: a read fails.
        """
        with self._lock:
            while self._checks:
                self._checks[0].result()
                del self._checks[0]

    def wait(self) -> None:
        """Wait until the index is stored."""
        if self._storing is not None:
            self._storing.join()

    @property
    def stored_at(self) -> Path | None:
        """The file that keeps the index between runs; None if there is none."""
        self.wait()
        return index_path(self._source) if is_remembered(self._source) else None

    def layers(
        self, address: Address | None, progress: Progress, keeper: PlainKeeper | None = None,
        watch: WatchFile | None = None,
    ) -> ImageLayers:  # fmt: skip
        """Return the layers of the image, or of the file that ``address`` begins with. Raises as ``find_layers``.

        ``keeper``: keeps plain bytes that are decoded for it, which the caller reads again. ``watch``: as in
        ``find_layers``.
        """
        path = None if address is None else address[0]
        with self._lock:
            if path not in self._layers:
                self._layers[path] = self._load(address) or self._find(address, progress, keeper, watch)
            return self._layers[path]

    def open_inner(self, layers: ImageLayers, addresses: Sequence[Address]) -> ImageLayers:
        """Return ``layers`` with those inside file systems that ``addresses`` name; these are indexed each time.

        Raises as ``open_inner_layers``.
        """
        if all(len(address) == 1 for address in addresses):
            return layers
        return replace(layers, layers=open_inner_layers(layers.layers, addresses, self._options))

    @cached_property
    def facts(self) -> BootFacts:
        """What the image boots; menus and initramfs are read when somebody wants to know."""
        return find_facts(self._image, self._open_file)

    def _open_file(self, path: bytes) -> tuple[Layer, ...]:
        """Return the layers in the file ``path`` of the image. Raises as ``find_layers``."""
        whole = self._layers.get(None)
        names = group_shared_paths(self._image).get(path, (path,))
        layers = () if whole is None else tuple(layer for layer in whole.layers if layer.address[0] in names)
        return layers or self.layers((path,), SilentProgress()).layers

    def facts_after(self, edits: IsoEdits) -> BootFacts:
        """Return what the image boots after ``edits``; an initramfs that they change is read when somebody looks."""

        @cache
        def open_file(path: bytes) -> tuple[Layer, ...]:
            """Return the layers in the file ``path`` after the edits."""
            node = edits.added_by_path.get(path)
            table = edits.replaced.get(path) if node is None or node.content is None else node.content.table()
            if table is None:
                return self._open_file(path)
            place = self._image.place.inside(path)
            return build_layers(index_file(path, table, place, self._options), table, place)

        return find_facts(self._image, open_file, edits)

    def known_layers(self) -> tuple[Layer, ...]:
        """Return the layers that were read so far."""
        with self._lock:
            found = list(self._layers.values())
        return tuple({layer.address: layer for layers in found for layer in layers.layers}.values())

    def _load(self, address: Address | None) -> ImageLayers | None:
        """Return the layers by a stored index; None if none fits."""
        index = load_index(self._source, self._image, check=self._check_index) if self._remember else None
        if index is None:
            reason = "no index that fits is remembered" if self._remember else "no index is remembered of such an image"
            _LOG.info("%s: %s, its layers are read", self._image.place, reason)
            return None
        _LOG.info("%s: the remembered index is used: %s", self._image.place, index_path(self._source))
        files = [file for file in index.files if address is None or file.path == address[0]]
        self._checks.append(Worker(lambda: self._compare(files)))
        return layers_from_index(self._image, files, index.foreign_files) if files or address is None else None

    def _compare(self, indexed: Sequence[IndexedFile]) -> None:
        """Compare the files of the image with the checksums of ``indexed``. Raises as :meth:`check`."""
        tables = {file.path: self._image.bytes_of(file) for file in self._image.files}
        with suppress(CancelledError):
            for file in indexed:
                check_sums(tables[file.path], file.sums, self._image.place.inside(file.path), self._stop)

    def _find(
        self, address: Address | None, progress: Progress, keeper: PlainKeeper | None, watch: WatchFile | None
    ) -> ImageLayers:
        """Index the layers, and store the index beside other work."""
        layers = find_layers(self._image, address, progress, self._options._replace(keeper=keeper), watch)
        if self._remember and address is None and not layers.refusals and not self._has_twins(layers.indexed_files):
            self._storing = Worker(lambda: self._store(layers))
        return layers

    def _store(self, layers: ImageLayers) -> bool:
        """Store the index of ``layers``; return whether it could be."""
        is_stored = store_index(self._source, layers.indexed_files, layers.foreign_files)
        if is_stored:
            _LOG.info("%s: the index is remembered in %s", self._image.place, index_path(self._source))
        else:
            _LOG.info("%s: the index cannot be remembered", self._image.place)
        return is_stored

    def _has_twins(self, indexed: Sequence[IndexedFile]) -> bool:
        """Return whether another file of a damaged image has the path of a file in ``indexed``: no index tells them."""
        counts = Counter(file.path for file in self._image.files)
        return any(counts[file.path] > 1 for file in indexed)


def find_facts(
    image: SourceImage, open_file: Callable[[bytes], Sequence[Layer]], edits: IsoEdits | None = None
) -> BootFacts:
    """Return what ``image`` boots; ``open_file``: returns the layers in the file of the image at a path.

    ``edits``: of its tree, after which boot menus are read.
    """
    from cosremaster.layers.boot_facts import BootFacts  # noqa: PLC0415 - only live images have several roots

    def read_lines() -> Sequence[BootLine]:
        """Return the entries of boot menus."""
        from cosremaster.boot_config.boot_lines import read_boot_lines  # noqa: PLC0415 - loads every language

        return read_boot_lines(image, edits)

    return BootFacts(read_lines, open_file)
