"""Progress is true: what counts are bytes of work, and the time that is left is that of the whole run."""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

import cosremaster
from cosremaster.cli import main, terminal
from cosremaster.cli.patient import PatientProgress
from cosremaster.codecs.base import RepackJob
from cosremaster.codecs.checks import CRC64
from cosremaster.codecs.xz.repack import XzParameters
from cosremaster.errors import Place
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.spool import Spool
from cosremaster.layers import cache_folder
from cosremaster.layers.decoded import DecodedSource
from cosremaster.layers.work_rates import NAME, WorkRates
from cosremaster.progress import (
    COPY,
    DECODE,
    ENCODE,
    PLAN,
    PROOF,
    SUM,
    ThreadedAdvance,
    begin_work,
    expect_work,
    skip_bytes,
)
from cosremaster.progress.events import Moved, Printed, ProgressEvent, StepBegan, StepEnded, Warned
from cosremaster.progress.measured import SHARE, MeasuredProgress
from cosremaster.units import format_seconds
from tests.support.small import CGZ, write_overlay, write_small

MIB = 1 << 20


class Clock:
    """A clock that a test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_the_time_left_is_that_of_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    progress = MeasuredProgress(lambda event: None, interval=None)
    with progress.run():
        expect_work(progress, PLAN, 1)
        expect_work(progress, COPY, 100 * MIB)
        with begin_work(progress, "index a", 10 * MIB, DECODE, "xz") as advance:
            assert progress.state().seconds_left is None, "nothing was measured"
            clock.now += 1
            advance(5 * MIB)
            state = progress.state()
            assert (state.processed, state.total, state.rate) == (5 * MIB, 10 * MIB, 5 * MIB)
            assert (state.basis, state.is_planned) == ("guessed", False)
            assert state.seconds_left is not None and state.seconds_left > 1, "all else will take time too"
            clock.now += 1
            advance(5 * MIB)
        expect_work(progress, PLAN, 0)
        with begin_work(progress, "pack a", 40 * MIB, ENCODE, "xz") as advance:
            advance.skip(20 * MIB)  # type: ignore[attr-defined]
            clock.now += 10
            advance(10 * MIB)
            state = progress.state()
            assert (state.total, state.skipped, state.rate) == (20 * MIB, 20 * MIB, MIB)
            assert state.seconds_left is not None
            assert state.seconds_left == pytest.approx(10 + 0.25 * 100 / 5, rel=0.5)
            assert state.percent == pytest.approx(100 * 12 / (12 + state.seconds_left))
            clock.now += 10
            advance(10 * MIB)
        with begin_work(progress, "write", 100 * MIB, COPY) as advance:
            clock.now += 1
            advance(50 * MIB)
            state = progress.state()
            assert (state.basis, state.seconds_left, state.is_planned) == ("measured", 1, True)
            assert state.percent == pytest.approx(100 * 23 / 24)


def test_percent_never_falls_and_ends_below_a_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    progress = MeasuredProgress(lambda event: None, interval=None)
    seen = []
    with progress.run(), begin_work(progress, "pack", 100 * MIB, ENCODE) as advance:
        for seconds in (1, 1, 5, 9, 1, 1):
            clock.now += seconds
            advance(16 * MIB)
            seen.append(progress.state().percent or 0.0)
        clock.now += 1
        advance(4 * MIB)
        seen.append(progress.state().percent or 0.0)
    assert seen == sorted(seen) and 0 < seen[0] < 20 and 99 < seen[-1] < 100


def test_a_run_is_not_nearly_done_because_its_work_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a remembered index nothing is decoded: what has to be packed is known last."""
    clock = Clock(monkeypatch)
    WorkRates().store({(COPY, ""): 1000.0 * MIB})
    progress = MeasuredProgress(lambda event: None, interval=None, rates=WorkRates())
    with progress.run():
        expect_work(progress, PLAN, 1)
        expect_work(progress, COPY, MIB)
        clock.now += 5
        assert (progress.state().percent, progress.state().seconds_left) == (None, None)
        with begin_work(progress, "pack a", 40 * MIB, ENCODE, "xz") as advance:
            clock.now += 1
            advance(MIB)
            state = progress.state()
            assert state.seconds_left == pytest.approx(39, rel=0.01)
            assert state.percent == pytest.approx(100 * 6 / 45, rel=0.01)
        with begin_work(progress, "pack more", 400 * MIB, ENCODE, "xz") as advance:
            assert progress.state().percent == pytest.approx(100 * 6 / 406, rel=0.01), "there is more than was known"


