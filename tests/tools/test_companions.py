"""Files on an ISO that tell of a squashfs beside them; unsquashfs, coreutils and checkisomd5 judge what follows."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree

FILES = {"etc/hostname": "x\n", "sbin/init": "i\n", "usr/share/doc/a/copyright": "c" * 9000, "usr/big": "b" * 30_000}


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    """The folder that an ISO is made of."""
    tools.require("mksquashfs", "unsquashfs", "genisoimage", "bsdtar")
    return tmp_path / "disc"


def make_squashfs(tree: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    run(["mksquashfs", str(tree), str(target), "-quiet", "-no-progress"])
    return target


def make_iso(disc: Path) -> Path:
    iso = disc.parent / "in.iso"
    run(["genisoimage", "-quiet", "-R", "-J", "-joliet-long", "-o", str(iso), str(disc)])
    return iso


def member(iso: Path, path: str) -> bytes:
    return run(["bsdtar", "-xOf", str(iso), path])


def usage(*trees: Path) -> int:
    """What du(1) counts, in blocks of 4 KiB as ext4 has them, whatever the file system of the test."""
    seen: dict[str, os.stat_result] = {}
    for tree in trees:
        for path in [tree, *tree.rglob("*")]:
            seen[str(path.relative_to(tree))] = path.lstat()
    inodes = {(status.st_dev, status.st_ino): (name, status) for name, status in seen.items()}
    return sum(
        4096 if (status.st_mode & 0o170000) == 0o040000 else -(-status.st_size // 4096) * 4096
        for _, status in inodes.values()
        if (status.st_mode & 0o170000) in (0o040000, 0o100000)
    )


def unpack(iso: Path, path: str, target: Path) -> Path:
    """Unpack a squashfs file of ``iso``."""
    squashfs = target.with_suffix(".sqfs")
    squashfs.write_bytes(member(iso, path))
    run(["unsquashfs", "-quiet", "-no-progress", "-d", str(target), str(squashfs)])
    return target


@pytest.mark.parametrize("end", ["\n", "", "\r\n"])
def test_the_size_beside_a_squashfs_follows(end: str, disc: Path, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", FILES)
    os.link(root / "usr/big", root / "usr/big-2")
    os.symlink("x" * 70, root / "usr/long-link")
    make_squashfs(root, disc / "live/filesystem.squashfs")
    unknown = 12_345_678  # what the build machine's file system took more
    write_tree(disc, {"live/filesystem.size": f"{usage(root) + unknown}{end}"})
    site = write_tree(tmp_path / "site", {"opt/site/data": "d" * 5000, "etc/hostname": "h" * 4097})
    os.symlink("data", site / "opt/site/link")
    out = tmp_path / "out.iso"
    result = cosremaster.remaster(
        make_iso(disc), out, add=[site], remove=["/usr/share/doc/**", "/usr/big-2"], digest="sha256"
    )
    after = usage(unpack(out, "live/filesystem.squashfs", tmp_path / "after"))
    assert member(out, "live/filesystem.size") == f"{after + unknown}{end}".encode()
    (change,) = result.sizes
    assert (change.path, change.before) == (b"live/filesystem.size", usage(root) + unknown)
    assert change.after == after + unknown
    assert not any("tells the size" in warning for warning in result.warnings)


def test_the_last_name_of_a_file_frees_its_bytes(disc: Path, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", FILES)
    os.link(root / "usr/big", root / "usr/big-2")
    make_squashfs(root, disc / "live/filesystem.squashfs")
    write_tree(disc, {"live/filesystem.size": "100000\n"})
    iso, out = make_iso(disc), tmp_path / "out.iso"
    for removed, size in ((["/usr/big"], 100_000), (["/usr/big", "/usr/big-2"], 100_000 - 32_768)):
        cosremaster.remaster(iso, out, remove=removed, force=True)
        assert member(out, "live/filesystem.size") == b"%d\n" % size


def test_a_squashfs_that_is_exchanged_as_a_whole(disc: Path, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", FILES)
    make_squashfs(root, disc / "live/filesystem.squashfs")
    write_tree(disc, {"live/filesystem.size": f"{usage(root)}\n"})
    other = write_tree(tmp_path / "other", {"etc/hostname": "y" * 70_000})
    new = make_squashfs(other, tmp_path / "new.squashfs")
    out = tmp_path / "out.iso"
    cosremaster.remaster(make_iso(disc), out, add_iso=[f"{new}:/live/filesystem.squashfs"])
    assert member(out, "live/filesystem.size") == b"%d\n" % usage(other)


@pytest.mark.parametrize("text", ["", "many\n", "12 MB\n", "3\n", "9" * 80])
def test_a_size_that_cannot_follow_stays_with_a_warning(text: str, disc: Path, tmp_path: Path) -> None:
    make_squashfs(write_tree(tmp_path / "root", FILES), disc / "live/filesystem.squashfs")
    write_tree(disc, {"live/filesystem.size": text})
    out = tmp_path / "out.iso"
    (warning,) = [
        text
        for text in cosremaster.remaster(make_iso(disc), out, remove=["/usr/big"]).warnings
        if "filesystem.size" in text
    ]
    assert "tells the size of the old live/filesystem.squashfs" in warning
    assert member(out, "live/filesystem.size") == text.encode()


def test_a_size_that_the_user_gives_is_used(disc: Path, tmp_path: Path) -> None:
    make_squashfs(write_tree(tmp_path / "root", FILES), disc / "live/filesystem.squashfs")
    write_tree(disc, {"live/filesystem.size": "100\n"})
    size = write_tree(tmp_path / "given", {"size": "7\n"}) / "size"
    out = tmp_path / "out.iso"
    add = [f"{write_tree(tmp_path / 'site', {'opt/a': 'a'})}/"]
    result = cosremaster.remaster(make_iso(disc), out, add=add, add_iso=[f"{size}:/live/filesystem.size"])
    assert member(out, "live/filesystem.size") == b"7\n"
    assert not result.sizes


SOURCES = """\
kernel:
  default: linux-generic
