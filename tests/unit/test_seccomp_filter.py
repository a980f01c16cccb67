"""The filter of a script: its verdict on each call, by an interpreter; and the records of the supervisor."""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path
from typing import Any, Literal

import pytest

from cosremaster.sandbox.acls import mode_of_acl, names_other_ids, read_acl, renew_acl
from cosremaster.sandbox.calls import AARCH64, I386, SYSCALLS, X86_64, Architecture, find_architectures
from cosremaster.sandbox.filter import (
    ABSENT_CALLS,
    CHOWN_CALLS,
    ID_CALLS,
    REFUSED_CALLS,
    RENAME_CALLS,
    STAT_CALLS,
    SYNC_CALLS,
    XATTR_CALLS,
    build_filter,
)
from cosremaster.sandbox.harvest import Harvest, RecordedFacts
from cosremaster.sandbox.inodes import InodeReader, Shown, pack_stat, pack_statx
from cosremaster.sandbox.records import Device, InodeRecords
from cosremaster.sandbox.scan import scan_tree
from cosremaster.tree.nodes import NodeKind
from tests.fixtures.tools import require
from tests.support.bpf import pack_call, run_program

ALLOW, NOTIFY, KILL = 0x7FFF0000, 0x7FC00000, 0x80000000
EPERM, ENOSYS, NO_FAMILY, SUCCEED = (0x50000 | code for code in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT, 0))

EACH = pytest.mark.parametrize("architecture", [X86_64, AARCH64, I386], ids=lambda value: value.name)
WAYS: tuple[Literal["single", "subuid"], ...] = ("single", "subuid")
CLONE_NEWUSER, CLONE_NEWNS, CLONE_VM = 0x10000000, 0x20000, 0x100


def _verdict(ids: Literal["single", "subuid"], architecture: Architecture, name: str, *arguments: int) -> int:
    machine = "aarch64" if architecture is AARCH64 else "x86_64"
    program = build_filter(ids, find_architectures(machine))
    return run_program(program, pack_call(architecture.number_of(name), architecture.audit, *arguments))


@EACH
def test_calls_have_their_verdicts(architecture: Architecture) -> None:
    machine = "aarch64" if architecture is AARCH64 else "x86_64"
    for ids in WAYS:
        program = build_filter(ids, find_architectures(machine))
        is_single = ids == "single"
        expected = {
            **dict.fromkeys(SYNC_CALLS, SUCCEED),
            **dict.fromkeys(ABSENT_CALLS, ENOSYS),
            **dict.fromkeys(REFUSED_CALLS, EPERM),
            **dict.fromkeys(ID_CALLS, SUCCEED if is_single else ALLOW),
            **dict.fromkeys((*STAT_CALLS, *CHOWN_CALLS, *XATTR_CALLS, *RENAME_CALLS), NOTIFY if is_single else ALLOW),
            **dict.fromkeys(("chroot", "pivot_root", "setns"), NOTIFY),
        }
        for number, name in architecture.find_numbers(expected).items():
            assert run_program(program, pack_call(number, architecture.audit)) == expected[name], (ids, name)


@EACH
@pytest.mark.parametrize("ids", WAYS)
def test_calls_that_are_judged_by_their_arguments(architecture: Architecture, ids: Literal["single", "subuid"]) -> None:
    def verdict(name: str, *arguments: int) -> int:
        return _verdict(ids, architecture, name, *arguments)

    for name in ("clone", "unshare"):
        assert verdict(name, CLONE_VM) == ALLOW
        assert verdict(name, CLONE_NEWNS) == NOTIFY
        assert verdict(name, CLONE_NEWUSER) == EPERM
        assert verdict(name, CLONE_NEWUSER | CLONE_NEWNS) == EPERM
    assert verdict("ioctl", 0, 0x5412) == EPERM
    assert verdict("ioctl", 0, 0x541C) == EPERM
    assert verdict("ioctl", 0, 0x1_0000_5412) == EPERM, "the kernel looks at the lower word alone"
    assert verdict("ioctl", 0, 0x5413) == ALLOW
    for family in (1, 2, 10, 16):
        assert verdict("socket", family, 1, 0) == ALLOW
    for family in (0, 3, 17, 31, 38, 40, 44, 45):
        assert verdict("socket", family, 1, 0) == NO_FAMILY
        assert verdict("socketpair", family, 1, 0) == NO_FAMILY
    for place, name in ((1, "fchmod"), (2, "fchmodat"), (2, "fchmodat2")):
        assert verdict(name, *[0] * place, 0o2755) == (NOTIFY if ids == "single" else ALLOW)
        assert verdict(name, *[0] * place, 0o5755) == ALLOW
    for place, name in ((1, "mknod"), (2, "mknodat")):
        if SYSCALLS[name][{"x86_64": 0, "aarch64": 1, "i386": 2}[architecture.name]] is not None:
            for kind in (stat.S_IFCHR, stat.S_IFBLK):
                assert verdict(name, *[0] * place, kind | 0o644, 0x103) == NOTIFY
            for kind in (stat.S_IFIFO, stat.S_IFREG, stat.S_IFSOCK, 0):
                assert verdict(name, *[0] * place, kind | 0o644, 0) == ALLOW


