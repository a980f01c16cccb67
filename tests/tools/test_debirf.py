"""The main job on the real-tools image: four boots, other people's unpackers, and everything that must stay."""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from cosremaster import remaster
from tests.fixtures import debirf, tools
from tests.fixtures.debirf import DebirfImage, ListedFile, Recipe, listed_tree
from tests.fixtures.tools import EPOCH, run
from tests.support import qemu
from tests.support.user import User, ordinary_user

SITE_LINE = "SITE-SCRIPT-OF-THE-OVERLAY-RAN"
SITE_SCRIPT = f"#!/bin/sh\necho {SITE_LINE}\n/usr/bin/site-tool\n"
SITE_TOOL = "#!/bin/sh\necho SITE-TOOL-FOUND-IN-USR-BIN\n"
PAYLOAD = random.Random(1).randbytes(300_000)


@dataclass(frozen=True)
class Remastered:
    """The image with an overlay in it, and the overlay's folder."""

    iso: Path
    overlay: Path
    printed: str


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """Somebody without root."""
    with ordinary_user() as one:
        yield one


@pytest.fixture(scope="module")
def base(user: User) -> DebirfImage:
    """The real-tools image that lists its tree when it boots, where the user can read it."""
    tools.require(*debirf.TOOLS)
    built = debirf.build(recipe=Recipe(list_tree=True))
    copy = user.home / "in.iso"
    copy.write_bytes(built.iso.read_bytes())
    copy.chmod(0o444)
    return DebirfImage(copy, built.rootfs_cpio)


def write_overlay(folder: Path) -> None:
    """Files of every sort that an overlay has, all with the fixture's time."""
    files: dict[str, tuple[str | bytes, int]] = {
        "root/site.sh": (SITE_SCRIPT, 0o755),
        "bin/site-tool": (SITE_TOOL, 0o755),
        "etc/hostname": ("headend-7\n", 0o640),
        "etc/os-release": ('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n', 0o644),
        "data/platform/payload.bin": (PAYLOAD, 0o600),
        "usr/share/zoneinfo/Zulu": ("not linked any more\n", 0o644),
    }
    for name, (data, mode) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        path.chmod(mode)
    (folder / "etc/site-link").symlink_to("/data/platform")
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


@pytest.fixture(scope="module")
def remastered(user: User, base: DebirfImage) -> Remastered:
    """The main job, as the user, with an empty PATH."""
    overlay, target = user.home / "overlay", user.home / "out.iso"
    write_overlay(overlay)
    user.own(overlay)
    before = hashlib.sha256(base.iso.read_bytes()).digest()
    done = user.run(base.iso, target, "--add", f"{overlay}/")
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(base.iso.read_bytes()).digest() == before
    assert sorted(path.name for path in user.home.iterdir()) == ["in.iso", "out.iso", "overlay"]
    return Remastered(target, overlay, done.stdout)


ADDED = {
    b"data": (0o040755, None),
    b"data/platform": (0o040755, None),
    b"data/platform/payload.bin": (0o100600, PAYLOAD),
    b"etc/hostname": (0o100640, b"headend-7\n"),
    b"etc/site-link": (0o120777, b"/data/platform"),
    b"root/site.sh": (0o100755, SITE_SCRIPT.encode()),
    b"usr/bin/site-tool": (0o100755, SITE_TOOL.encode()),
    b"usr/share/zoneinfo/Zulu": (0o100644, b"not linked any more\n"),
}
"""What the overlay puts where: mode, and bytes or link target."""


def expected_tree(before: dict[bytes, ListedFile]) -> dict[bytes, ListedFile]:
    """``before`` with the overlay's files in it, written down by hand."""
    after = dict(before)
    for name, (mode, data) in ADDED.items():
        regular = mode & 0o170000 == 0o100000
        after[name] = ListedFile(
            mode=mode,
            uid=0,
            gid=0,
            nlink=0 if data is None else 1,
            size=len(data or b""),
            rdev=(0, 0),
            md5=hashlib.md5(data or b"").hexdigest() if regular else None,
            target=data if not regular else None,
        )
    for name in (b"usr/share/zoneinfo/UTC", b"usr/share/zoneinfo/Etc/UTC"):
        after[name] = replace(after[name], nlink=2)
    return after


@pytest.fixture(scope="module")
def tree_before(base: DebirfImage) -> dict[bytes, ListedFile]:
    """What the kernel and busybox make of the original, as the booted system lists it."""
    tools.require(*qemu.TOOLS)
    return listed_tree(qemu.boot(base.iso, firmware="bios", medium="disc"))


@pytest.mark.boot
@pytest.mark.parametrize("medium", ["disc", "disk"])
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_boots_with_the_overlay_in_its_tree(
    remastered: Remastered,
    tree_before: dict[bytes, ListedFile],
    firmware: Literal["bios", "uefi"],
    medium: Literal["disc", "disk"],
) -> None:
    said = qemu.boot(remastered.iso, firmware=firmware, medium=medium)
    assert debirf.MARKER in said
    assert SITE_LINE in said
    assert "SITE-TOOL-FOUND-IN-USR-BIN" in said
    assert listed_tree(said) == expected_tree(tree_before)


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
    gone = (b" etc/hostname", b" usr/share/zoneinfo/Zulu")
    kept = [line for line in old if not line.endswith(gone)]
    # Zulu, the last of its group, carried the data; the last name that stays has it now.
    heir = next(line for line in kept if line.endswith(b" usr/share/zoneinfo/Etc/UTC"))
    kept[kept.index(heir)] = heir.replace(b"  0 Nov", b" 50 Nov")
    assert new[: len(kept)] == kept
    names = [line.split(b"2023 ")[1].split(b" -> ")[0] for line in new[len(kept) :]]
    assert names == sorted(ADDED)


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


VARIANTS = {
    "rootfs.cgz": (Recipe(layer="rootfs.cgz"), f"{debirf.CGZ}::rootfs.cgz"),
    "roots.cxz, names with ./": (Recipe(layer="roots.cxz", dot_slash=True), f"{debirf.CGZ}::roots.cxz"),
    "not nested": (Recipe(layer=None), debirf.CGZ),
}


@pytest.mark.boot
@pytest.mark.parametrize("variant", VARIANTS)
def test_other_shapes_boot(tmp_path: Path, variant: str) -> None:
    tools.require(*debirf.TOOLS, *qemu.TOOLS)
    recipe, address = VARIANTS[variant]
    overlay = tmp_path / "overlay"
    write_overlay(overlay)
    result = remaster(debirf.build(recipe=recipe).iso, tmp_path / "out.iso", add=[overlay])
    assert result.layer == address
    said = qemu.boot(tmp_path / "out.iso", firmware="bios", medium="disc")
    assert debirf.MARKER in said
    assert SITE_LINE in said
    assert "SITE-TOOL-FOUND-IN-USR-BIN" in said
