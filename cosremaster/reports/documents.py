"""The types of the JSON that commands print, without those of public values (:mod:`cosremaster.cli.outcomes`).

mypy holds the functions that make the values against them, docs/json.md has the JSON Schema that is made from them, and
tests hold the commands' output against that.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class NodeDocument(TypedDict):
    """An entry inside an image."""

    address: str
    path: str
    type: Literal["file", "directory", "symlink", "char", "block", "fifo", "socket"]
    mode: str
    uid: int
    gid: int
    mtime: int
    size: int
    target: str | None
    device: list[int] | None
    xattrs: dict[str, str]


class DataPlaceDocument(TypedDict):
    """Where a part of a file's data lies."""

    start: int
    length: int
    holder: str
    offset: int | None
    lba: int | None
    packed: int | None


class PlacedNodeDocument(NodeDocument):
    """An entry of ``stat``, with the places of its data."""

    extents: list[DataPlaceDocument]
    implied: bool


class NodesDocument(TypedDict):
    """``ls``, ``stat``, ``find`` and ``tree``."""

    schema: Literal[1]
    nodes: list[NodeDocument | PlacedNodeDocument]


DifferenceKind = Literal["added", "removed", "type", "metadata", "content", "packing", "boot"]


class DifferenceDocument(TypedDict):
    """A difference of two addresses."""

    what: DifferenceKind
    address: str
    details: list[str]
    text: list[str]


class DiffDocument(TypedDict):
    """``diff``."""

    schema: Literal[1]
    a: str
    b: str
    different: bool
    differences: list[DifferenceDocument]


class CountsDocument(TypedDict):
    """Numbers of findings."""

    holds: int
    notes: int
    fails: int
    before: int


class FindingDocument(TypedDict):
    """What a check of ``verify`` found."""

    level: Literal["holds", "note", "fails"]
    check: str
    message: str
    place: list[str]
    offset: int | None
    before: bool


class VerifyDocument(TypedDict):
    """``verify``."""

    schema: int
    version: int
    image: str
    size: int
    ok: bool
    counts: CountsDocument
    findings: list[FindingDocument]


class SizesDocument(TypedDict):
    """A number before and after."""

    before: int
    after: int


class OutputSizesDocument(TypedDict):
    """Bytes of input and output. ``before``: null for ``pack``, which has no input."""

    before: int | None
    after: int


class PreparedLayerDocument(TypedDict):
    """A layer that ``prepare`` looked at."""

    layer: str
    codec: str
    reason: str | None
    parts: SizesDocument
    largest_part: SizesDocument
    packed: SizesDocument


class PreparationDocument(TypedDict):
    """``prepare``."""

    schema: Literal[1]
    output: str
    identical: bool
    seconds: float
    size: SizesDocument
    layers: list[PreparedLayerDocument]
    warnings: list[str]
    proof: list[str]


class MemoryDocument(TypedDict):
    """The memory that booting an initramfs takes."""

    packed: int
    unpacked: int | None
    nested: int | None
    need: int | None
    warnings: list[str]


class EditsDocument(TypedDict):
    """Paths that change in a layer."""

    added: list[str]
    replaced: list[str]
    removed: list[str]
    parents: list[str]
    unchanged: list[str]


class LayerChangeDocument(TypedDict):
    """What happens to another layer than the first."""

    layer: str
    files: list[str]
    edits: EditsDocument
    memory: MemoryDocument | None


class RenameDocument(TypedDict):
    """A path before and after."""

    before: str
    after: str


class IsoEditsDocument(TypedDict):
    """Paths that change in the ISO's own tree."""

    added: list[str]
    exchanged: list[str]
    removed: list[str]
    renamed: list[RenameDocument]
    unchanged: list[str]


class FatChangeDocument(TypedDict):
    """Paths that change in a FAT file system."""

    fat: str
    address: str
    added: list[str]
    exchanged: list[str]
    removed: list[str]
    unchanged: list[str]
    copies: dict[str, str]


class LineChangeDocument(TypedDict):
    """The changes to a kernel line of a boot menu; ``replaced``: pairs."""

    line: int
    added: list[str]
    removed: list[str]
    replaced: list[list[str]]
    kept: list[str]


class RetargetDocument(TypedDict):
    """A place in a boot menu that looks for the volume by another name."""

    line: int
    text: str
    new_text: str


