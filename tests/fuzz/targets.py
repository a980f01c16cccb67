"""What is done with a mutated file, and what of it is a finding: every end but a right result or one of our errors."""

import contextlib
import fnmatch
import gc
import gzip
import io
import lzma
import re
import signal
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cosremaster.boot.fat import Fat
from cosremaster.boot.fat_edit import FatEdits, edit_fat
from cosremaster.boot_config.menus.arguments import (
    ArgumentChanges,
    KernelArgument,
    change_arguments,
    find_lost_argument,
)
from cosremaster.boot_config.menus.find import parse_menu
from cosremaster.cli import main
from cosremaster.crc import crc32c, crc64_xz
from cosremaster.demo.image import initramfs
from cosremaster.errors import CosremasterError, Place
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.source import open_source
from cosremaster.iso.read import read_image
from cosremaster.layers.cache import index_path
from cosremaster.overlay.mtree import parse_mtree
from cosremaster.recipe import read_recipe
from cosremaster.verification.named_paths import list_tree_paths

LIMIT = 10
EROFS_BLOCK = 4096
"""Seconds of CPU after which a run counts as endless."""
FORESEEN = frozenset(range(10))
"""Exit codes that a bad file may have: 10 would mean that a fault of the input looked like ours, 70 a traceback."""


class FindingError(Exception):
    """A file that made the program do what it must not do."""


class _EndlessError(BaseException):
    """The time is over; nothing catches it on the way."""


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Turn an endless run, an unforeseen exception and an error with control characters in it into a finding.

    Our own errors are no findings.
    """

    def stop(*_: object) -> None:
        raise _EndlessError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        yield
    except CosremasterError as error:
        check_printable(str(error))
    except FindingError:
        raise
    except _EndlessError as error:
        raise FindingError(f"endless: {_summarize(error)}") from error
    except Exception as error:
        raise FindingError(f"{type(error).__name__}: {error}: {_summarize(error)}") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _summarize(error: BaseException) -> str:
    """Return the innermost lines of ours in a traceback; equal faults have equal ones."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/cosremaster/" in frame.filename]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames[-4:]))


def check_printable(text: str) -> None:
    """Check that nothing in ``text`` moves a terminal's cursor."""
    if any((letter < " " and letter != "\n") or "\x7f" <= letter < "\xa0" for letter in text):
        raise FindingError(f"control character in {text[:200]!r}")


