"""Fleets: what is common is done once, each image is what a single run makes, and nothing half stays."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import threading
from pathlib import Path

import pytest

import cosremaster
from cosremaster import AddPath, InlineFile, Request, Symlink
from cosremaster.cli import main
from cosremaster.errors import OverlayError, RecipeError, UsageError
from cosremaster.fleet import FleetOptions, cluster, read_fleet, run_fleet
from cosremaster.fleet.cluster import open_cluster
from cosremaster.fleet.split import split_requests
from cosremaster.fleet.state import SiteKeys, SiteRecord
from cosremaster.io import publish
from cosremaster.recipe import build
from tests.fixtures import tools
from tests.fixtures.tools import require, require_module, run
from tests.support.mounted_trees import on_disk
from tests.support.small import CGZ, packed_root, write_small

FLEET = """\
base = "in.iso"
output = "out/${NAME}.iso"
source_date_epoch = 1700000000
kernel_args.add = ["console=ttyS0"]

[variables]
DOMAIN = "example.org"

[[add]]
source = "common"

[[add]]
file = "/etc/hostname"
content = "${HOST}.${DOMAIN}\\n"

[[add]]
source = "settings"
template = true

[sites]
csv = "sites.csv"

[[site]]
name = "extra"
variables = { HOST = "e" }
remove_iso = []

[[site.add]]
symlink = "/etc/extra"
target = "${NAME}"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path)
    for path, text in (
        ("common/etc/motd", "hello\n"),
        ("settings/etc/issue", "of ${HOST} costs $5 and $$x\n"),
        ("settings/etc/plain", "no variables\n"),
        ("fleet.toml", FLEET),
        ("sites.csv", '\ufeffname,HOST\nnorth,n\n\n"south",s\n'),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    return tmp_path


def _states(folder: Path) -> dict[str, str]:
    return {site["site"]: site["state"] for site in json.loads((folder / "out/fleet.json").read_text())["sites"]}


def _unpacked(image: Path, into: Path) -> dict[str, tuple[object, ...]]:
    """The root file system of ``image`` as bsdtar, gzip and xz unpack it; times are those of the unpacking."""
    into.mkdir()
    script = f"bsdtar -xOf {image} {CGZ} | gzip -dc | bsdtar -xOf - rootfs.cxz | xz -dc | bsdtar -xpf - -C {into}"
    run(["bash", "-euo", "pipefail", "-c", script])
    return {name: (*found[:2], *found[3:]) for name, found in on_disk(into).items()}


def test_each_image_is_what_a_single_run_makes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("bsdtar", "xz", "gzip", "bash", "sha256sum")
    assert main(["fleet", "fleet.toml"]) == 0
    printed = capsys.readouterr()
    assert "3 to make, from a base with what is common to all; 0 current" in printed.err
    assert "[3/3] south: " in printed.err and "3 written" in printed.out
    assert sorted(os.listdir("out")) == ["SHA256SUMS", "extra.iso", "fleet.json", "north.iso", "south.iso"]
    assert run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder / "out").decode().splitlines() == [
        "extra.iso: OK", "north.iso: OK", "south.iso: OK"
    ]  # fmt: skip
    (folder / "single").mkdir()
    for site in read_fleet("fleet.toml").sites:
        with cosremaster.open("in.iso") as image:
            image.remaster(folder / "single" / site.output.name, site.request)
        assert cosremaster.verify(site.output, deep=True).ok
        if os.geteuid() != 0:
            tools.leave_out("This test needs root: device nodes are unpacked.")
        made = _unpacked(site.output, folder / f"{site.name}.made")
        assert made == _unpacked(folder / "single" / site.output.name, folder / f"{site.name}.single")
        assert [path for path in made if path.endswith("motd")]
    assert cosremaster.read("out/north.iso::@root::etc/issue") == b"of n costs $5 and $x\n"
    assert cosremaster.read("out/extra.iso::@root::etc/hostname") == b"e.example.org\n"