def test_how_much_is_encoded_is_guessed_as_in_an_earlier_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most runs change little of a layer, which nobody knows before it is decoded; rates are of no help there."""
    clock = Clock(monkeypatch)
    WorkRates().store({(ENCODE, "xz, 2 threads"): 1.0 * MIB, (COPY, ""): 1000.0 * MIB})
    left = []
    for _ in range(2):
        progress = MeasuredProgress(lambda event: None, interval=None, rates=WorkRates())
        with progress.run():
            expect_work(progress, PLAN, 1)
            with begin_work(progress, "index a", 40 * MIB, DECODE, "gzip") as advance:
                clock.now += 5
                advance(20 * MIB)
                state = progress.state()
                assert state.basis == "guessed", "the rates are known, and not the bytes"
                assert state.seconds_left is not None
                left.append(state.seconds_left)
                clock.now += 5
                advance(20 * MIB)
            with begin_work(progress, "pack a", 120 * MIB, ENCODE, "xz, 2 threads") as advance:
                skip_bytes(advance, 118 * MIB)
                clock.now += 2
                advance(2 * MIB)
            expect_work(progress, PLAN, 0)
    assert left == [pytest.approx(5 + 120), pytest.approx(5 + 2)]
    assert WorkRates().load()[SHARE, "gzip"] == 200


def test_what_is_read_ahead_is_not_yet_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads decode what was read some seconds before; meanwhile no time is told, and not that none is left."""
    clock = Clock(monkeypatch)
    progress = MeasuredProgress(lambda event: None, interval=None)
    with progress.run(), begin_work(progress, "index a", 40 * MIB, DECODE, "gzip") as advance:
        clock.now += 4
        advance(30 * MIB)
        assert progress.state().percent == pytest.approx(75)
        advance(10 * MIB)
        clock.now += 4
        state = progress.state()
        assert (state.processed, state.percent, state.seconds_left, state.basis) == (40 * MIB, None, None, None)


@pytest.mark.parametrize("is_planned", [False, True])
def test_a_run_that_encodes_nothing_for_want_of_a_plan_tells_nothing_of_others(
    monkeypatch: pytest.MonkeyPatch, is_planned: bool
) -> None:
    clock = Clock(monkeypatch)
    progress = MeasuredProgress(lambda event: None, interval=None, rates=WorkRates())
    with progress.run():
        if is_planned:  # and not where an image is only looked at, or a run fails
            expect_work(progress, PLAN, 0)
        with begin_work(progress, "index a", 40 * MIB, DECODE, "gzip") as advance:
            clock.now += 5
            advance(40 * MIB)
    assert ((SHARE, "gzip") in WorkRates().load()) == is_planned


def test_rates_are_remembered_for_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    for title, basis in (("first", None), ("second", "remembered")):
        progress = MeasuredProgress(lambda event: None, interval=None, rates=WorkRates())
        with progress.run(), begin_work(progress, title, 8 * MIB, ENCODE, "xz, 2 threads") as advance:
            state = progress.state()
            assert state.basis == basis
            assert state.seconds_left == (None if basis is None else pytest.approx(4))
            clock.now += 4
            advance(8 * MIB)
    assert WorkRates().load() == {(ENCODE, "xz, 2 threads"): 2 * MIB}
    WorkRates().store({(COPY, ""): 5.0})
    assert WorkRates().load() == {(ENCODE, "xz, 2 threads"): 2 * MIB, (COPY, ""): 5.0}


@pytest.mark.parametrize("content", [b"x", b"1\tencode\n", b"0\tencode\txz\n", b"\xff\t\t\n", b"1" * 40 + b"\ta\tb\n"])
def test_what_does_not_hold_rates_counts_for_nothing(content: bytes) -> None:
    WorkRates().store({(COPY, ""): 5.0})
    path = Path(cache_folder.index_folder()) / NAME
    path.write_bytes(content)
    assert WorkRates().load() == {}
    path.write_bytes(b"7\tcopy\t\n")
    assert WorkRates().load() == {(COPY, ""): 7.0}
    path.chmod(0o666)
    assert WorkRates().load() == {}, "somebody else can write it"


