"""The items that a user can add, as values and as text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from cosremaster.errors import UsageError
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records.lazy_dataclass import dataclass, field
from cosremaster.suggestions import suggest_file

STANDARD_INPUT = b"-"
_ENDING = lazy_regex(rb"\.((tar|cpio)(\.(gz|bz2|xz|zst|lz4|lzma|lz|Z))?|tgz|tbz2?|txz|tlz|tzst|zip|7z|deb)$", re.I)


def is_archive_name(source: bytes) -> bool:
    """Return whether the name ``source`` ends like that of an archive, or means standard input."""
    return source == STANDARD_INPUT or _ENDING.search(source) is not None


_INTO_FILE_SYSTEM = lazy_regex(r"(.*[^:]):(/[^:].*?::.*|@[a-z]+[0-9]+::.*)", re.IGNORECASE | re.DOTALL)
"""SRC and DEST of a file that goes into a file system on the ISO: DEST is its address, ``::`` and a path in it."""


class OverlayItem:
    """Something that can be added to a file system: the base of all kinds of items."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class OwnershipRule:
    """Owner and mode of the paths that ``pattern`` matches, among those that one :class:`AddPath` adds.

    ``pattern``: an absolute path in the layer, DEST included, as written (no symlink is followed); ``*`` and ``?``
    do not cross ``/``, ``**`` does. ``owner`` and modes: as in :class:`AddPath`. ``mode`` applies to everything but
    directories and symlinks, ``directory_mode`` to directories. None keeps the value of the earlier rules, or else
    that of the :class:`AddPath`.

    >>> OwnershipRule("/opt/site/**", owner="1000:1000", mode="u+x")
    OwnershipRule(pattern='/opt/site/**', owner='1000:1000', mode='u+x', directory_mode=None)
    """

    pattern: str
    owner: str | None = None
    mode: str | int | None = None
    directory_mode: str | int | None = None


@dataclass(frozen=True, slots=True)
class AddPath(OverlayItem):
    """A file, the contents of a directory or the contents of an archive.

    - ``source``: its path on this machine; ``-`` is a tar archive on standard input.
    - ``dest``: absolute path in the layer; None: the contents go to ``/``. A file needs one.
    - ``owner``: ``"root"``, ``"source"`` (the numbers in the source) or ``"UID:GID"``; None: the owners of an archive,
      root for anything else.
    - ``mode``: of regular files, as for chmod(1): ``0o644``, ``"0644"`` or ``"u+x,go-w"``.
    - ``rules``: owners and modes of single paths. The last matching rule wins, separately for owner and mode.
    - ``mtree``: an mtree(5) file with owners, modes and further nodes of a directory.
    - ``setuid``: keep set-user-ID, set-group-ID and sticky bits; None: those of an archive whose owners are kept.
    - ``keep_modes``: take the modes of a file or directory as they are, with what the umask made of them. Those of an
      archive always are.
    - ``xattrs``: the extended attributes that are taken over: ``"default"`` (file capabilities and ``user.*``),
      ``"none"``, ``"all"``, or names and patterns as in ``"user.*,security.capability"``; ``-`` before one leaves it
      out.
    - ``unpack``: whether ``source`` is an archive to unpack; None: the end of its name decides.
    - ``template``: pairs of names and values, by which ``${NAME}`` in the files of a file or directory is replaced,
      ``$$`` by a dollar (docs/fleet.md); None leaves them as they are.

    >>> AddPath("site/", owner="source").source
    'site/'
    """

    source: str | os.PathLike[str]
    dest: str | None = None
    owner: str | None = None
    mode: str | int | None = None
    rules: tuple[OwnershipRule, ...] = ()
    mtree: str | os.PathLike[str] | None = None
    setuid: bool | None = None
    keep_modes: bool = False
    xattrs: str = "default"
    unpack: bool | None = None
    template: tuple[tuple[str, str], ...] | None = None

    @classmethod
    def parse(cls, text: str, option: str = "--add") -> AddPath:
        """Read ``SRC[:DEST]``, split at the last ``:/``; with ``--add-iso`` not at one that belongs to ``::/``.

        :raises UsageError: SRC is empty, or DEST does not begin with a slash.
        """
        source, colon, dest = text.rpartition(":/")
        if option == "--add-iso" and (address := _INTO_FILE_SYSTEM.fullmatch(text)) is not None:
            source, dest = address[1], address[2].lstrip("/")
            colon = ":/"
        if not colon:
            source, dest = text, ""
        if not source:
            raise UsageError(f"{option} {text!r}: what should be added?")
        if not colon and ":" in text and not os.path.lexists(text):
            source, _, dest = text.rpartition(":")
            raise UsageError(f"{option} {text}: DEST begins with /, as in {source}:/{dest}")
        return cls(source, "/" + dest if colon else None)


@dataclass(frozen=True, slots=True)
class InlineFile(OverlayItem):
    """A file with the path ``dest`` and the bytes ``content``.

    ``mtime``: seconds since 1970; None: SOURCE_DATE_EPOCH where it is set, else :data:`DEFAULT_MTIME`.

    >>> InlineFile("/etc/motd", b"site 7").owner
    'root'
    """

    dest: str
    content: bytes
    mode: str | int = 0o644
    owner: str = "root"
    mtime: int | None = None


