"""Every way to fail: one sentence with the place, the documented exit code, no traceback, nothing left behind."""

from __future__ import annotations

import gzip
import os
import re
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cosremaster import errors
from cosremaster.cli import main
from cosremaster.demo.image import build_archive, directory, initramfs, regular, root_items
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.precopy import Precopy
from cosremaster.io.source import open_source
from cosremaster.io.spool import Spool
from tests.fixtures.tools import require_libarchive
from tests.support.small import CGZ, broken_inside, packed_root, without_layer, write_overlay, write_small

Arrange = Callable[[Path], list[str]]


def _main_job(folder: Path, *more: str) -> list[str]:
    write_overlay(folder)
    return ["in.iso", "out.iso", "--add", "overlay", *more]


def _image(data: bytes) -> Arrange:
    """The main job on an image of these bytes."""

    def arrange(folder: Path) -> list[str]:
        (folder / "in.iso").write_bytes(data)
        return _main_job(folder)

    return arrange


def _small(*more: str, cgz: bytes | None = None, extra: dict[str, bytes] | None = None) -> Arrange:
    """The main job on a small image, with more arguments."""

    def arrange(folder: Path) -> list[str]:
        write_small(folder, cgz, extra)
        return _main_job(folder, *more)

    return arrange


def _words(*words: str) -> Arrange:
    """These arguments, beside a small image and an overlay."""

    def arrange(folder: Path) -> list[str]:
        write_small(folder)
        write_overlay(folder)
        return list(words)

    return arrange


