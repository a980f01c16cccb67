"""Replaced entries of cpio archives that stay: where it is known who unpacks them (``--supersede``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cosremaster.errors import CosremasterError, printable
from cosremaster.iso.model import SourceImage
from cosremaster.layers.address import Address, format_address
from cosremaster.layers.model import Layer
from cosremaster.remastering.pack import with_containers
from cosremaster.remastering.select_layers import LayerTarget
from cosremaster.remastering.spread_edits import ArchiveEdits, archives_of
from cosremaster.tree.nodes import Edits
from cosremaster.tree.paths import normal_name
from cosremaster.tree.replacements import NO_EDITS
from cosremaster.tree.superseding import SupersedeMode

if TYPE_CHECKING:
    from cosremaster.layers.boot_facts import BootFacts, BootLine

_INIT = b"init"


def plan_superseding(
    archives: Sequence[ArchiveEdits], targets: Iterable[LayerTarget], mode: SupersedeMode, kernel_use: KernelUse
) -> tuple[ArchiveEdits, ...]:
    """Return ``archives``, the edits of ``targets`` by archive, with the entries that stay though they are replaced.

    Where superseded entries are to go, archives that change in nothing else are among them.
    """
    changed = {change.layer.address for change in archives}
    inits = [change.layer.address for change in archives if _changes_init(change.edits)]
    result = [_supersede(change, mode, None if _has_holder(change.layer, inits) else kernel_use) for change in archives]
    if mode is not SupersedeMode.NEVER:
        return tuple(result)
    for target in targets:
        layers = archives_of(target.layer) if target.is_whole else (target.layer,)
        others = [ArchiveEdits(layer, NO_EDITS) for layer in layers if layer.address not in changed]
        cleaned = [_supersede(other, mode, kernel_use) for other in others]
        result += [change for change in cleaned if change.edits.superseding.drops_dead]
    return tuple(result)


def _changes_init(edits: Edits) -> bool:
    """Return whether another program is ``/init`` after ``edits``."""
    return _INIT in edits.removed_paths or any(node.path == _INIT for node, _ in edits.additions)


def _has_holder(layer: Layer, addresses: Sequence[Address]) -> bool:
    """Return whether one of the archives around ``layer`` has one of ``addresses``."""
    return any(outer.address in addresses for outer in with_containers(layer) if outer is not layer)


def _supersede(change: ArchiveEdits, mode: SupersedeMode, kernel_use: KernelUse | None) -> ArchiveEdits:
    """Return ``change`` with the replaced entries that stay; without ``kernel_use`` nothing is known of kernels."""
    layer, edits = change.layer, change.edits
    is_wanted = mode is not SupersedeMode.NEVER and bool(edits.removed_paths)
    is_booted = is_wanted and kernel_use is not None and kernel_use.is_certain(layer)
    superseding = layer.plan_superseding(edits, mode, is_booted=is_booted)
    return ArchiveEdits(layer, replace(edits, superseding=superseding))


class KernelUse:
    """Whether kernels unpack the file of ``image`` at ``paths``, by its boot menus.

    ``find_facts``: returns what the image boots.
    """

    def __init__(self, image: SourceImage, paths: Iterable[bytes], find_facts: Callable[[], BootFacts]) -> None:
        """Begin without having read any menu."""
        self._image, self._paths, self._find_facts = image, frozenset(paths), find_facts

    def is_certain(self, layer: Layer) -> bool:
        """Return whether a kernel unpacks ``layer``; of one in an archive, whether it starts the ``/init`` there."""
        if layer.is_in_filesystem or layer.format.random_access or not layer.format.is_initramfs:
            return False
        *_, outermost = with_containers(layer)
        try:
            facts = self._find_facts()
            lines = facts.lines
            if layer is outermost:
                initrds = {path for line in lines for path in line.initrds}
                return not self._image.is_single_file and initrds.issuperset(self._paths)
            return all(
                self._starts_init(facts, line, layer) for line in lines if not self._paths.isdisjoint(line.initrds)
            )
        except CosremasterError:  # menus that cannot be read tell nothing
            return False

    def _starts_init(self, facts: BootFacts, line: BootLine, layer: Layer) -> bool:
        """Return whether the kernel of ``line`` starts ``/init`` of the archive around ``layer``, and it unpacks that.

        ``rdinit=`` names another program, and another initramfs may have another ``/init``, or another such file.
        """
        if line.value(b"rdinit") is not None:
            return False
        last = max(number for number, path in enumerate(line.initrds) if path in self._paths)
        names = {_INIT} | ({normal_name(layer.container_entry.name)} if layer.container_entry else set())
        trees = [facts.tree(path) for path in line.initrds[last + 1 :]]
        return all(tree and names.isdisjoint(tree) for tree in trees)


def superseding_warnings(archives: Iterable[ArchiveEdits]) -> Iterator[str]:
    """Yield what may surprise about the replaced entries that stay in ``archives``: secrets, and who unpacks them."""
    for change in archives:
        superseding, address = change.edits.superseding, format_address(change.layer.address)
        if superseding.private:
            listed = ", ".join(map(printable, sorted(superseding.private)))
            yield (
                f"{address}: the old bytes of {listed}, which not everybody might read, stay in the archive;"
                " --supersede never takes them out"
            )
        if superseding.paths and not superseding.unpacker:
            yield (
                f"{address}: it is not known what unpacks it; a program that keeps the first of two entries, whatever"
                " their times, keeps replaced files as they were, and one that restores times shows the year 2038 on"
                " new ones (--supersede never)"
            )