def test_little_work_says_nothing_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    progress = MeasuredProgress(lambda event: None, interval=None, rates=WorkRates())
    with progress.run(), begin_work(progress, "pack", 1000, ENCODE) as advance:
        clock.now += 1
        advance(1000)
    assert not (Path(cache_folder.index_folder()) / NAME).exists()


def test_an_encoders_bytes_count_when_they_are_fed(tmp_path: Path) -> None:
    """They come from the thread that repacks, though others encode, and long before their block is finished."""
    plain = b"".join(b"%d," % number for number in range(450_000))
    counts: list[int] = []
    threads = set()

    def advance(count: int) -> None:
        counts.append(count)
        threads.add(threading.get_ident())

    form = XzParameters(CRC64, (), 1)
    with Spool(tmp_path) as spool:
        nothing = DecodedSource(PieceTable([]), form, Place(), b"", 0)
        form.repack(
            RepackJob(
                packed=PieceTable([]), decoded=nothing, plain=PieceTable([Literal(plain)]), spool=spool, threads=2,
                advance=advance, preset=0,
            )
        )  # fmt: skip
    assert sum(counts) == len(plain) and threads == {threading.get_ident()}
    fed = ThreadedAdvance(counts.append)
    counts.clear()
    fed(3)
    fed.skip(4)
    assert counts == []
    fed.report()
    assert counts == [3, 4], "an advance that cannot skip counts these bytes too"


def test_a_remaster_reports_its_steps_as_events(tmp_path: Path) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    (overlay / "site.sh").chmod(0o644)
    events: list[ProgressEvent] = []
    progress = cosremaster.MeasuredProgress(events.append, interval=None)
    result = cosremaster.remaster(source, tmp_path / "out.iso", add=[overlay], progress=progress)
    began = [(event.title, event.kind) for event in events if isinstance(event, StepBegan)]
    assert began == [
        (f"index {CGZ}", DECODE), ("pack rootfs.cxz", ENCODE), (f"pack {CGZ}", ENCODE), ("write", COPY),
        ("prove", PROOF),
    ]  # fmt: skip
    ended = {event.title: event for event in events if isinstance(event, StepEnded)}
    assert list(ended) == [title for title, _ in began]
    assert ended["write"].processed + ended["write"].skipped == result.output_size
    assert ended["prove"].processed == sum(
        int(line.split()[0].replace(",", "")) for line in result.proof if "new" in line
    )
    packed = {layer.name: layer for layer in result.packed}
    assert ended[f"pack {CGZ}"].processed == packed[CGZ].encoded, "stored bytes are no work of the encoder"
    assert [event.message for event in events if isinstance(event, Warned)] == list(result.warnings)
    state = progress.state()
    assert state.is_planned and state.title == "prove"


def test_new_files_of_a_squashfs_are_work(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").write_bytes(b"some words " * 20_000)
    events: list[ProgressEvent] = []
    progress = MeasuredProgress(events.append, interval=None)
    cosremaster.pack(tmp_path / "root", tmp_path / "a.squashfs", progress=progress)
    (packed,) = [event for event in events if isinstance(event, StepEnded) and event.title == "pack new files"]
    assert (packed.kind, packed.processed) == (ENCODE, 220_000)


def test_the_state_is_reported_though_a_step_says_nothing() -> None:
    heard = threading.Event()
    states: list[Moved] = []

    def report(event: ProgressEvent) -> None:
        if isinstance(event, Moved) and event.title:  # a state may come before the step begins
            states.append(event)
            heard.set()

    progress = MeasuredProgress(report, interval=0.001)
    before = set(threading.enumerate())
    with progress.step("a long call", None):
        assert heard.wait(60)
    assert states[0].title == "a long call"
    assert set(threading.enumerate()) <= before, "the thread ends with the run"


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_in_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch)
    lines = terminal.terminal_progress(quiet=False)
    assert isinstance(lines, terminal.Lines) and terminal.LINE_INTERVAL == 10
    with lines.run():
        lines._tick()
        with begin_work(lines, "pack root", 350 * MIB, ENCODE) as advance:
            clock.now += 10
            advance(100 * MIB)
            lines._tick()
            lines.show("hook.sh", "done")
            clock.now += 25
            advance(250 * MIB)
    assert capsys.readouterr().err == (
        "0 s so far\n"
        "29 %, about 25 s left; pack root: 100.0 MiB of 350.0 MiB, 10.0 MiB/s\n"
        "hook.sh | done\n"
        "pack root: 350.0 MiB in 35.0 s\n"
    )


