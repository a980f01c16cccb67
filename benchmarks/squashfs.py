"""Squashfs roots: our edits and listings beside squashfs-tools, squashfs-tools-ng and ``cp``."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import images
from benchmarks.measure import Compared, Group, shell
from tests.fixtures import tools

Side = Callable[[Path], float | None]

INCLUDED = (
    "linux-image-amd64,live-boot,systemd-sysv,openssh-server,network-manager,firmware-linux-free,gcc,g++,git,vim,"
    "python3-dev,perl,man-db,dbus,libpam-systemd"
)
CODECS = {
    "xz 1M": ("-comp", "xz", "-b", "1M"),
    "zstd-19 1M": ("-comp", "zstd", "-Xcompression-level", "19", "-b", "1M"),
    "gzip 128K": ("-comp", "gzip"),
}
REMOVED, REPLACED = "usr/share/doc/perl", "etc/hostname"
INODES = 400_000
OURS = f"{shlex.quote(sys.executable)} -m cosremaster"
PEAK = r"""
import re, sys
from pathlib import Path
from cosremaster.cli import main
main(sys.argv[1:])
print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


def _root(codec: Sequence[str]) -> Path:
    """A Debian with kernel, live-boot and compilers, some 900 MB, in a squashfs; needs root once."""

    def make_tree(folder: Path) -> None:
        argv: list[str | Path] = ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", "bookworm",
                                  folder / "tree", images.MIRROR]  # fmt: skip
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)

    def make(folder: Path) -> None:
        tree = tools.cached(tools.default_cache(), "bench-live-tree", [INCLUDED], make_tree) / "tree"
        argv = ["mksquashfs", str(tree), str(folder / "filesystem.squashfs"), "-noappend", "-quiet", "-no-progress"]
        subprocess.run([*argv, *codec], check=True)

    return tools.cached(tools.default_cache(), "bench-live", [INCLUDED, *codec], make) / "filesystem.squashfs"


def _additions(folder: Path) -> Path:
    """Three small files and 20 MB of random bytes."""
    site = folder / "site"
    images.noise(site / "opt" / "noise", 20_000_000)
    for number in range(3):
        (site / "opt" / f"small-{number}").write_text(f"site {number}\n")
    return site


def _job(codec: Sequence[str]) -> Callable[[Path], Mapping[str, Side]]:
    """The whole job on an ISO, and the same by the real tools, as root."""

    def prepare(folder: Path) -> Mapping[str, Side]:
        root, site, iso = _root(codec), _additions(folder), folder / "in.iso"
        (site / "etc").mkdir()
        (site / REPLACED).write_text("site-7\n")
        (folder / "disc" / "live").mkdir(parents=True)
        shutil.copy(root, folder / "disc" / "live")
        shell(f"xorriso -as mkisofs -quiet -iso-level 3 -R -o {iso} {folder}/disc 2> /dev/null", folder)
        shutil.rmtree(folder / "disc")
        ours = f"{OURS} {iso} out.iso --quiet --no-sync --add {site} --remove /{REMOVED}"
        theirs = (
            f"unsquashfs -quiet -no-progress -d tree {root} && rm -r tree/{REMOVED} && cp -a {site}/. tree/"
            f" && mksquashfs tree new.squashfs -quiet -no-progress {shlex.join(codec)}"
            f" && xorriso -indev {iso} -outdev out.iso -map new.squashfs /live/filesystem.squashfs"
            " -boot_image any keep > /dev/null 2>&1"
        )
        return {
            "ours": lambda work: shell(f'XDG_CACHE_HOME="$PWD/cache" {ours} 2> /dev/null', work),
            "theirs": lambda work: shell(theirs, work),
        }

    return prepare


def _beside_copy(folder: Path) -> Mapping[str, Side]:
    """Additions to a root in a file of its own, and ``cp`` of that file; neither waits for the disk."""
    site, small, large = _additions(folder), _root(CODECS["xz 1M"]), folder / "large.squashfs"
    images.noise(folder / "more" / "var" / "noise", 800_000_000)
    shell(f"{OURS} {small} {large} --quiet --no-sync --add {folder}/more 2> /dev/null", folder)
    shutil.rmtree(folder / "more")

    def ours(root: Path) -> Side:
        command = f"{OURS} {root} out.squashfs --quiet --no-sync --add {site} 2> /dev/null"
        return lambda work: shell(f'XDG_CACHE_HOME="$PWD/cache" {command}', work)

    def copy(root: Path) -> Side:
        return lambda work: shell(f"cp --reflink=never {root} out.squashfs", work)

    return {"small": ours(small), "cp small": copy(small), "large": ours(large), "cp large": copy(large)}


