"""Which file systems of an image become the root of the running system, and in which order they lie over each other.

Each scheme is read from the script of the initramfs that mounts them:

- casper (its ``scripts/casper``, setup_overlay): with ``layerfs-path=`` or ``LAYERFS_PATH`` the layers of
  ``minimal.standard.live.squashfs`` are that file and what is left when parts are taken off its name; without, all
  ``*.ext2`` and then all ``*.squashfs`` of the directory ``live-media-path=`` by name, the last on top;
- live-boot (9990-overlay.sh): the files that ``filesystem.NAME.module`` or ``NAME.module`` lists (``module=NAME``,
  else ``filesystem``), else all by name, the last on top; EROFS since 2024;
- dracut (dmsquash-live-root.sh): ``rd.live.dir=``/``rd.live.squashimg=`` alone, else ``rootfs.img``;
- archiso (mkinitcpio-archiso): ``archisobasedir=``/ARCH/``airootfs.sfs`` or ``.erofs`` alone; of SystemRescue also the
  modules ``archisobasedir=``/``*.srm`` over it, with ``loadsrm`` (system-rescue.org/Modules);
- Linux Live Kit of Slax (livekitlib, union_append_bundles): ``*.sb`` of its directory by number, then ``modules/``;
  Porteus likewise ``base/*.xzm``, then ``modules/``. Both copy ``rootcopy/`` over all of it (copy_rootcopy_content).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from functools import cached_property

from cosremaster.errors import printable
from cosremaster.iso.model import SourceFile, SourceImage
from cosremaster.layers.boot_facts import NO_FACTS, BootFacts, BootLine, ShellVariable
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct

SQUASHFS_END = b".squashfs"
_SOURCES = b"install-sources.yaml"
"""Of subiquity, the installer on casper's images: what it may copy, with its size and which is the default."""
_MAX_LIST = 1 << 20
_LIVE_PART = b".live"
_MOUNTPOINT = b"/cdrom/"
"""Where casper mounts the image."""
LAYERFS_PATH, LAYERFS_ARGUMENT = b"LAYERFS_PATH", b"layerfs-path"
_CASPER_SKIPS = (b"ltsp.squashfs", b"server.squashfs")
_LIVE_BOOT_ENDS = (b".squashfs", b".erofs", b".ext2", b".ext3", b".ext4", b".xfs", b".jffs2")
_ARCHITECTURES = (b"x86_64", b"aarch64", b"i686", b"riscv64", b"loong64", b"armv7h")
_NUMBER = lazy_regex(rb"[ \t]*(\d+)")
_SETTINGS = lazy_regex(rb"sysrescue\.d/[^/]+\.ya?ml")
"""Where SystemRescue has what may stand in its kernel arguments too (system-rescue.org, Configuring SystemRescue)."""
_LOADS_MODULES = lazy_regex(
    rb"^[ \t]*[\"']?loadsrm[\"']?[ \t]*:[ \t]*[\"']?(?:true|yes|on|y|1)\b", re.IGNORECASE | re.MULTILINE
)


class RootScheme(enum.Enum):
    """A way to mount the root; the value is its name for people."""

    CASPER = "casper"
    LIVE_BOOT = "live-boot"
    DRACUT = "dracut (dmsquash-live)"
    ARCHISO = "archiso"
    BUNDLES = "Linux Live Kit (Slax)"
    PORTEUS = "Porteus"

    @property
    def has_layers(self) -> bool:
        """Whether several file systems lie over each other."""
        return self is not RootScheme.DRACUT

    @property
    def has_whiteouts(self) -> bool:
        """Whether an upper file system can hide a file of a lower: overlayfs does.

        aufs looks for whiteouts in a read-only branch only where it is added with ``+wh`` (aufs(5)), and neither Slax
        nor Porteus does.
        """
        return self in (RootScheme.CASPER, RootScheme.LIVE_BOOT, RootScheme.ARCHISO)


class StackRule(enum.Enum):
    """What decides on the files of a chain, and so how a further layer joins it."""

    TOP = enum.auto()
    """The name of the uppermost, of which casper takes parts off."""
    NAMES = enum.auto()
    """All files of a directory are mounted, the last by name on top."""
    NUMBERS = enum.auto()
    """Likewise, by the number that the name begins with."""
    LIST = enum.auto()
    """A ``*.module`` file lists them."""
    FIXED = enum.auto()
    """Nothing else is mounted."""


