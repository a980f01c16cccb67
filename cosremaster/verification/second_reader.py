"""Read an image with pycdlib too, a reader that shares no code with ours, and compare what both see."""

from __future__ import annotations

import io
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, cast

from cosremaster.errors import CosremasterError, Place, printable
from cosremaster.io.source import ByteSource
from cosremaster.io.streams import CHUNK
from cosremaster.iso.ecma119.records import DIRECTORY, IMAGE_START, DirectoryRecord
from cosremaster.records import Struct
from cosremaster.units import BLOCK
from cosremaster.verification.finding import Finding, fails, holds, note
from cosremaster.verification.subject import Subject, SubjectTree

MAX_INSERTIONS = 50_000_000
"""Records that pycdlib may move while it sorts the directories of an image: about ten seconds of work."""

Identifiers = tuple[bytes, ...]
"""The path of a directory record, by its identifiers."""
SeenEntry = tuple[bool, int, int, bytes]
"""Whether a record is a directory's, its first block, its bytes, and its name by Rock Ridge (empty without)."""
BOOTABLE = 0x88
"""The boot indicator of a bootable entry (El Torito 1.0, figure 3)."""
DIFFERS, SAME, UNREADABLE = "pycdlib.differs", "pycdlib.same", "pycdlib.unreadable"
_BOOT_INFO_END = 64
"""Bytes of a boot image that its checksum leaves out."""
MAX_SHOWN = 20
"""Differences that a report shows at most."""


class SecondReading(Struct, frozen=True):
    """What pycdlib sees of an image.

    :param trees: for each kind of tree the records of each path: several for a file of several extents.
    :param boot_entries: of each boot entry its first block, the 512-byte sectors to load, and whether it is bootable.
    """

    trees: Mapping[str, Mapping[Identifiers, Sequence[SeenEntry]]]
    boot_entries: Sequence[tuple[int, int, bool]]

    def describe(self) -> str:
        """Return in words how much pycdlib saw, where we see the same."""
        records = sum(len(entries) for tree in self.trees.values() for entries in tree.values())
        boot = f" and {len(self.boot_entries)} boot entries" if self.boot_entries else ""
        return f"pycdlib sees the same {records:,} directory records{boot}"


class SecondReaderError(Exception):
    """pycdlib cannot read an image; the message is its reason."""


class _SourceFile(io.RawIOBase):
    """A source as the file object that pycdlib reads."""

    def __init__(self, source: ByteSource) -> None:
        """Begin at byte 0 of ``source``."""
        self._source, self._offset = source, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte of the source and return it."""
        start = (0, self._offset, self._source.size)[whence]
        self._offset = max(0, start + offset)
        return self._offset

    def tell(self) -> int:
        """Return the byte that is read next."""
        return self._offset

    def readinto(self, buffer: Any) -> int:
        """Read bytes into ``buffer`` and return how many; 0 at the end."""
        data = self._source.read(self._offset, max(0, min(len(buffer), self._source.size - self._offset)))
        buffer[: len(data)] = data
        self._offset += len(data)
        return len(data)


def read_with_pycdlib(source: ByteSource) -> SecondReading:
    """Return what pycdlib sees of the image in ``source``.

    :raises SecondReaderError: when pycdlib cannot read it, with its reason.
    """
    import pycdlib  # noqa: PLC0415 - takes longer to load than a small image to check

    own = {
        # pycdlib's sum takes a tenth of a second for 10 MiB
        "_calculate_eltorito_boot_info_table_csum": lambda _, file, length: sum_words(file, length),
        # UDF is not compared; before 1.22 directories that lead into themselves are walked for ever
        "_walk_udf_directories": lambda *_: None,
    }
    iso = type("QuickPyCdlib", (pycdlib.PyCdlib,), own)()
    try:
        iso.open_fp(cast(BinaryIO, _SourceFile(source)))
        trees = {"ISO 9660": _list_records(iso.get_record(iso_path="/"))}
        if iso.has_joliet():
            trees["Joliet"] = _list_records(iso.get_record(joliet_path="/"))
        return SecondReading(trees, tuple(_list_boot_entries(iso.eltorito_boot_catalog)))
    except CosremasterError:
        raise
    except Exception as error:  # damaged images raise errors of any kind in it
        raise SecondReaderError(str(error) or type(error).__name__) from error


def sum_words(file: BinaryIO, length: int) -> int:
    """Return the checksum of a boot-info-table over the boot image of ``length`` bytes that ``file`` stands before.

    It is the sum of all words of 32 bits behind the first 64 bytes, to the end of the last block.
    """
    total, rest = 0, -(-length // BLOCK) * BLOCK
    rest -= len(file.read(min(rest, _BOOT_INFO_END)))
    while data := file.read(min(rest, CHUNK)):
        words = array("I", data + bytes(-len(data) % 4))
        if sys.byteorder == "big":
            words.byteswap()
        total += sum(words)
        rest -= len(data)
    return total & 0xFFFFFFFF


def _list_records(root: Any) -> dict[Identifiers, list[SeenEntry]]:
    """Return the records below pycdlib's directory record ``root``, by their paths."""
    records = defaultdict[Identifiers, list[SeenEntry]](list)
    waiting: list[tuple[Any, Identifiers]] = [(root, ())]
    while waiting:
        directory, path = waiting.pop()
        for child in directory.children:  # its get_data_length() is that of a UDF file with the same data
            if child.is_dot() or child.is_dotdot():
                continue
            key = (*path, child.file_identifier())
            name = child.rock_ridge.name() if child.rock_ridge is not None else b""
            records[key].append((child.is_dir(), child.extent_location(), child.data_length, name))
            if child.is_dir():
                waiting.append((child, key))
    return records


