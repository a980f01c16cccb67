"""Running the sides of a comparison in turns, and what came of it."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosremaster.codecs.gzip.inflate import HAS_ISAL
from cosremaster.io.parallel import cpu_count


@dataclass(frozen=True)
class Compared:
    """A row to be: what of ours stands against what, and the ratio to reach, ours to theirs; None: just to show."""

    what: str
    ours: str
    against: str
    theirs: str
    goal: float | None


@dataclass(frozen=True)
class Group:
    """Sides that are run in turns, ``rounds`` times, and what is compared.

    ``prepare`` makes the sides in a folder of theirs; a side is called in an empty folder and returns its figure,
    or None for the seconds that it took. ``unit`` is that of the figures.
    """

    prepare: Callable[[Path], Mapping[str, Callable[[Path], float | None]]]
    rows: Sequence[Compared]
    rounds: int = 3
    unit: str = "s"


@dataclass(frozen=True)
class Row:
    """What was measured: figures of both sides, round by round.

    ``beside``: the part of one core that everything else on the machine took while the row's group ran: other
    processes, the kernel's own threads, and other machines on the same hardware; None where nobody can tell.
    """

    compared: Compared
    unit: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    beside: float | None = None

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(mine / other for mine, other in zip(self.ours, self.theirs, strict=True))

    @property
    def reached(self) -> bool | None:
        """True when the goal is reached; None when there is none."""
        return None if self.compared.goal is None else self.ratio <= self.compared.goal


def measured(group: Group, folder: Path) -> Iterator[Row]:
    """The rows of ``group``; its files lie in ``folder`` meanwhile."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        sides = group.prepare(Path(own))
        figures: dict[str, list[float]] = {name: [] for name in sides}
        start, before = time.perf_counter(), _other_time()
        for _ in range(group.rounds):
            for name, side in sides.items():
                figures[name].append(_run(side, folder))
        seconds, after = time.perf_counter() - start, _other_time()
    beside = None if before is None or after is None else max(0.0, after - before) / seconds
    for row in group.rows:
        yield Row(row, group.unit, tuple(figures[row.ours]), tuple(figures[row.theirs]), beside)


def _other_time() -> float | None:
    """The seconds of processor time that were not taken by this process and those that it has waited for."""
    head = next((line.split() for line in _lines("/proc/stat") if line.startswith("cpu ")), None)
    if head is None:
        return None
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(int, head[1:9])
    busy = (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


def _run(side: Callable[[Path], float | None], folder: Path) -> float:
    """The figure of one run; what it wrote is gone afterwards, and earlier writes have reached the disk before."""
    work = Path(tempfile.mkdtemp(dir=folder))
    os.sync()
    start = time.perf_counter()
    figure = side(work)
    seconds = time.perf_counter() - start
    shutil.rmtree(work)
    return seconds if figure is None else figure


def shell(command: str, folder: Path) -> None:
    """Runs a shell command, as root would run it where device nodes have to be made.

    Our modules' bytecode may be kept, as it is where a user has installed them.
    """
    argv = ["sh", "-c", command] if os.geteuid() == 0 else ["fakeroot", "sh", "-c", command]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(argv, cwd=folder, check=True, env=environment)


def machine() -> str:
    """Date, machine and versions, on a line."""
    model = next((line.partition(": ")[2] for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    xz = subprocess.run(["xz", "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    return (
        f"{datetime.date.today()}, {model or platform.machine()}, {cpu_count()} cores, Linux {platform.release()},"
        f" Python {platform.python_version()}, {xz}, isal {'installed' if HAS_ISAL else 'not installed'}"
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
