"""A script under the filter and its supervisor, in namespaces of its own: the machine's tools, and a tmpfs on /mnt.

`run_confined` starts this module as a fresh process, for a user namespace is made by a process without threads.
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import socket
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cosremaster.sandbox.filter import install_filter
from cosremaster.sandbox.supervisor import Supervisor
from cosremaster.tree.nodes import NodeKind
from tests.fixtures import tools
from tests.support.user import NOBODY, REPOSITORY

_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x02000000
_PRIVATE = 0x4000 | 0x40000
NO_NAMESPACES = 77
"""What the process ends with where it may make no namespaces."""


@dataclass(frozen=True)
class Entry:
    """What a run left on /mnt under a name, with what was recorded of it."""

    type: str
    mode: int
    owner: tuple[int, int]
    device: tuple[str, int, int] | None
    acls: dict[str, str]


@dataclass(frozen=True)
class Confined:
    """What came of a script."""

    returncode: int
    output: str
    seconds: float
    entries: dict[str, Entry]


def run_confined(
    script: str,
    ids: Literal["single", "subuid"] = "single",
    *,
    is_filtered: bool = True,
    root: Path | None = None,
    timeout: float = 60,
) -> Confined:
    """Runs ``script`` with /bin/sh in /mnt, or in a copy of ``root`` as the whole file system."""
    if ids == "subuid" and os.geteuid() != 0:
        tools.leave_out("Only root gives a namespace a range of ids by itself.")
    request = {"script": script, "ids": ids, "filtered": is_filtered, "root": str(root) if root else None}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.confined", json.dumps(request)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    if done.returncode == NO_NAMESPACES:
        tools.leave_out(f"This test needs user namespaces, which this system does not allow here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    entries = {
        name: Entry(kind, mode, tuple(owner), tuple(device) if device else None, acls)
        for name, (kind, mode, owner, device, acls) in answer.pop("entries").items()
    }
    return Confined(entries=entries, **answer)


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    arguments = [value.encode() if value else None for value in (source, target, kind)]
    if _libc().mount(*arguments, ctypes.c_ulong(flags), options.encode() if options else None):
        raise OSError(ctypes.get_errno(), f"mount {target}: {os.strerror(ctypes.get_errno())}")


def main() -> None:
    """Makes the namespaces and their ids, and lets a child do the rest."""
    request = json.loads(sys.argv[1])
    is_root = os.geteuid() == 0
    uid = NOBODY if is_root else os.getuid()
    ready_in, ready_out = os.pipe()
    mapped_in, mapped_out = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(mapped_out)
        if is_root and request["ids"] == "single":
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            _libc().prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, so that /proc/PID belongs to the user
        if _libc().unshare(_NAMESPACES):
            print(os.strerror(ctypes.get_errno()), end="", file=sys.stderr, flush=True)
            os._exit(NO_NAMESPACES)
        os.write(ready_out, b"x")
        os._exit(supervise(request) if os.read(mapped_in, 1) else 1)
    os.close(ready_out)
    if not os.read(ready_in, 1):  # it ended
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    maps = f"0 {uid} 1" if request["ids"] == "single" else "0 1000000 65536"
    if request["ids"] == "single":
        Path(f"/proc/{child}/setgroups").write_text("deny")
    for name in ("gid_map", "uid_map"):
        descriptor = os.open(f"/proc/{child}/{name}", os.O_WRONLY)
        os.write(descriptor, maps.encode())
        os.close(descriptor)
    os.write(mapped_out, b"x")
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def supervise(request: dict[str, Any]) -> int:
    """Mounts what is needed, starts the script below a first process of its own, and reports what it left."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    _mount("none", "/", None, _PRIVATE, None)
    _mount("tmpfs", "/mnt", "tmpfs", 0, "size=600m,nr_inodes=50000,mode=755")
    seeds = {}
    if request["root"]:
        subprocess.run(
            f"tar -C {shlex.quote(request['root'])} -c . | tar -C /mnt -xp --no-same-owner", shell=True, check=True
        )
        for path in Path(request["root"]).rglob("*"):
            owner = path.lstat()
            if (owner.st_uid or owner.st_gid) and (copy := Path("/mnt") / path.relative_to(request["root"])).exists():
                seeds[(copy.lstat().st_dev, copy.lstat().st_ino)] = (owner.st_uid, owner.st_gid)
    ours, theirs = socket.socketpair()
    stop_in, stop_out = os.pipe()
    output = os.memfd_create("output")
    first = os.fork()
    if first == 0:
        os.close(stop_in)
        ours.close()
        os._exit(be_first(request, theirs, output))
    theirs.close()
    os.close(stop_out)
    owners: Any = {}
    devices: Any = {}
    acls: Any = {}
    if request["filtered"]:
        _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
        supervisor = Supervisor(listener, proc, seeds)
        supervisor.serve(stop_in)
        owners, devices, acls = supervisor.owners(), supervisor.devices(), supervisor.acls()
    _, status = os.waitpid(first, 0)
    usage = os.times()
    entries = {}
    for path in () if request["root"] else Path("/mnt").rglob("*"):
        facts = path.lstat()
        key = (facts.st_dev, facts.st_ino)
        owner = owners.get(key, (facts.st_uid, facts.st_gid))
        recorded = {name.decode(): value.hex() for name, value in acls.get(key, {}).items()}
        entries[str(path.relative_to("/mnt"))] = (
            stat.filemode(facts.st_mode)[0],
            stat.S_IMODE(facts.st_mode),
            owner,
            (NodeKind(devices[key].kind).noun, *devices[key][1:]) if key in devices else None,
            recorded,
        )
    text = os.pread(output, 1 << 24, 0).decode(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    seconds = usage.user + usage.system + usage.children_user + usage.children_system
    print(json.dumps({"returncode": code, "output": text, "seconds": seconds, "entries": entries}))
    sys.stdout.flush()
    return 0


def be_first(request: dict[str, Any], channel: socket.socket, output: int) -> int:
    """Starts the script as the first process of its PID namespace."""
    _mount("proc", "/mnt/proc" if request["root"] else "/proc", "proc", 0xE, None)
    if request["root"]:
        os.chroot("/mnt")
        os.chdir("/")
    else:
        os.chdir("/mnt")
    script = os.fork()
    if script == 0:
        os.umask(0o022)
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        if request["filtered"]:
            listener = install_filter(request["ids"])
            socket.send_fds(channel, [b"x"], [listener])
        os.execve(
            "/bin/sh",
            ["sh", "-ec", request["script"]],
            {
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL": "C",
                "HOME": "/root",
                "DEBIAN_FRONTEND": "noninteractive",
            },
        )
    code = 0
    while True:
        child, status = os.wait()
        if child == script:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