def _list_boot_entries(catalog: Any) -> Iterator[tuple[int, int, bool]]:
    """Yield the entries of pycdlib's boot catalog, the initial entry first; ``catalog`` is None without one."""
    if catalog is None:
        return
    sections = (entry for section in catalog.sections for entry in section.section_entries)
    for entry in (catalog.initial_entry, *sections, *catalog.standalone_entries):
        yield entry.get_rba(), entry.sector_count, entry.boot_indicator == BOOTABLE


def is_too_slow(subject: Subject) -> bool:
    """Return whether pycdlib would take very long: it inserts each record of a directory at its sorted place."""
    sizes, insertions = Counter[Identifiers](), 0
    for tree in subject.trees:
        sizes.clear()
        highest = dict[Identifiers, bytes]()
        for record in tree.records:
            if record.identifier < highest.get(record.parent, b""):
                insertions += sizes[record.parent]
            else:
                highest[record.parent] = record.identifier
            sizes[record.parent] += 1
    return insertions > MAX_INSERTIONS


def list_differences(subject: Subject, reading: SecondReading) -> Iterator[tuple[str, Place]]:
    """Yield where ``subject``, our own reading, and pycdlib's differ: a sentence, and its place."""
    for kind, seen in reading.trees.items():
        tree = next((tree for tree in subject.trees if tree.name == kind and tree.base == IMAGE_START), None)
        if tree is None:
            yield f"pycdlib sees a {kind} tree", subject.place
        else:
            yield from _compare_trees(subject, tree, seen)
    own = [
        (int(entry.lba), entry.load_sectors, entry.is_bootable)
        for entry in (subject.catalog.entries if subject.catalog else ())
    ]
    if sorted(own) != sorted(reading.boot_entries):
        place = subject.place_at(subject.catalog.lba) if subject.catalog else subject.place
        yield f"pycdlib sees the boot entries {_describe(reading.boot_entries)}, not {_describe(own)}", place


def _describe(entries: Sequence[tuple[int, int, bool]]) -> str:
    """Return boot entries in words."""
    return ", ".join(f"block {lba} ({sectors} sectors)" for lba, sectors, _ in entries) or "none"


def _compare_trees(
    subject: Subject, tree: SubjectTree, seen: Mapping[Identifiers, Sequence[SeenEntry]]
) -> Iterator[tuple[str, Place]]:
    """Yield where a tree differs from what pycdlib has ``seen`` of it."""
    own = defaultdict[Identifiers, list[DirectoryRecord]](list)
    for record in tree.records:
        own[(*record.parent, record.identifier)].append(record)
    for key in sorted(seen.keys() - own.keys()):
        yield f"pycdlib sees a record {printable(key[-1])!r} of the {tree.name} tree", subject.place
    for key, records in own.items():
        place = tree.place_of(subject.place, records[0])
        others = sorted(seen.get(key, ()))
        if not others:
            yield f"pycdlib does not see it in the {tree.name} tree", place
            continue
        name = tree.names[key][len(tree.names[key[:-1]]) :].lstrip(b"/")
        pairs = sorted((bool(record.flags & DIRECTORY), int(record.lba), record.length) for record in records)
        if pairs != [other[:3] for other in others]:
            yield f"pycdlib sees it at {_extents(others)} of the {tree.name} tree, not at {_extents(pairs)}", place
        elif any(other[3] not in (b"", name) for other in others):
            yield f"pycdlib calls it {printable(others[0][3])!r}", place


def _extents(records: Sequence[tuple[Any, ...]]) -> str:
    """Return the extents of records in words."""
    return ", ".join(f"block {record[1]} ({record[2]:,} bytes)" for record in records)


def check_second_reader(subject: Subject) -> Iterator[Finding]:
    """Compare the image with what pycdlib sees of it; an image that pycdlib cannot read is only noted."""
    if subject.main_tree is None or subject.problems:
        return
    if is_too_slow(subject):
        message = "not read with pycdlib, which would sort its directories for very long"
        yield note("pycdlib.slow", message, subject.place)
        return
    try:
        reading = read_with_pycdlib(subject.source)
    except SecondReaderError as error:
        yield note(UNREADABLE, f"pycdlib cannot read it: {error}", subject.place)
        return
    differences = list(list_differences(subject, reading))
    for message, place in differences[:MAX_SHOWN]:
        yield fails(DIFFERS, message, place)
    if not differences:
        yield holds(SAME, reading.describe(), subject.place)


def has_read(findings: Iterable[Finding]) -> bool:
    """Return whether pycdlib read the image of these ``findings``, those of all checks, with whatever result."""
    return any(finding.check in (SAME, DIFFERS) for finding in findings)


def check_still_readable(original: Iterable[Finding], findings: Iterable[Finding]) -> Iterator[Finding]:
    """Report an image that pycdlib cannot read although it reads the original; both are the findings of all checks."""
    if not has_read(original):
        return
    for finding in findings:
        if finding.check == UNREADABLE:
            yield fails("pycdlib.against", f"{finding.message}; it reads the original", finding.place)
