"""The facts about an image, as callers get them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cosremaster.boot_config.boot_menus import find_boot_menus
from cosremaster.boot_memory.needs import estimate_image_memory, estimate_live_systems, estimate_packed_memory
from cosremaster.errors import printable
from cosremaster.iso.far_images import is_far
from cosremaster.layers.find import find_archive_files, group_shared_paths
from cosremaster.layers.formats import holds_format
from cosremaster.records.lazy_dataclass import dataclass, field
from cosremaster.records.tuples import NamedTuple
from cosremaster.reports.fact_sections import NUMBER, FactSection, make_section
from cosremaster.reports.fats import fat_system_lines, unified_kernel_lines
from cosremaster.reports.inspect import inspect_report, layer_reports
from cosremaster.reports.menus import menu_sections
from cosremaster.reports.roots import live_memory_lines, live_memory_report, root_lines, root_report
from cosremaster.reports.text import archives_lines, image_sections, layer_section, memory_lines
from cosremaster.units import format_size

if TYPE_CHECKING:
    from cosremaster.api.session import ImageSession
    from cosremaster.boot_config.boot_menus import BootMenus
    from cosremaster.boot_memory.estimate import MemoryEstimate
    from cosremaster.boot_memory.live_systems import LiveMemory
    from cosremaster.iso.model import SourceImage
    from cosremaster.layers.find import ArchiveFile
    from cosremaster.layers.model import Layer
    from cosremaster.layers.stacks import MountedRoot
    from cosremaster.layers.system_images import SystemImages
    from cosremaster.progress import Progress


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer of an image; sizes are in bytes.

    ``address``: as in ``"live.cgz::rootfs.cxz"``; ``files``: all names of the file on the image that holds it, as hard
    links have several. ``codec``: name of the compression, with its ``parameters`` in words;
    ``format``: of the archive; ``entries``: how many it has; ``packed`` and ``size``: compressed and decoded.
    ``looks_like``: ``system``, ``initramfs`` or ``archive``; ``chosen``: additions go to this layer. ``oddities``: what
    is unusual about it, each as the end of a sentence. ``dead_bytes``: of removed files and old tables, which a repack
    of a squashfs takes out; None above 100,000 inodes.
    """

    address: str
    files: tuple[str, ...]
    codec: str
    parameters: str
    format: str
    entries: int
    packed: int
    size: int
    looks_like: str
    chosen: bool
    oddities: tuple[str, ...] = ()
    dead_bytes: int | None = 0


@dataclass(frozen=True, slots=True)
class ArchiveInfo:
    """A file on an image that begins like an archive; ``size`` is in bytes."""

    path: str
    codec: str
    size: int


@dataclass(frozen=True, slots=True)
class FilesystemInfo:
    """A file on an image that is a file system; ``size`` is in bytes.

    ``kind``: as in ``a squashfs file system``; ``purpose``: what becomes of it, as in ``root of the running system``.
    ``is_layer``: it can be read and changed.
    """

    path: str
    kind: str
    size: int
    purpose: str
    is_layer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """The facts about an image; sizes are in bytes.

    ``kind``: ``iso9660``, ``initramfs``, ``disk``, or the format of another layer in a file of its own (``tar``,
    ``squashfs``, ``erofs``, ``ext4``); ``volume_id``: empty without a volume. ``archives``: the files that begin
    like archives; ``filesystems``: those that are file systems; ``layers``: None unless they were read;
    ``root_layer``: the address of the layer that additions go to, and else ``root_problem`` says why there is none.
    ``memory``: what it takes to boot each initramfs, by its path; ``live_memory``: what the boot entries of a live
    system take. ``lines``: these facts and more as text; ``sections``: these lines by what they tell, with rows of
    tables; ``values``: as plain values for JSON (docs/json.md).
    """

    path: str
    kind: str
    size: int
    volume_id: str
    archives: tuple[ArchiveInfo, ...]
    filesystems: tuple[FilesystemInfo, ...]
    layers: tuple[LayerInfo, ...] | None
    root_layer: str | None
    root_problem: str
    memory: dict[str, MemoryEstimate]
    live_memory: tuple[LiveMemory, ...]
    lines: tuple[str, ...] = field(repr=False, compare=False)
    sections: tuple[FactSection, ...] = field(repr=False, compare=False)
    values: dict[str, Any] = field(repr=False, compare=False)


class InfoParts(NamedTuple):
    """The parts of the facts about ``image`` as the rooms below have them; ``root_problem`` as in ImageInfo."""

    image: SourceImage
    archives: tuple[ArchiveFile, ...]
    filesystems: SystemImages
    layers: tuple[Layer, ...] | None
    chosen: Layer | None
    menus: BootMenus | None
    memory: dict[bytes, MemoryEstimate]
    root_problem: str
    mounted: MountedRoot | None = None
    live_memory: tuple[LiveMemory, ...] = ()


_UNSUPPORTED = "; not supported yet"


