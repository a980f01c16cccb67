"""A site as a difference from its base: beside xdelta3 and cp."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import cosremaster
from benchmarks import images
from benchmarks.measure import Compared, Group, shell
from cosremaster import InlineFile, Request
from cosremaster.io.output import Output
from cosremaster.progress import SilentProgress
from cosremaster.remastering.delta import summing_beside, write_delta
from cosremaster.remastering.image import OpenedImage

Side = Callable[[Path], float | None]

OURS = f"{shlex.quote(sys.executable)} -m cosremaster"
LARGE = 2 << 30


def _request(folder: Path) -> Request:
    """A site: its host name, and 10 kB of its own."""
    images.noise(folder / "noise", 10_000)
    return Request(
        add=[InlineFile("/etc/hostname", b"site-42\n"), InlineFile("/etc/site", (folder / "noise").read_bytes())]
    )


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
    """A delta from the plan of a site, checked, with both digests, in a running process; a copy of the base."""
    base, request = _own_base(folder), _request(folder)
    opened = OpenedImage(base, remember=False)
    plan, prepared = opened.prepare(request)

    def write(work: Path) -> None:
        """Writes the delta."""
        outputs = [Output(work / name, (), force=False, sync=False) for name in ("site.vcdiff", "site.vcdiff.json")]
        output, note = outputs
        with output, summing_beside(prepared.table.base) as sum_base:
            output.add_companion(note)
            write_delta(prepared.table, plan, (output, note), sum_base, SilentProgress(), has_sums=True)
            output.publish()

    return {"ours": write, "theirs": lambda work: shell(f"cp {base} out.iso", work)}


def _apply(folder: Path) -> Mapping[str, Side]:
    """A delta applied to a base of 2 GB, both digests proved; a copy of that base."""
    base, delta = images.grown(folder, LARGE), folder / "site.vcdiff"
    request = Request(add_iso=[InlineFile("/site.cfg", b"7" * 10_000)])
    with cosremaster.open(base, remember=False) as image:
        image.remaster(delta, request, delta=True)
    return {
        "ours": lambda work: shell(f"{OURS} apply {base} {delta} out.iso --quiet --no-sync", work),
        "theirs": lambda work: shell(f"cp {base} out.iso", work),
    }


_SITE = "a site (host name and 10 kB)"

GROUPS: Mapping[str, Group] = {
    "delta-size": Group(
        _size, [Compared(f"bytes of the delta of {_SITE}, own base", "ours", "`xdelta3 -e`", "theirs", 1.1)],
        rounds=1, unit="bytes",
    ),
    "delta": Group(
        _time,
        [Compared(f"delta of {_SITE} from its plan, checked, with both digests", "ours", "`cp`", "theirs", 1.0)],
        rounds=7,
    ),
    "delta-apply": Group(
        _apply, [Compared("`apply` of a delta on a base of 2 GB, both digests proved", "ours", "`cp`", "theirs", 1.3)],
        rounds=5,
    ),
}  # fmt: skip
