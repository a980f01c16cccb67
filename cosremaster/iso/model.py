"""The structures of an ISO 9660 image as values (ECMA-119; section numbers are those of the standard)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from cosremaster.boot.apm import Apm
from cosremaster.boot.coreos import EmbedArea
from cosremaster.boot.eltorito import BootCatalog, BootEntry
from cosremaster.boot.firmware import FirmwareHeader
from cosremaster.boot.gpt import Gpt
from cosremaster.boot.implanted import ImplantedMd5
from cosremaster.boot.limine import LimineStage2
from cosremaster.boot.mbr import Mbr
from cosremaster.boot.pointers import BootInfoTable, list_pointers
from cosremaster.errors import Place, printable
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.iso.ecma119.records import DirectoryRecord, Extent
from cosremaster.iso.path_text import BORDER, PathText
from cosremaster.iso.spans import Span
from cosremaster.iso.tree_files import RegularFiles, TreeFiles
from cosremaster.iso.udf.read import Udf
from cosremaster.records import Struct, field
from cosremaster.units import SECTORS_PER_BLOCK, Lba, Sector, blocks_for, lba_offset

if TYPE_CHECKING:
    from cosremaster.boot.media_tags import MediaTags


class IsoFile(Struct, frozen=True, checked=False):
    """A file of a tree.

    ``path``: of the names that readers show, those of Rock Ridge where a tree has them. ``records``: the directory
    record of each extent. ``is_regular``: the file is neither a symlink nor a device. ``zisofs_offset``: the byte
    offset in the image of the Rock Ridge field that says the data are compressed, 0 without one. ``is_hidden``: the
    primary tree does not show it; its records may then be made up.
    """

    path: bytes
    records: tuple[DirectoryRecord, ...]
    is_regular: bool = True
    zisofs_offset: int = 0
    is_hidden: bool = False

    @property
    def size(self) -> int:
        """Bytes."""
        records = self.records
        return records[0].length if len(records) == 1 else sum(record.length for record in records)

    @property
    def start(self) -> Lba:
        """The block at which the data begin; names that share their data share it."""
        return self.records[0].lba

    @property
    def extents(self) -> Iterable[tuple[int, int]]:
        """The byte offset in the image and the length of each extent."""
        return ((lba_offset(record.lba), record.length) for record in self.records)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The blocks of the data: one span if the extents follow each other, else one for each extent."""
        label = printable(self.path)
        return tuple([Span(start, end - start, label) for start, end in self.block_runs])

    @property
    def block_runs(self) -> Sequence[tuple[Lba, Lba]]:
        """The first block of each of the :attr:`spans`, and the block after its last one."""
        if len(self.records) == 1:  # as nearly all files: an image may have very many
            record = self.records[0]
            return ((record.lba, Lba(record.lba + blocks_for(record.length))),) if record.length else ()
        runs = list[tuple[Lba, Lba]]()
        for record in (record for record in self.records if record.length):
            end = Lba(record.lba + record.blocks)
            if runs and runs[-1][1] == record.lba:
                runs[-1] = runs[-1][0], end
            else:
                runs.append((record.lba, end))
        return runs


class IsoDirectory(Struct, eq=False):
    """A directory of a tree, and which of the tree's files are in it.

    ``path``: of the names that readers show. ``identifiers``: those of its path. ``record``: the one that names it,
    None for the root. ``files``: which of the tree's files are in it. ``children``: the directories in it.
    ``is_plain``: its records name neither continuation areas nor relocated directories, and each of them but ``.`` and
    ``..`` is that of a whole file or of a directory; only then the other fields say anything.
    ``is_ordinary``: each of its records has a name, a mode and times alone, in whole fields.
    ``begins_with_dots``: its first two records are ``.`` and ``..``.
    ``empty_blocks``: the blocks of its records without data. ``data_end``: a byte offset behind which its files have no
    data. ``data``: its bytes; behind them zeros may follow up to its end.
    """

    path: bytes
    extent: Extent
    identifiers: tuple[bytes, ...]
    record: DirectoryRecord | None
    files: slice = slice(0)
    children: Sequence[IsoDirectory] = ()
    is_plain: bool = False
    is_ordinary: bool = False
    begins_with_dots: bool = False
    empty_blocks: tuple[Lba, ...] = ()
    data_end: int = 0
    data: bytes = b""

    @property
    def dot_extents(self) -> bytes:
        """The 16 bytes with block and length (ECMA-119, 9.1.3, 9.1.4) of its first record, then those of its second."""
        data = self.data
        second = data[0]
        return data[2:18] + data[second + 2 : second + 18]


