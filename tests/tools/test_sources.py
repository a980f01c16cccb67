"""What the user's files may be that no layer can hold as they are; and images with much of nothing behind them."""

import os
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.demo.image import build_archive, regular
from cosremaster.errors import OverlayError
from cosremaster.io.files import FileSource
from tests.fixtures.tools import leave_out, require, run


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.cpio").write_bytes(build_archive([regular(b"init", b"#!/bin/sh\n", 0o755)]))
    (tmp_path / "site").mkdir()
    return tmp_path


def warnings(work: Path, *words: str, capfd: pytest.CaptureFixture[str]) -> list[str]:
    (work / "out.cpio").unlink(missing_ok=True)
    assert main(["in.cpio", "out.cpio", "--layer", "in.cpio", "--quiet", *words]) == 0
    return capfd.readouterr().err.splitlines()


@pytest.mark.parametrize("name", ["/proc/version", "/proc/self/environ", "/proc/cpuinfo"])
def test_a_file_of_proc_is_not_added_as_nothing(work: Path, name: str) -> None:
    if not Path(name).exists():
        pytest.fail("/proc is part of Linux")
    with pytest.raises(OverlayError, match=f"^{name}: cannot be added: it has bytes, but its size is 0"):
        cosremaster.remaster("in.cpio", "out.cpio", layer="in.cpio", add=[f"{name}:/etc/x"])
    with pytest.raises(OverlayError, match=r"cannot be added: it has bytes, but its size is 0"):
        cosremaster.remaster("in.cpio", "out.cpio", layer="in.cpio", add=["/proc/sys/kernel:/etc"])
    assert not Path("out.cpio").exists()


def test_an_empty_file_is_one(work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (work / "site/empty").touch()
    assert not warnings(work, "--add", "site", capfd=capfd)


def test_times_that_no_layer_holds_are_told(work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    require("tar")
    for name, time in {"old": -5, "new": 1 << 33, "now": 1_700_000_000}.items():
        (work / "site" / name).touch()
        os.utime(work / "site" / name, (time, time))
        if (work / "site" / name).stat().st_mtime != time:
            leave_out("This file system does not hold these times.")
    said = "times before 1970 or after 2106 become the nearest that a layer holds"
    assert warnings(work, "--add", "site", capfd=capfd) == [f"warning: site: {said}: new, old"]
    assert warnings(work, "--add", "site/old:/etc/", capfd=capfd) == [f"warning: site/old: {said}: old"]
    run(["tar", "--format=pax", "-cf", "site.tar", "-C", "site", "."])
    (said_of_tar,) = warnings(work, "--add", "site.tar", capfd=capfd)
    assert said_of_tar.startswith(f"warning: site.tar: {said}: ") and "new" in said_of_tar and "old" in said_of_tar
    (work / "m.mtree").write_text("./now type=file time=9999999999.0\n")
    assert f"warning: m.mtree: {said}: now" in warnings(work, "--add", "site", "--mtree", "m.mtree", capfd=capfd)
    result = cosremaster.remaster("in.cpio", "two", layer="in.cpio", add=[cosremaster.InlineFile("/x", b"x", mtime=-1)])
    assert result.warnings == (f"/x: {said}: x",)


def test_newer_times_than_the_epoch_are_wanted_so(
    work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "site/new").touch()
    os.utime(work / "site/new", (1 << 33, 1 << 33))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert not warnings(work, "--add", "site", capfd=capfd)


def test_a_hole_behind_the_volume_costs_nothing(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("genisoimage")
    (work / "site/a").write_text("a")
    run(["genisoimage", "-quiet", "-R", "-o", "in.iso", "site"])
    os.truncate("in.iso", 8 << 30)
    if Path("in.iso").stat().st_blocks * 512 > 1 << 20:
        leave_out("This file system has no holes.")
    read, count = FileSource.read, 0

    def counted(self: FileSource, offset: int, length: int) -> bytes:
        """Count the bytes that are read."""
        nonlocal count
        data = read(self, offset, length)
        count += len(data)
        return data

    monkeypatch.setattr(FileSource, "read", counted)
    cosremaster.remaster("in.iso", "out.iso", add_iso=[f"{work / 'site/a'}:/b"])
    assert count < 64 << 20
    status = Path("out.iso").stat()
    assert status.st_size >= 8 << 30 and status.st_blocks * 512 < 1 << 20
    assert cosremaster.verify("out.iso", against="in.iso", changed=["b"]).ok


def test_data_far_behind_the_volume_stay(work: Path) -> None:
    require("genisoimage")
    (work / "site/a").write_text("a")
    run(["genisoimage", "-quiet", "-R", "-o", "in.iso", "site"])
    os.truncate("in.iso", 1 << 30)
    with Path("in.iso").open("r+b") as file:
        file.seek(700 << 20)
        file.write(b"persistent")
    cosremaster.remaster("in.iso", "out.iso", add_iso=[f"{work / 'site/a'}:/b"])
    with Path("out.iso").open("rb") as file:
        file.seek(700 << 20)
        assert b"persistent" in file.read(4096)
