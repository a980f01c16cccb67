"""What a container of files can hold."""

from __future__ import annotations

from cosremaster.errors import Place, SizeError
from cosremaster.records.tuples import NamedTuple

MAX_NUMBER = 0xFFFFFFFF
"""Largest user id, group id, device number and mtime (seconds since 1970): Linux and newc have 32 bits for each."""


class Limits(NamedTuple):
    """What a file system or archive of one format can hold.

    ``container``: the format with its article, as in ``a cpio archive``; ``max_file_size``: bytes of one file.
    ``xattr_classes``: how the names of extended attributes begin that it holds, as in ``user.``; an empty one for all.
    """

    container: str
    max_file_size: int
    xattr_classes: tuple[bytes, ...] = ()

    def holds_xattr(self, name: bytes) -> bool:
        """Return whether an extended attribute called ``name`` can be held."""
        return name.startswith(self.xattr_classes)

    def check_file_size(self, size: int, place: Place) -> None:
        """Check that a file of ``size`` bytes fits.

        :raises SizeError: it does not.
        """
        if size > self.max_file_size:
            most = f"{(self.max_file_size + 1) >> 30} GiB - 1"
            raise SizeError(
                f"{size:,} bytes do not fit {self.container} ({most} at most); put the file on the ISO's own file tree"
                " instead (--add-iso)",
                place,
            )


ANY_LAYER = Limits("a layer of any format", 1 << 30)
"""What every format of layers holds: for what is read before one is chosen. No format is loaded for it."""
