"""Turn boot settings into bytes: new menus on the tree, patches in FAT file systems and volume descriptors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from cosremaster.boot.fat_edit import FatEdits, edit_fat
from cosremaster.boot_config.boot_menus import BootMenus, LocatedMenu, find_boot_menus
from cosremaster.boot_config.embed_areas import update_description
from cosremaster.boot_config.menu_change import MenuChange
from cosremaster.boot_config.menus.arguments import (
    ArgumentChanges,
    LineChange,
    collect_arguments,
    find_lost_argument,
    plan_arguments,
)
from cosremaster.boot_config.menus.find import may_be_menu, parse_menu
from cosremaster.boot_config.menus.karg_areas import KargArea, parse_karg_area, splice_areas
from cosremaster.boot_config.menus.model import Menu
from cosremaster.boot_config.menus.retarget import Mention, VolumeRename, find_mentions
from cosremaster.boot_config.request import BootSettings
from cosremaster.boot_config.values import BootSettingsPlan
from cosremaster.errors import ImageError, OverlayError, SizeError, UnsupportedError, printable
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.source import ByteSource
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.fats import LocatedFat
from cosremaster.iso.model import IsoImage
from cosremaster.iso.unified_kernels import find_unified_kernels
from cosremaster.iso.volume_id import format_volume_uuid, make_identity_patches, read_volume_id, read_volume_uuid
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records.tuples import NamedTuple
from cosremaster.units import lba_offset

_UNIFIED = lazy_regex(rb"EFI/Linux/[^/]+\.efi", re.IGNORECASE)
"""Paths of unified kernel images (UAPI.1, "Type #2 EFI Unified Kernel Images")."""

_OTHER_MENUS = {
    loader: lazy_regex(rb"(?:^|/)(?:" + names + rb")$", re.IGNORECASE)
    for loader, names in (
        ("GRUB Legacy", rb"menu\.lst"), ("yaboot", rb"yaboot\.conf"), ("zipl", rb"zipl\.conf"),
        ("iPXE", rb"[^/]+\.ipxe"), ("rEFInd", rb"refind[^/]*\.conf"), ("ELILO", rb"elilo\.conf"),
        ("SILO", rb"silo\.conf"),
    )
}  # fmt: skip
"""Boot loaders, and patterns for the paths of their menus, whose languages are not parsed."""

MAX_PROGRAM = 1 << 24
"""Bytes of the largest boot image or EFI program that is searched for the volume's old name."""


class ChangedMenu(NamedTuple):
    """A menu, its new bytes, and where its areas for kernel arguments are in these."""

    located: LocatedMenu
    data: bytes
    areas: tuple[KargArea, ...]


