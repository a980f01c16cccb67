"""What is measured against what."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import cosremaster
from benchmarks import delta, fleet, images, runs, scale, serve, squashfs, tar
from benchmarks.measure import Compared, Group, shell
from cosremaster.demo import write_inputs
from cosremaster.io.output import Output
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import open_source
from cosremaster.iso.edits import IsoEdits
from cosremaster.progress import SilentProgress
from cosremaster.remastering.open import open_image
from cosremaster.remastering.write import plan_result, write_image
from tests.fixtures.debirf import CGZ

Side = Callable[[Path], float | None]

STEPS = Path(__file__).with_name("steps.sh")
XORRISO = "xorriso -indev {iso} -outdev out.iso -map {layer} /{cgz} -boot_image any replay > /dev/null 2>&1"
PASS = "`python3 -c pass`"
SYNCED_COPY = "cp --reflink=never {} {} && sync {}"

# A run of the command that prints how many bytes it read behind its own modules, which a first run has loaded.
READ = """
import sys
from cosremaster.cli import main
def read():
    return next(int(line.split()[1]) for line in open("/proc/self/io") if line.startswith("rchar:"))
main(sys.argv[1:])
before = read()
main(sys.argv[1:])
print(read() - before)
"""

# A run of the command that prints the most memory it ever had.
PEAK = """
import re, sys
from pathlib import Path
from cosremaster.cli import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""


def _ours(iso: Path, overlay: Path, cache: Path | None, *, sync: bool = False) -> Side:
    """The command; with ``cache`` the index is remembered there. ``sync``: it waits until the result is on the disk."""
    where = '"$PWD/cache"' if cache is None else shlex.quote(str(cache))  # a relative one would be ignored
    argv = shlex.join([sys.executable, "-m", "cosremaster", str(iso), "out.iso", "--quiet", "--add", str(overlay),
                       *([] if sync else ["--no-sync"])])  # fmt: skip
    return lambda folder: shell(f"XDG_CACHE_HOME={where} {argv}", folder)


def _command(*argv: str | Path) -> Side:
    return lambda folder: shell(shlex.join(map(str, argv)), folder)


def _steps(iso: Path, overlay: Path) -> Side:
    return _command("sh", STEPS, iso, overlay)


def _copy(*sources: Path) -> Side:
    """``cp`` of files, each into a file of its own, which is then on the disk."""
    names = [(shlex.quote(str(source)), number) for number, source in enumerate(sources)]
    command = " && ".join(SYNCED_COPY.format(source, number, number) for source, number in names)
    return lambda folder: shell(command, folder)


def _overlay(folder: Path) -> Path:
    """One script and 20 MB of random bytes."""
    overlay = folder / "overlay"
    images.noise(overlay / "data" / "noise", 20_000_000)
    script = overlay / "root" / "install.sh"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho installed\n")
    script.chmod(0o755)
    return overlay


def _one_file(folder: Path, name: str) -> Path:
    """An overlay with a small text at ``name``."""
    file = folder / "one" / name
    file.parent.mkdir(parents=True)
    file.write_text("headend-7\n")
    return folder / "one"


def _known(iso: Path, folder: Path) -> Path:
    """A cache that remembers ``iso``."""
    cache = folder / "cache"
    subprocess.run([sys.executable, "-m", "cosremaster", "index", iso], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, env={**os.environ, "XDG_CACHE_HOME": str(cache)})  # fmt: skip
    return cache


def _layer(folder: Path) -> Path:
    """The packed root filesystem of the one-block image, by the real tools."""
    iso = shlex.quote(str(images.vendor(images.ONE_BLOCK).iso))
    shell(f"xorriso -osirrox on -indev {iso} -extract /{CGZ} layer.cgz 2> /dev/null"
          " && zcat layer.cgz | cpio -i --quiet --to-stdout rootfs.cxz > rootfs.cxz", folder)  # fmt: skip
    return folder / "rootfs.cxz"


def _additions(folder: Path) -> Mapping[str, Side]:
    iso, overlay, layer = images.vendor(images.ONE_BLOCK).iso, _overlay(folder), _layer(folder)
    return {
        "first": _ours(iso, overlay, None, sync=True),
        "decode": lambda work: shell(f"xz -dc {layer} > /dev/null", work),
        "remembered": _ours(iso, overlay, (cache := _known(iso, folder)), sync=True),
        "unsynced": _ours(iso, overlay, cache),
    }


def _additions_steps(folder: Path) -> Mapping[str, Side]:
    iso, overlay = images.vendor(images.ONE_BLOCK).iso, _overlay(folder)
    return {"first": _ours(iso, overlay, None), "steps": _steps(iso, overlay)}


