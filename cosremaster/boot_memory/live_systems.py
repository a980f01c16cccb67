"""The memory that live systems take whose root stays in squashfs files: what is copied there, and what they write.

Each family is read from the script of its initramfs; docs/memory.md has the rules and says what is measured of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from cosremaster.boot_memory.estimate import (
    DEFAULT_TMPFS_SHARE,
    KERNEL_MEMORY,
    MIB,
    PAGE,
    RESERVED_MEMORY,
    MemoryEstimate,
    round_need,
)
from cosremaster.errors import printable
from cosremaster.layers.boot_facts import BootFacts, BootLine
from cosremaster.layers.root_stacks import RootChain, RootScheme, RootStack
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct
from cosremaster.records.lazy_dataclass import dataclass

_SPARE_DIVISOR = 20
"""live-boot and casper want a twentieth more than du(1) counts (their ``fs_size``)."""
_MODULE_SPARE = 5000 << 10
"""live-boot's ``toram=FILE`` makes a tmpfs of that much more."""
_ARCHISO_SHARE = 0.75
"""archiso's ``copytoram_size=`` (mkinitcpio-archiso, docs/README.bootparams)."""
_ARCHISO_COWSPACE = "256M"
_DRACUT_SPARE = 1024 * MIB
"""dracut's ``rd.minmem=``: it stops where the copy leaves less (dracut.cmdline(7))."""
_SYSTEMD_RUN_SHARE = 0.2
"""systemd mounts /run with ``size=20%`` (its src/shared/mount-util.h)."""
_DRACUT_OVERLAY = "32768"
"""MiB of dracut's sparse file for what is written, without ``rd.live.overlay.size=``."""

_DRACUT_SCRIPTS = tuple(folder + b"dmsquash-live-root" + end for folder in (b"sbin/", b"usr/sbin/", b"usr/bin/")
                        for end in (b"", b".sh"))  # fmt: skip
_SYSTEMD = (b"usr/lib/systemd/systemd", b"lib/systemd/systemd")
_MAX_SCRIPT = 1 << 20
_PERCENT = lazy_regex(r"(\d{1,3})%")


class Copy(Struct, frozen=True, kw_only=True):
    """What a boot copies into memory.

    ``argument``: by which; ``what``: for people; ``size``: bytes in whole pages; ``room``: bytes of memory that the
    initramfs or its tmpfs has to have for it, where that is more.
    """

    argument: str
    what: str
    size: int
    room: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveMemory:
    """The memory that boot entries of a live system take; sizes are in bytes.

    ``entries``: their titles; ``scheme``: who mounts the root. ``argument``: what lets them copy files into memory,
    empty where they do not; ``copied``: bytes of these. ``need``: memory that the boot takes, the running system apart;
    None where the initramfs was not read. ``writes``: where changed files go. ``option``, ``option_copied`` and
    ``option_need``: an argument that would copy, and what that would take; empty where the entries have it.
    """

    entries: tuple[str, ...]
    scheme: str
    argument: str
    copied: int
    need: int | None
    writes: str
    option: str = ""
    option_copied: int = 0
    option_need: int | None = None


