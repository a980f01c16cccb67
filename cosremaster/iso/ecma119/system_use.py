"""What stands in front of other fields in the system use area of a directory record (9.1.13): CD-ROM XA, as a rule.

The System Description CD-ROM XA (Philips and Sony, 1991) has 14 bytes there: group and user id, attributes, the
signature XA, a file number, and five reserved bytes; numbers are big-endian. Readers know by the signature to skip it.
"""

from __future__ import annotations

from cosremaster.records import Struct

XA_SIZE = 14
_SIGNATURE = slice(6, 8)
_ATTRIBUTES = slice(4, 6)
_FORM_1, _DIRECTORY = 0x0800, 0x8000
_PERMISSIONS = ((0o400, 0), (0o100, 2), (0o040, 4), (0o010, 6), (0o004, 8), (0o001, 10))
"""Bits of a mode, and the number of the attribute's bit that says the same."""


class SystemUsePrefix(Struct, frozen=True):
    """The first bytes of each system use area of a tree. ``sample``: those of the root's ``.``."""

    sample: bytes

    @classmethod
    def from_area(cls, area: bytes, skip: int | None) -> SystemUsePrefix:
        """Return the prefix that the system use ``area`` of the root's ``.`` shows.

        :param skip: how many bytes of each area SUSP skips (LEN_SKP, SUSP 5.3); None without SUSP.
        """
        is_xa = len(area) >= XA_SIZE and area[_SIGNATURE] == b"XA"
        return cls(area[: XA_SIZE * is_xa if skip is None else skip])

    @property
    def is_xa(self) -> bool:
        """Whether the areas begin with an XA record."""
        return len(self.sample) >= XA_SIZE and self.sample[_SIGNATURE] == b"XA"

    def make(self, mode: int, uid: int, gid: int, *, is_directory: bool) -> bytes:
        """Return the first bytes of a new area.

        :param mode: the permission bits of the file.
        """
        if not self.is_xa:
            return self.sample
        attributes = 0
        if any(self.sample[_ATTRIBUTES]):  # pycdlib leaves them empty
            attributes = _FORM_1 | _DIRECTORY * is_directory
            attributes |= sum(1 << bit for mask, bit in _PERMISSIONS if mode & mask)
        numbers = b"".join((number & 0xFFFF).to_bytes(2, "big") for number in (gid, uid, attributes))
        return numbers + self.sample[6:]