def run_program(*words: object) -> int:
    """Run the program, and return its exit code; what it says must be printable."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape", write_through=True) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        code = main([str(word) for word in words])
    gc.unfreeze()
    said = [stream.buffer.getvalue().decode("utf-8", "replace") for stream in streams]
    if code not in FORESEEN:
        last = "".join([line for line in said[1].splitlines() if line.strip()][-1:])
        raise FindingError(f"exit code {code} of {words[0] if words[0] in VERBS else 'remaster'}: {_find_cause(last)}")
    for text in said:
        check_printable(text)
    return code


def _find_cause(message: str) -> str:
    """Return the innermost lines of ours in the traceback that a message of an internal fault names, or the message."""
    report = re.search(r"attach (\S+)", message)
    if report is None:
        return message[-300:]
    text = Path(report[1]).read_text(errors="replace")
    Path(report[1]).unlink()
    frames = re.findall(r'cosremaster/(\S+)", line (\d+), in (\w+)', text)[-4:]
    fault = next((line for line in reversed(text.splitlines()) if re.match(r"[\w.]+(Error|Exception)\b", line)), "")
    return f"{fault[:200]}: " + " < ".join(f"{name}:{line} {function}" for name, line, function in reversed(frames))


VERBS = ("ls", "tree", "verify", "inspect", "extract", "diff", "find")


def _look_at(path: Path, folder: Path, number: int) -> None:
    """Look at an image in one of many ways."""
    ways: tuple[tuple[object, ...], ...] = (
        ("ls", "-lR", path), ("tree", path), ("verify", "--deep", path), ("inspect", "--deep", path),
        ("inspect", "--json", path), ("extract", path, folder / "x.tar", "--as", "tar", "--force", "--quiet"),
        ("inspect", "--html", folder / "x.html", "--force", path), ("find", path),
    )  # fmt: skip
    run_program(*ways[number % len(ways)])


Patterns = tuple[str, ...]
"""Patterns of paths in small letters; what fits one of them may change."""


def run_remaster(path: Path, folder: Path, words: tuple[str, ...], name: str = "out") -> Path | None:
    """Remaster an image and return the new one, None if that is refused. Nothing else may be left in the folder."""
    out = folder / name
    out.unlink(missing_ok=True)
    before = {file.name for file in folder.iterdir()}
    _make_sources(folder)
    before = {file.name for file in folder.iterdir()}
    words = tuple(f"{folder}/{word}" if word.startswith(("NEW:", "MANY:")) else word for word in words)
    code = run_program(path, out, *words, "--threads", "1", "--quiet")
    litter = {file.name for file in folder.iterdir()} - before - {name}
    if litter or (code and out.exists()):
        raise FindingError(
            f"exit code {code} leaves {sorted(word.rpartition('.')[2] for word in litter) or 'its output'}"
        )
    if code:
        return None
    return out


def check_result(path: Path, out: Path, changed: Patterns | None) -> None:
    """Check that `verify` finds no fault in ``out`` that the image at ``path`` has not.

    :param changed: what may have changed in any of the trees; anything where it is None.
    """
    import cosremaster  # noqa: PLC0415 - instrumented first

    paths = {name for image in (path, out) for name in _list_paths(image)}
    names = [
        name
        for name in sorted(paths)
        if any(fnmatch.fnmatchcase(name.decode("latin-1").lower(), pattern) for pattern in changed or ())
    ]
    try:
        report = cosremaster.verify(out, against=path, changed=names)
    except CosremasterError as error:
        raise FindingError(f"the result cannot be verified: {error.message[:200]}") from error
    faults = [finding for finding in report.findings if finding.is_counted]
    if changed is None:
        faults = [finding for finding in faults if not finding.check.startswith("against.")]
    if faults:
        raise FindingError(f"the result fails {faults[0].check}: {faults[0].message[:200]}")


def _list_paths(path: Path) -> set[bytes]:
    """Return the paths in all trees of an image; none where they cannot be read, which `verify` says."""
    with open_source(path) as source:
        try:
            return list_tree_paths(read_image(source))
        except CosremasterError:
            return set()


CHANGES: tuple[tuple[tuple[str, ...], Patterns | None], ...] = (
    (("--add-iso", "NEW:/d/new file"), ("d/new?file*",)),
    (("--add-iso", "NEW:/vmlinuz"), ("vmlinuz*",)),
    (("--remove-iso", "/d/*", "--allow-missing"), ("d/*",)),
    (("--rename-iso", "/vmlinuz:/kernel"), ("vmlinuz*", "kernel*")),
    (("--add", "NEW:/etc/new", "--allow-missing"), None),
    (("--kernel-arg", "site=7", "--volume-id", "NEW", "--retarget"), None),
    (("--add-iso", "MANY:/"), ("many?*",)),
    ((), ()),
    (("--rename-iso", "/boot:/loader/a b", "--align", "4096"), ("boot", "boot/*", "loader/a?b", "loader/a?b/*")),
    (("--remove-iso", "/loader", "--remove-iso", "/boot", "--drop-hfsplus"), ("loader*", "boot", "boot/*")),
    (("--add-iso", "NEW:/isolinux/isolinux.bin", "--add-iso", "MANY:/d/e"), ("isolinux/*", "d/e/many?*")),
    (("--add-iso", "NEW:/d/esp::/EFI/BOOT/NEW.CFG"), None),
)
"""Changes of an image, and where it differs from the old one then; None where what changes depends on the image."""


def run_image(data: bytes, folder: Path) -> None:
    """Look at an ISO or remaster it; which is decided by its bytes."""
    path, number = folder / "in.iso", zlib.crc32(data)
    path.write_bytes(data)
    with bounded():
        if number % 3 == 0:
            _look_at(path, folder, number // 3)
            return
        words, changed = CHANGES[number // 3 % len(CHANGES)]
        out = run_remaster(path, folder, words)
        if out is not None:
            check_result(path, out, changed)


def _make_sources(folder: Path) -> None:
    """Make the files that are added, unless they are there."""
    if not (folder / "NEW").exists():
        (folder / "NEW").write_bytes(b"new" * 2000)
        (folder / "MANY").mkdir()
        for count in range(30):
            (folder / f"MANY/many-{count}").write_bytes(b"m")


def run_layer(data: bytes, folder: Path) -> None:
    """Look at an initramfs or change it; the old files must be in the result as decoders of others read it."""
    path, number = folder / "in.img", zlib.crc32(data)
    path.write_bytes(data)
    with bounded():
        if number % 2 == 0:
            _look_at(path, folder, number // 2)
            return
        words = ("--add", "NEW:/etc/new") if number % 4 == 1 else ()
        out = run_remaster(path, folder, words)
        if out is not None:
            _compare_archives(data, out.read_bytes())
            check_layer(path, out)


def check_layer(path: Path, out: Path) -> None:
    """Check that `verify --deep` finds no kind of fault in the layer ``out`` that the one at ``path`` has not."""
    import cosremaster  # noqa: PLC0415 - instrumented first

    known = {finding.check for finding in cosremaster.verify(path, deep=True).findings if finding.is_counted}
    try:
        report = cosremaster.verify(out, deep=True)
    except CosremasterError as error:
        raise FindingError(f"the result cannot be verified: {error.message[:200]}") from error
    faults = (finding for finding in report.findings if finding.is_counted)
    new = next((finding for finding in faults if finding.check not in known), None)
    if new is not None:
        raise FindingError(f"the result fails {new.check}: {new.message[:200]}")


def run_squashfs(data: bytes, folder: Path) -> None:
    """Look at a squashfs file or change it; the result must have the rest of what the old file has."""
    path = folder / "in.sqfs"
    path.write_bytes(data)
    _look_or_change(path, folder, zlib.crc32(data))


def run_erofs(data: bytes, folder: Path) -> None:
    """Look at an EROFS file with a true checksum or change it; the result must have the rest of the old file."""
    path = folder / "in.img"
    sealed = bytearray(data)
    if len(data) >= EROFS_BLOCK:
        sum_of_rest = crc32c(bytes(sealed[1024:1028] + bytes(4) + sealed[1032:EROFS_BLOCK])) ^ 0xFFFFFFFF
        sealed[1028:1032] = sum_of_rest.to_bytes(4, "little")
    path.write_bytes(sealed)
    _look_or_change(path, folder, zlib.crc32(data))


def run_tar(data: bytes, folder: Path) -> None:
    """Look at a tar archive with true checksums or change it; the result must have what the old archive has."""
    path = folder / "in.tar"
    sealed = bytearray(data)
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            sealed[at + 148 : at + 156] = b"%06o\0 " % (sum(data[at : at + 512]) - sum(data[at + 148 : at + 156]) + 256)
    path.write_bytes(sealed)
    _look_or_change(path, folder, zlib.crc32(data))


LAYER_CHANGES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("--add", "NEW:/etc/new"), ("etc",)),
    (("--remove", "/d/e", "--allow-missing"), ("d/e",)),
    (("--add", "NEW:/vmlinuz"), ("vmlinuz",)),
    (("--repack",), ()),
    (("--repack-metadata",), ()),
    (("--add", "NEW:/d/a", "--remove", "/vmlinuz", "--allow-missing", "--repack", "--repack-metadata"),
     ("d/a", "vmlinuz")),
)  # fmt: skip
"""Changes of a root file system, and where it differs from the old one then; the last three are for squashfs alone."""


def _look_or_change(path: Path, folder: Path, number: int) -> None:
    """Look at a root file system or change it, as ``number`` says; the result must have the rest of the old one."""
    with bounded():
        if number % 2 == 0:
            _look_at(path, folder, number // 2)
            return
        words, changed = LAYER_CHANGES[number // 2 % (len(LAYER_CHANGES) if path.suffix == ".sqfs" else 3)]
        out = run_remaster(path, folder, words)
        if out is not None:
            compare_layers(path, out, changed)
            check_layer(path, out)


def compare_layers(path: Path, out: Path, changed: tuple[str, ...], address: str = "") -> None:
    """Check that ``out`` differs from what is at ``address`` in the file ``path`` only in or below ``changed``.

    Directories that were made to hold these do not count. What cannot be read of the old file ends the comparison.
    """
    import cosremaster  # noqa: PLC0415 - instrumented first

    try:
        with cosremaster.open(path, remember=False) as old, cosremaster.open(out, remember=False) as new:
            differences = list(old.diff(new, address, ""))
    except CosremasterError as error:
        if error.place is not None and error.place.parts[:1] == (str(out),):
            raise FindingError(f"the result cannot be read: {error.message[:200]}") from error
        raise
    for difference in differences:
        where = f"{difference.where}/"
        is_made = difference.what == "added" and any(name.startswith(where) for name in changed)
        if not is_made and not any(where.startswith(f"{name}/") for name in changed):
            raise FindingError(f"the result differs: {difference.what} of {difference.where} {difference.details}")


def run_disk(data: bytes, folder: Path) -> None:
    """Look at a disk image, or a file system of one, or make it a tar archive, which must have what it has."""
    path, number = folder / "in.img", zlib.crc32(data)
    path.write_bytes(data)
    with bounded():
        if number % 3:
            _look_at(path, folder, number // 3)
            return
        address = ("@root", "@gpt1")[number // 3 % 2]
        layer = ("--layer", address) if address != "@root" else ()
        out = run_remaster(path, folder, ("--add", "NEW:/etc/new", *layer), "out.tar")
        if out is not None:
            compare_layers(path, out, ("etc",), address)


def _compare_archives(old: bytes, new: bytes) -> None:
    """Check that the new file holds what the old one does, where that is an archive that Python's decoders read."""
    before, after = (_read_archive(data) for data in (old, new))
    if before is None:
        return
    if after is None:
        raise FindingError("the result is no archive that Python's decoders read")
    lost = [name for name, value in before.items() if name != b"etc/new" and after.get(name) != value]
    if lost:
        raise FindingError(f"the result has other contents of {lost[0]!r}")


