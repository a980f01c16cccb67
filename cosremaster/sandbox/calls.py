"""Numbers of the system calls that the filter of a script's processes knows, by architecture.

They are those of the kernel's tables: arch/x86/entry/syscalls, scripts/syscall.tbl, linux/audit.h.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping

from cosremaster.records.tuples import NamedTuple

SYSCALLS: Mapping[str, tuple[int | None, int | None, int | None]] = {
    # the stat family
    "stat": (4, None, 106),
    "lstat": (6, None, 107),
    "fstat": (5, 80, 108),
    "newfstatat": (262, 79, None),
    "statx": (332, 291, 383),
    "stat64": (None, None, 195),
    "lstat64": (None, None, 196),
    "fstat64": (None, None, 197),
    "fstatat64": (None, None, 300),
    # the chown family
    "chown": (92, None, 182),
    "lchown": (94, None, 16),
    "fchown": (93, 55, 95),
    "fchownat": (260, 54, 298),
    "chown32": (None, None, 212),
    "lchown32": (None, None, 198),
    "fchown32": (None, None, 207),
    # mknod
    "mknod": (133, None, 14),
    "mknodat": (259, 33, 297),
    # calls that change the ids of a process
    "setuid": (105, 146, 23),
    "setgid": (106, 144, 46),
    "setreuid": (113, 145, 70),
    "setregid": (114, 143, 71),
    "setresuid": (117, 147, 164),
    "setresgid": (119, 149, 170),
    "setfsuid": (122, 151, 138),
    "setfsgid": (123, 152, 139),
    "setgroups": (116, 159, 81),
    "setuid32": (None, None, 213),
    "setgid32": (None, None, 214),
    "setreuid32": (None, None, 203),
    "setregid32": (None, None, 204),
    "setresuid32": (None, None, 208),
    "setresgid32": (None, None, 210),
    "setfsuid32": (None, None, 215),
    "setfsgid32": (None, None, 216),
    "setgroups32": (None, None, 206),
    # extended attributes
    "setxattr": (188, 5, 226),
    "lsetxattr": (189, 6, 227),
    "fsetxattr": (190, 7, 228),
    "getxattr": (191, 8, 229),
    "lgetxattr": (192, 9, 230),
    "fgetxattr": (193, 10, 231),
    "listxattr": (194, 11, 232),
    "llistxattr": (195, 12, 233),
    "flistxattr": (196, 13, 234),
    "removexattr": (197, 14, 235),
    "lremovexattr": (198, 15, 236),
    "fremovexattr": (199, 16, 237),
    "setxattrat": (463, 463, 463),
    "getxattrat": (464, 464, 464),
    "listxattrat": (465, 465, 465),
    "removexattrat": (466, 466, 466),
    # the fsync family
    "sync": (162, 81, 36),
    "syncfs": (306, 267, 344),
    "fsync": (74, 82, 118),
    "fdatasync": (75, 83, 148),
    "sync_file_range": (277, 84, 314),
    # answered as by a kernel without them
    "clone3": (435, 435, 435),
    "io_uring_setup": (425, 425, 425),
    "io_uring_enter": (426, 426, 426),
    "io_uring_register": (427, 427, 427),
    "bpf": (321, 280, 357),
    "perf_event_open": (298, 241, 336),
    "userfaultfd": (323, 282, 374),
    "keyctl": (250, 219, 288),
    "add_key": (248, 217, 286),
    "request_key": (249, 218, 287),
    # refused
    "init_module": (175, 105, 128),
    "finit_module": (313, 273, 350),
    "delete_module": (176, 106, 129),
    "kexec_load": (246, 104, 283),
    "kexec_file_load": (320, 294, None),
    "reboot": (169, 142, 88),
    "swapon": (167, 224, 87),
    "swapoff": (168, 225, 115),
    "acct": (163, 89, 51),
    "open_by_handle_at": (304, 265, 342),
    # looked at by their arguments
    "mmap": (9, 222, 90),
    "mmap2": (None, None, 192),
    "clone": (56, 220, 120),
    "unshare": (272, 97, 310),
    "ioctl": (16, 29, 54),
    "socket": (41, 198, 359),
    "socketpair": (53, 199, 360),
    "chroot": (161, 51, 61),
    "pivot_root": (155, 41, 217),
    "setns": (308, 268, 346),
    "seccomp": (317, 277, 354),
    "sched_setattr": (314, 274, 351),
    "rename": (82, None, 38),
    "renameat": (264, 38, 302),
    "renameat2": (316, 276, 353),
    "chmod": (90, None, 15),
    "fchmod": (91, 52, 94),
    "fchmodat": (268, 53, 306),
    "fchmodat2": (452, 452, 452),
    "socketcall": (None, None, 102),
}
"""Each call with its number on x86-64, arm64 and i386; None where an architecture lacks it."""

_COLUMNS = {"x86_64": 0, "aarch64": 1, "i386": 2}


class Architecture(NamedTuple):
    """An architecture whose programs the filter lets run.

    :ivar name: as ``uname -m`` has it.
    :ivar audit: its number in the data of a seccomp filter (AUDIT_ARCH in linux/audit.h).
    """

    name: str
    audit: int

    def find_numbers(self, calls: Iterable[str]) -> dict[int, str]:
        """Return which of ``calls`` there are, by number."""
        column = _COLUMNS[self.name]
        numbers = ((SYSCALLS[call][column], call) for call in calls)
        return {number: call for number, call in numbers if number is not None}

    def number_of(self, call: str) -> int:
        """Return the number of ``call``; the architecture must have it."""
        number = SYSCALLS[call][_COLUMNS[self.name]]
        assert number is not None, call
        return number


X86_64 = Architecture("x86_64", 0xC000003E)
AARCH64 = Architecture("aarch64", 0xC00000B7)
I386 = Architecture("i386", 0x40000003)

ARCHITECTURES: Mapping[str, tuple[Architecture, ...]] = {"x86_64": (X86_64, I386), "aarch64": (AARCH64,)}
"""Whose programs run, by the architecture of the kernel; its own first."""

X32_BIT = 0x40000000
"""__X32_SYSCALL_BIT of asm/unistd.h: the calls of x32 have the audit number of x86-64 and this bit."""


def find_architectures(machine: str | None = None) -> tuple[Architecture, ...]:
    """Return the architectures whose programs a kernel on ``machine`` runs under the filter, its own first.

    None for a machine that the filter does not know; without a name, this machine is meant.
    """
    return ARCHITECTURES.get(machine or platform.machine(), ())