def test_what_is_current_is_not_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", "fleet.toml", "--only", "north", "--only", "south", "--quiet"]) == 0
    assert _states(folder) == {"north": "written", "south": "written"}
    before = {name: os.stat(f"out/{name}").st_mtime_ns for name in ("north.iso", "south.iso")}
    assert main(["fleet", "fleet.toml", "--only", "north"]) == 0
    assert "0 to make; 1 current" in capsys.readouterr().err
    assert main(["fleet", str(folder / "fleet.toml"), "--only", "north", "--plan"]) == 0
    assert "0 to make, 1 current" in capsys.readouterr().out, "from wherever it is run"
    assert _states(folder) == {"north": "current", "south": "written"}
    (folder / "sites.csv").write_text("name,HOST\nnorth,changed\nsouth,s\n")
    assert main(["fleet", "fleet.toml", "--plan"]) == 0
    plan = capsys.readouterr().out
    assert "north: out/north.iso: would be written (base, recipe or overlay changed)" in plan
    assert "south: out/south.iso: current" in plan and "extra: out/extra.iso: would be written (new)" in plan
    assert main(["fleet", "fleet.toml", "--quiet", "--jobs", "2"]) == 0
    assert _states(folder) == {"extra": "written", "north": "written", "south": "current"}
    assert os.stat("out/south.iso").st_mtime_ns == before["south.iso"]
    assert os.stat("out/north.iso").st_mtime_ns != before["north.iso"]
    (folder / "settings/etc/issue").write_text("all of them change\n")
    (folder / "sites.csv").write_text("name,HOST\nnorth,changed\n")
    assert main(["fleet", "fleet.toml", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert {site["site"]: site["state"] for site in values["sites"]} == dict.fromkeys(("extra", "north"), "written")
    assert "south.iso" not in (folder / "out/SHA256SUMS").read_text(), "a site of this fleet no more"


def test_a_space_behind_a_comma_is_none_of_the_cell(folder: Path) -> None:
    (folder / "sites.csv").write_text('name, HOST\nnorth, "a, b"\nsouth, s\n')
    items = {site.name: tuple(site.request.add)[1] for site in read_fleet("fleet.toml").sites}
    assert [item.content for item in items.values() if isinstance(item, InlineFile)] == [
        b"e.example.org\n", b"a, b.example.org\n", b"s.example.org\n"
    ]  # fmt: skip


def test_sums_are_of_what_is_there_under_any_name(folder: Path) -> None:
    require("sha256sum")
    (folder / "fleet.toml").write_text(FLEET.replace("out/${NAME}.iso", "out/a\\\\b/${NAME}.iso"))
    (folder / "sites.csv").write_text("name,HOST\nnorth,n\n")
    assert main(["fleet", "fleet.toml", "--quiet"]) == 0
    assert (folder / "out/a\\b/north.iso").exists()
    (folder / "fleet.toml").write_text(FLEET.replace("out/${NAME}.iso", "out/${P}/${NAME}.iso"))
    (folder / "sites.csv").write_text("name,HOST,P\nnorth,n,q\\r\nsouth,s,t\n")
    (folder / "fleet.toml").write_text((folder / "fleet.toml").read_text().replace('HOST = "e"', 'HOST = "e", P = "u"'))
    assert main(["fleet", "fleet.toml", "--quiet"]) == 0
    assert run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder / "out").decode().count(": OK\n") == 3
    (folder / "out/t/south.iso").unlink()
    assert main(["fleet", "fleet.toml", "--quiet", "--only", "north"]) == 0
    assert run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder / "out").decode().count(": OK\n") == 2


