"""What a root filesystem becomes, by the rules of the issue, and how real unpackers see it.

Shares no code with cosremaster: it is what the product is held against. A tree maps paths to inodes; names of
one hard-linked file map to the same one.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from tests.fixtures import tools

LOOP = 40


@dataclass(eq=False, slots=True)
class Inode:
    """What a name stands for. `kind` is the first letter of `ls -l`; `data` a file's bytes or a link's text."""

    kind: str
    mode: int = 0o755
    data: bytes = b""
    owner: tuple[int, int] = (0, 0)


Tree: TypeAlias = dict[bytes, Inode]
Facts: TypeAlias = tuple[str, int, bytes, tuple[int, int] | None, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class Folder:
    """`--add FOLDER:DEST`, or with `packed` `--add FOLDER.tar:DEST`; `owner`: `--owner`.

    Names that begin with `.wh.` are whiteouts. `backwards`: the archive names directories after what is in them.
    """

    tree: Tree
    dest: str
    packed: bool = False
    owner: tuple[int, int] | None = None
    backwards: bool = False


@dataclass(frozen=True, slots=True)
class OneFile:
    """`--add FILE:DEST`."""

    name: bytes
    file: Inode
    dest: str


class RefusedError(Exception):
    """By the rules, this cannot be laid over that."""


class LoopError(RefusedError):
    """Symlinks that lead to themselves are refused wherever one has to be followed."""


def described(tree: Tree, *, owners: bool | None = None, links: bool = True) -> dict[bytes, Facts]:
    """All that can be compared: kind, mode, bytes, owner (only root can unpack owners), names linked to it.

    Without `links` not the owners of symlinks, which busybox leaves to whoever runs it.
    """
    owners = os.geteuid() == 0 if owners is None else owners
    names: dict[int, list[bytes]] = {}
    for path, inode in sorted(tree.items()):
        names.setdefault(id(inode), []).append(path)
    return {
        path: (
            inode.kind,
            0 if inode.kind == "l" else inode.mode,
            inode.data,
            inode.owner if owners and (links or inode.kind != "l") else None,
            tuple(names[id(inode)]),
        )
        for path, inode in tree.items()
    }


def read_tree(folder: Path) -> Tree:
    """What stands in a folder, by lstat and reading."""
    tree: Tree = {}
    known: dict[int, Inode] = {}
    root = os.fsencode(folder)
    for top, directories, files in os.walk(root):
        for name in (*directories, *files):
            full = os.path.join(top, name)
            status = os.lstat(full)
            kind = stat.filemode(status.st_mode)[0]
            data = os.readlink(full) if kind == "l" else Path(os.fsdecode(full)).read_bytes() if kind == "-" else b""
            inode = Inode(kind, stat.S_IMODE(status.st_mode), data, (status.st_uid, status.st_gid))
            shared = known.setdefault(status.st_ino, inode) if status.st_nlink > 1 and kind == "-" else inode
            tree[os.path.relpath(full, root)] = shared
    return tree


def write_tree(folder: Path, tree: Tree) -> None:
    """Makes `tree` in an existing folder; owners are left to whoever runs this."""
    made: dict[int, bytes] = {}
    root = os.fsencode(folder)
    for path, inode in sorted(tree.items()):
        full = os.path.join(root, path)
        if inode.kind == "d":
            os.mkdir(full, 0o700)
        elif inode.kind == "l":
            os.symlink(inode.data, full)
        elif inode.kind == "p":
            os.mkfifo(full)
        elif id(inode) in made:
            os.link(made[id(inode)], full)
        else:
            Path(os.fsdecode(full)).write_bytes(inode.data)
            made[id(inode)] = full
    for path, inode in sorted(tree.items(), reverse=True):
        if inode.kind != "l":
            os.chmod(os.path.join(root, path), inode.mode)


def by_busybox(archive: bytes, folder: Path) -> Tree:
    """The archive unpacked as debirf's /init does it: no -d, no -u, an empty folder."""
    folder.mkdir()
    tools.run(["busybox", "cpio", "-i"], cwd=folder, stdin=archive)
    return read_tree(folder)


