"""Opened images, the plan, digest files, and copying inside the kernel or not."""

from __future__ import annotations

import errno
import gzip
import json
import lzma
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.codecs.base import BlockCache
from cosremaster.demo.image import build_archive, outer_items, regular, root_items
from cosremaster.errors import CorruptError, ImageError, OutputError, UsageError
from cosremaster.io import descriptors
from cosremaster.io import precopy as headstart
from cosremaster.io import source as io_source
from cosremaster.io.parallel import BATCH, CancelledError, StopFlag, Worker, ordered_map, prefetch, prefetch_batches
from cosremaster.io.pieces import PieceTable
from cosremaster.layers.model import Layer
from cosremaster.progress import Advance
from cosremaster.remastering import pack
from cosremaster.remastering.image import OpenedImage
from cosremaster.remastering.pack import Packing, RepackedLayer
from tests.fixtures import tools
from tests.support.listener import Listener
from tests.support.small import CGZ, write_overlay, write_small


def test_an_opened_image_serves_many_threads_and_is_indexed_once(tmp_path: Path) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    cosremaster.remaster(source, tmp_path / "alone.iso", add=[overlay], remember=False)
    listener = Listener()
    with cosremaster.open(source, remember=False) as image:
        image.layers(progress=listener)

        def one(number: int) -> bytes:
            target = tmp_path / f"{number}.iso"
            request = cosremaster.Request(add=[overlay], remove=["etc/hostname"] if number % 2 else [])
            image.remaster(target, request, progress=listener)
            return target.read_bytes()

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(one, range(12)))
    assert set(results[::2]) == {(tmp_path / "alone.iso").read_bytes()}
    assert len(set(results[1::2])) == 1
    assert [title for title in listener.steps if title.startswith("index")] == [f"index {CGZ}"]


class _Writer(Listener):
    """Writes to the file `path` when a result begins to be written."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        """Write zeros in the middle of the file."""
        if title == "write":
            with self._path.open("r+b") as file:
                file.seek(self._path.stat().st_size // 2)
                file.write(bytes(64))
        with super().step(title, total) as advance:
            yield advance


def _pack_alone(folder: Path, name: str, *packer: str) -> bytes:
    """The file `name` of a folder in an archive, packed."""
    plain = tools.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=folder, stdin=f"{name}\n".encode())
    return tools.run(packer, stdin=plain)


def test_an_input_that_changes_while_it_is_copied_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of two states fails its proof, but nothing is wrong with what was planned."""
    monkeypatch.delattr(os, "copy_file_range")  # nothing is copied before the step
    tools.require("cpio", "xz", "gzip")
    image, out = tmp_path / "in.gz", tmp_path / "out.gz"
    (tmp_path / "data").write_bytes(os.urandom(1_000_000))
    (tmp_path / "root.xz").write_bytes(_pack_alone(tmp_path, "data", "xz", "-0", "--check=crc32"))
    image.write_bytes(_pack_alone(tmp_path, "root.xz", "gzip", "-n"))
    motd = cosremaster.InlineFile("/motd", b"hi")
    with pytest.raises(ImageError, match=r"in\.gz: changed while it was being read$"):
        cosremaster.remaster(image, out, add=[motd], layer="in.gz::root.xz", progress=_Writer(image), remember=False)
    assert not out.exists()


@pytest.mark.parametrize("digest", ["sha256", "md5"])
def test_digest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str) -> None:
    tools.require(f"{digest}sum")
    write_small(tmp_path)
    write_overlay(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["in.iso", "out.iso", "--add", "overlay", "--digest", digest]) == 0
    assert tools.run([f"{digest}sum", "--strict", "-c", f"out.iso.{digest}"]) == b"out.iso: OK\n"
    before = (tmp_path / f"out.iso.{digest}").read_bytes()
    (tmp_path / "out.iso").unlink()
    with pytest.raises(OutputError, match=rf"out\.iso\.{digest}: exists already"):
        cosremaster.remaster("in.iso", "out.iso", add=["overlay"], digest=digest)
    assert not (tmp_path / "out.iso").exists()
    assert (tmp_path / f"out.iso.{digest}").read_bytes() == before
    with pytest.raises(UsageError, match="no digest is called 'crc'"):
        cosremaster.remaster("in.iso", "out.iso", digest="crc")


