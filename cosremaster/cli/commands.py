"""The commands around a remaster: it, its plan, what there is in an image, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cosremaster.api.image import Image
from cosremaster.cli.colors import paint_mark
from cosremaster.cli.expected import takes_expected
from cosremaster.cli.group import refuse_command
from cosremaster.cli.looking import LookingProgress
from cosremaster.cli.messages import say
from cosremaster.cli.options import (
    GZIP,
    JSON,
    MAX_EXPAND,
    ORDER,
    QUIET,
    FileText,
    InputPath,
    InsideText,
    LocalPath,
    NewFilePath,
    OutputPath,
    StreamPath,
    StrictCommand,
)
from cosremaster.cli.run_options import RUN_OPTIONS, order_items, pop_scripts
from cosremaster.cli.standard_streams import reporting_finished_work, write_json
from cosremaster.cli.terminal import terminal_progress
from cosremaster.errors import UsageError
from cosremaster.io.files import SHOWN_NAMES
from cosremaster.io.output import DIGESTS
from cosremaster.io.urls import Url
from cosremaster.overlay.request import AddPath
from cosremaster.records.lazy_dataclass import field_names, replace
from cosremaster.remastering.request import Request
from cosremaster.units import format_size

if TYPE_CHECKING:
    from cosremaster.api.results import ChangedLayer, Result

_CHECK_INDEX = click.option(
    "--check-index", is_flag=True, help="Trust a remembered index only if the files of IN have its SHA-256."
)
_DELTA = click.option(
    "--delta", is_flag=True,
    help="The output is the difference from IN, for `cosremaster apply` and xdelta3, and no image.",
)  # fmt: skip
_IMAGE = click.argument("source", metavar="IN", type=InputPath())
_REQUEST = (
    click.option(
        "--add", multiple=True, type=FileText(), metavar="SRC[:DEST]",
        help="Add a file, or the contents of a directory or an archive (by its name; - is a tar on standard input), to"
        " the root filesystem. DEST is absolute in it; a file goes into DEST if that ends in / or is a directory."
        " Without DEST contents merge at /. May be given again.",
    ),
    *RUN_OPTIONS,
    click.option(
        "--add-iso", multiple=True, type=FileText(), metavar="SRC:DEST",
        help="Add a file, or the contents of a directory or an archive, to the ISO's own tree, by the rules of --add;"
        " a file that is there is exchanged. DEST may lead into a FAT file system (/EFI/efiboot.img::/EFI/BOOT/,"
        " @gpt2::/EFI). May be given again.",
    ),
    click.option(
        "--remove-iso", multiple=True, type=InsideText(), metavar="PATTERN",
        help="Remove what fits from the ISO's own tree, directories with what is in them, before anything is renamed or"
        " added. May be given again.",
    ),
    click.option(
        "--rename-iso", multiple=True, type=InsideText(), metavar="OLD:NEW",
        help="Give a file or directory of the ISO's own tree another name. NEW is absolute; it goes into NEW if that"
        " ends in / or is a directory. May be given again.",
    ),
    click.option(
        "--drop-hfsplus", is_flag=True,
        help="Give up an HFS+ file system that names what changes on the ISO too; only old Macs use it.",
    ),
    click.option(
        "--keep-sums", is_flag=True,
        help="Leave lists of sums on the ISO, such as md5sum.txt, as they are, though they become wrong.",
    ),
    click.option(
        "--keep-fat-copies", is_flag=True,
        help="Leave copies of changed files in FAT file systems, such as an EFI system partition, as they are.",
    ),
    click.option(
        "--drop-signatures", is_flag=True,
        help="Remove signatures and dm-verity hashes beside files that change, and the kernel arguments that demand"
        " them.",
    ),
    click.option(
        "--add-file", multiple=True, type=FileText(), metavar="SRC:DEST",
        help="Add an archive as the file it is, after everything that --add brings. May be given again.",
    ),
    click.option(
        "--remove", multiple=True, metavar="PATTERN",
        help="Remove what fits, directories with what is in them, before anything is added. * and ? do not cross /,"
        " ** does. May be given again.",
    ),
    click.option(
        "--allow-missing", is_flag=True,
        help="Go on where --remove, --remove-iso, --remove-kernel-arg or --replace-kernel-arg finds nothing.",
    ),
    click.option(
        "--kernel-arg", "kernel_args", multiple=True, metavar="ARG",
        help="Add a kernel argument in every boot menu that lacks it. May be given again.",
    ),
    click.option(
        "--remove-kernel-arg", "remove_kernel_args", multiple=True, metavar="ARG",
        help="Remove a kernel argument, given whole (quiet, console=tty0), from every boot menu. May be given again.",
    ),
    click.option(
        "--replace-kernel-arg", "replace_kernel_args", multiple=True, metavar="KEY=OLD=NEW",
        help="Replace the kernel argument KEY=OLD by KEY=NEW in every boot menu. May be given again.",
    ),
    click.option("--volume-id", metavar="ID", help="Change the volume id, in every volume descriptor."),
    click.option(
        "--volume-date", metavar="DATE",
        help="Change the volume's modification date (by which GRUB finds it): ISO 8601 with time zone, or @SECONDS.",
    ),
    click.option(
        "--retarget", is_flag=True,
        help="Let boot menus that look for the volume by its old id or date look for the new one.",
    ),
    click.option(
        "--owner", metavar="OWNER", help="Who owns what is added: root, source (as found there) or UID:GID. Default:"
        " root, and for archives source.",
    ),
    click.option("--mode", metavar="MODE", help="Mode of the regular files that are added, as for chmod."),
    click.option(
        "--keep-modes", is_flag=True,
        help="Take modes as they are, with what the umask made of them. Without it files are 0644 or 0755.",
    ),
    click.option(
        "--setuid/--no-setuid", default=None, help="Keep set-user-ID, set-group-ID and sticky bits of what is added, or"
        " drop them. Default: keep those of archives whose owners are kept.",
    ),
    click.option(
        "--xattrs", metavar="WHICH", default="default", help="Extended attributes of what is added: none, all, or names"
        " and patterns (user.*,trusted.*); -NAME leaves one out. Default: user.*,security.capability.",
    ),
    click.option(
        "--mtree", type=FileText(), metavar="FILE",
        help="mtree(5) file with owners, modes and nodes of the directory that is added.",
    ),
    click.option("--force-type", is_flag=True, help="Let what is added replace things of another type."),
    click.option(
        "--maas-clean", is_flag=True,
        help="Remove host keys, cloud-init's state, apt's caches and *.dpkg-old, and empty the machine-id, before"
        " anything is added.",
    ),
    click.option(
        "--layer", multiple=True, type=InsideText(), metavar="ADDRESS",
        help="The layer to change, as in live.cgz::rootfs.cxz, a pattern as in '**/initrd*', or all; else found by"
        " content. May be given again.",
    ),
    click.option(
        "--as-layer", metavar="NAME",
        help="Put the changes into a new file system that the boot mounts over the root, which stays as it is.",
    ),
    click.option("--threads", type=click.IntRange(min=1), help="Threads that compress; all processors by default."),
    click.option(
        "--xz-preset", type=click.IntRange(0, 9),
        help="Effort for what xz has to encode, but for a squashfs; 6 by default.",
    ),
    GZIP,
    click.option("--always-compress", is_flag=True, help="Let xz compress also what does not shrink."),
    click.option(
        "--repack", is_flag=True,
        help="Move the data of a squashfs together, so that removed files can no longer be read in it. Nothing is"
        " compressed again but what shared a block with them.",
    ),
    click.option(
        "--repack-metadata", is_flag=True,
        help="Write all metadata of a squashfs anew, so that no names of removed files stay in it.",
    ),
    click.option(
        "--supersede", type=click.Choice(("auto", "never", "always")), default="auto", show_default=True,
        help="Whether the old entry of a replaced file stays in a cpio archive, which saves compressing what stands"
        " behind it. auto: where what unpacks the archive is known to take the new one. never: such old entries go"
        " too.",
    ),
    click.option(
        "--align", metavar="SIZE", help="Let data that move on the ISO move by a multiple of SIZE, such as 4096, so"
        " that file systems that share blocks can share them with IN.",
    ),
)  # fmt: skip


def takes_request(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that make a request to ``command``, in the order of :data:`_REQUEST`."""
    for option in reversed(_REQUEST):
        command = option(command)
    return command


