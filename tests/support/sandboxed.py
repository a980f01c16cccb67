"""Scripts run by :mod:`cosremaster.sandbox` as one kind of user or another, in a process that is kept for more.

``python sandboxed.py`` is that process: it takes pickled requests on standard input and answers on standard output.
"""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosremaster.errors import CosremasterError
from cosremaster.io.spool import Spool
from cosremaster.progress import SilentProgress
from cosremaster.sandbox.model import ScriptRun
from cosremaster.sandbox.session import run_script
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node, NodeKind

Entry = tuple[Any, ...]
"""Kind, mode, user, group, text of a symlink, numbers of a device, bytes, extended attributes."""

USER, SUB_IDS = 12345, 200_000
"""An ordinary user with the name ``tester``, and where that user's range of ids begins, where there is one."""


@dataclass
class ScriptResult:
    """What came of a script: an error's class and text, or what it changed; and the lines that it printed."""

    error: str = ""
    message: str = ""
    exit_status: int | None = None
    nodes: dict[bytes, Entry] = field(default_factory=dict)
    mtimes: dict[bytes, int] = field(default_factory=dict)
    links: dict[bytes, object] = field(default_factory=dict)
    removed: tuple[bytes, ...] = ()
    report: Any = None
    lines: list[str] = field(default_factory=list)

    def check(self) -> ScriptResult:
        """The result itself, of a script that ended well."""
        assert not self.error and self.report.exit_code == 0, (self.error, self.message, self.lines)
        return self


def entry_of(node: Node, content: bytes | None = None) -> Entry:
    """What a test compares of ``node``."""
    data = content if content is not None else node.content.table().read() if node.content is not None else b""
    mode = 0o777 if node.kind is NodeKind.SYMLINK else node.mode
    return (node.kind, mode, node.uid, node.gid, node.target, node.rdev, data, node.xattrs)


def read_tree(root: str | Path) -> dict[bytes, Node]:
    """The tree below ``root`` as nodes; contents are in memory."""
    tree: dict[bytes, Node] = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            kind = NodeKind(stat.S_IFMT(status.st_mode))
            names = os.listxattr(path, follow_symlinks=False)
            tree[path[len(top) + 1 :]] = Node(
                path=path[len(top) + 1 :],
                kind=kind,
                mode=0o777 if kind is NodeKind.SYMLINK else stat.S_IMODE(status.st_mode),
                uid=status.st_uid,
                gid=status.st_gid,
                mtime=status.st_mtime_ns // 1_000_000_000,
                target=os.readlink(path) if kind is NodeKind.SYMLINK else b"",
                rdev=(os.major(status.st_rdev), os.minor(status.st_rdev)),
                content=BytesContent(Path(os.fsdecode(path)).read_bytes()) if kind is NodeKind.FILE else None,
                link=status.st_ino if kind is not NodeKind.DIRECTORY and status.st_nlink > 1 else None,
                xattrs=tuple(sorted((os.fsencode(n), os.getxattr(path, n, follow_symlinks=False)) for n in names)),
            )
    return tree


def busybox_tree(**more: Node) -> dict[bytes, Node]:
    """A root of busybox alone; ``more`` are nodes by any key."""
    applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, check=True).stdout.split()
    nodes = [
        *(Node(path=path, kind=NodeKind.DIRECTORY, mode=0o755, mtime=1) for path in (b"bin", b"etc", b"root", b"srv")),
        *(Node(path=path, kind=NodeKind.DIRECTORY, mode=0o755, mtime=1) for path in (b"dev", b"proc", b"run", b"sys")),
        Node(path=b"tmp", kind=NodeKind.DIRECTORY, mode=0o1777, mtime=1),
        Node(path=b"bin/busybox", kind=NodeKind.FILE, mode=0o755, mtime=1, content=_busybox()),
        *(symlink_node(b"bin/" + name, b"busybox") for name in applets if name != b"busybox"),
        file_node(b"etc/passwd", b"root:x:0:0::/root:/bin/sh\nwww:x:33:33::/:/bin/sh\n"),
        file_node(b"etc/group", b"root:x:0:\nwww:x:33:\n"),
        *more.values(),
    ]
    return {node.path: node for node in nodes}


def file_node(path: bytes, data: bytes, mode: int = 0o644, **fields: Any) -> Node:
    """A file that root owns, with ``data``."""
    return Node(path=path, kind=NodeKind.FILE, mode=mode, mtime=1, content=BytesContent(data), **fields)


def symlink_node(path: bytes, target: bytes) -> Node:
    """A symlink."""
    return Node(path=path, kind=NodeKind.SYMLINK, mode=0o777, mtime=1, target=target)