def test_the_plan_tells_what_the_remaster_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_small(tmp_path)
    overlay = write_overlay(tmp_path)
    (overlay / "etc/hostname").write_text("debirf\n")
    (overlay / "etc/hostname").chmod(0o644)
    (overlay / "noise").write_bytes(os.urandom(50_000))
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["plan", "in.iso", "--add", "overlay", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    result = cosremaster.remaster("in.iso", "out.iso", add=["overlay"])
    assert plan["image"]["size"] == {"before": result.input_size, "after": result.output_size}
    assert [layer["size"] for layer in plan["layers"]] == [one.size for one in result.packed]
    assert plan["layer"] == result.layer
    edits = plan["edits"]
    assert (edits["added"], edits["unchanged"]) == (["etc/motd", "noise", "site.sh"], ["etc/hostname"])
    assert sum(kind["bytes"] for kind in plan["pieces"].values()) == result.output_size
    moved = {one["what"]: one for one in plan["image"]["extents"] if one["before"] != one["after"]}
    assert set(moved) == {CGZ, "vmlinuz", "boot/grub/grub.cfg"}
    grown = moved[CGZ]["after"]["blocks"] - moved[CGZ]["before"]["blocks"]
    assert moved["vmlinuz"]["after"]["lba"] - moved["vmlinuz"]["before"]["lba"] == grown > 0
    assert main(["plan", "in.iso", "--add", "overlay"]) == 0
    printed = capsys.readouterr().out
    for line in ("  + etc/motd", "  = etc/hostname", "pieces of the new image:", f"layer {CGZ}::rootfs.cxz"):
        assert line in printed.splitlines()


def test_a_plan_without_edits_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_small(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "in.iso"]) == 0
    assert capsys.readouterr().out.startswith("nothing changes: the output would be the input, byte for byte\n")


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, 0])
def test_where_the_kernel_cannot_copy_we_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    cosremaster.remaster(source, tmp_path / "one.iso", add=[overlay])
    calls = []

    def refuse(*arguments: object) -> int:
        calls.append(arguments)
        if code:
            raise OSError(code, os.strerror(code))
        return 0  # what some file systems answer

    for room in (io_source, headstart):
        monkeypatch.setattr(room, "may_share_blocks", lambda device: True)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    cosremaster.remaster(source, tmp_path / "two.iso", add=[overlay])
    assert calls
    assert (tmp_path / "one.iso").read_bytes() == (tmp_path / "two.iso").read_bytes()


def test_file_systems_that_copy_every_byte_are_not_asked_to_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not descriptors.may_share_blocks(os.stat("/dev/shm").st_dev), "tmpfs"
    assert descriptors.may_share_blocks(os.makedev(4095, 4095)), "unknown"

    def refuse(*arguments: object) -> bool:
        raise AssertionError(arguments)

    monkeypatch.setattr(io_source, "may_share_blocks", lambda device: False)
    monkeypatch.setattr(io_source, "share_range", refuse)
    cosremaster.remaster(write_small(tmp_path), tmp_path / "out.iso", add=[write_overlay(tmp_path)])


def test_short_copies_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    cosremaster.remaster(source, tmp_path / "one.iso", add=[overlay])
    real = os.copy_file_range

    def short(from_fd: int, to_fd: int, count: int, offset: int) -> int:
        return real(from_fd, to_fd, min(count, 1000), offset)

    for room in (io_source, headstart):
        monkeypatch.setattr(room, "may_share_blocks", lambda device: True)
    monkeypatch.setattr(os, "copy_file_range", short)
    cosremaster.remaster(source, tmp_path / "two.iso", add=[overlay])
    assert (tmp_path / "one.iso").read_bytes() == (tmp_path / "two.iso").read_bytes()


def test_a_signal_that_another_thread_gets_stops_the_work() -> None:
    """The kernel may choose any thread of a process; here it is told which."""
    noticed: list[bool] = []

    def work(_: int, stop: StopFlag) -> None:
        time.sleep(0.5)  # till the main thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        for _ in range(100):
            time.sleep(0.1)
            try:
                stop.check()
            except CancelledError:
                noticed.append(True)
                raise
        noticed.append(False)

    with pytest.raises(KeyboardInterrupt):
        list(ordered_map(work, [1], 1))
    assert noticed == [True], "and is awaited"


