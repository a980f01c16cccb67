"""Root file systems in tar archives: our edits and exports beside GNU tar, bsdtar, xz and gzip."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import images
from benchmarks.measure import Compared, Group, shell
from benchmarks.squashfs import PEAK
from tests.fixtures import tools

Side = Callable[[Path], float | None]

INCLUDED = "systemd-sysv,openssh-server,linux-image-amd64,gcc,g++,git,vim,python3-dev,man-db"
PACKERS = {
    "xz": ("xz", "-T2", "-6"),
    "xz-one": ("xz", "-T1", "-6"),
    "gz": ("gzip", "-6", "-n"),
    "zst": ("zstd", "-q", "-6"),
}
"""Programs by the end of a name, and what is special about a stream.

Ubuntu's builds pipe tar into a bare xz, which makes one block; since version 5.6 a bare xz makes blocks of 24 MiB, as
``-T2`` does.
"""

OURS = f"{shlex.quote(sys.executable)} -m cosremaster"
NEW_CACHE = 'XDG_CACHE_HOME="$PWD/cache"'
CLEANED = ("etc/machine-id", "var/lib/apt/lists/*", "var/cache/apt/*")
"""Some of what ``--maas-clean`` takes out."""


def _root(kind: str) -> Path:
    """A Debian with a kernel and compilers in a tar archive, as clouds have them; needs root once.

    ``kind``: of the stream, as in :data:`PACKERS`.
    """
    suffix = kind.partition("-")[0]

    def make_plain(folder: Path) -> None:
        tree, argv = folder / "tree", ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", "bookworm"]
        subprocess.run([*argv, tree, images.MIRROR], check=True, stdout=subprocess.DEVNULL)
        shell(f"tar -C {tree} --sort=name --numeric-owner --xattrs --acls -cf root.tar . && rm -rf {tree}", folder)

    def make(folder: Path) -> None:
        plain = tools.cached(tools.default_cache(), "bench-tar", [INCLUDED], make_plain) / "root.tar"
        shell(f"{shlex.join(PACKERS[kind])} < {plain} > root.tar.{suffix}", folder)

    name = f"bench-tar-{kind}"
    return tools.cached(tools.default_cache(), name, [INCLUDED, *PACKERS[kind]], make) / f"root.tar.{suffix}"


def _site(folder: Path) -> Path:
    """Three small files."""
    (folder / "site" / "opt").mkdir(parents=True)
    for number in range(3):
        (folder / "site" / "opt" / f"small-{number}").write_text(f"site {number}\n")
    return folder / "site"


def _additions(kind: str, unpack: str) -> Callable[[Path], Mapping[str, Side]]:
    """Three files added, and the pipe ``unpack``, which reads the archive."""

    def prepare(folder: Path) -> Mapping[str, Side]:
        root, site = _root(kind), _site(folder)
        ours = f"{NEW_CACHE} {OURS} {root} out{''.join(root.suffixes)} --quiet --no-sync --add {site}"
        return {"ours": lambda work: shell(ours, work), "theirs": lambda work: shell(unpack.format(root), work)}

    return prepare


def _export(folder: Path) -> Mapping[str, Side]:
    """A root for MAAS from the vendor's image, with an index of it and without, and its layer under gzip."""
    iso, cache = images.vendor(images.ONE_BLOCK).iso, folder / "known"
    layer = folder / "rootfs.cxz"
    shell(f"xz -T1 -6 --check=crc64 < {images.minbase()} > {layer}", folder)
    shell(f"XDG_CACHE_HOME={cache} {OURS} index {iso} > /dev/null 2>&1", folder)
    command = f"{OURS} export {iso} --maas site --quiet > line"
    return {
        "first": lambda work: shell(f"{NEW_CACHE} {command}", work),
        "isal": lambda work: shell(f"{NEW_CACHE} {command} --gzip isal", work),
        "remembered": lambda work: shell(f"XDG_CACHE_HOME={cache} {command}", work),
        "theirs": lambda work: shell(f"xz -dc {layer} | gzip -6 > out.gz", work),
    }


