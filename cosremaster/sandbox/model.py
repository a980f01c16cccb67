"""A script that runs in a file system, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from cosremaster.records import Struct
from cosremaster.tree.nodes import Node

IdChoice: TypeAlias = Literal["auto", "subuid", "single"]
"""How owners are kept: by 65,536 ids of the user's range in /etc/subuid, by a single id and a supervisor that answers
for the others, or (``auto``) by the first of these two that this machine allows."""

Way: TypeAlias = Literal["subuid", "single", "root", "vm"]
"""How a script ran; ``root``: as real root, with a range of ids that belongs to nobody. ``vm``: in a machine."""

Output: TypeAlias = Callable[[str], None]
"""Called with each line that the script prints, cleaned of escape codes and without its end."""

FILES_PATH = b"run/cosremaster"
"""Where a script finds the user's files."""


class ScriptRun(Struct, frozen=True, kw_only=True):
    """A script, and the bounds that it runs in.

    :ivar program: the script's text. One that begins with ``#!`` is executed; any other is a text for ``/bin/sh``, as
        a command is.
    :ivar name: what the user calls it; it names the run in messages.
    :ivar environment: variables beside those that every script gets.
    :ivar files: a directory (or file) of this machine that is shown read-only at ``/run/cosremaster``.
    :ivar network: whether it may use HTTP(S), through a proxy.
    :ivar network_allow: hosts with their ports that it may reach there although they belong to this machine, or
        although the port is not one of web servers.
    :ivar timeout: seconds after which it is ended; None for no limit.
    :ivar size_limit: bytes that the file system may hold, the image's own included; None: half of the memory.
    :ivar inode_limit: the same for its number of files; None: 500,000 more than the image has.
    :ivar directory: a directory of this machine that holds the file system meanwhile; None: memory does.
    :ivar interactive: a shell on the user's terminal takes the place of the script.
    :ivar max_mtime: seconds since 1970; what the script changes gets no later modification time
        (SOURCE_DATE_EPOCH). None for no limit.
    """

    program: bytes
    name: str
    environment: tuple[tuple[str, str], ...] = ()
    files: Path | None = None
    network: bool = False
    network_allow: tuple[tuple[str, int], ...] = ()
    ids: IdChoice = "auto"
    timeout: float | None = None
    size_limit: int | None = None
    inode_limit: int | None = None
    directory: Path | None = None
    interactive: bool = False
    max_mtime: int | None = None


class ScriptReport(Struct, frozen=True, kw_only=True):
    """What is to be said of a run.

    :ivar way: how owners were kept, or that a machine ran.
    :ivar exit_code: of the script; 128 + n after signal n.
    :ivar seconds: that the script took.
    :ivar notes: sentences on what differs from a run as root on a real system.
    """

    way: Way
    exit_code: int
    seconds: float
    notes: tuple[str, ...] = ()


class ScriptChanges(Struct, frozen=True):
    """What a script changed.

    ``nodes``: new and changed ones, sorted by path, whose new contents are in the spool. ``removed``: the paths that
    are gone, without those below another; also those that changed their type, before the new node is laid.
    """

    nodes: tuple[Node, ...]
    removed: tuple[bytes, ...]
    report: ScriptReport
