"""What may stand in a place of the command line that a shell completes: files, and what is inside images.

Nothing here prints, and nothing is fetched from other machines. What cannot be read has no candidates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from click.shell_completion import CompletionItem

from cosremaster.api.image import Image
from cosremaster.boot.fat import parse_bpb
from cosremaster.browse.container import container_of
from cosremaster.errors import CosremasterError
from cosremaster.io.source import ByteSource, open_source
from cosremaster.io.urls import is_url, split_image_path
from cosremaster.iso.read import has_volume
from cosremaster.layers.address import ROOT_NAME, format_address, parse_address
from cosremaster.layers.identify import identify
from cosremaster.remastering.image import OpenedImage
from cosremaster.tree.nodes import NodeKind
from cosremaster.units import SECTOR

FINAL, PARTIAL = "plain", "partial"
"""Types of candidates: behind one of the second there may be more, so that no space follows."""

SEPARATOR = "::"


def list_files(text: str, *, folders_only: bool = False) -> list[CompletionItem]:
    """Return the files and folders of this machine whose paths begin with ``text``, as it is spelled."""
    folder, slash, start = text.rpartition("/")
    try:
        entries = sorted(os.scandir(os.path.expanduser(folder + slash) or "."), key=lambda entry: entry.name)
    except OSError:
        return []
    items = []
    for entry in entries:
        if not entry.name.startswith(start) or (entry.name.startswith(".") and not start.startswith(".")):
            continue
        if not entry.name.isprintable():  # a name that no line can hold
            continue
        if _is_folder(entry):
            items.append(CompletionItem(f"{folder}{slash}{entry.name}/", PARTIAL))
        elif not folders_only:
            items.append(CompletionItem(f"{folder}{slash}{entry.name}", FINAL))
    return items


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether ``entry`` is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def list_addresses(text: str) -> list[CompletionItem]:
    """Return the addresses that begin with ``text``: files of this machine, then what is inside an image."""
    image, separator, rest = split_image_path(text)
    if is_url(text) or image == "-":
        return []
    if not separator:
        return _with_ways_in(list_files(text), lambda item: _is_image(item.value))
    return [
        CompletionItem(f"{image}{SEPARATOR}{item.value}", item.type) for item in list_inside(_local_path(image), rest)
    ]


def list_inside(path: str, text: str) -> list[CompletionItem]:
    """Return the addresses inside the image at ``path`` that begin with ``text``."""
    if is_url(path) or path == "-":
        return []
    outer, separator, last = text.rpartition(SEPARATOR)
    folder, slash, start = last.rpartition("/")
    before = f"{outer}{separator}{folder}{slash}"
    parent = f"{outer}{separator}{folder}" if folder else outer
    items = []
    try:
        with Image(path) as image:
            for name, is_folder in _list_directory(image, outer, folder, parent):
                spelled = format_address((name,))
                if spelled.startswith(start):
                    items.append(CompletionItem(f"{before}{spelled}{'/' * is_folder}", PARTIAL if is_folder else FINAL))
            if not before and start and ROOT_NAME.startswith(start):
                items.append(CompletionItem(f"{ROOT_NAME}{SEPARATOR}", PARTIAL))
            if len(items) == 1 and items[0].type == FINAL and _is_directory(image, items[0].value):
                return [CompletionItem(f"{items[0].value}/", PARTIAL)]
            return _with_ways_in(items, lambda item: _is_archive(image, item.value))
    except CosremasterError:
        return []


def _list_directory(image: Image, outer: str, folder: str, parent: str) -> Iterator[tuple[bytes, bool]]:
    """Yield the names in ``parent``, the directory ``folder`` in the container at ``outer``; and which are directories.

    What is in a layer comes from its index, which is made once and remembered: a shell asks at each key.

    Raises as reading a layer does.
    """
    if outer and outer != ROOT_NAME:
        with OpenedImage(image.path) as opened:
            own = (os.fsencode(image.path.name),) if opened.image.is_single_file else ()
            address = (*own, *parse_address(outer))
            layer = next((layer for layer in opened.layers().layers if layer.address == address), None)
            container = None if layer is None else container_of(layer, address)
            if container is not None:
                path = container.resolve(parse_address(folder)[0] if folder else b"", last=True)
                for name in container.list_names(path):
                    node = container.node(name)
                    if node is not None:
                        yield name.rpartition(b"/")[2], node.kind is NodeKind.DIRECTORY
                return
    if image.names(parent):  # else it is empty, or a file
        for entry in image.ls(parent):
            yield entry.name, entry.type == "directory"


def _with_ways_in(items: Iterable[CompletionItem], leads_in: Callable[[CompletionItem], bool]) -> list[CompletionItem]:
    """Return ``items``; where that is a file alone, the way into it too, if there is one."""
    every = list(items)
    if len(every) == 1 and every[0].type == FINAL and leads_in(every[0]):
        name = every[0].value
        return [CompletionItem(name, PARTIAL), CompletionItem(f"{name}{SEPARATOR}", PARTIAL)]
    return every


def _local_path(image: str) -> str:
    """Return the path of the image that an address begins with ``image``, as the shell would spell it."""
    return os.path.expanduser(image)


def _is_image(path: str) -> bool:
    """Return whether there is something inside the file at ``path``, by its first bytes."""
    try:
        with open_source(os.path.expanduser(path)) as source:
            return has_volume(source) or identify(partial(source.read, 0)).format is not None or _is_disk(source)
    except CosremasterError:
        return False


def _is_disk(source: ByteSource) -> bool:
    """Return whether ``source`` is a disk with partitions. Raises as reading its table does."""
    from cosremaster.disk.image import read_disk_image  # noqa: PLC0415 - few images are disks

    return read_disk_image(source) is not None


def _is_directory(image: Image, address: str) -> bool:
    """Return whether a directory is at ``address``, or a symlink to one."""
    try:
        return image.stat(address, follow=True).type == "directory"
    except CosremasterError:
        return False


def _is_archive(image: Image, address: str) -> bool:
    """Return whether there is something inside the file at ``address``, by its first bytes."""
    try:
        head = next(image.chunks(address), b"")
    except CosremasterError:
        return False
    bpb = parse_bpb(head[:SECTOR]) if head[:1] in (b"\xeb", b"\xe9") else None  # a jump
    return bpb is not None or identify(lambda count: head[:count]).format is not None