def _harmonic(suffix: str) -> Callable[[Path], Mapping[str, Side]]:
    """The image for MAAS from a root tarball (docs/steps.md), and by hand as root."""

    def prepare(folder: Path) -> Mapping[str, Side]:
        root, site = _root(suffix), _site(folder)
        ours = f"{NEW_CACHE} {OURS} {root} out.tar.gz --quiet --no-sync --add {site} --maas-clean --digest sha256"
        theirs = (
            f"mkdir tree && bsdtar -xpf {root} -C tree && cp -a {site}/. tree/ && cd tree && rm -rf {' '.join(CLEANED)}"
            " && tar --numeric-owner --acls --selinux --xattrs -Scf - . | gzip -6 > ../out.tar.gz"
            " && sha256sum ../out.tar.gz > ../out.tar.gz.sha256"
        )
        return {
            "ours": lambda work: shell(ours, work),
            "isal": lambda work: shell(f"{ours} --gzip isal", work),
            "theirs": lambda work: shell(theirs, work),
        }

    return prepare


def _memory(folder: Path) -> Mapping[str, Side]:
    """MiB that an addition to a large archive takes at most; blocks that are decoded side by side take most of it."""
    argv = [
        sys.executable,
        "-c",
        PEAK,
        str(_root("xz")),
        "out.tar.xz",
        "--quiet",
        "--no-sync",
        "--add",
        str(_site(folder)),
    ]

    def peak(work: Path) -> float:
        env = {**os.environ, "XDG_CACHE_HOME": str(work / "cache")}
        done = subprocess.run(argv, cwd=work, check=True, env=env, capture_output=True, text=True)
        return int(done.stderr.split()[-1]) / 1024

    return {"large": peak, "limit": lambda work: 256}


_ADDED = "3 files added to a root.tar.{}, a first run"
_HAND = "bsdtar -x, cp, tar, gzip, as root"
GROUPS: Mapping[str, Group] = {
    "tar-xz": Group(
        _additions("xz", "xz -dc {} > /dev/null"),
        (Compared(_ADDED.format("xz of several blocks"), "ours", "`xz -dc`", "theirs", 1.2),),
    ),
    "tar-xz-one": Group(
        _additions("xz-one", "xz -dc {} > /dev/null"),
        (Compared(_ADDED.format("xz of one block"), "ours", "`xz -dc`", "theirs", 1.2),),
    ),
    "tar-gzip": Group(
        _additions("gz", "gzip -dc {} | gzip -6 > out.gz"),
        (Compared(_ADDED.format("gz"), "ours", "`gzip -dc \\| gzip -6`", "theirs", None),),
        rounds=1,  # a minute each, and no goal
    ),
    "tar-zstd": Group(
        _additions("zst", "zstd -dcq {} | zstd -q -6 > out.zst"),
        (Compared(_ADDED.format("zst"), "ours", "`zstd -dc \\| zstd -6`", "theirs", None),),
    ),
    "export-maas": Group(
        _export,
        (
            Compared(
                "`export --maas` of the image's root, `--gzip isal`", "isal", "`xz -dc \\| gzip -6`", "theirs", 0.6
            ),
            Compared("the same by zlib", "first", "`xz -dc \\| gzip -6`", "theirs", None),
            Compared("the same by zlib, remembered index", "remembered", "`xz -dc \\| gzip -6`", "theirs", None),
        ),
    ),
    "harmonic": Group(
        _harmonic("xz"),
        (
            Compared("harmonic-installer.tar.gz from a root.tar.xz, `--gzip isal`", "isal", _HAND, "theirs", 1 / 5),
            Compared("the same by zlib, from a root.tar.xz", "ours", _HAND, "theirs", None),
        ),
        rounds=1,  # minutes by hand, and far from the goal
    ),
    "harmonic-gzip": Group(
        _harmonic("gz"),
        (
            Compared("harmonic-installer.tar.gz from a root.tar.gz, `--gzip isal`", "isal", _HAND, "theirs", 1 / 5),
            Compared("the same by zlib, from a root.tar.gz", "ours", _HAND, "theirs", 1 / 5),
        ),
        rounds=1,
    ),
    "tar-memory": Group(
        _memory,
        (
            Compared(
                "peak memory, 3 files added to a root.tar.xz",
                "large",
                "256 MiB",
                "limit",
                1.0,
            ),
        ),
        rounds=1,
        unit="MiB",
    ),
}
