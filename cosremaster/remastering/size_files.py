"""Files that tell installers how large an unpacked squashfs file is: they follow its edits by the difference.

live-build and casper: ``filesystem.size`` and ``minimal.standard.size`` beside the squashfs files, in decimal digits.
Of casper's layers ``filesystem.size`` is the sum of those of the live session (livecd-rootfs, ``lb_binary_layered``),
and ``install-sources.yaml`` has for each system that may be installed the size of all layers together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cosremaster.errors import printable
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import SourceImage
from cosremaster.layers.stacks import open_filesystem
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct
from cosremaster.records.lazy_dataclass import dataclass
from cosremaster.remastering.disk_usage import measure_growth, measure_layer_usage, measure_shown_growth
from cosremaster.remastering.install_sources import NAME as SOURCES
from cosremaster.remastering.install_sources import SourceSize, find_source_sizes
from cosremaster.remastering.stacked_edits import StackedEdits

_SQUASHFS, _SIZE, _LIVE = b".squashfs", b".size", b".live"
_WHOLE = b"filesystem"
_NUMBER = lazy_regex(rb"\s*(\d{1,18})\s*")
_MAX_NUMBER_FILE = 64
_MAX_SOURCES = 1 << 20


@dataclass(frozen=True, slots=True)
class SizeChange:
    """A size in bytes that the file at ``path`` tells, before and after; ``of``: the file system that it is about."""

    path: bytes
    of: bytes
    before: int
    after: int


class SizeFiles(Struct, frozen=True):
    """The new bytes of files that tell sizes, by their paths, what changes in them, and warnings of those that stay."""

    tables: dict[bytes, PieceTable]
    changes: tuple[SizeChange, ...]
    warnings: tuple[str, ...]


def plan_size_files(image: SourceImage, edits: IsoEdits, stacked: Sequence[StackedEdits]) -> SizeFiles:
    """Return what becomes of the files that tell sizes, after ``edits`` of the ISO's tree.

    :param stacked: the edits of layers among them; other file systems are exchanged as a whole.
    """
    return _SizePlanner(image, edits, stacked).plan()


class _SizePlanner:
    """The state of :func:`plan_size_files`."""

    def __init__(self, image: SourceImage, edits: IsoEdits, stacked: Sequence[StackedEdits]) -> None:
        """Remember which files change, and which stay."""
        self._image, self._edits = image, edits
        self._files = {file.path: file for file in image.files}
        self._stacked = {change.layer.address[0]: change for change in stacked if change.layer.parent is None}
        self._changed = sorted(path for path in edits.replaced if edits.new_path(path) is not None)
        self._growths: dict[bytes, int | None] = {}
        self._numbers: dict[bytes, int] = {}
        self._changes: list[SizeChange] = []
        self._tables: dict[bytes, PieceTable] = {}
        self._warnings: list[str] = []

    def plan(self) -> SizeFiles:
        """Return the result."""
        for path in self._changed:
            for size_path in self._size_paths(path):
                self._add_growth(size_path, path)
        for size_path, growth in self._numbers.items():
            self._write_number(size_path, growth)
        folders = dict.fromkeys(path.rpartition(b"/")[0] for path in self._changed)
        for folder in folders:
            self._write_sources(folder + b"/" + SOURCES)
        return SizeFiles(self._tables, tuple(self._changes), tuple(dict.fromkeys(self._warnings)))

    def _stays(self, path: bytes) -> bool:
        """Return whether there is a file at ``path`` that nobody changes."""
        return path in self._files and path not in self._edits.replaced and self._edits.new_path(path) is not None

    def _size_paths(self, path: bytes) -> Iterator[bytes]:
        """Yield the paths of the files that have nothing but a size, which counts the file system ``path``."""
        folder, _, name = path.rpartition(b"/")
        stem, dot, _ = name.rpartition(b".")
        own, whole = (folder + b"/" + (part + _SIZE) for part in (stem if dot else name, _WHOLE))
        if self._stays(own):
            yield own
        if whole == own or not self._stays(whole) or folder + b"/" + _WHOLE + _SQUASHFS in self._files:
            return
        if not path.endswith(_SQUASHFS):
            return
        layers = [other for other in self._files if other.startswith(folder + b"/") and other.endswith(_SQUASHFS)]
        live = [other for other in layers if other.removesuffix(_SQUASHFS).endswith(_LIVE)]
        if len(live) == 1 and is_layer_below(path, live[0]):
            yield whole
        elif len(live) > 1 and any(is_layer_below(path, other) for other in live):
            self._warnings.append(_stale(whole, path))

    def _add_growth(self, size_path: bytes, path: bytes) -> None:
        """Count the growth of the file system ``path`` in the file ``size_path``; warn where it is unknown."""
        growth = self._growth(path)
        if growth is None:
            self._warnings.append(_stale(size_path, path))
        else:
            self._numbers[size_path] = self._numbers.get(size_path, 0) + growth

    def _growth(self, path: bytes) -> int | None:
        """Return by how many bytes the tree of the file system ``path`` grows; None where that is unknown."""
        if path not in self._growths:
            self._growths[path] = self._measure(path)
        return self._growths[path]

    def _measure(self, path: bytes) -> int | None:
        """Return what :meth:`_growth` remembers."""
        stacked = self._find_edits(path)
        if stacked is not None:
            return measure_growth(stacked)
        place = self._image.place.inside(path)
        old = open_filesystem(path, self._image.bytes_of(self._files[path]), place)
        new = open_filesystem(path, self._edits.replaced[path], place)
        return None if old is None or new is None else measure_layer_usage(new) - measure_layer_usage(old)

    def _find_edits(self, path: bytes) -> StackedEdits | None:
        """Return the edits of the layer at ``path``, or of an equal file; None where it is exchanged as a whole."""
        if path in self._stacked:
            return self._stacked[path]
        table = self._edits.replaced[path]
        return next((edits for other, edits in self._stacked.items() if self._edits.replaced.get(other) is table), None)

    def _write_number(self, size_path: bytes, growth: int) -> None:
        """Put the new number into the file ``size_path``."""
        file = self._files[size_path]
        text = self._image.bytes_of(file).read() if file.size <= _MAX_NUMBER_FILE else b""
        number = _NUMBER.fullmatch(text)
        if number is None or int(number[1]) + growth < 0:
            self._warnings.append(_stale(size_path, size_path.removesuffix(_SIZE) + _SQUASHFS))
        elif growth:
            self._change(size_path, text, number.span(1), int(number[1]) + growth, size_path.removesuffix(_SIZE))

    def _change(self, path: bytes, text: bytes, span: tuple[int, int], size: int, of: bytes) -> bytes:
        """Return ``text``, which the file at ``path`` gets, with ``size`` in place of the digits at ``span``."""
        start, end = span
        self._changes.append(SizeChange(path, of, int(text[start:end]), size))
        new = text[:start] + b"%d" % size + text[end:]
        self._tables[path] = PieceTable([Literal(new)])
        return new

    def _write_sources(self, path: bytes) -> None:
        """Put the new sizes into the list of sources at ``path``, if it is there."""
        if not self._stays(path) or self._files[path].size > _MAX_SOURCES:
            return
        folder = path.rpartition(b"/")[0]
        text = self._image.bytes_of(self._files[path]).read()
        sizes = sorted(find_source_sizes(text), key=lambda size: size.start, reverse=True)
        told = {folder + b"/" + size.path for size in sizes}
        for changed in self._changed:
            if changed.rpartition(b"/")[2] in text and not any(is_layer_below(changed, source) for source in told):
                self._warnings.append(_stale(path, changed))
        for size in sizes:
            text = self._write_source(path, text, size, folder + b"/" + size.path)

    def _write_source(self, path: bytes, text: bytes, size: SourceSize, source: bytes) -> bytes:
        """Return ``text`` with the new ``size`` of the tree that ends with the layer ``source``."""
        below = [changed for changed in self._changed if is_layer_below(changed, source)]
        growths = [self._shown_growth(changed, source) for changed in sorted(below, key=len)]
        growth = sum(growth for growth in growths if growth is not None)
        if None in growths or size.size + growth < 0:
            self._warnings.append(_stale(path, below[0]))
        elif growth:
            return self._change(path, text, (size.start, size.end), size.size + growth, source)
        return text

    def _shown_growth(self, changed: bytes, source: bytes) -> int | None:
        """Return by how many bytes the tree of ``source`` grows with the layer ``changed``; None if unknown."""
        stacked = self._find_edits(changed)
        if stacked is None:
            return self._growth(changed) if changed == source and not self._has_layers_below(changed) else None
        covers = [layer for layer in stacked.stack.upper if is_layer_below(layer.address[0], source)]
        return measure_shown_growth(stacked, covers, self._stacked)

    def _has_layers_below(self, path: bytes) -> bool:
        """Return whether ``path`` is mounted over another layer."""
        return any(other != path and is_layer_below(other, path) for other in self._files if other.endswith(_SQUASHFS))


def is_layer_below(path: bytes, other: bytes) -> bool:
    """Return whether the squashfs file ``path`` is ``other``, or one of casper's layers below it, by their names."""
    stem = path.removesuffix(_SQUASHFS)
    return path == other or (path.endswith(_SQUASHFS) and other.startswith(stem + b"."))


def _stale(size_path: bytes, path: bytes) -> str:
    """Return the warning for a size that stays as it is."""
    return f"{printable(size_path)} tells the size of the old {printable(path)}, as installers read it"
