"""An image while it is used: the file that is open, what was read of it, and how an address leads to a node in it."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cosremaster.errors import LayerError, printable
from cosremaster.io.urls import ImagePath, Url, parse_image_place
from cosremaster.layers.scan import ScanOptions
from cosremaster.lazy_path import make_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from typing_extensions import Unpack

    from cosremaster.browse.container import Container, NodeRef
    from cosremaster.io.source import ByteSource
    from cosremaster.layers.address import Address
    from cosremaster.layers.find import ImageLayers
    from cosremaster.layers.kept_plain import PlainKeeper
    from cosremaster.layers.member_files import Keepers
    from cosremaster.layers.model import Layer
    from cosremaster.progress import Progress
    from cosremaster.remastering.image import OpenedImage


class ImageSession:
    """What :class:`Image` works with: parts of the image are read when they are needed, once, for all threads.

    ``closing`` is closed with the image. The options are those of :class:`Image`.
    """

    def __init__(
        self, path: ImagePath, *, remember: bool, check_index: bool, max_expand: int, progress: Progress | None = None
    ) -> None:
        """Remember the path or URL and the options; nothing is read yet."""
        self.place = parse_image_place(path)
        self.remember, self.check_index, self.max_expand = remember, check_index, max_expand
        self.progress = progress
        self.closing = ExitStack()
        self._lock = threading.RLock()
        self._source: ByteSource | None = None
        self._containers: dict[Address, tuple[Container, int]] = {}
        self._opened: OpenedImage | None = None

    @property
    def path(self) -> Path | Url:
        """The path of the image, or its URL."""
        return self.place if isinstance(self.place, Url) else make_path(self.place)

    @property
    def opened(self) -> OpenedImage:
        """The image with its structures read."""
        with self._lock:
            if self._opened is None:
                from cosremaster.remastering.image import OpenedImage  # noqa: PLC0415 - browsing needs none of it

                opened = OpenedImage(
                    self.place, remember=self.remember, check_index=self.check_index, max_expand=self.max_expand
                )
                self._opened = self.closing.enter_context(opened)
            return self._opened

    @property
    def source(self) -> ByteSource:
        """The image as bytes."""
        with self._lock:
            if self._source is None:
                from cosremaster.io.source import open_source  # noqa: PLC0415 - a remaster opens it by itself

                self._source = self.closing.enter_context(open_source(self.place))
            return self._source

    def choose_layer(self, image_layers: ImageLayers, layer: str | None) -> tuple[Layer | None, str]:
        """Return the layer that additions go to; None and the reason where there is none."""
        from cosremaster.layers.find import choose_layer  # noqa: PLC0415 - browsing needs none of it

        opened = self.opened
        try:
            address = None if layer is None else opened.address_in(layer)
            return choose_layer(opened.image, image_layers, address, opened.facts), ""
        except LayerError as error:
            return None, error.message

    def parse_address(self, address: str) -> Address:
        """Return ``address`` in this image as the parts of a path through its containers.

        :raises LayerError: it begins with ``@root``, and there is no root file system, or several.
        """
        from cosremaster.layers.address import ROOT_NAME, parse_address  # noqa: PLC0415 - a remaster needs none

        parts: Address = parse_address(address) if address else ()
        if address.partition("::")[0] != ROOT_NAME:
            return parts
        layer, inside = self.find_root()
        if layer is not None and self.progress is not None:
            from cosremaster.layers.stacks import list_paths_below  # noqa: PLC0415 - the same

            below = list_paths_below(self.opened.image, layer, self.opened.facts)
            if below:
                names = _join_names((*below, layer.address[0]))
                self.progress.warn(f"the root is {names}, the last on top: {ROOT_NAME} is the last alone")
        return (*inside, *parts[1:])

    def find_root(self, keeper: PlainKeeper | None = None) -> tuple[Layer | None, Address]:
        """Return the root file system and its address inside the image; None where it can be read and not changed.

        ``keeper``: keeps plain bytes that are decoded for it.

        :raises LayerError: there is none, or there are several.
        """
        from cosremaster.layers.find import UnchangedRootError, choose_layer  # noqa: PLC0415 - a remaster needs none of it

        opened = self.opened
        try:
            layer = choose_layer(opened.image, opened.layers(None, self.progress, keeper=keeper), None, opened.facts)
        except UnchangedRootError as error:
            if not error.address:
                raise
            return None, error.address
        return layer, self._address_inside(layer)

    def _address_inside(self, layer: Layer) -> Address:
        """Return the address inside the image of all that the file of ``layer`` unpacks to."""
        from cosremaster.layers.address import without_numbers  # noqa: PLC0415 - a remaster needs none of it

        address = without_numbers(layer.address)
        return address[1:] if self.opened.image.is_single_file else address

    def enter_merged_root(self, layer: Layer, warn: Callable[[str], None]) -> NodeRef | None:
        """Return the root directory of what ``layer``, the root, and the file systems below it show together.

        None where there are none below. ``warn`` is told of them.

        :raises UnsupportedError: one of them cannot be read.
        """
        from cosremaster.browse import container as containers  # noqa: PLC0415 - a remaster needs none
        from cosremaster.layers.stacks import find_stack  # noqa: PLC0415 - the same

        lower = find_stack(self.opened.image, layer, self.opened.facts).lower
        if not lower:
            return None
        stack = (*lower, layer)
        names = _join_names(part.address[0] for part in stack)
        warn(f"the root is {names}, the last on top: the archive has what they show together")
        address = (os.fsencode(self.source.name), *self._address_inside(layer))
        return containers.container_of_stack(stack, address, self.opened.image.place).root

    def enter_root(self, keeper: PlainKeeper, warn: Callable[[str], None]) -> NodeRef:
        """Return the root directory of the root file system; where it was indexed, that is not done again.

        Of a stack of file systems it is that of :meth:`enter_merged_root`. ``keeper``: keeps plain bytes that are
        decoded for it.
        """
        from cosremaster.browse import container as containers  # noqa: PLC0415 - a remaster needs none
        from cosremaster.layers.address import ROOT_NAME  # noqa: PLC0415 - the same

        layer, address = self.find_root(keeper)
        if layer is None:
            return self.enter_tree(ROOT_NAME)
        merged = self.enter_merged_root(layer, warn)
        if merged is not None:
            return merged
        own = os.fsencode(self.source.name)
        container = containers.container_of(layer, (own, *address))
        if container is None:
            return self.enter(ROOT_NAME)
        return containers.NodeRef(container, containers.ROOT)

    def find(self, address: str, *, follow: bool = True, enters: bool = False, **keepers: Unpack[Keepers]) -> NodeRef:
        """Return the node at ``address``; ``keepers`` keep what is decoded on the way.

        ``enters``: the root of the archive, if it is one.
        """
        from cosremaster.browse import container as containers  # noqa: PLC0415 - a remaster needs none

        parts, members = self.parse_address(address), keepers.get("members")
        options = containers.ALONE._replace(max_expand=self.max_expand, progress=self.progress, **keepers)
        inner = parts if enters else parts[:-1]
        with self._lock:
            way = containers.open_once(self._containers, self.source, parts, options, inner)
        node = containers.follow(*way, last=follow, inner=inner, members=members)
        return containers.enter_if_container(node, members=members) if enters else node

    def enter(self, address: str, *, follow: bool = True, **keepers: Unpack[Keepers]) -> NodeRef:
        """Return the node at ``address``, or the root of the archive that it is; ``keepers`` as in :meth:`find`."""
        return self.find(address, follow=follow, enters=True, **keepers)

    def enter_tree(self, address: str, **keepers: Unpack[Keepers]) -> NodeRef:
        """Return the directory at ``address``, or the root of the archive that it is; ``keepers`` as in :meth:`find`.

        :raises LayerError: a file is there that is no archive. :raises UnsupportedError: its kind cannot be opened.
        """
        from cosremaster.browse import container as containers  # noqa: PLC0415 - a remaster needs none
        from cosremaster.tree.nodes import NodeKind  # noqa: PLC0415 - the same

        reference = self.enter(address, **keepers)
        if reference.node.kind is NodeKind.DIRECTORY:
            return reference
        return containers.NodeRef(containers.enter(reference.container, reference.node), containers.ROOT)

    def open_side(self, address: str, beside: Container | None = None) -> NodeRef:
        """Return the node at ``address`` for a comparison, in containers that know digests."""
        from cosremaster.browse.container import enter_if_container, follow, open_container  # noqa: PLC0415 - a remaster needs none

        options = ScanOptions(digests=True, nesting=0, edits=False, max_expand=self.max_expand, progress=self.progress)
        parts = self.parse_address(address)
        return enter_if_container(follow(*open_container(self.source, parts, options, beside)), beside)


def _join_names(paths: Iterable[bytes]) -> str:
    """Return ``paths`` for people."""
    return ", ".join(map(printable, paths))
