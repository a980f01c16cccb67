"""Changes in the FAT file systems of an image, as values, and the steps that plan them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cosremaster.iso.edits import IsoEdits
from cosremaster.records import Struct, field
from cosremaster.remastering.context import RemasterContext
from cosremaster.remastering.open import RemasterImage
from cosremaster.remastering.request import NormalizedRequest
from cosremaster.tree.nodes import Node

if TYPE_CHECKING:
    from cosremaster.remastering.fat_overlay import FatOverlay
    from cosremaster.remastering.plan_layers import Overlay


class FatChange(Struct, frozen=True, kw_only=True):
    """The changes to a FAT file system.

    ``name``: its name for people; ``address``: as in ``EFI/efiboot.img`` or ``@gpt2``. ``added``, ``exchanged``,
    ``removed`` and ``unchanged`` (already there): paths in it. ``copies``: for each exchanged file that follows another
    file with the same bytes, the place of that file. ``before`` and ``after``: the nodes that change, by path.
    """

    name: str
    address: str
    added: tuple[bytes, ...] = ()
    exchanged: tuple[bytes, ...] = ()
    removed: tuple[bytes, ...] = ()
    unchanged: tuple[bytes, ...] = ()
    copies: Mapping[bytes, str] = field(default_factory=dict)
    before: Mapping[bytes, Node] = field(default_factory=dict)
    after: Mapping[bytes, Node] = field(default_factory=dict)

    @property
    def changes_bytes(self) -> bool:
        """Whether anything changes."""
        return bool(self.added or self.exchanged or self.removed)


class FatPlan(Struct, frozen=True):
    """The edits of an image with the new bytes of its FAT file systems, what changes in these, and warnings."""

    edits: IsoEdits
    changes: tuple[FatChange, ...] = ()
    warnings: tuple[str, ...] = ()


def plan_fat_overlays(
    image: RemasterImage, overlay: Overlay, iso: IsoEdits, request: NormalizedRequest
) -> tuple[FatOverlay, ...]:  # fmt: skip
    """Return what the request itself does to files in FAT file systems. Raises as ``lay_over_fats``."""
    if not request.fats:
        return ()
    from cosremaster.remastering.fat_overlay import FatItems, lay_over_fats  # noqa: PLC0415 - few requests have any

    requests = [
        FatItems(fat.address, items, fat.removals) for fat, items in zip(request.fats, overlay.fat_items, strict=True)
    ]
    return lay_over_fats(
        image, iso, requests, allow_missing=request.allow_missing, force_type=request.force_type
    )  # fmt: skip


def plan_fats(
    image: RemasterImage, edits: IsoEdits, overlays: tuple[FatOverlay, ...], request: NormalizedRequest,
    context: RemasterContext,
) -> FatPlan:  # fmt: skip
    """Return ``edits`` of the tree with those of FAT file systems: ``overlays``, and copies of changed files.

    Raises as ``plan_fat_files``.
    """
    if image.volume is None or not (edits.replaced or overlays):
        return FatPlan(edits)
    from cosremaster.iso.fats import EFI_PROGRAM, find_fats  # noqa: PLC0415 - a change of names goes without

    found = find_fats(image.volume, edits)
    has_programs = any(path.lower().endswith(EFI_PROGRAM) for path in image.volume.trees[0].file_paths)
    if found.is_empty and not has_programs:  # a unified kernel image on the tree may hold a changed file too
        return FatPlan(edits)
    from cosremaster.remastering.fat_files import plan_fat_files  # noqa: PLC0415 - an image without FAT needs none of it

    plan = plan_fat_files(image.volume, edits, found, overlays, keep_copies=request.keep_fat_copies)
    context.warnings.extend(plan.warnings)
    return plan
