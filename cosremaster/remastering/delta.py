"""A remaster that is written as a delta from its base, and what makes such a delta large."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cosremaster.deltas.check import check_delta
from cosremaster.deltas.encode import encode_delta, measure_delta
from cosremaster.deltas.note import DeltaNote, FileDigest
from cosremaster.deltas.sums import TableSums
from cosremaster.io.blobs import BlobStore
from cosremaster.io.frozen import freeze_table
from cosremaster.io.parallel import StopFlag, Worker
from cosremaster.io.shared_sums import views_of
from cosremaster.io.source import open_file
from cosremaster.layers.address import format_address
from cosremaster.progress import COPY, PROOF, begin_work
from cosremaster.records import Struct, replace
from cosremaster.records.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from cosremaster.deltas.encode import DeltaTable
    from cosremaster.io.output import Output
    from cosremaster.io.source import ByteSource
    from cosremaster.progress import Progress
    from cosremaster.remastering.plan import RemasterPlan
    from cosremaster.remastering.plan_layers import LayerChange

MUCH = 1 << 20
"""Plain bytes that are packed again though nobody added them, from which on a delta says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyChange:
    """A change because of which much of a delta is nothing new.

    ``layer``: the address of the layer; ``path``: the first of its files that is replaced or removed, behind which all
    is packed again; ``size``: the packed bytes that the delta holds of this layer.
    """

    layer: str
    path: bytes
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaFacts:
    """A delta of ``size`` bytes, and the ``early`` changes that make it large.

    ``base_sha256`` and ``sha256``: of the base and of what the delta makes of it, in hexadecimal digits; empty in a
    plan.
    """

    size: int
    early: tuple[EarlyChange, ...] = ()
    base_sha256: str = ""
    sha256: str = ""


class DeltaSums(Struct, frozen=True):
    """``base``: waits for the SHA-256 of the base and returns it; ``result``: sums what the delta makes of it."""

    base: Callable[[], str]
    result: TableSums


@contextmanager
def summing_beside(source: ByteSource) -> Iterator[Callable[[], str]]:
    """Sum ``source`` on a thread of its own; give what waits for its SHA-256 and returns the hexadecimal digits."""
    stop = StopFlag()

    def sum_all() -> str:
        """Return the digest of all bytes."""
        digest = hashlib.sha256()
        for view in views_of(source, 0, source.size, stop):
            digest.update(view)
        return digest.hexdigest()

    worker = Worker(sum_all)
    try:
        yield worker.result
    finally:
        stop.set()
        worker.join()


def write_delta(
    table: DeltaTable, plan: RemasterPlan, files: tuple[Output, Output], sums: DeltaSums, progress: Progress, *,
    has_sums: bool,
) -> DeltaFacts:  # fmt: skip
    """Write the delta of ``table``, the bytes of ``plan``, and the note of which base it is for and what it makes.

    It is read again, and makes the same ranges and bytes as ``table``. ``files``: those of the delta and of the note.

    :raises ProofError: it does not. :raises OutputError: it cannot be written.
    """
    output, note = files
    with begin_work(progress, "write the delta", table.size, COPY, "delta") as advance:

        def sum_window(start: int, length: int) -> int:
            """Sum a window of the new image, and return its Adler-32."""
            adler = sums.result.sum_window(start, length)
            advance(length)
            return adler

        path = output.write_chunks(encode_delta(table, sum_window, has_sums=has_sums))
    with begin_work(progress, "prove", None, PROOF), open_file(path) as delta:
        check_delta(delta, table, output.place)
        size = delta.size
    base, result = FileDigest(table.base.size, sums.base()), FileDigest(table.size, sums.result.hexdigest())
    note.write_chunks([DeltaNote(base, result).encode(size)])
    return DeltaFacts(size=size, early=find_early_changes(plan), base_sha256=base.sha256, sha256=result.sha256)


def plan_delta(plan: RemasterPlan, base: ByteSource, folder: Path) -> RemasterPlan:
    """Return ``plan`` with the size of its delta; the sources of the plan must still be open.

    ``folder``: for temporary files. Raises what reading the sources raises.
    """
    table = freeze_table(plan.result.table, base, BlobStore(folder))
    return replace(plan, delta=DeltaFacts(size=measure_delta(table), early=find_early_changes(plan)))


def find_early_changes(plan: RemasterPlan) -> tuple[EarlyChange, ...]:
    """Return the changes of ``plan`` because of which layers are packed again far beyond what is new in them."""
    return tuple(early for change in plan.changes for early in _find_early(plan, change))


def _find_early(plan: RemasterPlan, change: LayerChange) -> Iterator[EarlyChange]:
    """Yield the first replaced or removed file of ``change``, if much is packed again because of it."""
    edits, layer = change.edits, change.layer
    new = sum(node.content.size for node, _ in edits.additions if node.content is not None)
    leaving = edits.removed_paths - change.superseding.paths
    for packed in plan.packed:
        summary = packed.summary
        again = summary.encoded + summary.stored - new
        if packed.address != change.address or again < max(MUCH, new) or not leaving:
            continue
        spans = [(start, path) for path, start, _ in layer.index.entry_spans() if path in leaving]
        if spans:
            yield EarlyChange(
                layer=format_address(change.address), path=min(spans)[1], size=summary.size - summary.reused
            )
