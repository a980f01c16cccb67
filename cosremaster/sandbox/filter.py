"""The seccomp filter of a script's processes: what is refused, what does nothing, and what the supervisor decides.

The namespaces are what confines a script. The filter takes away parts of the kernel that a build has no use for and
that namespaces do not reach. The supervisor decides on calls that a user namespace answers otherwise than root of the
whole machine would see. Programs of architectures that the filter does not know are ended by SIGSYS.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
import struct
from collections.abc import Callable, Mapping
from typing import Literal

from cosremaster.errors import UnsupportedError
from cosremaster.sandbox.bpf import JUMP_IF_ANY_BIT, JUMP_IF_EQUAL, BpfProgram, write_switch
from cosremaster.sandbox.calls import X32_BIT, Architecture, find_architectures

FilterWay = Literal["subuid", "single", "vm"]
"""Whether a script's processes have 65,536 ids, or only the user's, shown as 0, or a virtual machine for themselves."""

# Verdicts (linux/seccomp.h).
KILL_PROCESS = 0x80000000
ERRNO = 0x00050000
NOTIFY = 0x7FC00000
ALLOW = 0x7FFF0000

# Offsets in struct seccomp_data.
_NUMBER = 0
_ARCHITECTURE = 4
_ARGUMENTS = 16

STAT_CALLS = ("stat", "lstat", "fstat", "newfstatat", "statx", "stat64", "lstat64", "fstat64", "fstatat64")
CHOWN_CALLS = ("chown", "lchown", "fchown", "fchownat", "chown32", "lchown32", "fchown32")
DEVICE_CALLS = ("mknod", "mknodat")
XATTR_CALLS = tuple(
    f"{prefix}{action}xattr" for action in ("set", "get", "list", "remove") for prefix in ("", "l", "f")
)
XATTR_AT_CALLS = tuple(f"{action}xattrat" for action in ("set", "get", "list", "remove"))
"""Linux 6.13 has them; whoever calls them knows that others lack them."""
MODE_CALLS = ("chmod", "fchmod", "fchmodat", "fchmodat2")
"""They are looked at if they set the set-group-ID bit."""
RENAME_CALLS = ("rename", "renameat", "renameat2")
ROOT_CALLS = ("chroot", "pivot_root", "setns")
"""After them, processes may see different roots: the supervisor must know."""
ID_CALLS = tuple(
    f"set{ids}{width}"
    for ids in ("uid", "gid", "reuid", "regid", "resuid", "resgid", "fsuid", "fsgid", "groups")
    for width in ("", "32")
)
SYNC_CALLS = ("sync", "syncfs", "fsync", "fdatasync", "sync_file_range")
"""Nothing of a script's tree outlives the run, so nothing needs to reach a disk."""
ABSENT_CALLS = (
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "perf_event_open", "userfaultfd"),
    *("keyctl", "add_key", "request_key", "clone3"),
)
"""Programs do without them where a kernel lacks them. clone3 has its flags in memory, where no filter can look;
libraries then take clone."""
REFUSED_CALLS = (
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load"),
    *("reboot", "swapon", "swapoff", "acct", "open_by_handle_at"),
)

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNS = 0x00020000
_TERMINAL_INPUTS = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX of asm/ioctls.h: they put what was not typed into the input of a terminal."""
SOCKET_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK (linux/socket.h): a network namespace holds them, but not AF_VSOCK."""
_SOCKETCALL_SOCKET = 1
"""SYS_SOCKET of linux/net.h: i386 has one call for all of sockets, whose arguments are in memory."""
MAPPING_CALLS = ("mmap", "mmap2")
_MAP_SHARED, _MAP_ANONYMOUS = 0x01, 0x20
"""asm-generic/mman-common.h, linux/mman.h; MAP_SHARED_VALIDATE has the bit of MAP_SHARED."""
_FILE_TYPE, _CHARACTER, _BLOCK = 0o170000, 0o020000, 0o060000

