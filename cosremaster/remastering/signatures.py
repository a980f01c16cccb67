"""Detached signatures beside files that change: they become untrue, and may leave the image with what demands them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cosremaster.errors import UnsupportedError, printable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import IsoImage
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct, replace

if TYPE_CHECKING:
    from cosremaster.boot_config.boot_checks import BootCheck, DemandedChecks

VERITY = (b".verity", b".roothash", b".verity.roothash", b".verity.sig", b".fec", b".fec.roots", b".roothash.p7s")
"""What live-build puts beside a squashfs (its script binary_dm-verity), and systemd (veritysetup) beside an image."""

_CMS, _SIG = b".cms.sig", b".sig"
_SIGNATURES = (_SIG, _CMS, b".gpg", b".asc", b".p7s", b".sign", b".minisig")

_ARCHISO_ROOTS = (b".sfs", b".erofs")
"""Ends of the names of root file systems whose signatures archiso checks."""

_MODLOOP = lazy_regex(rb"(?:.*/)?modloop[^/]*")
"""Alpine's kernel modules, whose signature is in the initramfs (``/var/cache/misc/*.SIGN.RSA.*``)."""


class SignaturePlan(Struct, frozen=True):
    """What becomes of signatures.

    ``edits``: of the ISO's tree, without those that are ``dropped``; ``demands``: checks that boot menus ask for and
    that fail from now on.
    """

    edits: IsoEdits
    dropped: tuple[bytes, ...] = ()
    demands: DemandedChecks | None = None
    warnings: tuple[str, ...] = ()


def plan_signatures(image: IsoImage, edits: IsoEdits, changed: Iterable[bytes], *, drop: bool) -> SignaturePlan:
    """Return what becomes of the signatures and hashes of the ``changed`` files of ``image``, after ``edits``.

    :param drop: they are removed, and no boot menu demands them any more; else they are told.
    :raises UnsupportedError: hashes of dm-verity would not fit any more, so that the file could not be mounted.
    """
    names = sorted(changed)
    likely = {path + end for path in names for end in (*_SIGNATURES, *VERITY)}.difference(edits.replaced)
    paths = image.trees[0].file_paths if likely else ()
    present = {path for path in paths if path in likely and edits.new_path(path) is not None}
    pairs = [(path, path + end) for path in names for end in _SIGNATURES if path + end in present]
    verity = [(path, path + end) for path in names for end in VERITY if path + end in present]
    if verity and not drop:
        raise _verity_error(image, *next(iter(_grouped(verity))))
    checks = list(_find_checks(names, pairs))
    demands = None
    if checks:
        from cosremaster.boot_config.boot_checks import find_demanded_checks  # noqa: PLC0415 - loads menu languages

        demands = find_demanded_checks(image, edits, checks)
    if not drop:
        return SignaturePlan(edits, warnings=(*_pair_warnings(pairs), *_demand_warnings(names, demands)))
    dropped = tuple(sorted({signature for _, signature in (*pairs, *verity)}))
    return SignaturePlan(replace(edits, removed=(*edits.removed, *dropped)), dropped, demands)


def _find_checks(names: Iterable[bytes], pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[BootCheck]:
    """Yield the checks at boot that a change of the files ``names``, with signatures by ``pairs``, may fail."""
    modloops = [path for path in names if _MODLOOP.fullmatch(path)]
    ends = {signature.removeprefix(path) for path, signature in pairs if path.endswith(_ARCHISO_ROOTS)}
    if not modloops and not ends & {_SIG, _CMS}:
        return
    from cosremaster.boot_config.boot_checks import (  # noqa: PLC0415 - few images have signatures
        ALPINE_MODLOOP,
        ARCHISO_CMS,
        ARCHISO_GPG,
    )

    yield from [ALPINE_MODLOOP] if modloops else []
    yield from [ARCHISO_CMS] if _CMS in ends else []
    yield from [ARCHISO_GPG] if _SIG in ends else []


def _grouped(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield each file of ``pairs`` with all that stands beside it."""
    groups: dict[bytes, list[bytes]] = {}
    for path, beside in pairs:
        groups.setdefault(path, []).append(beside)
    yield from groups.items()


def _verity_error(image: IsoImage, path: bytes, verity: list[bytes]) -> UnsupportedError:
    """Return the error for a file with hashes of dm-verity."""
    listed = ", ".join(map(printable, verity))
    removals = " ".join(f"--remove-iso /{printable(name)}" for name in verity)
    return UnsupportedError(
        f"has hashes of dm-verity beside it ({listed}), with which the changed file could not be mounted;"
        f" {removals} (or --drop-signatures) takes them away, and the image then boots without that check",
        image.place.inside(path),
    )


def _pair_warnings(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
    """Yield a warning for each file with a signature."""
    for path, signature in pairs:
        yield (
            f"{printable(signature)} signs the old bytes of {printable(path)}, and cannot be made anew"
            " (--drop-signatures takes it away)"
        )


def _demand_warnings(names: Iterable[bytes], demands: DemandedChecks | None) -> Iterator[str]:
    """Yield a warning for what boot menus demand of the files ``names``, which change."""
    if demands is None or demands.is_empty:
        return
    modloop = next((path for path in names if _MODLOOP.fullmatch(path)), None)
    for argument in demands.arguments:
        yield (
            f"a boot menu has {printable(argument)}, so the system checks that signature and does not start"
            " (--drop-signatures takes the argument away)"
        )
    for argument in demands.lacking if modloop is not None else ():
        yield (
            f"Alpine checks {printable(modloop or b'')} by a signature in its initramfs, and does not mount the changed"
            f" file (--drop-signatures sets {printable(argument)} in the boot menus)"
        )