class RootChain(Struct, frozen=True, kw_only=True):
    """The file systems that a boot mounts as the root, the lowest first.

    ``rule``: what decides on them; ``order``: the same for people. ``folder``: where a further layer would be.
    ``is_named``: a kernel argument or an initramfs says so, and not the names of files alone. ``list_file``: the
    ``*.module`` file that lists them. ``variable``: of the initramfs, that names the uppermost. ``missing``: files that
    the boot needs and that are not on the image. ``copied``: the directory whose files are copied over all of them.
    """

    scheme: RootScheme
    rule: StackRule
    paths: tuple[bytes, ...]
    folder: bytes
    order: str
    is_named: bool = False
    list_file: bytes | None = None
    variable: ShellVariable | None = None
    missing: tuple[bytes, ...] = ()
    copied: bytes = b""


class RootStack(Struct, frozen=True, kw_only=True):
    """The chain of the boot entry that starts by itself, and which of its file systems an edit goes to.

    ``default``: None where that is open; ``reason``: why it is that, as a part of a sentence. ``others``: entries that
    mount something else, with their chains. ``line``: the boot entry.
    """

    chain: RootChain
    line: BootLine
    default: bytes | None
    reason: str
    others: tuple[tuple[BootLine, RootChain], ...] = ()


class _Disc:
    """The files of an image, and what it boots."""

    def __init__(self, image: SourceImage, facts: BootFacts, *, is_thorough: bool = False) -> None:
        """Remember the files; ``is_thorough``: read the initramfs also where that does not change the chain."""
        self.image, self.facts, self.is_thorough = image, facts, is_thorough
        self.files: dict[bytes, SourceFile] = {file.path: file for file in image.files}
        self._folders: dict[bytes, list[bytes]] = {}
        for path in sorted(self.files):
            self._folders.setdefault(path.rpartition(b"/")[0], []).append(path)

    def list_folder(self, folder: bytes, *ends: bytes) -> list[bytes]:
        """Return the paths of the files directly in ``folder`` whose names have one of ``ends``, by name."""
        return [path for path in self._folders.get(folder, ()) if path.endswith(ends)]

    @cached_property
    def bundle_folders(self) -> frozenset[bytes]:
        """The directories with bundles of the Linux Live Kit, without ``modules`` at their ends."""
        folders = (folder for folder in self._folders if self.list_folder(folder, b".sb"))
        return frozenset(folder.removesuffix(b"/modules") for folder in folders)

    @cached_property
    def porteus_folders(self) -> frozenset[bytes]:
        """The directories with a directory ``base`` that has modules of Porteus."""
        bases = (folder for folder in self._folders if folder.endswith(b"/base"))
        return frozenset(folder.removesuffix(b"/base") for folder in bases if self.list_folder(folder, b".xzm"))

    def list_initrds(self, line: BootLine, folder: bytes) -> tuple[bytes, ...]:
        """Return the paths of the initramfs of ``line``; where it names none, those of ``folder`` by their names."""
        if line.initrds:
            return line.initrds
        return tuple(path for path in self.list_folder(folder, b"") if path.rpartition(b"/")[2].startswith(b"init"))

    def read(self, path: bytes) -> bytes:
        """Return the first MiB of the file at ``path``."""
        return self.image.bytes_of(self.files[path]).read(0, _MAX_LIST)


def find_root_stack(image: SourceImage, facts: BootFacts) -> RootStack | None:
    """Return what becomes the root of ``image``; None where names, menus and initramfs do not say it."""
    if image.volume is None:
        return None
    disc = _Disc(image, facts)
    line, *others = facts.lines
    chain = _find_chain(disc, line)
    if chain is None:
        return None
    default, reason = _choose_default(disc, chain)
    chains = ((other, _find_chain(disc, other)) for other in others)
    different = tuple((other, found) for other, found in chains if found is not None and found.paths != chain.paths)
    return RootStack(chain=chain, line=line, default=default, reason=reason, others=different)


