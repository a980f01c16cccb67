"""Find the Linux kernels among what a multiboot loader loads: a hypervisor first, then its modules.

Pure. Xen takes its first module for the kernel of domain 0 (Xen, docs/misc/efi.pandoc and misc/booting.txt), tboot
likewise, which may also load Xen as a module.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cosremaster.boot_config.menus.model import Word, is_linux
from cosremaster.lazy_regex import lazy_regex

_KERNEL = lazy_regex(rb"vmlinu|bzimage|linux", re.IGNORECASE)
_NO_KERNEL = lazy_regex(
    rb"initrd|initramfs|ucode|microcode|(?:iso|sys|pxe|ext)linux|\.(?:img|cpio|bin|cfg|conf|c32|txt)(?:\.\w+)?$",
    re.IGNORECASE,
)
_HYPERVISOR = lazy_regex(rb"(?:xen|tboot)(?![a-z])", re.IGNORECASE)

Module = Sequence[Word]
"""The words of a module: its options, its file, its arguments."""


def strip_options(module: Module) -> Module:
    """Return the words of ``module`` without options of the loader in front, such as ``--nounzip``."""
    for index, word in enumerate(module):
        if not word.text.startswith(b"-"):
            return module[index:]
    return ()


def is_kernel_name(path: bytes) -> bool:
    """Return True if the file at ``path`` is named like a Linux kernel."""
    name = path.replace(b"\\", b"/").rpartition(b"/")[2]
    return bool(_KERNEL.search(name)) and not _NO_KERNEL.search(name) and is_linux(name)


def is_hypervisor(path: bytes) -> bool:
    """Return True if the file at ``path`` is named like Xen or tboot, which start a Linux kernel."""
    return bool(_HYPERVISOR.match(path.replace(b"\\", b"/").rpartition(b"/")[2]))


def find_kernel_modules(program: bytes, modules: Sequence[Module]) -> list[Module]:
    """Return those of ``modules``, without their options, that are Linux kernels.

    :param program: the path of the program that gets the modules; empty where that is unknown.
    """
    loaded = [words for words in map(strip_options, modules) if words]
    kernels = [words for words in loaded if is_kernel_name(words[0].text)]
    if kernels or not is_hypervisor(program):
        return kernels
    return [words for words in loaded if not is_hypervisor(words[0].text)][:1]
