"""Step 7 of a remaster: the new image is planned, written and proved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from cosremaster.errors import CosremasterError, Place, ProofError
from cosremaster.io.output import Output, Written
from cosremaster.io.source import ByteSource, open_source
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan, plan_copy, plan_image
from cosremaster.iso.prove import prove_image
from cosremaster.lazy_log import LazyLogger
from cosremaster.progress import COPY, PROOF, Advance, Progress, begin_work
from cosremaster.remastering.open import RemasterImage
from cosremaster.remastering.second_proof import SecondProof

_LOG = LazyLogger(__name__)


def plan_result(
    image: RemasterImage, source: ByteSource, edits: IsoEdits, *, drop_hfsplus: bool = False,
    overwritten: Mapping[int, bytes] | None = None,
) -> ImagePlan:  # fmt: skip
    """Return the plan of the new image after ``edits`` of its own tree. Raises as ``plan_image``.

    ``overwritten``: byte offset in the old image -> as many new bytes.
    """
    if image.volume is None:
        return image.plan(edits.replaced)
    if not edits.changes_tree:
        return plan_copy(image, overwritten, edits.areas)
    return plan_image(image, source, edits, drop_hfsplus=drop_hfsplus, overwrites=overwritten)


def write_image(
    image: RemasterImage, plan: ImagePlan, output: Output, source: ByteSource, progress: Progress, *,
    check_input: Callable[[], None] = lambda: None, read_back: bool = False,
) -> tuple[str, ...]:  # fmt: skip
    """Write the new image, prove it, and give it its name. Step 7, instead of mkisofs. Return the proof, in lines.

    ``check_input`` is called before the image gets its name; it raises where ``source`` is not what was planned with.

    ``read_back``: also compare every byte of the file, read from the disk.

    :raises OutputError: it cannot be written. :raises ProofError: the result is not what was planned. :raises
        ImageError: somebody wrote to ``source`` meanwhile, whatever went wrong of that.
    """
    with _blaming_changes(source), begin_second_proof(image, source) as second:
        with begin_work(progress, "write", plan.table.length, COPY) as advance:
            written = output.write(plan.table, source, advance)
        total = sum(run.end - run.start for run in written.new_runs)
        with begin_work(progress, "prove", total, PROOF) as advance, open_source(written.path) as result:
            proof = prove_result(image, plan, written, result, output.place, second, advance)
    size = plan.table.length
    kept = size - sum(run.end - run.start for run in written.new_runs)
    _LOG.info("%s: %d bytes written, %d of them copied from the input", output.place, size, kept)
    if read_back:
        with begin_work(progress, "read back", size, PROOF, "read back") as advance:
            output.read_back(plan.table, advance)
        proof = (*proof, f"all {size:,} bytes read back past the page cache: as in the input, or as planned")
    elif kept:
        proof = (*proof, f"{kept:,} kept bytes copied; of them what is named above was compared (--read-back: all)")
    source.check_unchanged()
    check_input()
    output.publish(progress.warn)
    return proof


@contextmanager
def _blaming_changes(source: ByteSource) -> Iterator[None]:
    """Raise in place of an error that ``source`` has changed, where it has: a result of two states proves nothing."""
    try:
        yield
    except CosremasterError:
        source.check_unchanged()
        raise


def begin_second_proof(image: RemasterImage, source: ByteSource) -> AbstractContextManager[SecondProof | None]:
    """Begin to read the old ``image`` in ``source`` with the second reader; None for an image that is no ISO 9660."""
    return nullcontext() if image.volume is None else SecondProof(image, source)


def prove_result(
    image: RemasterImage, plan: ImagePlan, written: Written, result: ByteSource, place: Place,
    second: SecondProof | None, advance: Advance = lambda count: None,
) -> tuple[str, ...]:  # fmt: skip
    """Prove the new image in ``result`` and return the proof, in lines.

    :param place: the new image's place in messages, by the name that it will have.
    :param second: from :func:`begin_second_proof`.
    :param advance: called with the numbers of new bytes that were read again.
    :raises ProofError: it cannot be read, or is not what was planned.
    """
    try:
        if image.volume is None:
            return image.prove(plan, written, result, advance)
        lines = prove_image(image, plan, written, result, advance)
        seen = second.prove(result) if second is not None else None
        return lines if seen is None else (*lines, seen)
    except CosremasterError as error:
        message = error.message if isinstance(error, ProofError) else f"the result cannot be read: {error.message}"
        where = error.place or result.place
        if where.parts[: len(result.place.parts)] == result.place.parts:  # the name of a temporary file says nothing
            where = Place((*place.parts, *where.parts[len(result.place.parts) :]), where.offset)
        raise ProofError(message, where) from error
