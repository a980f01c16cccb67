"""Fleets: what counts as current is, and what no run wrote stays."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cosremaster
from cosremaster import Request
from cosremaster.api import many
from cosremaster.cli import main
from cosremaster.errors import OutputError
from cosremaster.fleet import Fleet, FleetOptions, FleetSite, read_fleet, run_fleet
from cosremaster.fleet import run as fleet_run
from cosremaster.fleet import state as fleet_state
from cosremaster.fleet.base import FleetBase
from cosremaster.fleet.state import SiteRecord, stamp_tree
from cosremaster.io import files
from cosremaster.io.source import SourceIdentity
from tests.fixtures.tools import require, run
from tests.support.small import write_small
from tests.support.user import open_folder, without_root

FLEET = """\
base = "in.iso"
output = "out/${NAME}.iso"
source_date_epoch = 1700000000
[[add]]
file = "/etc/site"
content = "${NAME}"
[[site]]
name = "north"
[[site]]
name = "south"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path, extra={"version": b"1"})
    (tmp_path / "fleet.toml").write_text(FLEET)
    return tmp_path


def _states(report: fleet_run.FleetReport) -> dict[str, str]:
    return {record.site: record.state for record in report.records}


def _version_of(image: str) -> bytes:
    """What bsdtar finds on ``image``."""
    return run(["bsdtar", "-xOf", image, "version"])


class _Meddle:
    """Does something when the images are begun, or when the first is there."""

    def __init__(self, *, begin: Callable[[], Any] = lambda: None, first: Callable[[], Any] = lambda: None) -> None:
        self._begin, self._first = begin, first

    def begin(self, count: int, current: int, has_common: bool) -> None:
        self._begin()

    def add(self, record: SiteRecord) -> None:
        self._first()
        self._first = lambda: None


def test_an_image_below_a_base_counts_as_the_base(folder: Path) -> None:
    """A qcow2 image holds what differs from the file below it, which may change."""
    require("qemu-img", "bsdtar")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "in.iso", "-F", "raw", "top.qcow2"], cwd=folder)
    (folder / "fleet.toml").write_text(FLEET.replace("in.iso", "top.qcow2"))
    fleet = read_fleet("fleet.toml")
    run_fleet(fleet)
    assert _states(run_fleet(fleet)) == {"north": "current", "south": "current"}
    write_small(folder, extra={"version": b"2"})
    assert _states(run_fleet(fleet)) == {"north": "written", "south": "written"}
    assert _version_of("out/north.iso") == b"2"


