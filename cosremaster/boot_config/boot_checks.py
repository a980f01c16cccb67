"""Kernel arguments by which a live system checks its files at boot: which menus have them, and how they are waived."""

from __future__ import annotations

from collections.abc import Iterable

from cosremaster.boot_config.boot_menus import find_boot_menus
from cosremaster.boot_config.menus.arguments import ArgumentReplacement, KernelArgument
from cosremaster.boot_config.request import BootSettings
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import IsoImage
from cosremaster.records import Struct, replace


class BootCheck(Struct, frozen=True):
    """A check at boot, as a kernel argument ``key=value``.

    ``is_default``: the check is made unless the argument says otherwise; else the argument asks for it. ``value``: by
    which it is made, or by which it is not made where it is the default.
    """

    key: bytes
    value: bytes
    is_default: bool = False

    @property
    def argument(self) -> bytes:
        """The kernel argument."""
        return self.key + b"=" + self.value


ARCHISO_GPG = BootCheck(b"verify", b"y")
"""archiso checks ``airootfs.sfs.sig`` (mkinitcpio-archiso, docs/README.bootparams)."""
ARCHISO_CMS = BootCheck(b"cms_verify", b"y")
"""archiso checks ``airootfs.sfs.cms.sig`` (the same)."""
ALPINE_MODLOOP = BootCheck(b"modloop_verify", b"no", is_default=True)
"""Alpine checks its modloop by a signature in the initramfs (openrc's modloop.initd)."""


class DemandedChecks(Struct, frozen=True):
    """The checks that boot menus demand.

    ``arguments``: kernel arguments that ask for them; ``lacking``: those that would have to be there to waive one, and
    are not on every line with a kernel; ``others``: arguments with another value of such a key.
    """

    arguments: tuple[bytes, ...] = ()
    lacking: tuple[bytes, ...] = ()
    others: tuple[tuple[bytes, bytes, bytes], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether no check is demanded."""
        return not (self.arguments or self.lacking)

    def waived(self, settings: BootSettings) -> BootSettings:
        """Return ``settings`` that also take these checks away."""
        removals = [KernelArgument(argument, argument) for argument in self.arguments]
        additions = [KernelArgument(argument, argument) for argument in self.lacking]
        replacements = [_make_replacement(*other) for other in self.others]
        return replace(
            settings, remove=(*settings.remove, *removals), replace=(*settings.replace, *replacements),
            add=(*settings.add, *additions),
        )  # fmt: skip


def find_demanded_checks(image: IsoImage, edits: IsoEdits, checks: Iterable[BootCheck]) -> DemandedChecks:
    """Return which of ``checks`` the boot menus of ``image`` demand after ``edits`` of its tree."""
    lines = [
        [word.text for word in line.arguments]
        for located in find_boot_menus(image, edits).menus
        for line in located.menu.lines
    ]
    arguments, lacking, others = list[bytes](), list[bytes](), list[tuple[bytes, bytes, bytes]]()
    for check in checks:
        if not check.is_default:
            arguments += [check.argument] if any(check.argument in line for line in lines) else []
            continue
        lacking += [check.argument] if any(check.argument not in line for line in lines) else []
        values = {word.partition(b"=")[2] for line in lines for word in line if word.startswith(check.key + b"=")}
        others += [(check.key, value, check.value) for value in sorted(values - {check.value})]
    return DemandedChecks(tuple(arguments), tuple(lacking), tuple(others))


def _make_replacement(key: bytes, old: bytes, new: bytes) -> ArgumentReplacement:
    """Return the replacement of ``key=old`` by ``key=new``."""
    before, after = key + b"=" + old, key + b"=" + new
    return ArgumentReplacement(
        before.decode(errors="replace"), ((KernelArgument(before, before), KernelArgument(after, after)),)
    )