def test_names_of_one_file_that_become_two_files_are_a_change(folder: Path) -> None:
    """Folders as rsync with and without ``-H`` copies them: nothing else tells them apart."""
    second = folder / "common/etc/second"
    os.link(folder / "common/etc/motd", second)
    (site, *_) = read_fleet("fleet.toml").sites
    times = os.stat(second.parent)
    keys = [SiteKeys("").key_of(site)]
    for _ in range(2):
        shutil.copy2(folder / "common/etc/motd", folder / "copy")
        os.replace(folder / "copy", second)
        os.utime(second.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
        keys.append(SiteKeys("").key_of(site))
    assert keys[0] != keys[1] == keys[2]


def test_a_record_with_other_values_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", "fleet.toml", "--quiet", "--only", "north"]) == 0
    state = folder / "out/fleet.json"
    good = json.loads(state.read_text())
    for key, value in (
        ("changes", 5), ("changes", {"added": "x"}), ("seconds", "x"), ("mtime_ns", None), ("size", [1]),
        ("error", 5), ("warnings", [1]), ("exit_code", "0"), ("delta", {"base_sha256": 1}),
    ):  # fmt: skip
        state.write_text(json.dumps({**good, "sites": [{**good["sites"][0], key: value}]}))
        capsys.readouterr()
        assert main(["fleet", "fleet.toml", "--only", "north"]) == 2, key
        assert "fleet.json: is no record of a fleet; move it away" in capsys.readouterr().err
    state.write_text("[" * 100_000)
    assert main(["fleet", "fleet.toml"]) == 2


def test_a_plan_says_what_will_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").mkdir()
    (folder / "out/north.iso").write_bytes(b"not ours")
    assert main(["fleet", "fleet.toml", "--plan", "--only", "north"]) == 0
    assert "north.iso: would fail (a file that no run wrote is there" in capsys.readouterr().out
    assert main(["fleet", "fleet.toml", "--quiet", "--only", "north"]) == 8
    assert main(["fleet", "fleet.toml", "--plan", "--only", "north", "--force"]) == 0
    assert "north.iso: would be written (--force)" in capsys.readouterr().out


def test_a_site_that_fails_stops_no_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "fleet.toml").write_text(FLEET.replace("remove_iso = []", 'remove = ["/no/such"]'))
    (folder / "out").mkdir()
    (folder / "out/south.iso").write_bytes(b"not ours")
    assert main(["fleet", "fleet.toml"]) == 8
    assert _states(folder) == {"extra": "failed", "north": "written", "south": "failed"}
    message = capsys.readouterr().err
    assert "cosremaster: extra: " in message and "no/such" in message
    assert "south.iso: exists already (--force replaces it)" in message
    assert (folder / "out/south.iso").read_bytes() == b"not ours"
    assert sorted(os.listdir("out")) == ["SHA256SUMS", "fleet.json", "north.iso", "south.iso"]
    assert main(["fleet", "fleet.toml", "--only", "south", "--force", "--quiet"]) == 0
    (folder / "fleet.toml").write_text(FLEET.replace('"/etc/hostname"', '"/etc"'))
    assert main(["fleet", "fleet.toml", "--only", "south", "--quiet"]) not in (0, 8)
    assert _states(folder)["south"] == "failed" and (folder / "out/south.iso").stat().st_size > 100_000
    (folder / "fleet.toml").write_text(FLEET)
    assert main(["fleet", "fleet.toml", "--only", "south", "--quiet"]) == 0, "the older image is ours"
    (folder / "out/fleet.json").write_text("[]")
    assert main(["fleet", "fleet.toml"]) == 2


class _Stop:
    """Hears of the first image and stops all."""

    def begin(self, count: int, current: int, has_common: bool) -> None:
        assert (count, current, has_common) == (3, 0, True)

    def add(self, record: SiteRecord) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_run_leaves_nothing_half(folder: Path) -> None:
    fleet = read_fleet("fleet.toml")
    (folder / "out").mkdir()
    (folder / "out/.cosremaster-fleet-base-0123.iso").write_bytes(b"of a killed run")
    with pytest.raises(KeyboardInterrupt):
        run_fleet(fleet, listener=_Stop())
    assert _states(folder) == {"extra": "written", "north": "begun", "south": "begun"}
    assert sorted(os.listdir("out")) == ["SHA256SUMS", "extra.iso", "fleet.json"]
    report = run_fleet(fleet)
    assert [record.state for record in report.records] == ["current", "written", "written"]


def _sums_and_images(folder: Path) -> tuple[set[str], set[str], set[str]]:
    """The files that SHA256SUMS names, the images that are there, and those of sites that are written."""
    images = {name for name in os.listdir(folder / "out") if name.endswith((".iso", ".vcdiff", ".vcdiff.json"))}
    sums = {line.split("  ")[1] for line in (folder / "out/SHA256SUMS").read_text().splitlines()}
    ending = ".vcdiff" if any("vcdiff" in name for name in images) else ".iso"
    return sums, images, {f"{site}{ending}" for site, state in _states(folder).items() if state == "written"}


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("moment", ["link", "unlink"])
def test_an_image_that_gets_its_name_is_recorded_though_interrupted_then(
    moment: str, delta: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if delta:
        (folder / "fleet.toml").write_text("delta = true\n" + FLEET.replace("${NAME}.iso", "${NAME}.vcdiff"))
    link, forget_old = os.link, publish.FinishedFile.forget_old
    first = folder / "out" / ("extra.vcdiff" if delta else "extra.iso")

    def link_and_interrupt(source: str, target: Path) -> None:
        link(source, target)
        if Path(target).name == first.name:
            os.kill(os.getpid(), signal.SIGINT)

    def forget_and_interrupt(file: publish.FinishedFile) -> None:
        forget_old(file)
        if file.target.name == first.name:
            os.kill(os.getpid(), signal.SIGINT)

    if moment == "link":
        monkeypatch.setattr(os, "link", link_and_interrupt)
    else:
        monkeypatch.setattr(publish.FinishedFile, "forget_old", forget_and_interrupt)
    fleet = read_fleet("fleet.toml")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_fleet(fleet)
    assert signal.getsignal(signal.SIGINT) is before
    sums, images, written = _sums_and_images(folder)
    assert sums == images and written == {first.name}
    run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder / "out")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert [record.state for record in run_fleet(fleet).records] == ["current", "written", "written"]