@pytest.mark.parametrize("way", ["symlink", "rename"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_images_of_a_base_that_came_and_went_are_not_current(jobs: int, way: str, folder: Path) -> None:
    require("bsdtar")
    shutil.copy2("in.iso", "first.iso")
    write_small(folder, extra={"version": b"2"}).rename(folder / "second.iso")
    is_link = way == "symlink"

    def place(name: str) -> None:
        """Let ``name`` be the base."""
        if is_link:
            os.symlink(name, "new")
            os.replace("new", "in.iso")
            return
        if name == "first.iso":
            os.rename("in.iso", "second.iso")
        os.rename(name, "in.iso")

    if is_link:
        place("first.iso")
    else:
        os.rename("first.iso", "in.iso")

    def begin() -> None:
        """Exchange the base."""
        if not is_link:
            os.rename("in.iso", "first.iso")
        place("second.iso")

    fleet = read_fleet("fleet.toml")
    report = run_fleet(fleet, options=FleetOptions(jobs=jobs), listener=_Meddle(begin=begin))
    assert _states(report) == {"north": "written", "south": "written"} and _version_of("out/north.iso") == b"2"
    assert all("the base changed while images were made" in record.warnings[-1] for record in report.records)
    place("first.iso")
    assert _states(run_fleet(fleet)) == {"north": "written", "south": "written"}
    assert _version_of("out/north.iso") == b"1"
    assert _states(run_fleet(fleet)) == {"north": "current", "south": "current"}


@pytest.mark.parametrize("is_dated", [True, False], ids=["coarse times", "device"])
def test_a_base_that_no_time_tells_from_another_is_read(
    is_dated: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT has times of two seconds and numbers its files anew; a drive tells nothing of its medium."""
    identity = SourceIdentity("same", {"size": 5, "mtime": 1, "ctime": 1}, is_dated)
    monkeypatch.setattr(files.FileSource, "identity", lambda self: identity)
    fleet = read_fleet("fleet.toml")
    run_fleet(fleet)
    read: list[object] = []
    real = many.digest_file

    def digest(path: Path) -> str:
        """Note what is read."""
        read.append(path)
        return real(path)

    monkeypatch.setattr(fleet_state, "digest_file", digest)
    assert _states(run_fleet(fleet)) == {"north": "current", "south": "current"}
    assert bool(read) is not is_dated, "it is not read again where times tell of it"
    data = bytearray(Path("in.iso").read_bytes())
    at = 100 if is_dated else len(data) // 2
    data[at : at + 1] = bytes([data[at] ^ 1])
    Path("in.iso").write_bytes(data)
    with FleetBase(fleet.base) as base:
        assert [reason for _, _, reason in fleet_run.plan_fleet(fleet, base=base).pending] == [
            "base, recipe or overlay changed"
        ] * 2


@pytest.mark.parametrize("name", ["sha256", "md5"])
def test_another_base_than_the_expected_is_told_though_all_is_current(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.new(name, Path("in.iso").read_bytes()).hexdigest()
    assert main(["fleet", "fleet.toml", "--quiet"]) == 0
    for digits, code in ((digest, 0), ("0" * len(digest), 3)):
        (folder / "fleet.toml").write_text(f'expect.{name} = "{digits}"\n{FLEET}')
        capsys.readouterr()
        assert main(["fleet", "fleet.toml"]) == code
        assert ("was expected" in capsys.readouterr().err) is bool(code)
        if name == "sha256":
            assert main(["fleet", "fleet.toml", "--plan"]) == code


def test_sites_expect_one_base(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = hashlib.sha256(Path("in.iso").read_bytes()).hexdigest()
    text = FLEET.replace('"north"', f'"north"\nvariables = {{ SUM = "{"0" * 64}" }}')
    text = text.replace('"south"', f'"south"\nvariables = {{ SUM = "{digest}" }}')
    (folder / "fleet.toml").write_text(f'expect.sha256 = "${{SUM}}"\n{text}')
    assert main(["fleet", "fleet.toml"]) == 2
    assert "fleet.toml:1 » expect: is not the same for all sites (site south)" in capsys.readouterr().err


def test_what_python_adds_by_text_counts(folder: Path) -> None:
    """Requests of a program have paths and texts in the place of items."""
    Path("overlay/etc").mkdir(parents=True)
    Path("overlay/etc/x").write_text("1")
    Path("added").write_text("1")
    requests = [Request(add=["overlay"]), Request(add=(folder / "overlay",)), Request(add_iso=["added:/added"])]
    sites = tuple(
        FleetSite(name=f"s{number}", output=folder / f"out/s{number}.iso", request=request)
        for number, request in enumerate(requests)
    )
    fleet = Fleet(path=folder / "fleet.toml", base=folder / "in.iso", expect=(), sync=False, sites=sites)
    assert set(_states(run_fleet(fleet)).values()) == {"written"}
    assert set(_states(run_fleet(fleet)).values()) == {"current"}
    Path("overlay/etc/x").write_text("2")
    Path("added").write_text("2")
    assert set(_states(run_fleet(fleet)).values()) == {"written"}
    assert cosremaster.read("out/s0.iso::@root::etc/x") == b"2"
    scripts = Fleet(
        path=fleet.path, base=fleet.base, expect=(), sync=False,
        sites=(FleetSite(name="r", output=folder / "out/r.iso", request=Request(run=["added"])),),
    )  # fmt: skip
    key = fleet_state.SiteKeys("").key_of(scripts.sites[0])
    Path("added").write_text("3")
    assert fleet_state.SiteKeys("").key_of(scripts.sites[0]) != key


def test_times_count_as_images_have_them(folder: Path) -> None:
    Path("overlay").mkdir()
    path = Path("overlay/x")
    path.write_text("1")
    request = Request(add=["overlay"])
    site = FleetSite(name="s", output=folder / "s.iso", request=request)
    keys = []
    for nanoseconds in (1_699_999_999_999_999_999, 1_700_000_000_000_000_000):
        os.utime(path, ns=(nanoseconds, nanoseconds))
        keys.append(fleet_state.SiteKeys("").key_of(site))
    assert keys[0] != keys[1]


def test_no_image_becomes_part_of_another(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("overlay/images").mkdir(parents=True)
    added = '[[add]]\nsource = "overlay"\n'
    for output in ("overlay/images/${NAME}.iso", "overlay/${NAME}.iso"):
        text = FLEET.replace("out/${NAME}.iso", output)
        (folder / "fleet.toml").write_text(text.replace("[[site]]", f"{added}[[site]]", 1))
        assert main(["fleet", "fleet.toml"]) == 2
        assert "north.iso would be part of what is added (overlay)" in capsys.readouterr().err
    os.symlink("overlay/images", "link")
    (folder / "fleet.toml").write_text(FLEET.replace("out/", "link/").replace("[[site]]", f"{added}[[site]]", 1))
    assert main(["fleet", "fleet.toml", "--plan"]) == 2
    Path("sites/a/etc").mkdir(parents=True)
    head = 'base = "in.iso"\noutput = "sites/out/${NAME}.iso"\n[sites]\ndirectory = "sites"\n'
    (folder / "fleet.toml").write_text(head)
    assert main(["fleet", "fleet.toml", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["fleet", "fleet.toml"]) == 2, "the folder of images would be a site"
    assert "would be part of what is added (sites/out)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("SHA256SUMS", "0123  vendor.iso\n", "SHA256SUMS: is there without fleet.json, so no run of a fleet wrote it"),
        ("fleet.json", '{"schema": 2, "ships": []}', "fleet.json: is no record of a fleet; move it away"),
    ],
)
def test_files_of_others_stay(
    name: str, text: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "fleet.toml").write_text(FLEET.replace("out/", ""))
    Path(name).write_text(text)
    for options in ((), ("--plan",)):
        assert main(["fleet", "fleet.toml", *options]) == 2
        assert message in capsys.readouterr().err
    assert Path(name).read_text() == text and not Path("north.iso").exists()
    assert main(["fleet", "fleet.toml", "--quiet", "--force"]) == (0 if name == "SHA256SUMS" else 2)
    assert main(["fleet", "fleet.toml", "--quiet"]) == (0 if name == "SHA256SUMS" else 2)


def test_the_folder_of_another_fleet_is_not_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", "fleet.toml", "--quiet"]) == 0
    before = Path("out/fleet.json").read_text()
    (folder / "other.toml").write_text(FLEET.replace("north", "east").replace("south", "west"))
    assert main(["fleet", "other.toml", "--quiet"]) == 2
    assert "fleet.json: tells of north, and of no site of this fleet" in capsys.readouterr().err
    assert Path("out/fleet.json").read_text() == before and not Path("out/east.iso").exists()
    (folder / "other.toml").write_text(FLEET.replace("north", "east"))
    assert main(["fleet", "other.toml", "--quiet"]) == 0, "sites may come and go"


def test_an_image_that_another_program_took_the_place_of_is_no_success(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So do sites whose names a file system takes for one."""
    fleet = read_fleet("fleet.toml")
    report = run_fleet(fleet, listener=_Meddle(first=lambda: Path("out/north.iso").write_bytes(b"of another")))
    assert _states(report) == {"north": "failed", "south": "written"} and report.exit_code == 8
    assert "out/north.iso: was written, and then another program" in report.records[0].error
    assert Path("out/SHA256SUMS").read_text().splitlines()[0].endswith("  south.iso")
    assert _states(run_fleet(fleet)) == {"north": "failed", "south": "current"}, "a file of somebody else"
    assert Path("out/north.iso").read_bytes() == b"of another"
    Path("out/north.iso").unlink()
    report = run_fleet(fleet, listener=_Meddle(first=lambda: os.utime("out/north.iso")))
    assert _states(report) == {"north": "written", "south": "current"}, "it has the same bytes"
    assert _states(run_fleet(fleet)) == {"north": "current", "south": "current"}
    Path("out/south.iso").unlink()
    Path("out/south.iso").symlink_to("north.iso")
    report = run_fleet(fleet, ["south"], options=FleetOptions(force=True))
    assert _states(report) == {"south": "written"}
    states = {site["site"]: site["state"] for site in json.loads(Path("out/fleet.json").read_text())["sites"]}
    assert states == {"north": "failed", "south": "written"}
    run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder / "out")


def test_an_image_that_is_taken_away_at_once_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a program that watches the folder and moves what appears."""
    real = many._make_site

    def make(image: cosremaster.Image, site: cosremaster.Site, options: cosremaster.BaseOptions) -> Any:
        result = real(image, site, options)
        if site.name == "north":
            os.unlink(site.target)
        return result

    monkeypatch.setattr(many, "_make_site", make)
    report = run_fleet(read_fleet("fleet.toml"))
    assert _states(report) == {"north": "failed", "south": "written"} and report.exit_code == 8
    assert "removed it" in report.records[0].error


def test_nothing_has_to_be_written_where_all_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a medium that is mounted to be read alone."""
    with open_folder() as folder:
        monkeypatch.chdir(folder)
        write_small(folder)
        Path("fleet.toml").write_text(FLEET)
        assert main(["fleet", "fleet.toml", "--quiet"]) == 0
        os.chmod("out", 0o555)
        with without_root():
            assert not os.access("out", os.W_OK)
            assert main(["fleet", "fleet.toml", "--quiet"]) == 0
        os.chmod("out", 0o755)
        Path("out/SHA256SUMS").unlink()
        os.chmod("out", 0o555)
        with without_root():
            assert main(["fleet", "fleet.toml", "--quiet"]) == 8, "there is something to write"
        os.chmod("out", 0o755)


def test_a_site_without_a_folder_or_with_unreadable_files_stops_no_other(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FLEET.replace("out/", "${DIR}/").replace('"north"', '"north"\nvariables = { DIR = "in.iso/x" }')
    (folder / "fleet.toml").write_text(text.replace('"south"', '"south"\nvariables = { DIR = "out" }'))
    assert main(["fleet", "fleet.toml", "--quiet"]) == 8
    assert "north: in.iso/x/north.iso: cannot be written: there is no folder" in capsys.readouterr().err
    assert Path("out/south.iso").exists()
    Path("closed").mkdir()
    Path("closed/x").write_text("x")
    (folder / "other.toml").write_text(FLEET.replace("out/", "new/") + '[[site.add]]\nsource = "closed"\n')
    real = many.digest_file

    def digest(path: str) -> str:
        """Refuse what nobody may read."""
        if "closed" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(fleet_state, "digest_file", digest)
    assert main(["fleet", "other.toml", "--plan"]) == 0
    assert "south: new/south.iso: would fail (what it adds cannot be read)" in capsys.readouterr().out
    monkeypatch.setattr(os, "access", lambda path, mode, **options: not (path == b"x" and mode == os.R_OK))
    assert main(["fleet", "other.toml", "--quiet"]) == 7
    assert "south: closed/x: cannot be added: Permission denied" in capsys.readouterr().err
    assert Path("new/north.iso").exists()


def test_a_file_system_without_attributes_holds_overlays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("overlay").mkdir()
    Path("overlay/x").write_text("x")
    (folder / "fleet.toml").write_text(FLEET + '[[site.add]]\nsource = "overlay"\n')

    def list_none(*_: object, **__: object) -> list[str]:
        """Fail as on sshfs."""
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "listxattr", list_none)
    assert main(["fleet", "fleet.toml", "--quiet"]) == 0


def test_two_first_runs_know_of_each_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second plans while the first makes the folder and all images."""
    fleet, real = read_fleet("fleet.toml"), fleet_run.plan_fleet

    def plan_slowly(*arguments: Any, **options: Any) -> fleet_run.FleetPlan:
        """Let another run be quicker."""
        plan = real(*arguments, **options)
        if not Path("out").exists():
            monkeypatch.setattr(fleet_run, "plan_fleet", real)
            run_fleet(fleet, ["north"])
            monkeypatch.setattr(fleet_run, "plan_fleet", plan_slowly)
        return plan

    monkeypatch.setattr(fleet_run, "plan_fleet", plan_slowly)
    assert _states(run_fleet(fleet)) == {"north": "current", "south": "written"}


def test_a_record_without_the_digest_of_the_base_is_none_of_it(folder: Path) -> None:
    fleet = read_fleet("fleet.toml")
    run_fleet(fleet)
    values = json.loads(Path("out/fleet.json").read_text())
    digest = values["base"].pop("sha256")
    Path("out/fleet.json").write_text(json.dumps(values))
    assert _states(run_fleet(fleet)) == {"north": "current", "south": "current"}
    assert json.loads(Path("out/fleet.json").read_text())["base"]["sha256"] == digest


def test_a_value_that_no_text_can_have_is_a_fault(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sites = [{"name": "a", "variables": {"X": "\ud800"}}]
    Path("s.json").write_text(json.dumps(sites))
    head = 'base = "in.iso"\noutput = "out/${NAME}.iso"\n[[add]]\nfile = "/x"\ncontent = "${X}"\n'
    (folder / "fleet.toml").write_text(f'{head}[sites]\njson = "s.json"\n')
    assert main(["fleet", "fleet.toml"]) == 2
    assert "json[0].variables.X: has half of a surrogate pair" in capsys.readouterr().err


def test_a_result_that_is_taken_while_interrupted_is_recorded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes between the moment when the pool has a result and that when it is recorded."""
    real = many._error_of

    def look_and_interrupt(future: Any) -> BaseException | None:
        """Interrupt the run once."""
        monkeypatch.setattr(many, "_error_of", real)
        os.kill(os.getpid(), signal.SIGINT)
        return real(future)

    monkeypatch.setattr(many, "_error_of", look_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_fleet(read_fleet("fleet.toml"), options=FleetOptions(jobs=2))
    monkeypatch.undo()
    images = sorted(path.name for path in (folder / "out").glob("*.iso"))
    lines = (folder / "out/SHA256SUMS").read_text().splitlines()
    assert images and [line.split("  ")[1] for line in lines] == images


def test_a_run_that_was_told_to_outlive_its_terminal_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nohup(1) ignores SIGHUP, and what it starts inherits that."""
    real = os.link

    def link_and_hang_up(source: str, target: Path) -> None:
        """Hang up when an image gets its name."""
        real(source, target)
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(os, "link", link_and_hang_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["fleet", "fleet.toml", "--quiet"]) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_record_that_cannot_be_written_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = read_fleet("fleet.toml")
    run_fleet(fleet, ["north"])

    def refuse(*_: object, **__: object) -> None:
        """Fail as on a full disk."""
        raise OutputError("No space left on device")

    monkeypatch.setattr(fleet_state.FleetState, "write", refuse)
    assert _states(run_fleet(fleet, ["north"])) == {"north": "current"}
    with pytest.raises(OutputError):
        run_fleet(fleet)


def test_a_symlink_that_led_elsewhere_for_a_while_is_noticed(tmp_path: Path) -> None:
    """The folder behind it is the same again then."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link"
    link.symlink_to("first")
    before = stamp_tree(str(link))
    assert before == stamp_tree(str(link))
    time.sleep(0.05)  # the clock of file systems has ticks
    for name in ("second", "first"):
        link.unlink()
        link.symlink_to(name)
    assert stamp_tree(str(link)) != before