def find_chains(image: SourceImage, facts: BootFacts) -> tuple[tuple[BootLine, RootChain], ...]:
    """Return each boot entry of ``image`` with what it mounts as the root, the one that starts by itself first.

    The initramfs is read where one file system alone leaves open whether another would be mounted too.
    """
    disc = _Disc(image, facts, is_thorough=True)
    chains = ((line, _find_chain(disc, line)) for line in facts.lines)
    return tuple((line, chain) for line, chain in chains if chain is not None)


def _find_chain(disc: _Disc, line: BootLine) -> RootChain | None:
    """Return the chain of ``line``; None where several schemes could be meant."""
    chains = [chain for scheme in _SCHEMES if (chain := scheme(disc, line)) is not None and chain.paths]
    named = [chain for chain in chains if chain.is_named] or chains
    return named[0] if len(named) == 1 else None


def _casper(disc: _Disc, line: BootLine) -> RootChain | None:
    """Return casper's chain."""
    folder = _media_folder(line, b"casper")
    is_named = b"boot=casper" in line.arguments
    present = disc.list_folder(folder, SQUASHFS_END, b".ext2")
    if not present or b"boot=live" in line.arguments:
        return None
    top = line.value(LAYERFS_ARGUMENT)
    if top is None and len(present) == 1 and not disc.is_thorough:  # then nothing depends on the initramfs
        return RootChain(
            scheme=RootScheme.CASPER, rule=StackRule.NAMES, paths=tuple(present), folder=folder, order="its name",
            is_named=is_named,
        ) if is_named or folder == b"casper" else None  # fmt: skip
    initrds = disc.list_initrds(line, folder)
    variable = None
    order = f"{LAYERFS_ARGUMENT.decode()}= of the boot menu"
    if top is None and (folder == b"casper" or is_named or disc.facts.has_casper(initrds)):
        variable = disc.facts.find_variable(initrds, LAYERFS_PATH)
        if variable is not None:
            top, order = variable.value, f"LAYERFS_PATH in {printable(variable.initrd)} » {printable(variable.path)}"
    if top:
        return _casper_layers(disc, folder, top, order, variable)
    if disc.facts.has_casper(initrds):
        stacked = [path for path in present if path.rpartition(b"/")[2] not in _CASPER_SKIPS]
        stacked.sort(key=lambda path: (path.endswith(SQUASHFS_END), path))
        order = "all of the directory by name, since casper has no LAYERFS_PATH"
        return RootChain(
            scheme=RootScheme.CASPER, rule=StackRule.NAMES, paths=tuple(stacked), folder=folder, order=order,
            is_named=is_named,
        )  # fmt: skip
    if folder != b"casper" and not is_named:
        return None
    return _guess_layers(present, folder, is_named)


def _casper_layers(disc: _Disc, folder: bytes, top: bytes, order: str, variable: ShellVariable | None) -> RootChain:
    """Return the chain of the layer ``top``, a path or a name in ``folder``."""
    whole = top.removeprefix(_MOUNTPOINT).lstrip(b"/") if top.startswith(b"/") else folder + b"/" + top
    paths = list_casper_layers(whole)
    return RootChain(
        scheme=RootScheme.CASPER, rule=StackRule.TOP, paths=tuple(path for path in paths if path in disc.files),
        folder=folder, order=order, is_named=True, variable=variable,
        missing=tuple(path for path in paths if path not in disc.files),
    )  # fmt: skip


def list_casper_layers(top: bytes) -> list[bytes]:
    """Return the paths of the layers of the one at ``top``, the lowest first.

    >>> list_casper_layers(b"casper/minimal.live.squashfs")
    [b'casper/minimal.squashfs', b'casper/minimal.live.squashfs']
    """
    folder, _, name = top.rpartition(b"/")
    stem, dot, end = name.rpartition(b".")
    paths = []
    while stem:
        paths.append((folder + b"/" if folder else b"") + stem + dot + end)
        stem = stem.rpartition(b".")[0]
    return paths[::-1]


def _guess_layers(present: Sequence[bytes], folder: bytes, is_named: bool) -> RootChain | None:
    """Return the chain that names of files in ``folder`` alone speak of; None where several are as likely."""
    stems = [path.removesuffix(SQUASHFS_END) for path in present]
    tops = [stem for stem in stems if not any(other.startswith(stem + b".") for other in stems)]
    running = [stem for stem in tops if stem.endswith(_LIVE_PART)] or tops
    if len(running) != 1:
        return None
    paths = [path for path in list_casper_layers(running[0] + SQUASHFS_END) if path in present]
    return RootChain(
        scheme=RootScheme.CASPER, rule=StackRule.FIXED, paths=tuple(paths), folder=folder, order="their names",
        is_named=is_named,
    )  # fmt: skip


