"""``--progress json``: standard error is a JSON object on each line; an error of ``--json`` is JSON too."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from cosremaster.cli import main
from cosremaster.cli.fleet import SiteLines
from cosremaster.cli.messages import describe_event
from cosremaster.cli.settings import Settings
from cosremaster.cli.terminal import StateLines, looking_progress
from cosremaster.demo.image import debirf_files
from cosremaster.fleet.state import SiteRecord
from cosremaster.progress import SITES
from cosremaster.progress.events import Warned
from tests.support.small import CGZ, write_overlay, write_small


def _events(text: str) -> list[dict[str, Any]]:
    """Return the objects of the lines of ``text``."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("option", [["--progress", "json"], ["--progress=json"]])
def test_the_events_of_a_remaster(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    (overlay / "site.sh").chmod(0o644)
    assert main([str(source), str(tmp_path / "out.iso"), "--add", str(overlay), *option]) == 0
    printed = capsys.readouterr()
    assert "proved:" in printed.out
    events = [event for event in _events(printed.err) if event["event"] != "progress"]
    titles = [f"index {CGZ}", "pack rootfs.cxz", f"pack {CGZ}", "write", "prove"]
    assert [event["title"] for event in events if event["event"] == "step"] == titles
    assert [event["title"] for event in events if event["event"] == "end"] == titles
    (warning,) = [event for event in events if event["event"] == "warning"]
    assert warning == {"event": "warning", "message": "site.sh begins with #! but is not executable"}


@pytest.mark.parametrize("command", ["plan", "verify", "inspect"])
def test_commands_that_look_have_events_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:  # fmt: skip
    source = write_small(tmp_path)
    assert main([command, str(source), "--progress", "json", *(["--deep"] if command == "inspect" else [])]) == 0
    events = _events(capsys.readouterr().err)
    assert all(event["event"] in ("step", "progress", "end", "warning") for event in events)
    assert command != "inspect" or any(event.get("title") == f"index {CGZ}" for event in events)


@pytest.mark.parametrize("words", [["ls"], ["cat"], ["stat"], ["tree"], ["find", "*"], ["diff"], ["extract"]])
def test_commands_that_read_a_layer_have_events_too(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = tmp_path / "live.cgz"
    layer.write_bytes(debirf_files()[CGZ])
    source, command = write_small(tmp_path), words[0]
    address = f"{source}::{CGZ}::{'init' if command in ('cat', 'stat') else ''}".removesuffix("::")
    others = {"diff": [str(layer)], "extract": [str(tmp_path / "out")]}.get(command, words[1:])
    assert main([command, address, *others, "--progress", "json"]) in (0, 1)
    events = _events(capsys.readouterr().err)
    titles = [event["title"] for event in events if event["event"] == "step"]
    assert titles[0] == f"read {CGZ}"
    ends = [event for event in events if event["event"] == "end"]
    assert [event["title"] for event in ends] == titles
    assert ends[0]["processed"] == layer.stat().st_size
    for quiet in ([], ["-q"], ["--progress", "none"]):
        if command != "extract":
            assert main([command, address, *others, *quiet]) in (0, 1)
            assert not capsys.readouterr().err


def test_a_message_is_an_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_small(tmp_path)
    assert main([str(source), str(tmp_path / "out.iso"), "--progress", "json"]) == 0
    assert _events(capsys.readouterr().err)[-1]["message"].endswith("no change was asked for")


def test_quiet_is_quiet_but_for_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    (overlay / "site.sh").chmod(0o644)
    assert main([str(source), str(tmp_path / "out.iso"), "--add", str(overlay), "--progress", "json", "-q"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "" and [event["event"] for event in _events(printed.err)] == ["warning"]


def test_what_was_asked_for_does_not_outlive_a_run(tmp_path: Path) -> None:
    source = write_small(tmp_path)
    assert main(["verify", str(source), "-q", "--progress", "json"]) == 0
    assert (Settings.is_quiet, Settings.progress) == (False, "auto")
    assert main(["verify", str(source), "--progress", "json", "--nonsense"]) == 2
    assert Settings.progress == "auto"


def test_no_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    assert main([str(source), str(tmp_path / "out.iso"), "--add", str(overlay), "--progress", "none"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and "proved:" in printed.out


@pytest.mark.parametrize(
    ("words", "code", "kind", "place"),
    [
        (["ls", "IMAGE::none"], 6, "LayerError", {"parts": ["IMAGE"], "offset": None}),
        (["inspect", "none.iso"], 3, "ImageError", {"parts": ["none.iso"], "offset": None}),
        (["plan", "IMAGE", "--nonsense"], 2, "UsageError", None),
        (["verify"], 2, "UsageError", None),
    ],
)  # fmt: skip
def test_an_error_has_code_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int,
    kind: str, place: Any,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path).rename(tmp_path / "IMAGE")
    assert main([*words, "--json"]) == code
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report.keys() == {"schema", "error"} and report["error"].keys() == {"code", "kind", "message", "place"}
    assert (report["error"]["code"], report["error"]["kind"], report["error"]["place"]) == (code, kind, place)
    assert report["error"]["message"] in printed.err, "people read it too"
    assert main([*words, "--progress", "json"]) == code
    printed = capsys.readouterr()
    (event,) = [
        event for event in _events(printed.err) if event["event"] not in ("step", "end")
    ]  # layers that may have it
    assert printed.out == "" and event == {"event": "error", **report["error"]}


def test_json_and_messages_for_people_exclude_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert main(["verify", str(write_small(tmp_path)), "-v", "--progress", "json"]) == 2
    (event,) = _events(capsys.readouterr().err)
    assert "exclude each other" in event["message"]


def test_sites_of_a_fleet_are_events(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Settings, "progress", "json")
    lines = SiteLines(quiet=False)
    lines.begin(2, 1, has_common=False)
    lines.add(SiteRecord(site="a", path="a.iso", state="written", size=7, seconds=0.5, warnings=("dull",)))
    lines.end()
    message, step, warning, site, end = _events(capsys.readouterr().err)
    assert (message["event"], warning["message"]) == ("message", "a: dull")
    assert step == {"event": "step", "title": "make images", "kind": "sites", "total": 2}
    assert (end["event"], end["processed"]) == ("end", 1)
    assert {**site, "seconds_left": 0} == {
        "event": "site", "site": "a", "number": 1, "total": 2, "size": 7, "seconds": 0.5, "error": "", "seconds_left": 0
    }  # fmt: skip


def test_commands_that_look_say_nothing_of_steps_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    Settings.reset()
    progress = looking_progress()
    assert isinstance(progress, StateLines)
    with progress.step("index a", 10):
        progress._tick()
    assert capsys.readouterr().err == "index a: 0 B of 10 B\n"
    assert describe_event(Warned(message="x")) == {"event": "warning", "message": "x"}


def test_sites_of_a_fleet_are_progress_too(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe a line every 10 seconds says how far all sites are, though none has ended meanwhile."""
    Settings.reset()
    lines, threads = SiteLines(quiet=False), threading.active_count()
    lines.begin(2, 0, has_common=False)
    assert threading.active_count() == threads + 1
    lines.add(SiteRecord(site="a", path="a.iso", state="written", size=7, seconds=0.5))
    lines.end()
    assert threading.active_count() == threads
    assert capsys.readouterr().err.splitlines()[0] == "2 to make; 0 current"
    progress = looking_progress()
    assert isinstance(progress, StateLines)
    with progress.work("make images", 2, SITES, "") as advance:
        advance(1)
        progress._tick()
    assert capsys.readouterr().err == "make images: 1 of 2 images\n"
