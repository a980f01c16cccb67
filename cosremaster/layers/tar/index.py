"""The index of a tar archive: its entries, how it is written, and where it ends."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from cosremaster.layers.formats import ArchiveIndex
from cosremaster.layers.tar import blocks, pax
from cosremaster.layers.tar.entries import TarEntries
from cosremaster.layers.tar.paths import unpacked_paths

if TYPE_CHECKING:
    from cosremaster.errors import Place
    from cosremaster.io.pieces import PieceTable
    from cosremaster.layers.blobs import Blobs
    from cosremaster.layers.formats import EditResources, Repacking
    from cosremaster.layers.model import Layer
    from cosremaster.layers.tar.blocks import TarHeader
    from cosremaster.layers.tar.tree import TarTree
    from cosremaster.tree.nodes import Edits

_PARTS = {
    blocks.GNU_VOLUME: "has a volume label of GNU tar, which stays",
    blocks.GNU_CONTINUATION: "begins with the rest of a file from another volume, which is left out",
    blocks.GNU_OLD_NAMES: "has a list of long names as very old versions of GNU tar wrote them, which is not read",
}
"""What is odd about an archive with a header of such a type, as the end of a sentence."""
_MAX_SHOWN = 100
"""So many faults are shown of an archive at most."""


class TarStyle:
    """How an archive is written, which new entries follow.

    ``has_pax``: an entry has a pax header; ``is_gnu`` and ``is_ustar``: a header is of that form; ``users``: entries
    with the name of an owner; ``slashes``: directories whose name ends in a slash, less those whose does not;
    ``prefixes``: how names begin, and how often; ``parts``: types of headers that are no entries.
    """

    def __init__(self) -> None:
        """Begin without headers."""
        self.has_pax = self.is_gnu = self.is_ustar = False
        self.users = self.slashes = 0
        self.prefixes = Counter[bytes]()
        self.parts: set[bytes] = set()
        self._magics: set[bytes] = set()

    @property
    def name(self) -> str:
        """The form: ``pax``, ``gnu``, ``ustar`` or ``v7``."""
        return "pax" if self.has_pax else "gnu" if self.is_gnu else "ustar" if self.is_ustar else "v7"

    def note(self, header: TarHeader) -> None:
        """Note the form of ``header``."""
        if header.magic not in self._magics:
            self._magics.add(header.magic)
            self.is_gnu = self.is_gnu or header.is_gnu
            self.is_ustar = self.is_ustar or header.is_ustar
        if header.type in (blocks.PAX, blocks.PAX_GLOBAL):
            self.has_pax = True

    def note_part(self, kind: bytes) -> None:
        """Note a header of the type ``kind``, which is no entry."""
        self.parts.add(kind)

    def note_usual(self, name: bytes, magic: bytes, *, is_pax: bool, has_user: bool, is_directory: bool) -> None:
        """Note the form of the headers with ``magic``, and how their entry ``name`` is written."""
        if magic not in self._magics:
            self._magics.add(magic)
            self.is_gnu = self.is_gnu or magic == blocks.GNU_MAGIC
            self.is_ustar = self.is_ustar or magic == blocks.USTAR_MAGIC
        if is_pax:
            self.has_pax = True
        self._note_name(name, has_user=has_user and any(magic), is_directory=is_directory)

    def note_entry(self, header: TarHeader, records: Mapping[bytes, bytes], name: bytes, *, is_directory: bool) -> None:
        """Note how the entry ``name`` is written."""
        has_user = pax.USER in records or ((header.is_gnu or header.is_ustar) and bool(header.user[0]))
        self._note_name(name, has_user=has_user, is_directory=is_directory)

    def _note_name(self, name: bytes, *, has_user: bool, is_directory: bool) -> None:
        """Note how the entry ``name`` is written, and whether it ``has_user``: the name of an owner."""
        if has_user:
            self.users += 1
        if is_directory:
            self.slashes += 1 if name.endswith(b"/") else -1
        if name[:1] in (b".", b"/"):
            if name not in (b".", b"./", b"/"):
                self.prefixes[b"./" if name[:2] == b"./" else b"/" if name[:1] == b"/" else b""] += 1
        else:
            self.prefixes[b""] += 1

    @property
    def name_prefix(self) -> bytes:
        """What most names begin with before the path: nothing, ``./`` or ``/``."""
        return max(self.prefixes, key=self.prefixes.__getitem__, default=b"")

    def joined(self, later: TarStyle) -> TarStyle:
        """Return the style of both archives' entries together."""
        both = TarStyle()
        both.has_pax, both.is_gnu = self.has_pax or later.has_pax, self.is_gnu or later.is_gnu
        both.is_ustar = self.is_ustar or later.is_ustar
        both.users, both.slashes = self.users + later.users, self.slashes + later.slashes
        both.prefixes, both.parts = self.prefixes + later.prefixes, self.parts | later.parts
        return both

    def oddities(self) -> Iterator[str]:
        """Yield what is odd, each as the end of a sentence about the archive."""
        for kind in sorted(self.parts):
            yield _PARTS[kind]


