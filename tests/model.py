"""What a root filesystem becomes, by the rules of the issue, and how real unpackers see it.

Shares no code with cosremaster: it is what the product is held against. A tree maps paths to inodes; names of
one hard-linked file map to the same one.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    """`--add FOLDER:DEST`."""

    tree: Tree
    dest: str


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


def described(tree: Tree, *, owners: bool | None = None) -> dict[bytes, Facts]:
    """All that can be compared: kind, mode, bytes, owner (only root can unpack owners), names linked to it."""
    owners = os.geteuid() == 0 if owners is None else owners
    names: dict[int, list[bytes]] = {}
    for path, inode in sorted(tree.items()):
        names.setdefault(id(inode), []).append(path)
    return {
        path: (
            inode.kind,
            0 if inode.kind == "l" else inode.mode,
            inode.data,
            inode.owner if owners else None,
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


def remastered(image: Tree, removals: Sequence[bytes], additions: Sequence[Folder | OneFile]) -> Tree:
    """`image` after all of it. Raises RefusedError where the rules forbid it."""
    tree = dict(image)
    for path in removals:
        _remove(tree, path)
    left = dict(tree)
    for addition in additions:
        if isinstance(addition, Folder):
            copies = {id(inode): replace(inode, owner=(0, 0)) for inode in addition.tree.values()}
            for path, inode in sorted(addition.tree.items()):
                _put(tree, _steps(addition.dest.encode()) + _steps(path), copies[id(inode)])
        else:
            _put_file(tree, addition)
    for path, inode in tree.items():
        if path in left and _same(left[path], inode):
            tree[path] = left[path]
    return tree


def _steps(path: bytes) -> list[bytes]:
    return [step for step in path.split(b"/") if step not in (b"", b".")]


def _put_file(tree: Tree, addition: OneFile) -> None:
    """Into DEST if that ends in a slash or is a directory in the image; otherwise DEST is its name."""
    steps = _steps(addition.dest.encode())
    into = addition.dest.endswith("/")
    if not into:
        try:
            _walk(dict(tree), [], steps, leave_missing=True)
            into = True
        except LoopError:
            raise
        except RefusedError:
            pass
    _put(tree, [*steps, addition.name] if into else steps, replace(addition.file, owner=(0, 0)))


def _put(tree: Tree, steps: Sequence[bytes], new: Inode) -> None:
    parent = _walk(tree, [], steps[:-1])
    path = b"/".join([*parent, steps[-1]])
    old = tree.get(path)
    if new.kind == "d":
        if old is None:
            tree[path] = new
        elif old.kind == "l":
            _walk(tree, parent, steps[-1:])
        elif old.kind != "d":
            raise RefusedError(f"directory over {old.kind} at {path!r}")
        return
    if old is not None and old.kind == "d" and any(name.startswith(path + b"/") for name in tree):
        raise RefusedError(f"file over a directory that is not empty at {path!r}")
    new.mode &= 0o777
    tree[path] = new


def _walk(
    tree: Tree, where: Sequence[bytes], steps: Sequence[bytes], depth: int = 0, *, leave_missing: bool = False
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
        inode = tree.get(path)
        if inode is None:
            if depth or leave_missing:
                raise RefusedError(f"{path!r} is not there")
            tree[path] = Inode("d", 0o755)
        elif inode.kind == "l":
            if depth > LOOP:
                raise LoopError(f"loop at {path!r}")
            start = [] if inode.data.startswith(b"/") else here
            here = _walk(tree, start, _steps(inode.data), depth + 1)
            continue
        elif inode.kind != "d":
            raise RefusedError(f"{path!r} is no directory")
        here.append(step)
    return here


def _remove(tree: Tree, path: bytes) -> None:
    """One path, its parents' symlinks followed, with everything below it."""
    steps = _steps(path)
    found = b"/".join([*_walk(tree, [], steps[:-1], leave_missing=True), steps[-1]])
    if found not in tree:
        raise RefusedError(f"{path!r} is not there")
    for name in [name for name in tree if name == found or name.startswith(found + b"/")]:
        del tree[name]


def _same(old: Inode, new: Inode) -> bool:
    """Type, permission bits, and bytes or link target."""
    if old.kind != new.kind or old.kind == "d":
        return False
    return old.data == new.data and (old.kind == "l" or old.mode & 0o777 == new.mode & 0o777)
