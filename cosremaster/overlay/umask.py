"""Modes without the traces of the umask under which a source was made.

A umask takes permission bits of group and others away. So these bits tell how a shell was set up, and nothing about
what the user wants in the image. The bits of the owner, and bits that no umask can explain, are the user's own.
"""

from __future__ import annotations

from collections.abc import Iterable

from cosremaster.tree.nodes import Node, NodeKind

READ_BITS = 0o044
"""The read bits of group and others."""

_KINDS = frozenset((NodeKind.FILE, NodeKind.DIRECTORY, NodeKind.FIFO))
_STICKY_OPEN = 0o1002
_CLASS_SHIFTS = (3, 0)  # of group and others in a mode


def granted_reads(nodes: Iterable[Node]) -> int:
    """Return the bits of :data:`READ_BITS` that any of ``nodes`` has.

    The umask did not take these away, so an entry without them lacks them on purpose.
    """
    granted = 0
    for node in nodes:
        if node.kind in _KINDS:
            granted |= node.mode & READ_BITS
    return granted


def mode_without_umask(node: Node, granted: int) -> int:
    """Return the mode of ``node`` as it would be under umask 022.

    ``granted``: the bits of :data:`READ_BITS` that the umask left. Group and others read and execute what the owner
    does, and never write. A class that may not read, though the umask let it, gets nothing new, and neither does then
    one that the umask took everything from: 0600 where the group reads other things is no 0644 under umask 027.
    Devices and directories like /tmp keep their modes: no umask makes them so.
    """
    mode = node.mode
    if node.kind not in _KINDS or mode & _STICKY_OPEN == _STICKY_OPEN:
        return mode
    owner, plain = mode >> 6 & 5, mode & 0o7700
    is_closed = granted & READ_BITS & ~mode
    for shift in _CLASS_SHIFTS:
        is_open = mode & granted & 4 << shift or not is_closed
        plain |= owner << shift if is_open else mode & 5 << shift
    return plain
