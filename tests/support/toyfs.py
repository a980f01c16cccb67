"""Layer formats that exist in tests alone: a file ``TOYFS`` with lines ``path<TAB>text``, and one of random access."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cosremaster.errors import CorruptError
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Source
from cosremaster.io.streams import ByteReader
from cosremaster.layers.blobs import Blobs
from cosremaster.layers.formats import ArchiveIndex, ContainerEntry, EditResources, LayerFormat
from cosremaster.layers.model import Layer
from cosremaster.layers.scan import MemberScanner
from cosremaster.tree.content import PieceContent
from cosremaster.tree.limits import Limits
from cosremaster.tree.nodes import Edits, Node, NodeKind


class ToyIndex(ArchiveIndex):
    """By number: the path of a line, the offset of its text, and the length of that."""

    def __init__(self, rows: Iterable[tuple[bytes, int, int]]) -> None:
        self.rows = [(path, offset, size) for path, offset, size in rows]

    @property
    def paths(self) -> Sequence[bytes]:
        return [path for path, _, _ in self.rows]

    def tree(self, layer: Layer) -> Mapping[bytes, Node]:
        return {
            path: Node(path=path, kind=NodeKind.FILE, mode=0o755, content=PieceContent(table.pieces))
            for number, path in enumerate(self.paths)
            for table in [self.entry_data(number, layer.decoded)]
        }

    def container_entry(self, number: int) -> ContainerEntry:
        path, offset, size = self.rows[number]
        return ContainerEntry(number, path, offset, size)

    def entry_data(self, number: int, plain: Source) -> PieceTable:
        _, offset, size = self.rows[number]
        return PieceTable([Range(plain, offset, size)])

    def edit(self, layer: Layer, edits: Edits, resources: EditResources) -> PieceTable:
        lines: list[Piece] = [Range(layer.decoded, 0, len(layer.format.name) + 1)]
        kept = [row for row in self.rows if row[0] not in edits.removed_paths]
        lines += [Range(layer.decoded, offset - len(path) - 1, len(path) + size + 2) for path, offset, size in kept]
        for node, _ in edits.additions:
            if node.content is not None:
                lines += [Literal(node.path + b"\t"), *node.content.table().pieces, Literal(b"\n")]
        return PieceTable(lines)

    def replace(self, layer: Layer, entry: ContainerEntry, data: PieceTable) -> PieceTable:
        end = entry.offset + entry.size
        before, behind = Range(layer.decoded, 0, entry.offset), Range(layer.decoded, end, layer.size - end)
        return PieceTable([before, *data.pieces, behind])

    def dump(self, blobs: Blobs) -> dict[str, Any]:
        return {"rows": [[blobs.put(path), offset, size] for path, offset, size in self.rows]}


class ToyFormat(LayerFormat):
    """Read front to back."""

    name = "toyfs"
    magic_end = 6
    random_access = False
    limits = Limits("a toy file system", (1 << 30) - 1)

    def identify(self, head: bytes) -> str | None:
        return "" if head.startswith(self.name.upper().encode() + b"\n") else None

    def index(self, reader: ByteReader, origin: int, members: MemberScanner, table: PieceTable | None) -> ToyIndex:
        plain = b"".join(reader.read_rest())
        rows = list(self._rows(plain, reader))
        for number, (path, offset, size) in enumerate(rows):
            if members.wants_data:
                members.scan(ByteReader([plain[offset : offset + size]], reader.place), size, path, number)
        return ToyIndex(rows)

    def _rows(self, plain: bytes, reader: ByteReader) -> Iterator[tuple[bytes, int, int]]:
        offset = plain.index(b"\n") + 1
        for line in plain[offset:].splitlines(keepends=True):
            path, tab, text = line.partition(b"\t")
            if not tab or not line.endswith(b"\n"):
                raise CorruptError("is no line of a toy file system", reader.place_at(offset))
            yield path, offset + len(path) + 1, len(text) - 1
            offset += len(line)

    def load(self, values: dict[str, Any], blobs: memoryview) -> ToyIndex:
        return ToyIndex((bytes(blobs[start:end]), offset, size) for (start, end), offset, size in values["rows"])


class ToyDisk(ToyFormat):
    """The same, read at any place: its second half before its first."""

    name = "toydisk"
    magic_end = 8
    random_access = True

    def index(self, reader: ByteReader, origin: int, members: MemberScanner, table: PieceTable | None) -> ToyIndex:
        assert table is not None
        half = table.length // 2
        last, first = (b"".join(table.cut(*span).chunks()) for span in ((half, table.length), (0, half)))
        return super().index(ByteReader([first + last], reader.place), origin, members, None)


def toy_file(files: Mapping[str, str], name: str = "toyfs") -> bytes:
    """A toy file system of ``files``."""
    return "".join([f"{name.upper()}\n", *(f"{path}\t{text}\n" for path, text in files.items())]).encode()