def _own_base(folder: Path) -> Mapping[str, Side]:
    base, overlay = images.grown(folder, 900_000_000), _overlay(folder)
    return {"ours": _ours(base, overlay, _known(base, folder), sync=True), "copy": _copy(base)}


def _hundred(folder: Path) -> Mapping[str, Side]:
    iso = images.vendor(images.ONE_BLOCK).iso
    for number in range(100):
        images.noise(folder / "sites" / str(number) / "etc" / f"site-{number}.key", 10_000)
    opened = cosremaster.open(iso, remember=False)
    opened.layers()

    def ours(work: Path) -> None:
        for number in range(100):
            target = work / f"{number}.iso"
            opened.remaster(target, cosremaster.Request(add=[folder / "sites" / str(number)]))
            target.unlink()

    def copies(work: Path) -> None:
        for number in range(100):
            target = work / f"{number}.iso"
            subprocess.run(["cp", "--reflink=never", iso, target], check=True)
            subprocess.run(["sync", target], check=True)
            target.unlink()

    return {"ours": ours, "copy": copies}


def _early(folder: Path) -> Mapping[str, Side]:
    iso, layer = images.vendor(images.ONE_BLOCK).iso, _layer(folder)
    overlay, addition = _one_file(folder, "etc/hostname"), _one_file(folder / "addition", "etc/site-name")
    return {
        "ours": _ours(iso, overlay, None, sync=True),
        "added": _ours(iso, addition, None, sync=True),
        "remembered": _ours(iso, overlay, _known(iso, folder), sync=True),
        "decode": lambda work: shell(f"xz -dc {layer} > /dev/null", work),
    }


def _removal(iso: Path, cache: Path | None) -> Side:
    """The command that removes an early file."""
    where = '"$PWD/cache"' if cache is None else shlex.quote(str(cache))
    argv = shlex.join([sys.executable, "-m", "cosremaster", str(iso), "out.iso", "--quiet", "--no-sync",
                       "--remove", "/etc/hostname"])  # fmt: skip
    return lambda folder: shell(f"XDG_CACHE_HOME={where} {argv}", folder)


def _removals(folder: Path) -> Mapping[str, Side]:
    iso, base, layer = images.vendor(images.ONE_BLOCK).iso, images.prepared(folder), _layer(folder)
    return {
        "original": _removal(iso, None),
        "base": _removal(base, None),
        "remembered": _removal(base, _known(base, folder)),
        "prepare": _command(sys.executable, "-m", "cosremaster", "prepare", iso, "out.iso", "--quiet", "--no-sync"),
        "decode": lambda work: shell(f"xz -dc {layer} > /dev/null", work),
    }


def _prepared_sizes(folder: Path) -> Mapping[str, Side]:
    iso, base = images.vendor(images.ONE_BLOCK).iso, images.prepared(folder)
    return {"base": lambda work: base.stat().st_size, "original": lambda work: iso.stat().st_size}


def _middle(folder: Path) -> Mapping[str, Side]:
    iso = images.vendor(images.MANY_BLOCKS).iso
    overlay = _one_file(folder, images.middle_file())
    return {"ours": _ours(iso, overlay, None), "steps": _steps(iso, overlay)}


def _large_file(folder: Path) -> Path:
    """An overlay with 1 GB that does not compress."""
    images.noise(folder / "large" / "data" / "large", 1_000_000_000)
    return folder / "large"


def _incompressible(folder: Path) -> Mapping[str, Side]:
    iso, overlay = images.vendor(images.ONE_BLOCK).iso, _large_file(folder)
    return {
        "ours": _ours(iso, overlay, _known(iso, folder), sync=True),
        "copy": _copy(iso, overlay / "data" / "large"),
    }


def _iso_part(folder: Path) -> Mapping[str, Side]:
    iso = images.vendor(images.ONE_BLOCK).iso
    _layer(folder)
    layer = folder / "layer.cgz"
    with layer.open("r+b") as file:  # another file of the same size: the time in gzip's header
        file.seek(4)
        file.write(b"\1\2\3\4")

    def ours(work: Path) -> None:
        with open_source(iso) as source, open_source(layer) as new:
            table = PieceTable([Range(new, 0, new.size)])
            image = open_image(source)
            plan = plan_result(image, source, IsoEdits(replaced={CGZ.encode(): table}))
            with Output(work / "out.iso", (iso,), force=False, sync=False) as output:
                write_image(image, plan, output, source, SilentProgress())

    command: list[str | Path] = [
        sys.executable,
        "-m",
        "cosremaster",
        iso,
        "out.iso",
        "--quiet",
        "--add-iso",
        f"{layer}:/{CGZ}",
    ]
    theirs = XORRISO.format(iso=iso, layer=layer, cgz=CGZ)
    return {
        "steps": ours,
        "command": _command(*command),
        "xorriso": lambda work: shell(theirs, work),
        "synced xorriso": lambda work: shell(f"{theirs} && sync out.iso", work),
    }


