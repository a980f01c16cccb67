"""A plan tells how long the run will take, by what was measured, and says what never was."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.layers.work_rates import WorkRates
from cosremaster.progress import COPY, DECODE, ENCODE, PROOF, begin_work, skip_bytes
from cosremaster.progress.recorded import RecordingProgress
from cosremaster.remastering.run_time import RunTime, WorkTime
from cosremaster.reports.run_times import time_lines, time_report
from tests.support.listener import Listener
from tests.support.small import CGZ, write_overlay, write_small

LINE = re.compile(r"^time for the run: (not known|at least \S+ s) \(.*never measured on this machine", re.MULTILINE)


def _work(plan: cosremaster.Plan) -> dict[str, list[dict[str, Any]]]:
    """Return the work of the run that ``plan`` is for, by kind."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for work in plan.values["time"]["work"]:
        kinds.setdefault(work["kind"], []).append(work)
    return kinds


def test_work_was_measured_while_planning(tmp_path: Path) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    with cosremaster.open(source, remember=False) as image:
        plan = image.plan(cosremaster.Request(add=[overlay]))
    work = _work(plan)
    assert sum(part["bytes"] for part in work[ENCODE]) == sum(layer.encoded for layer in plan.packed)
    (decode,) = work[DECODE]
    assert decode["bytes"] == len(cosremaster.read(f"{source}::{CGZ}"))
    assert all(part["basis"] == "measured" and part["seconds"] >= 0 for part in [*work[ENCODE], decode])
    (copy,), (proof,) = work[COPY], work[PROOF]
    assert (copy["bytes"], copy["seconds"], copy["basis"]) == (plan.output_size, None, None)
    assert 0 < proof["bytes"] < plan.output_size and proof["seconds"] is None
    time = plan.values["time"]
    assert time["seconds"] is None and time["at_least"] >= 0
    assert any(LINE.match(line) for line in plan.lines)


def test_rates_of_earlier_runs_make_it_whole(tmp_path: Path) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    WorkRates().store({(COPY, ""): 1000.0, (PROOF, ""): 100.0})
    request = cosremaster.Request(add=[overlay])
    cosremaster.plan(source, request)
    plan = cosremaster.plan(source, request)
    work = _work(plan)
    assert DECODE not in work, "the first plan left an index, and the run uses it"
    assert work[COPY][0]["seconds"] == pytest.approx(plan.output_size / 1000)
    assert work[PROOF][0]["basis"] == "remembered"
    time = plan.values["time"]
    assert time["seconds"] == time["at_least"] == pytest.approx(sum(part["seconds"] for part in time["work"]), abs=0.01)
    (line,) = [line for line in plan.lines if line.startswith("time for the run: ")]
    assert " about 1" in line and "never measured" not in line


def test_the_line_names_what_makes_the_run_long() -> None:
    time = RunTime(
        (
            WorkTime(kind=ENCODE, method="xz, 2 threads", count=300 << 20, seconds=100, basis="measured"),
            WorkTime(kind=DECODE, method="gzip", count=1 << 20, seconds=0.1, basis="measured"),
            WorkTime(kind=COPY, method="", count=1 << 30, seconds=1.5, basis="remembered"),
            WorkTime(kind=PROOF, method="", count=90 << 20, seconds=None, basis=None),
        )
    )
    assert list(time_lines(time)) == [
        "time for the run: at least 2 min (packing 300.0 MiB 2 min, measured; writing 1.00 GiB 1.5 s, as in earlier"
        " runs; proving 90.0 MiB: never measured on this machine)"
    ]
    assert list(time_lines(RunTime(()))) == ["time for the run: less than 0.1 s"] and not list(time_lines(None))


def test_no_number_stands_for_what_was_not_measured() -> None:
    unknown = WorkTime(kind=COPY, method="", count=1 << 20, seconds=None, basis=None)
    short = WorkTime(kind=ENCODE, method="xz", count=10, seconds=0.01, basis="measured")
    for time, at_least in ((RunTime((unknown,)), None), (RunTime((short, unknown)), 0.01)):
        line = "time for the run: not known (writing 1.0 MiB: never measured on this machine)"
        assert list(time_lines(time)) == [line]
        assert (time_report(time)["seconds"], time_report(time)["at_least"]) == (None, at_least)


def test_a_delta_is_other_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    with cosremaster.open(source) as image:
        (copy,) = _work(image.plan(cosremaster.Request(add=[overlay]), delta=True))[COPY]
    assert copy["method"] == "delta"
    assert main(["plan", str(source), "--add", str(overlay)]) == 0
    assert LINE.search(capsys.readouterr().out)


def test_recorded_work_is_passed_on() -> None:
    listener = Listener()
    progress = RecordingProgress(listener)
    for count in (3, 4):
        with begin_work(progress, "pack a", 10, ENCODE, "xz") as advance:
            skip_bytes(advance, 10 - count)
            advance(count)
    progress.warn("a caution")
    assert listener.steps == {"pack a": (10, 10)} and listener.warnings == ["a caution"]
    assert progress.work_times[ENCODE, "xz"][0] == 7