def _many_inodes(folder: Path) -> tuple[Path, Path]:
    """A squashfs of 400,000 inodes, and an overlay that replaces one of its files."""
    (folder / "data").write_text("text\n")
    lines = []
    for number in range(INODES // 50):
        name = f"/usr{number // 400}/package-{number // 4 % 100:03}/d{number % 4}"
        parts = name.split("/")
        lines += [f"dir {'/'.join(parts[:depth])} 0755 0 0" for depth in range(2, len(parts) + 1)]
        lines += [f"file {name}/file-{file:03} 0644 {file % 7} 0 {folder}/data" for file in range(49)]
    (folder / "list").write_text("\n".join(dict.fromkeys(lines)) + "\n")
    shell(f"gensquashfs -q -e -c xz -F {folder}/list {folder}/many.squashfs", folder)
    changed = folder / "site" / "usr3" / "package-050" / "d2" / "file-007"
    changed.parent.mkdir(parents=True)
    changed.write_text("new\n")
    return folder / "many.squashfs", folder / "site"


def _inodes(folder: Path) -> Mapping[str, Side]:
    """Planning an edit of many inodes and listing them, and what other tools take to list them."""
    image, site = _many_inodes(folder)
    commands = {
        "plan": f'XDG_CACHE_HOME="$PWD/cache" {OURS} plan {image} --add {site}',
        "list": f"{OURS} ls -lR {image}",
        "unsquashfs": f"unsquashfs -lls {image}",
        "rdsquashfs": f"rdsquashfs -d {image}",
    }
    return {name: _quietly(command) for name, command in commands.items()}


def _quietly(command: str) -> Side:
    """Run ``command`` without its output."""
    return lambda work: shell(f"{command} > /dev/null 2>&1", work)


def _memory(folder: Path) -> Mapping[str, Side]:
    """The most memory that an edit of many inodes takes, and that of an edit of one and 60 MiB."""
    image, site = _many_inodes(folder)
    (folder / "one" / "usr3").mkdir(parents=True)
    shell(f"mksquashfs {folder}/one {folder}/one.squashfs -quiet -no-progress", folder)

    def peak(root: Path, more: float) -> Side:
        def run(work: Path) -> float:
            argv = [sys.executable, "-c", PEAK, str(root), "out.squashfs", "--quiet", "--no-sync", "--add", str(site)]
            done = subprocess.run(argv, cwd=work, check=True, capture_output=True, text=True)
            return int(re.findall(r"\d+", done.stderr)[-1]) / 1024 + more

        return run

    return {"many": peak(image, 0), "one": peak(folder / "one.squashfs", 60)}


def _sizes(folder: Path) -> Mapping[str, Side]:
    """Bytes of the new root, and of one that is packed anew."""
    root, site = _root(CODECS["gzip 128K"]), _additions(folder)

    def sized(command: str) -> Side:
        def run(work: Path) -> float:
            shell(command, work)
            return float((work / "out.squashfs").stat().st_size)

        return run

    theirs = f"unsquashfs -quiet -no-progress -d tree {root} && cp -a {site}/. tree/"
    return {
        "ours": sized(f"{OURS} {root} out.squashfs --quiet --no-sync --add {site}"),
        "theirs": sized(f"{theirs} && mksquashfs tree out.squashfs -quiet -no-progress -comp gzip"),
    }


_JOB = "squashfs of 900 MB on an ISO, {}: 3 small files and 20 MB random added, one replaced, a directory removed"
_HAND = "unsquashfs, cp, mksquashfs, xorriso"
_LLS, _RD = "`unsquashfs -lls`", "`rdsquashfs -d`"
GROUPS: Mapping[str, Group] = {
    **{
        f"squashfs-{name.split()[0]}": Group(
            _job(CODECS[name]), (Compared(_JOB.format(name), "ours", _HAND, "theirs", goal),), rounds=1
        )
        for name, goal in (("xz 1M", 1 / 200), ("zstd-19 1M", 1 / 200), ("gzip 128K", 1 / 60))
    },
    "squashfs-copy": Group(
        _beside_copy,
        (
            Compared("the same additions, xz root of 200 MB in a file, proved", "small", "`cp`", "cp small", 3.0),
            Compared("the same additions, xz root of 1 GB in a file, proved", "large", "`cp`", "cp large", 1.6),
        ),
        rounds=5,
    ),
    "squashfs-inodes": Group(
        _inodes,
        (
            Compared("`plan`: a file replaced among 400,000 inodes", "plan", _LLS, "unsquashfs", 0.05),
            Compared("`ls -lR` of 400,000 inodes in a squashfs", "list", _LLS, "unsquashfs", 0.5),
            Compared("`ls -lR` of 400,000 inodes in a squashfs", "list", _RD, "rdsquashfs", 2.5),
        ),
    ),
    "squashfs-memory": Group(
        _memory,
        (Compared("peak memory, edit of 400,000 inodes", "many", "edit of one inode, and 60 MiB", "one", 1.0),),
        rounds=1,
        unit="MiB",
    ),
    "squashfs-size": Group(
        _sizes,
        (Compared("size of a gzip squashfs, additions only", "ours", "unsquashfs, mksquashfs", "theirs", 1.01),),
        rounds=1,
        unit="bytes",
    ),
}