def _live_boot(disc: _Disc, line: BootLine) -> RootChain | None:
    """Return live-boot's chain."""
    folder = _media_folder(line, b"live")
    is_named = b"boot=live" in line.arguments
    if not is_named and folder != b"live":
        return None
    paths = disc.list_folder(folder, *_LIVE_BOOT_ENDS)
    if not paths or b"boot=casper" in line.arguments:
        return None
    module = line.value(b"module") or b"filesystem"
    lists = (folder + b"/filesystem." + module + b".module", folder + b"/" + module + b".module")
    list_file = next((path for path in lists if path in disc.files), None)
    order, missing, rule = "all of the directory by name", list[bytes](), StackRule.NAMES
    if list_file is not None:
        named = [folder + b"/" + name for name in disc.read(list_file).split()]
        paths, missing = [path for path in named if path in disc.files], [p for p in named if p not in disc.files]
        order, rule = printable(list_file), StackRule.LIST
    only = line.value(b"toram")
    if only and folder + b"/" + only in disc.files:
        paths, missing, rule = [folder + b"/" + only], [], StackRule.FIXED
        order = f"toram={printable(only)} of the boot menu"
    return RootChain(
        scheme=RootScheme.LIVE_BOOT, rule=rule, paths=tuple(paths), folder=folder, order=order, is_named=is_named,
        list_file=list_file, missing=tuple(missing),
    )  # fmt: skip


def _media_folder(line: BootLine, default: bytes) -> bytes:
    """Return the directory that ``live-media-path=`` names, which casper and live-boot share."""
    return (line.value(b"live-media-path") or default).strip(b"/")


def _dracut(disc: _Disc, line: BootLine) -> RootChain | None:
    """Return what dracut's dmsquash-live mounts."""
    folder = (line.value(b"rd.live.dir", b"live_dir") or b"LiveOS").strip(b"/")
    image = line.value(b"rd.live.squashimg")
    root = line.value(b"root") or b""
    is_named = root.startswith(b"live:") or b"rd.live.image" in line.arguments or image is not None
    names = ((image or b"squashfs.img").strip(b"/"), b"rootfs.img", b"ext3fs.img")
    path = next((folder + b"/" + name for name in names if folder + b"/" + name in disc.files), None)
    if path is None:
        return None
    order = "rd.live.squashimg= of the boot menu" if image is not None else "its name"
    return RootChain(
        scheme=RootScheme.DRACUT, rule=StackRule.FIXED, paths=(path,), folder=folder, order=order, is_named=is_named
    )  # fmt: skip


def _archiso(disc: _Disc, line: BootLine) -> RootChain | None:
    """Return what archiso mounts: of several architectures that of the entry's kernel or initramfs."""
    base = line.value(b"archisobasedir")
    folder = (base or b"arch").strip(b"/")
    paths = [
        path for architecture in _ARCHITECTURES for end in (b"sfs", b"erofs")
        if (path := folder + b"/" + architecture + b"/airootfs." + end) in disc.files
    ]  # fmt: skip
    if len(paths) > 1:
        named = [path for path in paths if any(b"/" + path.split(b"/")[-2] + b"/" in file for file in line.initrds)]
        paths = named[:1] or paths[:1]
    order = "archisobasedir= of the boot menu" if base else "its name"
    if paths and _loads_modules(disc, line):
        modules = disc.list_folder(folder, b".srm")
        paths += modules
        order += ", then the modules by name, since loadsrm is set" if modules else ""
    return RootChain(
        scheme=RootScheme.ARCHISO, rule=StackRule.FIXED, paths=tuple(paths), folder=folder, order=order,
        is_named=base is not None,
    )  # fmt: skip


def _loads_modules(disc: _Disc, line: BootLine) -> bool:
    """Return whether SystemRescue mounts modules over its root, by a kernel argument or its settings on the disc."""
    argument = b"y" if b"loadsrm" in line.arguments else line.value(b"loadsrm")
    if argument is not None:
        return argument == b"y"
    settings = (path for path in disc.files if _SETTINGS.fullmatch(path))
    return any(_LOADS_MODULES.search(disc.read(path)) for path in settings)


