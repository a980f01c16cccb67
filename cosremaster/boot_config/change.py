"""From settings to bytes: new menus on the tree, patches inside FAT file systems and volume descriptors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from cosremaster.boot.fat_edit import replace_files
from cosremaster.boot_config.menus.arguments import ArgumentChanges, change_arguments, collect_arguments
from cosremaster.boot_config.menus.find import parse_menu
from cosremaster.boot_config.menus.model import Menu, apply_splices
from cosremaster.boot_config.menus.retarget import Mention, VolumeRename, find_mentions
from cosremaster.boot_config.places import BootMenus, LocatedFat, LocatedMenu, find_boot_menus
from cosremaster.boot_config.request import BootSettings
from cosremaster.boot_config.values import BootSettingsPlan, MenuChange
from cosremaster.errors import ImageError, OverlayError, printable
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.volume_id import (
    format_volume_uuid,
    make_identity_patches,
    read_volume_id,
    read_volume_uuid,
)
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import IsoImage
from cosremaster.units import lba_offset

_UNIFIED = re.compile(rb"EFI/Linux/[^/]+\.efi", re.IGNORECASE)
"""Where unified kernel images stand (UAPI.1, "Type #2 EFI Unified Kernel Images")."""

MAX_PROGRAM = 1 << 24
"""Bytes of the largest boot image or EFI program that is searched for the volume's old name."""


