"""gzip (RFC 1952) around deflate (RFC 1951): concatenated members are decoded as one stream, and written as one."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from cosremaster.codecs.gzip.read import MAGIC, GzipMembers, read_header
from cosremaster.codecs.peek import peek_streams
from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader

if TYPE_CHECKING:
    from cosremaster.codecs.base import RepackJob, RepackResult, Seam, StreamParameters
    from cosremaster.codecs.gzip.checkpoints import SteppedInflater
    from cosremaster.codecs.gzip.inflate import Inflater
    from cosremaster.codecs.gzip.repack import GzipParameters

GZIP = "gzip"


class GzipDecoding(GzipMembers):
    """Decodes all members as one stream, and records the stored blocks in them."""

    packed_step, plain_step = 1 << 16, 1 << 17
    """Bytes that are searched for stored blocks at once: in more of them, most are deflated ones."""

    def __init__(self, reader: ByteReader) -> None:
        """Begin where ``reader`` stands."""
        from cosremaster.codecs.gzip.stored import StoredBlockFinder  # noqa: PLC0415 - reading alone needs none of it

        self._finder = StoredBlockFinder()
        super().__init__(reader, self._finder.feed)

    @property
    def parameters(self) -> GzipParameters:
        """The first header, the number of members, and the stored blocks in them."""
        from cosremaster.codecs.gzip.repack import GzipParameters  # noqa: PLC0415 - the same

        return GzipParameters(self.header, self.count, self._finder.blocks)


class GzipPreparation(GzipDecoding):
    """Decodes as :class:`GzipDecoding` does, and records states of the inflater in the first member.

    By them repacking finds the borders of deflate blocks without inflating all again. The standard library alone can
    copy states.
    """

    plain_step = GzipMembers.plain_step

    def __init__(self, reader: ByteReader) -> None:
        """Begin where ``reader`` stands."""
        super().__init__(reader)
        self._first: SteppedInflater | None = None

    def _new_inflater(self) -> Inflater:
        """Return what inflates the next member."""
        if self.count > 1:
            return super()._new_inflater()
        from cosremaster.codecs.gzip.checkpoints import SteppedInflater  # noqa: PLC0415 - reading needs none of it

        self._first = SteppedInflater()
        return self._first

    def _read_step(self, inflater: Inflater, crc: int) -> bytes:
        """Return the next packed bytes for ``inflater``, and note the stride of the first member."""
        if inflater is not self._first:
            return super()._read_step(inflater, crc)
        from cosremaster.codecs.gzip.checkpoints import STRIDE  # noqa: PLC0415 - the same

        self._first.begin_stride(self._reader.position, self._plain, crc)
        return self._reader.read_upto(STRIDE)

    @property
    def parameters(self) -> GzipParameters:
        """The first header, the number of members, and what was recorded."""
        from cosremaster.records import replace  # noqa: PLC0415 - reading alone needs none of it

        points = () if self._first is None else tuple(self._first.checkpoints)
        return replace(super().parameters, checkpoints=points)


class GzipReader(GzipMembers):
    """Decodes all members as one stream and records nothing. It is its own parameters, which allow reading again."""

    name = GZIP
    is_identity = caches_blocks = False
    refusal = None
    dictionary_size = 0

    @property
    def parameters(self) -> GzipReader:
        """The reader itself."""
        return self

    def keeps_front(self, packed: PieceTable) -> bool:
        """Return whether the stream was written by blocks."""
        return self._without_blocks().keeps_front(packed)

    @property
    def parts(self) -> Sequence[tuple[int, int]]:
        """Nothing, since nothing was recorded."""
        return ()

    @property
    def keeps_packed(self) -> bool:
        """True: a single stream is cut inside."""
        return True

    def cut_refusal(self, *, by_kernel: bool) -> str | None:
        """Return why such a stream is not cut."""
        return self._without_blocks().cut_refusal(by_kernel=by_kernel)

    def describe(self) -> str:
        """Return the parameters for people."""
        return self._without_blocks().describe()

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """Begin to decode at the beginning."""
        return 0, GzipMembers(ByteReader(packed.chunks(), place)).chunks()

    def dump(self) -> dict[str, Any]:
        """Return the parameters as JSON values."""
        return self._without_blocks().dump()

    def check_sizes(self, packed: int, plain: int | None) -> None:
        """Check nothing: no size was recorded."""

    def repack(self, job: RepackJob) -> RepackResult:
        """Pack everything again, since nothing was recorded."""
        return self._without_blocks().repack(job)

    def _without_blocks(self) -> GzipParameters:
        """Return the parameters, without stored blocks."""
        from cosremaster.codecs.gzip.repack import GzipParameters  # noqa: PLC0415 - reading alone needs none of it

        return GzipParameters(self.header, self.count)


class GzipCodec:
    """The gzip format."""

    name = GZIP
    is_identity = False
    peek_size = 4096

    def __init__(self, *, records_blocks: bool = True, records_states: bool = False) -> None:
        """Make a codec; ``records_blocks``: decoding records the stored blocks, for packing again.

        ``records_states``: and states of the inflater, for packing soon.
        """
        self._records_blocks, self._records_states = records_blocks, records_states

    def sniff(self, head: bytes) -> bool:
        """Return whether there is the magic of RFC 1952 with method 8 (deflate)."""
        return head.startswith(MAGIC)

    def peek(self, head: bytes, count: int) -> bytes:
        """Return the first plain bytes, fewer where the head is damaged."""
        return peek_streams(partial(zlib.decompressobj, 31), (zlib.error,), head, count)

    def decode(self, reader: ByteReader) -> GzipDecoding | GzipReader:
        """Begin to decode."""
        if self._records_states:
            return GzipPreparation(reader)
        return GzipDecoding(reader) if self._records_blocks else GzipReader(reader)

    def for_reading(self) -> GzipCodec:
        """Return a codec that does not look for stored blocks."""
        return GzipCodec(records_blocks=False)

    def for_packing(self) -> GzipCodec:
        """Return a codec that records what packing soon needs, though decoding takes longer then."""
        return GzipCodec(records_states=True)

    def with_seams(self, seams: Sequence[Seam]) -> GzipCodec:
        """Return a codec that decodes what stands between ``seams`` at the same time."""
        from cosremaster.codecs.gzip.segments import SegmentedGzipCodec  # noqa: PLC0415 - reading needs none of it

        return SegmentedGzipCodec(seams) if seams else self

    def shared_front(self, parameters: StreamParameters, packed: PieceTable, other: PieceTable) -> None:
        """Return None: decoding can begin nowhere inside a deflate stream."""

    def load(self, values: dict[str, Any]) -> GzipParameters:
        """Return the parameters that ``dump`` made ``values`` of."""
        from cosremaster.codecs.base import Count  # noqa: PLC0415 - the same
        from cosremaster.codecs.gzip.repack import GzipParameters  # noqa: PLC0415 - the same
        from cosremaster.codecs.gzip.stored import StoredBlocks  # noqa: PLC0415 - the same
        from cosremaster.records.json import convert  # noqa: PLC0415 - reading alone needs none of it

        reader = ByteReader([bytes.fromhex(convert(values["header"], str))], Place())
        header = read_header(reader)
        if reader.peek(1):
            raise ValueError("bytes behind a gzip header")
        return GzipParameters(header, convert(values["members"], Count), StoredBlocks.load(values["stored"]))