class TarIndex(ArchiveIndex):
    """The entries of one archive.

    ``end``: where its end begins, behind the last entry; ``has_end``: a block of zeros stands there. ``globals``: the
    records of global pax headers at the end; ``globals_end``: behind the last such header, 0 without any;
    ``inner_globals``: where such headers stand among those of an entry. ``counted``: how many entries there are, where
    no ``entries`` were made of them.
    """

    __slots__ = ("_paths", "counted", "end", "entries", "globals", "globals_end", "has_end", "inner_globals", "style")

    def __init__(
        self, entries: TarEntries, style: TarStyle, end: int, global_records: Mapping[bytes, bytes],
        inner_globals: Sequence[tuple[int, int]], *, globals_end: int, has_end: bool, counted: int = 0,
    ) -> None:  # fmt: skip
        """Make an index of what was read."""
        self.counted = counted
        self.entries, self.style, self.end, self.has_end = entries, style, end, has_end
        self.globals, self.inner_globals, self.globals_end = global_records, inner_globals, globals_end
        self._paths: Sequence[bytes] | None = None

    @property
    def version(self) -> str:
        """The form of the headers."""
        return self.style.name

    @property
    def oddity(self) -> str:
        """What is odd about it."""
        return "; it ".join(self._oddities())

    def _oddities(self) -> Iterator[str]:
        """Yield what is odd."""
        if not self.has_end:
            yield f"{blocks.NO_END}; an edit writes them"
        yield from self.style.oddities()

    @property
    def paths(self) -> Sequence[bytes]:
        """The path that each entry unpacks to: as its name says, but for symlinks among the directories in it."""
        if self._paths is None:
            self._paths = unpacked_paths(self.entries)
        return self._paths

    @property
    def entry_count(self) -> int:
        """How many entries it has."""
        return self.counted or len(self.entries)

    def entry_spans(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield path, start and end of each entry."""
        _, _, _, _, starts, _, _, _, ends = self.entries.numbers
        return zip(self.paths, starts, ends, strict=True)

    def tree(self, layer: Layer) -> TarTree:
        """Return the nodes of ``layer`` by path."""
        from cosremaster.layers.tar.tree import TarTree  # noqa: PLC0415 - a plain listing needs none of it

        return TarTree(layer)

    def list_lost_acls(self, layer: Layer) -> Sequence[bytes]:
        """Return the paths whose ACLs name users or groups that the system in the archive has not."""
        return self.tree(layer).list_lost_acls() if self.entries.xattrs else ()

    def edit(self, layer: Layer, edits: Edits, resources: EditResources) -> PieceTable:
        """Return the plain bytes of the stream after ``edits``; raises as :meth:`ArchiveIndex.edit`."""
        from cosremaster.layers.tar.edit import apply_edits  # noqa: PLC0415 - only edits need it

        return apply_edits(layer, edits)

    def find_breaches(self, layer: Layer, *, with_data: bool) -> Iterator[tuple[str, Place]]:
        """Yield a sentence about each hard link that cannot be made, the first of them, with its place."""
        return islice(self.tree(layer).list_link_faults(), _MAX_SHOWN)

    def edit_warnings(self, layer: Layer, edits: Edits, repacking: Repacking) -> Iterator[str]:
        """Yield what of replaced files goes."""
        from cosremaster.layers.losses import describe_lost_xattrs  # noqa: PLC0415 - only edits need it

        return describe_lost_xattrs(layer.tree(), edits, layer.place)

    def dump(self, blobs: Blobs) -> dict[str, Any]:
        """Return the index as JSON values and blobs. :raises ValueError: a NUL is in a string."""
        from cosremaster.layers.tar.dump import dump_index  # noqa: PLC0415 - only a remembered index needs it

        return dump_index(self, blobs)

    def check_loaded(self, size: int, tail: bytes) -> None:
        """Check entries that were loaded: they follow one another in ``size`` bytes, which end with ``tail``.

        :raises ValueError: they do not.
        """
        from cosremaster.layers.tar.dump import check_entries  # noqa: PLC0415 - only a remembered index needs it

        check_entries(self, size, tail)

    def split_before(self, end: int) -> tuple[int, TarIndex] | None:
        """Return where the entries end that end before plain byte ``end``, and those entries.

        The block behind each lies before ``end`` too, as it decides whether some headers have data. The front has the
        style of the whole archive. None where global headers before may count for entries behind.
        """
        ends = self.entries.numbers[-1]
        count = bisect_right(ends, end - blocks.BLOCK)
        start = ends[count - 1] if count else 0
        if self.globals_end > start or any(map(pax.is_effective, self.globals)):
            return None
        inner = [span for span in self.inner_globals if span[1] <= start]
        front = TarIndex(
            self.entries.cut(count), self.style, start, self.globals, inner, globals_end=self.globals_end, has_end=True
        )
        return start, front

    def joined(self, rest: ArchiveIndex) -> TarIndex:
        """Return the entries of both, with the end of ``rest``."""
        later = cast("TarIndex", rest)
        entries = TarEntries() if later.counted else self.entries.joined(later.entries)
        return TarIndex(
            entries, self.style.joined(later.style), later.end,
            {**self.globals, **later.globals}, [*self.inner_globals, *later.inner_globals],
            globals_end=later.globals_end or self.globals_end, has_end=later.has_end,
            counted=self.entry_count + later.counted if later.counted else 0,
        )  # fmt: skip


def index_of(layer: Layer) -> TarIndex:
    """Return the index of ``layer``, a tar archive."""
    return cast("TarIndex", layer.index)
