"""Decide which files are boot menus, by their names and their contents."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from cosremaster.boot_config.menus.assignments import detect_assignments, parse_esxi, parse_xen
from cosremaster.boot_config.menus.grub import parse_grub
from cosremaster.boot_config.menus.loader import parse_loader_entry
from cosremaster.boot_config.menus.model import Menu, MenuLanguage
from cosremaster.boot_config.menus.syslinux import parse_syslinux
from cosremaster.iso.path_text import PathText
from cosremaster.lazy_regex import lazy_regex

MAX_MENU = 1 << 20
"""Bytes of the largest file that is taken for a menu."""

_ENTRY = lazy_regex(rb"(?:^|/)loader/entries/[^/]+\.conf$", re.IGNORECASE)
_GRUB_NAME = lazy_regex(rb"(?:^|/)grub\.cfg$", re.IGNORECASE)
_SYSLINUX_NAME = lazy_regex(rb"(?:^|/)(?:(?:isolinux|syslinux|pxelinux|extlinux)\.(?:cfg|conf))$", re.IGNORECASE)
_ASSIGNMENTS_NAME = lazy_regex(rb"(?:^|/)(?:boot|xen[^/]*)\.cfg$", re.IGNORECASE)
_FOLDER = lazy_regex(rb"(?:^|/)(?:boot|efi|isolinux|syslinux|extlinux)(?:/|$)", re.IGNORECASE)
_CONFIGURATION = lazy_regex(rb"(?:^|/)[^/]+\.(?:cfg|conf)$", re.IGNORECASE)
_SAYS_SYSLINUX = lazy_regex(
    rb"^[ \t]*(?:label[ \t]+\S|append[ \t]|(?:menu[ \t]+)?include[ \t]+\S|default[ \t]+\S|ui[ \t]+\S)",
    re.IGNORECASE | re.MULTILINE,
)
_SAYS_GRUB = lazy_regex(
    rb"^[ \t]*(?:menuentry[ \t]|submenu[ \t]|search(?:\.\w+)?[ \t]|linux(?:16|efi)?[ \t]+[(/$\"']|set[ \t]+\w+="
    rb"|source[ \t]|configfile[ \t])",
    re.MULTILINE,
)
_DEVICE, _PREFIX = lazy_regex(rb"^\([^)]*\)"), lazy_regex(rb"^\$(?:prefix|\{prefix\})")
_LABEL = lazy_regex(rb"^[ \t]*label[ \t]+\S", re.IGNORECASE | re.MULTILINE)


def may_be_menu(path: bytes) -> bool:
    """Return True for a path that boot menus have.

    These are grub.cfg anywhere, isolinux.cfg and its kin, loader/entries/*.conf, boot.cfg and xen.cfg, and *.cfg and
    *.conf at the root or below boot, EFI, isolinux, syslinux, extlinux.
    """
    if b".c" not in path[-6:].lower():  # all of these end with .cfg or .conf, and $ allows a newline behind it
        return False
    if any(name.search(path) for name in (_ENTRY, _GRUB_NAME, _SYSLINUX_NAME, _ASSIGNMENTS_NAME)):
        return True
    folder = path.rpartition(b"/")[0]
    return bool(_CONFIGURATION.search(path) and (not folder or _FOLDER.search(folder)))


_PARSERS: dict[MenuLanguage, Callable[[bytes], Menu]] = {
    MenuLanguage.GRUB: parse_grub,
    MenuLanguage.LOADER_ENTRY: parse_loader_entry,
    MenuLanguage.ESXI: parse_esxi,
    MenuLanguage.XEN: parse_xen,
}


def parse_menu(
    path: bytes, data: bytes, *, language: MenuLanguage | None = None, inherited: bool = False
) -> Menu | None:
    """Parse the file ``path`` as a boot menu; return None if it is no menu.

    :param language: the language of the menu that includes it.
    :param inherited: as for :func:`parse_syslinux`.
    """
    if b"\0" in data or len(data) > MAX_MENU:
        return None
    language = language or detect_language(path, data)
    if language is MenuLanguage.SYSLINUX:
        return parse_syslinux(data, inherited=inherited)
    return _PARSERS[language](data) if language is not None else None


def detect_language(path: bytes, data: bytes) -> MenuLanguage | None:
    """Return the language of the menu in a file, by its name, else by its contents; None for a file that is no menu."""
    if _ENTRY.search(path):
        return MenuLanguage.LOADER_ENTRY
    if _GRUB_NAME.search(path):
        return MenuLanguage.GRUB
    if _SYSLINUX_NAME.search(path):
        return MenuLanguage.SYSLINUX
    assigned = detect_assignments(data)
    if assigned is not None:
        return assigned
    if _SAYS_GRUB.search(data) and not _LABEL.search(data):
        return MenuLanguage.GRUB
    return MenuLanguage.SYSLINUX if _SAYS_SYSLINUX.search(data) else None


def resolve_includes(menu: Menu, path: bytes, top: bytes) -> Iterable[bytes]:
    """Yield the paths, from the root, that the includes of ``menu`` may mean. Paths with a variable are left out.

    :param path: the path of ``menu``.
    :param top: the path of the menu that the boot loader begins with: SYSLINUX resolves paths from its directory.
    """
    home = (top if menu.language is MenuLanguage.SYSLINUX else path).rpartition(b"/")[0]
    for include in menu.includes:
        path_of_include = resolve_path(include, home)
        if path_of_include is not None:
            yield path_of_include


def resolve_path(name: bytes, home: bytes) -> bytes | None:
    """Return the path from the root that ``name`` in a menu in the directory ``home`` means; None with a variable."""
    name = _PREFIX.sub(lambda _: b"/" + home, _DEVICE.sub(b"", name))
    if b"$" in name or not name:
        return None
    whole = name if name.startswith(b"/") else home + b"/" + name
    parts = list[bytes]()
    for part in whole.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def find_menus(
    paths: PathText, read: Callable[[bytes], bytes], is_small: Callable[[bytes], bool] = lambda _: True
) -> dict[bytes, Menu]:
    """Return the menus of one file system by their paths, with the menus that they include.

    :param paths: the files of the file system, which may be very many.
    :param read: returns the bytes of a file; menus keep them.
    :param is_small: returns whether the file at a path is small enough for a menu.
    """
    dotted = paths.find_containing(b".c")
    likely = {path.lower(): path for path in dotted if may_be_menu(path) and is_small(path)}
    menus: dict[bytes, Menu] = {}
    waiting: list[tuple[bytes, bytes]] = []
    for path in sorted(likely.values()):
        menu = parse_menu(path, read(path))
        if menu is not None:
            menus[path] = menu
            waiting.append((path, path))
    while waiting:
        path, top = waiting.pop(0)
        menu = menus[path]
        for name in resolve_includes(menu, path, top):
            other = paths.find_last(name, is_small)
            old = menus.get(other) if other else None
            if other is None or (old is not None and (old.defaults or not menu.defaults)):
                continue
            data = old.data if old else read(other)
            language = detect_assignments(data) or menu.language
            new = parse_menu(other, data, language=language, inherited=menu.defaults)
            if new is not None and (old is None or new.language is old.language):
                menus[other] = new
                waiting.append((other, top))
    return dict(sorted(menus.items()))
