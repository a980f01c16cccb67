"""The headers of CoreOS images at the end of the system area, which name places in files by bytes of the image.

``coreiso+`` names the area that an Ignition configuration is embedded in, ``coreKarg`` those of kernel arguments, and
their defaults (coreos-installer, src/live/embed.rs). Newer images have coreos/kargs.json and coreos/igninfo.json, which
count from the start of a file.
"""

from __future__ import annotations

import struct

from cosremaster.records import Struct

IGNITION, ARGUMENTS = b"coreiso+", b"coreKarg"
_IGNITION_OFFSET, _IGNITION_HEADER = 32_744, struct.Struct("<8sQQ")
_ARGUMENTS_OFFSET, _ARGUMENTS_HEADER = 32_672, struct.Struct("<8sQQ6Q")


class EmbedArea(Struct, frozen=True):
    """An area that a header names, in bytes of the image.

    :param name: what it is for.
    :param pointer_offset: the byte of the header's field, which holds ``start`` as 64 bits, little-endian.
    :param has_arguments: the area holds the kernel arguments of a boot menu.
    """

    name: str
    pointer_offset: int
    start: int
    length: int
    has_arguments: bool = False


def find_embed_areas(area: bytes) -> tuple[EmbedArea, ...]:
    """Return the areas that the headers in the system ``area`` name; none where there are no headers."""
    areas = list[EmbedArea]()
    for at in header_offsets(area):
        if at == _IGNITION_OFFSET:
            _, start, length = _IGNITION_HEADER.unpack_from(area, at)
            areas.append(EmbedArea("Ignition configuration", at + 8, start, length))
            continue
        _, length, default, *starts = _ARGUMENTS_HEADER.unpack_from(area, at)
        areas.append(EmbedArea("default kernel arguments", at + 16, default, length))
        used = starts[: starts.index(0)] if 0 in starts else starts
        areas += [
            EmbedArea(f"kernel arguments {number}", at + 16 + 8 * number, start, length, True)
            for number, start in enumerate(used, 1)
        ]
    return tuple(areas)


def header_offsets(area: bytes) -> dict[int, int]:
    """Return first byte and number of bytes of each header in the system ``area``."""
    headers = ((_ARGUMENTS_OFFSET, ARGUMENTS, _ARGUMENTS_HEADER), (_IGNITION_OFFSET, IGNITION, _IGNITION_HEADER))
    return {at: header.size for at, magic, header in headers if area[at : at + len(magic)] == magic}
