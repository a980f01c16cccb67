"""The protocol of a codec: it recognizes a format, decodes forward, and packs again by what decoding recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable, Source
from cosremaster.io.streams import ByteReader
from cosremaster.records import NumberRange, Struct, field

if TYPE_CHECKING:
    from cosremaster.codecs.cuts import Cutting
    from cosremaster.codecs.gzip.deflate import DeflatedAhead
    from cosremaster.codecs.part_memory import PartMemory
    from cosremaster.io.spool import Spool


Count = Annotated[int, NumberRange(ge=0, le=(1 << 63) - 1)]
"""A size or an offset among the JSON values of parameters."""


class BlockCache:
    """Small results of packing old bytes, kept for all remasters of one opened image."""

    LIMIT = 8 << 20
    """Bytes of all values together."""

    def __init__(self) -> None:
        """Make an empty cache."""
        self._values: dict[object, Any] = {}
        self._size = 0

    def get(self, key: object) -> Any:
        """Return the value of ``key``, or None if there is none."""
        return self._values.get(key)

    def has_room(self, size: int) -> bool:
        """Return whether :data:`LIMIT` leaves room for ``size`` bytes."""
        return self._size + size <= self.LIMIT

    def put(self, key: object, value: object, size: int) -> None:
        """Keep ``value``, of ``size`` bytes, if there is room for it."""
        if self.has_room(size) and key not in self._values:
            self._size += size
            self._values[key] = value


class RepackJob(Struct, frozen=True, kw_only=True):
    """A stream to be packed again after some of its plain bytes changed.

    A codec may keep compressed bytes where it can: those in front of the first changed plain byte, and every later
    block of old plain bytes.

    :ivar packed: the old stream.
    :ivar decoded: the plain bytes of the old stream, as a source.
    :ivar plain: the plain bytes of the new stream; ranges of ``decoded`` in it are old bytes.
    :ivar spool: the place for newly packed bytes.
    :ivar threads: how many threads may pack.
    :ivar advance: called with the number of plain bytes of each finished part.
    :ivar preset: the compression preset; None for the codec's default.
    :ivar always_compress: also compress data that does not shrink, instead of storing it.
    :ivar gzip_coder: what deflates, one of :data:`cosremaster.codecs.gzip.deflate.CODERS`.
    :ivar cache: keeps packed blocks of ``decoded`` for later jobs.
    :ivar cutting: how the new stream is cut into parts, for parameters without a ``cut_refusal``; None for the codec's
        own way.
    :ivar origin: where nothing of the old stream can stay, the source of its plain bytes; blocks of a gzip stream end
        at fixed places in it.
    :ivar ahead: blocks of ``origin`` that were deflated while it was read.
    :ivar memory: parts that earlier plans packed, or None.
    :ivar find_borders: returns the offsets in ``decoded``, in order, at which large new data are cut in any case.
    """

    packed: PieceTable
    decoded: Source
    plain: PieceTable
    spool: Spool
    threads: int
    advance: Callable[[int], None]
    preset: int | None = None
    always_compress: bool = False
    gzip_coder: str = "zlib"
    cache: BlockCache = field(default_factory=BlockCache)
    cutting: Cutting | None = None
    find_borders: Callable[[], Sequence[int]] = tuple
    origin: Source | None = None
    ahead: DeflatedAhead | None = None
    memory: PartMemory | None = None


class Seam(Struct, frozen=True):
    """A byte of a packed stream at which decoding can begin, for who knows the plain bytes before it.

    :ivar packed: its offset in the stream.
    :ivar plain: the plain offset there.
    :ivar window: the last plain bytes before it, all that decoding needs of them.
    """

    packed: int
    plain: int
    window: PieceTable


class RepackResult(Struct, frozen=True):
    """A packed stream, and how it was made.

    :ivar reused: bytes of the old stream in ``table``.
    :ivar encoded: new plain bytes that were compressed.
    :ivar stored: new plain bytes that were stored without compression.
    :ivar parts: how many parts ``table`` has that can be packed one without the others; 0 where it has none.
    :ivar largest_part: plain bytes of the largest.
    :ivar seams: bytes at which decoding ``table`` can begin, in order, as long as its sources are open.
    """

    table: PieceTable
    reused: int
    encoded: int
    stored: int
    parts: int = 0
    largest_part: int = 0
    seams: tuple[Seam, ...] = ()


class Decoding(Protocol):
    """A decoder of concatenated streams of one format."""

    @property
    def position(self) -> int:
        """The packed offset up to which the plain bytes so far were decoded; the reader may be further."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Yield the plain bytes of all streams.

        :raises CorruptError: the data are damaged, with their place in the packed stream, or something else follows.
        """
        ...

    def next_stream(self) -> Iterator[bytes]:
        """Yield the plain bytes of the next stream alone; the reader then stands right behind it.

        :raises CorruptError: as :meth:`chunks` does.
        """
        ...

    @property
    def parameters(self) -> StreamParameters:
        """The parameters of the streams; complete once :meth:`chunks` has ended."""
        ...


class SharedFront(Struct, frozen=True):
    """The front of a packed stream that is known from another stream, without decoding it.

    :ivar end: the packed offset behind the front.
    :ivar plain: how many plain bytes the front holds.
    :ivar decode_rest: begins to decode where its reader stands, which is behind the front.
    """

    end: int
    plain: int
    decode_rest: Callable[[ByteReader], Decoding]


class StreamParameters(Protocol):
    """The parameters of a stream, which packing it again keeps, and the places where decoding can begin."""

    @property
    def name(self) -> str:
        """The codec's name, such as ``xz``."""
        ...

    @property
    def is_identity(self) -> bool:
        """Whether the packed bytes are the plain ones."""
        ...

    @property
    def refusal(self) -> str | None:
        """The reason why such a stream cannot be packed again, behind its place; None if it can be."""
        ...

    @property
    def dictionary_size(self) -> int:
        """The bytes of the dictionary that a decoder keeps; 0 where decoders need little memory."""
        ...

    @property
    def parts(self) -> Sequence[tuple[int, int]]:
        """The parts that can be packed one without the others: start and end of each in plain bytes.

        Empty where there are none: then a change packs everything behind it anew.
        """
        ...

    @property
    def keeps_packed(self) -> bool:
        """Whether an edit leaves packed bytes as they are that stand well before the first plain byte it changes."""
        ...

    def cut_refusal(self, *, by_kernel: bool) -> str | None:
        """Return why such a stream is not cut into more parts, as the end of a sentence about it; None if it can be.

        ``by_kernel``: kernels unpack it.
        """
        ...

    @property
    def caches_blocks(self) -> bool:
        """Whether :meth:`repack` keeps packed blocks in the job's cache, so that an early job for the front of a stream
        saves time later.
        """
        ...

    def keeps_front(self, packed: PieceTable) -> bool:
        """Return whether most likely the packed bytes before the first change stay; little of ``packed`` is read."""
        ...

    def describe(self) -> str:
        """Return the parameters for people, on one line; empty when there are none."""
        ...

    def repack(self, job: RepackJob) -> RepackResult:
        """Pack the new stream. :raises UnsupportedError: there is a :attr:`refusal`."""
        ...

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """Begin to decode at the last possible place at or before plain ``offset``.

        :param packed: the stream that these parameters were recorded from.
        :return: the plain offset of that place, and the plain bytes from there to the end, which raise CorruptError
            for damage.
        """
        ...

    def dump(self) -> dict[str, Any]:
        """Return the parameters as JSON values, for the codec's ``load``."""
        ...

    def check_sizes(self, packed: int, plain: int | None) -> None:
        """Check that they can be those of a stream of so many ``packed`` and ``plain`` bytes (None: unknown).

        :raises ValueError: they cannot.
        """
        ...


