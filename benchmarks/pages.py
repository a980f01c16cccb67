"""What was measured, as lines and as docs/benchmarks.md."""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Iterable, Sequence

from benchmarks.measure import Compared, Row, machine

_HEAD = "| what | against | goal | ratio | ours | theirs | |"
_RULE = "| --- | --- | --- | --- | --- | --- | --- |"
_MACHINE = re.compile(r"\d{4}-\d\d-\d\d, ")
_DAY = re.compile(r"\((\d{4}-\d\d-\d\d)\) ")
_FIGURES = re.compile(r"[\d.e+]+ / ")
"""How the raw figures of a row begin that says neither day nor machine."""
_TEXT = """\
# Benchmarks

Made by `make bench WRITE=1`; no figure here is typed by hand. Each row compares two commands that ran in turns on one
machine; the ratio, ours to theirs, is the median of the rounds' ratios. Before each run the disk is synced. Where a row
says "synced", our result is on the disk before it has its name, and a copy is followed by `sync FILE`; elsewhere ours
run with `--no-sync`, as the other side does not wait for the disk either. Timings decide no
test. Rows may have been measured one after another; those of another day or machine than this page's say so below.
What else the machine did meanwhile stands behind the raw figures: the part of one core that other processes, the
kernel's own threads and other machines on the same hardware took while the row's group ran.

{machine}

The image has the vendor's shape around a debootstrap'd Debian minbase: {images}. The overlay is one script and 20 MB
of random bytes. The hand-made steps are those of [architecture.md](architecture.md), as a shell script
(`benchmarks/steps.sh`); the loop mount is left out, since it needs root.

{table}

## What stands in the way of goals that are missed

Rows without a goal measure it.

* A first remaster decodes the layer on one thread, as xz does. Names, digests and checks of what comes out take another
  processor meanwhile, and slow the decoder where both share a core's caches; start and end come on top. On one machine
  the ratios of single rounds differ by more than the goal leaves.
* `ls -R` of an ISO of very many files: a Python loop that does nothing but unpack the directory records takes as much
  time as the goal allows for all. Names, checks and output come on top.
* A file added to such an ISO: both of its trees are read and checked before the first byte is written, and the result
  after the last. xorriso reads one tree, checks nothing at the end, and its image has no Joliet tree any more unless
  it is told to make one. It writes every byte again, so on a machine with a slow disk it takes longer than ours.
* An ISO made by a command: Python starts and loads our modules before anything is done, and a second reader (pycdlib)
  looks at the result of a small image. In a running process the same takes less time than xorriso. Here too the ratio
  is that of the disk: the kernel copies for us what stays, and xorriso writes it.
* A delta with both digests: where an early byte differs from all sites before, the SHA-256 of the whole result has to
  be computed, which takes longer than `cp` does. A site that begins as an earlier one needs that of its end alone.
* `serve`: an ASGI application in one process that answers with bytes that it has in memory is slower than nginx. On
  granian one is quicker by a quarter than on uvicorn, but a client that takes nothing is never cut there
  ([dependencies.md](dependencies.md)), and one client could starve others.
* `apply` that does not wait for the disk: the kernel's copy inside `cp` reads and writes; ours also takes the SHA-256
  of all that it reads and of all that it writes. Both digests alone, on two processors, are a row without a goal.

## Raw figures

Ours / theirs, round by round:

{raw}
"""


def _figure(row: Row, values: Sequence[float]) -> str:
    value = statistics.median(values)
    return f"{value:.2f} s" if row.unit == "s" else f"{value:,.0f} {row.unit}"


def _is_speed(row: Row) -> bool:
    """Told as so many times faster."""
    return row.unit == "s" and row.ratio < 1 and (row.compared.goal is None or row.compared.goal < 0.2)


def _goal(row: Row) -> str:
    goal = row.compared.goal
    if goal is None:
        return ""
    return f"{1 / goal:.0f} times faster" if _is_speed(row) else f"at most {goal:.3g}"