class MenuChangeDocument(TypedDict):
    """The changes to a boot menu."""

    where: str
    kind: str
    lines: list[LineChangeDocument]
    retargeted: list[RetargetDocument]


class VolumeRenameDocument(TypedDict):
    """A volume's id or date before and after."""

    what: str
    before: str
    after: str


class OverwriteDocument(TypedDict):
    """Bytes outside files that change."""

    offset: int
    bytes: int


class ListChangeDocument(TypedDict):
    """Numbers of lines that change in a list of checksums."""

    path: str
    rewritten: int
    added: int
    dropped: int
    renamed: int


class SizeChangeDocument(TypedDict):
    """A size that a file on the ISO tells."""

    path: str
    of: str
    before: int
    after: int


class PartsDocument(TypedDict):
    """Blocks or frames: how many, and bytes of the largest."""

    count: int
    largest: int


class PartsChangeDocument(TypedDict):
    """Blocks or frames before and after."""

    before: PartsDocument
    after: PartsDocument


class PackedLayerDocument(TypedDict):
    """A layer that was packed again."""

    address: str
    codec: str
    size: int
    kept: int
    encoded: int
    stored: int
    parts: PartsChangeDocument | None


class EarlierPlanDocument(TypedDict):
    """Plain bytes that were taken packed from an earlier plan, and packed bytes that a plan keeps for the run."""

    taken: int
    kept: int


class DeadDocument(TypedDict):
    """What a repack of a squashfs would save."""

    layer: str
    repacked: str | None
    data: int | None
    metadata: int | None


class SupersededDocument(TypedDict):
    """Replaced entries that stay in a layer."""

    layer: str
    paths: list[str]
    bytes: int
    unpacker: str | None


class PiecesDocument(TypedDict):
    """Pieces of the new image of one origin."""

    pieces: int
    bytes: int


class PlaceDocument(TypedDict):
    """Blocks of the image."""

    lba: int
    blocks: int


class ExtentDocument(TypedDict):
    """Where an extent stood, and will stand."""

    what: str
    before: PlaceDocument
    after: PlaceDocument


class AppendedDocument(TypedDict):
    """New blocks."""

    what: str
    lba: int
    blocks: int


class NewImageDocument(TypedDict):
    """The new image."""

    size: SizesDocument
    blocks: SizesDocument
    extents: list[ExtentDocument]
    appended: list[AppendedDocument]


class LeftoverDocument(TypedDict):
    """What a script left that nobody needs."""

    what: str
    paths: list[str]
    bytes: int
    left_out: bool


class RunDocument(TypedDict):
    """What came of a script."""

    script: str
    layer: str
    ids: str
    exit_code: int
    seconds: float
    network: bool
    remembered: bool
    added: list[str]
    changed: list[str]
    removed: list[str]
    leftovers: list[LeftoverDocument]
    notes: list[str]


class LiveMemoryDocument(TypedDict):
    """The memory that boot entries of a live system take."""

    entries: list[str]
    scheme: str
    argument: str
    copied: int
    need: int | None
    writes: str
    option: str
    option_copied: int
    option_need: int | None


class EarlyChangeDocument(TypedDict):
    """A change that makes a delta large."""

    layer: str
    path: str
    bytes: int


class DeltaDocument(TypedDict):
    """A delta that would be written."""

    bytes: int
    early: list[EarlyChangeDocument]


class WorkTimeDocument(TypedDict):
    """Work of a run: bytes, and about how many seconds they take; null where such work was never measured here."""

    kind: str
    method: str
    bytes: int
    seconds: float | None
    basis: Literal["measured", "remembered"] | None


class RunTimeDocument(TypedDict):
    """About how long the run will take.

    ``seconds``: of all work, null where some was never measured; ``at_least``: of what was, null where nothing was.
    """

    seconds: float | None
    at_least: float | None
    work: list[WorkTimeDocument]