def _read_archive(data: bytes) -> dict[bytes, tuple[bytes, bytes]] | None:
    """Return mode and data of the entries of a newc archive, None where it is anything else than one plain archive."""
    try:
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        elif data.startswith((b"\xfd7zXZ", b"\x5d\0\0")):
            data = lzma.decompress(data, memlimit=1 << 28)
        return _parse_newc(data)
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError):
        return None


def _parse_newc(data: bytes) -> dict[bytes, tuple[bytes, bytes]] | None:
    """Return mode and data by name; None for an archive without its end, with rests, or with several data of a name."""
    at, entries = 0, dict[bytes, tuple[bytes, bytes]]()
    while data[at : at + 6] in (b"070701", b"070702"):
        size, name_size = (int(data[at + start : at + start + 8], 16) for start in (54, 94))
        name = data[at + 110 : at + 110 + name_size].partition(b"\0")[0]
        start = at + 110 + name_size + (-(110 + name_size) & 3)
        at = start + size + (-size & 3)
        if name == b"TRAILER!!!":
            return None if data[at:].strip(b"\0") else entries
        name = name.removeprefix(b"./").strip(b"/")
        if name in entries or not name:
            return None
        entries[name] = data[start - 110 - name_size : start][14:22], data[start : start + size]
    return None


