"""Changes in the FAT file systems of an image, as values, and the step that plans them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from cosremaster.iso.edits import IsoEdits
from cosremaster.remastering.context import RemasterContext
from cosremaster.remastering.open import RemasterImage
from cosremaster.remastering.request import NormalizedRequest


class FatChange(Struct, frozen=True, kw_only=True):
    """The changes to a FAT file system.

    ``name``: its name for people; ``exchanged``: paths of files with new bytes; ``copies``: for each of them that is a
    copy of a file on the tree, the path of that file.
    """

    name: str
    exchanged: tuple[bytes, ...] = ()
    copies: Mapping[bytes, bytes]


class FatPlan(Struct, frozen=True):
    """The edits of an image with the new bytes of its FAT file systems, what changes in these, and warnings."""

    edits: IsoEdits
    changes: tuple[FatChange, ...] = ()
    warnings: tuple[str, ...] = ()


def plan_fats(image: RemasterImage, edits: IsoEdits, request: NormalizedRequest, context: RemasterContext) -> FatPlan:
    """Return ``edits`` of the tree with those of the copies of its files in FAT file systems. Raises as
    ``plan_fat_files``.
    """
    if image.volume is None or not edits.replaced:
        return FatPlan(edits)
    from cosremaster.remastering.fat_files import plan_fat_files  # noqa: PLC0415 - most changes exchange no file

    plan = plan_fat_files(image.volume, edits, keep_copies=request.keep_fat_copies)
    context.warnings.extend(plan.warnings)
    return plan