def plan_boot_settings(
    image: IsoImage, source: ByteSource, settings: BootSettings, edits: IsoEdits
) -> BootSettingsPlan:
    """What ``settings`` do to ``image``, whose tree ``edits`` change in the same run.

    :raises OverlayError: an argument that should go is nowhere (unless that is allowed), or no menu has a kernel.
    :raises UnsupportedError: a FAT file system, or UDF, cannot be changed safely. :raises SizeError: it has no room.
    :raises UsageError: a replacement can be understood in several ways.
    """
    if settings.is_empty:
        return BootSettingsPlan()
    found = find_boot_menus(image, edits)
    targets = tuple(_targets(image, source, settings))
    warnings = [*found.warnings] if settings.changes_arguments or targets else []
    changes = _changes(image, settings, found, warnings) if settings.changes_arguments else ArgumentChanges()
    done, new = list[MenuChange](), list[tuple[LocatedMenu, bytes]]()
    for place in found.menus:
        mentions = find_mentions(place.menu, targets)
        if not settings.retarget:
            warnings += [_looks_for(place, one) for one in mentions]
            mentions = ()
        menu = _retargeted(place.menu, mentions)
        data, lines = change_arguments(menu, changes)
        told = tuple((one.line, printable(one.text)) for one in mentions)
        done.append(
            MenuChange(place.label, place.menu.language.value, lines if settings.changes_arguments else (), told)
        )
        if data != place.menu.data:
            new.append((place, data))
    warnings += _programs(image, found, targets)
    patches = dict(make_identity_patches(image, source, settings.volume_id, settings.volume_date))
    files, inside = _written(new)
    kept = {offset: data for offset, data in (patches | inside).items() if source.read(offset, len(data)) != data}
    return BootSettingsPlan(
        replaced=files,
        overwritten=kept,
        menus=tuple(done),
        volume_renames=targets,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _targets(image: IsoImage, source: ByteSource, settings: BootSettings) -> Iterator[VolumeRename]:
    """What the volume was found by and is to be found by."""
    if settings.volume_id is not None and (old := read_volume_id(image, source)) not in (b"", settings.volume_id):
        yield VolumeRename("volume id", old, settings.volume_id, is_unique=False)
    old_uuid = read_volume_uuid(image, source)
    if settings.volume_date is not None and old_uuid not in (None, new := format_volume_uuid(settings.volume_date)):
        assert old_uuid is not None
        yield VolumeRename("volume date", old_uuid, new, is_unique=True)


def _changes(image: IsoImage, settings: BootSettings, found: BootMenus, warnings: list[str]) -> ArgumentChanges:
    """The changes to arguments that are there."""
    if not any(place.menu.lines for place in found.menus):
        raise OverlayError("has no boot menu that names a kernel, so no kernel argument can change", image.place)
    known = collect_arguments(place.menu for place in found.menus)
    settled = [(one, one.resolve(known)) for one in settings.replace]
    missing = [printable(one.given) for one in settings.remove if one.text not in known]
    missing += [printable(one.choices[0][0].given) for one, pair in settled if pair is None]
    if missing and not settings.allow_missing:
        raise OverlayError(f"no boot menu has the kernel argument {' or '.join(missing)}", image.place)
    programs = [(printable(file.path), file.path) for file in image.files]
    programs += [(f"{fat.name} » {printable(path)}", path) for fat in found.fats for path in fat.files]
    warnings += [
        f"{name} is a kernel with arguments of its own inside, which stay as they are"
        for name, path in programs if _UNIFIED.fullmatch(path)
    ]  # fmt: skip
    return ArgumentChanges(remove=settings.remove, replace=tuple(pair for _, pair in settled if pair), add=settings.add)


def _looks_for(place: LocatedMenu, mention: Mention) -> str:
    target = mention.rename
    return (
        f"{place.label} line {mention.line}: {printable(mention.text)}: looks for the old {target.attribute}"
        f" {printable(target.old)} (--retarget changes it)"
    )


def _retargeted(menu: Menu, mentions: Sequence[Mention]) -> Menu:
    """The menu that says new names; parsed anew, since what follows them moved."""
    if not mentions:
        return menu
    data = apply_splices(menu.data, (splice for one in mentions for splice in one.splices))
    again = parse_menu(b"", data, language=menu.language, inherited=menu.defaults)
    assert again is not None
    return again


def _written(new: Iterable[tuple[LocatedMenu, bytes]]) -> tuple[dict[bytes, PieceTable], dict[int, bytes]]:
    """Files of the tree with their new bytes, and bytes inside FAT file systems that are no files."""
    files, overwritten = dict[bytes, PieceTable](), dict[int, bytes]()
    inside: dict[int, tuple[LocatedFat, dict[bytes, bytes]]] = {}
    for place, data in new:
        if place.fat is None:
            if place.path not in files:
                files |= dict.fromkeys(place.names, PieceTable([Literal(data)]))
        else:
            inside.setdefault(id(place.fat), (place.fat, {}))[1][place.path] = data
    for fat, menus in inside.values():
        patches = replace_files(fat.fat, menus)
        if fat.paths:
            files |= dict.fromkeys(fat.paths, fat.table.patched(patches))
        else:
            overwritten |= {fat.offset + at: data for at, data in patches}
    return files, overwritten


def _programs(image: IsoImage, found: BootMenus, targets: Sequence[VolumeRename]) -> Iterator[str]:
    """Boot images and EFI programs that hold an old name, which nobody can change in them."""
    if not targets:
        return
    starts = {path for fat in found.fats for path in fat.paths}
    for number, boot in enumerate(image.boot_images, 1):
        start = lba_offset(boot.entry.lba)
        if boot.length > MAX_PROGRAM or boot.path in starts or _is_fat(found, start):
            continue
        name = f"El Torito entry {number}" if boot.path is None else printable(boot.path)
        yield from _holds(name, b"".join(image.source.cut(start, start + boot.length).chunks()), targets)
    for fat in found.fats:
        menus = {place.path for place in found.menus if place.fat is fat}
        for path, file in fat.files.items():
            if path not in menus and file.size <= MAX_PROGRAM:
                with suppress(ImageError):  # what cannot be read does not boot
                    yield from _holds(f"{fat.name} » {printable(path)}", fat.fat.read_file(file), targets)


def _is_fat(found: BootMenus, start: int) -> bool:
    return any(not fat.paths and fat.offset == start for fat in found.fats)


def _holds(name: str, data: bytes, targets: Iterable[VolumeRename]) -> Iterator[str]:
    for target in targets:
        alone = rb"(?<![A-Za-z0-9_.-])" + re.escape(target.old) + rb"(?![A-Za-z0-9_-])"
        if re.search(alone, data):
            yield (
                f"{name} has the old {target.attribute} {printable(target.old)} built in, which cannot be changed there"
            )