def test_batches_lose_nothing_before_an_error() -> None:
    def broken() -> Iterator[bytes]:
        yield from (b"a", bytes(BATCH), b"b", b"c")
        raise CorruptError("damage")

    found = []
    with pytest.raises(CorruptError, match="damage"):
        for chunk in prefetch_batches(broken()):
            found.append(chunk)
    assert found == [b"a", bytes(BATCH), b"b", b"c"]
    assert list(prefetch_batches([])) == []


def test_prefetch_keeps_order_passes_errors_on_and_ends_with_its_caller() -> None:
    chunks = [b"%d" % number for number in range(100)]
    assert list(prefetch(chunks)) == chunks

    def broken() -> Iterator[bytes]:
        yield b"sound"
        raise CorruptError("damage")

    found = prefetch(broken())
    assert next(found) == b"sound"
    with pytest.raises(CorruptError, match="damage"):
        next(found)

    endless = prefetch(iter(lambda: b"more", b""))
    assert next(endless) == b"more"
    assert any(thread.name == "cosremaster-prefetch" for thread in threading.enumerate())
    endless.close()  # type: ignore[attr-defined]
    assert not any(thread.name == "cosremaster-prefetch" for thread in threading.enumerate())


def test_a_plain_remaster_loads_nothing_that_only_others_need(tmp_path: Path) -> None:
    write_small(tmp_path)
    write_overlay(tmp_path)
    rare = [
        "cosremaster.archives.reader", "cosremaster.overlay.archive", "cosremaster.overlay.mtree",
        "cosremaster.boot_config.menus", "cosremaster.boot_config.change", "cosremaster.codecs.lzma_alone",
        "cosremaster.codecs.zstd", "cosremaster.verification.run", "cosremaster.verification.compare",
        "cosremaster.verification.layers", "cosremaster.recipe",
        "cosremaster.browse", "cosremaster.demo", "cosremaster.reports.html",
        "libarchive", "pydantic", "rich",
        *(["dataclasses"] if sys.version_info < (3, 14) else []),  # where pycdlib's logging loads them by itself
    ]  # fmt: skip
    program = (
        "import sys; from cosremaster.cli import main; code = main(sys.argv[1:]);"
        f"print(code, sorted(set({rare!r}) & set(sys.modules)))"
    )
    words = ["in.iso", "out.iso", "--add", "overlay", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.stdout == "0 []\n"


@pytest.mark.parametrize("size", [1000, 3 << 20, 12 << 20])
def test_what_is_foreseen_of_a_holder_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Fronts of less than a block, of several, and of more than is kept."""
    words = b" ".join(b"%x" % (number * number % 65521) for number in range(size // 5))
    outer = build_archive(
        [regular(b"front", words), *outer_items(b"rootfs.cxz", lzma.compress(build_archive(root_items())))]
    )
    source, overlay = write_small(tmp_path, gzip.compress(outer, 6, mtime=0)), write_overlay(tmp_path)
    packed: list[int] = []
    real = pack.pack_layer

    def noted(layer: Layer, plain: PieceTable, packing: Packing) -> RepackedLayer:
        packed.append(plain.length)
        return real(layer, plain, packing)

    monkeypatch.setattr(pack, "pack_layer", noted)
    with cosremaster.open(source, remember=False) as image:
        image.layers()  # else the front is packed while they are indexed
        request = cosremaster.Request(add=[overlay])
        for name in ("one.iso", "again.iso"):
            image.remaster(tmp_path / name, request)
    with OpenedImage(source, remember=False) as opened:
        found = opened.layers().layers
    foreseen = min(found[1].container_entry.offset if found[1].container_entry else 0, BlockCache.LIMIT)
    assert packed.count(foreseen) == 1, "once for all remasters"
    monkeypatch.setattr(pack, "prepack_container_front", lambda *_: Worker(lambda: None))
    with cosremaster.open(source, remember=False) as image:
        image.layers()
        image.remaster(tmp_path / "two.iso", request)
    assert len({(tmp_path / name).read_bytes() for name in ("one.iso", "again.iso", "two.iso")}) == 1
