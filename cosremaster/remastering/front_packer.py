"""Packing, while an image is indexed, what stands before the first archive inside a compressed one.

Whatever becomes of the inner archive, its entry changes, and the stream around it is packed anew up to there. The layer
inside takes long to decode, on one thread; what this finds is in the codec's cache when it is needed.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from cosremaster.codecs.base import BlockCache, RepackJob
from cosremaster.errors import CosremasterError
from cosremaster.io.parallel import Worker, cpu_count
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.spool import Spool
from cosremaster.io.streams import ByteReader
from cosremaster.layers.decoded import DecodedSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cosremaster.errors import Place
    from cosremaster.layers.address import Address
    from cosremaster.layers.identify import Identification
    from cosremaster.remastering.pack import Packing


class FrontPacker:
    """Packs fronts of containers into the caches of ``packing``, each on a thread; a context manager that waits for it.

    Temporary data go to ``folder``. Errors are ignored here, for they come again where the container is packed.
    """

    def __init__(self, packing: Packing, folder: Path) -> None:
        """Begin without containers."""
        self._packing, self._folder = packing, folder
        self._workers: dict[Address, tuple[int, Worker[None]]] = {}

    def __enter__(self) -> FrontPacker:
        """Return the packer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until nothing is read any more."""
        for _offset, worker in self._workers.values():
            worker.join()

    def watch(
        self, path: bytes, packed: PieceTable, place: Place, identification: Identification
    ) -> Callable[[int], None] | None:
        """Return what is called with the plain byte where the entry of an archive begins in the file ``path``.

        None where nothing could be gained: the file begins with something else, or a thread more takes others' time.
        """
        if identification.prefix or cpu_count() == 1 or self._packing.codec is not None:
            return None
        return partial(self._start, (path,), packed, place, identification)

    def _start(
        self, address: Address, packed: PieceTable, place: Place, identification: Identification, offset: int
    ) -> None:
        """Begin to pack the plain bytes before ``offset`` of the stream ``packed``, unless it is packed before."""
        if address not in self._workers and address not in self._packing.caches:
            work = partial(self._pack, address, packed, place, identification, offset)
            self._workers[address] = offset, Worker(work)

    def _pack(
        self, address: Address, packed: PieceTable, place: Place, identification: Identification, offset: int
    ) -> None:
        """Pack the plain bytes before ``offset`` as far as the cache takes them."""
        with suppress(CosremasterError), Spool(self._folder) as spool:
            decoding = identification.codec.decode(ByteReader(packed.chunks(), place))
            next(decoding.next_stream(), None)  # the header tells the parameters
            parameters = decoding.parameters
            if not parameters.caches_blocks:
                return
            size = min(offset, BlockCache.LIMIT)
            decoded = DecodedSource(packed, parameters, place, b"", size)
            packing, threads = self._packing, self._packing.threads
            method = packing.method_of(parameters)
            job = RepackJob(
                packed=packed,
                decoded=decoded,
                plain=PieceTable([Range(decoded, 0, size)]),
                spool=spool,
                threads=1,  # others have work
                advance=lambda count: None,
                gzip_coder=packing.gzip,
                cache=packing.caches.setdefault(address, BlockCache()),
                memory=None if packing.parts is None else packing.parts.for_work(method, threads),
            )
            parameters.repack(job)

    def wait_for(self, address: Address) -> int | None:
        """Wait until the front of the container at ``address`` is packed; return where it ends, None if it is not."""
        if address not in self._workers:
            return None
        offset, worker = self._workers[address]
        worker.join()
        return offset