sources:
- default: true
  description:
    en: 'A desktop: with
      all of size: 99'
  id: desktop
  name:
    de: Schreibtisch
    en: Desktop
  path: minimal.standard.squashfs
  preinstalled_langs:
  - en
  size: {standard}
  type: fsimage-layered
  variations:
    enhanced:
      path: minimal.enhanced.squashfs
      size: {enhanced}
      snapd_system_label: enhanced
    standard:
      path: minimal.standard.squashfs
      size: {standard}
- id: minimal
  name:
    en: Minimal
  path: "minimal.squashfs"   # the base
  size:   {minimal}
  type: fsimage-layered
version: 2
"""


@pytest.fixture
def layered(disc: Path, tmp_path: Path) -> dict[str, Path]:
    """The trees of casper's layers on a disc with the sizes that livecd-rootfs writes."""
    trees = {
        "minimal": write_tree(tmp_path / "minimal", FILES),
        "minimal.standard": write_tree(tmp_path / "standard", {"usr/bin/office": "o" * 50_000, "etc/hostname": "s\n"}),
        "minimal.standard.live": write_tree(tmp_path / "live", {"usr/bin/installer": "i" * 10_000}),
        "minimal.enhanced": write_tree(tmp_path / "enhanced", {"usr/bin/snapd": "s" * 8192}),
    }
    for name, tree in trees.items():
        make_squashfs(tree, disc / f"casper/{name}.squashfs")
        write_tree(disc, {f"casper/{name}.size": f"{usage(tree)}\n"})
    whole = sum(usage(trees[name]) for name in ("minimal", "minimal.standard", "minimal.standard.live"))
    write_tree(disc, {"casper/filesystem.size": f"{whole}\n", "casper/install-sources.yaml": sources(trees)})
    return trees


def sources(trees: dict[str, Path]) -> str:
    return SOURCES.format(
        minimal=usage(trees["minimal"]), standard=usage(trees["minimal"], trees["minimal.standard"]),
        enhanced=usage(trees["minimal"], trees["minimal.enhanced"]),
    )  # fmt: skip


