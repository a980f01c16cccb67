"""A site as a difference from its base: beside xdelta3 and cp."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import cosremaster
from benchmarks import images
from benchmarks.measure import Compared, Group, shell
from cosremaster import InlineFile, Request
from cosremaster.deltas.sums import TableSums
from cosremaster.io.output import Output
from cosremaster.io.shared_sums import SharedSums
from cosremaster.progress import SilentProgress
from cosremaster.remastering.delta import DeltaSums, summing_beside, write_delta
from cosremaster.remastering.image import OpenedImage

Side = Callable[[Path], float | None]

ROUNDS = 7
OURS = f"{shlex.quote(sys.executable)} -m cosremaster"
LARGE = 2 << 30
SUM_FILE = """
import hashlib, sys
digest = hashlib.sha256()
with open(sys.argv[1], "rb", 0) as file:
    while data := file.read(1 << 20):
        digest.update(data)
"""
SUM = f"{shlex.quote(sys.executable)} -c {shlex.quote(SUM_FILE)}"


def _request(folder: Path, number: int = 42) -> Request:
    """A site: its host name, and 10 kB of its own."""
    own = folder / f"noise-{number}"
    images.noise(own, 10_000)
    return Request(add=[InlineFile("/etc/hostname", b"site-%d\n" % number), InlineFile("/etc/site", own.read_bytes())])


def _own_base(folder: Path) -> Path:
    """The vendor's image, remastered with a host name of its own."""
    base = folder / "base.iso"
    request = Request(add=[InlineFile("/etc/hostname", b"base\n")])
    with cosremaster.open(images.prepared(folder), remember=False) as image:
        image.remaster(base, request)
    return base


def _size(folder: Path) -> Mapping[str, Side]:
    """Bytes of the delta, and of that of xdelta3."""
    base, request = _own_base(folder), _request(folder)
    with cosremaster.open(base, remember=False) as image:
        image.remaster(folder / "site.iso", request)
        image.remaster(folder / "site.vcdiff", request, delta=True)
    shell(f"xdelta3 -e -s {base} site.iso theirs.vcdiff", folder)
    return {
        "ours": lambda work: (folder / "site.vcdiff").stat().st_size,
        "theirs": lambda work: (folder / "theirs.vcdiff").stat().st_size,
    }


def _time(folder: Path) -> Mapping[str, Side]:
    """A delta from the plan of a site, checked, with both digests, in a running process; a copy of the base.

    Each round is another site of one base, whose digest is known, as of any site of a fleet but the first.
    """
    base = _own_base(folder)
    opened = OpenedImage(base, remember=False)
    sites = [opened.prepare(_request(folder, number)) for number in range(ROUNDS + 1)]
    shared = SharedSums(sites[0][1].table.base)
    with summing_beside(sites[0][1].table.base) as sum_base:
        digest = sum_base()

    def write(work: Path) -> None:
        """Writes the delta of the next site."""
        plan, prepared = sites.pop()
        outputs = [Output(work / name, (), force=False, sync=False) for name in ("site.vcdiff", "site.vcdiff.json")]
        output, note = outputs
        sums = DeltaSums(lambda: digest, TableSums(prepared.table, shared))
        with output, prepared:
            output.add_companion(note)
            write_delta(prepared.table, plan, (output, note), sums, SilentProgress(), has_sums=True)
            output.publish()

    def sum_result(work: Path) -> None:
        """Computes the SHA-256 of an image of that size, which is in memory, in pieces of 1 MiB."""
        digest = hashlib.sha256()
        with memoryview(image) as view:
            for start in range(0, len(view), 1 << 20):
                digest.update(view[start : start + (1 << 20)])

    write(folder)
    image = base.read_bytes()
    return {"ours": write, "theirs": lambda work: shell(f"cp {base} out.iso", work), "digest": sum_result}


def _apply(folder: Path) -> Mapping[str, Side]:
    """A delta applied to a base of 2 GB, both digests proved; a copy of that base."""
    base, delta = images.grown(folder, LARGE), folder / "site.vcdiff"
    request = Request(add_iso=[InlineFile("/site.cfg", b"7" * 10_000)])
    with cosremaster.open(base, remember=False) as image:
        image.remaster(delta, request, delta=True)
    return {
        "ours": lambda work: shell(f"{OURS} apply {base} {delta} out.iso --quiet --no-sync", work),
        "theirs": lambda work: shell(f"cp {base} out.iso", work),
        "ours synced": lambda work: shell(f"{OURS} apply {base} {delta} out.iso --quiet", work),
        "theirs synced": lambda work: shell(f"cp {base} out.iso && sync out.iso", work),
        "digests": lambda work: shell(f"{SUM} {base} & {SUM} {base}; wait", work),
    }


_SITE = "a site (host name and 10 kB)"
_APPLIED = "`apply` of a delta on a base of 2 GB, both digests proved"
_DIGESTS = "SHA-256 of two such files at once, by OpenSSL, without which there is no such proof"

GROUPS: Mapping[str, Group] = {
    "delta-size": Group(
        _size, [Compared(f"bytes of the delta of {_SITE}, own base", "ours", "`xdelta3 -e`", "theirs", 1.1)],
        rounds=1, unit="bytes",
    ),
    "delta": Group(
        _time,
        [Compared(
            f"delta of {_SITE} from its plan, checked, with both digests, of a base whose digest is known",
            "ours", "`cp`", "theirs", 1.0,
        ), Compared(
            "SHA-256 of an image of that size in memory, without which there is no such delta",
            "digest", "`cp`", "theirs", None,
        )],
        rounds=ROUNDS,
    ),
    "delta-apply": Group(
        _apply,
        (
            Compared(_APPLIED, "ours", "`cp`", "theirs", 1.3),
            Compared(f"{_APPLIED}, synced", "ours synced", "`cp`, and `sync`", "theirs synced", 1.3),
            Compared(_DIGESTS, "digests", "`cp`", "theirs", None),
        ),
        rounds=5,
    ),
}  # fmt: skip