def _busybox() -> BytesContent:
    return BytesContent(Path("/bin/busybox").read_bytes())


def run_here(tree: Mapping[bytes, Node], script: str | bytes, **options: Any) -> ScriptResult:
    """Runs ``script`` in ``tree`` as the user that this process is; ``options`` are those of :class:`ScriptRun`."""
    result = ScriptResult()
    program = script if isinstance(script, bytes) else script.encode()
    run = ScriptRun(**{"name": "script", "program": program, **options})
    with Spool(Path(tempfile.gettempdir())) as spool:
        try:
            changes = run_script(tree, run, spool, SilentProgress(), result.lines.append)
        except CosremasterError as error:
            result.error, result.message = type(error).__name__, error.message
            result.exit_status = getattr(error, "exit_status", None)
            return result
        result.nodes = {node.path: entry_of(node) for node in changes.nodes}
        result.mtimes = {node.path: node.mtime for node in changes.nodes}
        result.links = {node.path: node.link for node in changes.nodes if node.link is not None}
        result.removed, result.report = changes.removed, changes.report
    return result


class Runner:
    """A process of another user that runs scripts."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Uses ``process``."""
        self.process = process
        self._sent: list[Mapping[bytes, Node]] = []

    def run(self, tree: Mapping[bytes, Node], script: str | bytes, **options: Any) -> ScriptResult:
        """Runs ``script``; a tree is sent only once."""
        number = next((i for i, sent in enumerate(self._sent) if sent is tree), -1)
        if number < 0:
            self._sent.append(tree)
        self.send((tree if number < 0 else number, script, options))
        return self.receive()

    def send(self, request: object) -> None:
        """Sends a request alone."""
        assert self.process.stdin is not None
        pickle.dump(request, self.process.stdin)
        self.process.stdin.flush()

    def receive(self) -> ScriptResult:
        """The answer to the last request."""
        assert self.process.stdout is not None
        answer = pickle.load(self.process.stdout)
        assert isinstance(answer, ScriptResult), answer
        return answer


_WRAPPER = """
mount --make-rprivate / && mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/subuid" /etc/subuid &&
mount --bind "$1/subgid" /etc/subgid && { eval "$2"; } && umask "$3" && cd "$4" && shift 4 && exec "$@"
"""


@contextmanager
def open_runner(
    python: Path,
    folder: Path,
    *,
    has_range: bool,
    setup: str = "true",
    umask: str = "022",
    before: tuple[str, ...] = (),
    root: Path | None = None,
) -> Iterator[Runner]:
    """A process of an ordinary user with ``python``, which has the program installed.

    ``folder``: one that everybody may look into. ``has_range``: /etc/subuid and /etc/subgid give the user ids.
    ``setup``: a command of root in the process's own mount namespace; ``before``: programs that start it.
    ``root``: a chroot that it runs in.
    """
    from tests.fixtures.tools import leave_out  # noqa: PLC0415 - the process runs a copy of this file alone

    if os.geteuid() != 0:
        leave_out("This test becomes another user with a range of ids or without one, for which it needs root.")
    accounts = folder / ("with-range" if has_range else "without-range")
    accounts.mkdir(exist_ok=True)
    (accounts / "passwd").write_text(Path("/etc/passwd").read_text() + f"tester:x:{USER}:{USER}::/nowhere:/bin/sh\n")
    for name in ("subuid", "subgid"):
        (accounts / name).write_text(f"tester:{SUB_IDS}:65536\n" if has_range else "")
        Path("/etc", name).touch()
    driver = accounts / "sandboxed.py"
    driver.write_bytes(Path(__file__).read_bytes())
    drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *before]
    if root is not None:
        drop = ["chroot", str(root), *drop]
    start = ["unshare", "--mount", "sh", "-ec", _WRAPPER, "sh", accounts, setup, umask, "/"]
    command = [str(argument) for argument in (*start, *drop, python, "-I", driver)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as process:
        try:
            yield Runner(process)
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            process.kill()


def main() -> None:
    """Answers requests until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    trees: list[Mapping[bytes, Node]] = []
    while True:
        try:
            tree, script, options = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if isinstance(tree, int):
            tree = trees[tree]
        else:
            trees.append(tree)
        pickle.dump(run_here(tree, script, **options), answers)
        answers.flush()


if __name__ == "__main__":
    # What was pickled here has the name of this module as others import it.
    for name in ("tests", "tests.support"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["tests.support.sandboxed"] = sys.modules["__main__"]
    ScriptResult.__module__ = "tests.support.sandboxed"
    main()