def _cut_off(folder: Path) -> list[str]:
    image = write_small(folder)
    os.truncate(image, image.stat().st_size // 2)
    return _main_job(folder)


def _without_partition(folder: Path) -> list[str]:
    image = write_small(folder)
    os.truncate(image, image.stat().st_size - 2048)
    return _main_job(folder)


def _exists(folder: Path) -> list[str]:
    (folder / "out.iso").write_text("mine")
    return _small()(folder)


def _hostile(folder: Path) -> list[str]:
    with tarfile.open(folder / "bad.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("/etc/passwd"))
    return _small("--add", "bad.tar")(folder)


def _not_packed(folder: Path) -> list[str]:
    (folder / "bad.tar").write_text("not packed")
    return _small("--add", "bad.tar")(folder)


def _same_file(folder: Path) -> list[str]:
    write_small(folder)
    (folder / "link.iso").symlink_to("in.iso")
    return ["in.iso", "link.iso", "--force"]


def _patched(at: int, data: bytes) -> Arrange:
    def arrange(folder: Path) -> list[str]:
        image = write_small(folder)
        raw = bytearray(image.read_bytes())
        raw[at : at + len(data)] = data
        image.write_bytes(raw)
        return _main_job(folder)

    return arrange


BAD_FIELD = build_archive([directory(b"etc"), regular(b"etc/passwd", b"root\n")]).replace(b"00000005", b"0000000G", 1)
FOUR_GIB = 1 << 32

CASES: dict[str, tuple[Arrange, int, str]] = {
    "no such input": (_words("no.iso", "out.iso"), 3, r"no\.iso: cannot be opened: No such file"),
    "input is a folder": (_words("overlay", "out.iso"), 3, r"overlay: is a directory, and no image"),
    "not an ISO": (_image(b"x" * 100_000), 3, r"in\.iso: is no ISO 9660 image"),
    "empty": (_image(b""), 3, r"in\.iso: is no ISO 9660 image"),
    "cut off": (_cut_off, 3, r"in\.iso: is cut off: [\d,]+ bytes of its volume are missing"),
    "cut off behind the volume": (_without_partition, 3, r"in\.iso: is cut off: MBR partition 2 ends behind its end"),
    "corrupt gzip": (
        _small(cgz=initramfs()[:3000] + b"\xff" * 40 + initramfs()[3040:]),
        4,
        rf"in\.iso » {CGZ}( » rootfs\.cxz)? @0x[0-9A-F]+: corrupt ",
    ),
    "gzip ends early": (_small(cgz=initramfs()[:-3000]), 4, rf"in\.iso » {CGZ} @0x[0-9A-F]+: .*ends .*too early"),
    "gzip sum": (_small(cgz=initramfs()[:-8] + bytes(8)), 4, rf"in\.iso » {CGZ} @0x[0-9A-F]+: gzip CRC32 does not fit"),
    "corrupt xz": (_small(cgz=broken_inside()), 4, rf"in\.iso » {CGZ} » rootfs\.cxz @0x[0-9A-F]+: (corrupt )?xz "),
    "corrupt cpio": (
        _small(cgz=gzip.compress(BAD_FIELD)),
        4,
        rf"in\.iso » {CGZ} @0x74: file size field is not hexadecimal",
    ),
    "squashfs": (
        _image(without_layer({"live/filesystem.squashfs": b"hsqs" + bytes(9000)})),
        5,
        r"in\.iso » live/filesystem\.squashfs @0x1C: is squashfs 0\.0, and only 4\.0 can be read",
    ),
    "no layer at all": (
        _image(without_layer({})),
        6,
        r"in\.iso: holds no cpio, squashfs, tar, ext4 or erofs archive with a root filesystem$",
    ),
    "two layers": (
        _small(extra={"other.cgz": packed_root()}),
        6,
        rf"several layers look like a root filesystem: {CGZ}::rootfs\.cxz, other\.cgz; choose one with --layer",
    ),
    "no such layer": (_small("--layer", f"{CGZ}::nope"), 6, rf"has no layer {CGZ}::nope; found: {CGZ}, {CGZ}::rootfs"),
    "no such layer file": (_small("--layer", "nope"), 6, r"in\.iso: has no file nope"),
    "layer is no archive": (
        _small("--layer", "vmlinuz"),
        6,
        r"vmlinuz is no cpio, squashfs, tar, ext4 or erofs archive",
    ),
    "malformed address": (_small("--layer", "a::%zz"), 2, r"% must be followed by two hexadecimal digits"),
    "a file system behind an archive": (
        _small(cgz=gzip.compress(build_archive(root_items())) + b"hsqs" + bytes(5000)),
        5,
        rf"in\.iso » {CGZ} @0x[0-9A-F]+: a squashfs file system follows the end of the cpio archive",
    ),
    "damaged GPT": (_patched(512, b"EFI PART"), 5, r"it cannot follow \(GPT header has impossible sizes\)"),
    "damaged Apple map": (_patched(2048, b"PM\0\0"), 5, r"follow \(Apple partition map claims 0 entries\)"),
    "unknown boot data": (_patched(5000, b"who am I"), 5, r"unknown boot data in the system area at byte 0x1388"),
    "overlay missing": (_words("in.iso", "out.iso", "--add", "none"), 7, r"none: cannot be added: No such file"),
    "overlay conflict": (
        _words("in.iso", "out.iso", "--add", "overlay:/etc/hostname"),
        7,
        rf"{CGZ} » rootfs\.cxz » etc/hostname: overlay » etc cannot be added as etc/hostname/etc: this is a file",
    ),
    "nothing to remove": (
        _words("in.iso", "out.iso", "--remove", "/opt/*"),
        7,
        r"» /opt/\*: cannot be removed: nothing",
    ),
    "no such owner": (
        _words("in.iso", "out.iso", "--add", "overlay", "--owner", "joe"),
        2,
        r"owner 'joe': root, source",
    ),
    "hostile archive": (_hostile, 7, r"bad\.tar » /etc/passwd: cannot be added: it has an absolute name"),
    "no archive": (_not_packed, 7, r"bad\.tar: cannot be read as an archive: Unrecognized archive format"),
    "file without a place": (_words("in.iso", "out.iso", "--add", "overlay/site.sh"), 2, r"say where the file goes"),
    "output exists": (_exists, 8, r"out\.iso: exists already \(--force replaces it\)"),
    "output is the input": (_same_file, 8, r"link\.iso: is the input itself, which is never changed"),
    "output is a folder": (_words("in.iso", "overlay"), 8, r"overlay: is a directory"),
    "output is a device": (_words("in.iso", "/dev/null", "--force"), 8, r"/dev/null: is no regular file"),
    "no folder": (_words("in.iso", "no/out.iso"), 8, r"no/out\.iso: cannot be written: there is no folder"),
    "no output": (_words("in.iso"), 2, r"Missing argument 'OUT'"),
    "unknown option": (_words("in.iso", "out.iso", "--bogus"), 2, r"No such option"),
}


@pytest.mark.parametrize("case", CASES)
def test_error(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arrange, code, sentence = CASES[case]
    if case == "no archive":
        require_libarchive()
    monkeypatch.chdir(tmp_path)
    words = arrange(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(words) == code
    out, err = capsys.readouterr()
    assert not out
    last = err.strip().splitlines()[-1]
    assert re.search(sentence, last), err
    assert "Traceback" not in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_file_of_4_gib_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_small(tmp_path)
    with (tmp_path / "platform.iso").open("wb") as file:
        file.truncate(FOUR_GIB)
    monkeypatch.chdir(tmp_path)
    assert main(["in.iso", "out.iso", "--add", "platform.iso:/data/"]) == errors.SizeError.exit_code
    err = capsys.readouterr().err
    assert "platform.iso: 4,294,967,296 bytes do not fit a cpio archive" in err
    assert "ISO's own file tree" in err
    assert "index" not in err


def test_exit_codes_are_documented_and_distinct() -> None:
    classes = errors.CosremasterError.__subclasses__()
    assert len({one.exit_code for one in classes}) == len(classes)
    table = (Path(__file__).parents[2] / "docs/exit-codes.md").read_text()
    for one in classes:
        assert f"| {one.exit_code} | `{one.__name__}` |" in table


@pytest.mark.parametrize("limit", [10_000, 300_000])
def test_a_full_disk_leaves_nothing(tmp_path: Path, limit: int) -> None:
    """A file size limit stands in for the full disk: writing fails in the spool, or in the output.

    It would cut off compiled modules, too, which Python does not notice (-B).
    """
    write_small(tmp_path)
    overlay = write_overlay(tmp_path)
    (overlay / "noise").write_bytes(os.urandom(50_000))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    argv = [sys.executable, "-B", "-m", "cosremaster", "in.iso", "out.iso", "--add", "overlay"]
    done = subprocess.run(argv, cwd=tmp_path, preexec_fn=limited, capture_output=True, text=True, check=False)
    assert done.returncode == errors.OutputError.exit_code
    what = "temporary data" if limit == 10_000 else "the output"
    assert f"cannot write {what}: File too large" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.iso", "overlay"]


@pytest.mark.parametrize(("number", "words"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "stopped")])
def test_a_signal_stops_it_and_leaves_nothing(tmp_path: Path, number: signal.Signals, words: str) -> None:
    write_small(tmp_path)
    overlay = write_overlay(tmp_path)
    with (overlay / "noise").open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(1 << 20))
    argv = [sys.executable, "-m", "cosremaster", "in.iso", "out.iso", "--add", "overlay", "--always-compress"]
    process = subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("index ")
    time.sleep(1)  # now it is compressing noise, which takes a minute
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == f"cosremaster: {words}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.iso", "overlay"]


@pytest.mark.parametrize(
    "names", [[], [b"a", b"b/c"], [b"a\nb", b"c"], [b"\xff", b"c"], [b"\x1b[31m"], ["é ".encode(), b""]]
)
def test_lines_are_each_shown(names: list[bytes]) -> None:
    assert errors.printable_lines(names) == "".join(f"{errors.printable(name)}\n" for name in names)


@pytest.mark.parametrize(
    "fault", [KeyError("x\x1b[0m"), RecursionError("too deep"), AssertionError(), OSError(5, "EIO")]
)
def test_what_nobody_foresaw_is_a_sentence_and_a_file(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr("cosremaster.api.image.Image.remaster", fail)
    assert main(["in.iso", "out.iso", "--add", "x"]) == 70
    (details,) = tmp_path.glob("cosremaster-fault-*.txt")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cosremaster: internal fault ({type(fault).__name__}")
    assert line.isprintable()
    assert line.endswith(f"and attach {details}")
    text = details.read_text()
    assert "Traceback" in text
    assert "'out.iso' '--add'" in text
    assert details.stat().st_mode & 0o777 == 0o600


def test_a_fault_is_told_where_no_details_can_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("y" * 10_000)

    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    monkeypatch.setattr("cosremaster.api.image.Image.remaster", fail)
    assert main(["in.iso", "out.iso"]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 400
    assert "attach" not in line


def test_too_little_memory_is_no_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("cosremaster.api.image.Image.remaster", fail)
    assert main(["in.iso", "out.iso"]) == 70
    assert capsys.readouterr().err == "cosremaster: there is not enough memory\n"


@pytest.mark.parametrize("module", ["cosremaster.cli.entry", "cosremaster.cli.commands", "cosremaster.errors", "click"])
def test_an_interruption_while_modules_load_has_its_message(module: str) -> None:
    program = f"""
import sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == {module!r}:
            sys.meta_path.remove(self)
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from cosremaster.cli import main
sys.argv[1:] = ["--help"]
sys.exit(main())
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "cosremaster: interrupted\n")


@pytest.mark.parametrize("call", ["fstatvfs", "fstat", "dup"])
def test_a_file_system_that_fails_while_the_front_is_copied_changes_nothing(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    image = write_small(tmp_path)
    with open_source(image) as source, (tmp_path / "out").open("wb") as target:
        monkeypatch.setattr(f"cosremaster.io.precopy.os.{call}", fail)
        precopy = Precopy(source, target.fileno())
        monkeypatch.undo()
        assert precopy.reusable_front(PieceTable([Range(source, 0, source.size)])) in (0, source.size)


def test_temporary_data_that_cannot_be_read_are_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with Spool(tmp_path) as spool:
        part = spool.append([b"abc"], packed=True)
        monkeypatch.setattr("cosremaster.io.spool.os.pread", fail)
        with pytest.raises(errors.OutputError, match="temporary data cannot be read: Input/output error"):
            list(part.chunks())
