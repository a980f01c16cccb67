"""POSIX ACLs as setxattr(2) takes them: linux/posix_acl_xattr.h, acl(5)."""

from __future__ import annotations

import errno
import os
import struct

from cosremaster.records.tuples import NamedTuple

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_OWNER, _USER, _OWNER_GROUP, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


class AclEntry(NamedTuple):
    """Who (a tag, and for named users and groups an id) may do what."""

    tag: int
    permissions: int
    identity: int


def read_acl(value: bytes) -> list[AclEntry]:
    """Return the entries of an ACL.

    :raises OSError: it is none, as the kernel finds (EINVAL; EOPNOTSUPP for another version).
    """
    if len(value) < _VERSION.size or (len(value) - _VERSION.size) % _ENTRY.size:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if _VERSION.unpack_from(value)[0] != 2:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    entries = [AclEntry(*fields) for fields in _ENTRY.iter_unpack(value[_VERSION.size :])]
    tags = [entry.tag for entry in entries]
    is_sound = all(tags.count(tag) == 1 for tag in (_OWNER, _OWNER_GROUP, _OTHER)) and tags.count(_MASK) <= 1
    has_mask_where_due = _MASK in tags or not {_USER, _GROUP} & set(tags)
    if not is_sound or not has_mask_where_due or any(entry.permissions > 0o7 for entry in entries):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return entries


def names_other_ids(entries: list[AclEntry]) -> bool:
    """Tell whether an entry is for a user or group beside 0, the only id there is in a single-id namespace."""
    return any(entry.tag in (_USER, _GROUP) and entry.identity != 0 for entry in entries)


def _mode_tags(entries: list[AclEntry]) -> dict[int, int]:
    """Return which tag stands for which bits of the mode: the mask, where there is one, for those of the group."""
    has_mask = any(entry.tag == _MASK for entry in entries)
    return {_OWNER: 6, (_MASK if has_mask else _OWNER_GROUP): 3, _OTHER: 0}


def mode_of_acl(entries: list[AclEntry]) -> int:
    """Return the nine permission bits that a file with this access ACL has."""
    shifts = _mode_tags(entries)
    return sum(entry.permissions << shifts[entry.tag] for entry in entries if entry.tag in shifts)


def renew_acl(value: bytes, mode: int) -> bytes:
    """Return an access ACL as chmod(2) to ``mode`` leaves it."""
    entries = read_acl(value)
    shifts = _mode_tags(entries)
    renewed = [
        entry._replace(permissions=mode >> shifts[entry.tag] & 0o7) if entry.tag in shifts else entry
        for entry in entries
    ]
    return _VERSION.pack(2) + b"".join(_ENTRY.pack(*entry) for entry in renewed)
