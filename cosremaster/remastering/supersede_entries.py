"""Replaced entries of cpio archives that stay: where it is known who unpacks them (``--supersede``)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cosremaster.errors import CosremasterError, UnsupportedError, printable
from cosremaster.iso.model import SourceImage
from cosremaster.layers.address import Address, format_address
from cosremaster.layers.model import Layer
from cosremaster.records import replace
from cosremaster.remastering.pack import with_containers
from cosremaster.remastering.select_layers import LayerTarget
from cosremaster.remastering.spread_edits import ArchiveEdits, archives_of
from cosremaster.tree.nodes import Edits, Node, NodeKind
from cosremaster.tree.paths import normal_name
from cosremaster.tree.replacements import NO_EDITS
from cosremaster.tree.superseding import SupersedeMode

if TYPE_CHECKING:
    from cosremaster.layers.boot_facts import BootFacts, BootLine

_INIT = b"init"
_PROGRAMS = (b"cpio", b"busybox")
"""Names of programs by which an ``/init`` may unpack archives."""


def plan_superseding(
    archives: Sequence[ArchiveEdits], targets: Iterable[LayerTarget], layers: Iterable[Layer], mode: SupersedeMode,
    kernel_use: KernelUse,
) -> tuple[ArchiveEdits, ...]:  # fmt: skip
    """Return ``archives``, the edits of ``targets`` by archive, with the entries that stay though they are replaced.

    ``layers``: all of the image. Where superseded entries are to go, archives that change in nothing else are among the
    result: those of ``targets``, and those that a changed ``/init`` unpacks in another way.
    :raises UnsupportedError: such an entry cannot go.
    """
    changes = {change.layer.address: change.edits for change in archives}
    result = [_supersede(change, mode, changes, kernel_use) for change in archives]
    others = {layer.address: (layer, SupersedeMode.AUTO) for layer in layers if _has_changed_holder(layer, changes)}
    if mode is SupersedeMode.NEVER:
        meant = [layer for target in targets for layer in _list_meant(target)]
        others |= {layer.address: (layer, mode) for layer in meant}
    for address, (layer, other_mode) in others.items():
        if address not in changes:
            cleaned = _supersede(ArchiveEdits(layer, NO_EDITS), other_mode, changes, kernel_use)
            result += [cleaned] if cleaned.edits.superseding.drops_dead else []
    return tuple(result)


def _list_meant(target: LayerTarget) -> tuple[Layer, ...]:
    """Return the archives that ``target`` means."""
    return archives_of(target.layer) if target.is_whole else (target.layer,)


def _has_changed_holder(layer: Layer, changes: Mapping[Address, Edits]) -> bool:
    """Return whether ``changes`` edit the archives of the file that holds ``layer``, and leave its own file."""
    holder, entry = layer.parent, layer.container_entry
    if holder is None or entry is None or not layer.is_in_archive:
        return False
    edits = changes.get(holder.address)
    if edits is not None and normal_name(entry.name) in edits.removed_paths:
        return False
    return any(archive.address in changes for archive in archives_of(holder))


def _supersede(
    change: ArchiveEdits, mode: SupersedeMode, changes: Mapping[Address, Edits], kernel_use: KernelUse
) -> ArchiveEdits:
    """Return ``change`` with the replaced entries that stay, and those that go; ``changes``: all of the file."""
    layer, edits = change.layer, change.edits
    is_wanted = mode is not SupersedeMode.NEVER and bool(edits.removed_paths)
    is_booted = is_wanted and kernel_use.is_certain(layer)
    superseding = layer.plan_superseding(edits, mode, changes, is_booted=is_booted)
    return ArchiveEdits(layer, replace(edits, superseding=superseding))


def check_boots(image: SourceImage, old: BootFacts, new: BootFacts, changed: Collection[bytes]) -> None:
    """Check that no boot entry starts another ``/init`` than that which lets superseding entries win.

    ``old``, ``new``: what ``image`` boots before and after the edits; ``changed``: paths of the files that they change.
    :raises UnsupportedError: one does.
    """
    known = {_situation_of(line) for line in old.lines}
    for line in new.lines:
        count = len(line.initrds)
        if _situation_of(line) in known:  # what is unpacked behind an initramfs may have another /init
            count = max((number for number, path in enumerate(line.initrds) if path in changed), default=0)
        for path in dict.fromkeys(line.initrds[:count]):
            old_use, new_use = KernelUse(image, (path,), lambda: old), KernelUse(image, (path,), lambda: new)
            for layer in new.layers(path):
                if layer.is_in_archive and layer.index.needs_unpacker(layer):
                    _check_boot(layer, old_use, new_use)


def _situation_of(line: BootLine) -> tuple[bool, tuple[bytes, ...]]:
    """Return what says which ``/init`` the boot entry ``line`` starts: whether it may be another, and the initramfs."""
    return _may_start_another(line), line.initrds


def _may_start_another(line: BootLine) -> bool:
    """Return whether the boot entry ``line`` names another ``/init``, or loads an initramfs that may have one."""
    return line.value(b"rdinit") is not None or line.lacks_initrd


def _check_boot(layer: Layer, old: KernelUse, new: KernelUse) -> None:
    """Check that a boot starts the ``/init`` around ``layer``, if each did so before. Raises as :func:`check_boots`."""
    if old.is_certain(layer) and not new.is_certain(layer):
        raise UnsupportedError(
            "has superseded entries, and would be unpacked by another program than the /init around it, which may"
            " take the old ones; an edit with --supersede never drops them before",
            layer.place,
        )


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

        ``rdinit=`` names another program. Another initramfs behind it may have another ``/init`` or another such file,
        or another shell or cpio for it.
        """
        if _may_start_another(line):
            return False
        last = max(number for number, path in enumerate(line.initrds) if path in self._paths)
        names = {_INIT} | ({normal_name(layer.container_entry.name)} if layer.container_entry else set())
        own: Mapping[bytes, Node] = {} if layer.parent is None else layer.parent.tree()
        trees = [facts.tree(path) for path in line.initrds[last + 1 :]]
        return all(tree and names.isdisjoint(tree) and not _changes_programs(tree, own) for tree in trees)


def _changes_programs(later: Mapping[bytes, Node], own: Mapping[bytes, Node]) -> bool:
    """Return whether ``later``, unpacked over ``own``, may have another program run there, or in its place."""
    if any(path.rpartition(b"/")[2] in _PROGRAMS for path in later):
        return True
    kinds = ((later[path].kind, own[path].kind) for path in later if path in own)
    return any(pair != (NodeKind.DIRECTORY, NodeKind.DIRECTORY) for pair in kinds)


def superseding_warnings(archives: Iterable[ArchiveEdits], mode: SupersedeMode) -> Iterator[str]:
    """Yield what may surprise about replaced entries of ``archives``: secrets, who unpacks them, and which go."""
    for change in archives:
        superseding, address = change.edits.superseding, format_address(change.layer.address)
        if superseding.drops_dead and mode is not SupersedeMode.NEVER:
            yield f"{address}: its superseded entries are dropped, as the changed /init would take them"
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
