"""File systems on an image that become the root of the running system: squashfs and EROFS, which are edited; ext4.

An initramfs mounts such a file and leaves for it: live-boot ``live/*.squashfs`` (live-boot(7)), casper
``casper/*.squashfs``, dracut ``LiveOS/squashfs.img`` (dmsquash-live, dracut.cmdline(7)), archiso ``airootfs.sfs`` or
``.erofs``, and others under names of their own. So they are found by content, and names only say which are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cosremaster.errors import printable
from cosremaster.iso.model import SourceImage
from cosremaster.layers.formats import holds_format
from cosremaster.layers.identify import EROFS, EXT, SQUASHFS, STREAMED_SQUASHFS
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct

FILESYSTEMS = (SQUASHFS, STREAMED_SQUASHFS, EROFS, EXT)
"""The kinds of file systems that a root is found among, as :class:`ForeignFile` has them."""

_ROOT_ENDS = (b".squashfs", b".sfs", b".erofs", b".img", b".ext4")
_ROOT_NAME = lazy_regex(rb"(?:.*/)?(?:root|rootfs|filesystem|airootfs|live)[^/]*")

NESTED_ROOTS = (b"LiveOS/rootfs.img", b"LiveOS/ext3fs.img")
"""Files of a squashfs that dracut mounts as the root instead of it (dmsquash-live-root.sh)."""

INITRAMFS_ROOTS = (b"squash-root.img", b"squash/root.img", b"squashfs-root.img", b"erofs-root.img")
"""File systems in an initramfs that hold the rest of that alone (dracut, modules squash and squash-erofs)."""

_PARTS_OF_SYSTEMS = (b".snap", b".tcz", b".dotstar", b".verity", b".fec")
"""Ends of names: packages that a running system mounts beside its root."""

_MODLOOP = lazy_regex(rb"(?:.*/)?modloop[^/]*")
"""The kernel modules of Alpine, whose root is made of packages in memory (mkinitfs, initramfs-init)."""

_INSTALLER_STAGE = lazy_regex(rb"(?:.*/)?install\.img|boot/[a-z0-9_]+/[a-z-]+")
"""The second stage of Anaconda, and openSUSE's, which linuxrc loads: what is meant for an installer goes before it."""

_STORES = lazy_regex(rb"(?:.*/)?(?:casper-rw|home-rw|live-rw|persistence|writable|overlay-[^/]*)")
"""Where a live system writes (casper(7), live-boot(7))."""

_EXT_ROOT = lazy_regex(rb"(?:.*/)?(?:[^/]*root[^/]*|ext[234]fs[^/]*|filesystem[^/]*)")
"""An ext2, ext3 or ext4 file system of another name is somebody's disk."""


class ForeignFile(Struct, frozen=True):
    """A file of the image that is recognized and is no layer; ``noun``: what it is, for people."""

    path: bytes
    noun: str

    def __str__(self) -> str:
        """Return path and kind, as in ``live/filesystem.squashfs (a squashfs file system)``."""
        return f"{printable(self.path)} ({self.noun})"


PURPOSES = {
    "roots": "root of the running system",
    "stages": "second stage of an installer",
    "modules": "kernel modules",
    "others": "no root of a system",
}
"""By the field of :class:`SystemImages`, for people."""


class SystemImages(Struct, frozen=True):
    """The file systems on an image, by what becomes of them.

    ``roots``: of the running system, all of them where it stacks several; ``stages``: of an installer that is started
    from the initramfs; ``modules``: kernel modules of a system that is put together in memory from packages on the
    image; ``others``.
    """

    roots: tuple[ForeignFile, ...] = ()
    stages: tuple[ForeignFile, ...] = ()
    modules: tuple[ForeignFile, ...] = ()
    others: tuple[ForeignFile, ...] = ()

    def by_purpose(self) -> Iterator[tuple[ForeignFile, str]]:
        """Yield each file with its purpose, for people, in the order of paths."""
        pairs = ((file, noun) for field, noun in PURPOSES.items() for file in getattr(self, field))
        yield from sorted(pairs, key=lambda pair: pair[0].path)


def is_root_name(path: bytes) -> bool:
    """Return whether a file ``path`` inside an archive is called as the root file system of a live system is."""
    return path.endswith(_ROOT_ENDS) and _ROOT_NAME.fullmatch(path) is not None


def sort_system_images(image: SourceImage, files: Sequence[ForeignFile]) -> SystemImages:
    """Return the file systems among ``files`` of ``image`` by what becomes of them."""
    sorted_files: dict[str, list[ForeignFile]] = {"roots": [], "stages": [], "modules": [], "others": []}
    filesystems = [file for file in files if file.noun in FILESYSTEMS or holds_format(file.noun)]
    stage = _named_stage(image) if filesystems else None
    for file in filesystems:
        sorted_files["roots" if image.volume is None else _purpose(file, stage)].append(file)
    return SystemImages(**{purpose: tuple(found) for purpose, found in sorted_files.items()})


def _purpose(file: ForeignFile, stage: bytes | None) -> str:
    """Return the field of :class:`SystemImages` for ``file``; ``stage``: the installer's second stage by name."""
    path = file.path.lower()
    if file.path == stage or _INSTALLER_STAGE.fullmatch(path):
        return "stages"
    if _MODLOOP.fullmatch(path):
        return "modules"
    if path.endswith(_PARTS_OF_SYSTEMS) or _STORES.fullmatch(path):
        return "others"
    return "others" if file.noun == EXT and not _EXT_ROOT.fullmatch(path) else "roots"


def _named_stage(image: SourceImage) -> bytes | None:
    """Return the path that ``.treeinfo`` gives for an installer's second stage (productmd, key ``mainimage``)."""
    for file in image.files:
        if file.path in (b".treeinfo", b"treeinfo") and file.size <= 1 << 20:
            match = re.search(rb"^mainimage\s*=\s*(\S+)", image.bytes_of(file).read(), re.MULTILINE)
            if match is not None:
                return match[1].lstrip(b"/")
    return None