def _size(side: Side) -> Side:
    """Bytes of the layer's file in the ISO that ``side`` makes."""

    def run(work: Path) -> float:
        side(work)
        shell(f"xorriso -osirrox on -indev out.iso -extract /{CGZ} layer.cgz 2> /dev/null", work)
        return (work / "layer.cgz").stat().st_size

    return run


def _sizes(folder: Path) -> Mapping[str, Side]:
    sides = _additions_steps(folder)
    return {"ours": _size(sides["first"]), "steps": _size(sides["steps"])}


def _peak(iso: Path, overlay: Path) -> Side:
    """MiB that a first run needs at most."""

    def run(work: Path) -> float:
        argv = [sys.executable, "-c", PEAK, str(iso), "out.iso", "--quiet", "--add", str(overlay)]
        env = {**os.environ, "XDG_CACHE_HOME": str(work / "cache")}
        done = subprocess.run(argv, cwd=work, check=True, env=env, capture_output=True, text=True)
        return int(done.stdout.split()[-1]) / 1024

    return run


def _memory(folder: Path) -> Mapping[str, Side]:
    overlay = _overlay(folder)
    small, large = images.vendor(images.ONE_BLOCK).iso, images.grown(folder, 1_900_000_000)
    return {"large": _peak(large, overlay), "small": _peak(small, overlay)}


def _start_up(folder: Path) -> Mapping[str, Side]:
    """Commands whose work is next to nothing, and Python alone; each in a process of its own."""
    image, _ = write_inputs(folder)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def side(*words: str, code: int = 0) -> Side:
        """A run of Python with ``words`` that ends with ``code``."""

        def run(work: Path) -> None:
            done = subprocess.run([sys.executable, *words], cwd=work, env=environment, capture_output=True, check=False)
            assert done.returncode == code, done.stderr

        run(folder)  # the modules' bytecode is there
        return run

    ours = ("-m", "cosremaster")
    return {
        "pass": side("-c", "pass"),
        "version": side(*ours, "--version"),
        "ls": side(*ours, "ls", str(image)),
        "cat": side(*ours, "cat", f"{image}::boot/grub/grub.cfg"),
        "inner cat": side(*ours, "cat", f"{image}::debirf-live-demo.cgz::rootfs.cxz::etc/hostname"),
        "inspect": side(*ours, "inspect", str(image)),
        "remaster": side(*ours, "none.iso", "out.iso", "--add", "site:/opt", code=3),
    }


def _listing(folder: Path) -> Mapping[str, Side]:
    initramfs = shlex.quote(str(images.entries(folder, 10_000)))
    ours = f"{shlex.quote(sys.executable)} -m cosremaster ls -R {initramfs} > names"
    return {
        "ours": lambda work: shell(ours, work),
        "cpio": lambda work: shell(f"gzip -dc {initramfs} | cpio -t --quiet > names", work),
        "bsdtar": lambda work: shell(f"bsdtar -tf {initramfs} > names", work),
    }


def _inspect(folder: Path) -> Mapping[str, Side]:
    iso = images.vendor(images.ONE_BLOCK).iso
    argv = [sys.executable, "-c", READ, "inspect", str(iso)]
    env = {**os.environ, "XDG_CACHE_HOME": str(_known(iso, folder))}

    def ours(work: Path) -> float:
        done = subprocess.run(argv, cwd=work, check=True, env=env, capture_output=True, text=True)
        return int(done.stdout.split()[-1]) / 1024

    return {"ours": ours, "limit": lambda work: 1024}