@EACH
@pytest.mark.parametrize("way", [*WAYS, "vm"])
def test_files_that_become_shared_memory_are_noted(
    architecture: Architecture, way: Literal["single", "subuid", "vm"]
) -> None:
    machine = "aarch64" if architecture is AARCH64 else "x86_64"
    program = build_filter(way, find_architectures(machine))
    number = architecture.number_of("mmap2" if architecture is I386 else "mmap")
    for flags, verdict in ((0x01, NOTIFY), (0x03, NOTIFY), (0x02, ALLOW), (0x21, ALLOW), (0x22, ALLOW), (0x11, NOTIFY)):
        assert run_program(program, pack_call(number, architecture.audit, 0, 4096, 1, flags, 3, 0)) == verdict
    if architecture is I386:
        assert run_program(program, pack_call(I386.number_of("mmap"), I386.audit)) == NOTIFY
    if way == "vm":
        for name in ("chroot", "fsync", "keyctl", "fchownat", "unshare", "mknodat"):
            numbers = architecture.find_numbers([name])
            assert {run_program(program, pack_call(n, architecture.audit, 0x10000000)) for n in numbers} == {ALLOW}


def test_foreign_architectures_are_ended_and_x32_is_absent() -> None:
    program = build_filter("single", find_architectures("x86_64"))
    for audit in (0, AARCH64.audit, 0x40000028, 0xC00000F3):
        assert run_program(program, pack_call(0, audit)) == KILL
    assert run_program(program, pack_call(0x40000000 | 92, X86_64.audit)) == ENOSYS
    assert run_program(build_filter("single", (AARCH64,)), pack_call(0, X86_64.audit)) == KILL
    assert find_architectures("riscv64") == ()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="Debian has these headers on x86-64")