@pytest.mark.parametrize("delta", [False, True])
def test_workers_tell_of_images_that_they_finish_while_the_run_is_interrupted(delta: bool, folder: Path) -> None:
    ending = "vcdiff" if delta else "iso"
    (folder / "fleet.toml").write_text(f"delta = {str(delta).lower()}\n" + FLEET.replace("}.iso", f"}}.{ending}"))
    rows = "".join(f"site{number},{number}\n" for number in range(20))
    (folder / "sites.csv").write_text("name,HOST\n" + rows)
    fleet, ended = read_fleet("fleet.toml"), threading.Event()

    def interrupt() -> None:
        """Interrupt the run when an image has just got its name."""
        while not ended.wait(0.0002):
            if (folder / "out").exists() and len(list((folder / "out").glob(f"*.{ending}"))) > 3:
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_fleet(fleet, options=FleetOptions(jobs=2))
    finally:
        ended.set()
        thread.join()
    sums, images, written = _sums_and_images(folder)
    assert sums == images and written and len(written) < 21
    assert not list((folder / "out").glob(".cosremaster*"))
    run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder / "out")
    assert all(record.state in ("written", "current") for record in run_fleet(fleet).records)


class _Meddle:
    """Changes an overlay when the images are begun."""

    def begin(self, count: int, current: int, has_common: bool) -> None:
        Path("sites/b/etc/hostname").write_text("wrong")

    def add(self, record: SiteRecord) -> None:
        pass


def test_an_image_is_not_current_whose_overlay_changed_meanwhile_and_back(folder: Path) -> None:
    for name in "ab":
        (folder / f"sites/{name}/etc").mkdir(parents=True)
        (folder / f"sites/{name}/etc/hostname").write_text("right")
    status = os.stat("sites/b/etc/hostname")
    (folder / "fleet.toml").write_text(f'{FLEET.split("[variables]", maxsplit=1)[0]}[sites]\ndirectory = "sites"\n')
    first = run_fleet(read_fleet("fleet.toml"), listener=_Meddle())
    assert [record.state for record in first.records] == ["written"] * 2
    assert ["makes this one anew" in " ".join(record.warnings) for record in first.records] == [False, True]
    Path("sites/b/etc/hostname").write_text("right")
    os.utime("sites/b/etc/hostname", ns=(status.st_atime_ns, status.st_mtime_ns))
    second = run_fleet(read_fleet("fleet.toml"))
    assert [record.state for record in second.records] == ["current", "written"]
    with cosremaster.open("out/b.iso") as image:
        assert image.read(f"{CGZ}::rootfs.cxz::etc/hostname") == b"right"


class _Kill:
    """Kills the workers when the first image is there."""

    def __init__(self) -> None:
        self.others: set[object] | None = set(multiprocessing.active_children())

    def begin(self, count: int, current: int, has_common: bool) -> None:
        pass

    def add(self, record: SiteRecord) -> None:
        others, self.others = self.others, None
        for process in multiprocessing.active_children() if others is not None else ():
            if process not in (others or ()):
                os.kill(process.pid or 0, signal.SIGKILL)


def test_killed_workers_take_their_sites_alone(folder: Path) -> None:
    require("sha256sum")
    rows = "".join(f"site{number},{number}\n" for number in range(3))
    (folder / "sites.csv").write_text("name,HOST\n" + rows)
    report = run_fleet(read_fleet("fleet.toml"), options=FleetOptions(jobs=2), listener=_Kill())
    states = [record.state for record in report.records]
    assert set(states) <= {"written", "failed"} and states.count("failed") <= 2 <= states.count("written")
    assert all("a worker died" in record.error for record in report.records if record.state == "failed")
    assert report.exit_code == (8 if "failed" in states else 0)
    written = {record.path for record in report.records if record.state == "written"}
    assert {name for name in os.listdir("out") if name not in ("fleet.json", "SHA256SUMS")} == written
    run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder / "out")


