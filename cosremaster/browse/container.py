"""Containers, and the way along an address: the image, an archive in it, an archive in that archive."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from cosremaster.browse.names import Names, group_names, walk_names
from cosremaster.codecs import unsupported_compression
from cosremaster.errors import ImageError, LayerError, Place, UnsupportedError, UsageError, printable
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import ByteSource
from cosremaster.io.urls import Url, is_url, parse_image_place, split_image_path
from cosremaster.layers.address import Address, archive_number, format_address, number_part, parse_address
from cosremaster.layers.container_heads import FAT_JUMPS, identify_container
from cosremaster.layers.formats import format_names
from cosremaster.layers.identify import HEAD_SIZE, Identification, identify_partition, identify_table
from cosremaster.layers.model import IndexedFile, Layer, build_layers, index_file
from cosremaster.layers.scan import NESTING, ScanOptions
from cosremaster.lazy_log import LazyLogger
from cosremaster.lazy_regex import lazy_regex
from cosremaster.progress import DECODE, begin_work
from cosremaster.records import Struct, replace
from cosremaster.tree.nodes import ListedTree, Node, NodeKind, RootedTree, Row, resolve_links, row_of
from cosremaster.tree.paths import SymlinkLoopError
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR

if TYPE_CHECKING:
    from cosremaster.iso.model import IsoImage
    from cosremaster.layers.member_files import MemberFiles, MemberKeeper

_LOG = LazyLogger(__name__)

AREA = lazy_regex(rb"@(gpt|mbr|apm|eltorito)[0-9]+", re.IGNORECASE)
"""The address of an area of the image that is no file: a partition, or a boot image without a name."""
ALONE = ScanOptions(digests=False, nesting=0, edits=False)
ROOT = Node(path=b"", kind=NodeKind.DIRECTORY, mode=0o755)


class Container:
    """A file system inside a file: an ISO 9660 tree, or the tree that the archives of one file unpack to.

    ``address`` leads to it; its first part is the image's own file. ``nodes`` are the container's nodes by path.
    ``options`` say how closely archives in it are read. ``image`` is the parsed image of an ISO 9660 container,
    ``layer`` the last archive of a file of archives. ``entered`` are the containers in it that addresses led through,
    by path and number. ``nested`` are archives in it by path that were indexed with it, and ``members`` its files that
    were looked at then. ``ignores_case``: names in other letters are found too, as in a FAT file system.
    """

    def __init__(
        self, address: Address, place: Place, kind: str, nodes: Mapping[bytes, Node], effort: ScanOptions,
        image: IsoImage | None = None, list_paths: Callable[[], Iterable[bytes]] | None = None,
        layer: Layer | None = None, *, ignores_case: bool = False,
    ) -> None:  # fmt: skip
        """Create a container of ``nodes``, whose paths ``list_paths`` returns without reading them."""
        self._list_paths = list_paths
        self.ignores_case = ignores_case
        self.image = image
        self.layer = layer
        self.options = effort
        self.address = address
        self.place = place
        self.kind = kind
        self.nodes = nodes
        self.entered: dict[tuple[bytes, int | None], Container] = {}
        self.nested: Mapping[bytes, Layer] = {}
        self.members: MemberFiles | None = None
        self._names: Names | None = None
        self._folded: dict[str, bytes] | None = None
        _LOG.info("%s is read as %s", place, kind)

    def node(self, path: bytes) -> Node | None:
        """Return the node at exactly ``path``, or None.

        A directory that only the paths below it imply is a node too.
        """
        match = self.own_node(path)
        if match is None and not path:
            return ROOT
        if match is None and not isinstance(self.nodes, ListedTree) and path in self._children():
            return replace(ROOT, path=path)
        return match

    def own_node(self, path: bytes) -> Node | None:
        """Return the node at exactly ``path``, None where there is none, or where paths below it imply it."""
        match = self.nodes.get(path)
        if not path and (match is None or match.kind is not NodeKind.DIRECTORY):
            return self.nodes.read_root() if isinstance(self.nodes, RootedTree) else None
        return match

    @property
    def root(self) -> NodeRef:
        """The root."""
        root = self.node(b"")
        assert root is not None
        return NodeRef(self, root)

    def list_names(self, path: bytes) -> list[bytes]:
        """Return the paths in the directory ``path``, sorted."""
        if isinstance(self.nodes, ListedTree):
            return list(self.nodes.list_directory(path))
        return self._children().get(path, [])

    def _children(self) -> Names:
        """Return the paths in each directory, grouped once."""
        if self._names is None:
            self._names = group_names(self.nodes if self._list_paths is None else self._list_paths())
        return self._names

    def walk_below(self, path: bytes) -> Iterator[bytes]:
        """Yield every path below the directory ``path``, each directory before its content."""
        if isinstance(self.nodes, ListedTree):
            return self.nodes.walk_paths(path)
        return walk_names(self._children(), path)

    def walk_nodes(self, path: bytes, *, recursive: bool) -> Iterator[Node]:
        """Yield the nodes in the directory ``path``, sorted.

        ``recursive``: all below it, each directory before its content.
        """
        if recursive and isinstance(self.nodes, ListedTree):
            return self.nodes.walk_nodes(path)
        paths = self.walk_below(path) if recursive else self.list_names(path)
        return (node for node in map(self.node, paths) if node is not None)

    def walk_rows(self, path: bytes, *, recursive: bool) -> Iterator[Row]:
        """Yield what :meth:`walk_nodes` does, as rows."""
        if recursive and isinstance(self.nodes, ListedTree):
            return self.nodes.walk_rows(path)
        return map(row_of, self.walk_nodes(path, recursive=recursive))

    def resolve(self, path: bytes, *, last: bool) -> bytes:
        """Return ``path`` with symlinks followed as in a chroot, a symlink at its end only if ``last``.

        :raises LayerError: the symlinks form a loop.
        """

        if self.ignores_case:
            from cosremaster.boot.fat_names import fold_paths, spell_path  # noqa: PLC0415 - few addresses lead here

            self._folded = self._folded or fold_paths(self.nodes)
            path = spell_path(self._folded, path)
        try:
            return resolve_links(path, self.nodes.get, follow_last=last)
        except SymlinkLoopError as error:
            raise LayerError("symlinks lead in a loop", self.place.inside(path)) from error


class NodeRef(Struct, frozen=True):
    """A node at an address: the container, and the node by its path there."""

    container: Container
    node: Node

    @property
    def place(self) -> Place:
        """The place for messages."""
        return self.container.place.inside(self.node.path) if self.node.path else self.container.place

    @property
    def address(self) -> str:
        """The address as text that leads here again."""
        tail = (self.node.path,) if self.node.path else ()
        return format_address((*self.container.address, *tail))


def split_address(text: str) -> tuple[str | Url, Address]:
    """Split ``text``, as in ``in.iso::live.cgz::etc/hostname``, into the image's file and the address inside it.

    The file may be given by its URL, in which ``%`` is the URL's own.

    :raises UsageError: ``text`` is malformed.
    """
    first, separator, rest = split_image_path(text)
    if not first:
        raise UsageError(f"address {text!r} names no image")
    if not is_url(first):
        first = os.fsdecode(parse_address(os.fsencode(first).replace(b"/", b"%2F"))[0])
    return parse_image_place(first), parse_address(rest) if separator and rest else ()


def open_once(
    opened: dict[Address, tuple[Container, int]], source: ByteSource, address: Address, options: ScanOptions,
    inner: Collection[bytes] = (),
) -> tuple[Container, Address]:  # fmt: skip
    """Return what :func:`open_container` does; ``opened`` are the containers that it returned before."""
    own = address[:1] if address and archive_number(address[0]) is not None else ()
    if own not in opened:
        container, rest = open_container(source, address, options, inner=inner)
        opened[own] = container, len(address) - len(rest)
    container, used = opened[own]
    return container, address[used:]


def open_container(
    source: ByteSource, address: Address = (), options: ScanOptions = ALONE, beside: Container | None = None,
    inner: Collection[bytes] = (),
) -> tuple[Container, Address]:  # fmt: skip
    """Return the outermost container, recognized by the content of ``source``, and the rest of ``address``, which leads
    on in it.

    Where ``address`` begins with an archive's number, the container is that one of several concatenated archives.
    ``options`` say how closely archives are read. ``beside`` is an opened container that this one may be made from:
    bytes that both begin with are not read closely again. ``inner``: the archives in it that will be entered, which
    are indexed by the same reading.

    :raises ImageError: ``source`` is neither an ISO 9660 image nor an archive.
    :raises UnsupportedError: it is something else that is recognized.
    :raises LayerError: there are fewer archives than the number.
    """
    own = (os.fsencode(source.name),)
    identifier = source.read(FIRST_DESCRIPTOR * BLOCK + 1, 5)
    if identifier == b"CD001":
        from cosremaster.iso.lazy_nodes import LazyNodes  # noqa: PLC0415 - the same
        from cosremaster.iso.read import read_image  # noqa: PLC0415 - an initramfs of its own needs none of it

        image = read_image(source)
        nodes = LazyNodes(image, source)
        return Container(own, source.place, "ISO 9660", nodes, options, image, nodes.list_paths), address
    if identifier == b"BEA01":
        from cosremaster.iso.udf_alone import read_udf_nodes  # noqa: PLC0415 - the same

        return Container(own, source.place, "UDF", read_udf_nodes(source), options), address
    table = PieceTable([Range(source, 0, source.size)])
    number = archive_number(address[0]) if address else None
    inside = _open_archive(table, own, source.place, options, number, beside, inner)
    if inside is None and number is None:
        inside = _open_disk(source, own, options)
    if inside is None:
        foreign = identify_partition(table).foreign
        if foreign is not None:
            raise UnsupportedError(f"is {foreign}, which cannot be looked into", source.place)
        raise ImageError(f"is neither an ISO 9660 image nor a {format_names()} archive", source.place)
    return inside, address if number is None else address[1:]


def _open_disk(source: ByteSource, address: Address, options: ScanOptions) -> Container | None:
    """Return the container whose files are the partitions of the disk image in ``source``; None if it is none.

    :raises ImageError: its table of partitions is damaged.
    """
    from cosremaster.disk.image import read_disk_image  # noqa: PLC0415 - few images are disks
    from cosremaster.tree.content import PieceContent  # noqa: PLC0415 - the same

    disk = read_disk_image(source)
    if disk is None:
        return None
    nodes = {
        file.path: Node(path=file.path, kind=NodeKind.FILE, mode=0o444, content=PieceContent((piece,)))
        for file in disk.files
        for piece in disk.bytes_of(file).pieces
    }
    return Container(address, source.place, "disk", nodes, options)


def _open_archive(
    table: PieceTable, address: Address, place: Place, options: ScanOptions, number: int | None = None,
    beside: Container | None = None, inner: Collection[bytes] = (),
) -> Container | None:  # fmt: skip
    """Return the container that the bytes ``table`` hold, or the archive ``number`` of them; None if they hold none.

    ``inner``: as in :func:`open_container`.
    """
    identification = identify_table(table)
    if identification.format is None:
        if identification.foreign and number is None:
            raise UnsupportedError(f"is {identification.foreign}, which cannot be looked into", place)
        return None
    indexed = None
    if number is None and beside is not None and beside.layer is not None:
        from cosremaster.layers.shared import index_beside  # noqa: PLC0415 - only comparing needs it

        shared = index_beside(address[-1], table, identification, place, options, beside.layer)
        indexed = None if shared is None else shared.file
    closely, keeper = options, None if options.members is None else options.members.begin_file()
    if keeper is not None:
        closely = options._replace(members=keeper)
    elif inner and number is None and options.nesting == 0:
        closely = options._replace(nesting=NESTING, inner=frozenset(inner))
    if indexed is None:
        indexed = _index_file(address[-1], table, place, closely, identification)
    every = build_layers(indexed, table, place)
    layers = [layer for layer in every if layer.parent is None]
    members = None if keeper is None else keeper.list_files(layers)
    if number is None:
        container = Container(address, place, _describe_archives(layers), layers[-1].tree(), options, layer=layers[-1])
        container.nested = {layer.address[-1]: layer for layer in every if layer.parent is layers[-1]}
        container.members = members
        return container
    if number > len(layers):
        raise LayerError(f"has {len(layers)} archives, no #{number}", place)
    layer = replace(layers[number - 1], preceding=())
    part = number_part(number)
    container = Container((*address, part), place, _describe_archives([layer]), layer.tree(), options, layer=layer)
    container.members = members
    return container


def _index_file(
    path: bytes, table: PieceTable, place: Place, options: ScanOptions, identification: Identification
) -> IndexedFile:
    """Return what ``index_file`` does, and tell ``options.progress`` of it."""
    if options.progress is None or identification.reads_on_demand:
        return index_file(path, table, place, options, identification)
    with begin_work(
        options.progress, f"read {printable(path)}", table.length, DECODE, identification.codec.name
    ) as advance:
        return index_file(path, table, place, options, identification, advance)


def container_of(layer: Layer, address: Address, options: ScanOptions = ALONE) -> Container | None:
    """Return what ``layer``, which was indexed already, unpacks to; ``address`` leads to it.

    None where its file holds other archives too, or where it is a file system or in one: an address leads there.
    """
    outer: Layer | None = layer
    while outer is not None:
        if outer.format.random_access or outer.concatenation is not None:
            return None
        outer = outer.parent
    return Container(address, layer.place, _describe_archives([layer]), layer.tree(), options, layer=layer)


def container_of_stack(stack: Sequence[Layer], address: Address, place: Place) -> Container:
    """Return what the file systems ``stack``, the lowest first, show together; ``address`` leads to the uppermost."""
    from cosremaster.layers.stacks import MergedTree  # noqa: PLC0415 - few images have several

    tree = MergedTree([layer.tree() for layer in stack])
    return Container(address, place, f"{len(stack)} file systems", tree, ALONE, layer=stack[-1])


def _open_fat(table: PieceTable, address: Address, place: Place, options: ScanOptions) -> Container | None:
    """Return the container of the FAT file system that the bytes ``table`` hold; None if they hold none.

    :raises ImageError: it is damaged.
    """
    if table.read(0, 1) not in FAT_JUMPS:
        return None
    from cosremaster.boot.fat import Fat  # noqa: PLC0415 - few addresses lead into a FAT
    from cosremaster.iso.fats import read_fat_nodes  # noqa: PLC0415 - the same

    fat = Fat.open(table.read, table.length, place)
    if fat is None:
        return None
    return Container(address, place, f"FAT{fat.bpb.bits}", read_fat_nodes(fat, table), options, ignores_case=True)


def _describe_archives(layers: Sequence[Layer]) -> str:
    """Describe archives for people, as in ``cpio gzip``."""
    return ", ".join(f"{layer.format.name} {layer.codec_label}".removesuffix(" none") for layer in layers)


def is_container(node: Node, container: Container | None = None) -> bool:
    """Tell whether ``node`` is a file that holds an archive or a FAT file system, by its first bytes.

    They are not read where ``container``, which it is in, knows it.
    """
    content = node.content
    if node.kind is not NodeKind.FILE or content is None or not content.size:
        return False
    member = None if container is None or container.members is None else container.members.find(node)
    if member is not None:
        return member.is_container
    return identify_container(content.head, content.size) is not None


def enter(
    container: Container,
    node: Node,
    number: int | None = None,
    beside: Container | None = None,
    inner: Collection[bytes] = (),
    members: MemberKeeper | None = None,
) -> Container:
    """Return the container that the file ``node`` is, or its archive ``number``; ``beside`` as in
    :func:`open_container`, and ``inner`` too. ``members``: keeps the containers in it.

    :raises LayerError: the file is no container.
    :raises UnsupportedError: it is a container of a kind that cannot be opened.
    """
    place = container.place.inside(node.path)
    address = (*container.address, node.path)
    if node.content is None or not node.content.size:
        raise LayerError(f"is {_with_article(node.kind.noun)}, not an archive", place)
    layer = _find_nested(container, node) if number is None and beside is None else None
    if layer is not None:
        return Container(address, place, _describe_archives([layer]), layer.tree(), container.options, layer=layer)
    member = None if container.members is None else container.members.find(node)
    table = node.content.table() if member is None or member.kept is None else PieceTable([member.kept])
    options = container.options if members is None else container.options._replace(members=members)
    inside = _open_archive(table, address, place, options, number, beside, inner)
    if inside is None and number is None:
        inside = _open_fat(table, address, place, options)
    if inside is None:
        head = table.read(0, min(table.length, HEAD_SIZE))
        foreign = identify_partition(table).foreign
        if foreign is not None:
            raise UnsupportedError(f"is {foreign}, which cannot be looked into", place)
        packed = unsupported_compression(head)
        raise LayerError(f"is no archive{f' but {packed}' if packed else ''}", place)
    return inside


def _find_nested(container: Container, node: Node) -> Layer | None:
    """Return the archive that the file ``node`` is, where it was indexed with ``container``; else None."""
    layer = container.nested.get(node.path)
    if layer is None or node.content is None or layer.format.random_access:
        return None
    return layer if node.content.table().pieces == layer.packed.pieces else None  # a later entry may have its name


def _enter_once(
    container: Container, node: Node, number: int | None = None, inner: Collection[bytes] = (),
    members: MemberKeeper | None = None,
) -> Container:  # fmt: skip
    """Return what :func:`enter` does; a container that was entered before is not read again."""
    key = (node.path, number)
    if key not in container.entered:
        container.entered[key] = enter(container, node, number, inner=inner, members=members)
    return container.entered[key]


def _enter_area(container: Container, part: bytes) -> Container | None:
    """Return the FAT file system in the partition or boot image that ``part``, as in ``@gpt2``, means on an image.

    None where ``part`` is no such address.

    :raises LayerError: there is no such area, or it holds no FAT file system.
    """
    if container.image is None or not AREA.fullmatch(part) or container.node(part) is not None:
        return None
    from cosremaster.iso.fats import find_area, list_areas  # noqa: PLC0415 - few addresses lead there

    area = find_area(container.image, part)
    if area is None:
        known = ", ".join(printable(area.alias) for area in list_areas(container.image))
        raise LayerError(f"has no {printable(part)} (it has {known or 'no such areas'})", container.place)
    name, table = area
    if (part, None) not in container.entered:
        place = container.place.inside(name)
        inside = _open_fat(table, (*container.address, part), place, container.options)
        if inside is None:
            raise LayerError("holds no FAT file system", place)
        container.entered[part, None] = inside
    return container.entered[part, None]


def list_fat_areas(container: Container) -> dict[bytes, Container]:
    """Return the FAT file systems on an image that are no files of its tree, by address, without damaged ones."""
    if container.image is None:
        return {}
    from cosremaster.iso.fats import find_fats  # noqa: PLC0415 - only comparing needs it

    areas = dict[bytes, Container]()
    for alias in [fat.aliases[0] for fat in find_fats(container.image).fats if not fat.paths]:
        with suppress(ImageError):
            area = _enter_area(container, alias)
            if area is not None:
                areas[alias] = area
    return areas


def _with_article(noun: str) -> str:
    """Return ``noun`` with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def follow(
    top: Container, address: Address, *, last: bool = True, inner: Collection[bytes] = (),
    members: MemberKeeper | None = None,
) -> NodeRef:  # fmt: skip
    """Return the node at ``address`` in ``top``. Symlinks are followed, a symlink at the end only if ``last``.

    ``inner``: as in :func:`open_container`; ``members`` as in :func:`enter`.

    :raises LayerError: there is no such node, or a file on the way is no container.
    """
    container, node = top, None
    parts = list(address)
    while parts:
        part = parts.pop(0)
        number = archive_number(part)
        if number is not None:
            raise LayerError(f"#{number} must stand behind a file of several archives", container.place)
        area = _enter_area(container, part)
        if area is not None:
            container, node = area, None
            continue
        path = container.resolve(part, last=last or bool(parts))
        target = container.node(path)
        if target is None:
            from cosremaster.browse.suggest import suggest_path  # noqa: PLC0415 - only where a path is not there

            raise LayerError(f"has no {printable(part)}{suggest_path(container, path)}", container.place)
        node = target
        if parts and (number := archive_number(parts[0])) is not None:
            parts.pop(0)
            container = _enter_once(container, node, number, inner, members)
            node = None
        elif parts:
            container = _enter_once(container, node, inner=inner, members=members)
            node = None
    return container.root if node is None else NodeRef(container, node)


def enter_if_container(
    reference: NodeRef, beside: Container | None = None, members: MemberKeeper | None = None
) -> NodeRef:
    """Return the root of the container that ``reference`` is, or ``reference`` itself; ``beside`` as in
    :func:`open_container`, ``members`` as in :func:`enter`.
    """
    container, node = reference.container, reference.node
    if _find_nested(container, node) is None and not is_container(node, container):
        return reference
    try:
        if beside is None:
            inside = _enter_once(container, node, members=members)
        else:
            inside = enter(container, node, beside=beside)
    except ImageError:  # a damaged FAT file system is a plain file
        return reference
    return inside.root
