"""The facts that a page shows."""

from __future__ import annotations

from collections.abc import Iterable

from cosremaster.browse.compare import Difference
from cosremaster.errors import UsageError
from cosremaster.iso.model import SourceImage
from cosremaster.layers.address import Address, format_address, parse_address, without_numbers
from cosremaster.layers.model import Layer
from cosremaster.layers.stacks import MountedRoot
from cosremaster.records import Struct
from cosremaster.reports.html.treemap import Weight
from cosremaster.verification.finding import Level, VerificationReport


class Side(Struct, frozen=True, kw_only=True):
    """An image with the name of its file and its layers.

    ``chosen`` is the root file system, if there is one; ``mounted``: what the running system mounts as its root.
    """

    name: str
    image: SourceImage
    layers: tuple[Layer, ...]
    chosen: Layer | None
    mounted: MountedRoot | None = None

    @property
    def layered(self) -> frozenset[bytes]:
        """Paths of the files that hold layers."""
        return frozenset(layer.address[0] for layer in self.layers)

    def inner(self, address: Address) -> Address:
        """Return ``address`` without its first part where that is the file itself (an initramfs without an ISO around
        it).
        """
        return address[1:] if self.image.is_single_file else address


class Facts(Struct, frozen=True, kw_only=True):
    """Two images and what is known of them.

    ``old`` is the image that ``new`` was made from, with the ``differences`` between them. ``verified`` is None for an
    image without a volume. ``mapped`` are the files of the root file system, or of the ISO's own tree where ``new`` has
    no layer.
    """

    new: Side
    old: Side | None
    differences: tuple[Difference, ...]
    verified: VerificationReport | None
    mapped: Iterable[Weight]

    @property
    def changed(self) -> frozenset[bytes]:
        """The paths that are new or hold other bytes, in the file system that ``mapped`` shows."""
        chosen = self.new.chosen
        above = () if chosen is None else without_numbers(self.new.inner(chosen.address))
        addresses = (
            where(difference) for difference in self.differences if difference.what in ("added", "type", "content")
        )
        return frozenset(address[-1] for address in addresses if address and address[:-1] == above)


def where(difference: Difference) -> Address:
    """Return the address of ``difference``: empty for a boot record's or the image's own.

    Empty too where the text would be read as another file's: hostile images have names like ``.`` in a folder.
    """
    try:
        address = () if difference.what == "boot" or not difference.where else parse_address(difference.where)
    except UsageError:
        return ()
    return address if format_address(address) == difference.where else ()


def pointers_alone(
    image: SourceImage, differences: Iterable[Difference], verified: VerificationReport | None
) -> frozenset[Address]:
    """Return the addresses of boot files in which nothing but block numbers differs.

    The boot catalog and boot images hold block numbers. That all other bytes are equal was checked by the comparison
    with the original (``against.boot``).
    """
    volume = image.volume
    if (
        volume is None
        or verified is None
        or any(item.check == "against.boot" and item.is_counted for item in verified.findings)
    ):
        return frozenset()
    equal = any(item.check == "against.boot" and item.level is Level.HOLDS for item in verified.findings)
    paths = {boot.path for boot in volume.boot_images} if equal else set()
    if volume.catalog is not None:
        paths |= {file.path for file in volume.files if file.start == volume.catalog.lba}
    return frozenset(
        address for item in differences if item.what == "content" and len(address := where(item)) == 1
        and address[0] in paths
    )  # fmt: skip