class LiveSizes(Struct, frozen=True):
    """Sizes in bytes of the ``files`` of an image by path, and what the unpacked initramfs of each file takes."""

    files: Mapping[bytes, int]
    initramfs: Mapping[bytes, MemoryEstimate]

    def pages(self, paths: Iterable[bytes]) -> int:
        """Return the bytes that files take in a tmpfs."""
        return sum(-(-self.files.get(path, 0) // PAGE) * PAGE for path in paths)


_Family = Callable[[BootLine, RootChain, LiveSizes, BootFacts], tuple[Copy | None, Copy | None, str]]
"""Returns what a boot copies, what it would copy with another argument, and where it writes."""


def estimate_live_memory(stack: RootStack, facts: BootFacts, sizes: LiveSizes) -> tuple[LiveMemory, ...]:
    """Return the memory that the boot entries of an image take; entries that take the same stand together.

    None for a scheme whose rules are not known.
    """
    family = _FAMILIES.get(stack.chain.scheme)
    if family is None:
        return ()
    chains = {id(line): chain for line, chain in stack.others}
    groups: dict[tuple[object, ...], LiveMemory] = {}
    for line in facts.lines:
        chain = chains.get(id(line), stack.chain)
        copy, option, writes = family(line, chain, sizes, facts)
        found = _estimate(line, chain, sizes, copy, option, writes)
        key = (found.argument, found.copied, found.need, found.writes, found.option_copied)
        known = groups.get(key)
        entries = () if known is None else known.entries
        groups[key] = LiveMemory(
            entries=(*entries, line.title), scheme=found.scheme, argument=found.argument, copied=found.copied,
            need=found.need, writes=found.writes, option=found.option, option_copied=found.option_copied,
            option_need=found.option_need,
        )  # fmt: skip
    return tuple(groups.values())


def _estimate(
    line: BootLine, chain: RootChain, sizes: LiveSizes, copy: Copy | None, option: Copy | None, writes: str
) -> LiveMemory:
    """Return what the boot entry ``line`` takes."""
    initramfs = [sizes.initramfs[path] for path in line.initrds if path in sizes.initramfs]
    return LiveMemory(
        entries=(line.title,), scheme=chain.scheme.value,
        argument="" if copy is None else copy.argument, copied=0 if copy is None else copy.size,
        need=_need(initramfs, copy), writes=writes, option="" if option is None else option.argument,
        option_copied=0 if option is None else option.size,
        option_need=None if option is None else _need(initramfs, option),
    )  # fmt: skip


def _need(initramfs: Sequence[MemoryEstimate], copy: Copy | None) -> int | None:
    """Return the memory that a boot with ``initramfs`` takes which makes ``copy``; None where that is unknown."""
    needs = [estimate.need for estimate in initramfs]
    unpacked = sum(estimate.unpacked or 0 for estimate in initramfs)
    if not needs or None in needs:
        return None
    need = max(filter(None, needs), default=0)
    if copy is None:
        return need
    return max(need, round_need(unpacked + copy.size + KERNEL_MEMORY), round_need(copy.room + RESERVED_MEMORY))


def _copy_medium(argument: str, sizes: LiveSizes) -> Copy:
    """Return the copy of the whole medium that live-boot and casper make."""
    size = sizes.pages(sizes.files)
    return Copy(argument=argument, what="the whole medium", size=size, room=size + size // _SPARE_DIVISOR)


def _live_boot(
    line: BootLine, chain: RootChain, sizes: LiveSizes, facts: BootFacts
) -> tuple[Copy | None, Copy | None, str]:
    """Return what live-boot copies (9990-toram-todisk.sh), and where it writes (9990-overlay.sh)."""
    size = line.value(b"overlay-size")
    writes = _tmpfs("overlay-size", "50%" if size is None else printable(size))
    module = line.value(b"toram")
    if module is not None:
        path = chain.folder + b"/" + module
        copied = sizes.pages([path])
        name = printable(module)
        return Copy(argument=f"toram={name}", what=name, size=copied, room=copied + _MODULE_SPARE), None, writes
    medium = _copy_medium("toram", sizes)
    return (medium, None, writes) if b"toram" in line.arguments else (None, medium, writes)


def _casper(
    line: BootLine, chain: RootChain, sizes: LiveSizes, facts: BootFacts
) -> tuple[Copy | None, Copy | None, str]:
    """Return what casper copies (its ``copy_live_to``), and where it writes (``setup_overlay``)."""
    medium, writes = _copy_medium("toram", sizes), _tmpfs("", "50%")
    return (medium, None, writes) if b"toram" in line.arguments else (None, medium, writes)


def _archiso(
    line: BootLine, chain: RootChain, sizes: LiveSizes, facts: BootFacts
) -> tuple[Copy | None, Copy | None, str]:
    """Return what archiso copies (mkinitcpio-archiso's hook archiso), and where it writes."""
    cowspace = line.value(b"cow_spacesize")
    writes = _tmpfs("cow_spacesize", _ARCHISO_COWSPACE if cowspace is None else printable(cowspace))
    size = sizes.pages(chain.paths)
    share = _read_share(line.value(b"copytoram_size"), _ARCHISO_SHARE)
    copy = Copy(argument="copytoram=y", what="airootfs", size=size, room=int(size / share) if share else 0)
    is_copied = line.value(b"copytoram") == b"y" or b"copytoram" in line.arguments
    return (copy, None, writes) if is_copied else (None, copy, writes)


def _dracut(
    line: BootLine, chain: RootChain, sizes: LiveSizes, facts: BootFacts
) -> tuple[Copy | None, Copy | None, str]:
    """Return what dracut copies (dmsquash-live-root.sh) and where it writes."""
    size = sizes.pages(chain.paths)
    trees = [facts.tree(initrd) for initrd in line.initrds if initrd in sizes.initramfs]
    scripts = [tree[path].content for tree in trees for path in _DRACUT_SCRIPTS if path in tree]
    texts = [content.head(_MAX_SCRIPT) for content in scripts if content is not None]
    if not texts or any(b"check_live_ram" in text for text in texts):
        room = size + _read_mib(line.value(b"rd.minmem"), _DRACUT_SPARE)
    else:
        is_systemd = any(path in tree for tree in trees for path in _SYSTEMD)
        room = int(size / (_SYSTEMD_RUN_SHARE if is_systemd else DEFAULT_TMPFS_SHARE))
    overlay = line.value(b"rd.live.overlay.size")
    limit = _DRACUT_OVERLAY if overlay is None else printable(overlay)
    writes = f"a file in memory of at most {limit} MiB (rd.live.overlay.size=)"
    if b"rd.live.overlay.overlayfs" in line.arguments or line.value(b"rd.live.overlay.overlayfs") in (b"1", b"yes"):
        writes = "/run, a tmpfs"
    copy = Copy(argument="rd.live.ram=1", what="the image", size=size, room=room)
    values = (line.value(b"rd.live.ram"), line.value(b"live_ram"))
    flags = {b"rd.live.ram", b"live_ram"} & {*line.arguments}
    is_copied = bool(flags) or any(value not in (None, b"0", b"no", b"off") for value in values)
    return (copy, None, writes) if is_copied else (None, copy, writes)


_FAMILIES: Mapping[RootScheme, _Family] = {
    RootScheme.LIVE_BOOT: _live_boot, RootScheme.CASPER: _casper, RootScheme.ARCHISO: _archiso,
    RootScheme.DRACUT: _dracut,
}  # fmt: skip


def _tmpfs(argument: str, size: str) -> str:
    """Return in words a tmpfs whose ``size`` the ``argument`` sets."""
    return f"a tmpfs of {size}{' of the memory' if size.endswith('%') else ''}{f' ({argument}=)' if argument else ''}"


def _read_share(value: bytes | None, default: float) -> float:
    """Return the share of the memory that ``value`` is; 0 where it is an amount."""
    if value is None:
        return default
    percent = _PERCENT.fullmatch(printable(value))
    return 0 if percent is None else max(int(percent[1]), 1) / 100


def _read_mib(value: bytes | None, default: int) -> int:
    """Return the bytes of ``value``, a number of MiB."""
    return int(value) * MIB if value is not None and value.isdigit() and len(value) < 8 else default
