"""mtree(5) files: owners, modes and nodes that an ordinary user's directory cannot hold.

Specification: FreeBSD mtree(5), with what libarchive's mtree(5) adds (full paths, ``device=native,5,1``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from cosremaster.errors import OverlayError, Place, UsageError, printable
from cosremaster.overlay.ownership import Mode
from cosremaster.overlay.request import default_mtime
from cosremaster.overlay.scan import clamp_mtime
from cosremaster.tree.limits import MAX_NUMBER
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import join, normal_name, parent_of

_TYPES = {
    b"file": NodeKind.FILE, b"dir": NodeKind.DIRECTORY, b"link": NodeKind.SYMLINK, b"char": NodeKind.CHAR,
    b"block": NodeKind.BLOCK, b"fifo": NodeKind.FIFO, b"socket": NodeKind.SOCKET,
}  # fmt: skip
_BACKSLASH = re.compile(rb"\\([0-7]{3}|M-.|M\^.|\^.|.|$)", re.DOTALL)
_LETTERS = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"s": b" ", b"t": b"\t", b"v": b"\v",
    b"0": b"\0", b"\\": b"\\", b"#": b"#",
}  # fmt: skip


class Spec(Struct, frozen=True):
    """What an mtree file says of one path. ``line`` counts from 1; None: it does not say.

    ``optional``: it may be missing. ``size``: bytes.
    """

    path: bytes
    line: int
    kind: NodeKind | None = None
    mode: Mode | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: int | None = None
    target: bytes | None = None
    device: tuple[int, int] | None = None
    size: int | None = None
    optional: bool = False


class _Reader(Struct):
    """The state of reading: default keywords and the directory that relative names lie in."""

    place: Place
    defaults: dict[bytes, bytes] = field(default_factory=dict)
    folder: bytes = b""

    def wrong(self, line: int, message: str) -> OverlayError:
        return OverlayError(f"line {line}: {message}", self.place)


def parse_mtree(text: bytes, place: Place) -> tuple[Spec, ...]:
    """What the mtree file ``place`` with this text says of each path, in its order.

    :raises OverlayError: a line that makes no sense.
    """
    reader = _Reader(place)
    return tuple(spec for line, words in _lines(text) for spec in _read(reader, line, words))


def _lines(text: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """The words of each line that says something, with its number; a backslash at its end joins the next."""
    words: list[bytes] = []
    start = 0
    for number, line in enumerate(text.split(b"\n"), 1):
        more = line.endswith(b"\\")
        if not words:
            start = number
            if line.lstrip().startswith(b"#"):
                continue
        words += line.removesuffix(b"\\").split()
        if words and not more:
            yield start, words
            words = []
    if words:
        yield start, words


def _read(reader: _Reader, line: int, words: list[bytes]) -> Iterator[Spec]:
    """One line."""
    first, rest = words[0], words[1:]
    if first == b"/set":
        reader.defaults |= _keywords(rest)
    elif first == b"/unset":
        for word in rest:
            if word == b"all":
                reader.defaults.clear()
            reader.defaults.pop(word, None)
    elif first.startswith(b"/"):
        raise reader.wrong(line, f"{printable(first)} is neither /set nor /unset, and paths are relative")
    elif first == b"..":
        reader.folder = parent_of(reader.folder)
    else:
        name = _plain(reader, line, first)
        path = normal_name(name) if b"/" in name else join(reader.folder, normal_name(name))
        if b".." in path.split(b"/") or b"\0" in path:
            raise reader.wrong(line, f"{printable(name)} is a name with .. or a zero byte")
        spec = _spec(reader, line, path, reader.defaults | _keywords(rest))
        if b"/" not in name and spec.kind is NodeKind.DIRECTORY:
            reader.folder = path
        yield spec


def _keywords(words: Sequence[bytes]) -> dict[bytes, bytes]:
    return {key: value for key, _, value in (word.partition(b"=") for word in words)}


def _plain(reader: _Reader, line: int, text: bytes) -> bytes:
    """``text`` with the escapes of vis(3) undone: three octal digits, ``M-`` and ``^``, or a letter as in C."""

    def undone(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if len(code) > 1 and code[0] in b"M^":
            meta = 0x80 if code.startswith(b"M") else 0
            return bytes((meta | (code[-1] ^ 0x40 if b"^" in code[:-1] else code[-1] & 0x7F),))
        if len(code) == 3 and int(code, 8) < 256:
            return bytes((int(code, 8),))
        if code not in _LETTERS:
            raise reader.wrong(
                line, f"{printable(match[0])} in {printable(text)} is no escape (three octal digits are)"
            )
        return _LETTERS[code]

    return _BACKSLASH.sub(undone, text)


def _spec(reader: _Reader, line: int, path: bytes, said: Mapping[bytes, bytes]) -> Spec:
    """What the keywords ``said`` come to."""
    kind = None
    if b"type" in said:
        kind = _TYPES.get(said[b"type"])
        if kind is None:
            raise reader.wrong(line, f"no type is called {printable(said[b'type'])}")
    optional = b"optional" in said
    if b"nochange" in said:
        return Spec(path, line, kind, optional=optional)
    try:
        mode = Mode(os.fsdecode(said[b"mode"])) if b"mode" in said else None
    except UsageError as error:
        raise reader.wrong(line, error.message) from error
    return Spec(
        path, line, kind, mode,
        uid=_owner(reader, line, said, b"uid", b"uname"), gid=_owner(reader, line, said, b"gid", b"gname"),
        mtime=_time(reader, line, said), target=_plain(reader, line, said[b"link"]) if b"link" in said else None,
        device=_device(reader, line, said[b"device"]) if b"device" in said else None,
        size=_number(reader, line, b"size", said[b"size"]) if b"size" in said else None, optional=optional,
    )  # fmt: skip


def _number(reader: _Reader, line: int, key: bytes, text: bytes) -> int:
    if not text.isdigit():
        raise reader.wrong(line, f"{printable(key)}={printable(text)} is no number")
    return int(text)


def _owner(reader: _Reader, line: int, said: Mapping[bytes, bytes], key: bytes, name: bytes) -> int | None:
    """The number of an owner; of names only root's is known."""
    if key in said:
        number = _number(reader, line, key, said[key])
        if number > MAX_NUMBER:
            raise reader.wrong(line, f"{printable(key)}={number} is too large")
        return number
    if name not in said:
        return None
    if said[name] in (b"root", b"wheel"):
        return 0
    raise reader.wrong(
        line, f"{printable(name)}={printable(said[name])}: the image's numbers are not known; say {printable(key)}="
    )