REPLAY = "`xorriso -map -boot_image any replay`"
DECODE = "`xz -dc rootfs.cxz >/dev/null`"
GROUPS: Mapping[str, Group] = {
    "additions": Group(
        _additions,
        (
            Compared("first remaster, additions only, synced", "first", DECODE, "decode", 1.15),
            Compared("the same again, remembered index, synced", "remembered", DECODE, "decode", 0.15),
            Compared("the same again without waiting for the disk", "unsynced", DECODE, "decode", None),
        ),
        rounds=9,
    ),
    "additions-steps": Group(
        _additions_steps,
        (Compared("first remaster, additions only", "first", "the hand-made steps", "steps", 1 / 15),),
        rounds=1,  # minutes by hand, and far from the goal
    ),
    "own-base": Group(
        _own_base,
        (
            Compared(
                "1 GB base that a run of ours wrote, remembered index, synced",
                "ours",
                "`cp --reflink=never` of it, and `sync`",
                "copy",
                1.3,
            ),
        ),
        rounds=7,
    ),
    "hundred": Group(
        _hundred,
        (
            Compared(
                "100 overlays of 10 kB on one opened base, Python API, synced",
                "ours",
                "100 such `cp`, each with `sync`",
                "copy",
                1.5,
            ),
        ),
    ),
    "early": Group(
        _early,
        (
            Compared(
                "an early file replaced (`etc/hostname`), first time, synced",
                "ours",
                "the same with a file added",
                "added",
                1.1,
            ),
            Compared(
                "an early file replaced (`etc/hostname`), remembered index, synced", "remembered", DECODE, "decode", 0.3
            ),
        ),
        rounds=5,
    ),
    "prepared": Group(
        _removals,
        (
            Compared("an early file removed (`etc/hostname`), first time", "original", DECODE, "decode", None),
            Compared("the same in a prepared base, first time", "base", DECODE, "decode", 1.25),
            Compared("the same in a prepared base, remembered index", "remembered", DECODE, "decode", 0.30),
            Compared("`prepare` of that image, once", "prepare", DECODE, "decode", None),
        ),
        rounds=1,  # minutes, and far from the goals
    ),
    "prepared-size": Group(
        _prepared_sizes,
        (Compared("size of a prepared base", "base", "the image that it was made from", "original", 1.05),),
        rounds=1,
        unit="bytes",
    ),
    "middle": Group(
        _middle,
        (
            Compared(
                "image made with `xz -T0`, a file in the middle replaced",
                "ours",
                "the hand-made steps",
                "steps",
                1 / 10,
            ),
        ),
        rounds=1,  # the same
    ),
    "large-file": Group(
        _incompressible,
        (
            Compared(
                "1 GB that does not compress added, remembered index, synced",
                "ours",
                "`cp` of input and that file, each with `sync`",
                "copy",
                2.5,
            ),
        ),
        rounds=5,
    ),
    "iso": Group(
        _iso_part,
        (
            Compared(
                "ISO part alone (open, plan, write, prove in a running process): layer exchanged for one of the"
                " same size",
                "steps",
                REPLAY,
                "xorriso",
                1.0,
            ),
            Compared(
                "the same as a command, start-up included, synced",
                "command",
                f"{REPLAY}, and `sync`",
                "synced xorriso",
                1.0,
            ),
        ),
        rounds=7,
    ),
    "start-up": Group(
        _start_up,
        (
            Compared("`--version`", "version", PASS, "pass", 6.0),
            Compared("`ls` of the demo's image", "ls", PASS, "pass", 6.0),
            Compared("`cat` of a file on the demo's image", "cat", PASS, "pass", 6.0),
            Compared("`cat` of a file in the root file system of the demo's image", "inner cat", PASS, "pass", 6.0),
            Compared("`inspect` of the demo's image", "inspect", PASS, "pass", 6.0),
            Compared("a remaster with `--add` until it opens its input", "remaster", PASS, "pass", 10.0),
        ),
        rounds=15,
    ),
    "listing": Group(
        _listing,
        tuple(
            Compared("`ls -R` of a gzip'd initramfs of 10,000 entries", "ours", against, theirs, 1.0)
            for against, theirs in (("`gzip -dc \\| cpio -t`", "cpio"), ("`bsdtar -tf`", "bsdtar"))
        ),
        rounds=7,
    ),
    "inspect": Group(
        _inspect,
        (Compared("bytes that `inspect` of an ISO reads", "ours", "1 MiB", "limit", 1.0),),
        rounds=1,
        unit="KiB",
    ),
    "size": Group(
        _sizes,
        (Compared("size of the layer's file", "ours", "that of the hand-made steps", "steps", 1.01),),
        rounds=1,
        unit="bytes",
    ),
    "memory": Group(
        _memory,
        (Compared("peak memory, additions only, image of 2 GB", "large", "image of 85 MB", "small", 1.2),),
        rounds=3,
        unit="MiB",
    ),
    **squashfs.GROUPS,
    **tar.GROUPS,
    **fleet.GROUPS,
    **runs.GROUPS,
    **scale.GROUPS,
    **delta.GROUPS,
    **serve.GROUPS,
}

COMPARED = tuple(row for group in GROUPS.values() for row in group.rows)
"""Every comparison that is measured."""