class PackedParameters(Struct, frozen=True):
    """The answers of :class:`StreamParameters` that most formats give."""

    name: ClassVar[str]
    is_identity: ClassVar[bool] = False
    refusal: ClassVar[str | None] = None
    caches_blocks: ClassVar[bool] = False

    @property
    def dictionary_size(self) -> int:
        """0: decoders need little memory."""
        return 0

    def keeps_front(self, packed: PieceTable) -> bool:
        """Return True: the stream is cut where it allows that."""
        return True

    @property
    def parts(self) -> Sequence[tuple[int, int]]:
        """Nothing: a change packs everything behind it anew."""
        return ()

    @property
    def keeps_packed(self) -> bool:
        """Whether there are several parts: one is packed anew as a whole."""
        return len(self.parts) > 1

    def cut_refusal(self, *, by_kernel: bool) -> str | None:
        """Return that nothing can be cut."""
        return f"is packed with {self.name}, which has no parts that can be packed one without the others"

    def check_sizes(self, packed: int, plain: int | None) -> None:
        """Check nothing: no size is among the parameters."""


class Codec(Protocol):
    """A compression format."""

    @property
    def name(self) -> str:
        """The name, such as ``xz``."""
        ...

    @property
    def is_identity(self) -> bool:
        """Whether the packed bytes are the plain ones."""
        return False

    @property
    def peek_size(self) -> int:
        """How many packed bytes :meth:`peek` needs for the first plain ones."""
        ...

    def sniff(self, head: bytes) -> bool:
        """Return whether a stream that begins with ``head`` has this format."""
        ...

    def peek(self, head: bytes, count: int) -> bytes:
        """Return the first ``count`` plain bytes of a stream that begins with ``head``, fewer where it ends early."""
        ...

    def decode(self, reader: ByteReader) -> Decoding:
        """Begin to decode everything that ``reader`` yields."""
        ...

    def for_reading(self) -> Codec:
        """Return a variant that decodes without recording what only repacking needs."""
        return self

    def for_packing(self) -> Codec:
        """Return a variant that records what makes repacking soon quicker, though decoding may take longer then."""
        return self

    def with_seams(self, seams: Sequence[Seam]) -> Codec:
        """Return a variant that decodes a stream with ``seams`` in parts at the same time, and checks each seam."""
        return self

    def shared_front(self, parameters: StreamParameters, packed: PieceTable, other: PieceTable) -> SharedFront | None:
        """Return the front that the stream ``other`` shares with ``packed``, a stream with ``parameters``.

        None if there is none, or decoding cannot begin behind one. Nothing is decoded for it.
        """
        return None

    def load(self, values: dict[str, Any]) -> StreamParameters:
        """Return the parameters that ``dump`` made ``values`` of.

        :raises ValueError, KeyError, TypeError, MismatchError, CosremasterError: ``values`` are others.
        """
        ...