class IsoTree(Struct, frozen=True, kw_only=True, dict=True):
    """A directory tree of the image.

    ``kind``: the kind of tree in words. ``descriptor_lba``: the block of its volume descriptor. ``base``: the block
    from which the numbers on the image count; all blocks in the other values count from the image's start. ``blocks``:
    the volume space size. ``directory_paths``: the paths of ``directories``, in the same order. ``other_spans``: blocks
    of other data that its records name: continuation areas (SUSP 5.1), extended attribute records, associated files.
    ``empty_blocks``: the blocks that records without data name. ``extension_fields``: the fields of the root's ``.``
    that say something about the whole tree (SP, ER; SUSP 5.3, 5.5).
    ``volume_start``: the block from which the volume space size counts, where that is not ``base``: the start of a
    session. A tree that shares the root of an earlier one has no files and no directories. ``index``: its directories,
    in the order of ``files``. ``skip``: the bytes in front of each system use area (SUSP 5.3), None without Rock Ridge.
    """

    kind: str
    descriptor_lba: Lba
    base: Lba
    blocks: int
    files: Sequence[IsoFile]
    directories: tuple[Extent, ...]
    directory_paths: tuple[bytes, ...]
    path_tables: tuple[Extent, ...]
    has_rock_ridge: bool
    other_spans: tuple[Span, ...] = ()
    empty_blocks: frozenset[Lba] = frozenset()
    extension_fields: tuple[bytes, ...] = ()
    volume_start: Lba = Lba(0)
    index: tuple[IsoDirectory, ...] = ()
    skip: int | None = None

    @property
    def block_runs(self) -> list[tuple[Lba, Lba]]:
        """The :attr:`IsoFile.block_runs` of all files, one behind the other."""
        return list(_rows_of(self.files).block_runs())

    def list_runs_in(self, first: Lba, end: Lba) -> Iterator[tuple[Lba, Lba]]:
        """Yield those of :attr:`block_runs` that have a block between ``first`` and the block before ``end``."""
        return _rows_of(self.files).list_runs_in(first, end)

    def has_extents_of(self, other: IsoTree) -> bool:
        """Return whether ``other`` is known to have a directory with the extents of each directory of this tree."""
        return _rows_of(self.files).has_extents_of(_rows_of(other.files))

    @cached_property
    def joined_runs(self) -> list[tuple[Lba, Lba]]:
        """The :attr:`block_runs` in the order of their blocks, those that touch as one."""
        joined = list[tuple[Lba, Lba]]()
        start = end = Lba(-1)
        for first, behind in sorted(_rows_of(self.files).block_runs(joined=True)):
            if first > end:
                joined.append((start, end))
                start, end = first, behind
            elif behind > end:
                end = behind
        return [*joined, (start, end)][1:]

    @property
    def file_paths(self) -> Sequence[bytes]:
        """The path of each file."""
        return _rows_of(self.files).paths

    def has_path_from(self, beginning: bytes) -> bool:
        """Return whether the path of a file begins with ``beginning``."""
        return _rows_of(self.files).has_path_from(beginning)

    def has_path(self, path: bytes) -> bool:
        """Return whether there is a file at ``path``."""
        return _rows_of(self.files).has_path(path)

    def join_names(self, border: bytes) -> bytes:
        """Return the names of all files, what follows the directories in their paths, with ``border`` between them."""
        return _rows_of(self.files).join_names(border)

    @cached_property
    def regular_files(self) -> RegularFiles:
        """The regular files by their paths."""
        return RegularFiles(_rows_of(self.files))

    @cached_property
    def regular_text(self) -> PathText:
        """Their paths, to look for names in."""
        text, count = _rows_of(self.files).join_regular(BORDER)
        return PathText.of_joined(text, count, self.regular_files)

    def find_files_at(self, blocks: AbstractSet[Lba]) -> Iterator[IsoFile]:
        """Yield the files whose data begin at one of ``blocks``."""
        return _rows_of(self.files).find_at(blocks)

    def find_files_in(self, wants: Callable[[bytes], bool]) -> Iterator[IsoFile]:
        """Yield the files in directories with a prefix of paths that ``wants`` takes, and some others."""
        return _rows_of(self.files).find_in(wants)

    def find_files(self, paths: Collection[bytes]) -> Iterator[IsoFile]:
        """Yield the files at ``paths``, of which a set or a mapping is asked quickly."""
        prefixes = {path[:end] for path in paths for end in _list_name_starts(path)}
        return (file for file in self.find_files_in(prefixes.__contains__) if file.path in paths)

    def find_empty_files(self) -> Iterator[IsoFile]:
        """Yield the files without data."""
        return _rows_of(self.files).find_empty()

    def list_kept_runs(self, removed: AbstractSet[Lba], single: AbstractSet[Lba]) -> Iterator[tuple[Lba, Lba]]:
        """Yield the :attr:`block_runs` but of files that begin at a block of ``removed``, some of them joined.

        A run that begins at a block of ``single`` is joined with no other.
        """
        return _rows_of(self.files).list_kept_runs(removed, single)

    def list_kept_extents(
        self, removed: AbstractSet[Lba], catalog: AbstractSet[Lba], records: AbstractSet[int],
        is_whole: Callable[[Lba, Lba], bool],
    ) -> Iterator[tuple[Lba, int]]:  # fmt: skip
        """Yield the extents of files, some joined; see :meth:`TreeFiles.list_kept_extents`."""
        return _rows_of(self.files).list_kept_extents(removed, catalog, records, is_whole)

    def find_starts(self, blocks: Collection[Lba]) -> set[Lba]:
        """Return those of ``blocks`` at which one of the :attr:`block_runs` begins."""
        return _rows_of(self.files).find_starts(blocks)

    @cached_property
    def data_end(self) -> Lba:
        """The block after all data of files."""
        return _rows_of(self.files).data_end

    @property
    def end(self) -> Lba:
        """The block after the last one of its volume, counted from the image's start."""
        return Lba((self.volume_start or self.base) + self.blocks)