_NEW_LISTENER = 1 << 3
_WAIT_KILLABLE = 1 << 5
_SET_MODE_FILTER = 1


def build_filter(way: FilterWay, architectures: tuple[Architecture, ...]) -> bytes:
    """Return the filter, as an array of ``struct sock_filter``, for processes that run by ``way``."""
    program = BpfProgram()
    program.load_word(_ARCHITECTURE)
    for architecture in architectures:
        program.jump_if(JUMP_IF_EQUAL, architecture.audit, architecture.name)
    program.return_value(KILL_PROCESS)
    for architecture in architectures:
        program.place_label(architecture.name)
        _write_calls(program, way, architecture)
    for label, verdict in _VERDICTS.items():
        program.place_label(label)
        program.return_value(verdict)
    return program.assemble()


_VERDICTS: Mapping[str, int] = {
    "allow": ALLOW,
    "notify": NOTIFY,
    "succeed": ERRNO,
    "refuse": ERRNO | errno.EPERM,
    "absent": ERRNO | errno.ENOSYS,
    "family": ERRNO | errno.EAFNOSUPPORT,
}


def _write_calls(program: BpfProgram, way: FilterWay, architecture: Architecture) -> None:
    """Write the verdicts on the calls of ``architecture``."""
    cases: dict[int, str] = {}
    for calls, label in _list_verdicts(way):
        cases |= dict.fromkeys(architecture.find_numbers(calls), label)
    questions = _list_questions(program, way)
    questions["mmap2" if architecture.name == "i386" else "mmap"] = lambda: _ask_mapping(program, 3)
    numbers = architecture.find_numbers(questions)
    cases |= {number: f"{call} of {architecture.name}" for number, call in numbers.items()}
    program.load_word(_NUMBER)
    if architecture.name == "x86_64":
        program.jump_if(JUMP_IF_ANY_BIT, X32_BIT, "absent")
    write_switch(program, cases, "allow")
    for number, call in numbers.items():
        program.place_label(cases[number])
        questions[call]()


def _list_verdicts(way: FilterWay) -> list[tuple[tuple[str, ...], str]]:
    """Return the calls with one verdict whatever their arguments are. Old programs of i386 have those in memory."""
    verdicts: list[tuple[tuple[str, ...], str]] = [(MAPPING_CALLS, "notify")]
    if way != "vm":
        verdicts += [
            (SYNC_CALLS, "succeed"),
            (ABSENT_CALLS, "absent"),
            (REFUSED_CALLS, "refuse"),
            (ROOT_CALLS, "notify"),
        ]
    if way == "single":
        verdicts += [
            (ID_CALLS, "succeed"),
            ((*STAT_CALLS, *CHOWN_CALLS, *XATTR_CALLS, *RENAME_CALLS), "notify"),
            (XATTR_AT_CALLS, "absent"),
        ]
    return verdicts


def _list_questions(program: BpfProgram, way: FilterWay) -> dict[str, Callable[[], None]]:
    """Return what writes the verdict on each call that is judged by its arguments."""
    if way == "vm":
        return {}
    questions: dict[str, Callable[[], None]] = {
        "mknod": lambda: _ask_file_type(program, 1),
        "mknodat": lambda: _ask_file_type(program, 2),
        "clone": lambda: _ask_namespaces(program),
        "unshare": lambda: _ask_namespaces(program),
        "ioctl": lambda: _ask_values(program, 1, _TERMINAL_INPUTS, ("refuse", "allow")),
        "socket": lambda: _ask_values(program, 0, SOCKET_FAMILIES, ("allow", "family")),
        "socketpair": lambda: _ask_values(program, 0, SOCKET_FAMILIES, ("allow", "family")),
        "socketcall": lambda: _ask_values(program, 0, (_SOCKETCALL_SOCKET,), ("notify", "allow")),
    }
    if way == "single":
        questions |= {
            "chmod": lambda: _ask_group_bit(program, 1),
            "fchmod": lambda: _ask_group_bit(program, 1),
            "fchmodat": lambda: _ask_group_bit(program, 2),
            "fchmodat2": lambda: _ask_group_bit(program, 2),
        }
    return questions


