"""Edits of a layer that lies over others: what is removed from those below becomes a whiteout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from cosremaster.errors import OverlayError, printable
from cosremaster.iso.model import SourceImage
from cosremaster.layers.address import format_address
from cosremaster.layers.boot_facts import BootFacts
from cosremaster.layers.model import Layer
from cosremaster.layers.root_stacks import RootChain, find_root_stack
from cosremaster.layers.stacks import LayerStack, StackedTree, find_stack, is_whiteout
from cosremaster.overlay.attributes import name_some
from cosremaster.overlay.exact_nodes import with_private_xattrs
from cosremaster.records import replace
from cosremaster.tree.limits import MAX_NUMBER, Limits
from cosremaster.tree.nodes import Action, Edits, Node, NodeKind
from cosremaster.tree.paths import ancestors, normal_name
from cosremaster.tree.xattrs import loses_xattrs, shared_xattrs


class StackedEdits(Edits, frozen=True, kw_only=True):
    """Edits of ``layer``, and the same as they are ``shown`` by it and the layers of ``stack`` below it."""

    layer: Layer
    stack: LayerStack
    shown: Edits


def edit_in_stack(
    image: SourceImage, layer: Layer, facts: BootFacts, merge_into: Callable[[Mapping[bytes, Node]], Edits]
) -> StackedEdits:
    """Return the edits of ``layer`` that ``merge_into`` makes of the tree that it shows with the layers below it.

    Additions that a layer over it hides, and removals of what that has too, are told among the warnings of the edits.
    Raises as ``merge_into`` does.

    :param facts: what ``image`` boots.
    :raises OverlayError: a new directory would show what the layer hides, or nothing can hide a file of a lower layer.
    :raises UnsupportedError: a layer below cannot be read.
    """
    edits = edit_over(layer, find_stack(image, layer, facts), merge_into)
    warnings = (*edits.warnings, *boot_warnings(image, layer, facts), *_copy_warnings(image, layer, facts, edits.shown))
    return replace(edits, warnings=warnings)


def edit_over(
    layer: Layer, stack: LayerStack, merge_into: Callable[[Mapping[bytes, Node]], Edits]
) -> StackedEdits:  # fmt: skip
    """Return the edits of ``layer``, which is mounted between those of ``stack``; raises as :func:`edit_in_stack`."""
    shown = merge_into(stacked_tree(layer, stack))
    edits = edits_of_layer(layer, stack, shown)
    warnings = (*edits.warnings, *hidden_warnings(stack, edits), *removal_warnings(stack, edits))
    return StackedEdits(
        edits.removed_paths, edits.additions, edits.removed, edits.unchanged,
        warnings, layer=layer, stack=stack, shown=shown,
    )  # fmt: skip


def boot_warnings(image: SourceImage, layer: Layer, facts: BootFacts) -> Iterator[str]:
    """Yield a warning where the boot lacks a file, or where an entry of the boot menu does not mount ``layer``."""
    stack = find_root_stack(image, facts)
    path = layer.address[0]
    if stack is None or image.volume is None or layer.parent is not None:
        return
    for missing in stack.chain.missing:
        yield f"{printable(missing)} is not on the image, though the boot needs it ({stack.chain.order})"
    if path not in stack.chain.paths and path.rpartition(b"/")[0] == stack.chain.folder:
        yield f"{printable(path)} is not mounted by the boot entry that starts by itself: {describe_chain(stack.chain)}"
    for line, chain in stack.others:
        if path in stack.chain.paths and path not in chain.paths:
            yield f"the boot entry {line.title} does not mount {printable(path)}: {describe_chain(chain)}"


def _copy_warnings(image: SourceImage, layer: Layer, facts: BootFacts, edits: Edits) -> Iterator[str]:
    """Yield warnings of :func:`copied_warnings` where the boot mounts ``layer``."""
    stack = find_root_stack(image, facts)
    if stack is not None and layer.address[0] in stack.chain.paths:
        yield from copied_warnings(image, stack.chain, edits)


def copied_warnings(image: SourceImage, chain: RootChain, edits: Edits) -> Iterator[str]:
    """Yield a warning for each file of ``edits`` over which the boot copies another, or that it brings back."""
    if not chain.copied:
        return
    copied = {file.path for file in image.files if file.path.startswith(chain.copied + b"/")}
    files = {node.path for node, _ in edits.additions if node.kind is not NodeKind.DIRECTORY}
    for path in sorted(files | set(edits.removed)) if copied else ():
        other = chain.copied + b"/" + path
        if other in copied or (path not in files and any(name.startswith(other + b"/") for name in copied)):
            yield f"{printable(path)}: the boot copies {printable(other)} over it (--add-iso, --remove-iso change that)"


def container_warnings(image: SourceImage, layer: Layer, facts: BootFacts) -> Iterator[str]:
    """Yield a warning where the file that ``layer`` is in is not what the running system shows at its path.

    A layer over the file system that the file is in may have another one, or the boot does not mount that file system.
    """
    inner, outer = layer, layer.parent
    while outer is not None and outer.parent is not None:
        inner, outer = outer, outer.parent
    if outer is None or inner.container_entry is None or not outer.format.random_access:
        return
    node = outer.tree().get(normal_name(inner.container_entry.name))
    if node is not None:
        edits = Edits(frozenset(), ((node, Action.REPLACED),), (), (), ())
        yield from hidden_warnings(find_stack(image, outer, facts), edits)
    yield from boot_warnings(image, outer, facts)


def describe_chain(chain: RootChain) -> str:
    """Return the file systems of ``chain`` for people, and what decides on them."""
    return f"the root is {', '.join(map(printable, chain.paths))}, the last on top ({chain.order})"


def stacked_tree(layer: Layer, stack: LayerStack) -> Mapping[bytes, Node]:
    """Return the tree that ``layer`` and those below it show together."""
    return StackedTree([*(lower.tree() for lower in stack.lower), layer.tree()]) if stack.lower else layer.tree()


def edits_of_layer(layer: Layer, stack: LayerStack, edits: Edits) -> Edits:
    """Return ``edits`` of the stacked tree as edits of ``layer``, of which nothing below it is changed.

    A path that a layer below keeps becomes a whiteout; directories on the way to an addition get the attributes that
    they have below.

    :raises OverlayError: a new directory would show what the layer hides.
    """
    if not stack.lower or edits.is_empty:
        return edits
    own, below = layer.tree(), StackedTree([lower.tree() for lower in stack.lower])
    _check_hiding(layer, stack, edits)
    for node, _ in edits.additions:
        hidden = own.get(node.path)
        if node.kind is not NodeKind.DIRECTORY or hidden is None or hidden.kind is NodeKind.DIRECTORY:
            continue
        lower = below.get(node.path)
        if lower is not None and lower.kind is NodeKind.DIRECTORY and _shows_below(own, node.path):
            raise OverlayError(
                "cannot be added: this layer hides the directory of that name in the layers below it, and a new one"
                " would show their files again",
                layer.place.inside(node.path),
            )
    added = {node.path for node, _ in edits.additions}
    gone = edits.removed_paths - added
    hiding = gone | {node.path for node, _ in edits.additions if node.kind is not NodeKind.DIRECTORY}
    whiteouts = [
        Node(path=path, kind=NodeKind.CHAR, mode=0)
        for path in gone
        if path in below and not any(parent in hiding for parent in ancestors(path)) and _shows_below(own, path)
    ]
    parents: dict[bytes, Node] = {}
    for path in [*added, *(node.path for node in whiteouts)]:
        for parent in ancestors(path):
            present = own.get(parent)
            if parent not in added and (present is None or is_whiteout(present)) and parent in below:
                parents[parent] = _copy_up(below[parent], layer.limits)
    additions = {node.path: (_fit_into(node, own), action) for node, action in edits.additions}
    additions |= {node.path: (node, Action.REMOVED) for node in whiteouts}
    additions |= {path: (node, Action.PARENT) for path, node in parents.items()}
    removed = {path for path in {*edits.removed_paths, *additions} if path in own}
    bare = [path for path, node in parents.items() if loses_xattrs(dict(below[path].xattrs), dict(node.xattrs))]
    lost = f"{layer.place}: ACLs of directories of lower layers, which it gets too, are not taken over:"
    lost += f" {layer.limits.container} holds none: {name_some(sorted(bare))}"
    return replace(
        edits, removed_paths=frozenset(removed), additions=tuple(additions[path] for path in sorted(additions)),
        warnings=(*edits.warnings, lost) if bare else edits.warnings,
    )  # fmt: skip


def _copy_up(directory: Node, limits: Limits) -> Node:
    """Return ``directory``, of layers below, as a layer with ``limits`` has it, without what overlayfs keeps there."""
    xattrs = tuple(pair for pair in shared_xattrs(directory.xattrs) if limits.holds_xattr(pair[0]))
    return replace(directory, xattrs=xattrs, is_opaque=False, mtime=min(max(directory.mtime, 0), MAX_NUMBER))


def _shows_below(own: Mapping[bytes, Node], path: bytes) -> bool:
    """Return whether layers below show at ``path`` where ``own`` has nothing there: it hides no directory above."""
    above = (own.get(parent) for parent in ancestors(path))
    return all(node is None or (node.kind is NodeKind.DIRECTORY and not node.is_opaque) for node in above)


def _fit_into(node: Node, own: Mapping[bytes, Node]) -> Node:
    """Return ``node`` as the layer ``own`` takes it: a directory of its own goes on hiding those of layers below.

    A directory of layers below, which ``own`` has not, is without what overlayfs keeps there.
    """
    if node.kind is not NodeKind.DIRECTORY:
        return node
    old = own.get(node.path)
    if old is not None:
        return with_private_xattrs(old, node) if old.is_opaque and not node.is_opaque else node
    return replace(node, xattrs=shared_xattrs(node.xattrs), is_opaque=False) if node.xattrs else node


def _check_hiding(layer: Layer, stack: LayerStack, edits: Edits) -> None:
    """Check that ``edits`` of ``layer`` hide nothing of a lower layer where no whiteout does.

    :raises OverlayError: they do.
    """
    if stack.scheme is None or stack.scheme.has_whiteouts:
        return
    for path in sorted(edits.removed_paths - {node.path for node, _ in edits.additions}):
        holders = [format_address(lower.address) for lower in stack.lower if path in lower.tree()]
        if holders:
            raise OverlayError(
                f"cannot be removed here: it is in {' and '.join(holders)}, and {stack.scheme.value} looks for no"
                f" whiteouts; {' '.join(f'--layer {holder}' for holder in holders)} removes it there",
                layer.place.inside(path),
            )


def hidden_warnings(stack: LayerStack, edits: Edits) -> Iterator[str]:
    """Yield a warning for each addition that stays hidden below another layer of ``stack``."""
    trees = [(upper, upper.tree()) for upper in stack.upper]
    for node, action in edits.additions:
        if node.kind is NodeKind.DIRECTORY or action is Action.REMOVED:
            continue
        for upper, tree in trees:
            above = (tree.get(path) for path in (*ancestors(node.path), node.path))
            if any(owner.kind is not NodeKind.DIRECTORY or owner.is_opaque for owner in above if owner is not None):
                yield (
                    f"{printable(node.path)} stays hidden in the running system: {format_address(upper.address)}, which"
                    " is mounted over this layer, has it too"
                )
                break


def removal_warnings(stack: LayerStack, edits: Edits) -> Iterator[str]:
    """Yield a warning for each layer of ``stack`` that shows, over the edited one, something of what is removed."""
    above = StackedTree([upper.tree() for upper in stack.upper])
    shown = [path for path in edits.removed if path in above] if stack.upper else []
    for upper in reversed(stack.upper):
        paths = [path for path in shown if path in upper.tree()]
        shown = [path for path in shown if path not in upper.tree()]
        if paths:
            address = format_address(upper.address)
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            yield (
                f"{printable(paths[0])}{more}: as far as {address} has it, which is mounted over this layer, it stays"
                f" in the running system; --layer {address} removes it there"
            )