@pytest.mark.parametrize("layer", ["minimal", "minimal.standard", "minimal.standard.live"])
def test_the_sizes_of_casper_layers(layer: str, layered: dict[str, Path], disc: Path, tmp_path: Path) -> None:
    site = write_tree(tmp_path / "site", {"opt/new": "n" * 9000, "etc/hostname": "h" * 5000})
    out = tmp_path / "out.iso"
    result = cosremaster.remaster(make_iso(disc), out, add=[site], layer=f"casper/{layer}.squashfs")
    after = {name: unpack(out, f"casper/{name}.squashfs", tmp_path / f"after-{name}") for name in layered}
    for name in layered:
        assert member(out, f"casper/{name}.size") == b"%d\n" % usage(after[name]), name
    whole = sum(usage(after[name]) for name in ("minimal", "minimal.standard", "minimal.standard.live"))
    assert member(out, "casper/filesystem.size") == b"%d\n" % whole
    assert member(out, "casper/install-sources.yaml").decode() == sources(after)
    assert not any("tells the size" in warning for warning in result.warnings)


def test_an_edit_of_all_layers(layered: dict[str, Path], disc: Path, tmp_path: Path) -> None:
    site, out = write_tree(tmp_path / "site", {"opt/new": "n" * 9000}), tmp_path / "out.iso"
    cosremaster.remaster(make_iso(disc), out, add=[site], layer="casper/*.squashfs")
    after = {name: unpack(out, f"casper/{name}.squashfs", tmp_path / f"after-{name}") for name in layered}
    assert member(out, "casper/install-sources.yaml").decode() == sources(after)