def shown(row: Row) -> str:
    """A row on a line."""
    one = row.compared
    ratio = f"{1 / row.ratio:.1f} times faster" if _is_speed(row) else f"{row.ratio:.3g}"
    verdict = {True: "reached", False: "missed", None: ""}[row.reached]
    figures = f"{_figure(row, row.ours)} | {_figure(row, row.theirs)}"
    return f"{one.what} | {one.against} | {_goal(row)} | {ratio} | {figures} | {verdict}"


def _raw(row: Row) -> str:
    figures = (f"{mine:.4g} / {other:.4g}" for mine, other in zip(row.ours, row.theirs, strict=True))
    beside = "" if row.beside is None else f"; meanwhile {row.beside:.1%} of a core for others"
    return f"{_raw_head(row.compared)}{'; '.join(figures)}{beside}"


def _table_head(compared: Compared) -> str:
    return f"| {compared.what} | {compared.against} | "


def _raw_head(compared: Compared) -> str:
    return f"- {compared.what}, against {compared.against}: "


def stale_lines(text: str, known: Iterable[Compared]) -> list[str]:
    """The lines of the page ``text`` about comparisons that are not among ``known``: nobody measures them any more."""
    heads = {_table_head(one) for one in known} | {_raw_head(one) for one in known}
    measured = [line for line in text.splitlines() if line.startswith(("| ", "- ")) and line not in (_HEAD, _RULE)]
    return [line for line in measured if not line.startswith(tuple(heads))]


def renewed(text: str, rows: Sequence[Row], known: Collection[Compared]) -> str:
    """The page ``text`` with ``rows`` in place of what was measured before, or behind it.

    Where day or machine are others than those of the page, the rows say so. Rows of comparisons that are not among
    ``known`` leave it.
    """
    stale = stale_lines(text, known)
    lines = [line for line in text.splitlines() if line not in stale]
    now = machine()
    day, _, here = now.partition(", ")
    own = {rest: own_day for own_day, comma, rest in (line.partition(", ") for line in lines) if comma}
    mark = "" if own.get(here) == day else f"({day}) " if here in own else f"({now}) "
    for row in rows:
        head = _raw_head(row.compared)
        raw = head + mark + _raw(row).removeprefix(head)
        for begin, line in ((_table_head(row.compared), f"| {shown(row)} |"), (head, raw)):
            same = [number for number, old in enumerate(lines) if old.startswith(begin)]
            if not same:  # measured for the first time
                of_kind = [number for number, old in enumerate(lines) if old.startswith(begin[:2])]
                lines.insert(of_kind[-1] + 1, "")
                same = [of_kind[-1] + 1]
            lines[same[0]] = line
    return "\n".join(lines) + "\n"


def restarted(text: str) -> str:
    """The page ``text`` as that of this day and machine; its rows say of which they are, until they are renewed."""
    lines = text.splitlines()
    number = next(number for number, line in enumerate(lines) if _MACHINE.match(line))
    old, lines[number] = lines[number], machine()
    for at, line in enumerate(lines):
        head, separator, rest = line.rpartition(": ")
        if line.startswith("- ") and separator and _FIGURES.match(rest):
            lines[at] = f"{head}: ({old}) {rest}"
        elif line.startswith("- ") and (day := _DAY.match(rest)):  # of the same machine
            lines[at] = f"{head}: ({day[1]}, {old.partition(', ')[2]}) {rest[day.end() :]}"
    return "\n".join(lines) + "\n"


def page(rows: Sequence[Row], images: str) -> str:
    """docs/benchmarks.md, with ``rows`` alone."""
    table = f"{_HEAD}\n{_RULE}\n" + "\n".join(f"| {shown(row)} |" for row in rows)
    raw = "\n".join(map(_raw, rows))
    return _TEXT.format(machine=machine(), images=images, table=table, raw=raw)