def run_fat(data: bytes, _: Path) -> None:
    """Read every file of a FAT file system, and exchange some."""
    with bounded():
        fat = Fat.open(lambda at, length: data[at : at + length], len(data), Place(("fat",)))
        if fat is None:
            return
        files = [file for file in fat.walk() if not file.is_directory]
        for file in files[:20]:
            if file.size < 200_000:
                with contextlib.suppress(CosremasterError):
                    fat.read_file(file)
        new = PieceTable([Literal(b"z" * (0, 10, 3000)[zlib.crc32(data) % 3])])
        edits = FatEdits(
            replaced={file.path: new for file in files[:3]}, removed=tuple(file.path for file in files[3:4])
        )
        raw = bytearray(data)
        for at, patch in edit_fat(fat, edits):
            raw[at : at + patch.length] = b"".join(patch.chunks())
        if len(raw) != len(data):
            raise FindingError("a change of a file system's files changes its length")
        changed = Fat.open(lambda at, length: bytes(raw[at : at + length]), len(raw), Place(("fat",)))
        if changed is None or {file.path for file in changed.walk()} < {file.path for file in files[:3]}:
            raise FindingError("files are lost in a FAT file system")


def run_menu(data: bytes, _: Path) -> None:
    """Change the kernel arguments of a menu twice; the second time nothing may change."""
    changes = ArgumentChanges(
        remove=(KernelArgument.parse("quiet"),), add=tuple(map(KernelArgument.parse, ("site=7", "a=b c")))
    )
    with bounded():
        for path in (b"boot/grub/grub.cfg", b"isolinux/isolinux.cfg", b"loader/entries/a.conf", b"EFI/BOOT/BOOT.CFG"):
            menu = parse_menu(path, data)
            if menu is None or menu.unread:
                continue
            new, _lines = change_arguments(menu, changes)
            again = parse_menu(path, new, language=menu.language)
            if again is None or find_lost_argument(menu, again, changes) is not None:
                continue  # the command refuses that
            if change_arguments(again, changes)[0] != new:
                raise FindingError(f"{path!r} changes again")


