"""No compression, as a codec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.streams import ByteReader
from cosremaster.records.tuples import NamedTuple

if TYPE_CHECKING:
    from cosremaster.codecs.base import RepackJob, RepackResult, Seam, StreamParameters
    from cosremaster.io.pieces import Piece


class PlainParameters(NamedTuple):
    """The parameters of bytes that are not compressed."""

    name: str = "none"
    is_identity: bool = True
    refusal: str | None = None
    dictionary_size: int = 0
    caches_blocks: bool = False

    def keeps_front(self, packed: PieceTable) -> bool:
        """Return True: no byte depends on another."""
        return True

    def describe(self) -> str:
        """Return nothing: there are no parameters."""
        return ""

    @property
    def parts(self) -> Sequence[tuple[int, int]]:
        """Nothing: each byte stands for itself."""
        return ()

    @property
    def keeps_packed(self) -> bool:
        """True: no byte depends on another."""
        return True

    def cut_refusal(self, *, by_kernel: bool) -> str | None:
        """Return that nothing has to be cut."""
        return "is not compressed"

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """Begin at ``offset``."""
        return offset, packed.cut(offset, packed.length).chunks()

    def dump(self) -> dict[str, Any]:
        """Return nothing: there are no parameters."""
        return {}

    def check_sizes(self, packed: int, plain: int | None) -> None:
        """Check that there are no more plain bytes than packed ones. :raises ValueError: there are."""
        if plain is not None and plain > packed:
            raise ValueError("more plain bytes than packed ones")

    def repack(self, job: RepackJob) -> RepackResult:
        """Return the plain bytes themselves: every unchanged range is one of the packed bytes, which are the same."""
        from cosremaster.codecs.base import RepackResult  # noqa: PLC0415 - a plain listing needs none of it
        from cosremaster.progress import skip_bytes  # noqa: PLC0415 - the same

        length = job.plain.length
        skip_bytes(job.advance, length)
        old = sum(p.length for p in job.plain.pieces if isinstance(p, Range) and p.source is job.decoded)
        pieces: list[Piece] = []
        for piece in job.plain.pieces:
            if isinstance(piece, Range) and piece.source is job.decoded:
                pieces += job.packed.cut(piece.offset, piece.offset + piece.length).pieces
            else:
                pieces.append(piece)
        return RepackResult(PieceTable(pieces), reused=old, encoded=0, stored=length - old)


class PlainDecoding(NamedTuple):
    """Passes the bytes of a reader on."""

    reader: ByteReader
    parameters: PlainParameters = PlainParameters()

    @property
    def position(self) -> int:
        """The offset up to which bytes were passed on."""
        return self.reader.position

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes of the reader."""
        return self.reader.read_rest()

    def next_stream(self) -> Iterator[bytes]:
        """Yield all bytes of the reader: nothing marks the end of a stream."""
        return self.reader.read_rest()


class PlainCodec:
    """The codec of bytes that are not compressed, for streams without a magic."""

    name = "none"
    is_identity = True
    peek_size = 4096

    def sniff(self, head: bytes) -> bool:
        """Return False: there is no magic."""
        return False

    def peek(self, head: bytes, count: int) -> bytes:
        """Return the bytes themselves."""
        return head[:count]

    def decode(self, reader: ByteReader) -> PlainDecoding:
        """Begin to pass the bytes of ``reader`` on."""
        return PlainDecoding(reader)

    def for_reading(self) -> PlainCodec:
        """Return the codec itself."""
        return self

    def for_packing(self) -> PlainCodec:
        """Return the codec itself."""
        return self

    def with_seams(self, seams: Sequence[Seam]) -> PlainCodec:
        """Return the codec itself."""
        return self

    def shared_front(self, parameters: StreamParameters, packed: PieceTable, other: PieceTable) -> None:
        """Return None: there is nothing to decode."""

    def load(self, values: dict[str, Any]) -> PlainParameters:
        """Return the parameters, of which there are none."""
        return PlainParameters()