def test_sites_come_from_folders_and_from_json(folder: Path) -> None:
    (folder / "sites/one$/etc").mkdir(parents=True)
    (folder / "sites/one$/etc/mine").write_text("${NAME} ${DOMAIN}\n")
    (folder / "sites/.git").mkdir()
    head = 'base = "in.iso"\noutput = "${NAME}.iso"\nvariables = { DOMAIN = "d" }\n'
    (folder / "a.toml").write_text(head + '[sites]\ndirectory = "sites"\ntemplate = true\n')
    assert main(["fleet", "a.toml", "--output-dir", "elsewhere", "--quiet"]) == 0
    assert cosremaster.read("elsewhere/one$.iso::@root::etc/mine") == b"one$ d\n"
    sites = [{"name": "j", "variables": {"X": "1"}, "add": [{"file": "/etc/x", "content": "${X}"}]}]
    (folder / "sites.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(sites).encode())  # as editors of Windows do
    (folder / "b.toml").write_text(head + '[sites]\njson = "sites.json"\n')
    fleet = read_fleet("b.toml")
    assert [(site.name, site.request.add) for site in fleet.sites] == [("j", (InlineFile("/etc/x", b"1", "0644"),))]
    assert pickle.loads(pickle.dumps(fleet)) == fleet
    assert fleet.sites[0].request.align == 4096


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "extra"', 'name = "north"', r"fleet\.toml:\d+ » site: the site north is there twice"),
        ('name = "extra"', 'name = "../x"', r"fleet\.toml:24 » site\[0\]\.name: '\.\./x' is no name for a site"),
        ('name = "extra"', "", r"fleet\.toml:23 » site\[0\]: name is missing"),
        ("remove_iso = []", "colour = 3", r"site\[0\]\.colour: no such key of a site"),
        ('target = "${NAME}"', 'taget = "x"', r"site\[0\]\.add\[0\]\.taget: no such key; did you mean target\?"),
        ('variables = { HOST = "e" }', "", r"add\[1\]\.content: the variable HOST has no value.*\(site extra\)"),
        ('csv = "sites.csv"', 'csv = "none.csv"', r"sites\.csv: none\.csv cannot be read: No such file"),
        ('csv = "sites.csv"', 'json = "sites.csv"', r"sites\.json: sites\.csv:1: is no JSON"),
        ('csv = "sites.csv"', "", r"fleet\.toml:20 » sites: must have one of directory, csv and json"),
        ('base = "in.iso"', 'base = "no.iso"', r"fleet\.toml:1 » base: there is no file no\.iso"),
        ('base = "in.iso"', 'input = "in.iso"', r"input is of a recipe for one image; a fleet has base"),
        ("out/${NAME}.iso", "out/x.iso", r"output: out/x\.iso is that of extra and north; does it have \$\{NAME\}\?"),
        ('csv = "sites.csv"', 'csv = "a\\u0000b"', r"sites\.csv: a\\x00b cannot be read"),
        ('csv = "sites.csv"', 'directory = "a\\u0000b"', r"sites\.directory: a\\x00b cannot be read"),
        ("out/${NAME}.iso", "o\\u0000/${NAME}", r"output: has a zero byte, which no path can have"),
        ("out/${NAME}.iso", "out/${NAME}/", r"fleet\.toml:2 » output: ends in a slash, and has to name a file"),
        ('base = "in.iso"', "base = 5", r"fleet\.toml:1 » base: must be text in quotes"),
        ('base = "in.iso"', f"x = {'[' * 3000}{']' * 3000}", r"fleet\.toml: is nested too deep"),
        ('HOST = "e"', 'HOST = "e", NAME = "f"', r"site\[0\]\.variables\.NAME: is the name of the site"),
        ('DOMAIN = "example.org"', 'NAME = "x"', r"fleet\.toml:7 » variables\.NAME: is the name of each site"),
        ('csv = "sites.csv"', 'directory = "links"', r"sites\.directory: gone in it is a symlink to nothing"),
        ('DOMAIN = "example.org"', 'DOMAIN = "x"\nHOST = "of all"', ""),
    ],
)
def test_faults_of_fleets_have_a_place(folder: Path, old: str, new: str, message: str) -> None:
    assert old in FLEET
    (folder / "links").mkdir()
    (folder / "links/gone").symlink_to("nowhere")
    (folder / "fleet.toml").write_text(FLEET.replace(old, new))
    if not message:
        read_fleet("fleet.toml")
        return
    with pytest.raises(RecipeError, match=message):
        read_fleet("fleet.toml")
    assert main(["fleet", "fleet.toml"]) == 2


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("sites.csv", "site,HOST\na,b\n", r"sites\.csv:1: needs one column called name"),
        ("sites.csv", "name,HOST\na\n", r"sites\.csv:2: has 1 cells, and there are 2 columns"),
        ("sites.csv", "name,HOST HERE\na,b\n", r"sites\.csv:1: 'HOST HERE' is no name for a variable"),
        ("sites.csv", "name,HOST\n.,b\n", r"'\.' is no name for a site"),
        (
            "sites.csv",
            "name;HOST\na;b\n",
            r"called name, .*; its cells are parted by semicolons, and commas are wanted$",
        ),
        ("sites.csv", "name\tHOST\na\tb\n", r"its cells are parted by tabs"),
        (
            "settings/etc/issue",
            "a\n${HOTS}\n",
            r"settings/etc/issue:2: there is no variable HOTS; did you mean HOST\?$",
        ),
        ("settings/etc/issue", "a\n\n${a b}\n", r"settings/etc/issue:3: \$\{ begins a variable"),
        (
            "settings/bin",
            "\x7fELF\0\n$$",
            r"settings/bin:2: is no text \(a zero byte at 0x4\), and has \$\$ @0x6: add it",
        ),
    ],
)
def test_faults_of_sites_and_templates_have_file_and_line(folder: Path, path: str, text: str, message: str) -> None:
    (folder / path).write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_fleet("fleet.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"name": "a", "variables": {"HOST": ' + "1" * 5000 + "}}]", r"sites\.json: s\.json cannot be read: "),
        ('[{"name": "\\ud800"}]', r"json\[0\]\.name: '\\\\ud800' is no name for a site"),
    ],
    ids=["number", "surrogate"],
)
def test_what_json_can_say_and_no_site_can_be(folder: Path, text: str, message: str) -> None:
    (folder / "fleet.toml").write_text(FLEET.replace('csv = "sites.csv"', 'json = "s.json"'))
    (folder / "s.json").write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_fleet("fleet.toml")