def test_a_removed_file_of_a_lower_layer(layered: dict[str, Path], disc: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.iso"
    cosremaster.remaster(make_iso(disc), out, remove=["/usr/big"], layer="casper/minimal.standard.squashfs")
    old, new = (
        {found[0]: int(found[1]) for found in re.findall(r"path: \"?([\w.]+)\"?[^\0]*?size: +(\d+)", text)}
        for text in (sources(layered), member(out, "casper/install-sources.yaml").decode())
    )
    assert new["minimal.squashfs"] == old["minimal.squashfs"]
    assert new["minimal.standard.squashfs"] == old["minimal.standard.squashfs"] - 32_768
    assert member(out, "casper/minimal.standard.size") == b"%d\n" % usage(layered["minimal.standard"]), (
        "the whiteout takes no block, and its directory is there already"
    )


def test_sources_that_are_not_understood(layered: dict[str, Path], disc: Path, tmp_path: Path) -> None:
    text = "[{path: minimal.standard.squashfs, size: 7, default: true}]\n"
    (disc / "casper/install-sources.yaml").write_text(text)
    site, out = write_tree(tmp_path / "site", {"opt/new": "n" * 9000}), tmp_path / "out.iso"
    result = cosremaster.remaster(make_iso(disc), out, add=[site], layer="casper/minimal.squashfs")
    assert not [warning for warning in result.warnings if "install-sources" in warning], "it does not name the layer"
    result = cosremaster.remaster(make_iso(disc), out, add=[site], layer="casper/minimal.standard.squashfs", force=True)
    assert [warning for warning in result.warnings if "casper/install-sources.yaml tells the size" in warning]
    assert member(out, "casper/install-sources.yaml").decode() == text


def test_sizes_in_the_plan(disc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_squashfs(write_tree(tmp_path / "root", FILES), disc / "live/filesystem.squashfs")
    write_tree(disc, {"live/filesystem.size": "100000\n"})
    iso = make_iso(disc)
    assert main(["plan", str(iso), "--remove", "/usr/big"]) == 0
    assert "size in live/filesystem.size: live/filesystem: 100,000 -> 67,232 bytes" in capsys.readouterr().out
    plan = cosremaster.plan(iso, cosremaster.Request(remove=["/usr/big"]))
    assert plan.values["sizes"] == [
        {"path": "live/filesystem.size", "of": "live/filesystem", "before": 100_000, "after": 67_232}
    ]


@pytest.mark.parametrize(
    ("path", "lists"),
    [
        ("var/lib/dpkg/status", ["live/filesystem.manifest", "live/filesystem.packages-remove"]),
        ("var/lib/dpkg/status.d/base", ["live/filesystem.manifest", "live/filesystem.packages-remove"]),
        ("var/lib/dpkg/statusoverride", []),
        ("etc/site", []),
    ],
)
def test_lists_of_packages(path: str, lists: list[str], disc: Path, tmp_path: Path) -> None:
    make_squashfs(write_tree(tmp_path / "root", FILES), disc / "live/filesystem.squashfs")
    names = ["live/filesystem.manifest", "live/filesystem.packages-remove", "live/other.manifest"]
    write_tree(disc, dict.fromkeys(names, "base-files 1\n"))
    site = write_tree(tmp_path / "site", {path: "Package: x\n"})
    out = tmp_path / "out.iso"
    result = cosremaster.remaster(make_iso(disc), out, add=[site])
    assert [warning.split()[0] for warning in result.warnings if "lists the packages" in warning] == lists
    assert all(member(out, name) == b"base-files 1\n" for name in names)


def test_the_list_of_archiso(disc: Path, tmp_path: Path) -> None:
    make_squashfs(write_tree(tmp_path / "root", FILES), disc / "arch/x86_64/airootfs.sfs")
    write_tree(disc, {"arch/pkglist.x86_64.txt": "base 1\n"})
    site = write_tree(tmp_path / "site", {"var/lib/pacman/local/x-1/desc": "%NAME%\n"})
    warnings = cosremaster.remaster(make_iso(disc), tmp_path / "out.iso", add=[site]).warnings
    assert [text for text in warnings if "arch/pkglist.x86_64.txt lists the packages of the old arch/x86_64/a" in text]


def test_sums_of_a_squashfs_follow(disc: Path, tmp_path: Path) -> None:
    tools.require("md5sum", "sha256sum", "sha512sum", "implantisomd5", "checkisomd5")
    squashfs = make_squashfs(write_tree(tmp_path / "root", FILES), disc / "arch/x86_64/airootfs.sfs")
    write_tree(disc, {"arch/x86_64/airootfs.size": "100000\n"})
    (disc / "arch/x86_64/airootfs.sha512").write_bytes(run(["sha512sum", squashfs.name], cwd=squashfs.parent))
    for name in ("md5sum.txt", "sha256sum.txt"):
        files = sorted(f"./{path.relative_to(disc)}" for path in disc.rglob("*") if path.is_file())
        (disc / name).write_bytes(run([name.removesuffix(".txt"), *files], cwd=disc))
    (disc / "pool").mkdir()
    (disc / "pool/noise").write_bytes(bytes(3_000_000))  # isomd5sum cannot check every image of some hundred KiB
    iso, out = make_iso(disc), tmp_path / "out.iso"
    run(["implantisomd5", str(iso)])
    run(["checkisomd5", str(iso)])
    site = write_tree(tmp_path / "site", {"opt/new": "n" * 9000})
    cosremaster.remaster(iso, out, add=[site])
    after = tmp_path / "after"
    after.mkdir()
    run(["bsdtar", "-xf", str(out), "-C", str(after)])
    assert (after / "arch/x86_64/airootfs.size").read_text() == f"{100_000 + 12_288 + 4096}\n"
    run(["md5sum", "--strict", "-c", "md5sum.txt"], cwd=after)
    run(["sha256sum", "--strict", "-c", "sha256sum.txt"], cwd=after)
    run(["sha512sum", "--strict", "-c", "airootfs.sha512"], cwd=after / "arch/x86_64")
    run(["checkisomd5", str(out)])


GRUB = """\
set timeout=3
menuentry live {{
  linux /boot/vmlinuz {arguments}
  initrd /boot/initrd
}}
menuentry other {{
  linux /boot/vmlinuz quiet
}}
"""


def names_on(iso: Path) -> set[str]:
    return set(run(["bsdtar", "-tf", str(iso)]).decode().split())


@pytest.fixture
def signed(disc: Path, tmp_path: Path) -> Path:
    """An ISO like archiso's, with signatures beside its root, a menu and a list of sums."""
    tools.require("sha256sum")
    make_squashfs(write_tree(tmp_path / "root", FILES), disc / "arch/x86_64/airootfs.sfs")
    arguments = "archisobasedir=arch verify=y cms_verify=y checksum=y"
    files = {
        "boot/grub/grub.cfg": GRUB.format(arguments=arguments), "boot/grub/grub.cfg.sig": "s", "boot/vmlinuz": "k",
        "boot/vmlinuz.sig": "s", "boot/initrd": "i", "arch/x86_64/airootfs.sfs.sig": "s",
        "arch/x86_64/airootfs.sfs.cms.sig": "s", "sha256sum.txt.gpg": "s", "SHA512SUMS": "", "SHA512SUMS.sign": "s",
    }  # fmt: skip
    write_tree(disc, files)
    listed = ["./arch/x86_64/airootfs.sfs", "./arch/x86_64/airootfs.sfs.sig", "./boot/vmlinuz", "./boot/vmlinuz.sig"]
    (disc / "sha256sum.txt").write_bytes(run(["sha256sum", *listed], cwd=disc))
    (disc / "SHA512SUMS").write_bytes(run(["sha512sum", "sha256sum.txt"], cwd=disc))
    return make_iso(disc)


def test_signatures_are_told(signed: Path, tmp_path: Path) -> None:
    site, out = write_tree(tmp_path / "site", {"opt/new": "n"}), tmp_path / "out.iso"
    result = cosremaster.remaster(signed, out, add=[site])
    told = "\n".join(result.warnings)
    for name in ("arch/x86_64/airootfs.sfs.sig", "arch/x86_64/airootfs.sfs.cms.sig"):
        assert f"{name} signs the old bytes of arch/x86_64/airootfs.sfs" in told
    assert "a boot menu has verify=y, so the system checks that signature and does not start" in told
    assert "a boot menu has cms_verify=y" in told
    assert "sha256sum.txt.gpg signs sha256sum.txt" in told
    assert "vmlinuz.sig" not in told
    assert names_on(out) == names_on(signed)
    assert member(out, "boot/grub/grub.cfg") == member(signed, "boot/grub/grub.cfg")


def test_signatures_leave_with_what_demands_them(signed: Path, tmp_path: Path) -> None:
    site, out = write_tree(tmp_path / "site", {"opt/new": "n"}), tmp_path / "out.iso"
    result = cosremaster.remaster(signed, out, add=[site], drop_signatures=True)
    gone = {
        "arch/x86_64/airootfs.sfs.sig", "arch/x86_64/airootfs.sfs.cms.sig", "boot/grub/grub.cfg.sig",
        "sha256sum.txt.gpg", "SHA512SUMS.sign",
    }  # fmt: skip
    assert names_on(signed) - names_on(out) == gone
    assert {os.fsdecode(path) for path in result.dropped_signatures} == gone
    assert not [warning for warning in result.warnings if "sign" in warning]
    expected = GRUB.format(arguments="archisobasedir=arch checksum=y")
    assert member(out, "boot/grub/grub.cfg").decode() == expected
    after = tmp_path / "after"
    after.mkdir()
    run(["bsdtar", "-xf", str(out), "-C", str(after)])
    run(["sha256sum", "--strict", "-c", "sha256sum.txt"], cwd=after)
    assert b".sfs.sig" not in (after / "sha256sum.txt").read_bytes()
    run(["sha512sum", "--strict", "-c", "SHA512SUMS"], cwd=after)


def test_kept_sums_keep_their_signatures(signed: Path, tmp_path: Path) -> None:
    site, out = write_tree(tmp_path / "site", {"opt/new": "n"}), tmp_path / "out.iso"
    cosremaster.remaster(signed, out, add=[site], drop_signatures=True, keep_sums=True)
    assert {"sha256sum.txt.gpg", "SHA512SUMS.sign"} <= names_on(out)
    assert member(out, "sha256sum.txt") == member(signed, "sha256sum.txt")


def test_nothing_is_dropped_beside_files_that_stay(signed: Path, tmp_path: Path) -> None:
    out, added = tmp_path / "out.iso", write_tree(tmp_path / "added", {"note": "n"})
    result = cosremaster.remaster(signed, out, add_iso=[f"{added}/note:/note"], drop_signatures=True)
    assert not result.dropped_signatures
    assert names_on(out) == names_on(signed) | {"note"}


@pytest.mark.parametrize("way", ["command", "recipe"])
def test_signatures_of_an_exchanged_kernel(way: str, signed: Path, tmp_path: Path) -> None:
    kernel, out = write_tree(tmp_path / "new", {"vmlinuz": "new\n"}) / "vmlinuz", tmp_path / "out.iso"
    if way == "command":
        add = f"{kernel}:/boot/vmlinuz"
        assert main([str(signed), str(out), "--add-iso", add, "--drop-signatures", "--quiet"]) == 0
    else:
        recipe = tmp_path / "site.toml"
        recipe.write_text(
            f'input = "{signed}"\noutput = "{out}"\ndrop_signatures = true\n[[add_iso]]\nsource = "{kernel}"\n'
            'dest = "/boot/vmlinuz"\n'
        )
        assert main(["build", str(recipe), "--quiet"]) == 0
    assert names_on(signed) - names_on(out) == {"boot/vmlinuz.sig", "sha256sum.txt.gpg", "SHA512SUMS.sign"}
    assert member(out, "boot/grub/grub.cfg") == member(signed, "boot/grub/grub.cfg"), "nothing checked that signature"


ALPINE = """\
TIMEOUT 20
LABEL lts
  KERNEL /boot/vmlinuz-lts
  APPEND modules=loop,squashfs quiet {arguments}
"""


@pytest.mark.parametrize(
    ("arguments", "after"),
    [
        ("console=tty0", "console=tty0 modloop_verify=no"),
        ("modloop_verify=yes console=tty0", "modloop_verify=no console=tty0"),
        ("modloop_verify=no console=tty0", "modloop_verify=no console=tty0"),
    ],
)
def test_the_modloop_of_alpine(arguments: str, after: str, disc: Path, tmp_path: Path) -> None:
    make_squashfs(write_tree(tmp_path / "root", {"modules/a.ko": "a"}), disc / "boot/modloop-lts")
    menu = "boot/syslinux/syslinux.cfg"
    write_tree(disc, {menu: ALPINE.format(arguments=arguments), "boot/vmlinuz-lts": "k"})
    iso, out = make_iso(disc), tmp_path / "out.iso"
    site = write_tree(tmp_path / "site", {"modules/b.ko": "b"})
    told = cosremaster.remaster(iso, out, add=[site], layer="boot/modloop-lts").warnings
    assert member(out, menu) == member(iso, menu)
    warned = [text for text in told if "Alpine checks boot/modloop-lts by a signature in its initramfs" in text]
    assert bool(warned) is (arguments != after)
    cosremaster.remaster(iso, out, add=[site], layer="boot/modloop-lts", drop_signatures=True, force=True)
    assert member(out, menu).decode() == ALPINE.format(arguments=after)


@pytest.mark.parametrize("end", [".verity", ".roothash", ".roothash.p7s", ".fec", ".fec.roots", ".verity.sig"])
def test_hashes_of_dm_verity(end: str, disc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = "live/filesystem.squashfs"
    make_squashfs(write_tree(tmp_path / "root", FILES), disc / path)
    write_tree(disc, {path + end: "hash\n"})
    iso, out = make_iso(disc), tmp_path / "out.iso"
    other = make_squashfs(write_tree(tmp_path / "other", FILES | {"x": "x"}), tmp_path / "other.squashfs")
    site = write_tree(tmp_path / "site", {"opt/new": "n"})
    for request in (["--add", str(site)], ["--add-iso", f"{other}:/{path}"]):
        assert main([str(iso), str(out), *request]) == 5
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"in.iso » {path}: has hashes of dm-verity beside it ({path}{end})" in message
        assert "--drop-signatures" in message
        assert not out.exists()
        assert main([str(iso), str(out), *request, "--drop-signatures", "--quiet"]) == 0
        assert names_on(iso) - names_on(out) == {path + end}
        out.unlink()


MARK = ".disk/casper-uuid-generic"


def make_initrd(folder: Path, uuid: str | None) -> bytes:
    tools.require("cpio", "gzip")
    tree = write_tree(
        folder, {"init": "#!/bin/sh\n", "conf/x": "x"} | ({} if uuid is None else {"conf/uuid.conf": uuid})
    )
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*"))) + "\n"
    packed = run(["cpio", "-o", "-H", "newc", "--quiet"], stdin=names.encode(), cwd=tree)
    return run(["gzip", "-9n"], stdin=packed)


@pytest.fixture
def paired(disc: Path, tmp_path: Path) -> Path:
    """An ISO of casper whose initramfs wants its UUID."""
    make_squashfs(write_tree(tmp_path / "root", FILES), disc / "casper/filesystem.squashfs")
    write_tree(disc, {MARK: "aa-1\n"})
    (disc / "casper/initrd").write_bytes(make_initrd(tmp_path / "initrd", "aa-1\n"))
    return make_iso(disc)


def uuid_warnings(iso: Path, out: Path, **request: object) -> list[str]:
    result = cosremaster.remaster(iso, out, force=True, **request)  # type: ignore[arg-type]
    return [text for text in result.warnings if "uuid" in text]


def test_an_edit_keeps_both_uuids_of_casper(paired: Path, tmp_path: Path) -> None:
    out, site = tmp_path / "out.iso", write_tree(tmp_path / "site", {"etc/site": "s\n"})
    for layer in ("casper/initrd", "casper/filesystem.squashfs"):
        assert not uuid_warnings(paired, out, add=[site], layer=layer)
        assert member(out, MARK) == b"aa-1\n"
        plain = run(["gzip", "-dc"], stdin=member(out, "casper/initrd"))
        assert run(["bsdtar", "-xOf", "-", "conf/uuid.conf"], stdin=plain) == b"aa-1\n"


def test_uuids_of_casper_that_part(paired: Path, tmp_path: Path) -> None:
    out, initrd = tmp_path / "out.iso", "casper/initrd"
    other = write_tree(tmp_path / "other", {"conf/uuid.conf": "bb-2\n"})
    mark = write_tree(tmp_path / "mark", {"uuid": "bb-2"}) / "uuid"
    (wants,) = uuid_warnings(paired, out, add=[other], layer=initrd)
    assert wants.startswith("casper/initrd wants a medium with the UUID bb-2 (conf/uuid.conf)")
    (loses,) = uuid_warnings(paired, out, remove=["/conf/uuid.conf"], layer=initrd)
    assert loses.startswith("casper/initrd loses conf/uuid.conf")
    for request in ({"remove_iso": [f"/{MARK}"]}, {"add_iso": [f"{mark}:/{MARK}"]}, {"rename_iso": [f"/{MARK}:/x"]}):
        (gone,) = uuid_warnings(paired, out, **request)
        assert gone.startswith(f"{MARK} no longer has the UUID aa-1")
    both = uuid_warnings(paired, out, add=[other], layer=initrd, add_iso=[f"{mark}:/.disk/casper-uuid-site"])
    assert not both, "the medium has both"
    assert not uuid_warnings(paired, out, rename_iso=[f"/{MARK}:/.disk/casper-uuid-site"])


@pytest.mark.parametrize(("uuid", "warned"), [("bb-2\n", True), ("aa-1", False), (None, False)])
def test_an_exchanged_initramfs_of_casper(uuid: str | None, warned: bool, paired: Path, tmp_path: Path) -> None:
    (tmp_path / "initrd.new").write_bytes(make_initrd(tmp_path / "new", uuid))
    told = uuid_warnings(paired, tmp_path / "out.iso", add_iso=[f"{tmp_path}/initrd.new:/casper/initrd"])
    assert bool(told) is warned


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (28, b"\x04\x00\x01\x00", "@0x1C: is squashfs 4.1, and only 4.0 can be read"),
        (20, b"\x02\x00", "@0x14: is squashfs under lzma, which no kernel reads"),
        (0, b"HSQS", "a streamed squashfs file system"),
    ],
)
def test_squashfs_that_is_not_read_is_named_with_its_place(
    offset: int, data: bytes, message: str, disc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    squashfs = make_squashfs(write_tree(tmp_path / "root", FILES), disc / "live/filesystem.squashfs")
    with squashfs.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    iso, out, site = make_iso(disc), tmp_path / "out.iso", write_tree(tmp_path / "site", {"x": "x"})
    for request in ([], ["--layer", "live/filesystem.squashfs"]):
        assert main([str(iso), str(out), "--add", str(site), *request]) in (5, 6)
        told = capsys.readouterr().err.strip().splitlines()[-1]
        assert "live/filesystem.squashfs" in told
        assert message in told
        assert not out.exists()
