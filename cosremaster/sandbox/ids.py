"""Which ids of this machine stand for those inside a user namespace, and how the kernel is made to use them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess

from cosremaster.errors import SandboxError
from cosremaster.records.tuples import NamedTuple
from cosremaster.sandbox.model import IdChoice, Way

RANGE = 65536
"""Ids that a system needs: 0 to 65535 (65534 is nobody)."""

ROOT_RANGE = 0x70000000
"""Where the ids of a script begin that real root runs: nobody owns them (systemd's "Users, Groups, UIDs and GIDs").

Root's own id is not among them: many files of /proc and /sys ask for that id alone, whatever the namespace.
"""


class IdMapError(SandboxError):
    """newuidmap or newgidmap gave the user no ids."""


class IdMap(NamedTuple):
    """The first user and group of this machine that stand for 0 and up inside.

    ``tools``: the programs that write the maps, newuidmap and newgidmap; empty where plain writing does.
    ``note``: why it is not the better way; empty if it is.
    """

    way: Way
    uid_start: int
    gid_start: int
    tools: tuple[str, ...] = ()
    note: str = ""

    @property
    def length(self) -> int:
        """How many ids there are inside."""
        return 1 if self.way == "single" else RANGE


def choose_id_map(choice: IdChoice) -> IdMap:
    """Return the map for ``choice`` on this machine. :raises SandboxError: it has no 65,536 ids to give."""
    if os.geteuid() == 0:
        return _choose_of_root(choice, _read_maps())
    uid, gid = os.geteuid(), os.getegid()
    if choice == "single":
        return IdMap("single", uid, gid)
    reason = ""
    tools = tuple(path for path in map(shutil.which, ("newuidmap", "newgidmap")) if path)
    uid_range, gid_range = _find_range("/etc/subuid", uid), _find_range("/etc/subgid", uid)
    if len(tools) < 2:
        reason = "newuidmap and newgidmap are not installed (package uidmap, or shadow-utils)"
    elif uid_range is None or gid_range is None:
        file = "/etc/subuid" if uid_range is None else "/etc/subgid"
        reason = f"{file} gives {_user_name(uid)} no range of {RANGE:,} ids (usermod --add-subuids makes it)"
        if uid_range is not None:
            reason = reason.replace("--add-subuids", "--add-subgids")
    elif _has_no_new_privileges():
        reason = "new privileges are switched off for this process (no_new_privs), so newuidmap cannot work"
    else:
        return IdMap("subuid", uid_range, gid_range, tools)
    if choice == "subuid":
        raise SandboxError(f"a script cannot run with real owners: {reason}; --run-ids single needs none of it")
    return IdMap("single", uid, gid, note=f"owners were recorded instead of set, as {reason}")


Maps = tuple[tuple[tuple[int, int, int], ...], ...]
"""The lines of uid_map and of gid_map: first id here, first id outside, and how many (user_namespaces(7))."""


def _choose_of_root(choice: IdChoice, maps: Maps) -> IdMap:
    """Return the map for ``choice`` where root runs the script; ``maps``: what root's own ids are.

    :raises SandboxError: it has no ids to give.
    """
    start = None if choice == "single" else _find_start(maps, RANGE)
    if start is not None:
        return IdMap("root", start, start)
    start = _find_start(maps, 1)
    if start is None or choice == "subuid":
        raise SandboxError(f"root has no {RANGE:,} ids to give here, apart from its own (/proc/self/uid_map)")
    reason = f"owners were recorded instead of set, as root has no {RANGE:,} ids to give here"
    return IdMap("single", start, start, note="" if choice == "single" else reason)


def _read_maps() -> Maps:
    """Return the maps of this process; empty ones where they cannot be read."""
    try:
        with open("/proc/self/uid_map") as uids, open("/proc/self/gid_map") as gids:
            return tuple(tuple(_parse_line(line) for line in file) for file in (uids, gids))
    except OSError:
        return (), ()


def _parse_line(line: str) -> tuple[int, int, int]:
    """Return the three numbers in a line of a map."""
    here, outside, count = map(int, line.split())
    return here, outside, count


def _find_start(maps: Maps, length: int) -> int | None:
    """Return where ``length`` ids begin that ``maps`` have, none of them real root's; None if there are not as many."""
    starts = [here + (not outside) for here, outside, _ in maps[0]]  # 0 outside may be the id of real root
    for start in (ROOT_RANGE, *starts):
        if all(_holds(lines, start, length) for lines in maps):
            return start
    return None


def _holds(lines: tuple[tuple[int, int, int], ...], start: int, length: int) -> bool:
    """Return whether a line has all ids from ``start`` on, and none of them is 0 outside."""
    return any(
        here <= start and start + length <= here + count and not (outside == 0 and start == here)
        for here, outside, count in lines
    )


def _user_name(uid: int) -> str:
    """Return the name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _find_range(path: str, uid: int) -> int | None:
    """Return where the first range of 65,536 ids begins that ``path`` gives to user ``uid`` (subuid(5))."""
    try:
        with open(path, errors="replace") as file:
            lines = [line.strip().split(":") for line in file]
    except OSError:
        return None
    names = (_user_name(uid), str(uid))
    for fields in lines:
        is_range = len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit()
        if is_range and int(fields[2]) >= RANGE:
            return int(fields[1])
    return None


def _has_no_new_privileges() -> bool:
    """Tell whether programs with the set-user-ID bit gain nothing here."""
    return read_status_field("NoNewPrivs") == "1"


def read_status_field(name: str) -> str:
    """Return the field ``name`` of /proc/self/status; empty where it is not."""
    try:
        with open("/proc/self/status", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith(name + ":")), "")
    except OSError:
        return ""


def write_id_map(pid: int, ids: IdMap) -> None:
    """Give the user namespace of process ``pid`` its ids.

    :raises OSError: the kernel refuses. :raises IdMapError: newuidmap or newgidmap does.
    """
    if ids.tools:
        for tool, start in zip(ids.tools, (ids.uid_start, ids.gid_start), strict=True):
            result = subprocess.run(
                [tool, str(pid), "0", str(start), str(RANGE)], capture_output=True, text=True, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            if result.returncode:
                text = " ".join(result.stderr.split())
                raise IdMapError(f"{os.path.basename(tool)} gave no ids: {text}")
        return
    if ids.way == "single":
        _write_proc_file(pid, "setgroups", "deny")
    _write_proc_file(pid, "gid_map", f"0 {ids.gid_start} {ids.length}\n")
    _write_proc_file(pid, "uid_map", f"0 {ids.uid_start} {ids.length}\n")


def _write_proc_file(pid: int, name: str, text: str) -> None:
    """Write ``text`` to a file of process ``pid`` in one call, so that a refusal shows. :raises OSError: refused."""
    fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