def run_mtree(data: bytes, _: Path) -> None:
    """Parse an mtree file."""
    with bounded():
        parse_mtree(data, Place(("mtree",)))


def run_recipe(data: bytes, folder: Path) -> None:
    """Read a recipe."""
    path = folder / "recipe.toml"
    path.write_bytes(data)
    (folder / "in.iso").touch()
    (folder / "site").mkdir(exist_ok=True)
    with bounded():
        read_recipe(path, environ={})


def run_index(data: bytes, folder: Path) -> None:
    """Use a remembered index that was changed by ``data`` and sealed anew: it is refused, or it is used in time."""
    path, out = folder / "in.img", folder / "out"
    _make_sources(folder)
    with bounded():
        if folder not in _SEALED:
            path.write_bytes(initramfs())
            run_program("index", path)
            with open_source(path) as source:
                index = index_path(source)
            _SEALED[folder] = index, index.read_bytes()
        index, sealed = _SEALED[folder]
        body = bytearray(sealed[sealed.index(b"\n") + 1 :])
        for at in range(0, len(data) - 3, 4):  # a place, and the byte that comes there
            body[int.from_bytes(data[at : at + 3], "big") % len(body)] = data[at + 3]
        index.write_bytes(b"%016x\n" % crc64_xz(body) + body)
        run_program(path, out, "--add", f"{folder}/NEW:/etc/new", "--threads", "1", "--quiet", "--force")


_SEALED: dict[Path, tuple[Path, bytes]] = {}
"""The remembered index of each folder: its path, and its bytes before any change."""

Target = Callable[[bytes, Path], None]
TARGETS: Mapping[str, tuple[Target, int]] = {
    "image": (run_image, 900_000), "layer": (run_layer, 8_000), "squashfs": (run_squashfs, 40_000),
    "erofs": (run_erofs, 60_000),
    "tar": (run_tar, 40_000), "disk": (run_disk, 700_000),
    "fat": (run_fat, 300_000), "menu": (run_menu, 4096),
    "mtree": (run_mtree, 4096), "recipe": (run_recipe, 4096), "index": (run_index, 256),
}  # fmt: skip
"""What runs each target, and the most bytes of its files."""
