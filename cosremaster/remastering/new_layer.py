"""A new layer over the root file systems, which stay byte for byte: ``--as-layer``.

The boot has to mount it: casper's ``layerfs-path=`` and ``LAYERFS_PATH``, or live-boot's ``*.module`` file, name it
then; elsewhere its own name does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from cosremaster.errors import LayerError, Place, UnsupportedError, UsageError, printable
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import SourceImage
from cosremaster.iso.nodes import read_nodes
from cosremaster.layers.layer_names import name_layer
from cosremaster.layers.model import Layer
from cosremaster.layers.root_stacks import (
    LAYERFS_ARGUMENT,
    RootChain,
    StackRule,
    find_chains,
    find_installed_layer,
)
from cosremaster.layers.stacks import LayerStack, find_copied, open_below, open_filesystem
from cosremaster.overlay.attributes import FittedItems
from cosremaster.records import Struct, replace
from cosremaster.remastering.context import RemasterContext
from cosremaster.remastering.layer_index import LayerIndex
from cosremaster.remastering.pack import Packing, pack_file
from cosremaster.remastering.plan_layers import LayerChange, LayerChanges, Overlay, merge_items, plan_file
from cosremaster.remastering.request import NormalizedRequest
from cosremaster.remastering.select_layers import LayerTarget, group_targets
from cosremaster.remastering.spread_edits import ArchiveEdits
from cosremaster.remastering.stacked_edits import copied_warnings, describe_chain, edit_over
from cosremaster.tree.content import BytesContent, PieceContent
from cosremaster.tree.nodes import Action, Edits, Node, NodeKind
from cosremaster.tree.paths import ancestors

if TYPE_CHECKING:
    from cosremaster.io.source import ByteSource
    from cosremaster.layers.boot_facts import BootLine


class LayerSlot(Struct, frozen=True):
    """Where a new layer goes.

    ``path``: of its file on the image; ``chains``: the boot entries that mount the root under it, the one that starts
    by itself first, with what each mounts; ``others``: the other entries.
    """

    path: bytes
    chains: tuple[tuple[BootLine, RootChain], ...]
    others: tuple[tuple[BootLine, RootChain], ...]

    @property
    def chain(self) -> RootChain:
        """The root under the new layer."""
        return self.chains[0][1]


def plan_new_layer(
    image: SourceImage, index: LayerIndex, request: NormalizedRequest, overlay: Overlay, iso: IsoEdits,
    context: RemasterContext,
) -> LayerChanges:  # fmt: skip
    """Return the changes that lay the request over the root as a new layer.

    :param iso: the edits of the ISO's tree so far.
    :raises UnsupportedError: the boot mounts a single file system. :raises LayerError: nothing says what it mounts.
    """
    assert request.as_layer is not None
    slot = find_slot(image, index, request.as_layer)
    place = image.place.inside(slot.path)
    below = open_below(image, slot.chain.paths, place)
    layer = open_filesystem(slot.path, PieceTable([Literal(_make_blank(below, place))]), place)
    assert layer is not None
    context.start_precopy()
    stack = LayerStack(below, (), slot.chain.scheme)
    overlay.check_sizes(layer.limits)
    fitted = FittedItems(layer.limits)
    items = fitted.fit(overlay.items)
    edits = edit_over(layer, stack, lambda tree: merge_items(tree, items, request, layer))
    context.note_layer(layer.address)
    context.warnings.extend([*fitted.warnings(), *edits.warnings, *copied_warnings(image, slot.chain, edits.shown)])
    change = LayerChange(layer=layer, address=layer.address, edits=edits, paths=(slot.path,))
    if edits.is_empty:
        return LayerChanges(iso, (change,))
    packed = pack_file([ArchiveEdits(layer, edits)], Packing.of(request, context), context.folder)
    iso = _with_file(image, iso, slot, packed.table, context.source)
    boot = _name_in_boot(image, index, request, slot, iso, context)
    context.warnings.extend(_slot_warnings(image, slot, below))
    return LayerChanges(
        boot.iso, (change, *boot.changes), (*packed.layers, *boot.packed), _name_in_menus(slot)
    )  # fmt: skip


def _make_blank(below: Sequence[Layer], place: Place) -> bytes:
    """Return a layer without files, made as the uppermost of ``below`` that is of a format for it.

    :raises UnsupportedError: none is.
    """
    for layer in reversed(below):
        with suppress(LookupError):
            return layer.make_blank()
    raise UnsupportedError("cannot be made: no squashfs is under it that says how", place)


def find_slot(image: SourceImage, index: LayerIndex, name: bytes) -> LayerSlot:
    """Return where a new layer called ``name`` goes. Raises as :func:`plan_new_layer`."""
    if image.volume is None:
        raise UsageError(f"{image.place} is no ISO, so no layer can be laid over what is in it")
    entries = find_chains(image, index.facts)
    if not entries or entries[0][0] is not index.facts.lines[0]:
        raise LayerError(
            "nothing says which file systems the boot mounts as its root, so no layer can be laid over them"
            " (--layer changes one of them)",
            image.place,
        )
    chain = entries[0][1]
    same = tuple(entry for entry in entries if entry[1].paths == chain.paths and entry[1].rule is chain.rule)
    return LayerSlot(
        name_layer(image, chain, name), same, tuple(entry for entry in entries if entry not in same)
    )  # fmt: skip


def _with_file(
    image: SourceImage, iso: IsoEdits, slot: LayerSlot, table: PieceTable, source: ByteSource
) -> IsoEdits:  # fmt: skip
    """Return ``iso`` with the file of the new layer, which gets mode, owner and time of the one below it.

    :raises UsageError: ``iso`` removes or exchanges a file system under it, or adds a file of that path.
    """
    for path in slot.chain.paths:
        if iso.new_path(path) != path or path in iso.replaced:
            raise UsageError(f"{printable(path)} cannot lie under a new layer and be exchanged, renamed or removed")
    if slot.path in iso.added_by_path:
        raise UsageError(f"{printable(slot.path)} cannot be a new layer and be added by --add-iso")
    assert image.volume is not None
    nodes = read_nodes(image.volume, source)
    model = nodes[slot.chain.paths[-1]]
    node = replace(model, path=slot.path, content=PieceContent(table.pieces), link=None)
    parents = [
        Node(path=path, kind=NodeKind.DIRECTORY, mode=0o755, mtime=model.mtime)
        for path in ancestors(slot.path) if path not in nodes and path not in iso.added_by_path
    ]  # fmt: skip
    return replace(iso, added=tuple(sorted((*iso.added, *parents, node), key=lambda added: added.path)))


def _name_in_boot(
    image: SourceImage, index: LayerIndex, request: NormalizedRequest, slot: LayerSlot, iso: IsoEdits,
    context: RemasterContext,
) -> LayerChanges:  # fmt: skip
    """Return the changes by which the initramfs, or a list on the ISO, names the new layer; of menus none."""
    result = LayerChanges(iso)
    if slot.chain.rule is StackRule.LIST:
        return LayerChanges(_with_list(image, iso, slot))
    variables = {chain.variable.initrd: chain.variable for _, chain in slot.chains if chain.variable is not None}
    for initrd, variable in variables.items():
        layers = index.layers((initrd,), context.progress)
        outer = [layer for layer in layers.layers if layer.parent is None][-1]
        node = outer.tree()[variable.path]
        assert node.content is not None
        text = node.content.table().read(0)
        value = variable.value.rpartition(b"/")[0]
        value = (value + b"/" if value else b"") + slot.path.rpartition(b"/")[2]
        new = replace(node, content=BytesContent(text[: variable.start] + value + text[variable.end :]), link=None)
        edits = Edits(frozenset((variable.path,)), ((new, Action.REPLACED),), (), (), ())
        target = LayerTarget(outer, is_whole=outer.concatenation is not None)
        (group,) = group_targets(image, layers, [target])
        part = plan_file(image, layers, group, [edits], request, result.iso, context)
        result = LayerChanges(part.iso, (*result.changes, *part.changes), (*result.packed, *part.packed))
    return result


def _with_list(image: SourceImage, iso: IsoEdits, slot: LayerSlot) -> IsoEdits:
    """Return ``iso`` with the new layer at the end of the ``*.module`` files of the boot entries."""
    tables = {}
    for path in dict.fromkeys(chain.list_file for _, chain in slot.chains if chain.list_file is not None):
        if path in iso.replaced or iso.new_path(path) != path:
            raise UsageError(f"{printable(path)} cannot name a new layer and be exchanged, renamed or removed")
        file = next(file for file in image.files if file.path == path)
        text = image.bytes_of(file).read(0)
        separator = b"" if text[-1:] in (b"\n", b"") else b"\n"
        tables[path] = PieceTable([Literal(text + separator + slot.path.rpartition(b"/")[2] + b"\n")])
    return replace(iso, replaced={**iso.replaced, **tables})


def _name_in_menus(slot: LayerSlot) -> tuple[str, ...]:
    """Return replacements of kernel arguments, as ``--replace-kernel-arg`` takes them, that name the new layer."""
    values = (line.value(LAYERFS_ARGUMENT) for line, chain in slot.chains if chain.rule is StackRule.TOP)
    name = slot.path.rpartition(b"/")[2]
    result = []
    for value in dict.fromkeys(value for value in values if value is not None):
        folder, slash, _ = value.rpartition(b"/")
        texts = (LAYERFS_ARGUMENT, value, folder + slash + name)
        result.append("=".join(text.decode("utf-8", "surrogateescape") for text in texts))
    return tuple(result)


def _slot_warnings(image: SourceImage, slot: LayerSlot, below: Sequence[Layer]) -> Iterator[str]:
    """Yield warnings of boots, and of installed systems, that will not have the new layer."""
    path = printable(slot.path)
    for missing in slot.chain.missing:
        yield f"{printable(missing)} is not on the image, though the boot needs it ({slot.chain.order})"
    for line, chain in slot.others:
        yield f"the boot entry {line.title} does not mount {path}: {describe_chain(chain)}"
    installed = find_installed_layer(image, slot.chain.folder)
    if installed is not None:
        yield (
            f"{path} is in the running system alone: the installer copies {printable(installed)} and the layers below"
            " it; without --as-layer the change is made there"
        )
    copied = find_copied(below, slot.chain.paths)
    if copied:
        yield (
            f"{path} is in the running system alone: the installer Calamares copies {printable(copied[-1])}; without"
            " --as-layer the change is made there"
        )
