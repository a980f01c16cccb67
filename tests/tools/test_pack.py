"""New archives and file systems from folders; unsquashfs, the kernel, cpio, busybox, GNU tar and bsdtar judge."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import cosremaster
from cosremaster import AddPath, InlineFile, OverlayItem, OwnershipRule, UsageError
from cosremaster.cli import main
from tests.fixtures import tools
from tests.fixtures.tools import EPOCH, run
from tests.support.archives_of_trees import PACKERS, write_tree
from tests.support.mounted_trees import Description, mounted, on_disk

UNPACKERS: dict[str, tuple[str, ...]] = {
    "cpio": ("cpio", "-idmu", "--quiet"),
    "busybox cpio": ("busybox", "cpio", "-idmu"),
    "tar": ("tar", "-xp"),
    "bsdtar": ("bsdtar", "-xp"),
    "busybox tar": ("busybox", "sh", "-c", "umask 0; exec busybox tar -xp"),  # which only for root keeps modes whole
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that each format holds."""
    root = tmp_path_factory.mktemp("pack") / "root"
    files = {"etc/hostname": "site\n", "sbin/init": "#!/bin/sh\n", "var/lib/empty/": "", "etc/link": "-> ../sbin/init"}
    write_tree(root, files | {f"many/a-rather-long-name-{number}": f"{number}\n" for number in range(400)})
    (root / "usr").mkdir()
    (root / "usr/noise").write_bytes(hashlib.shake_256(b"noise").digest(400_000))
    (root / "usr/text").write_bytes(b"".join(b"%d\n" % number for number in range(60_000)))
    os.truncate(root / "etc/hostname", 300_000)  # sparse
    os.link(root / "usr/text", root / "usr/text-2")
    os.link(root / "usr/text", root / "etc/text-3")
    os.mkfifo(root / "usr/fifo")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / ("d" * 100) / ("e" * 120)).mkdir(parents=True)
    os.close(os.open(os.fsencode(root) + b"/etc/n\xffame", os.O_CREAT | os.O_WRONLY))
    (root / "usr/fifo").chmod(0o644)
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink() and path != root / "tmp":
            path.chmod(path.stat().st_mode & 0o755)  # whatever the umask
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    return root


def unpacked(archive: Path, folder: Path, unpacker: str = "") -> Description:
    """The tree that somebody else's program makes of ``archive``."""
    if archive.suffix in (".squashfs", ".sfs", ".sqfs"):
        tools.require("unsquashfs")
        run(["unsquashfs", "-quiet", "-no-progress", "-d", str(folder), str(archive)])
        return on_disk(folder)
    command = UNPACKERS[unpacker]
    tools.require(command[0])
    folder.mkdir()
    run(list(command), stdin=archive.read_bytes(), cwd=folder)
    return on_disk(folder)