def _time(reader: _Reader, line: int, said: Mapping[bytes, bytes]) -> int | None:
    """Seconds; a fraction, which is nanoseconds, is left out."""
    if b"time" not in said:
        return None
    seconds = said[b"time"].partition(b".")[0]
    sign = seconds.startswith(b"-")
    return _number(reader, line, b"time", seconds.removeprefix(b"-")) * (-1 if sign else 1)


def _device(reader: _Reader, line: int, text: bytes) -> tuple[int, int]:
    """``[FORMAT,]MAJOR,MINOR``, or the number of this system."""
    parts = text.split(b",")
    if len(parts) == 3:
        parts = parts[1:]
    numbers = [int(part, 0) for part in parts if re.fullmatch(rb"0[xX][0-9a-fA-F]+|0|[1-9][0-9]*", part)]
    if len(numbers) != len(parts) or len(parts) > 2 or max(numbers) > MAX_NUMBER:
        raise reader.wrong(line, f"device={printable(text)}: two numbers as in 5,1 or native,5,1 are wanted")
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (os.major(numbers[0]), os.minor(numbers[0]))


def apply_mtree(nodes: Sequence[Node], specs: Sequence[Spec], newest: int | None, place: Place) -> tuple[Node, ...]:
    """``nodes`` as the mtree file ``place`` says they are, and those that only it knows, sorted by path.

    :raises OverlayError: the file and the nodes contradict each other, or a file is missing.
    """
    found = {node.path: node for node in nodes}
    for spec in specs:
        if not spec.path:
            continue
        node = found.get(spec.path)
        if node is None:
            if spec.optional and spec.kind in (None, NodeKind.FILE):
                continue
            node = _made(spec, newest, place)
        _agree(spec, node, place)
        found[spec.path] = replace(
            node,
            mode=node.mode if spec.mode is None or node.kind is NodeKind.SYMLINK
            else spec.mode.apply(node.mode, directory=node.kind is NodeKind.DIRECTORY),
            uid=node.uid if spec.uid is None else spec.uid,
            gid=node.gid if spec.gid is None else spec.gid,
            mtime=node.mtime if spec.mtime is None else clamp_mtime(spec.mtime, newest),
        )  # fmt: skip
    return tuple(found[path] for path in sorted(found))


def _made(spec: Spec, newest: int | None, place: Place) -> Node:
    """The node that ``spec`` alone makes, root's."""
    told = f"line {spec.line}: {printable(spec.path)}"
    if spec.kind in (None, NodeKind.FILE):
        raise OverlayError(f"{told} is not in the directory", place)
    if spec.kind is NodeKind.SOCKET:
        raise OverlayError(f"{told} cannot be added: it is a socket", place)
    if spec.kind is NodeKind.SYMLINK and not spec.target:
        raise OverlayError(f"{told} is a symlink without link=", place)
    if spec.kind in (NodeKind.CHAR, NodeKind.BLOCK) and spec.device is None:
        raise OverlayError(f"{told} is a device without device=", place)
    modes = {NodeKind.DIRECTORY: 0o755, NodeKind.SYMLINK: 0o777}
    return Node(
        path=spec.path, kind=spec.kind, mode=modes.get(spec.kind, 0o600), target=spec.target or b"",
        rdev=spec.device or (0, 0), mtime=clamp_mtime(default_mtime(newest), None),
    )  # fmt: skip


def _agree(spec: Spec, node: Node, place: Place) -> None:
    """:raises OverlayError: what stands in the directory is not what ``spec`` says."""
    told = f"line {spec.line}: {printable(spec.path)}"
    if spec.kind is not None and spec.kind is not node.kind:
        raise OverlayError(f"{told} is a {spec.kind.noun} here, but a {node.kind.noun} in the directory", place)
    if node.kind is NodeKind.SYMLINK and spec.target not in (None, node.target):
        raise OverlayError(f"{told} leads to another target in the directory: {printable(node.target)}", place)
    if node.content is not None and spec.size not in (None, node.content.size):
        raise OverlayError(f"{told} has {node.content.size:,} bytes in the directory, not {spec.size:,}", place)
