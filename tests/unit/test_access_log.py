"""The access log of serve writes all lines, few times, and counts what it loses."""

from __future__ import annotations

import json
import re
import resource
import threading
import time
from pathlib import Path

import pytest

from cosremaster.cli.serve_log import open_log
from cosremaster.serve import access_log
from cosremaster.serve.access_log import AccessLog
from cosremaster.serve.shared_state import SharedState


def _events(text: str) -> list[str]:
    """Return the event of each line of ``text``."""
    return [json.loads(line)["event"] for line in text.splitlines()]


def test_lines_that_come_meanwhile_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "GATHERING", 1000)
    writes: list[str] = []
    log = AccessLog(writes.append)
    names = [f"answer {number}" for number in range(500)]
    for name in names:
        log.add(name)
    log._thread.join(0.1)
    assert writes == []  # a thread that each line wakes has written some
    log.close()
    assert [_events(text) for text in writes] == [names]


def test_a_line_is_written_without_another_behind_it() -> None:
    is_written = threading.Event()
    log = AccessLog(lambda _: is_written.set())
    log.add("answer")
    assert is_written.wait(60)
    log.close()


def test_lines_above_the_longest_queue_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "GATHERING", 1000)
    monkeypatch.setattr(access_log, "LONGEST_QUEUE", 3)
    writes: list[str] = []
    log = AccessLog(writes.append)
    for number in range(5):
        log.add(f"answer {number}")
    log.close()
    assert _events("".join(writes)) == ["answer 0", "answer 1", "answer 2"]
    assert log.metrics.lost_lines == 2


def test_a_line_is_that_of_the_json_module() -> None:
    writes: list[str] = []
    log = AccessLog(writes.append)
    values: dict[str, str | int | float] = {
        "path": '/"\\\n\0\x7f\udcff\u2028ä😀',
        "status": 206,
        "seconds": 3.1e-05,
        "sent": 1 << 40,
        "zero": 0.0,
    }
    log.add("answer", **values, error=None)
    log.close()
    (line,) = "".join(writes).splitlines()
    made = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made["time"])
    assert made == {"time": made["time"], "event": "answer", **values}
    assert line == json.dumps(made, separators=(",", ":"))


def test_lines_that_cannot_be_written_are_counted() -> None:
    def fail(text: str) -> None:
        raise OSError(28, "No space left on device")

    log = AccessLog(fail)
    log.add("answer")
    log.add("answer")
    log.close()
    assert log.metrics.lost_lines == 2


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_line_that_a_full_disk_cuts_spoils_no_other(tmp_path: Path, is_shared: bool) -> None:
    """Neither does what was lost appear later."""
    state = SharedState.create(1, b"")
    path = tmp_path / "log"
    write = open_log(path)
    log = AccessLog(state.in_turn(write) if is_shared else write)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        for count in (10, 20, 30):  # the first fills the disk, to others it gives nothing
            for number in range(10):
                log.add("lost", number=number, text="x" * 100)
            while log.metrics.lost_lines < count:
                time.sleep(0.01)
        assert path.stat().st_size == 1000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for event in ("later", "last"):
        log.add(event)
    log.close()
    state.close()
    lines = path.read_text().split("\n")
    assert [json.loads(line)["event"] for line in lines[-3:-1]] == ["later", "last"]
    assert _events("\n".join(lines[:-4])) == ["lost"] * (len(lines) - 4)
    assert lines[-4].startswith('{"time"') and "}" not in lines[-4]