@pytest.mark.parametrize("name", ["fleet.json", "SHA256SUMS"])
def test_no_image_takes_the_place_of_what_tells_of_all(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (folder / "fleet.toml").write_text(FLEET.replace("out/${NAME}.iso", "out/${NAME}").replace("extra", name))
    assert main(["fleet", "fleet.toml"]) == 2
    assert capsys.readouterr().err == f"cosremaster: {name}: out/{name} is where a run tells of all sites\n"
    assert not (folder / "out").exists()


def test_a_second_run_at_a_time_is_kept_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each would write its own fleet.json, and forget the images of the other."""
    (folder / "out").mkdir()
    fd = os.open(folder / "out", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert main(["fleet", "fleet.toml"]) == 8
    assert capsys.readouterr().err.startswith("cosremaster: out: another run of a fleet writes there now")
    assert main(["fleet", "fleet.toml", "--plan"]) == 0
    os.close(fd)
    assert main(["fleet", "fleet.toml", "--only", "north", "--quiet"]) == 0


def test_a_folder_that_cannot_be_made_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", "fleet.toml", "--output-dir", "in.iso/out"]) == 8
    assert capsys.readouterr().err.splitlines()[-1] == "cosremaster: in.iso/out: cannot be made: Not a directory"


def test_the_base_is_never_replaced(folder: Path) -> None:
    data = (folder / "in.iso").read_bytes()
    (folder / "fleet.toml").write_text(FLEET.replace("out/${NAME}.iso", "${NAME}.iso").replace("extra", "in"))
    assert main(["fleet", "fleet.toml", "--force"]) == 2
    assert (folder / "in.iso").read_bytes() == data


def test_unknown_sites_and_variables_are_refused(folder: Path) -> None:
    assert main(["fleet", "fleet.toml", "--only", "west"]) == 2
    with pytest.raises(UsageError, match="no such variable"):
        read_fleet("fleet.toml", {"HOST": "x"})
    assert not (folder / "out").exists()


def test_only_what_can_be_done_first_is_done_once() -> None:
    common, later = InlineFile("/a", b"a"), InlineFile("/b", b"b")
    own = [Symlink("/x", name) for name in ("1", "2")]
    split = split_requests([Request(add=(common, item, later), remove=["/r"], volume_id="V") for item in own])
    assert split.common == Request(add=(common,), remove=("/r",), volume_id="V")
    assert [rest.add for rest in split.rests] == [(item, later) for item in own]
    assert all(not tuple(rest.remove) and rest.volume_id is None for rest in split.rests)
    removing = [Request(add=(common,), remove=[name]) for name in "ab"]
    assert split_requests(removing).common is None, "what sites remove goes before anything is added"
    assert split_requests([Request(add=(common,), repack=True)] * 2).common is None
    assert split_requests([Request(add=(common,))]).common is None, "a single site has nothing in common"
    arguments = [Request(add=(common,), kernel_args=[name]) for name in "ab"]
    assert [rest.kernel_args for rest in split_requests(arguments).rests] == [["a"], ["b"]]


def test_messages_name_the_base_and_not_what_was_made_of_it(folder: Path) -> None:
    (folder / "fleet.toml").write_text(FLEET.replace("remove_iso = []", 'remove_iso = ["/no/such"]'))
    (folder / "settings/etc/script").write_text("#!/bin/sh\n")
    report = run_fleet(read_fleet("fleet.toml"))
    errors = {record.site: record.error for record in report.records}
    assert errors["extra"].startswith("in.iso » no/such: ") and not errors["north"]
    kept = (folder / "out/fleet.json").read_text()
    assert ".cosremaster" not in kept and "script begins with #!" in kept


def test_each_site_has_the_warnings_of_what_was_done_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "common/etc/script").write_text("#!/bin/sh\n")
    assert main(["fleet", "fleet.toml", "--no-sync"]) == 0
    assert capsys.readouterr().err.count("script begins with #!") == 1
    sites = json.loads((folder / "out/fleet.json").read_text())["sites"]
    for site in sites:
        assert sum("script begins with #!" in text for text in site["warnings"]) == 1


_MENU = "menuentry x {\n linux /vmlinuz\n initrd /other.cgz\n}\n"


@pytest.mark.parametrize(
    ("head", "tail", "code", "message"),
    [
        ('remove_iso = ["/debirf-live-demo.cgz"]', "", 6, "in.iso: several layers look like a root filesystem"),
        ("", f'[[add_iso]]\nfile = "/boot/grub/grub.cfg"\ncontent = """{_MENU}"""', 6, "in.iso: several layers"),
        (
            f'layer = "{CGZ}"', f'[[add_iso]]\nsource = "other.cgz"\ndest = "/{CGZ}"', 2,
            "debirf-live-demo.cgz cannot be changed inside and be exchanged as a whole",
        ),
        (f'layer = "{CGZ}::rootfs.cxz"\nrename_iso = [{{ old = "/{CGZ}", new = "/x.cgz" }}]', "", 0, ""),
        ('kernel_args.add = ["quiet"]\nlayer = "other.cgz"', "", 0, ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("delta", [False, True])
def test_what_is_common_leads_no_site_to_another_layer(
    delta: bool, head: str, tail: str, code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each site is what a single run of its whole request makes of the base, or what that refuses."""
    write_small(tmp_path, extra={"other.cgz": packed_root()})
    (tmp_path / "other.cgz").write_bytes(packed_root())
    output = f"delta = {str(delta).lower()}\noutput = 'out/${{NAME}}.{'vcdiff' if delta else 'iso'}'"
    added = '[[add]]\nfile = "/etc/hostname"\ncontent = "${NAME}"'
    sites = '[[site]]\nname = "a"\n[[site]]\nname = "b"'
    (tmp_path / "fleet.toml").write_text("\n".join(('base = "in.iso"', output, head, added, tail, sites)))
    assert main(["fleet", str(tmp_path / "fleet.toml")]) == code
    printed = capsys.readouterr().err
    assert message in printed and ".cosremaster" not in printed
    assert not list((tmp_path / "out").glob(".*"))
    request = read_fleet(tmp_path / "fleet.toml").sites[0].request
    with cosremaster.open(tmp_path / "in.iso") as image:
        if code:
            with pytest.raises(cosremaster.CosremasterError) as caught:
                image.remaster(tmp_path / "single.iso", request)
            assert caught.value.exit_code == code
            return
        image.remaster(tmp_path / "single.iso", request)
    made = tmp_path / "out/a.iso"
    if delta:
        cosremaster.apply(tmp_path / "in.iso", tmp_path / "out/a.vcdiff", made)
    with cosremaster.open(made) as first, cosremaster.open(tmp_path / "single.iso") as second:
        assert [entry.path for entry in first.walk()] == [entry.path for entry in second.walk()]
        for address in ("other.cgz::etc/hostname", "boot/grub/grub.cfg", f"{'x' if 'x.cgz' in head else CGZ[:-4]}.cgz"):
            assert first.read(address) == second.read(address)


def test_the_example_runs_on_the_demo_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = Path(__file__).parents[2] / "examples/fleet"
    shutil.copytree(example, tmp_path / "fleet")
    write_small(tmp_path).rename(tmp_path / "fleet/base.iso")
    monkeypatch.chdir(tmp_path)
    assert len(read_fleet("fleet/fleet.toml").sites) == 50
    assert main(["fleet", "fleet/fleet.toml", "--only", "headend-07", "--only", "headend-50", "--quiet"]) == 0
    assert _states(tmp_path / "fleet") == {"headend-07": "written", "headend-50": "written"}
    network = cosremaster.read("fleet/out/headend-07.iso::@root::etc/network/interfaces").decode()
    assert "# $ is a dollar" in network and "address 10.20.7.10/24" in network and '"headend-07 is up"' in network
    assert cosremaster.read("fleet/out/headend-50.iso::@root::etc/hostname") == b"headend-50.headends.example\n"


def test_templates_are_for_recipes_too_and_strict(tmp_path: Path) -> None:
    base = write_small(tmp_path)
    (tmp_path / "site.toml").write_text(
        'input = "in.iso"\noutput = "out.iso"\nvariables = { X = "7" }\n'
        '[[add]]\nsource = "t.conf"\ndest = "/etc/"\ntemplate = true\n'
    )
    (tmp_path / "t.conf").write_bytes(b"\xff ${X} $${X} $HOME\n")
    build(tmp_path / "site.toml")
    assert cosremaster.read(f"{tmp_path}/out.iso::@root::etc/t.conf") == b"\xff 7 ${X} $HOME\n"
    item = AddPath(tmp_path / "t.conf", "/etc/", template=(("Y", "1"),))
    with pytest.raises(OverlayError, match=r"t\.conf: line 1: there is no variable X$"):
        cosremaster.remaster(base, tmp_path / "other.iso", add=[item])
    run(["tar", "-cf", tmp_path / "t.tar", "-C", tmp_path, "t.conf"])
    with pytest.raises(UsageError, match="is an archive, and a template is a file or a directory"):
        cosremaster.remaster(base, tmp_path / "other.iso", add=[AddPath(tmp_path / "t.tar", template=())])


class _KillWorker:
    """Kills a worker of a cluster when the first image is there."""

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids

    def begin(self, count: int, current: int, has_common: bool) -> None:
        pass

    def add(self, record: SiteRecord) -> None:
        while self.pids:
            os.kill(self.pids.pop(), signal.SIGKILL)


def test_a_dask_cluster_makes_the_images_and_outlives_a_worker(folder: Path) -> None:
    """Two worker processes, the first of which is killed in the middle: its nanny starts another."""
    require_module("distributed")
    require("sha256sum")
    from distributed import Client, LocalCluster  # noqa: PLC0415 - it may be missing

    rows = "".join(f"site{number},{number}\n" for number in range(4))
    (folder / "sites.csv").write_text("name,HOST\n" + rows)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(folder / "dask"),
                      host="127.0.0.1", scheduler_port=0) as local:  # fmt: skip
        with Client(local) as client:
            pids = sorted(client.run(os.getpid).values())
        with open_cluster(local.scheduler_address) as workers:
            assert workers.window == 2
            options = FleetOptions(executor=workers.executor, window=workers.window)
            report = run_fleet(read_fleet("fleet.toml"), options=options, listener=_KillWorker(pids[:1]))
    assert [(record.site, record.error) for record in report.records if record.error] == []
    run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder / "out")
    assert sorted(os.listdir("out")) == sorted(
        ["SHA256SUMS", "fleet.json", "extra.iso", *(f"site{n}.iso" for n in range(4))]
    )


def test_a_cluster_that_is_not_there_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_module("distributed")
    monkeypatch.setattr(cluster, "_SECONDS", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"  # nobody listens there while it is bound
        assert main(["fleet", "fleet.toml", "--scheduler", address]) == 2
    assert "--scheduler" in capsys.readouterr().err and not (folder / "out").exists()