def takes_options(names: Collection[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return what adds those of :data:`_REQUEST` called ``names``, without dashes, to a command."""

    def add_options(command: Callable[..., None]) -> Callable[..., None]:
        """Add them to ``command``."""
        for option in reversed(_REQUEST):
            has_option: set[str] = {parameter.name or "" for parameter in _parameters_of(option)}
            command = option(command) if has_option & set(names) else command
        return command

    return add_options


def _parameters_of(option: Callable[..., Any]) -> list[click.Parameter]:
    """Return what the decorator ``option`` adds to a command."""

    def nothing() -> None:
        """Do nothing."""

    return list(option(click.command(nothing)).params)


_OUTPUT = (
    click.option("--digest", type=click.Choice(DIGESTS), help="Write OUT.sha256 or OUT.md5 too."),
    click.option(
        "--report", type=NewFilePath(), metavar="FILE", help="Write what happened to each path to FILE, as JSON."
    ),
    click.option("--force", is_flag=True, help="Replace OUT if it exists."),
    click.option(
        "--no-sync", "sync", is_flag=True, flag_value=False, default=True,
        help="Do not wait until OUT is on the disk; a power cut may then lose it.",
    ),
    click.option("--read-back", is_flag=True, help="Read all of OUT from the disk again and compare every byte."),
)  # fmt: skip


def takes_output_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options about how an output is written to ``command``."""
    for option in reversed(_OUTPUT):
        command = option(command)
    return command


_CHANGES = (
    "add", "remove", "maas_clean", "add_iso", "remove_iso", "rename_iso", "kernel_args", "remove_kernel_args",
    "replace_kernel_args", "volume_id", "volume_date", "retarget", "repack", "repack_metadata",
)  # fmt: skip
"""The fields of a request that ask for a change."""


_RULES = {"owner": "--owner", "mode": "--mode", "keep_modes": "--keep-modes", "setuid": "--setuid",
          "xattrs": "--xattrs"}  # fmt: skip
"""Options about what --add and --add-file bring, which say nothing without one of these."""


def pop_request(options: dict[str, Any], *, is_shell: bool = False) -> Request:
    """Take the options of :data:`_REQUEST` out of ``options`` and return the request that they make.

    ``is_shell``: a shell comes last, which has standard input for itself.

    :raises UsageError: an mtree file needs exactly one added directory that it describes; an option is about what is
        added, and nothing is; standard input is to be added twice.
    """
    rules = {name: options.pop(name) for name in _RULES}
    paths = [replace(AddPath.parse(text), **rules) for text in options.pop("add")]
    archives = [replace(AddPath.parse(text), unpack=False, **rules) for text in options.pop("add_file")]
    if not (paths or archives):
        _refuse_idle_rules()
    described = describe_mtree([*paths, *archives], options.pop("mtree"))
    scripts = pop_scripts(options, is_shell=is_shell)
    order = click.get_current_context().meta.get(ORDER, ())
    items = list(order_items(order, described[: len(paths)], described[len(paths) :], scripts))
    add_iso = [AddPath.parse(text, "--add-iso") for text in options.pop("add_iso")]
    check_standard_input((*paths, *archives, *add_iso), has_other_use=is_shell)
    others = {name: options.pop(name) for name in field_names(Request) if name in options}
    return Request(add=items, add_iso=add_iso, **others)


def _refuse_idle_rules() -> None:
    """Check that no option says how what is added is to be, where nothing is. :raises UsageError: one does."""
    source_of = click.get_current_context().get_parameter_source
    idle = [option for name, option in _RULES.items() if source_of(name) is not ParameterSource.DEFAULT]
    if idle:
        raise UsageError(
            f"{idle[0]} is about what --add and --add-file bring, and there is neither (what --add-iso brings gets"
            " owners and modes by a recipe)"
        )


def check_standard_input(items: Iterable[AddPath], *, has_other_use: bool = False) -> None:
    """Check that standard input is added once at most, and not at all where it ``has_other_use``.

    :raises UsageError: it is, so that nothing would be there to be read.
    """
    count = sum(item.source == "-" for item in items)
    if count and has_other_use:
        raise UsageError("- cannot be what is added here: standard input is read once, and is for something else")
    if count > 1:
        raise UsageError("- is added twice, and standard input is read once")


def _check_input(source: Path | Url, request: Request) -> None:
    """Check that standard input is not the image and what is added, too. :raises UsageError: it is."""
    if str(source) in SHOWN_NAMES and any(
        getattr(item, "source", None) == "-" for item in (*request.add, *request.add_iso)
    ):
        raise UsageError("- can be the image or what is added, not both: standard input is read once")


def describe_mtree(items: Sequence[AddPath], mtree: str | None, means: str = " with --add") -> list[AddPath]:
    """Return ``items``, of which the only folder has the file ``mtree``, if any; ``means``: how it is given.

    :raises UsageError: there is not one folder alone.
    """
    folders = [number for number, item in enumerate(items) if Path(item.source).is_dir()]
    if mtree is not None and len(folders) != 1:
        raise UsageError(f"--mtree {mtree}: there must be one directory{means} that it tells of")
    described = list(items)
    for number in folders if mtree is not None else ():
        described[number] = replace(items[number], mtree=mtree)
    return described


@click.command(cls=StrictCommand)
@_IMAGE
@click.argument("target", metavar="OUT", type=OutputPath())
@takes_request
@_CHECK_INDEX
@MAX_EXPAND
@takes_output_options
@click.option(
    "--expect",
    multiple=True,
    metavar="NAME:HEX",
    help="Make no OUT unless IN has this digest, as in sha256:HEX. May be given again.",
)
@_DELTA
@click.option(
    "--plain", is_flag=True, help="Write the delta without checksums, for other decoders of VCDIFF than xdelta3."
)
@JSON
@QUIET
def remaster_command(
    source: Path | Url, target: Path, check_index: bool, max_expand: int, quiet: bool, as_json: bool, **options: Any
) -> None:
    """Write the bootable image IN to OUT with files added to its root filesystem.

    An OUT called .tar, .tar.gz or the like gets the root filesystem alone: of a disk image, a squashfs, an ISO.

    IN is never changed. OUT appears under its name only when it is complete and proved.
    """
    refuse_command(str(source))
    request = pop_request(options)
    progress = terminal_progress(quiet=quiet)
    _check_input(source, request)
    with Image(source, check_index=check_index, max_expand=max_expand) as image:
        result = write_result(
            lambda path: image.remaster(path, request, progress=progress, **options), target, options, quiet=quiet,
            as_json=as_json,
        )  # fmt: skip
    is_asked = any(getattr(request, name) for name in _CHANGES) or request.supersede == "never"
    if not quiet and not is_asked and result.identical:
        say(f"{target} is a copy of {SHOWN_NAMES.get(str(source), source)}: no change was asked for")


@click.command(cls=StrictCommand)
@_IMAGE
@takes_request
@MAX_EXPAND
@click.option(
    "--report", type=NewFilePath(), metavar="FILE", help="Write what would happen to each path to FILE, as JSON."
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@_DELTA
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@takes_expected("source", "IN")
def plan_command(source: Path | Url, as_json: bool, max_expand: int, **options: Any) -> None:
    """Print what a remaster of IN would do, without writing it.

    What has to be compressed is compressed, so that sizes are exact, and kept for the run that follows.
    """
    request = pop_request(options)
    _check_input(source, request)
    with Image(source, max_expand=max_expand) as image:
        plan = image.plan(request, progress=LookingProgress(), **options)
    if as_json:
        write_json(plan.values)
    else:
        for line in plan.lines:
            click.echo(paint_mark(line))


def write_result(
    remaster: Callable[[Path], Result], target: Path, options: Mapping[str, Any], *, quiet: bool, as_json: bool = False
) -> Result:  # fmt: skip
    """Call ``remaster`` with the path to write, print a summary, and return the result; ``target`` may be standard
    output.

    ``options`` are those about the output; ``as_json``: print the result as JSON. Raises as ``remaster`` and
    ``stream_result``. :raises UsageError: standard output is for the image and for JSON.
    """
    if as_json and isinstance(target, StreamPath):
        raise UsageError("--json and OUT - exclude each other: both are for standard output")
    if not isinstance(target, StreamPath):
        result = remaster(target)
        if as_json:
            print_result_values(result, target)
        elif not quiet:
            print_result(result, target)
        return result
    from cosremaster.cli.streamed_output import stream_result  # noqa: PLC0415 - few outputs are streams

    if options.get("delta"):
        raise UsageError("a delta and its note are two files: they are not written to standard output")
    result = stream_result(remaster, options)
    for line in () if quiet else _result_lines(result, target):
        say(line)
    return result


def print_result_values(result: Result, target: Path, *, is_new: bool = False) -> None:
    """Print the result of a remaster on standard output as JSON. ``is_new``: there was no input."""
    from cosremaster.cli.outcomes import result_report  # noqa: PLC0415 - after the work

    with reporting_finished_work(f"{target} is written and proved"):
        write_json(result_report(result, target, is_new=is_new))


def print_result(result: Result, target: Path) -> None:
    """Print a summary of the remaster on standard output."""
    with reporting_finished_work(f"{target} is written and proved"):
        for line in _result_lines(result, target):
            click.echo(paint_mark(line))


def _result_lines(result: Result, target: Path) -> Iterator[str]:
    """Yield the summary of a remaster as lines."""
    from cosremaster.reports.menus import menu_change_lines  # noqa: PLC0415 - after the work; --quiet goes without
    from cosremaster.reports.text import (  # noqa: PLC0415 - the same
        delta_lines,
        fat_lines,
        memory_lines,
        packed_line,
        parts_line,
        signature_lines,
        size_lines,
        sums_lines,
        taken_line,
    )

    change = "identical to the input" if result.identical else f"was {format_size(result.input_size)}"
    made = format_size(result.output_size)
    if result.delta is None:
        yield f"{target}: {made} ({change})"
    else:
        yield f"{target}: {format_size(result.delta.size)}, which make {made} from the input ({change})"
        yield from delta_lines(result.delta)
    for changed in result.layers:
        yield from _layer_lines(changed, is_copy=result.identical)
    if result.runs:
        from cosremaster.reports.runs import run_lines  # noqa: PLC0415 - few remasters run scripts

        yield from run_lines(result.runs)
    yield from _iso_lines(result)
    yield from fat_lines(result.fats)
    yield from menu_change_lines(result.menus)
    yield from size_lines(result.sizes)
    yield from signature_lines(result.dropped_signatures)
    yield from sums_lines(result.sums)
    for layer in result.packed:
        yield packed_line(layer)
        yield from filter(None, (parts_line(layer),))
    yield from filter(None, (taken_line(result.taken),))
    for changed in {changed.files[0]: changed for changed in result.layers}.values():
        if changed.memory is not None:
            yield from memory_lines(changed.files[0], changed.memory)
    if result.live_memory:
        from cosremaster.reports.roots import live_memory_lines  # noqa: PLC0415 - live images alone

        yield from live_memory_lines(result.live_memory[:1])
    yield "proved:"
    for line in result.proof:
        yield f"  {line}"
    if result.upload:
        yield f"SHA-256 in {target}.sha256; the import into MAAS:"
        yield result.upload


def _layer_lines(changed: ChangedLayer, *, is_copy: bool) -> Iterator[str]:
    """Yield lines about the changes to a layer; ``is_copy``: the output is the input."""
    from cosremaster.reports.text import change_lines  # noqa: PLC0415 - after the work

    counts = (
        (len(changed.added), "added"), (len(changed.replaced), "replaced"), (len(changed.removed), "removed"),
        (len(changed.parents), "made as parents"), (len(changed.unchanged), "unchanged"),
    )  # fmt: skip
    nothing = "nothing to do" if is_copy else "its files stay as they are"
    summary = ", ".join(f"{count:,} {word}" for count, word in counts if count) or nothing
    repacked = {"": "", "metadata": "; metadata repacked", "data": "; data and metadata repacked"}
    superseded = f"; {changed.dead:,} bytes of replaced ones stay (--supersede)" if changed.superseded else ""
    yield f"{changed.layer}: {summary}{repacked[changed.repacked]}{superseded}"
    if len(changed.files) > 1:
        yield f"  the same in {', '.join(changed.files[1:])}"
    marks = (("+", changed.added), ("~", changed.replaced), ("-", changed.removed), ("d", changed.parents))
    for mark, paths in marks:
        yield from change_lines(mark, paths)


def _iso_lines(result: Result) -> Iterator[str]:
    """Yield lines about changes to the ISO's own tree."""
    from cosremaster.reports.text import change_lines, rename_lines  # noqa: PLC0415 - as print_result

    changes = {
        "added": result.iso_added, "exchanged": result.iso_exchanged, "removed": result.iso_removed,
        "renamed": result.iso_renamed, "unchanged": result.iso_unchanged,
    }  # fmt: skip
    summary = ", ".join(f"{len(paths):,} {word}" for word, paths in changes.items() if paths)
    if summary:
        yield f"on the ISO: {summary}"
    for mark, paths in (("+", result.iso_added), ("~", result.iso_exchanged), ("-", result.iso_removed)):
        yield from change_lines(mark, paths)
    yield from rename_lines(result.iso_renamed)


_NOT_REMEMBERED = "could not be remembered: the cache directory cannot be written"


@click.command(cls=StrictCommand)
@_IMAGE
@_CHECK_INDEX
@MAX_EXPAND
@JSON
@takes_expected("source", "IN")
def index_command(source: Path | Url, check_index: bool, max_expand: int, as_json: bool) -> None:
    """Index IN and remember it, so that remastering it needs to decode no root filesystem."""
    from cosremaster.remastering.image import OpenedImage  # noqa: PLC0415 - a remaster loads it after its options
    from cosremaster.reports.inspect import layer_reports  # noqa: PLC0415 - the same
    from cosremaster.reports.text import layer_section  # noqa: PLC0415 - a remaster loads it after the work

    with OpenedImage(source, check_index=check_index, max_expand=max_expand) as opened:
        layers = opened.layers(progress=terminal_progress(quiet=False)).layers
        lines = list(layer_section(layers, None).lines)
        values = layer_reports(opened.image, layers, None) if as_json else []
        path, reads_on_demand = opened.remembered_at, opened.reads_on_demand
    refused = "needs no index: it is read when it is needed" if reads_on_demand else _NOT_REMEMBERED
    stored = f"remembered in {path}" if path else refused
    with reporting_finished_work(stored):
        if as_json:
            write_json({"schema": 1, "remembered": None if path is None else str(path), "layers": values})
            return
        for line in lines:
            click.echo(line)
        click.echo(stored)


@click.command(cls=StrictCommand)
@click.option("--keep", metavar="DIR", type=LocalPath(), help="Keep the images in DIR.")
def demo_command(keep: Path | None) -> None:
    """Build a small image and remaster it."""
    from cosremaster.demo import run_demo  # noqa: PLC0415 - loads pycdlib, which nothing else needs

    run_demo(keep, click.echo, print_result)