def _ask_mapping(program: BpfProgram, argument: int) -> None:
    """Write a jump to "notify" if the flags in ``argument`` share the memory of a file, and to "allow" if not."""
    program.load_word(_ARGUMENTS + 8 * argument)
    program.jump_if(JUMP_IF_ANY_BIT, _MAP_ANONYMOUS, "allow")
    program.jump_if(JUMP_IF_ANY_BIT, _MAP_SHARED, "notify", "allow")


def _ask_namespaces(program: BpfProgram) -> None:
    """Write jumps by the flags in the first argument: no new user namespace, and notice of a new mount namespace."""
    program.load_word(_ARGUMENTS)
    program.jump_if(JUMP_IF_ANY_BIT, _CLONE_NEWUSER, "refuse")
    program.jump_if(JUMP_IF_ANY_BIT, _CLONE_NEWNS, "notify", "allow")


def _ask_group_bit(program: BpfProgram, argument: int) -> None:
    """Write a jump to "notify" if the mode in ``argument`` has the set-group-ID bit, and to "allow" if not."""
    program.load_word(_ARGUMENTS + 8 * argument)
    program.jump_if(JUMP_IF_ANY_BIT, stat.S_ISGID, "notify", "allow")


def _ask_values(program: BpfProgram, argument: int, values: tuple[int, ...], labels: tuple[str, str]) -> None:
    """Write a jump to the first of ``labels`` if ``argument`` is among ``values``, and to the second if not.

    The kernel looks at the lower word alone of an int, as this does.
    """
    program.load_word(_ARGUMENTS + 8 * argument)
    for value in values:
        program.jump_if(JUMP_IF_EQUAL, value, labels[0])
    program.jump(labels[1])


def _ask_file_type(program: BpfProgram, argument: int) -> None:
    """Write a jump to "notify" if the mode in ``argument`` is that of a device, and to "allow" if not."""
    program.load_word(_ARGUMENTS + 8 * argument)
    program.mask(_FILE_TYPE)
    program.jump_if(JUMP_IF_EQUAL, _CHARACTER, "notify")
    program.jump_if(JUMP_IF_EQUAL, _BLOCK, "notify", "allow")


def can_install_filter() -> bool:
    """Tell whether this kernel lets a call go on that a listener was told of, as Linux 5.5 and later do."""
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return version is not None and (int(version[1]), int(version[2])) >= (5, 5)


def install_filter(way: FilterWay) -> int:
    """Put the filter on this process and all that it starts, and return the descriptor where its notifications come.

    The process needs CAP_SYS_ADMIN in its user namespace, and no second thread. The descriptor closes at execve; until
    the supervisor answers there, calls that it decides on wait.

    :raises UnsupportedError: this machine's architecture is not among those of the filter.
    :raises OSError: the kernel refuses.
    """
    architectures = find_architectures()
    if not architectures:
        raise UnsupportedError(f"scripts run on x86_64 and aarch64 only, not on {os.uname().machine}")
    words = build_filter(way, architectures)
    code = ctypes.create_string_buffer(words, len(words))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(words) // 8, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    number = ctypes.c_long(architectures[0].number_of("seccomp"))
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER):  # the second flag came with Linux 5.19
        listener = int(libc.syscall(number, ctypes.c_ulong(_SET_MODE_FILTER), ctypes.c_ulong(flags), header))
        if listener >= 0:
            return listener
        if ctypes.get_errno() != errno.EINVAL:
            break
    raise OSError(ctypes.get_errno(), "the kernel refuses the seccomp filter: " + os.strerror(ctypes.get_errno()))