def _list_name_starts(path: bytes) -> Iterator[int]:
    """Yield 0 and the numbers of bytes up to each slash of ``path``, with which prefixes of directories may end."""
    end = 0
    while end >= 0:
        yield end
        end = path.find(b"/", end) + 1 or -1


def _rows_of(files: Sequence[IsoFile]) -> TreeFiles:
    """Return ``files`` of a tree by directories, as one where they came otherwise."""
    if isinstance(files, TreeFiles):
        return files
    row = TreeFiles()
    row.add(files)
    return row


class Partition(Struct, frozen=True):
    """A partition of one of the partition tables. ``is_filler``: it only covers what no other partition covers."""

    table: str
    number: int
    start: Sector
    end: Sector
    is_filler: bool
    label: str

    @property
    def name(self) -> str:
        """The partition table and the number in it."""
        return f"{self.table} partition {self.number}"

    @property
    def span(self) -> Span:
        """The blocks that the partition shares."""
        first = self.start // SECTORS_PER_BLOCK
        return Span(Lba(first), -(-self.end // SECTORS_PER_BLOCK) - first, self.name)

    def covers_volume(self, trees: Sequence[IsoTree]) -> bool:
        """Return True if the partition begins before the primary tree: it covers the volume, or the beginning of it."""
        return self.start <= trees[0].directories[0].lba * SECTORS_PER_BLOCK


class BootImage(Struct, frozen=True):
    """The boot image of an El Torito entry.

    ``length``: bytes; of the file that begins at its block, else of what the entry loads. ``path``: that of the file.
    ``boot_info``: the boot information table inside the image, if it names the image's block. ``has_grub2_pointer``:
    byte 2548 of the image points into the image.
    """

    entry: BootEntry
    length: int
    path: bytes | None
    boot_info: BootInfoTable | None
    has_grub2_pointer: bool


class SourceFile(Protocol):
    """A file of an image, whatever kind of image that is."""

    @property
    def path(self) -> bytes:
        """The path on the image."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def start(self) -> Lba:
        """The block at which the data begin; names that share their data share it."""

    @property
    def extents(self) -> Iterable[tuple[int, int]]:
        """The byte offset in the image and the length of each extent."""


class SourceImage(Protocol):
    """An image whose files are read: an ISO 9660 volume, a layer in a file of its own, or a disk image."""

    @property
    def kind(self) -> str:
        """The name of this kind of image: ``iso9660``, ``initramfs``, ``disk``, or the format of another layer."""

    @property
    def is_single_file(self) -> bool:
        """Whether the image is nothing but its one file, which addresses in it do not name."""

    @property
    def place(self) -> Place:
        """The image, for messages."""

    @property
    def source(self) -> Range:
        """All bytes of the image."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def files(self) -> Sequence[SourceFile]:
        """The files on the image."""

    @property
    def volume(self) -> IsoImage | None:
        """The ISO 9660 volume that the image is; None for an image without one."""

    def bytes_of(self, file: SourceFile) -> PieceTable:
        """Return the data of ``file``."""


class IsoImage(Struct, frozen=True, kw_only=True):
    """An ISO 9660 image, as :func:`~cosremaster.iso.read.read_image` reads it.

    ``size``: bytes of the image. ``trees``: the directory trees, the primary one first. ``fixed_spans``: blocks that
    must stay at their place. ``tail``: the first block of the end of the image (appended partitions, a backup GPT,
    padding), which moves with the end of the volume. ``gpt``: the primary GPT and its backups, as far as they can be
    read. ``hfs_partitions``: partitions with an HFS file system over the files of the tree. ``session_lba``: the first
    block of the last session, 0 for an image of one session. ``blockers``: the structures that changing any file would
    damage, in words. ``cautions``: those that may name any block, so that what is on the image must stay as it is.
    ``limine``: the stage 2 of Limine that the MBR names. ``embed_areas``: places in files that the headers of a CoreOS
    image name. ``memo``: what was found out of the trees and of UDF.
    """

    place: Place
    source: Range
    size: int
    volume_id: str
    trees: tuple[IsoTree, ...]
    fixed_spans: tuple[Span, ...]
    tail: Lba
    catalog: BootCatalog | None
    boot_images: tuple[BootImage, ...]
    mbr: Mbr | None
    gpt: tuple[Gpt, ...]
    apm: Apm | None
    partitions: tuple[Partition, ...]
    hfs_partitions: tuple[Partition, ...]
    firmware: tuple[FirmwareHeader, ...]
    implanted: ImplantedMd5 | None
    udf: Udf | None
    session_lba: Lba
    blockers: tuple[str, ...]
    cautions: tuple[str, ...]
    limine: LimineStage2 | None
    embed_areas: tuple[EmbedArea, ...] = ()
    media_tags: MediaTags | None = None
    memo: dict[str, bool] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The name of this kind of image."""
        return "iso9660"

    @property
    def volume(self) -> IsoImage:
        """The image is a volume itself."""
        return self

    @property
    def is_single_file(self) -> bool:
        """A volume is a tree of files."""
        return False

    @property
    def files(self) -> Sequence[IsoFile]:
        """The files of the primary tree."""
        return self.trees[0].files

    @property
    def blocks(self) -> int:
        """The volume space size of the primary volume descriptor."""
        return self.trees[0].blocks

    @property
    def backup_gpts(self) -> tuple[Gpt, ...]:
        """The copies of the GPT that are no primary copy."""
        return tuple(copy for copy in self.gpt if copy.is_backup)

    @property
    def gpt_copies(self) -> str:
        """The copies of the GPT in words."""
        return " and ".join(dict.fromkeys("backup" if copy.is_backup else "primary" for copy in self.gpt))

    @property
    def has_rock_ridge(self) -> bool:
        """Whether the primary tree has the names of Rock Ridge."""
        return self.trees[0].has_rock_ridge

    @property
    def mbr_pointers(self) -> list[tuple[str, Lba]]:
        """Each reading of the pointer in the MBR's code: the kind of code, and the boot image's block that it loads.

        There is one, none for unknown code; several where code of no known kind can be read in several ways.
        """
        return list_pointers(self.mbr.code, [boot.entry.lba for boot in self.boot_images]) if self.mbr else []

    @property
    def mbr_pointer(self) -> str | None:
        """The kind of code in the MBR and the block that it loads, in words; None for unknown code."""
        return next((f"{kind} -> block {lba}" for kind, lba in self.mbr_pointers), None)

    def bytes_of(self, file: SourceFile) -> PieceTable:
        """Return the data of ``file``."""
        return PieceTable(self.source.cut(start, start + length) for start, length in file.extents)
