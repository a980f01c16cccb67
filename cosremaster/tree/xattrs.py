"""Extended attributes for people: file capabilities as getcap(8) shows them, other values as getfattr(1) does."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from cosremaster.errors import printable

CAPABILITY = b"security.capability"
ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
_PRIVATE = (b"trusted.overlay.", b"user.overlay.")
"""How the names begin that overlayfs gives for its own use in one layer; it copies none of them to another."""

_CAPABILITIES = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service"
    " net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin"
    " sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override"
    " mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
)
"""By number (include/uapi/linux/capability.h)."""

_REVISION, _EFFECTIVE = 0xFF000000, 1
_SIZES = {0x01000000: 12, 0x02000000: 20, 0x03000000: 24}
"""Bytes of each revision of a capability's value: the last has the user that is root in its namespace."""

_WITH_ROOT, _WITHOUT_ROOT = 0x03000000, 0x02000000

_MAX_SHOWN = 64
"""Bytes of a value that people see."""


def format_xattr(name: bytes, value: bytes) -> str:
    """Return the extended attribute ``name`` with its ``value`` for people, as in ``user.note="text"``."""
    return f"{printable(name)}={format_value(name, value)}"


def format_value(name: bytes, value: bytes) -> str:
    """Return the ``value`` of the extended attribute ``name`` for people: text in quotes, or hexadecimal digits."""
    capabilities = _format_capabilities(value) if name == CAPABILITY else None
    if capabilities is not None:
        return capabilities
    text = value.removesuffix(b"\0")  # labels of SELinux end in a zero byte
    more = f"... ({len(value):,} bytes)" if len(value) > _MAX_SHOWN else ""
    if text.isascii() and text.decode("latin-1").isprintable():
        return f'"{text[:_MAX_SHOWN].decode()}"{more}'
    return f"0x{value[:_MAX_SHOWN].hex()}{more}"


def _format_capabilities(value: bytes) -> str | None:
    """Return the file capabilities ``value`` as text, as in ``cap_net_raw=ep``; None where they are none."""
    head = int.from_bytes(value[:4], "little")
    if _SIZES.get(head & _REVISION) != len(value):
        return None
    words = struct.unpack(f"<{len(value) // 4 - 1}I", value[4:])
    permitted, inheritable = words[0], words[1]
    if len(words) >= 4:
        permitted, inheritable = permitted | words[2] << 32, inheritable | words[3] << 32
    known = _CAPABILITIES.split()
    groups: dict[str, list[str]] = {}
    for number in range(64):
        flags = "i" * (inheritable >> number & 1) + "p" * (permitted >> number & 1)
        if flags:
            name = f"cap_{known[number]}" if number < len(known) else str(number)
            groups.setdefault("e" * (head & _EFFECTIVE) + flags, []).append(name)
    text = " ".join(f"{','.join(names)}={flags}" for flags, names in groups.items()) or "="
    return text if len(words) < 5 else f"{text} [rootid={words[4]}]"


def capability_of_root(value: bytes) -> bytes:
    """Return the file capabilities ``value`` as root of the first user namespace would have set them.

    The third revision names the user that is root in a namespace, as the kernel writes it for a root in a container
    (security/commoncap.c); outside of that namespace its capabilities do not count.
    """
    head = int.from_bytes(value[:4], "little")
    if head & _REVISION != _WITH_ROOT or len(value) != _SIZES[_WITH_ROOT]:
        return value
    return (head & ~_REVISION | _WITHOUT_ROOT).to_bytes(4, "little") + value[4 : _SIZES[_WITHOUT_ROOT]]


def shared_xattrs(xattrs: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """Return those of ``xattrs`` that a copy of the file in another layer has too: all but overlayfs' own."""
    return tuple(pair for pair in xattrs if not pair[0].startswith(_PRIVATE))


def private_xattrs(xattrs: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """Return those of ``xattrs`` that overlayfs gives for its own use in one layer."""
    return tuple(pair for pair in xattrs if pair[0].startswith(_PRIVATE))


def loses_xattrs(old: Iterable[bytes], new: Iterable[bytes]) -> bool:
    """Return whether one of the names ``old`` of extended attributes is none of ``new``, those of overlayfs apart."""
    return any(not name.startswith(_PRIVATE) for name in set(old).difference(new))
