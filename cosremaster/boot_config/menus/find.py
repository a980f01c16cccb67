"""Which files are boot menus, by their names and by what stands in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from cosremaster.boot_config.menus.grub import parse_grub
from cosremaster.boot_config.menus.loader import parse_loader_entry
from cosremaster.boot_config.menus.model import Menu, MenuLanguage
from cosremaster.boot_config.menus.syslinux import parse_syslinux

MAX_MENU = 1 << 20
"""Bytes of the largest file that is taken for a menu."""

_ENTRY = re.compile(rb"(?:^|/)loader/entries/[^/]+\.conf$", re.IGNORECASE)
_GRUB_NAME = re.compile(rb"(?:^|/)grub\.cfg$", re.IGNORECASE)
_SYSLINUX_NAME = re.compile(rb"(?:^|/)(?:(?:isolinux|syslinux|pxelinux|extlinux)\.(?:cfg|conf))$", re.IGNORECASE)
_FOLDER = re.compile(rb"(?:^|/)(?:boot|efi|isolinux|syslinux|extlinux)(?:/|$)", re.IGNORECASE)
_CONFIGURATION = re.compile(rb"(?:^|/)[^/]+\.(?:cfg|conf)$", re.IGNORECASE)
_SAYS_SYSLINUX = re.compile(
    rb"^[ \t]*(?:label[ \t]+\S|append[ \t]|(?:menu[ \t]+)?include[ \t]+\S|default[ \t]+\S|ui[ \t]+\S)",
    re.IGNORECASE | re.MULTILINE,
)
_SAYS_GRUB = re.compile(
    rb"^[ \t]*(?:menuentry[ \t]|submenu[ \t]|search(?:\.\w+)?[ \t]|linux(?:16|efi)?[ \t]+[(/$\"']|set[ \t]+\w+="
    rb"|source[ \t]|configfile[ \t])",
    re.MULTILINE,
)
_DEVICE, _PREFIX = re.compile(rb"^\([^)]*\)"), re.compile(rb"^\$(?:prefix|\{prefix\})")
_LABEL = re.compile(rb"^[ \t]*label[ \t]+\S", re.IGNORECASE | re.MULTILINE)


def may_be_menu(path: bytes) -> bool:
    """True for a name that menus have: grub.cfg anywhere, isolinux.cfg and its kin, loader/entries/*.conf, *.cfg and
    *.conf at the root or below boot, EFI, isolinux, syslinux."""
    if _ENTRY.search(path) or _GRUB_NAME.search(path) or _SYSLINUX_NAME.search(path):
        return True
    folder = path.rpartition(b"/")[0]
    return bool(_CONFIGURATION.search(path) and (not folder or _FOLDER.search(folder)))


def parse_menu(
    path: bytes, data: bytes, *, language: MenuLanguage | None = None, inherited: bool = False
) -> Menu | None:
    """The menu that the file ``path`` holds; None where it holds none. ``told``: what the menu that includes it is;
    ``inherited`` as in ``parse_syslinux``."""
    kind = language or detect_language(path, data)
    if kind is None or b"\0" in data or len(data) > MAX_MENU:
        return None
    if kind is MenuLanguage.SYSLINUX:
        return parse_syslinux(data, inherited=inherited)
    return parse_grub(data) if kind is MenuLanguage.GRUB else parse_loader_entry(data)


def detect_language(path: bytes, data: bytes) -> MenuLanguage | None:
    """The language of the menu in a file, by its name, else by what it says."""
    if _ENTRY.search(path):
        return MenuLanguage.LOADER_ENTRY
    if _GRUB_NAME.search(path):
        return MenuLanguage.GRUB
    if _SYSLINUX_NAME.search(path):
        return MenuLanguage.SYSLINUX
    if _SAYS_GRUB.search(data) and not _LABEL.search(data):
        return MenuLanguage.GRUB
    return MenuLanguage.SYSLINUX if _SAYS_SYSLINUX.search(data) else None


def resolve_includes(menu: Menu, path: bytes, top: bytes) -> Iterable[bytes]:
    """The paths, from the root, that the menus may have which ``menu`` at ``path`` includes.

    ``top``: the path of the menu that the loader began with: SYSLINUX counts from its folder. What a variable would
    have to tell is left out.
    """
    home = (top if menu.language is MenuLanguage.SYSLINUX else path).rpartition(b"/")[0]
    for told in menu.includes:
        name = _PREFIX.sub(lambda _: b"/" + home, _DEVICE.sub(b"", told))
        if b"$" in name or not name:
            continue
        whole = name if name.startswith(b"/") else home + b"/" + name
        parts = list[bytes]()
        for part in whole.split(b"/"):
            if part == b"..":
                parts = parts[:-1]
            elif part not in (b"", b"."):
                parts.append(part)
        yield b"/".join(parts)


def find_menus(names: Iterable[bytes], read: Callable[[bytes], bytes]) -> dict[bytes, Menu]:
    """The menus among the files ``names`` of one file system, by their paths, with those that they include.

    ``read`` gives a file's bytes; it is asked for no file that is too large, and each answer is kept.
    """
    known = {path.lower(): path for path in names}
    found: dict[bytes, Menu] = {}
    waiting: list[tuple[bytes, bytes]] = []
    for path in sorted(known.values()):
        menu = parse_menu(path, read(path)) if may_be_menu(path) else None
        if menu is not None:
            found[path] = menu
            waiting.append((path, path))
    while waiting:
        path, top = waiting.pop(0)
        menu = found[path]
        for name in resolve_includes(menu, path, top):
            other = known.get(name.lower())
            old = found.get(other) if other else None
            if other is None or (old is not None and (old.defaults or not menu.defaults)):
                continue
            new = parse_menu(other, old.data if old else read(other), language=menu.language, inherited=menu.defaults)
            if new is not None and (old is None or new.language is old.language):
                found[other] = new
                waiting.append((other, top))
    return dict(sorted(found.items()))
