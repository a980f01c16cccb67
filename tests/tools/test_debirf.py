"""The main job on the real-tools image: four boots, other people's unpackers, and everything that must stay."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from tests.fixtures import debirf, tools
from tests.fixtures.debirf import DebirfImage
from tests.fixtures.tools import run
from tests.support.debirf_site import ADDED, Remastered
from tests.support.user import User


def layer_of(iso: Path, folder: Path) -> bytes:
    """The nested layer as the real tools take it out: xorriso, gzip, GNU cpio."""
    cgz = folder / "layer.cgz"
    run(["xorriso", "-osirrox", "on", "-indev", iso, "-extract", f"/{debirf.CGZ}", cgz])
    outer = run(["gzip", "-dc", cgz])
    return run(["cpio", "-i", "--quiet", "--to-stdout", "rootfs.cxz"], stdin=outer)


LISTING = (
    "find . -mindepth 1 -print0 | sort -z | xargs -0 stat -c 'S %f %u %g %h %s %t:%T %N';"
    "find . -type f -print0 | sort -z | xargs -0 md5sum"
)


@pytest.mark.parametrize("unpacker", ["cpio -i -d -m --quiet", "/bin/busybox cpio -i 2>/dev/null"])
def test_other_unpackers_see_the_same_tree(
    base: DebirfImage, remastered: Remastered, tmp_path: Path, unpacker: str
) -> None:
    tools.require(*debirf.TOOLS)
    if "busybox" in unpacker and os.geteuid() != 0:
        tools.leave_out("busybox is static, so only root can make device nodes with it; the boots cover it for others")
    packed = layer_of(remastered.iso, tmp_path)
    (tmp_path / "new.cxz").write_bytes(packed)
    run(["xz", "-t", tmp_path / "new.cxz"])
    plain = run(["/bin/busybox", "unxz", "-c"], stdin=packed)
    assert plain == run(["xz", "-dc"], stdin=packed)
    listings = []
    for name, archive in (("old", base.rootfs_cpio.read_bytes()), ("new", plain)):
        folder = tmp_path / name
        folder.mkdir()
        script = f"umask 0; {unpacker}; {LISTING}"
        argv = ["sh", "-c", script] if "busybox" in unpacker else ["fakeroot", "sh", "-c", script]
        listings.append(run(argv, cwd=folder, stdin=archive).decode(errors="surrogateescape").splitlines())
    assert changed_names(*listings) == {
        *("data", "data/platform", "data/platform/payload.bin", "etc/hostname", "etc/site-link", "root/site.sh"),
        *("usr/bin/site-tool", "usr/share/zoneinfo/Zulu", "usr/share/zoneinfo/UTC", "usr/share/zoneinfo/Etc/UTC"),
    }


def test_kept_entries_keep_order_times_and_numbers(base: DebirfImage, remastered: Remastered, tmp_path: Path) -> None:
    tools.require(*debirf.TOOLS)
    plain = run(["xz", "-dc"], stdin=layer_of(remastered.iso, tmp_path))
    listing = ["cpio", "-itv", "--numeric-uid-gid", "--quiet"]
    old, new = (run(listing, stdin=archive).splitlines() for archive in (base.rootfs_cpio.read_bytes(), plain))
    # A hard link is taken out; hostname stays where it is, and a later entry supersedes it.
    kept = [line for line in old if not line.endswith(b" usr/share/zoneinfo/Zulu")]
    # Zulu, the last of its group, carried the data; the last name that stays has it now.
    heir = next(line for line in kept if line.endswith(b" usr/share/zoneinfo/Etc/UTC"))
    kept[kept.index(heir)] = heir.replace(b"  0 Nov", b" 50 Nov")
    assert new[: len(kept)] == kept
    added = [re.split(rb" (2023|2038) ", line, maxsplit=1)[1:] for line in new[len(kept) :]]
    assert [name.split(b" -> ")[0] for _, name in added] == sorted(ADDED)
    assert [name for year, name in added if year == b"2038"] == [b"etc/hostname"]


def changed_names(old: list[str], new: list[str]) -> set[str]:
    """Names in lines that differ. Directories' sizes and link counts are the file system's own."""

    def settle(lines: list[str]) -> set[str]:
        return {re.sub(r"^(S 4\S+ \S+ \S+) \S+ \S+", r"\1", line) for line in lines}

    return {re.split(r"' -> |'$", line.split("./", 1)[1])[0].rstrip("'") for line in settle(old) ^ settle(new)}


def test_boot_records_differ_only_where_sizes_moved(base: DebirfImage, remastered: Remastered) -> None:
    tools.require("xorriso")
    reports = [_boot_report(iso) for iso in (base.iso, remastered.iso)]
    assert len(reports[0]) == len(reports[1])
    differing = [(old, new) for old, new in zip(*reports, strict=True) if old != new]
    grown = remastered.iso.stat().st_size // 512 - base.iso.stat().st_size // 512
    assert grown > 0
    moved = []
    for old, new in differing:
        numbers = [[int(word) for word in re.findall(r"(?<![x\w])\d+(?!\w)", line)] for line in (old, new)]
        steps = [after - before for before, after in zip(*numbers, strict=True)]
        assert set(steps) == {0, grown}, (old, new)
        moved.append(re.sub(r"\d+ *$", "", old).split(":")[0].strip())
    assert moved == ["ISO image size/512", "MBR partition", "MBR partition"]


def _boot_report(iso: Path) -> list[str]:
    report = run(["xorriso", "-indev", iso, "-report_el_torito", "plain", "-report_system_area", "plain"])
    return report.decode().splitlines()


def test_partition_tools_have_no_new_complaint(base: DebirfImage, remastered: Remastered) -> None:
    tools.require("sfdisk", "isoinfo")
    found = [run(["sh", "-c", f"sfdisk --verify {iso} 2>&1 || true"]) for iso in (base.iso, remastered.iso)]
    assert found[0].replace(b"in.iso", b"") == found[1].replace(b"out.iso", b"")
    names = [run(["isoinfo", "-f", "-R", "-i", str(iso)]) for iso in (base.iso, remastered.iso)]
    assert names[0] == names[1]
    assert b"/vmlinuz" in names[0]


def test_files_beside_the_layer_keep_their_bytes(base: DebirfImage, remastered: Remastered, tmp_path: Path) -> None:
    tools.require("bsdtar")
    trees = []
    for iso in (base.iso, remastered.iso):
        folder = tmp_path / iso.stem
        folder.mkdir()
        run(["bsdtar", "-xf", iso, "-C", folder])
        files = [path for path in folder.rglob("*") if path.is_file() and path.name != debirf.CGZ]
        trees.append({path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest() for path in files})
    assert trees[0] == trees[1]
    assert len(trees[0]) == 5


def test_says_what_it_did(remastered: Remastered) -> None:
    printed = remastered.printed
    assert f"{debirf.CGZ}::rootfs.cxz: 6 added, 2 replaced, 1 unchanged" in printed
    for line in ("+ data/platform/payload.bin", "+ usr/bin/site-tool", "~ etc/hostname", "~ usr/share/zoneinfo/Zulu"):
        assert f"  {line}\n" in printed
    for words in ("El Torito entry 1: BIOS", "boot-info-table and grub2-boot-info", "El Torito entry 2: UEFI"):
        assert words in printed
    for words in ("MBR: GRUB2 hybrid MBR", "MBR partition 1: type 0x83", "MBR partition 2: type 0xEF"):
        assert words in printed


def test_without_edits_the_output_is_the_input(user: User, base: DebirfImage) -> None:
    target = user.home / "same.iso"
    done = user.run(base.iso, target)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == base.iso.read_bytes()
    target.unlink()


def test_an_overlay_that_is_there_already_changes_nothing(user: User, remastered: Remastered) -> None:
    target = user.home / "again.iso"
    done = user.run(remastered.iso, target, "--add", remastered.overlay)
    assert done.returncode == 0, done.stderr
    assert "7 unchanged" in done.stdout
    assert target.read_bytes() == remastered.iso.read_bytes()
    target.unlink()


@pytest.mark.parametrize("threads", ["1", "3"])
def test_same_bytes_whatever_is_around(user: User, base: DebirfImage, remastered: Remastered, threads: str) -> None:
    elsewhere = user.home / f"threads-{threads}"
    elsewhere.mkdir(mode=0o777)
    user.own(elsewhere)
    env = {"TZ": "Pacific/Auckland", "LC_ALL": "tr_TR.UTF-8", "COLUMNS": "33", "PYTHONHASHSEED": threads}
    options = ("--add", "../overlay", "--threads", threads, "--quiet")
    done = user.run(base.iso, "out.iso", *options, env=env, cwd=elsewhere, umask=0o077)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    written = elsewhere / "out.iso"
    assert written.read_bytes() == remastered.iso.read_bytes()
    assert written.stat().st_mode & 0o777 == 0o600
    assert remastered.iso.stat().st_mode & 0o777 == 0o644
    written.unlink()
