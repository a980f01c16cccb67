"""What a codec is: it sniffs, it decodes forward, and what it learned on the way can pack anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct, field

from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable, Source
from cosremaster.io.streams import ByteReader

if TYPE_CHECKING:
    from cosremaster.io.spool import Spool


class BlockCache:
    """Small results that packing the same old bytes would give again, for all remasters of one opened image."""

    LIMIT = 8 << 20

    def __init__(self) -> None:
        self._known: dict[object, Any] = {}
        self._size = 0

    def get(self, key: object) -> Any:
        """What is kept under ``key``; None for nothing."""
        return self._known.get(key)

    def put(self, key: object, value: object, size: int) -> None:
        """Keeps ``value``, of ``size`` bytes, while there is room: :data:`LIMIT` bytes in all."""
        if self._size + size <= self.LIMIT and key not in self._known:
            self._size += size
            self._known[key] = value


class RepackJob(Struct, frozen=True, kw_only=True):
    """A stream to be packed again after some of its plain bytes changed.

    ``plain`` is what the stream has to hold. Its ranges of ``decoded`` are plain bytes of the old stream,
    at the same offsets as there; ``packed`` is that old stream as it was. A codec that can may therefore
    keep compressed bytes: everything in front of the first byte of ``plain`` that is no such range in its
    old place, and every later block that is one. New bytes go to ``spool``; ``advance`` is told of
    each plain byte that is done. ``preset``: the effort asked for, the codec's own when None;
    ``always_compress``: do not store what does not shrink. ``memo`` belongs to ``decoded``.
    """

    packed: PieceTable
    decoded: Source
    plain: PieceTable
    spool: Spool
    threads: int
    advance: Callable[[int], None]
    preset: int | None = None
    always_compress: bool = False
    cache: BlockCache = field(default_factory=BlockCache)


class RepackResult(Struct, frozen=True):
    """A packed stream, and how it came about: ``kept`` packed bytes are the old ones; of the new plain bytes
    ``encoded`` were compressed and ``stored`` were not.
    """

    table: PieceTable
    reused: int
    encoded: int
    stored: int


class StreamParameters(Protocol):
    """How one stream was packed: the parameters that packing it again must keep."""

    @property
    def name(self) -> str:
        """The codec's name, as in ``xz``."""
        ...

    def describe(self) -> str:
        """The parameters for people, on one line; empty when there are none."""
        ...

    def repack(self, job: RepackJob) -> RepackResult:
        """The new stream."""
        ...

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """The plain bytes of the stream ``packed`` that this form was learned from, to their end, beginning at the
        last place at or before plain ``offset`` where decoding can begin; and that place.

        Reading them raises :class:`CorruptError` for damage.
        """
        ...

    def dump(self) -> dict[str, Any]:
        """This form as JSON values, for the codec's ``load``."""
        ...


class Decoding(Protocol):
    """Streams of one format in a row, being decoded."""

    @property
    def position(self) -> int:
        """Where in the packed stream, in bytes of its reader, stands what the last plain bytes came from. The reader
        may be further."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """The plain bytes of all streams. :raises CorruptError: damage, with its place in the packed stream,
        or something else follows."""
        ...

    def next_stream(self) -> Iterator[bytes]:
        """The plain bytes of the next stream alone; the reader then stands right behind it. Raises as ``chunks``."""
        ...

    @property
    def parameters(self) -> StreamParameters:
        """What was learned; complete once :meth:`chunks` has ended."""
        ...


class Codec(Protocol):
    """A compression format."""

    @property
    def name(self) -> str:
        """As in ``xz``."""
        ...

    @property
    def peek_size(self) -> int:
        """Packed bytes within which the first plain ones are had."""
        ...

    def sniff(self, head: bytes) -> bool:
        """True when a stream that begins with ``head`` is of this format."""
        ...

    def peek(self, head: bytes, count: int) -> bytes:
        """The first ``count`` plain bytes of a stream that begins with ``head``, or what can be had of them."""
        ...

    def decode(self, reader: ByteReader) -> Decoding:
        """Begins to decode what ``reader`` yields, to its end."""
        ...

    def load(self, values: dict[str, Any]) -> StreamParameters:
        """The form that ``dump`` made values of. :raises ValueError, KeyError, TypeError: it did not."""
        ...
