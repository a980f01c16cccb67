"""What a page is made of."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from cosremaster.browse.compare import Difference
from cosremaster.errors import UsageError
from cosremaster.iso.model import SourceImage
from cosremaster.layers.address import Address, parse_address, without_numbers
from cosremaster.layers.model import Layer
from cosremaster.reports.html.treemap import Weight
from cosremaster.verification.finding import Level, Report


class Side(Struct, frozen=True, kw_only=True):
    """An image, by the ``name`` of its file, with its layers; ``chosen``: the root filesystem, where there is one."""

    name: str
    image: SourceImage
    layers: tuple[Layer, ...]
    chosen: Layer | None

    @property
    def layered(self) -> frozenset[bytes]:
        """Paths of the files that hold layers."""
        return frozenset(layer.address[0] for layer in self.layers)

    def inner(self, address: Address) -> Address:
        """``address`` without the name of the file itself where there is no ISO around it."""
        return address[1:] if self.image.volume is None else address


class Facts(Struct, frozen=True, kw_only=True):
    """``old``: the image that ``new`` was made from, with how the two differ. ``verified``: None for what is no ISO.

    ``mapped``: the files of the root filesystem, or of the ISO's own tree where ``new`` has no layer.
    """

    new: Side
    old: Side | None
    differences: tuple[Difference, ...]
    verified: Report | None
    mapped: Iterable[Weight]

    @property
    def changed(self) -> frozenset[bytes]:
        """Paths that are new or hold something else, in the file system that ``mapped`` is of."""
        chosen = self.new.chosen
        above = () if chosen is None else without_numbers(self.new.inner(chosen.address))
        found = (where(one) for one in self.differences if one.what in ("added", "type", "content"))
        return frozenset(address[-1] for address in found if address and address[:-1] == above)


def where(one: Difference) -> Address:
    """The address of ``one``, empty for a boot record's or the image's own."""
    try:
        return () if one.what == "boot" or not one.where else parse_address(one.where)
    except UsageError:
        return ()


def pointers_alone(
    image: SourceImage, differences: Iterable[Difference], verified: Report | None
) -> frozenset[Address]:
    """Of ``differences`` in files that boot records lead to, those that are nothing but pointers written anew.

    The boot catalog and boot images hold block numbers; that the rest is equal, the comparison with the original
    found (``against.boot``).
    """
    volume = image.volume
    if (
        volume is None
        or verified is None
        or any(one.check == "against.boot" and one.is_counted for one in verified.findings)
    ):
        return frozenset()
    equal = any(one.check == "against.boot" and one.level is Level.HOLDS for one in verified.findings)
    paths = {boot.path for boot in volume.boot_images} if equal else set()
    if volume.catalog is not None:
        paths |= {file.path for file in volume.files if file.start == volume.catalog.lba}
    return frozenset(
        address for one in differences if one.what == "content" and len(address := where(one)) == 1
        and address[0] in paths
    )  # fmt: skip
