"""Sentences for what a machine refuses: what it is, and what can be done."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from cosremaster.sandbox.ids import read_status_field

_VM = "--run-in vm runs the script in a virtual machine instead"


def _read_setting(name: str) -> str:
    """Return a setting of the kernel (sysctl); empty where there is none."""
    try:
        with open(f"/proc/sys/{name}", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def is_chrooted() -> bool:
    """Tell whether this process's root is no mount point, as in a chroot (mountinfo has no such line then)."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            return not any(line.split()[4] == b"/" for line in file)
    except OSError:
        return False


def describe_refusal(step: str, number: int, details: str) -> str:
    """Return the sentence for the failure of ``step`` with errno ``number``."""
    if step == "exec":
        return _describe_exec(number)
    sentence = next((text() for steps, numbers, text in _KNOWN if step in steps and number in numbers), "")
    if sentence:
        return sentence
    reason = os.strerror(number) if number else "it failed"
    about = f" ({details})" if details else ""
    if step == "unpack":
        return f"the image's files cannot be laid out for a script: {reason}{about}"
    return f"this machine does not let a script run apart from it: {_STEPS.get(step, step)}: {reason}{about}; {_VM}"


_APPARMOR = "kernel/apparmor_restrict_unprivileged_userns"
_MASKED = (
    "parts of /proc are hidden here, as in a container, so that no new /proc can be mounted: run the container without"
    f" its masks (docker run --security-opt systempaths=unconfined), or {_VM}"
)
_NO_FILTER = f"this kernel has no seccomp filters with a listener (Linux 5.5 and later have): {_VM}"
_TOO_LARGE = "the image's files do not fit into the file system in memory that a script gets"
_STEPS = {
    "unshare": "new namespaces",
    "map": "the ids of the new namespace",
    "ids": "the ids of the new namespace",
    "mount": "a file system in memory",
    "mounts": "the file systems inside",
    "proc": "/proc of the new namespace",
    "filter": "the filter of system calls",
    "network": "the network inside",
}


def _describe_limit() -> str:
    """Return the sentence for too many namespaces."""
    names = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
    zero = [f"user.max_{name}_namespaces" for name in names if _read_setting(f"user/max_{name}_namespaces") == "0"]
    setting = zero[0] if zero else "user.max_user_namespaces"
    return f"this system allows no more namespaces: an administrator can raise it (sysctl {setting}=10000), or {_VM}"


def _describe_apparmor() -> str:
    """Return the sentence for Ubuntu's restriction; empty where it is off."""
    if _read_setting(_APPARMOR) != "1":
        return ""
    return (
        "AppArmor forbids user namespaces here, as Ubuntu does since 23.10: an administrator can allow them (sysctl"
        f" kernel.apparmor_restrict_unprivileged_userns=0), or {_VM}"
    )


def _describe_unshare() -> str:
    """Return the sentence for a refusal of namespaces."""
    if is_chrooted():
        return f"this process is in a chroot, where Linux allows no user namespace: run it outside, or {_VM}"
    if read_status_field("Seccomp") == "2":
        return (
            "the seccomp profile of this container forbids user namespaces: run the container with another one"
            f" (docker run --security-opt seccomp=unconfined), or {_VM}"
        )
    if _read_setting("kernel/unprivileged_userns_clone") == "0":
        return (
            "this system allows user namespaces to root alone: an administrator can allow them (sysctl"
            f" kernel.unprivileged_userns_clone=1), or {_VM}"
        )
    return _describe_apparmor() or f"this system forbids user namespaces (perhaps by SELinux or another policy): {_VM}"


def _describe_exec(number: int) -> str:
    """Return the sentence for a script that could not be started."""
    if number == errno.ENOENT:
        return "it cannot be started: the image has no such interpreter (or lacks its libraries)"
    if number == errno.ENOEXEC:
        return "it cannot be started: its interpreter is no program of this architecture"
    return f"it cannot be started: {os.strerror(number)}"


_FORBIDDEN = (errno.EPERM, errno.EACCES)
_KNOWN: tuple[tuple[tuple[str, ...], tuple[int, ...], Callable[[], str]], ...] = (
    (("unshare",), (errno.ENOSPC, errno.EUSERS), _describe_limit),
    (("unshare",), _FORBIDDEN, _describe_unshare),
    (("proc", "mounts"), _FORBIDDEN, lambda: _MASKED),
    (("ids", "map", "mount", "network"), _FORBIDDEN, _describe_apparmor),
    (("filter",), (errno.ENOSYS, errno.EINVAL), lambda: _NO_FILTER),
    (("unpack",), (errno.ENOSPC,), lambda: _TOO_LARGE),
)
"""Which sentence is for which steps and errnos; an empty one leaves it to the next."""