@pytest.mark.parametrize("unpacker", UNPACKERS)
def test_archives_hold_the_folder(unpacker: str, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / ("out.cpio" if "cpio" in unpacker else "out.tar")
    assert main(["pack", str(tree), str(out), "--quiet"]) == 0
    result, expected = unpacked(out, tmp_path / "new", unpacker), on_disk(tree)
    if unpacker not in ("tar", "bsdtar"):  # these alone set times of directories
        result, expected = (
            {path: (*facts[:2], *facts[3:]) for path, facts in described.items()} for described in (result, expected)
        )
    if unpacker == "bsdtar":  # it leaves the time of a folder that is there
        del result["."], expected["."]
    assert result == expected
    assert cosremaster.verify(out, deep=True).ok


@pytest.mark.parametrize("compression", [None, "zstd", "xz", "gzip", "lz4", "lzo"])
def test_a_squashfs_holds_the_folder(compression: str | None, tree: Path, tmp_path: Path) -> None:
    if compression == "lz4":
        tools.require_module("lz4")
    if compression == "lzo":
        tools.require_module("lzokay")
    choice = [] if compression is None else ["--compression", compression, "--block-size", "64K"]
    out = tmp_path / "out.squashfs"
    assert main(["pack", str(tree), str(out), "--quiet", *choice]) == 0
    assert unpacked(out, tmp_path / "new") == on_disk(tree)
    superblock = run(["unsquashfs", "-s", str(out)]).decode()
    assert f"Compression {compression or 'zstd'}" in superblock
    assert f"Block size {64 << 10 if choice else 128 << 10}" in superblock
    assert cosremaster.verify(out, deep=True).ok


def test_the_kernel_mounts_the_squashfs(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.sfs"
    cosremaster.pack(tree, out, compression="xz", block_size="1M")
    with mounted(out, tmp_path / "mounted") as folder:
        assert on_disk(folder) == on_disk(tree)
        assert all((path.lstat().st_uid, path.lstat().st_gid) == (0, 0) for path in [folder, *folder.rglob("*")])


@pytest.mark.parametrize("end", ["squashfs", "tar", "cpio"])
def test_what_is_made_in_the_folder_is_no_part_of_it(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A squashfs had itself in it, half made, under a temporary name."""
    write_tree(tmp_path / "root", {"etc/motd": "site\n"})
    monkeypatch.chdir(tmp_path / "root")
    out, again = Path(f"out.{end}"), tmp_path / f"again.{end}"
    assert main(["pack", ".", str(out), "--quiet"]) == 0
    unpacker = {"tar": "tar", "cpio": "cpio"}.get(end, "")
    made = unpacked(out.absolute(), tmp_path / "new", unpacker)
    assert set(made) == {".", "etc", "etc/motd"}
    again.write_bytes(out.read_bytes())
    out.unlink()
    assert main([str(again), str(out), "--quiet", "--add", "."]) == 0
    assert set(unpacked(out.absolute(), tmp_path / "newer", unpacker)) == set(made)


@pytest.mark.parametrize("kind", ["cpio", "tar"])
def test_the_name_says_the_codec(kind: str, tree: Path, tmp_path: Path) -> None:
    small = tree / "many"
    cosremaster.pack(small, tmp_path / f"plain.{kind}")
    plain = (tmp_path / f"plain.{kind}").read_bytes()
    ends = {f".{kind}.gz": "gzip", f".{kind}.xz": "xz", f".{kind}.zst": "zstd", f".{kind}.bz2": "bzip2"}
    ends |= {f".{kind}.lz4": "lz4", f".{kind.upper()}.XZ": "xz"}
    ends |= {".cgz": "gzip", ".cxz": "xz"} if kind == "cpio" else {".tgz": "gzip", ".txz": "xz", ".tbz2": "bzip2"}
    for end, packer in ends.items():
        tools.require(PACKERS[packer][0])
        out = tmp_path / f"out{end}"
        cosremaster.pack(small, out, threads=2)
        assert run([packer, "-dc"], stdin=out.read_bytes()) == plain, end
    # Kernels read an initramfs under lz4's older form alone.
    assert (tmp_path / f"out.{kind}.lz4").read_bytes()[:4] == (
        b"\x02\x21\x4c\x18" if kind == "cpio" else b"\x04\x22\x4d\x18"
    )


@pytest.mark.parametrize("end", ["cpio.xz", "tar.zst", "squashfs"])
def test_bytes_depend_on_the_folder_alone(
    end: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    run(["cp", "-a", str(tree), str(copy)])
    cosremaster.pack(tree, tmp_path / f"first.{end}", threads=1)
    cosremaster.pack(copy, tmp_path / f"other.{end}", threads=3)
    assert (tmp_path / f"first.{end}").read_bytes() == (tmp_path / f"other.{end}").read_bytes()
    (copy / "etc/link").unlink()
    (copy / "etc/link").symlink_to("../sbin/init")  # made now
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    cosremaster.pack(copy, tmp_path / f"dated.{end}")
    os.utime(copy, (EPOCH + 99, EPOCH + 99))
    cosremaster.pack(copy, tmp_path / f"again.{end}")
    assert (tmp_path / f"dated.{end}").read_bytes() == (tmp_path / f"again.{end}").read_bytes()


@pytest.mark.parametrize("end", ["cpio", "tar", "squashfs"])
def test_owners_devices_and_root_come_from_an_mtree_file(end: str, tree: Path, tmp_path: Path) -> None:
    mtree = tmp_path / "owners.mtree"
    mtree.write_text(
        "#mtree\n. type=dir uid=7 gid=8 mode=0711\n./dev type=dir mode=0755\n"
        "./dev/console type=char device=5,1 mode=0600\n./dev/sda type=block device=8,0 gid=6 mode=0660\n"
        "./sbin/init mode=4755 uid=3\n"
    )
    out = tmp_path / f"out.{end}"
    assert main(["pack", str(tree), str(out), "--mtree", str(mtree), "--quiet"]) == 0
    if os.geteuid() != 0:
        tools.leave_out("Only root makes devices.")
    new = tmp_path / "new"
    unpacked(out, new, {"cpio": "busybox cpio"}.get(end, end))
    facts = {
        path: (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_rdev)
        for path in (".", "dev/console", "dev/sda", "sbin/init", "etc")
        if (status := (new / path).lstat())
    }
    assert facts == {
        ".": (0o711, 7, 8, 0), "dev/console": (0o600, 0, 0, os.makedev(5, 1)),
        "dev/sda": (0o660, 0, 6, os.makedev(8, 0)), "sbin/init": (0o4755, 3, 0, 0), "etc": (0o755, 0, 0, 0),
    }  # fmt: skip


def test_a_closed_folder_is_no_closed_root(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"etc/motd": "site\n"})
    root.chmod(0o700)  # as mktemp -d makes it
    modes = {}
    for name, options in {"open": {}, "closed": {"keep_modes": True}, "owned": {"owner": "5:6"}}.items():
        cosremaster.pack(AddPath(root, **options), tmp_path / f"{name}.squashfs")  # type: ignore[arg-type]
        tools.require("unsquashfs")
        listed = run(["unsquashfs", "-lln", str(tmp_path / f"{name}.squashfs")]).decode().splitlines()
        modes[name] = next(line.split()[:2] for line in listed if line.endswith("squashfs-root"))
    assert modes == {"open": ["drwxr-xr-x", "0/0"], "closed": ["drwx------", "0/0"], "owned": ["drwxr-xr-x", "5/6"]}


def test_attributes_and_capabilities_are_held(tree: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        tools.leave_out("Only root sets capabilities.")
    root = write_tree(tmp_path / "root", {"bin/ping": "#!ping\n"})
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(root / "bin/ping", "security.capability", capability)
    os.setxattr(root / "bin/ping", "user.site", b"7")
    cosremaster.pack(root, tmp_path / "out.squashfs")
    cosremaster.pack(root, tmp_path / "out.tar.xz")
    unpacked(tmp_path / "out.squashfs", tmp_path / "squashfs")
    (tmp_path / "tar").mkdir()
    run(["tar", "-xp", "--xattrs", "--xattrs-include=*", "-f", str(tmp_path / "out.tar.xz")], cwd=tmp_path / "tar")
    for kind in ("squashfs", "tar"):
        assert os.getxattr(tmp_path / kind / "bin/ping", "security.capability") == capability
        assert os.getxattr(tmp_path / kind / "bin/ping", "user.site") == b"7"
    result = cosremaster.pack(root, tmp_path / "out.cpio")
    assert any("bin/ping" in warning for warning in result.warnings)


def test_several_sources_archives_and_items_are_laid_in_order(tree: Path, tmp_path: Path) -> None:
    tools.require("tar")
    packed = tmp_path / "root.tar.gz"
    run(["tar", "-czf", str(packed), "--owner=1000", "--group=1000", "-C", str(tree), "."])
    site = write_tree(tmp_path / "site", {"opt/site": "#!/bin/sh\n"})
    out = tmp_path / "out.tar"
    rule = OwnershipRule("/srv/opt/**", owner="33:33")
    items: list[str | os.PathLike[str] | OverlayItem] = [
        packed,
        AddPath(site, "/srv", rules=(rule,)),
        f"{site}/opt/site:/bin/",
        InlineFile("/etc/motd", b"x"),
    ]
    cosremaster.pack(items, out)
    owners = {entry.path: (entry.uid, entry.gid) for entry in cosremaster.ls(f"{out}::", recursive=True)}
    assert owners[b"etc/hostname"] == (1000, 1000)
    assert owners[b"srv/opt/site"] == (33, 33)
    assert owners[b"bin/site"] == owners[b"etc/motd"] == (0, 0)


@pytest.mark.parametrize("end", ["cpio", "tar.gz", "squashfs"])
def test_an_empty_folder_makes_an_empty_root(end: str, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    os.utime(tmp_path / "root", (EPOCH, EPOCH))
    out = tmp_path / f"out.{end}"
    assert main(["pack", str(tmp_path / "root"), str(out), "--digest", "sha256", "--no-sync"]) == 0
    assert hashlib.sha256(out.read_bytes()).hexdigest() in (tmp_path / f"out.{end}.sha256").read_text()
    if end == "tar.gz":
        assert run(["tar", "-tzf", str(out)]) == b"./\n"
    elif end == "cpio":
        assert run(["cpio", "-t", "--quiet"], stdin=out.read_bytes()) == b".\n"
    else:
        assert unpacked(out, tmp_path / "new") == on_disk(tmp_path / "root")


WRONG: dict[str, tuple[Callable[[Path], list[str]], int, str]] = {
    "no kind": (lambda folder: [f"{folder}/root", f"{folder}/out.iso"], 2, "has to say what to make"),
    "a stream": (lambda folder: [f"{folder}/root", "-"], 2, "has to say what to make"),
    "packed twice": (lambda folder: [f"{folder}/root", f"{folder}/out.squashfs.gz"], 2, "has to say what to make"),
    "not for tar": (lambda folder: [f"{folder}/root", f"{folder}/out.tar", "--compression", "xz"], 2, "for a squashfs"),
    "no compression": (
        lambda folder: [f"{folder}/root", f"{folder}/out.sfs", "--compression", "lzma"],
        2,
        "squashfs has no compression 'lzma'",
    ),
    "block size": (lambda folder: [f"{folder}/root", f"{folder}/out.sfs", "--block-size", "5K"], 2, "powers of two"),
    "no size": (lambda folder: [f"{folder}/root", f"{folder}/out.sfs", "--block-size", "big"], 2, "as in 256K"),
    "no place": (lambda folder: [f"{folder}/root/etc/motd", f"{folder}/out.tar"], 2, "say where the file goes"),
    "missing": (lambda folder: [f"{folder}/nothing", f"{folder}/out.tar"], 7, "No such file"),
    "two folders": (
        lambda folder: [f"{folder}/root", f"{folder}/root:/x", f"{folder}/out.tar", "--mtree", "m"],
        2,
        "one directory that it tells of",
    ),
    "exists": (lambda folder: [f"{folder}/root", f"{folder}/there.tar"], 8, "--force"),
    "a socket": (lambda folder: [f"{folder}/socket", f"{folder}/out.tar"], 7, "it is a socket"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_makes_no_sense_is_told_and_leaves_nothing(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path / "root", {"etc/motd": "site\n"})
    (tmp_path / "socket").mkdir()
    os.mknod(tmp_path / "socket/s", stat.S_IFSOCK | 0o644)
    (tmp_path / "there.tar").write_bytes(b"mine")
    before = sorted(tmp_path.iterdir())
    arguments, code, message = WRONG[case]
    assert main(["pack", *arguments(tmp_path)]) == code
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.tar").read_bytes() == b"mine"


def test_nothing_to_pack_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pack wants a folder"):
        cosremaster.pack([], tmp_path / "out.tar")


def test_a_target_in_the_folder_is_not_packed_itself(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(tree, root, symlinks=True, ignore=shutil.ignore_patterns("fifo"))
    cosremaster.pack(root, root / "out.tar.gz")
    assert b"out.tar.gz" not in [entry.path for entry in cosremaster.ls(f"{root}/out.tar.gz::")]