def by_gnu(archive: bytes, folder: Path) -> Tree:
    """The archive unpacked by GNU cpio as the hand-made way does it."""
    folder.mkdir()
    tools.run(["cpio", "-idm", "--quiet", "--no-absolute-filenames"], cwd=folder, stdin=archive)
    return read_tree(folder)


def remastered(
    image: Tree,
    removals: Sequence[bytes],
    additions: Sequence[Folder | OneFile],
    *,
    allow_missing: bool = False,
    force: bool = False,
) -> Tree:
    """`image` after all of it. Raises RefusedError where the rules forbid it."""
    work = _Work(dict(image), force)
    for pattern in removals:
        _remove(work.tree, pattern, allow_missing=allow_missing)
    for addition in additions:
        if isinstance(addition, Folder):
            _lay(work, addition)
        else:
            _put_file(work, addition)
    kept: set[bytes] = set()
    for path, inode in sorted(work.tree.items()):
        parent = path.rpartition(b"/")[0]
        if path in image and (not parent or parent in kept) and _same(image[path], inode):
            work.tree[path] = image[path]
            kept.add(path)
    return work.tree


@dataclass(slots=True)
class _Work:
    """A tree being changed; `made`: directories that nobody brought, made for what is below them."""

    tree: Tree
    force: bool
    made: set[bytes] = field(default_factory=set)

    def take(self, path: bytes) -> None:
        """The path leaves, with everything below it."""
        for name in [name for name in self.tree if name == path or name.startswith(path + b"/")]:
            del self.tree[name]


def _lay(work: _Work, folder: Folder) -> None:
    """Whiteouts first, against what lay there before, then the rest in its order."""
    leaving: list[bytes] = []
    dest = _steps(folder.dest.encode())
    for path in folder.tree:
        *above, name = _steps(path)
        if not name.startswith(b".wh."):
            continue
        try:
            where = _walk(_Work(work.tree, False), [], [*dest, *above], leave_missing=True)
        except LoopError:
            raise
        except RefusedError:
            continue
        if name == b".wh..wh..opq":
            start = b"".join(step + b"/" for step in where)
            leaving += [one for one in work.tree if one.startswith(start) and one != start]
        else:
            leaving.append(b"/".join([*where, name.removeprefix(b".wh.")]))
    for path in leaving:
        work.take(path)
    copies = {id(inode): replace(inode, owner=_owner(folder, inode)) for inode in folder.tree.values()}
    for path, inode in ordered(folder):
        if not path.rpartition(b"/")[2].startswith(b".wh."):
            new = copies[id(inode)]
            if new.kind != "d" and not (folder.packed and folder.owner is None):
                new.mode &= 0o777  # what somebody packed with its owners has set-user-ID bits on purpose
            _put(work, dest + _steps(path), new)


def ordered(folder: Folder) -> list[tuple[bytes, Inode]]:
    """The names in the order in which they come."""
    return sorted(folder.tree.items(), reverse=folder.packed and folder.backwards)


def _owner(folder: Folder, inode: Inode) -> tuple[int, int]:
    if folder.owner is not None:
        return folder.owner
    return inode.owner if folder.packed else (0, 0)


def _steps(path: bytes) -> list[bytes]:
    return [step for step in path.split(b"/") if step not in (b"", b".")]


def _put_file(work: _Work, addition: OneFile) -> None:
    """Into DEST if that ends in a slash or is a directory in the image; otherwise DEST is its name."""
    steps = _steps(addition.dest.encode())
    into = addition.dest.endswith("/")
    if not into:
        try:
            _walk(_Work(dict(work.tree), False), [], steps, leave_missing=True)
            into = True
        except LoopError:
            raise
        except RefusedError:
            pass
    file = replace(addition.file, owner=(0, 0), mode=addition.file.mode & 0o777)
    _put(work, [*steps, addition.name] if into else steps, file)


