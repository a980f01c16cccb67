"""Tell of the MD5 tags that xorriso wrote into an image: they become untrue."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.boot.checksum_tags import read_checksum_tags
from cosremaster.iso.model import IsoImage
from cosremaster.units import Lba


def warn_of_checksum_tags(image: IsoImage) -> Iterator[str]:
    """Yield a warning if ``image``, which changes, has MD5 tags: they stay, as do those of its files."""
    if any(True for _ in read_checksum_tags(image.source.read, frozenset({Lba(0), image.session_lba}))):
        yield (
            "xorriso wrote MD5 tags into the image (-md5), and they stay those of the old one: xorriso -md5 on refuses"
            " the new image, and reads it with -md5 off"
        )
