"""A new image that is not written: its bytes are read at any offset, from the base and from what was planned."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from cosremaster.errors import Place
from cosremaster.io.descriptors import STEP
from cosremaster.io.framed import FramedSource
from cosremaster.io.frozen import BaseRange, FrozenTable, OriginSizes, freeze_table
from cosremaster.io.output import NewFrames, Written
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.shared_use import SharedUse
from cosremaster.io.table_source import TableSource
from cosremaster.remastering.write import begin_second_proof, prove_result

if TYPE_CHECKING:
    from cosremaster.io.blobs import BlobStore
    from cosremaster.io.source import ByteSource
    from cosremaster.remastering.open import RemasterImage
    from cosremaster.remastering.plan import RemasterPlan


class Prepared:
    """A new image that was planned and not written (:meth:`Image.prepare`); a context manager.

    It reads the base, and files of the user that are larger than a MiB; all else that was made is kept. Every read
    raises an error once one of these was changed, so that bytes of two states never mix. Any number of threads may
    read it, also when the image that it was made from is closed.

    ``size``: bytes of the new image. ``identical``: nothing changes, it is the base byte for byte. ``warnings`` and
    ``proof``: as in :class:`Result`.
    """

    def __init__(
        self, table: FrozenTable, use: SharedUse, *, name: str, identical: bool, warnings: tuple[str, ...] = (),
        proof: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        """Keep the arguments; ``use`` counts who reads the base, and ``name`` is that of the new image in messages."""
        use.begin()
        self.table = table
        base = table.base
        self._check_base: Callable[[], None] = getattr(base, "check_untouched", base.check_unchanged)
        self._use = SharedUse(use.end, name)
        self.name, self.size, self.identical, self.warnings, self.proof = name, table.size, identical, warnings, proof

    def __enter__(self) -> Prepared:
        """Return the new image itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Return the class, the base, and the size."""
        return f"Prepared({self.table.base.name!r}, {self.size:,} bytes)"

    def close(self) -> None:
        """End reading; whoever reads at this moment ends first."""
        self._use.close()

    def using(self) -> AbstractContextManager[None]:
        """Return a context in which the image can be read though somebody closes it.

        :raises UsageError: it is closed.
        """
        return self._use.holding()

    @property
    def descriptor(self) -> int | None:
        """A file descriptor of the base, for sendfile(2) of the ranges that :meth:`segments` gives; None without one.

        It is valid inside :meth:`using`, and :meth:`check_unchanged` has to follow what is read from it.
        """
        return self.table.base.descriptor

    def check_unchanged(self) -> None:
        """Compare the base, and the files of the user that are read, with what was planned.

        :raises ImageError: the base was changed. :raises OverlayError: a file of the user was.
        """
        self._check_base()
        for file in self.table.files:
            file.check_unchanged()

    def _check_near_base(self) -> None:
        """Check that the base did not change. What comes from other machines does so by itself, with each request."""
        if not self.table.base.is_far:
            self._check_base()

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from byte ``offset`` on, fewer where the image ends.

        :raises ImageError: the base was changed. :raises OverlayError: a file of the user in these bytes was.
        :raises UsageError: this is closed.
        """
        self._use.begin()  # a context would take as long as the rest of a short read
        try:
            data = self.table.read(offset, length)
            self._check_near_base()
            return data
        finally:
            self._use.end()

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``, one after another, from byte ``offset`` on, all inside the image. Raises as :meth:`read`."""
        with self._use.using():
            self.table.fill(offset, views)
            self._check_near_base()

    def chunks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield ``length`` bytes from byte ``offset`` on, None: all that follow, in chunks. Raises as :meth:`read`."""
        end = self.size if length is None else offset + length
        with self._use.using():
            for start in range(offset, end, STEP):
                yield self.read(start, min(STEP, end - start))

    def segments(self, offset: int, length: int) -> Iterator[bytes | BaseRange]:
        """Yield what ``length`` bytes from byte ``offset`` on are made of, in order: bytes, and ranges of the base.

        :meth:`check_unchanged` has to follow what is read of the ranges. Raises as :meth:`read`.
        """
        with self._use.using():
            yield from self.table.segments(offset, length)

    def identity(self) -> str:
        """Return a hexadecimal digest that is other for other bytes, and the same after a restart.

        It stands for the state of the base (not its bytes), and for all that is new.
        """
        import hashlib  # noqa: PLC0415 - loads OpenSSL

        identity = self.table.base.identity()
        base = json.dumps([identity.name, identity.state], sort_keys=True).encode()
        return hashlib.sha256(hashlib.sha256(base).digest() + self.table.digest).hexdigest()

    def origins(self) -> OriginSizes:
        """Return how many bytes come from where."""
        return self.table.sizes()


def prepare_plan(
    image: RemasterImage, plan: RemasterPlan, base: ByteSource, store: BlobStore, use: SharedUse
) -> Prepared:
    """Return the new image of ``plan``, proved as one that is written; the sources of the plan must still be open.

    :param image: the old image, whose bytes are those of ``base``.
    :param use: counts who reads ``base``.
    :raises ProofError: the new image is not as planned. Raises what reading the sources raises.
    """
    table = plan.result.table
    place = Place((f"{base.name} (prepared)",))
    frozen = freeze_table(table, base, store)
    base.check_unchanged()
    result = TableSource(PieceTable([Range(frozen, 0, frozen.size)]), base, place)
    with begin_second_proof(image, base) as second:
        written = Written(Path(), tuple(_find_frames(table)))
        proof = prove_result(image, plan.result, written, result, place, second)
    return Prepared(frozen, use, name=str(place), identical=plan.identical, warnings=plan.warnings, proof=proof)


def _find_frames(table: PieceTable) -> Iterator[NewFrames]:
    """Yield the runs of ``table`` whose CRC32 was known when they were planned."""
    offset = 0
    for piece in table.pieces:
        if isinstance(piece, Range) and isinstance(piece.source, FramedSource):
            framed = piece.source
            if framed.crc is not None and piece.length == framed.length:
                yield NewFrames(offset, framed)
        offset += piece.length