class PlanDocument(TypedDict):
    """``plan``, ``build --plan``."""

    schema: int
    identical: bool
    layer: str | None
    edits: EditsDocument
    files: list[str]
    further_layers: list[LayerChangeDocument]
    iso: IsoEditsDocument
    fats: list[FatChangeDocument]
    menus: list[MenuChangeDocument]
    renamed: list[VolumeRenameDocument]
    overwritten: list[OverwriteDocument]
    sums: list[ListChangeDocument]
    sizes: list[SizeChangeDocument]
    signatures: list[str]
    layers: list[PackedLayerDocument]
    dead: list[DeadDocument]
    superseded: list[SupersededDocument]
    pieces: dict[str, PiecesDocument]
    image: NewImageDocument
    runs: list[RunDocument]
    memory: MemoryDocument | None
    live_memory: list[LiveMemoryDocument]
    delta: DeltaDocument | None
    time: RunTimeDocument | None
    earlier_plan: EarlierPlanDocument
    warnings: list[str]


class TreeDocument(TypedDict):
    """A tree of names of a volume."""

    kind: str
    descriptor: int
    base: int
    blocks: int


class ImageDocument(TypedDict):
    """An image as a whole."""

    path: str
    kind: str
    size: int
    volume_id: str
    blocks: int
    rock_ridge: bool
    files: int
    directories: int
    trees: list[TreeDocument]
    udf: bool
    session: int
    implanted_md5: str | None
    media_digest: str | None


class BootEntryDocument(TypedDict):
    """An entry of the El Torito catalog."""

    platform: str
    media: str
    bootable: bool
    load_sectors: int
    lba: int
    size: int
    path: str | None
    boot_info_table: bool
    grub2_boot_info: bool


class MbrPartitionDocument(TypedDict):
    """A partition of the master boot record."""

    number: int
    type: int
    active: bool
    start: int
    sectors: int


class MbrDocument(TypedDict):
    """The master boot record."""

    pointer: str | None
    partitions: list[MbrPartitionDocument]


class PartitionDocument(TypedDict):
    """A partition of any table."""

    table: str
    number: int
    start: int
    end: int
    label: str


class BootDocument(TypedDict):
    """Boot records and partitions."""

    catalog: int | None
    entries: list[BootEntryDocument]
    mbr: MbrDocument | None
    gpt_copies: int
    apm_block_size: int | None
    partitions: list[PartitionDocument]
    firmware: list[str]


class KernelLineDocument(TypedDict):
    """A kernel line of a boot menu."""

    line: int
    kernel: str
    arguments: list[str]


class UnreadDocument(TypedDict):
    """Lines of a boot menu that are not understood."""

    line: int
    label: str
    reason: str


class MenuDocument(TypedDict):
    """A boot menu."""

    path: str
    fat: str | None
    kind: str
    kernels: list[KernelLineDocument]
    unread: list[UnreadDocument]


class FatDocument(TypedDict):
    """A FAT file system."""

    name: str
    address: str
    aliases: list[str]
    kind: str
    size: int
    free: int | None
    files: int
    copies: dict[str, str]


class UnifiedKernelDocument(TypedDict):
    """A unified kernel image."""

    name: str
    system: str
    kernel: int
    initramfs: int
    arguments: str


class SegmentDocument(TypedDict):
    """An archive of several in a file."""

    codec: str | None
    size: int
    entries: int | None
    early: bool


class ArchiveDocument(TypedDict):
    """A file that begins like an archive."""

    path: str
    format: str
    codec: str
    size: int
    segments: list[SegmentDocument]


class FileMemoryDocument(MemoryDocument):
    """The memory that booting the initramfs at ``path`` takes."""

    path: str


class LayerDocument(TypedDict):
    """A layer."""

    address: str
    files: list[str]
    codec: str
    parameters: str
    format: str
    entries: int
    packed: int
    size: int
    looks_like: Literal["archive", "initramfs", "system"]
    chosen: bool
    oddities: list[str]
    dead_bytes: int | None


class FilesystemDocument(TypedDict):
    """A file that is a file system."""

    path: str
    kind: str
    purpose: str
    size: int
    is_layer: bool


class OtherEntryDocument(TypedDict):
    """A boot entry that mounts another root."""

    entry: str
    layers: list[str]
    order: str


class RootDocument(TypedDict):
    """What the running system mounts as its root."""

    scheme: str
    order: str
    entry: str | None
    layers: list[str]
    missing: list[str]
    nested: str | None
    default: str | None
    reason: str
    other_entries: list[OtherEntryDocument]


