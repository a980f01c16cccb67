"""Files beside a changed file that tell of its old bytes: dm-verity hashes, signatures, sizes, lists of packages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cosremaster.errors import printable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import IsoImage, SourceImage
from cosremaster.layers.model import Layer
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct, replace
from cosremaster.remastering.signatures import plan_signatures
from cosremaster.tree.nodes import Edits

if TYPE_CHECKING:
    from cosremaster.boot_config.boot_checks import DemandedChecks
    from cosremaster.boot_config.request import BootSettings
    from cosremaster.remastering.plan_layers import LayerChange
    from cosremaster.remastering.size_files import SizeChange

CASPER_UUID = b".disk/casper-uuid"
"""How casper's UUIDs on a medium begin."""

_SIZES = (b".size", b"/install-sources.yaml")

_PACKAGES = lazy_regex(
    rb"var/lib/dpkg/status(?:\.d(?:/.*)?)?|lib/apk/db/installed|(?:usr/lib/sysimage|var/lib)/rpm(?:/.*)?"
    rb"|var/lib/pacman/local(?:/.*)?|var/lib/snapd/seed(?:/.*)?",
    re.DOTALL,
)
"""Paths of the databases of installed packages, by which lists of packages are made."""

_LIST_NAME = rb"(?:filesystem|%b)\.(?:manifest|packages)(?:-[a-z-]+)?"
"""A pattern, with a place for the stem of the file system's name (livecd-rootfs; live-build, ``binary_manifest``)."""
_ARCH_LIST = lazy_regex(rb"pkglist\.[a-z0-9_]+\.txt")
"""archiso has it beside the folder of the processor (mkarchiso, ``_make_pkglist``)."""


class Companions(Struct, frozen=True):
    """What becomes of files that tell of others.

    ``edits``: of the ISO's tree, with their new bytes; ``sizes``: the sizes that change in them; ``signatures``: paths
    of those that are dropped; ``demands``: checks of these that boot menus ask for.
    """

    edits: IsoEdits
    sizes: tuple[SizeChange, ...] = ()
    signatures: tuple[bytes, ...] = ()
    demands: DemandedChecks | None = None
    warnings: tuple[str, ...] = ()

    def waived(self, settings: BootSettings) -> BootSettings:
        """Return ``settings`` that also take away what demands the dropped signatures."""
        return settings if self.demands is None else self.demands.waived(settings)


def plan_companions(
    image: SourceImage, edits: IsoEdits, changes: Sequence[LayerChange], *, drop_signatures: bool = False
) -> Companions:
    """Return what follows ``edits`` of the ISO's tree, which hold the ``changes`` of layers.

    :param drop_signatures: of changed files, and hashes of dm-verity.
    :raises UnsupportedError: these hashes would not fit any more, so that the file could not be mounted.
    """
    if image.volume is None:
        return Companions(edits)
    warnings = list[str]()
    if _has_casper_uuid(image.volume, edits):
        from cosremaster.remastering.casper_uuid import find_uuid_warnings  # noqa: PLC0415 - casper's images alone

        warnings += find_uuid_warnings(image.volume, edits, changes)
    changed = sorted(path for path in edits.replaced if edits.new_path(path) is not None)
    if not changed:
        return Companions(edits, warnings=tuple(warnings))
    paths = image.volume.trees[0].file_paths
    present = {path for path in paths if edits.new_path(path) is not None} - set(edits.replaced)
    signatures = plan_signatures(image.volume, edits, changed, drop=drop_signatures)
    warnings += [*signatures.warnings, *(text for change in changes for text in _package_warnings(change, present))]
    result = Companions(
        signatures.edits, signatures=signatures.dropped, demands=signatures.demands if drop_signatures else None,
        warnings=tuple(warnings),
    )  # fmt: skip
    if not any(path.endswith(_SIZES) for path in present):
        return result
    from cosremaster.remastering.size_files import plan_size_files  # noqa: PLC0415 - few images have such files
    from cosremaster.remastering.stacked_edits import StackedEdits  # noqa: PLC0415 - the same

    # what is inside a file system counts, too: such a file is measured as a whole
    inside = {change.layer.address[0] for change in changes if change.layer.parent is not None}
    stacked = [
        change.edits for change in changes
        if isinstance(change.edits, StackedEdits) and change.layer.address[0] not in inside
    ]  # fmt: skip
    sizes = plan_size_files(image, edits, stacked)
    return replace(
        result, edits=result.edits.with_contents(sizes.tables), sizes=sizes.changes,
        warnings=(*warnings, *sizes.warnings),
    )  # fmt: skip


def _has_casper_uuid(image: IsoImage, edits: IsoEdits) -> bool:
    """Return whether the medium of casper has a UUID before or after ``edits``."""
    return image.trees[0].has_path_from(CASPER_UUID) or any(node.path.startswith(CASPER_UUID) for node in edits.added)


def with_late_companions(
    companions: Companions, image: IsoImage, edits: IsoEdits, *, drop: bool, keep_checksums: bool
) -> Companions:
    """Return ``companions`` with the signatures of what changed since, boot menus in ``edits``, and will change: lists.

    :param drop: drop them, those of lists of checksums too, unless ``keep_checksums``.
    """
    known = set(companions.edits.replaced) - {change.path for change in companions.sizes}
    changed = {path for path in edits.replaced if edits.new_path(path) is not None} - known
    if drop and not keep_checksums:
        from cosremaster.checksums.update import find_changing_lists  # noqa: PLC0415 - few requests drop signatures

        changed |= set(find_changing_lists(image, edits))
    late = plan_signatures(image, edits, changed, drop=drop)
    return replace(
        companions, edits=late.edits, signatures=(*companions.signatures, *late.dropped),
        warnings=(*companions.warnings, *late.warnings),
    )  # fmt: skip


def _package_warnings(change: LayerChange, present: set[bytes]) -> Iterator[str]:
    """Yield a warning for each list of packages that ``change`` makes untrue, by the package database in the layer."""
    if change.layer.parent is not None or not change.layer.format.random_access:
        return
    database = _find_package_database(change.edits)
    if database is None:
        return
    for path in sorted(present):
        if _lists_packages(path, change.layer):
            yield (
                f"{printable(path)} lists the packages of the old {printable(change.paths[0])}, whose package database"
                f" changes ({printable(database)})"
            )


def _find_package_database(edits: Edits) -> bytes | None:
    """Return the first path of a package database that ``edits`` change; None where they leave it alone."""
    paths = {*edits.removed_paths, *(node.path for node, _ in edits.additions)}
    return min((path for path in paths if _PACKAGES.fullmatch(path)), default=None)


def _lists_packages(path: bytes, layer: Layer) -> bool:
    """Return whether the file at ``path`` lists the packages of ``layer``, by its name and place."""
    folder, _, name = path.rpartition(b"/")
    layer_folder, _, layer_name = layer.address[0].rpartition(b"/")
    if _ARCH_LIST.fullmatch(name):
        return folder in (layer_folder, layer_folder.rpartition(b"/")[0])
    stem = layer_name.rpartition(b".")[0] or layer_name
    return folder == layer_folder and re.fullmatch(_LIST_NAME % re.escape(stem), name) is not None