def _put(work: _Work, steps: Sequence[bytes], new: Inode) -> None:
    tree = work.tree
    parent = _walk(work, [], steps[:-1])
    path = b"/".join([*parent, steps[-1]])
    old = tree.get(path)
    if new.kind == "d":
        if old is not None and old.kind == "l":
            _walk(work, parent, steps[-1:])
        elif old is None or path in work.made:
            tree[path] = new
            work.made.discard(path)
        elif old.kind != "d":
            _clash(work, path, f"directory over {old.kind}")
            tree[path] = new
        return
    if old is not None and old.kind == "d" and any(name.startswith(path + b"/") for name in tree):
        _clash(work, path, "file over a directory that is not empty")
    tree[path] = new
    work.made.discard(path)


def _clash(work: _Work, path: bytes, what: str) -> None:
    if not work.force:
        raise RefusedError(f"{what} at {path!r}")
    work.take(path)


def _walk(
    work: _Work, where: Sequence[bytes], steps: Sequence[bytes], depth: int = 0, *, leave_missing: bool = False
) -> list[bytes]:
    """The directory that `steps` from the directory `where` lead to, every symlink followed as in a chroot.

    What is missing is made, unless it is `leave_missing` or the text of a symlink (`depth` above 0) asks for it.
    """
    here = list(where)
    for step in steps:
        if step == b"..":
            here = here[:-1]
            continue
        path = b"/".join([*here, step])
        inode = work.tree.get(path)
        if inode is None:
            if depth or leave_missing:
                raise RefusedError(f"{path!r} is not there")
            work.tree[path] = Inode("d", 0o755)
            work.made.add(path)
        elif inode.kind == "l":
            if depth > LOOP:
                raise LoopError(f"loop at {path!r}")
            start = [] if inode.data.startswith(b"/") else here
            here = _walk(work, start, _steps(inode.data), depth + 1, leave_missing=leave_missing)
            continue
        elif inode.kind != "d":
            if not work.force or leave_missing:
                raise RefusedError(f"{path!r} is no directory")
            work.take(path)
            work.tree[path] = Inode("d", 0o755)
            work.made.add(path)
        here.append(step)
    return here


def _remove(tree: Tree, pattern: bytes, *, allow_missing: bool) -> None:
    """What fits the pattern, with everything below it; symlinks before the first wildcard are followed."""
    steps = _steps(pattern)
    wild = [number for number, step in enumerate(steps) if b"*" in step]
    fixed = wild[0] if wild else len(steps) - 1
    found: list[bytes] = []
    try:
        where = _walk(_Work(tree, False), [], steps[:fixed], leave_missing=True)
        rest = b"/".join(steps[fixed:])
        for name in tree:
            parts = _steps(name)
            if parts[: len(where)] == where and len(parts) > len(where):
                below = b"/".join(parts[len(where) :])
                if below == rest or (wild and _fits(rest, below)):
                    found.append(name)
    except LoopError:
        raise
    except RefusedError:
        pass
    if not found and not allow_missing:
        raise RefusedError(f"nothing fits {pattern!r}")
    for path in found:
        _Work(tree, False).take(path)


def _fits(pattern: bytes, path: bytes) -> bool:
    """`*` stands for anything without a slash, `**` for anything, `**/` for nothing too."""
    if not pattern:
        return not path
    if pattern.startswith(b"**/"):
        return _fits(pattern[3:], path) or any(
            _fits(pattern[3:], path[at + 1 :]) for at in range(len(path)) if path[at : at + 1] == b"/"
        )
    if pattern.startswith(b"**"):
        return any(_fits(pattern[2:], path[at:]) for at in range(len(path) + 1))
    if pattern.startswith(b"*"):
        return any(_fits(pattern[1:], path[at:]) for at in range(len(path) + 1) if b"/" not in path[:at])
    return path[:1] == pattern[:1] and _fits(pattern[1:], path[1:])


def _same(old: Inode, new: Inode) -> bool:
    """Type, owner, permission bits, and bytes or link target."""
    if old is new:
        return True
    if old.kind != new.kind or old.owner != new.owner or old.data != new.data:
        return False
    return old.kind == "l" or old.mode & (0o777 | new.mode) == new.mode
