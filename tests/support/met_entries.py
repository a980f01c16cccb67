"""Archives whose entries meet each other, and what the kernel makes of them.

Each case is a row of archives in a folder of its own, so that one machine boots all of them. `EXPECTED` is what that
machine said (tests/boot/test_met_entries_boot.py): by path the kind, mode and owner, bytes, text or device numbers,
and the other names of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cosremaster.demo.image import DemoEntry, build_archive, directory, regular, symlink
from cosremaster.records import replace
from cosremaster.tree.nodes import NodeKind


@dataclass(frozen=True)
class Case:
    """A row of archives; `are_ended`: each has its trailer."""

    archives: Sequence[Sequence[DemoEntry]]
    expected: Mapping[str, str]
    are_ended: bool = True


def linked(path: bytes, data: bytes = b"", ino: int = 77, mode: int = 0o644, dev: int = 0) -> DemoEntry:
    return DemoEntry(path, NodeKind.FILE | mode, data, nlink=2, ino=ino, dev=dev)


def device(path: bytes, minor: int, uid: int = 0) -> DemoEntry:
    return DemoEntry(path, NodeKind.CHAR | 0o600, rdev=(1, minor), uid=uid)


PAIR = (linked(b"a"), linked(b"b", b"old"))
CASES: Mapping[str, Case] = {
    "first-name": Case(
        [PAIR, [regular(b"a", b"new", 0o600, 5, 6)]], {"a": "- 600 5:6 new a=b", "b": "- 600 5:6 new a=b"}
    ),
    "second-name": Case([PAIR, [regular(b"b", b"")]], {"a": "- 644 0:0  a=b", "b": "- 644 0:0  a=b"}),
    "same-archive": Case([[*PAIR, regular(b"a", b"new")]], {"a": "- 644 0:0 new a=b", "b": "- 644 0:0 new a=b"}),
    "symlink-over-name": Case([PAIR, [symlink(b"a", b"x")]], {"a": "l 777 0:0 x", "b": "- 644 0:0 old"}),
    "device-over-name": Case([PAIR, [device(b"b", 3)]], {"a": "- 644 0:0 old", "b": "c 600 0:0 1,3"}),
    "group-over-name": Case(
        [PAIR, [linked(b"a", ino=78), linked(b"c", b"new", ino=78)]],
        {"a": "- 644 0:0 new a=b=c", "b": "- 644 0:0 new a=b=c", "c": "- 644 0:0 new a=b=c"},
    ),
    "group-over-second": Case(
        [PAIR, [linked(b"c", ino=78), linked(b"a", b"new", ino=78)]],
        {"a": "- 644 0:0 new a=c", "b": "- 644 0:0 old", "c": "- 644 0:0 new a=c"},
    ),
    "a-name-twice": Case([[linked(b"a"), linked(b"a", b"old"), linked(b"b", b"old")]], {}),
    "symlink-over-full-directory": Case(
        [[directory(b"d"), directory(b"u"), regular(b"d/x", b"1")], [symlink(b"d", b"u"), regular(b"d/y", b"2")]],
        {"d": "d 755 0:0 ", "d/x": "- 644 0:0 1", "d/y": "- 644 0:0 2", "u": "d 755 0:0 "},
    ),
    "symlink-over-empty-directory": Case(
        [[directory(b"d"), directory(b"u")], [symlink(b"d", b"u"), regular(b"d/y", b"2")]],
        {"d": "l 777 0:0 u", "u": "d 755 0:0 ", "u/y": "- 644 0:0 2"},
    ),
    "file-over-full-directory": Case(
        [[directory(b"d"), regular(b"d/x", b"1")], [regular(b"d", b"file"), regular(b"d/y", b"2")]],
        {"d": "d 755 0:0 ", "d/x": "- 644 0:0 1", "d/y": "- 644 0:0 2"},
    ),
    "directory-over-symlink": Case(
        [
            [directory(b"u"), symlink(b"d", b"u"), regular(b"d/x", b"1")],
            [directory(b"d", 0o700), regular(b"d/y", b"2")],
        ],
        {"d": "d 700 0:0 ", "d/y": "- 644 0:0 2", "u": "d 755 0:0 ", "u/x": "- 644 0:0 1"},
    ),
    "slash-over-symlink": Case(
        [[directory(b"u"), symlink(b"d", b"u")], [directory(b"d/", 0o700), regular(b"d/y", b"2")]],
        {"d": "l 777 0:0 u", "u": "d 700 0:0 ", "u/y": "- 644 0:0 2"},
    ),
    "file-with-slash": Case([[directory(b"u"), regular(b"u", b""), regular(b"f/", b"1")]], {"u": "- 644 0:0 "}),
    "directory-over-file": Case(
        [[regular(b"d", b"1")], [directory(b"d"), regular(b"d/x", b"2")]],
        {"d": "d 755 0:0 ", "d/x": "- 644 0:0 2"},
    ),
    "device-over-device": Case([[device(b"n", 3)], [device(b"n", 5, uid=7)]], {"n": "c 600 7:0 1,3"}),
    "device-over-file": Case([[regular(b"n", b"x"), device(b"n", 5)]], {"n": "c 600 0:0 1,5"}),
    "no-trailer": Case(
        [PAIR, [linked(b"c"), linked(b"d", b"new")]],
        dict.fromkeys("abcd", "- 644 0:0 new a=b=c=d"),
        are_ended=False,
    ),
    "other-device": Case(
        [[*PAIR, linked(b"c", b"new", dev=8), regular(b"c", b"newer")]],
        {"a": "- 644 0:0 old a=b", "b": "- 644 0:0 old a=b", "c": "- 644 0:0 newer"},
    ),
    "parents-in-names": Case(
        [
            [
                directory(b"d"),
                regular(b"d/../x", b"1"),
                regular(b"x", b"2"),
                regular(b"d/../../parents-in-names/y", b"3"),
            ]
        ],
        {"d": "d 755 0:0 ", "x": "- 644 0:0 2", "y": "- 644 0:0 3"},
    ),
}


def build_case(name: str, folder: bytes = b"") -> bytes:
    """The archives of a case in a row; with `folder` all paths are in that one, which the first archive makes."""
    case, row = CASES[name], []
    base = folder + b"/" + name.encode() if folder else name.encode()
    for number, items in enumerate(case.archives):
        inside = [directory(folder)] if folder and not number else []
        inside += [] if number else [directory(base)]
        archive = build_archive([*inside, *(_moved(item, base) for item in items)])
        is_last = number == len(case.archives) - 1
        row.append(archive if case.are_ended or is_last else archive[: archive.rindex(b"070701")] + bytes(8))
    return b"".join(row)


def _moved(item: DemoEntry, base: bytes) -> DemoEntry:
    return replace(item, path=base + b"/" + item.path)


def describe(facts: Iterable[tuple[str, str, int, tuple[int, int], str, object]]) -> dict[str, str]:
    """Lines as in `Case.expected`: of path, kind, mode, owner, content, and what names of one file have in common."""
    listed = sorted(facts)
    names: dict[object, list[str]] = {}
    for path, kind, _, _, _, key in listed:
        if kind == "-":
            names.setdefault(key, []).append(path)
    lines = {}
    for path, kind, mode, (uid, gid), content, key in listed:
        same = names.get(key, []) if kind == "-" else []
        others = " " + "=".join(same) if len(same) > 1 else ""
        lines[path] = f"{kind} {mode:o} {uid}:{gid} {content}{others}"
    return lines
