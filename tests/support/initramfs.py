"""An initramfs unpacked by Debian's unmkinitramfs, wherever its version puts the parts."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures import tools

TOOLS = ("unmkinitramfs", "fakeroot", "cpio")


def unpack_initramfs(initramfs: Path, into: Path) -> tuple[Path, Path]:
    """Unpack ``initramfs`` into ``into``, and return the folders with its early part and with its main one.

    Since initramfs-tools 0.149 both are ``into`` itself. An entry that cannot be made is an error since 0.148, and an
    ordinary user makes devices under fakeroot only.
    """
    tools.run(["fakeroot", "unmkinitramfs", initramfs, into])
    early, main = into / "early", into / "main"
    return (early, main) if main.is_dir() else (into, into)