class InspectDocument(TypedDict):
    """``inspect``."""

    schema: int
    image: ImageDocument
    boot: BootDocument
    menus: list[MenuDocument]
    fats: list[FatDocument]
    unified_kernels: list[UnifiedKernelDocument]
    menu_warnings: list[str]
    unsupported: list[str]
    archives: list[ArchiveDocument]
    memory: list[FileMemoryDocument]
    layers: list[LayerDocument] | None
    filesystems: list[FilesystemDocument]
    root: RootDocument | None
    live_memory: list[LiveMemoryDocument]


class ChangedLayerDocument(TypedDict):
    """The changes of a layer."""

    layer: str
    files: list[str]
    size: int
    edits: EditsDocument
    memory: MemoryDocument | None
    repacked: str | None
    superseded: list[str]
    superseded_bytes: int


class WrittenDeltaDocument(DeltaDocument):
    """A delta that was written."""

    base_sha256: str
    sha256: str


class ResultDocument(TypedDict):
    """``remaster``, ``build``, ``shell`` and ``pack``."""

    schema: Literal[1]
    output: str
    identical: bool
    size: OutputSizesDocument
    layers: list[ChangedLayerDocument]
    iso: IsoEditsDocument
    fats: list[FatChangeDocument]
    menus: list[MenuChangeDocument]
    sums: list[ListChangeDocument]
    sizes: list[SizeChangeDocument]
    signatures: list[str]
    packed: list[PackedLayerDocument]
    live_memory: list[LiveMemoryDocument]
    runs: list[RunDocument]
    delta: WrittenDeltaDocument | None
    earlier_plan: EarlierPlanDocument
    warnings: list[str]
    proof: list[str]
    upload: str | None


class AppliedDocument(TypedDict):
    """``apply``."""

    schema: Literal[1]
    output: str
    size: int
    sha256: str
    proof: list[str]


class ExtractionDocument(TypedDict):
    """``extract``."""

    schema: Literal[1]
    output: str
    entries: int
    files: int
    directories: int
    others: int
    size: int
    mtree: str | None
    without_xattrs: list[str]


class ExportDocument(TypedDict):
    """``export``. ``size`` and ``sha256``: of the archive, null for a network boot, which has none."""

    schema: Literal[1]
    files: list[str]
    size: int | None
    sha256: str | None
    command: str | None
    layer: str | None
    entry: str | None


class IndexDocument(TypedDict):
    """``index``: the layers of the image, and the file that keeps the index, or null."""

    schema: Literal[1]
    remembered: str | None
    layers: list[LayerDocument]


class RememberedDocument(TypedDict):
    """A remembered index; ``used``: seconds since 1970; ``image``: empty where it is of another version."""

    path: str
    image: str
    size: int
    used: float


class CacheDocument(TypedDict):
    """``cache``; ``removed``: how many indexes ``clear`` removed, else null."""

    schema: Literal[1]
    folder: str
    indexes: list[RememberedDocument]
    runs: int
    runs_size: int
    plans: int
    plans_size: int
    removed: int | None


class SiteDeltaDocument(TypedDict):
    """The delta of a site."""

    base_sha256: str
    result_sha256: str
    result_size: int
    note_sha256: str


class SiteDocument(TypedDict):
    """A site of a fleet."""

    site: str
    path: str
    state: str
    size: int
    sha256: str
    seconds: float
    changes: dict[str, int] | None
    warnings: list[str]
    error: str | None
    exit_code: int
    key: str
    mtime_ns: int
    delta: SiteDeltaDocument | None


class FleetDocument(TypedDict):
    """``fleet``."""

    schema: Literal[1]
    folder: str
    sites: list[SiteDocument]


class PlannedSiteDocument(TypedDict):
    """A site that ``fleet`` would make, and why."""

    site: str
    output: str
    reason: str


class FleetPlanDocument(TypedDict):
    """``fleet --plan``."""

    schema: Literal[1]
    folder: str
    pending: list[PlannedSiteDocument]
    current: list[SiteDocument]


class ErrorPlaceDocument(TypedDict):
    """Where an error is: names of containers, the outermost first, and bytes in the last."""

    parts: list[str]
    offset: int | None


class ErrorValuesDocument(TypedDict):
    """Why a command failed."""

    code: int
    kind: str
    message: str
    place: ErrorPlaceDocument | None


class ErrorDocument(TypedDict):
    """Any command with ``--json`` that fails."""

    schema: Literal[1]
    error: ErrorValuesDocument