@dataclass(frozen=True, slots=True)
class Symlink(OverlayItem):
    """A symlink with the path ``dest`` and the text ``target``. ``mtime``: as in :class:`InlineFile`.

    >>> Symlink("/etc/localtime", "/usr/share/zoneinfo/UTC").owner
    'root'
    """

    dest: str
    target: str
    owner: str = "root"
    mtime: int | None = None


@dataclass(frozen=True, slots=True)
class Directory(OverlayItem):
    """A directory with the path ``dest``. An existing one keeps its mode and owner.

    ``mtime``: as in :class:`InlineFile`.
    """

    dest: str
    mode: str | int = 0o755
    owner: str = "root"
    mtime: int | None = None


@dataclass(frozen=True, slots=True)
class RunScript(OverlayItem):
    """A script that runs inside the root file system, as the items before it leave it; its changes are the addition.

    - ``script``: its path on this machine; it is executed where it begins with ``#!``, and read by ``/bin/sh`` else.
    - ``command``: a text for ``/bin/sh`` in place of a script.
    - ``files``: a folder or file of this machine that the script finds at ``/run/cosremaster``.
    - ``environment``: variables beside those that every script gets.
    - ``network``: whether it may reach HTTP and HTTPS servers, through a proxy; ``network_allow``: servers on this
      machine, or at other ports, that it may reach too, as in ``"localhost:3142"``.
    - ``timeout``: seconds after which it is ended; None for no limit.
    - ``directory``: a folder of this machine that holds the file system meanwhile; None: memory does.
    - ``ids``: how owners are kept: ``"auto"``, ``"subuid"`` or ``"single"``; ``run_in``: ``"namespace"`` or ``"vm"``.
    - ``clean``: leave out what builds are known to leave behind, such as caches of package managers.
    - ``reuse``: take the changes of an earlier run of the same script in the same file system, and keep them for later.
    - ``is_shell``: a shell on the user's terminal, in place of a script.

    docs/run.md tells what a script can do.

    >>> RunScript(command="systemctl enable site.service").network
    False
    """

    script: str | os.PathLike[str] | None = None
    command: str | None = None
    files: str | os.PathLike[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    network_allow: tuple[str, ...] = ()
    timeout: float | None = None
    ids: str = "auto"
    run_in: str = "namespace"
    clean: bool = False
    reuse: bool = False
    directory: str | os.PathLike[str] | None = None
    is_shell: bool = False

    @classmethod
    def parse(cls, text: str) -> RunScript:
        """Read what ``--run`` takes: a file's path, or else a command.

        :raises UsageError: it is empty, or looks like a file that is not there.
        """
        if os.path.isfile(text):
            return cls(text)
        if text.strip() in ("", "-"):
            raise UsageError(f"--run {text!r}: what should be run?")
        is_word = re.fullmatch(r"\S+", text) is not None
        if is_word and (text.startswith(("./", "../", "~/")) or text.endswith((".sh", ".py", ".pl"))):
            meant = suggest_file(text)
            raise UsageError(
                f"--run {text}: there is no file of that name, and as a command it would not be found{meant}"
            )
        return cls(command=text)

    @property
    def name(self) -> str:
        """What messages call it: the script's file name, or the beginning of the command."""
        if self.is_shell:
            return "shell"
        if self.script is not None:
            return os.path.basename(os.fspath(self.script))
        line, *more = (self.command or "").strip().splitlines() or [""]
        return line if len(line) <= MAX_NAME and not more else line[: MAX_NAME - 3].rstrip() + "..."


ID_CHOICES = ("auto", "subuid", "single")
RUN_PLACES = ("namespace", "vm")
"""How owners may be kept, and where a script may run."""

MAX_NAME = 60
"""Characters of a command that name it in messages."""


def host_paths(items: Iterable[OverlayItem]) -> tuple[Path, ...]:
    """Return the files and folders of this machine that ``items`` are read from."""
    items = list(items)
    paths = [item for item in items if isinstance(item, AddPath)]
    named = [item.source for item in paths if os.fsencode(item.source) != STANDARD_INPUT]
    scripts = [path for item in items if isinstance(item, RunScript) for path in (item.script, item.files)]
    return tuple(Path(path) for path in (*named, *(item.mtree for item in paths), *scripts) if path is not None)


DEFAULT_MTIME = 315_532_800
"""1980-01-01, in seconds since 1970: the mtime of items without a file. Not the clock, so that outputs are the same;
every format can express it."""


def default_mtime(max_mtime: int | None) -> int:
    """Return the mtime of items without a file. ``max_mtime``: SOURCE_DATE_EPOCH where it is set."""
    return DEFAULT_MTIME if max_mtime is None else max_mtime


def parse_dest(dest: str | bytes, what: str) -> bytes:
    """Return the normal path of the absolute path ``dest``.

    :raises UsageError: it is not absolute, or holds ``..`` or a zero byte; the message begins with ``what``.
    """
    raw = os.fsencode(dest)
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if not raw.startswith(b"/") or b".." in parts or b"\0" in raw:
        raise UsageError(f"{what}: DEST must be an absolute path without ..")
    return b"/".join(parts)


def names_directory(dest: str) -> bool:
    """Return whether ``dest`` can be nothing but a directory, as it ends in a slash."""
    return dest.endswith(("/", "/."))