def number_key(path: bytes) -> tuple[int, bytes]:
    """Return a key that sorts paths as ``sort -n`` does by their names: by the number at the start, else 0."""
    name = path.rpartition(b"/")[2]
    match = _NUMBER.match(name)
    return (int(match[1]) if match else 0, name)


def _bundles(disc: _Disc, line: BootLine) -> RootChain | None:
    """Return the bundles of the Linux Live Kit."""
    homes = disc.bundle_folders
    start = line.value(b"from")
    home = start.strip(b"/") if start is not None and start.strip(b"/") in homes else min(homes, default=b"")
    if not homes or (len(homes) > 1 and start is None):
        return None
    outer = sorted(disc.list_folder(home, b".sb"), key=number_key)
    inner = sorted(disc.list_folder(home + b"/modules", b".sb"), key=number_key)
    return RootChain(
        scheme=RootScheme.BUNDLES, rule=StackRule.NUMBERS, paths=(*outer, *inner),
        folder=home + b"/modules" if inner else home, copied=home + b"/rootcopy",
        order="their numbers, then those of modules/" if inner else "their numbers",
    )  # fmt: skip


def _porteus(disc: _Disc, line: BootLine) -> RootChain | None:
    """Return the modules of Porteus: those in ``base``, then those in ``modules``."""
    homes = disc.porteus_folders
    if len(homes) != 1:
        return None
    (home,) = homes
    base, modules = disc.list_folder(home + b"/base", b".xzm"), disc.list_folder(home + b"/modules", b".xzm")
    return RootChain(
        scheme=RootScheme.PORTEUS, rule=StackRule.NAMES, paths=(*base, *modules), folder=home + b"/modules",
        copied=home + b"/rootcopy", order="their names: base/, then modules/",
    )  # fmt: skip


_SCHEMES: tuple[Callable[[_Disc, BootLine], RootChain | None], ...] = (
    _casper, _live_boot, _dracut, _archiso, _bundles, _porteus
)  # fmt: skip


def _choose_default(disc: _Disc, chain: RootChain) -> tuple[bytes | None, str]:
    """Return which file system of ``chain`` an edit goes to, and why, as a part of a sentence.

    It is the one that casper's installer copies, so that the installed system has the change; else the uppermost, whose
    files win in the running system. Modules of SystemRescue are packages of somebody's own.
    """
    installed = find_installed_layer(disc.image, chain.folder)
    if installed is not None:
        return installed, f"the installer copies it ({printable(chain.folder + b'/' + _SOURCES)})"
    if len(chain.paths) == 1:
        return chain.paths[0], "it is the root file system"
    if chain.scheme is RootScheme.ARCHISO:
        return chain.paths[0], "it is the root file system, over which modules are mounted"
    return chain.paths[-1], "it is the uppermost, whose files win in the running system"


def _find_installed(text: bytes) -> bytes | None:
    """Return the ``path`` of the source in ``install-sources.yaml`` that is the default, else of the first."""
    indents = [len(match[1]) for match in re.finditer(rb"^( *)- ", text, re.MULTILINE)]
    indent = min(indents, default=0)
    paths = []
    for source in re.split(rb"^ {%d}- " % indent, text, flags=re.MULTILINE)[1:]:
        fields = b" " * (indent + 2) + source
        path = re.search(rb"^ {%d}path: *[\"']?([^\s\"']+)" % (indent + 2), fields, re.MULTILINE)
        if path is not None and re.search(rb"^ *default: *true\b", fields, re.MULTILINE):
            return path[1]
        paths += [] if path is None else [path[1]]
    return paths[0] if paths else None


def find_installed_layer(image: SourceImage, folder: bytes) -> bytes | None:
    """Return the path of the layer that casper's installer copies; None where nothing in ``folder`` says so."""
    disc = _Disc(image, NO_FACTS)
    sources = folder + b"/" + _SOURCES
    installed = _find_installed(disc.read(sources)) if sources in disc.files else None
    path = None if installed is None else folder + b"/" + installed
    return path if path in disc.files else None