def test_numbers_are_those_of_the_kernel() -> None:
    """The headers of Linux have them; where they are not installed, the calls of this very process were wrong, too."""
    headers = {"x86_64": "x86_64-linux-gnu/asm/unistd_64.h", "i386": "x86_64-linux-gnu/asm/unistd_32.h"}
    for architecture in (X86_64, I386):
        header = Path("/usr/include") / headers[architecture.name]
        require(str(header))
        lines = (line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_"))
        numbers = {line[1].removeprefix("__NR_"): int(line[2]) for line in lines}
        ours = {name: number for number, name in architecture.find_numbers(SYSCALLS).items()}
        assert {name: number for name, number in ours.items() if name in numbers and numbers[name] != number} == {}
        assert {name for name in SYSCALLS if name in numbers} <= set(ours)


def test_generic_numbers_are_those_of_the_kernel() -> None:
    header = Path("/usr/include/asm-generic/unistd.h")
    require(str(header))
    numbers = {}
    for line in header.read_text().splitlines():
        words = line.split()
        if len(words) >= 3 and words[0] == "#define" and words[1].startswith("__NR") and words[2].isdigit():
            numbers[words[1].removeprefix("__NR_").removeprefix("__NR3264_")] = int(words[2])
    numbers["newfstatat"] = numbers.pop("fstatat")
    ours = {name: number for number, name in AARCH64.find_numbers(SYSCALLS).items()}
    assert {name: number for name, number in ours.items() if numbers.get(name, number) != number} == {}
    assert {name for name in SYSCALLS if name in numbers} <= set(ours)


def test_every_file_is_looked_at_where_nobody_noted_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    monkeypatch.chdir(tmp_path)
    scan, none = scan_tree(), RecordedFacts({}, {}, {})
    status = os.stat("folder/file")
    for mapped, paths in (
        (None, [b"folder/file"]), ({(status.st_dev, status.st_ino)}, [b"folder/file"]), (frozenset[Any](), []),
    ):  # fmt: skip
        harvest = Harvest(scan, scan, none, none, lost_xattrs={}, started=0, find_group=None, mapped=mapped)
        assert harvest.changed_paths() == paths


def test_structures_of_stat(tmp_path: Path) -> None:
    """Those of each architecture have their fields where its ABI has them."""
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    os.utime(path, ns=(1_700_000_000_000_000_001, 1_600_000_000_000_000_002))
    facts = path.stat()
    inode = InodeReader().read(os.fsencode(path), True)
    assert (inode.key, inode.mode, inode.uid) == ((facts.st_dev, facts.st_ino), facts.st_mode, facts.st_uid)
    assert InodeReader().read(b"/proc/self", False).mode & 0o170000 == stat.S_IFLNK
    shown = Shown(33, 70000, stat.S_IFCHR | 0o640, (1, 300))
    special = os.makedev(1, 300)
    data = pack_stat("x86_64", False, inode, shown)
    assert struct.unpack_from("<QQQIII", data) == (*inode.key, 1, stat.S_IFCHR | 0o640, 33, 70000)
    assert struct.unpack_from("<Qqqq", data, 40) == (special, 5, facts.st_blksize, facts.st_blocks)
    times = (1_700_000_000, 1, 1_600_000_000, 2, *divmod(facts.st_ctime_ns, 1_000_000_000))
    assert struct.unpack_from("<6Q", data, 72) == times
    data = pack_stat("aarch64", False, inode, shown)
    assert struct.unpack_from("<QQIIIIQ", data) == (*inode.key, stat.S_IFCHR | 0o640, 1, 33, 70000, special)
    assert struct.unpack_from("<q", data, 48) == (5,)
    assert struct.unpack_from("<6Q", data, 72) == times
    data = pack_stat("i386", True, inode, shown)
    assert struct.unpack_from("<IIIIQ", data, 16) == (stat.S_IFCHR | 0o640, 1, 33, 70000, special)
    assert struct.unpack_from("<q", data, 44) == (5,)
    assert struct.unpack_from("<6IQ", data, 64) == (*times, inode.key[1])
    data = pack_stat("i386", False, inode, shown)
    assert struct.unpack_from("<HHHH", data, 8) == (stat.S_IFCHR | 0o640, 1, 33, 0xFFFE)
    data = pack_statx(inode, shown)
    assert struct.unpack_from("<IIH", data, 20) == (33, 70000, stat.S_IFCHR | 0o640)
    assert struct.unpack_from("<II", data, 128) == (1, 300)
    with pytest.raises(FileNotFoundError):
        InodeReader().read(os.fsencode(tmp_path / "missing"), True)


def test_a_number_that_goes_to_a_new_file_has_no_record(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    inode = InodeReader().read(os.fsencode(path), True)._replace(birth=1_000)
    records = InodeRecords({(1, 2): (3, 4)}, {(1, 2): Device(NodeKind.CHAR, 5, 6)}, {}, 1 << 60)
    records.open(inode, b".", follow=True).owner = (7, 8)
    assert records.find(inode) is not None
    later = inode._replace(birth=1_001)
    assert records.find(later) is None
    assert records.find(inode) is None, "the old file is gone"
    assert records.owners() == {(1, 2): (3, 4)}
    assert records.devices() == {(1, 2): Device(NodeKind.CHAR, 5, 6)}
    old = inode._replace(key=(1, 2), birth=5)
    assert records.find(old) is not None
    far = inode._replace(key=(1, 2), birth=1 << 62)
    assert records.find(far) is None, "it was made after the beginning"


@pytest.mark.parametrize("is_reusing", [True, False])
def test_the_number_of_a_recorded_file_is_not_given_again_at_once(tmp_path: Path, is_reusing: bool) -> None:
    """Both would have one time by the kernel's clock. Elsewhere nothing is opened, or a mount could not go."""
    device = tmp_path.stat().st_dev
    records = InodeRecords({}, {}, {}, 0, device if is_reusing else device + 1)
    for number in range(20):
        path = tmp_path / str(number)
        path.touch()
        birth = (1 << 62) + number  # just made, and later than the last file, however slow this is
        inode = InodeReader().read(os.fsencode(path), False)._replace(birth=birth)
        before = len(os.listdir("/proc/self/fd"))
        records.open(inode, os.fsencode(path), follow=False).owner = (7, 8)
        assert is_reusing or len(os.listdir("/proc/self/fd")) == before
        path.unlink()
        path.touch()
        assert not is_reusing or path.stat().st_ino != inode.key[1]


def _acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
MINIMAL = ((1, 6, NOBODY), (4, 4, NOBODY), (32, 0, NOBODY))


def test_acls_are_read_as_the_kernel_reads_them() -> None:
    plain = read_acl(_acl(*MINIMAL))
    assert mode_of_acl(plain) == 0o640
    assert not names_other_ids(plain)
    assert not names_other_ids(read_acl(_acl((1, 6, 0), (2, 7, 0), (4, 4, 0), (16, 7, 0), (32, 0, 0))))
    named = _acl((1, 6, NOBODY), (2, 7, 33), (4, 4, NOBODY), (16, 7, NOBODY), (32, 1, NOBODY))
    assert names_other_ids(read_acl(named))
    assert mode_of_acl(read_acl(named)) == 0o671
    renewed = renew_acl(named, 0o100750)
    assert read_acl(renewed) == [(1, 7, NOBODY), (2, 7, 33), (4, 4, NOBODY), (16, 5, NOBODY), (32, 0, NOBODY)]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", errno.EINVAL),
        (b"\2\0\0\0\1", errno.EINVAL),
        (struct.pack("<I", 1) + _acl(*MINIMAL)[4:], errno.EOPNOTSUPP),
        (_acl(*MINIMAL[:2]), errno.EINVAL),
        (_acl(*MINIMAL, (1, 6, 0)), errno.EINVAL),
        (_acl(*MINIMAL, (2, 6, 33)), errno.EINVAL),
        (_acl((1, 9, 0), *MINIMAL[1:]), errno.EINVAL),
    ],
)
def test_unsound_acls_are_refused(value: bytes, code: int) -> None:
    with pytest.raises(OSError, match="Errno") as caught:
        read_acl(value)
    assert caught.value.errno == code
