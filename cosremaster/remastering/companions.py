"""Files beside a changed file that tell of its old bytes: dm-verity hashes, signatures, sizes, lists of packages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from cosremaster.errors import UnsupportedError, printable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import SourceImage
from cosremaster.layers.model import Layer
from cosremaster.tree.nodes import Edits

if TYPE_CHECKING:
    from cosremaster.remastering.plan_layers import LayerChange
    from cosremaster.remastering.size_files import SizeChange

_VERITY = (b".verity", b".roothash", b".verity.roothash", b".verity.sig", b".fec", b".fec.roots", b".roothash.p7s")
"""What live-build puts beside a squashfs (its script binary_dm-verity), and systemd (veritysetup) beside an image."""

_SIGNATURES = (b".sig", b".cms.sig", b".gpg", b".asc", b".p7s", b".sign", b".minisig")
_SIZES = (b".size", b"/install-sources.yaml")

_PACKAGES = re.compile(
    rb"var/lib/dpkg/status(?:\.d(?:/.*)?)?|lib/apk/db/installed|(?:usr/lib/sysimage|var/lib)/rpm(?:/.*)?"
    rb"|var/lib/pacman/local(?:/.*)?|var/lib/snapd/seed(?:/.*)?",
    re.DOTALL,
)
"""Paths of the databases of installed packages, by which lists of packages are made."""

_LIST_NAME = rb"(?:filesystem|%b)\.(?:manifest|packages)(?:-[a-z-]+)?"
"""A pattern, with a place for the stem of the file system's name (livecd-rootfs; live-build, ``binary_manifest``)."""
_ARCH_LIST = re.compile(rb"pkglist\.[a-z0-9_]+\.txt")
"""archiso has it beside the folder of the processor (mkarchiso, ``_make_pkglist``)."""


class Companions(Struct, frozen=True):
    """What becomes of files that tell of others.

    ``edits``: of the ISO's tree, with their new bytes; ``sizes``: the sizes that change in them.
    """

    edits: IsoEdits
    sizes: tuple[SizeChange, ...] = ()
    warnings: tuple[str, ...] = ()


def plan_companions(image: SourceImage, edits: IsoEdits, changes: Sequence[LayerChange]) -> Companions:
    """Return what follows ``edits`` of the ISO's tree, which hold the ``changes`` of layers.

    :raises UnsupportedError: hashes of dm-verity would not fit any more, so that the file could not be mounted.
    """
    changed = sorted(path for path in edits.replaced if edits.new_path(path) is not None)
    if not changed or image.volume is None:
        return Companions(edits)
    present = {file.path for file in image.files if edits.new_path(file.path) is not None} - set(edits.replaced)
    warnings = list[str]()
    for path in changed:
        _check_verity(image, path, present)
        warnings += _signature_warnings(path, present)
    for change in changes:
        warnings += _package_warnings(change, present)
    if not any(path.endswith(_SIZES) for path in present):
        return Companions(edits, warnings=tuple(warnings))
    from cosremaster.remastering.size_files import plan_size_files  # noqa: PLC0415 - few images have such files
    from cosremaster.remastering.stacked_edits import StackedEdits  # noqa: PLC0415 - the same

    stacked = [change.edits for change in changes if isinstance(change.edits, StackedEdits)]
    sizes = plan_size_files(image, edits, stacked)
    return Companions(edits.with_contents(sizes.tables), sizes.changes, (*warnings, *sizes.warnings))


def _check_verity(image: SourceImage, path: bytes, present: set[bytes]) -> None:
    """Check that no hashes of dm-verity stand beside ``path``. :raises UnsupportedError: they do."""
    verity = [path + end for end in _VERITY if path + end in present]
    if verity:
        listed = ", ".join(map(printable, verity))
        removals = " ".join(f"--remove-iso /{printable(name)}" for name in verity)
        raise UnsupportedError(
            f"has hashes of dm-verity beside it ({listed}), with which the changed file could not be mounted;"
            f" {removals} takes them away, and the image then boots without that check",
            image.place.inside(path),
        )


def _signature_warnings(path: bytes, present: set[bytes]) -> Iterator[str]:
    """Yield a warning for each signature of the file ``path``, which changes."""
    for end in _SIGNATURES:
        if path + end in present:
            yield f"{printable(path + end)} signs the old bytes of {printable(path)}, and cannot be made anew"


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
