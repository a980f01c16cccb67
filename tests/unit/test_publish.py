"""Outputs get their names together or not at all, replace what they may, and leave nothing that the next run keeps."""

import errno
import fcntl
import hashlib
import os
import random
import stat
import threading
from pathlib import Path

import pytest

import cosremaster
from cosremaster.errors import ImageError, OutputError, ProofError, UsageError
from cosremaster.io import publish
from cosremaster.io.descriptors import STEP
from cosremaster.io.output import Output
from cosremaster.io.part_files import PartFile
from cosremaster.io.pieces import Literal, PieceTable, Range, Zeros
from cosremaster.io.source import open_source
from cosremaster.io.spool import Spool
from tests.fixtures.tools import require, run
from tests.support.small import packed_root, root_without_devices, write_small

TABLE = PieceTable([Literal(b"result"), Zeros(1 << 17), Literal(b"end")])
DATA = b"result" + bytes(1 << 17) + b"end"


def write(target: Path, *, force: bool = False, digest: str | None = "sha256", report: Path | None = None) -> list[str]:
    """Write and publish ``TABLE``; return the warnings."""
    warnings: list[str] = []
    with Output(target, (), force=force, digest=digest) as output:
        output.write(TABLE, None, lambda count: None)
        if report is not None:
            told = Output(report, (), force=force)
            told.write_chunks([b"{}\n"])
            output.add_companion(told)
        output.publish(warnings.append)
    return warnings


