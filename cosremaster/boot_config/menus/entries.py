"""The entries of boot menus: what each loads, and with which arguments. Bytes in, values out.

Variables of GRUB count as far as the menu sets them at its head; an unset one is empty, as in GRUB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from cosremaster.boot_config.menus.grub import ENTRY_COMMANDS, read_nested_commands
from cosremaster.boot_config.menus.model import Menu, MenuLanguage, Word, is_linux, split_arguments
from cosremaster.boot_config.menus.multiboot import strip_options
from cosremaster.boot_config.menus.programs import LINUX_LOADER, MULTIBOOT
from cosremaster.boot_config.menus.syslinux import SyslinuxLine, split_syslinux_lines
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct, field, replace

_LINUX = lazy_regex(rb"linux(?:16|efi)?|linux\$\{?\w+\}?|\$\{?linux\w*\}?")
_INITRD = lazy_regex(rb"initrd(?:16|efi)?|initrd\$\{?\w+\}?|\$\{?initrd\w*\}?")
_PROGRAM, _MODULE = lazy_regex(rb"multiboot2?|xen_hypervisor"), lazy_regex(rb"module2?|xen_module")
_VARIABLE = lazy_regex(rb"\$(?:\{(\w+)\}|(\w+))")
_NAME = lazy_regex(rb"\w+")
_MOST_LEVELS = 16
"""Entries in more submenus than these are read as commands of the last."""
_NUMBER = lazy_regex(rb"\d{1,9}")
_OPTION = lazy_regex(rb"--?[a-z-]+")


class LoadedFile(Struct, frozen=True):
    """A file that an entry loads: its path as the menu spells it, and its arguments as the kernel gets them."""

    path: bytes
    arguments: tuple[bytes, ...] = ()


class MenuEntry(Struct, frozen=True, kw_only=True):
    """An entry of a boot menu.

    :param names: what it is called: title, label, id.
    :param files: the kernel and its initramfs images, or a hypervisor and its modules.
    :param is_multiboot: the first file is a hypervisor, or another multiboot program.
    :param is_default: the menu starts it by itself.
    """

    names: tuple[bytes, ...]
    files: tuple[LoadedFile, ...]
    is_multiboot: bool = False
    is_default: bool = False


def read_entries(menu: Menu) -> tuple[MenuEntry, ...]:
    """Return the entries of ``menu`` that load something; languages other than GRUB, SYSLINUX and BLS have none."""
    if menu.language is MenuLanguage.GRUB:
        return tuple(_read_grub(menu.data))
    if menu.language is MenuLanguage.SYSLINUX:
        return tuple(_read_syslinux(menu.data))
    return tuple(_read_loader_entry(menu.data)) if menu.language is MenuLanguage.LOADER_ENTRY else ()


def read_default_names(menu: Menu) -> frozenset[bytes]:
    """Return the labels that a SYSLINUX configuration starts by itself; they may be in a file that it includes."""
    if menu.language is not MenuLanguage.SYSLINUX:
        return frozenset()
    lines = split_syslinux_lines(menu.data)
    return frozenset(menu.data[line.value : line.end] for line in lines if line.keyword == b"default")


class _GrubEntry(Struct):
    """A GRUB menu, or an entry or a submenu in it.

    ``words``: of its command, none of the menu. ``depth``: the number of blocks of braces around that. ``parent``: the
    menu or submenu that holds it. ``level``: the number of these around it. ``entries``: those in it. ``commands``:
    those in it, but for those of its entries.
    """

    words: list[Word]
    depth: int
    parent: _GrubEntry | None
    level: int
    entries: list[_GrubEntry] = field(default_factory=list)
    commands: list[list[Word]] = field(default_factory=list)

    @property
    def is_submenu(self) -> bool:
        """Whether it holds entries."""
        return self.words[0].text == b"submenu"

    @property
    def names(self) -> tuple[bytes, ...]:
        """Its title and its id."""
        return tuple(_entry_names(self.words))

    def find_entry(self, name: bytes) -> _GrubEntry | None:
        """Return the entry in it that ``name`` means: by its number, which GRUB reads first, its title or its id.

        The first one where it means none, as in GRUB (grub-core/normal/menu.c); None where there are none.
        """
        number = _NUMBER.match(name)
        if number is not None and int(number[0]) < len(self.entries):
            return self.entries[int(number[0])]
        named = (entry for entry in self.entries if number is None and name in entry.names)
        return next(named, next(iter(self.entries), None))


def _read_grub(data: bytes) -> Iterator[MenuEntry]:
    """Yield the entries of a GRUB menu, which is shown when all of it was read: the last value of a variable counts."""
    menu = inside = _GrubEntry([], -1, None, 0)
    groups = list[_GrubEntry]()
    for depth, words in read_nested_commands(data, []):
        while depth <= inside.depth and inside.parent is not None:
            inside = inside.parent
        if words[0].text in ENTRY_COMMANDS and inside.level < _MOST_LEVELS:
            groups.append(_GrubEntry(words, depth, inside, inside.level + 1))
            inside.entries.append(groups[-1])
            inside = groups[-1]
        else:
            inside.commands.append(words)
    variables = dict[bytes, bytes]()
    for words in menu.commands:
        _assign(words, variables)
    default = _find_default(menu, variables.get(b"default", b""))
    for group in groups:
        commands, above = group.commands, group.parent
        while above is not None and above is not menu:
            commands, above = [*above.commands, *commands], above.parent
        entry = _read_grub_entry(data, group.names, commands, variables)
        if entry.files and not group.is_submenu:
            yield replace(entry, is_default=group is default)


def _find_default(menu: _GrubEntry, default: bytes) -> _GrubEntry | None:
    """Return the entry that ``default`` names: with its submenus before it and ``>`` between, doubled in a title."""
    names = [name.replace(b"\0", b">") for name in default.replace(b">>", b"\0").split(b">")]
    entry = menu.find_entry(names.pop(0))
    while entry is not None and entry.is_submenu:
        entry = entry.find_entry(names.pop(0) if names else b"")
    return entry


def _entry_names(words: Sequence[Word]) -> Iterator[bytes]:
    """Yield title and id of a GRUB entry."""
    texts = [word.text for word in words]
    yield from texts[1:2]
    for index, text in enumerate(texts):
        if text == b"--id" and index + 1 < len(texts):
            yield texts[index + 1]
        elif text.startswith(b"--id="):
            yield text.removeprefix(b"--id=")


def _read_grub_entry(
    data: bytes, names: tuple[bytes, ...], commands: Sequence[Sequence[Word]], variables: Mapping[bytes, bytes]
) -> MenuEntry:
    """Return what the commands of a GRUB entry load."""
    files, is_multiboot, known = list[LoadedFile](), False, dict(variables)
    for words in commands:
        command, loaded = data[words[0].start : words[0].end], strip_options(words[1:])
        if _assign(words, known):
            continue
        if loaded and (_LINUX.fullmatch(command) or _PROGRAM.fullmatch(command)):
            is_multiboot = bool(_PROGRAM.fullmatch(command))
            files = [_grub_file(data, loaded, known)] if is_multiboot or is_linux(loaded[0].text) else []
        elif files and loaded and _MODULE.fullmatch(command):
            files.append(_grub_file(data, loaded, known))
        elif files and _INITRD.fullmatch(command):
            paths = [path for word in words[1:] for path in _expand_word(data, word, known)]
            files = [files[0], *map(LoadedFile, paths)]  # what an earlier command loaded is dropped
    return MenuEntry(names=names, files=tuple(files), is_multiboot=is_multiboot)


def _grub_file(data: bytes, words: Sequence[Word], variables: Mapping[bytes, bytes]) -> LoadedFile:
    """Return a file with its arguments, which GRUB quotes for the kernel (grub_create_loader_cmdline)."""
    texts = [text for word in words[1:] for text in _expand_word(data, word, variables)]
    arguments = tuple(b'"%b"' % text if re.search(rb"\s", text) else text for text in texts)
    return LoadedFile(_expand(words[0].text, variables), arguments)


def _assign(words: Sequence[Word], variables: dict[bytes, bytes]) -> bool:
    """Set the variable that a command sets, ``set name=value`` or ``name=value``; return whether it does."""
    text = words[1].text if words[0].text == b"set" and len(words) > 1 else words[0].text
    name, equals, value = text.partition(b"=")
    if not equals or not _NAME.fullmatch(name):
        return False
    variables[name] = _expand(value, variables)
    return True


def _expand_word(data: bytes, word: Word, variables: Mapping[bytes, bytes]) -> list[bytes]:
    """Return the words that ``word`` becomes: with an unquoted variable it may be several, or none."""
    raw = data[word.start : word.end]
    text = word.text if raw.startswith(b"'") else _expand(word.text, variables)
    if raw[:1] not in (b"'", b'"') and b"$" in raw:
        return text.split()
    return [text] if text else []


def _expand(text: bytes, variables: Mapping[bytes, bytes]) -> bytes:
    """Return ``text`` with the values of its variables; ``$prefix`` and ``$root`` stay, since they are places."""
    return _VARIABLE.sub(
        lambda match: (
            match[0]
            if (match[1] or match[2]) in (b"prefix", b"root", b"cmdpath")
            else variables.get(match[1] or match[2], b"")
        ),
        text,
    )


def _read_syslinux(data: bytes) -> Iterator[MenuEntry]:
    """Yield the labels of a SYSLINUX configuration; ``DEFAULT`` with a kernel of its own is an entry too."""
    labels, shared, defaults = (
        list[tuple[bytes, dict[bytes, SyslinuxLine]]](),
        dict[bytes, SyslinuxLine](),
        set[bytes](),
    )
    marked = set[bytes]()
    for line in split_syslinux_lines(data):
        value = data[line.value : line.end]
        if line.keyword == b"label":
            labels.append((value, {}))
        elif line.keyword in (b"default", b"ontimeout") and not labels:
            defaults.add(value)
        elif line.keyword == b"menu" and value.lower() == b"default" and labels:
            marked.add(labels[-1][0])
        elif line.keyword == b"menu" and value[:6].lower() == b"label " and labels:
            labels[-1][1][b"title"] = line
        else:
            (labels[-1][1] if labels else shared)[
                b"kernel" if line.keyword in (b"linux", b"com32") else line.keyword
            ] = line
    for name, lines in labels:
        title = lines.get(b"title")
        names = (name, *([data[title.value + 6 : title.end].replace(b"^", b"").strip()] if title else ()))
        entry = _read_label(data, names, {b"append": shared[b"append"], **lines} if b"append" in shared else lines)
        if entry.files:
            yield replace(entry, is_default=name in (marked or defaults))


def _read_label(data: bytes, names: tuple[bytes, ...], lines: Mapping[bytes, SyslinuxLine]) -> MenuEntry:
    """Return what a SYSLINUX label loads."""
    nothing = MenuEntry(names=names, files=())
    kernel, *words = _syslinux_words(data, lines.get(b"kernel")) or (None,)
    if kernel is None:
        return nothing
    words += [word for word in _syslinux_words(data, lines.get(b"append")) if word.text != b"-"]
    program = kernel.text.replace(b"\\", b"/").rpartition(b"/")[2].lower()
    if program == MULTIBOOT and any(word.text == b"-c" for word in words):
        return nothing  # ESXi's own, which reads a boot.cfg
    if program == MULTIBOOT:
        modules: list[list[Word]] = [[]]
        for word in strip_options(words):
            modules.append([]) if word.text == b"---" else modules[-1].append(word)
        files = tuple(LoadedFile(module[0].text, _raw(data, module[1:])) for module in modules if module)
        return MenuEntry(names=names, files=files, is_multiboot=True)
    if program == LINUX_LOADER:
        kernel, *words = strip_options(words) or (None,)
    if kernel is None or not is_linux(kernel.text) or kernel.text.lower().endswith((b".c32", b".0", b".bin", b".com")):
        return nothing
    initrds = [path for word in words if word.text.startswith(b"initrd=") for path in word.text[7:].split(b",")]
    initrds = initrds or [
        path for word in _syslinux_words(data, lines.get(b"initrd")) for path in word.text.split(b",")
    ]
    arguments = _raw(data, [word for word in words if not word.text.startswith(b"initrd=")])
    files = (LoadedFile(kernel.text, arguments), *(LoadedFile(path) for path in initrds if path))
    return MenuEntry(names=names, files=files)


def _syslinux_words(data: bytes, line: SyslinuxLine | None) -> list[Word]:
    """Return the words of a line's value."""
    return [] if line is None else list(split_arguments(data, line.value, line.end))


def _raw(data: bytes, words: Sequence[Word]) -> tuple[bytes, ...]:
    """Return words as the menu spells them, with the kernel's quotes."""
    return tuple(data[word.start : word.end] for word in words)


def _read_loader_entry(data: bytes) -> Iterator[MenuEntry]:
    """Yield the entry of a loader/entries/*.conf, if it loads Linux."""
    values: dict[bytes, list[bytes]] = {}
    for line in data.splitlines():
        key, *value = line.split(None, 1) or (b"",)
        values.setdefault(key, []).append(b"".join(value).strip())
    kernels = values.get(b"linux", [])
    if kernels and is_linux(kernels[0]):
        options = b" ".join(values.get(b"options", []))
        words = split_arguments(options, 0, len(options))
        arguments = _raw(options, [word for word in words if not word.text.startswith(b"initrd=")])
        initrds = [path for value in values.get(b"initrd", []) for path in value.split()]
        files = (LoadedFile(kernels[0], arguments), *map(LoadedFile, initrds))
        yield MenuEntry(names=tuple(values.get(b"title", [])), files=files)