def test_a_line_on_a_terminal_changes_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, screen = Clock(monkeypatch), Terminal()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(terminal, "LIVE_INTERVAL", None)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((60, 20)))  # pytest asks too
    line = terminal.terminal_progress(quiet=False)
    assert isinstance(line, terminal.LiveLine)
    with line.run():
        with begin_work(line, "pack root", 400 * MIB, ENCODE) as advance:
            clock.now += 10
            advance(100 * MIB)
            line._tick()
            line.warn("a caution")
            clock.now += 1
        line._tick()
    assert screen.getvalue().split("\n") == [
        "\r\x1b[K25 %, about 30 s left; pack root: 100.0 MiB of 400.0 MiB, 1"
        "\r\x1b[K\x1b[1;33mwarning:\x1b[0m a caution",
        "pack root: 100.0 MiB in 11.0 s",
        "\r\x1b[K[--------------------] pack root: 100.0 MiB of 400.0 MiB\r\x1b[K",
    ]
    monkeypatch.setenv("TERM", "dumb")
    assert not isinstance(terminal.terminal_progress(quiet=False), terminal.LiveLine)


def test_a_short_step_of_a_look_shows_nothing_and_a_long_one_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, screen = Clock(monkeypatch), Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(terminal, "LIVE_INTERVAL", None)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((90, 20)))  # pytest asks too
    shown: list[terminal.LiveLine] = []
    make = terminal.passing_progress

    def remember() -> Any:
        shown.append(cast("terminal.LiveLine", make()))
        return shown[-1]

    monkeypatch.setattr(terminal, "passing_progress", remember)
    progress = PatientProgress()
    for seconds in (0.9, 1.5):
        with begin_work(progress, "read root.cxz", 30 * MIB, DECODE, "xz") as advance:
            clock.now += seconds
            advance(10 * MIB)
            if shown:
                clock.now += 2
                advance(10 * MIB)
                shown[0]._tick()
    assert len(shown) == 1
    assert screen.getvalue() == (
        "\r\x1b[K[#########---------] 50 %, about 2 s left; read root.cxz: 10.0 MiB of 20.0 MiB, 5.0 MiB/s\r\x1b[K"
    )


@pytest.mark.parametrize(
    ("width", "want"),
    [
        (110, "[#####---------------] 25 %, about 30 s left; {}: 100.0 MiB of 400.0 MiB, 10.0 MiB/s"),
        (90, "[##------] 25 %, about 30 s left; {}: 100.0 MiB of 400.0 MiB, 10.0 MiB/s"),
        (82, "25 %, about 30 s left; {}: 100.0 MiB of 400.0 MiB, 10.0 MiB/s"),
        (75, "25 %, about 30 s left; pack debirf-l...: 100.0 MiB of 400.0 MiB, 10.0 MiB/s"),
        (60, "25 %, about 30 s left; pack debi...: 100.0 MiB of 400.0 MiB,"),
    ],
)
def test_the_rate_is_what_a_narrow_terminal_loses_last(width: int, want: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, screen = Clock(monkeypatch), Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(terminal, "LIVE_INTERVAL", None)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((width + 1, 20)))
    line = terminal.LiveLine()
    with line.run(), begin_work(line, "pack debirf-live.cgz", 400 * MIB, ENCODE) as advance:
        clock.now += 10
        advance(100 * MIB)
        line._tick()
        shown = screen.getvalue().removeprefix("\r\x1b[K")
    assert shown == want.format("pack debirf-live.cgz") and len(shown) <= width


def test_quiet_prints_warnings_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    (overlay / "site.sh").chmod(0o644)
    assert main([str(source), str(tmp_path / "out.iso"), "--add", str(overlay), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "warning: site.sh begins with #! but is not executable\n")


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (99.4, "99 s"), (150, "2 min"), (7000, "1 h 57 min")])
def test_seconds_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_printed_lines_are_events() -> None:
    events: list[ProgressEvent] = []
    MeasuredProgress(events.append, interval=None).show("a", "b")
    assert events == [Printed(script="a", line="b")] and SUM == "sum"