def plan_boot_settings(
    image: IsoImage, source: ByteSource, settings: BootSettings, edits: IsoEdits
) -> BootSettingsPlan:
    """Return what ``settings`` do to ``image``, whose tree ``edits`` change in the same run.

    :raises OverlayError: when an argument to remove is in no menu (unless that is allowed), or no menu has a kernel.
    :raises UnsupportedError: when a menu is not understood, or a FAT file system, or UDF, cannot be changed safely.
    :raises SizeError: when a FAT file system has no room.
    :raises UsageError: when a replacement is ambiguous.
    """
    if settings.is_empty:
        return BootSettingsPlan()
    _refuse_taken_names(image, edits)
    boot_menus = find_boot_menus(image, edits)
    renames = tuple(_volume_renames(image, source, settings))
    warnings = [*boot_menus.warnings] if settings.changes_arguments or renames else []
    changes = ArgumentChanges()
    if settings.changes_arguments:
        changes = _resolve_changes(image, settings, boot_menus)
        warnings += [*_unified_kernel_warnings(image, boot_menus), *_other_menu_warnings(image, boot_menus)]
    menu_changes, changed = list[MenuChange](), list[ChangedMenu]()
    for located in boot_menus.menus:
        mentions = find_mentions(located.menu, renames)
        if not settings.retarget:
            warnings += [_mention_warning(located, mention) for mention in mentions]
            mentions = ()
        new, lines = _change_menu(image, located, mentions, changes)
        retargeted = tuple((mention.line, printable(mention.text), printable(mention.new_text)) for mention in mentions)
        lines = lines if settings.changes_arguments else ()
        menu_changes.append(MenuChange(located.label, located.menu.language.value, lines, retargeted))
        if new.data != located.menu.data:
            changed.append(new)
    warnings += _program_warnings(image, boot_menus, renames)
    patches = dict(make_identity_patches(image, source, settings.volume_id, settings.volume_date))
    files, areas = _write_menus(changed)
    files |= _describe_areas(boot_menus, changed)
    return BootSettingsPlan(
        replaced=files,
        areas=areas,
        overwritten={at: data for at, data in patches.items() if source.read(at, len(data)) != data},
        menus=tuple(menu_changes),
        volume_renames=renames,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _refuse_taken_names(image: IsoImage, edits: IsoEdits) -> None:
    """Refuse a renamed menu whose old name another file gets, as edits name both alike."""
    old_paths = {file.path for file in image.files} if edits.renamed else set()
    for path in sorted(old_paths & {node.path for node in edits.added}):
        new = edits.new_path(path)
        if new is not None and new != path and may_be_menu(path):
            raise UnsupportedError(
                f"boot settings cannot change while {printable(path)} becomes {printable(new)} and another file takes "
                f"its name: rename it in one run, and change them in the next",
            )


def _volume_renames(image: IsoImage, source: ByteSource, settings: BootSettings) -> Iterator[VolumeRename]:
    """Yield the old and new id and date that the volume can be found by, where they change."""
    if settings.volume_id is not None and (old := read_volume_id(image, source)) not in (b"", settings.volume_id):
        yield VolumeRename("volume id", old, settings.volume_id, is_unique=False)
    old_uuid = read_volume_uuid(image, source)
    if settings.volume_date is not None and old_uuid not in (None, new := format_volume_uuid(settings.volume_date)):
        assert old_uuid is not None
        yield VolumeRename("volume date", old_uuid, new, is_unique=True)


def _resolve_changes(image: IsoImage, settings: BootSettings, boot_menus: BootMenus) -> ArgumentChanges:
    """Return the requested changes to kernel arguments; raise if an argument to remove or replace is missing.

    :raises UnsupportedError: when a menu has a line that cannot be changed.
    """
    for located in boot_menus.menus:
        for unread in located.menu.unread:
            label = f" ({printable(unread.label)})" if unread.label else ""
            raise UnsupportedError(
                f"{located.label} line {unread.number}{label} {unread.reason}; so no kernel argument can change"
                " (--add-iso exchanges that menu)",
                image.place,
            )
    if not any(located.menu.lines for located in boot_menus.menus):
        kernels = [kernel.name for kernel in find_unified_kernels(image, boot_menus.fats)]
        inside = f" ({', '.join(kernels)}: kernel and arguments in one program)" if kernels else ""
        raise OverlayError(
            f"has no boot menu that names a kernel, so no kernel argument can change{inside}", image.place
        )
    present = collect_arguments(located.menu for located in boot_menus.menus)
    resolved = [(replacement, replacement.resolve(present)) for replacement in settings.replace]
    missing = [printable(argument.given) for argument in settings.remove if argument.text not in present]
    missing += [printable(replacement.choices[0][0].given) for replacement, pair in resolved if pair is None]
    if missing and not settings.allow_missing:
        raise OverlayError(f"no boot menu has the kernel argument {' or '.join(missing)}", image.place)
    pairs = tuple(pair for _, pair in resolved if pair)
    return ArgumentChanges(remove=settings.remove, replace=pairs, add=settings.add)


def _unified_kernel_warnings(image: IsoImage, boot_menus: BootMenus) -> Iterator[str]:
    """Yield a warning for each unified kernel image: its arguments are inside it."""
    located = {kernel.name: kernel for kernel in find_unified_kernels(image, boot_menus.fats)}
    for name, path in _list_files(image, boot_menus):
        if name in located or _UNIFIED.fullmatch(path):
            arguments = located[name].unified.arguments if name in located else ""
            shown = f" ({printable(arguments)})" if arguments else ""
            yield f"{name} is a kernel with arguments of its own inside{shown}, which stay as they are"


def _other_menu_warnings(image: IsoImage, boot_menus: BootMenus) -> Iterator[str]:
    """Yield a warning for each menu in a language that cannot be changed."""
    for name, path in _list_files(image, boot_menus):
        for loader, pattern in _OTHER_MENUS.items():
            if pattern.search(path):
                yield f"{name} is a menu of {loader}, which stays as it is"


def _list_files(image: IsoImage, boot_menus: BootMenus) -> Iterator[tuple[str, bytes]]:
    """Yield name for people and path of each file of the tree and of the FAT file systems."""
    yield from ((printable(path), path) for path in image.trees[0].file_paths)
    yield from ((f"{fat.name} » {printable(path)}", path) for fat in boot_menus.fats for path in fat.files)


def _mention_warning(located: LocatedMenu, mention: Mention) -> str:
    """Return the warning for a menu that looks for the volume by its old name."""
    rename = mention.rename
    return (
        f"{located.label} line {mention.line}: {printable(mention.text)}: looks for the old {rename.attribute}"
        f" {printable(rename.old)} (--retarget changes it)"
    )


def _change_menu(
    image: IsoImage, located: LocatedMenu, mentions: Sequence[Mention], changes: ArgumentChanges
) -> tuple[ChangedMenu, tuple[LineChange, ...]]:
    """Return the menu with its new bytes, and the changes to each of its kernel lines.

    :raises UnsupportedError: when a new argument would not become one, because of what stands around it, or an area for
        kernel arguments would have to move and cannot.
    :raises SizeError: when such an area has no room.
    """
    try:
        renamed = (splice for mention in mentions for splice in mention.splices)
        data, areas = splice_areas(located.menu.data, renamed, located.areas)
        menu = _parse_again(located, data) if mentions else located.menu
        splices, lines = plan_arguments(menu, changes)
        data, areas = splice_areas(data, splices, areas)
    except (SizeError, UnsupportedError) as error:
        raise type(error)(f"{located.label}: {error.message}", image.place) from error
    number = find_lost_argument(menu, _parse_again(located, data), changes) if splices else None
    if number is not None:
        raise UnsupportedError(
            f"{located.label} line {number} would not pass on a new argument; so no kernel argument can change"
            " (--add-iso exchanges that menu)",
            image.place,
        )
    return ChangedMenu(located, data, areas), lines


def _parse_again(located: LocatedMenu, data: bytes) -> Menu:
    """Parse the new bytes ``data`` of a menu."""
    if located.part is not None:
        return parse_karg_area(data, located.part)
    again = parse_menu(b"", data, language=located.menu.language, inherited=located.menu.defaults)
    assert again is not None
    return again


def _write_menus(changed: Iterable[ChangedMenu]) -> tuple[dict[bytes, PieceTable], dict[int, PieceTable]]:
    """Return the new bytes of files on the tree, and those (by offset in the image) of FATs that are no files."""
    files, areas = dict[bytes, PieceTable](), dict[int, PieceTable]()
    by_fat: dict[int, tuple[LocatedFat, dict[bytes, PieceTable]]] = {}
    for located, data, _ in changed:
        table = PieceTable([Literal(data)])
        if located.part is not None:
            assert located.table is not None
            whole = files.get(located.path) or located.table
            files |= dict.fromkeys(located.names, whole.patched([(located.part.offset, data)]))
        elif located.fat is None:
            if located.path not in files:
                files |= dict.fromkeys(located.names, table)
        else:
            by_fat.setdefault(id(located.fat), (located.fat, {}))[1][located.path] = table
    for fat, menus in by_fat.values():
        new_table = fat.table.patched(edit_fat(fat.fat, FatEdits(replaced=menus)))
        if fat.paths:
            files |= dict.fromkeys(fat.paths, new_table)
        else:
            areas[fat.offset] = new_table
    return files, areas


def _describe_areas(boot_menus: BootMenus, changed: Iterable[ChangedMenu]) -> dict[bytes, PieceTable]:
    """Return the new bytes of the file that describes areas for kernel arguments, if one of them moved."""
    description = boot_menus.description
    if description is None:
        return {}
    areas = (area for menu in changed if menu.located.part is None for area in menu.areas)
    data = update_description(description.data, areas)
    return dict.fromkeys(description.names, PieceTable([Literal(data)])) if data != description.data else {}


def _program_warnings(image: IsoImage, boot_menus: BootMenus, renames: Sequence[VolumeRename]) -> Iterator[str]:
    """Yield a warning for each boot image or EFI program that contains an old name, which cannot be changed there."""
    if not renames:
        return
    fat_paths = {path for fat in boot_menus.fats for path in fat.paths}
    fat_offsets = {fat.offset for fat in boot_menus.fats if not fat.paths}
    for number, boot in enumerate(image.boot_images, 1):
        start = lba_offset(boot.entry.lba)
        if boot.length > MAX_PROGRAM or boot.path in fat_paths or start in fat_offsets:
            continue
        name = f"El Torito entry {number}" if boot.path is None else printable(boot.path)
        yield from _search_program(name, image.source.read(start, boot.length), renames)
    for fat in boot_menus.fats:
        menu_paths = {located.path for located in boot_menus.menus if located.fat is fat}
        for path, file in fat.files.items():
            if path not in menu_paths and file.size <= MAX_PROGRAM:
                with suppress(ImageError):  # an unreadable file does not boot
                    yield from _search_program(f"{fat.name} » {printable(path)}", fat.fat.read_file(file), renames)


def _search_program(name: str, data: bytes, renames: Iterable[VolumeRename]) -> Iterator[str]:
    """Yield a warning for each old name of the volume in the program ``data``."""
    for rename in renames:
        if re.search(rb"(?<![A-Za-z0-9_.-])" + re.escape(rename.old) + rb"(?![A-Za-z0-9_-])", data):
            old = f"{rename.attribute} {printable(rename.old)}"
            yield f"{name} has the old {old} built in, which cannot be changed there"