def info_sections(
    parts: InfoParts, filesystems: Sequence[FilesystemInfo], report: Mapping[str, Any]
) -> Iterator[FactSection]:
    """Yield the facts about an image; ``report``: its :func:`inspect_report`."""
    yield from image_sections(parts.image)
    if parts.menus is not None:
        yield from menu_sections(parts.menus)
    yield make_section(fat_system_lines(report["fats"]))
    yield make_section(unified_kernel_lines(report["unified_kernels"]))
    if parts.layers is None:
        yield make_section(archives_lines(parts.archives, is_alone=parts.image.volume is None))
    else:
        yield layer_section(parts.layers, parts.chosen, group_shared_paths(parts.image))
    yield _filesystem_section(filesystems)
    yield make_section(_start_lines(parts))


def _filesystem_section(filesystems: Sequence[FilesystemInfo]) -> FactSection:
    """Return the facts about the file systems on an image."""
    rows = tuple(
        (
            filesystem.path,
            filesystem.kind,
            format_size(filesystem.size),
            filesystem.purpose + ("" if filesystem.is_layer else _UNSUPPORTED),
        )
        for filesystem in filesystems
    )
    lines = tuple(f"file system {path}: {kind}, {size}, {purpose}" for path, kind, size, purpose in rows)
    return FactSection(lines, (), ("file system", "kind", f"size{NUMBER}", "what becomes of it"), rows)


def _start_lines(parts: InfoParts) -> Iterator[str]:
    """Yield lines about the root of the running system, and about the memory that a boot takes."""
    if parts.mounted is not None:
        yield from root_lines(parts.mounted)
    for path, need in parts.memory.items():
        yield from memory_lines(printable(path), need)
        for warning in need.warnings:
            yield f"warning: {printable(path)} {warning}"
    yield from live_memory_lines(parts.live_memory)
    if parts.root_problem:
        yield f"--add has no layer to go to: {parts.root_problem}"


def gather_info(session: ImageSession, *, deep: bool, layer: str | None, progress: Progress | None) -> ImageInfo:
    """Return the facts about the image of ``session``; the rest is as :meth:`Image.info` says."""
    opened = session.opened
    image, layers, chosen, problem = opened.image, None, None, ""
    if deep or layer is not None:
        image_layers = opened.layers(layer, progress)
        layers = image_layers.layers
        chosen, problem = session.choose_layer(image_layers, layer)
    menus = None if image.volume is None else find_boot_menus(image.volume, quick=not deep)
    loaded: Collection[bytes] = ()
    if menus is not None and is_far(image):  # else all files are looked at, whether a menu loads them or not
        from cosremaster.boot_config.boot_lines import list_loaded_files  # noqa: PLC0415

        loaded = list_loaded_files(menus.menus, image)
    archives, filesystems = find_archive_files(image, loaded)
    if layers is None:
        memory = estimate_packed_memory(
            (archive.path, archive.size) for archive in archives if archive.format.is_initramfs
        )
    else:
        memory = estimate_image_memory(image, layers)
    mounted = None
    if filesystems.roots:
        from cosremaster.layers.stacks import find_mounted_root  # noqa: PLC0415 - only live images have such roots

        mounted = find_mounted_root(image, opened.facts, [file.path for file in filesystems.roots])
    live_memory = () if mounted is None else estimate_live_systems(image, mounted.stack, opened.facts, memory)
    parts = InfoParts(image, archives, filesystems, layers, chosen, menus, memory, problem, mounted, live_memory)
    return make_info(parts)


def make_info(parts: InfoParts) -> ImageInfo:
    """Return the facts about an image."""
    image, archives = parts.image, parts.archives
    infos = None if parts.layers is None else layer_infos(image, parts.layers, parts.chosen)
    sizes = {file.path: file.size for file in image.files}
    report = inspect_report(image, archives, parts.layers, parts.chosen, parts.menus)
    rows: list[dict[str, Any]] = [
        {
            "path": printable(file.path),
            "kind": file.noun,
            "size": sizes[file.path],
            "purpose": purpose,
            "is_layer": holds_format(file.noun),
        }
        for file, purpose in parts.filesystems.by_purpose()
    ]
    filesystems = tuple(FilesystemInfo(**row) for row in rows)
    sections = tuple(info_sections(parts, filesystems, report))
    return ImageInfo(
        path=str(image.place), kind=image.kind, size=image.size,
        volume_id="" if image.volume is None else image.volume.volume_id,
        archives=tuple(ArchiveInfo(printable(archive.path), archive.codec, archive.size) for archive in archives),
        filesystems=filesystems, layers=infos,
        root_layer=next((info.address for info in infos or () if info.chosen), None),
        root_problem=parts.root_problem, memory={printable(path): need for path, need in parts.memory.items()},
        live_memory=parts.live_memory,
        values={
            **report,
            "filesystems": rows,
            "root": root_report(parts.mounted),
            "live_memory": live_memory_report(parts.live_memory),
        },
        lines=tuple(line for section in sections for line in section.lines), sections=sections,
    )  # fmt: skip


def layer_infos(image: SourceImage, layers: tuple[Layer, ...], chosen: Layer | None) -> tuple[LayerInfo, ...]:
    """Return the ``layers`` of ``image`` as callers get them."""
    return tuple(
        LayerInfo(**{**dict[str, Any](report), "files": tuple(report["files"]), "oddities": tuple(report["oddities"])})
        for report in layer_reports(image, layers, chosen)
    )
