"""What the worker is asked to do: bounds, environment, and names, all as plain values."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from cosremaster.errors import SizeError
from cosremaster.records.tuples import NamedTuple
from cosremaster.sandbox.model import ScriptRun, Way
from cosremaster.sandbox.network import apt_proxy_settings
from cosremaster.tree.nodes import Node
from cosremaster.units import format_size

PROCESSES = 4096
"""Processes and threads that a script may have at a time."""

_MORE_INODES = 500_000
_BLOCK = 4096
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
APT_SETTINGS_PATH = "/run/cosremaster.apt.conf"
_APT_WITHOUT_USERS = 'APT::Sandbox::User "root";\n'
"""apt's downloads run as user _apt, which nobody can become where there is a single id."""

_INVOKE_SERVICE, SERVICE_POLICY = b"usr/sbin/invoke-rc.d", b"usr/sbin/policy-rc.d"
_FILE_NAME = re.compile(rb"\w[\w.-]{0,99}")
_HOST_NAME = re.compile(rb"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")


class Bounds(NamedTuple):
    """How much a file system may hold: bytes and files; and what the image has of both."""

    size: int
    inodes: int
    content: int

    @classmethod
    def of(cls, run: ScriptRun, tree: Mapping[bytes, Node]) -> Bounds:
        """Return the bounds of ``run`` for ``tree``. :raises SizeError: the tree alone passes them."""
        content = blocks = count = 0
        for node in tree.values():
            count += 1
            size = node.content.size if node.content is not None else 0
            content += size
            blocks += -(-size // _BLOCK) * _BLOCK
        size = (
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 if run.size_limit is None else run.size_limit
        )
        inodes = count + _MORE_INODES if run.inode_limit is None else run.inode_limit
        if run.directory is None and (blocks > size or count > inodes):
            raise SizeError(
                f"a script cannot run here: the file system has {format_size(blocks)} in {count:,} files, more than the"
                f" {format_size(size)} in {inodes:,} files that it may hold in memory"
            )
        return cls(size, inodes, content)


def make_setup(
    run: ScriptRun, tree: Mapping[bytes, Node], place: str, bounds: Bounds, way: Way,
    variables: tuple[tuple[str, str], ...],
) -> dict[str, Any]:  # fmt: skip
    """Return what the worker gets to know.

    ``place``: the directory that becomes the store or is mounted over. ``variables``: of the environment, which only
    those of ``run`` itself override.
    """
    name = os.fsencode(os.path.basename(run.name))
    settings = (apt_proxy_settings() if run.network else "") + (_APT_WITHOUT_USERS if way == "single" else "")
    if b"usr/bin/apt-get" not in tree:
        settings = ""
    if settings:
        variables = (*variables, ("APT_CONFIG", APT_SETTINGS_PATH))
    return {
        "purpose": "run", "place": place, "is_directory": run.directory is not None,
        "size": bounds.size, "inodes": bounds.inodes, "scratch": bounds.size // 4,
        "processes": _count_processes() + PROCESSES, "network": run.network, "interactive": run.interactive,
        "program": run.program, "file_name": name if _FILE_NAME.fullmatch(name) else b"script",
        "hostname": _read_host_name(tree), "environment": _make_environment(run, variables),
        "helpers": helper_files(tree), "files": {APT_SETTINGS_PATH.encode(): settings.encode()} if settings else {},
    }  # fmt: skip


def helper_files(tree: Mapping[bytes, Node]) -> dict[bytes, bytes]:
    """Return files, by path, that stand in the tree while the script runs; they are no part of the image.

    Debian's invoke-rc.d asks policy-rc.d whether a service may be started (policy-rc.d.spec, in package sysv-rc).
    """
    if _INVOKE_SERVICE in tree and SERVICE_POLICY not in tree:
        return {SERVICE_POLICY: b"#!/bin/sh\nexit 101\n"}
    return {}


def _read_host_name(tree: Mapping[bytes, Node]) -> bytes:
    """Return the name that the image gives its machine, ``localhost`` where it gives none."""
    node = tree.get(b"etc/hostname")
    text = node.content.head(100).split(b"\n")[0].strip() if node is not None and node.content is not None else b""
    return text if _HOST_NAME.fullmatch(text) else b"localhost"


def _make_environment(run: ScriptRun, more: tuple[tuple[str, str], ...]) -> dict[bytes, bytes]:
    """Return the environment of a script: nothing of this machine's, the same each time."""
    values = {
        "PATH": _PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh", "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8", "TZ": "UTC", "TERM": "dumb", "DEBIAN_FRONTEND": "noninteractive", "SYSTEMD_OFFLINE": "1",
    }  # fmt: skip
    if run.interactive:
        values["TERM"], values["HISTFILE"] = os.environ.get("TERM", "linux"), "/run/cosremaster.history"
        del values["DEBIAN_FRONTEND"]
    if run.max_mtime is not None:
        values["SOURCE_DATE_EPOCH"] = str(run.max_mtime)
    values.update(more)
    values.update(run.environment)
    return {os.fsencode(name): os.fsencode(value) for name, value in values.items()}


def _count_processes() -> int:
    """Return how many processes and threads the user has now: the kernel counts those of a namespace with them."""
    uid, count = os.getuid(), 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += os.stat(f"/proc/{name}/task").st_nlink - 2
            except OSError:
                continue
    return count
