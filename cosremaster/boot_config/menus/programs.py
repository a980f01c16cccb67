"""Find the kernels that SYSLINUX loads by a program: ``linux.c32``, ``mboot.c32``, and others that are not understood.

Pure. ``linux.c32 [options] kernel arguments`` (com32/modules/linux.c) and ``mboot.c32 [options] program arguments ---
module arguments --- ...`` (doc/mboot.txt). ESXi has its own mboot.c32: it reads the file that ``-c`` names, and passes
on the words behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from cosremaster.boot_config.menus.model import KernelLine, UnreadLine, Word, find_insertion_point
from cosremaster.boot_config.menus.multiboot import find_kernel_modules, is_kernel_name, strip_options
from cosremaster.records import Struct

LINUX_LOADER, MULTIBOOT = b"linux.c32", b"mboot.c32"
_SEPARATOR = b"---"
_CONFIGURATION = b"-c"
"""ESXi's option for the path of its configuration."""


class ProgramLines(Struct, frozen=True):
    """The kernels that a program loads.

    :param includes: paths of the files that it reads its arguments from.
    """

    lines: tuple[KernelLine, ...] = ()
    unread: tuple[UnreadLine, ...] = ()
    includes: tuple[bytes, ...] = ()


def is_program(path: bytes) -> bool:
    """Return True for the name of a module of SYSLINUX, which is no kernel itself."""
    return path.lower().endswith(b".c32")


def loads_kernel(program: Word) -> bool:
    """Return True for a module of SYSLINUX whose arguments are a kernel and the kernel's arguments."""
    return _base_name(program) in (LINUX_LOADER, MULTIBOOT)


def _base_name(program: Word) -> bytes:
    """Return the program's name without directories, in small letters."""
    return program.text.replace(b"\\", b"/").rpartition(b"/")[2].lower()


def read_program(
    number: int, label: bytes, program: Word, words: Sequence[Word], labels: Collection[bytes]
) -> ProgramLines:
    """Return the kernels that ``program`` loads when it is started with ``words``.

    :param number: the line of the menu that starts it.
    :param label: the entry that the line belongs to.
    :param labels: all entries of the menu; ifcpu64.c32 and others choose between them.
    """
    name = _base_name(program)
    if name == MULTIBOOT and any(word.text == _CONFIGURATION for word in words):
        return _read_esxi(number, words)
    kernels = list[Sequence[Word]]()
    if name == LINUX_LOADER:
        kernels = [module for module in [strip_options(words)] if module]
    elif name == MULTIBOOT:
        first, *modules = _split_modules(strip_options(words))
        kernels = find_kernel_modules(first[0].text if first else b"", modules)
    else:
        others = [word for word in words if word.text not in labels]
        return ProgramLines(unread=tuple(_list_unread(number, label, program, others)))
    lines = (
        KernelLine(
            number=number,
            kernel=kernel.text,
            arguments=tuple(arguments),
            insert=find_insertion_point(tuple(arguments), kernel.end),
        )
        for kernel, *arguments in kernels
    )
    return ProgramLines(tuple(lines))


def _split_modules(words: Sequence[Word]) -> list[Sequence[Word]]:
    """Return the words of the program and of each module; there is at least one list, which may be empty."""
    modules: list[list[Word]] = [[]]
    for word in words:
        if word.text == _SEPARATOR:
            modules.append([])
        else:
            modules[-1].append(word)
    return [*modules]


def _read_esxi(number: int, words: Sequence[Word]) -> ProgramLines:
    """Return what ESXi's mboot.c32 reads: its configuration, and arguments behind its options.

    New arguments go into the configuration.
    """
    at = next(index for index, word in enumerate(words) if word.text == _CONFIGURATION)
    paths = [word.text for word in words[at + 1 : at + 2]]
    arguments = tuple(word for word in words[at + 2 :] if not word.text.startswith(b"-"))
    lines = [KernelLine(number=number, kernel=path, arguments=arguments, insert=None) for path in paths if arguments]
    return ProgramLines(tuple(lines), (), tuple(paths))


def _list_unread(number: int, label: bytes, program: Word, words: Sequence[Word]) -> Iterator[UnreadLine]:
    """Yield the line of a program that is not understood, if a Linux kernel is among its arguments."""
    if any(is_kernel_name(word.text) for word in words if b"=" not in word.text):
        name = program.text.decode(errors="replace")
        yield UnreadLine(number, label, f"starts a kernel by {name}, whose arguments cosremaster does not understand")
