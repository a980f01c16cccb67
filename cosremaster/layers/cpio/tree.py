"""A cpio layer as a file system: nodes by path."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain
from typing import TYPE_CHECKING

from cosremaster.io.pieces import Range
from cosremaster.layers.cpio.kernel import unpack_row
from cosremaster.layers.cpio.members import Member
from cosremaster.layers.cpio.newc import POSTDATED
from cosremaster.layers.cpio.read import index_of, link_key, link_key_of
from cosremaster.layers.cpio.unpackers import CpioUnpacker, find_unpacker
from cosremaster.layers.model import Layer
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import ArchiveTree, Node, NodeKind, resolve_links
from cosremaster.tree.paths import SymlinkLoopError, join, parent_of

if TYPE_CHECKING:
    from cosremaster.layers.cpio.kernel import KernelFile
    from cosremaster.layers.cpio.newc import Header
    from cosremaster.layers.cpio.rules import CheckedEntries, FinalEntry

_TYPE = 0o170000
_DEVICES = frozenset((NodeKind.CHAR, NodeKind.BLOCK))


class CpioTree(ArchiveTree):
    """The nodes of ``layer`` by path, each made when it is read; and what edits need to know of all entries, made once.

    Archives that are unpacked before it from the same file count too. Of two entries with one name that counts which
    its unpacker keeps: the last for the kernel, but where entries meet (:mod:`cosremaster.layers.cpio.kernel`); the
    first for busybox cpio, unless a later one is postdated or the holder's ``/init`` says otherwise
    (:mod:`cosremaster.layers.cpio.unpackers`). A directory that no entry names is missing.
    """

    def __init__(self, layer: Layer) -> None:
        """Find the entry that counts for each path."""
        self.layer = layer
        self._archives = (*layer.preceding, layer)
        counts = [index_of(archive).entry_count for archive in self._archives]
        self._starts = [0, *accumulate(counts[:-1])]
        self._numbers: dict[bytes, int] = {}  # by path: the number of its member, counted through all archives
        for archive, start in zip(self._archives, self._starts, strict=True):
            numbers = range(start, start + len(archive.paths))
            if not layer.is_in_archive:
                self._numbers.update(zip(archive.paths, numbers, strict=True))
            else:
                for path, number in zip(archive.paths, numbers, strict=True):
                    self._numbers.setdefault(path, number)
        if layer.is_in_archive and len(self._numbers) < sum(counts):
            self._numbers.update(self._choose_entries(find_unpacker(layer)))
        self._met = self._find_met()
        if self._met is not None:
            self._numbers = {path: file.attributes for path, file in self._met.items()}

    @property
    def has_met_entries(self) -> bool:
        """Whether the kernel unpacks it, and entries meet so that not simply the last of a path counts."""
        return self._met is not None

    def _find_met(self) -> Mapping[bytes, KernelFile] | None:
        """Return what the kernel makes of all entries; None where the last of each path counts, or another unpacks."""
        if self.layer.is_in_archive:
            return None
        is_met = "kernel" in self.layer.derived  # names lead through symlinks
        is_met = is_met or not all(index_of(archive).has_trailer for archive in self.layer.preceding)
        if is_met or (self._has_repeated and any(map(self._do_meet, self._repeated.values()))):
            return unpack_row(self.layer).files
        return None

    def _do_meet(self, numbers: Sequence[int]) -> bool:
        """Return whether the kernel makes something else of entries of one path than the last of them says."""
        headers = [self._header(number) for number in numbers]
        kinds = {header.mode & _TYPE for header in headers}
        if len(kinds) > 1:
            return NodeKind.DIRECTORY in kinds or any(map(_is_linked, headers))
        if kinds & _DEVICES and len({header.rdev for header in headers}) > 1:
            return True
        return any(map(_is_linked, headers))

    @cached_property
    def _repeated(self) -> dict[bytes, list[int]]:
        """By each path that several entries have: their numbers, counted through all archives."""
        seen, repeated = set[bytes](), set[bytes]()
        for path in chain.from_iterable(archive.paths for archive in self._archives):
            (repeated if path in seen else seen).add(path)
        numbers: dict[bytes, list[int]] = defaultdict(list)
        for archive, start in zip(self._archives, self._starts, strict=True):
            for number, path in enumerate(archive.paths, start):
                if path in repeated:
                    numbers[path].append(number)
        return dict(numbers)

    def _choose_entries(self, unpacker: CpioUnpacker) -> dict[bytes, int]:
        """Return by each path that several entries have the number of that which ``unpacker`` takes."""
        chosen = {}
        for path, (first, *later) in self._repeated.items():
            chosen[path] = first
            for number in later:
                if unpacker.prefers(self._header(number).mtime, self._header(chosen[path])):
                    chosen[path] = number
        return chosen

    def find_revived(self, unpacker: CpioUnpacker) -> dict[bytes, list[int]]:
        """Return, by path, the entries before the one that counts, where ``unpacker`` takes one of these instead.

        They are numbers, counted through all archives.
        """
        if not self._has_repeated:
            return {}
        return {
            path: [earlier for earlier in self._repeated[path] if earlier < self._numbers[path]]
            for path, number in self._choose_entries(unpacker).items()
            if number < self._numbers[path]
        }

    def _header(self, number: int) -> Header:
        """Return the header of the entry whose number is counted through all archives."""
        _, member = self._read_member(number)
        return member.entry.header

    @cached_property
    def superseding_numbers(self) -> frozenset[int]:
        """The numbers, in the layer's own archive, of the entries that count although an earlier one has their path."""
        return frozenset(self._own_number(path) for _, path in self._superseded)

    @cached_property
    def superseded_numbers(self) -> frozenset[int]:
        """The numbers, in the layer's own archive, of entries of which nothing is unpacked, as a later one wins.

        Only files and symlinks, and no hard links.
        """
        return frozenset(number for number, _ in self._superseded)

    @cached_property
    def superseded_directories(self) -> frozenset[bytes]:
        """The paths of directories that an entry before the one that counts gives other attributes."""
        members = index_of(self.layer).members
        return frozenset(
            path
            for number, path in self._earlier
            if self.makes_directory(number, path)
            and _attributes(members[number]) != _attributes(members[self._own_number(path)])
        )

    def makes_directory(self, number: int, path: bytes) -> bool:
        """Return whether entry ``number``, and that which counts at ``path``, are directories."""
        headers = (self._header(place) for place in (number, self._numbers[path]))
        return all(NodeKind(header.mode & 0o170000) is NodeKind.DIRECTORY for header in headers)

    def leads_to_directory(self, path: bytes, target: bytes) -> bool:
        """Return whether a symlink at ``path`` with the text ``target`` leads to a directory, or nobody knows where."""
        text = target if target.startswith(b"/") else join(parent_of(path), target)
        try:
            node = self.get(resolve_links(text, self.get))
        except SymlinkLoopError:
            return True
        return node is not None and node.kind is NodeKind.DIRECTORY

    def own_numbers_at(self, path: bytes) -> list[int]:
        """Return the numbers, in the layer's own archive, of all its entries at ``path``."""
        if self._met is not None:
            return self._own_numbers.get(path, [])
        start = self._starts[-1]
        listed = self._repeated.get(path) if self._has_repeated else None
        if listed is None:
            listed = [self._numbers[path]] if path in self._numbers else []
        return [number - start for number in listed if number >= start]

    @cached_property
    def _own_numbers(self) -> dict[bytes, list[int]]:
        """By path: the numbers of its entries in the layer's own archive."""
        numbers: dict[bytes, list[int]] = defaultdict(list)
        for number, path in enumerate(self.layer.paths):
            numbers[path].append(number)
        return dict(numbers)

    @property
    def _has_repeated(self) -> bool:
        """Whether several entries have one path."""
        return len(self._numbers) < sum(len(archive.paths) for archive in self._archives)

    @cached_property
    def unpacks_as_named(self) -> bool:
        """Whether no entry breaks a rule but that one of its own name stands before it."""
        from cosremaster.layers.cpio.rules import DOUBLE_NAME  # noqa: PLC0415 - only edits need it

        broken = self.checked_entries.broken_rules
        return len(broken) == self._count_repeated() and all(rule.rule == DOUBLE_NAME for rule in broken)

    def _count_repeated(self) -> int:
        """Return how many entries of the layer's own archive have the path of one before them."""
        paths = self.layer.paths
        is_alone = not self.layer.preceding and self._met is None
        return len(paths) - len(self._numbers if is_alone else set(paths))

    def _own_number(self, path: bytes) -> int:
        """Return the number, in the layer's own archive, of the entry that counts for ``path``; 0 for none."""
        return max(self._numbers.get(path, 0) - self._starts[-1], 0)

    @cached_property
    def _superseded(self) -> tuple[tuple[int, bytes], ...]:
        """Number and path of each entry of :attr:`superseded_numbers`."""
        members = index_of(self.layer).members
        return tuple(
            (number, path)
            for number, path in self._earlier
            if self._is_dead(path, members[number], members[self._own_number(path)])
        )

    @cached_property
    def _earlier(self) -> tuple[tuple[int, bytes], ...]:
        """Number and path of each entry of the layer's own archive behind which another counts for its path."""
        if not self._count_repeated():
            return ()
        return tuple((number, path) for number, path in enumerate(self.layer.paths) if number < self._own_number(path))

    def _is_dead(self, path: bytes, earlier: Member, later: Member) -> bool:
        """Return whether nothing of ``earlier`` is unpacked, as ``later`` wins, and nothing needs it before that."""
        kind = NodeKind(earlier.entry.header.mode & 0o170000)
        if kind is not NodeKind.SYMLINK:
            return kind is NodeKind.FILE and link_key(earlier) is None
        if later.entry.header.mtime == POSTDATED:  # an edit of ours chose it
            return True
        from cosremaster.layers.cpio.rules import is_late_target  # noqa: PLC0415 - few archives have such an entry

        # Other entries may pass through it, and busybox makes some only at the end.
        return not is_late_target(earlier.target) and not self.leads_to_directory(path, earlier.target)

    @cached_property
    def _carriers(self) -> dict[object, Member]:
        """By link key: the member with the data."""
        return {
            (len(layer.preceding), *key): index_of(layer).members[number]
            for layer in self._archives
            for number, fields in enumerate(index_of(layer).members.all_fields())
            if fields[4] > 1 and fields[6] and (key := link_key_of(fields))
        }

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at ``path``. :raises KeyError: no entry has this path."""
        number = self._numbers[path]
        layer, member = self._read_member(number)
        if self._met is not None:
            data_layer, carrier = self._read_member(self._met[path].data)
            key: object = ("kernel", number) if number in self._shared_numbers else None
            return _make_node(path, member, carrier, data_layer, key)
        key = _layer_link_key(layer, member)
        return _make_node(path, member, self._carriers.get(key, member) if key else member, layer, key)

    def _read_member(self, number: int) -> tuple[Layer, Member]:
        """Return the member whose number is counted through all archives, and its archive."""
        archive = bisect_right(self._starts, number) - 1
        layer = self._archives[archive]
        return layer, index_of(layer).members[number - self._starts[archive]]

    @cached_property
    def _shared_numbers(self) -> frozenset[int]:
        """Where entries meet: the numbers of those that gave its attributes to a file with several names."""
        assert self._met is not None
        counts = Counter(file.attributes for file in self._met.values() if file.kind == NodeKind.FILE)
        return frozenset(number for number, count in counts.items() if count > 1)

    def __iter__(self) -> Iterator[bytes]:
        """Yield every path."""
        return iter(self._numbers)

    def __len__(self) -> int:
        """Return how many paths there are."""
        return len(self._numbers)

    @cached_property
    def name_prefix(self) -> bytes:
        """What most names begin with before the path: nothing, ``./`` or ``/``."""
        paths_and_names = zip(self.layer.paths, index_of(self.layer).members.names, strict=True)
        names = (name for path, name in paths_and_names if path)
        styles = Counter(b"./" if name[:2] == b"./" else b"/" if name[:1] == b"/" else b"" for name in names)
        return max(styles, key=styles.__getitem__, default=b"")

    @cached_property
    def checked_entries(self) -> CheckedEntries:
        """The entries of the archive as it is, checked."""
        from cosremaster.layers.cpio.columns import unpack_columns  # noqa: PLC0415 - only edits need it
        from cosremaster.layers.cpio.rules import CheckedEntries  # noqa: PLC0415 - the same

        if not self.layer.preceding:
            unpacked = unpack_columns(index_of(self.layer).members, self.layer.paths, self._numbers)
            if unpacked is not None:
                return CheckedEntries.from_tree(unpacked)
        return CheckedEntries(_final_entries(self.layer), earlier=self.preceding_entries)

    @property
    def preceding_entries(self) -> Iterator[FinalEntry]:
        """The entries of the archives before this one in the file."""
        return (entry for layer in self.layer.preceding for entry in _final_entries(layer))


def _make_node(path: bytes, member: Member, carrier: Member, data_layer: Layer, link: object) -> Node:
    """Return the node at ``path`` with the attributes of ``member``, and what ``carrier`` in ``data_layer`` holds."""
    header = member.entry.header
    kind = NodeKind(header.mode & _TYPE)
    return Node(
        path=path, kind=kind, mode=header.mode & 0o7777, uid=header.uid, gid=header.gid, mtime=header.source_mtime,
        target=carrier.target, rdev=(header if kind is NodeKind.FILE else carrier.entry.header).rdev,
        content=_content(data_layer, carrier) if kind is NodeKind.FILE else None, link=link,
    )  # fmt: skip


def _is_linked(header: Header) -> bool:
    """Return whether ``header`` is of a name that may be one of several, but for directories."""
    return header.nlink > 1 and header.mode & _TYPE not in (NodeKind.DIRECTORY, NodeKind.SYMLINK)


def _attributes(member: Member) -> tuple[int, ...]:
    """Return what a directory has of the header of ``member``."""
    header = member.entry.header
    return header.mode, header.uid, header.gid, header.mtime


def _final_entries(layer: Layer) -> Iterator[FinalEntry]:
    """Return the entries of ``layer`` as they are."""
    from cosremaster.layers.cpio.rules import FinalEntry  # noqa: PLC0415 - only edits need it

    members = index_of(layer).members
    targets = (members.targets.get(number, b"") for number in range(len(members)))
    return map(FinalEntry, members.names, members.all_fields(), targets)


def _content(layer: Layer, carrier: Member) -> PieceContent:
    """Return the data of ``carrier``, the entry that holds a regular file's bytes in ``layer``."""
    entry = carrier.entry
    return PieceContent((Range(layer.decoded, entry.data_offset, entry.header.size),), carrier.digest)


def _layer_link_key(layer: Layer, member: Member) -> object:
    """Return a key that is equal for names of one file, None for no hard link.

    Hard links do not reach into another archive.
    """
    key = link_key(member)
    return (len(layer.preceding), *key) if key else None
