"""Step 7 of a remaster: the new image is planned, written and proved."""

from __future__ import annotations

from collections.abc import Mapping

from cosremaster.io.output import Output
from cosremaster.io.source import ByteSource, open_source
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan, plan_copy, plan_image
from cosremaster.iso.prove import prove_image
from cosremaster.progress import Progress
from cosremaster.remastering.open import RemasterImage


def plan_result(
    image: RemasterImage, source: ByteSource, edits: IsoEdits, *, drop_hfsplus: bool = False,
    overwritten: Mapping[int, bytes] | None = None,
) -> ImagePlan:  # fmt: skip
    """Return the plan of the new image after ``edits`` of its own tree. Raises as ``plan_image``.

    ``overwritten``: byte offset in the old image -> as many new bytes.
    """
    if image.volume is None:
        return image.plan(edits.replaced)
    if edits.is_empty:
        return plan_copy(image, overwritten)
    return plan_image(image, source, edits, drop_hfsplus=drop_hfsplus, overwrites=overwritten)


def write_image(
    image: RemasterImage, plan: ImagePlan, output: Output, source: ByteSource, progress: Progress
) -> tuple[str, ...]:
    """Write the new image, prove it, and give it its name. Step 7, instead of mkisofs. Return the proof, in lines.

    :raises OutputError: it cannot be written. :raises ProofError: the result is not what was planned.
    """
    with progress.step("write", plan.table.length) as advance:
        written = output.write(plan.table, source, advance)
    with progress.step("prove", None), open_source(written.path) as result:
        proof = (
            image.prove(plan, written, result) if image.volume is None else prove_image(image, plan, written, result)
        )
    source.check_unchanged()
    output.publish()
    return proof
