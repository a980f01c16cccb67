"""A session that runs no script: lines of a few words say what it would have changed. For tests without namespaces.

``write PATH TEXT``, ``chmod MODE PATH``, ``chown UID PATH``, ``rm PATH``, ``mkdir PATH``, ``link OLD NEW``,
``symlink TARGET PATH``, ``unlink-time PATH``, ``touch PATH``, ``print TEXT``, ``exit CODE``, ``need PATH``.
"""

from collections.abc import Callable, Mapping
from itertools import count

from cosremaster.errors import SandboxError
from cosremaster.io.spool import Spool
from cosremaster.progress import Progress
from cosremaster.records import replace
from cosremaster.sandbox.machine_boot import MachineBoot
from cosremaster.sandbox.model import ScriptChanges, ScriptReport, ScriptRun, Way
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Node, NodeKind

RUNS: list[ScriptRun] = []
"""What was run, in order."""

_links = count(1)


class _Session:
    """The tree while the lines are done."""

    def __init__(self, tree: Mapping[bytes, Node], spool: Spool) -> None:
        self.before = {path: tree[path] for path in tree}
        self.before.setdefault(b"", Node(path=b"", kind=NodeKind.DIRECTORY, mode=0o755))
        self.nodes = dict(self.before)
        self.spool = spool
        self.code = 0

    def write(self, path: bytes, text: str) -> None:
        data = text.encode() + b"\n"
        content = PieceContent((self.spool.append([data], packed=False),))
        old = self.nodes.get(path)
        if old is not None and old.kind is NodeKind.FILE:
            for name, node in list(self.nodes.items()):
                if name == path or (old.link is not None and node.link == old.link):
                    self.nodes[name] = replace(node, content=content, mtime=1_900_000_000)
            return
        self.nodes[path] = Node(path=path, kind=NodeKind.FILE, mode=0o644, mtime=1_900_000_000, content=content)

    def remove(self, path: bytes) -> None:
        for name in [name for name in self.nodes if name == path or name.startswith(path + b"/")]:
            del self.nodes[name]

    def link(self, old: bytes, new: bytes) -> None:
        node = self.nodes[old]
        if node.link is None:
            node = self.nodes[old] = replace(node, link=("fake", next(_links)))
        self.nodes[new] = replace(node, path=new)

    def change(self, path: bytes, **values: int) -> None:
        old = self.nodes[path]
        for name, node in list(self.nodes.items()):
            if name == path or (old.link is not None and node.link == old.link):
                self.nodes[name] = replace(node, **values)

    def do(self, words: list[str], output: Callable[[str], None]) -> None:
        verb, *rest = words
        paths = [word.encode("utf-8", "surrogateescape").strip(b"/") for word in rest]
        match verb:
            case "write":
                self.write(paths[0], rest[1])
            case "chmod":
                self.change(paths[1], mode=int(rest[0], 8))
            case "chown":
                self.change(paths[1], uid=int(rest[0]))
            case "touch":
                self.change(paths[0], mtime=1_900_000_001)
            case "rm":
                self.remove(paths[0])
            case "mkdir":
                self.nodes[paths[0]] = Node(path=paths[0], kind=NodeKind.DIRECTORY, mode=0o755, mtime=1_900_000_000)
            case "link":
                self.link(paths[0], paths[1])
            case "symlink":
                self.nodes[paths[1]] = Node(
                    path=paths[1], kind=NodeKind.SYMLINK, mode=0o777, target=rest[0].encode(), mtime=1_900_000_000
                )
            case "print":
                output(" ".join(rest))
            case "need":
                self.code = self.code or int(paths[0] not in self.nodes)
            case "exit":
                self.code = int(rest[0])
            case _:
                raise AssertionError(words)


def run_script(
    tree: Mapping[bytes, Node], run: ScriptRun, spool: Spool, progress: Progress, output: Callable[[str], None]
) -> ScriptChanges:
    """Do the lines of the program and return what they changed, as a session does."""
    RUNS.append(run)
    session = _Session(tree, spool)
    for line in run.program.decode().splitlines():
        if line and not line.startswith("#"):
            session.do(line.split(" ", 2), output)
    before, after = session.before, session.nodes
    gone = {path for path in before if path not in after or after[path].kind is not before[path].kind}
    removed = sorted(path for path in gone if not any(path.startswith(other + b"/") for other in gone))
    links: dict[object, set[bytes]] = {}
    for nodes in (before, after):
        for path, node in nodes.items():
            if node.link is not None:
                links.setdefault(node.link, set()).add(path)
    changed = {path for path, node in after.items() if before.get(path) != node}
    relinked = {link for link, paths in links.items() if paths & (changed | gone)}
    changed_nodes = [after[path] for path in sorted(after) if path in changed or after[path].link in relinked]
    return ScriptChanges(
        tuple(changed_nodes), tuple(removed), ScriptReport(way="single", exit_code=session.code, seconds=0.25)
    )


def check_run(run: ScriptRun) -> Way:
    """Let everything run but ids that this machine would not have."""
    if run.ids == "subuid":
        raise SandboxError("no ids are left to map (--run-ids single needs none)")
    return "single"


def run_in_machine(
    tree: Mapping[bytes, Node], run: ScriptRun, spool: Spool, progress: Progress, output: Callable[[str], None],
    boot: MachineBoot,
) -> ScriptChanges:  # fmt: skip
    """Do what :func:`run_script` does; the file ``kernel`` gets the bytes that the machine would boot."""
    kernel = f"write /kernel {boot.kernel.read().hex()}\n".encode()
    return run_script(tree, replace(run, program=kernel + run.program), spool, progress, output)


def check_machine_run(_: ScriptRun) -> Way:
    """Let everything run."""
    return "vm"