def line(name: str) -> bytes:
    return hashlib.sha256(DATA).hexdigest().encode() + b"  " + name.encode() + b"\n"


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_the_digest_is_that_of_the_written_bytes(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(DATA * 3)
    with open_source(tmp_path / "in") as source, Output(tmp_path / "out", (), force=False, digest="sha256") as output:
        table = PieceTable([Range(source, 5, 200_000), *TABLE.pieces, Range(source, 0, 7)])
        output.start_precopy(source)
        output.write(table, source, lambda count: None)
        output.publish()
    data = (tmp_path / "out").read_bytes()
    assert data == (DATA * 3)[5:200_005] + DATA + DATA[:7]
    assert (tmp_path / "out.sha256").read_text() == f"{hashlib.sha256(data).hexdigest()}  out\n"


def test_the_digest_of_many_new_bytes_is_taken_where_they_are_read_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 9_000_001
    threads = list[str]()

    class NotedHash:
        """SHA-256 that notes which threads take it."""

        def __init__(self) -> None:
            self._hash = hashlib.sha256()

        def update(self, data: bytes | memoryview) -> None:
            threads.append(threading.current_thread().name)
            self._hash.update(data)

        def hexdigest(self) -> str:
            return self._hash.hexdigest()

    data = random.Random(1).randbytes(many)
    monkeypatch.setattr(hashlib, "new", lambda name: NotedHash())
    with Spool(tmp_path) as spool, Output(tmp_path / "out", (), force=False, digest="sha256") as output:
        spooled = spool.append([data], packed=True)
        output.write(PieceTable([*TABLE.pieces, spooled, *TABLE.pieces, spooled.cut(5, 9)]), None, lambda count: None)
        output.publish()
    expected = DATA + data + DATA + data[5:9]
    assert (tmp_path / "out").read_bytes() == expected
    assert (tmp_path / "out.sha256").read_text() == f"{hashlib.sha256(expected).hexdigest()}  out\n"
    assert threads.count("cosremaster-prefetch") == -(-many // STEP)
    assert threads[0] == threads[-1] == threading.main_thread().name


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("failing", ["image", "digest", "report", "folder"])
def test_what_cannot_be_named_leaves_all_as_it_was(
    tmp_path: Path, force: bool, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"out": b"old", "out.sha256": b"old digest", "report": b"old report"} if force else {}
    for name, data in old.items():
        (tmp_path / name).write_bytes(data)
    blocked = {"image": "out", "digest": "out.sha256", "report": "report", "folder": "-"}[failing]
    place = publish.FinishedFile.place

    def placing(self: publish.FinishedFile) -> None:
        """Name all files but one."""
        if self.target.name == blocked:
            raise OSError(errno.EIO, "Input/output error")
        place(self)

    def syncing(folder: Path) -> None:
        """Fail as a disk does."""
        if failing == "folder":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(publish.FinishedFile, "place", placing)
    monkeypatch.setattr(publish, "sync_folder", syncing)
    with pytest.raises(OutputError, match="out: cannot write the output: Input/output error"):
        write(tmp_path / "out", force=force, report=tmp_path / "report")
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == old


def test_a_digest_that_somebody_made_meanwhile_stays_and_nothing_is_published(tmp_path: Path) -> None:
    with Output(tmp_path / "out", (), force=False, digest="sha256") as output:
        output.write(TABLE, None, lambda count: None)
        (tmp_path / "out.sha256").write_bytes(b"theirs")
        with pytest.raises(OutputError, match=r"out\.sha256: exists already \(it was made while we worked\)"):
            output.publish()
    assert names(tmp_path) == ["out.sha256"] and (tmp_path / "out.sha256").read_bytes() == b"theirs"


def test_a_temporary_name_that_stays_is_no_failure_and_the_next_run_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def failing(self: Path, missing_ok: bool = False) -> None:
        """Fail as a disk does."""
        if self.name.endswith(".part"):
            raise OSError(errno.EIO, "Input/output error")
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", failing)
    write(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA and (tmp_path / "out.sha256").read_bytes() == line("out")
    assert len(names(tmp_path)) == 4
    monkeypatch.undo()
    write(tmp_path / "next", digest=None)
    assert names(tmp_path) == ["next", "out", "out.sha256"]


def test_only_what_killed_runs_left_is_stale(tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.write_text("x")
    for name in (".cosremaster-0123.part", ".cosremaster-.part", ".cosremaster-x", "x.part"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".cosremaster-link.part").symlink_to(other)
    (tmp_path / ".cosremaster-folder.part").mkdir()
    (tmp_path / ".cosremaster-folder.part/closed").mkdir(mode=0)
    os.mkfifo(tmp_path / ".cosremaster-fifo.part")
    with (tmp_path / ".cosremaster-alive.part").open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        part = PartFile(tmp_path)
        second = PartFile(tmp_path)
        left = [".cosremaster-alive.part", ".cosremaster-fifo.part", ".cosremaster-link.part", ".cosremaster-x"]
        assert names(tmp_path) == sorted([*left, part.path.name, second.path.name, "elsewhere", "x.part"])
        part.close()
        second.close()


def test_a_replaced_file_keeps_mode_and_owner(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    target.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(target, 1234, 1235)
    before = target.stat()
    assert write(target, force=True, digest=None) == []
    status = target.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o600, before.st_uid, before.st_gid)


def test_what_a_replaced_file_cannot_keep_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    (tmp_path / "other").hardlink_to(target)
    old = target.stat()

    class Theirs:
        """The status of a file of somebody else."""

        st_mode, st_nlink, st_uid, st_gid = old.st_mode, old.st_nlink, old.st_uid + 5, old.st_gid

    def refused(*_: object) -> None:
        """Fail as for an ordinary user."""
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: Theirs if path == target else real(path, **options))
    assert write(target, force=True, digest=None) == [
        f"{target}: it belonged to {old.st_uid + 5}:{old.st_gid}, and now to {os.geteuid()}:{os.getegid()}",
        f"{target}: its other names (hard links) keep the old file",
    ]
    monkeypatch.undo()
    assert (tmp_path / "other").read_bytes() == b"old" and target.read_bytes() == DATA


def test_bytes_that_changed_on_their_way_are_noticed_by_reading_back(tmp_path: Path) -> None:
    with Output(tmp_path / "out", (), force=False) as output:
        written = output.write(TABLE, None, lambda count: None)
        output.read_back(TABLE, lambda count: None)
        with written.path.open("r+b") as file:
            file.seek(70_000)
            file.write(b"\x01")
        with pytest.raises(ProofError, match=r"out @0x.*: was not read back as it was written"):
            output.read_back(TABLE, lambda count: None)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_small(tmp_path, packed_root(root_without_devices()))


def test_a_remaster_reads_back_and_expects(image: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    item = cosremaster.InlineFile("/etc/x", b"x")
    result = cosremaster.remaster(
        image, tmp_path / "out", add=[item], read_back=True, expect=[f"SHA256:{digest.upper()}"], digest="sha256"
    )
    assert any(text.startswith("all ") for text in result.proof)
    written = hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest()
    assert (tmp_path / "out.sha256").read_text() == f"{written}  out\n"
    with pytest.raises(ImageError, match=rf"its sha256 is {digest}, and 0{{64}} was expected"):
        cosremaster.remaster(image, tmp_path / "two", add=[item], expect=["sha256:" + "0" * 64])
    with pytest.raises(ImageError, match="was expected"):  # and no error that follows from a wrong image
        cosremaster.remaster(image, tmp_path / "two", remove=["/missing"], expect=["md5:" + "0" * 32])
    for text in ("sha256", "sha256:12", "sha1:" + "0" * 40, "x"):
        with pytest.raises(UsageError, match="is no digest"):
            cosremaster.remaster(image, tmp_path / "two", expect=[text])
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("form", ["file", "folder", "mtree", "iso"])
@pytest.mark.parametrize("what", ["output", "report", "digest"])
def test_no_source_of_the_overlay_is_overwritten(image: Path, tmp_path: Path, form: str, what: str) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "a").write_text("precious")
    (tmp_path / "m.mtree").write_text("./a type=file\n")
    victim = tmp_path / "m.mtree" if form == "mtree" else site / "a"
    request = {
        "file": {"add": [cosremaster.AddPath(site / "a", "/a")]}, "folder": {"add": [site]},
        "mtree": {"add": [cosremaster.AddPath(site, mtree=tmp_path / "m.mtree")]}, "iso": {"add_iso": [site]},
    }[form]  # fmt: skip
    before = victim.read_bytes()
    target = victim if what == "output" else tmp_path / "out"
    if what == "digest":
        victim.rename(victim.with_name("out.sha256"))
        victim, target = victim.with_name("out.sha256"), victim.with_name("out")
        request = {"add": [cosremaster.AddPath(victim, "/a")]}
    options = {"report": victim} if what == "report" else {"digest": "sha256"} if what == "digest" else {}
    with pytest.raises(OutputError, match="is part of what is added"):
        cosremaster.remaster(image, target, force=True, **request, **options)  # type: ignore[arg-type]
    assert victim.read_bytes() == before


def test_a_digest_file_of_the_replaced_image_is_told(image: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    (tmp_path / "out.md5").write_bytes(b"old")
    result = cosremaster.remaster(image, tmp_path / "out", force=True, digest="sha256")
    assert result.warnings == (f"{tmp_path / 'out.md5'}: belongs to the image that was replaced",)


def test_a_digest_file_names_what_it_stands_beside(image: Path, tmp_path: Path) -> None:
    """The output may be a symlink to another folder, or have a name that sha256sum escapes."""
    require("sha256sum")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/v1").write_bytes(b"old")
    (tmp_path / "latest").symlink_to("store/v1")
    (tmp_path / "latest.md5").write_bytes(b"old")
    result = cosremaster.remaster(image, tmp_path / "latest", force=True, digest="sha256")
    assert result.warnings == (f"{tmp_path / 'latest.md5'}: belongs to the image that was replaced",)
    cosremaster.remaster(image, tmp_path / "a\\b\nc", digest="sha256")
    for name in ("latest", "a\\b\nc"):
        run(["sha256sum", "-c", f"{name}.sha256"], cwd=tmp_path)
