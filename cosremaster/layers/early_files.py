"""The files that people change early: names, accounts, networks, keys. Their entries get parts of their own.

docs/prepare.md has the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosremaster.layers.model import Layer

_IN_ETC = (
    "adjtime apt/sources.list crypttab environment fstab group group- gshadow gshadow- hostid hostname hosts inittab"
    " issue issue.net locale.conf locale.gen localtime machine-id modules motd mtab nsswitch.conf passwd passwd-"
    " rc.local resolv.conf securetty shadow shadow- subgid subuid sudoers timezone vconsole.conf"
)

FILES = frozenset(f"etc/{name}".encode() for name in _IN_ETC.split()) | {b"init", b"preseed.cfg"}
"""Paths of files, which may be symlinks."""

FOLDERS = (
    b"etc/apt/sources.list.d/", b"etc/cloud/cloud.cfg.d/", b"etc/default/", b"etc/modprobe.d/", b"etc/modules-load.d/",
    b"etc/netplan/", b"etc/network/", b"etc/NetworkManager/", b"etc/profile.d/", b"etc/ssh/", b"etc/sudoers.d/",
    b"etc/sysctl.d/", b"etc/systemd/network/", b"etc/systemd/system/", b"root/.ssh/",
)  # fmt: skip
"""What is in these counts too."""

NEAR = 32 << 10
"""Early files with at most so many bytes between them share a part."""

MOST = 256 << 10
"""The most bytes of such a part, unless a single file has more: so much is packed in a moment."""


def find_early_borders(layer: Layer) -> tuple[int, ...]:
    """Return where parts begin so that the early files of ``layer`` stand in their own: plain offsets in its stream.

    So does what stands behind the last entry, for each change of the length changes that too. Entries stay in their
    order: what stands alone gets a part alone.
    """
    spans: list[tuple[int, int]] = []
    last = 0
    for path, start, last in layer.index.entry_spans():
        if path in FILES or path.startswith(FOLDERS):
            spans.append((start, last))
    borders = {border for run in join_spans(spans) for border in run}
    return tuple(sorted(borders | {last} if last else borders))


def join_spans(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield ``spans``, in order, joined where they are :data:`NEAR` each other, to at most :data:`MOST` bytes."""
    first: int | None = None
    last = 0
    for start, end in spans:
        if first is not None and start - last <= NEAR and end - first <= MOST:
            last = end
            continue
        if first is not None:
            yield first, last
        first, last = start, end
    if first is not None:
        yield first, last
