"""mtree(5) files: owners, modes and nodes that the directory of an ordinary user cannot hold.

Specification: FreeBSD mtree(5), with what libarchive's mtree(5) adds (full paths, ``device=native,5,1``).
"""

from __future__ import annotations

import os
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence

from cosremaster.errors import OverlayError, Place, UsageError, printable
from cosremaster.lazy_regex import lazy_regex
from cosremaster.overlay.ownership import Mode
from cosremaster.overlay.request import default_mtime
from cosremaster.overlay.scan import clamp_mtime
from cosremaster.records import Struct, replace
from cosremaster.tree.limits import MAX_NUMBER
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import join, normal_name, parent_of

_TYPES = {
    b"file": NodeKind.FILE, b"dir": NodeKind.DIRECTORY, b"link": NodeKind.SYMLINK, b"char": NodeKind.CHAR,
    b"block": NodeKind.BLOCK, b"fifo": NodeKind.FIFO, b"socket": NodeKind.SOCKET,
}  # fmt: skip
_BACKSLASH = lazy_regex(rb"\\([0-7]{3}|M-.|M\^.|\^.|.|$)", re.DOTALL)
_LETTERS = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"s": b" ", b"t": b"\t", b"v": b"\v",
    b"0": b"\0", b"\\": b"\\", b"#": b"#",
}  # fmt: skip


class Spec(Struct, frozen=True):
    """The line of an mtree file for one path. None: the line does not set the value.

    ``line``: its number, from 1. ``optional``: the file may be missing. ``size``: bytes. ``mtime``: seconds since 1970.
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


class _MtreeLine(Struct, frozen=True):
    """A line of the mtree file ``place``: its number, from 1, and its words."""

    place: Place
    number: int
    words: list[bytes]

    def error(self, message: str) -> OverlayError:
        """Return an error about this line."""
        return OverlayError(f"line {self.number}: {message}", self.place)

    def keywords(self) -> dict[bytes, bytes]:
        """Return the values of the keywords after the first word."""
        return {key: value for key, _, value in (word.partition(b"=") for word in self.words[1:])}

    def unescape(self, text: bytes) -> bytes:
        """Return ``text`` with the escapes of vis(3) undone: three octal digits, ``M-`` and ``^``, or a C letter."""

        def replace_escape(match: re.Match[bytes]) -> bytes:
            """Return the byte that one escape stands for."""
            code = match[1]
            if len(code) > 1 and code[0] in b"M^":
                meta = 0x80 if code.startswith(b"M") else 0
                return bytes((meta | (code[-1] ^ 0x40 if b"^" in code[:-1] else code[-1] & 0x7F),))
            if len(code) == 3 and int(code, 8) < 256:
                return bytes((int(code, 8),))
            if code not in _LETTERS:
                raise self.error(f"{printable(match[0])} in {printable(text)} is no escape (three octal digits are)")
            return _LETTERS[code]

        return _BACKSLASH.sub(replace_escape, text)


def parse_mtree(text: bytes, place: Place) -> tuple[Spec, ...]:
    """Return what the mtree file ``place`` with the content ``text`` says about each path, in its order.

    :raises OverlayError: a line makes no sense.
    """
    specs: list[Spec] = []
    defaults: dict[bytes, bytes] = {}
    directory = b""  # of names without a slash
    for line in _split_lines(text, place):
        first = line.words[0]
        if first == b"/set":
            defaults |= line.keywords()
        elif first == b"/unset":
            for keyword in line.words[1:]:
                if keyword == b"all":
                    defaults.clear()
                defaults.pop(keyword, None)
        elif first.startswith(b"/"):
            raise line.error(f"{printable(first)} is neither /set nor /unset, and paths are relative")
        elif first == b"..":
            directory = parent_of(directory)
        else:
            name = line.unescape(first)
            path = normal_name(name) if b"/" in name else join(directory, normal_name(name))
            if b".." in path.split(b"/") or b"\0" in path:
                raise line.error(f"{printable(name)} is a name with .. or a zero byte")
            spec = _make_spec(line, path, defaults | line.keywords())
            if b"/" not in name and spec.kind is NodeKind.DIRECTORY:
                directory = path
            specs.append(spec)
    return tuple(specs)


def _split_lines(text: bytes, place: Place) -> Iterator[_MtreeLine]:
    """Yield each line with a word in it; a backslash at its end joins the next line, ``#`` begins a comment."""
    words: list[bytes] = []
    start = 0
    for number, raw in enumerate(text.removeprefix(BOM_UTF8).split(b"\n"), 1):
        if not words:
            start = number
            if raw.lstrip().startswith(b"#"):
                continue
        words += raw.removesuffix(b"\\").split()
        if words and not raw.endswith(b"\\"):
            yield _MtreeLine(place, start, words)
            words = []
    if words:
        yield _MtreeLine(place, start, words)


def _make_spec(line: _MtreeLine, path: bytes, values: Mapping[bytes, bytes]) -> Spec:
    """Return the entry for ``path`` with the keywords ``values``. :raises OverlayError: one makes no sense."""
    kind = None
    if b"type" in values:
        kind = _TYPES.get(values[b"type"])
        if kind is None:
            raise line.error(f"no type is called {printable(values[b'type'])}")
    optional = b"optional" in values
    if b"nochange" in values:
        return Spec(path, line.number, kind, optional=optional)
    try:
        mode = Mode(os.fsdecode(values[b"mode"])) if b"mode" in values else None
    except UsageError as error:
        raise line.error(error.message) from error
    return Spec(
        path, line.number, kind, mode,
        uid=_parse_owner(line, values, b"uid", b"uname"), gid=_parse_owner(line, values, b"gid", b"gname"),
        mtime=_parse_time(line, values), target=line.unescape(values[b"link"]) if b"link" in values else None,
        device=_parse_device(line, values[b"device"]) if b"device" in values else None,
        size=_parse_number(line, b"size", values[b"size"]) if b"size" in values else None, optional=optional,
    )  # fmt: skip


def _parse_number(line: _MtreeLine, key: bytes, text: bytes) -> int:
    """Return the number ``text`` of the keyword ``key``. :raises OverlayError: it is no number."""
    if not text.isdigit():
        raise line.error(f"{printable(key)}={printable(text)} is no number")
    return int(text)


def _parse_owner(line: _MtreeLine, values: Mapping[bytes, bytes], key: bytes, name_key: bytes) -> int | None:
    """Return the number of a user or group. Of names only those of root are known.

    :raises OverlayError: the number is too large, or the name is another one.
    """
    if key in values:
        number = _parse_number(line, key, values[key])
        if number > MAX_NUMBER:
            raise line.error(f"{printable(key)}={number} is too large")
        return number
    if name_key not in values:
        return None
    if values[name_key] in (b"root", b"wheel"):
        return 0
    raise line.error(
        f"{printable(name_key)}={printable(values[name_key])}: the image's numbers are not known; say {printable(key)}="
    )


def _parse_time(line: _MtreeLine, values: Mapping[bytes, bytes]) -> int | None:
    """Return the time in seconds since 1970; a fraction, which counts nanoseconds, is dropped."""
    if b"time" not in values:
        return None
    seconds = values[b"time"].partition(b".")[0]
    sign = -1 if seconds.startswith(b"-") else 1
    return _parse_number(line, b"time", seconds.removeprefix(b"-")) * sign


def _parse_device(line: _MtreeLine, text: bytes) -> tuple[int, int]:
    """Read ``[FORMAT,]MAJOR,MINOR``, or the combined number of this system."""
    parts = text.split(b",")
    if len(parts) == 3:
        parts = parts[1:]
    numbers = [int(part, 0) for part in parts if re.fullmatch(rb"0[xX][0-9a-fA-F]+|0|[1-9][0-9]*", part)]
    if len(numbers) != len(parts) or len(parts) > 2 or max(numbers) > MAX_NUMBER:
        raise line.error(f"device={printable(text)}: two numbers as in 5,1 or native,5,1 are wanted")
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (os.major(numbers[0]), os.minor(numbers[0]))


def apply_mtree(nodes: Sequence[Node], specs: Sequence[Spec], max_mtime: int | None, place: Place) -> tuple[Node, ...]:
    """Return ``nodes`` with the values of the mtree file ``place``, and the nodes that it adds, sorted by path.

    ``max_mtime``: no mtime is later, in seconds since 1970.

    :raises OverlayError: the file and the nodes contradict each other, or a file is missing.
    """
    nodes_by_path = {node.path: node for node in nodes}
    for spec in specs:
        node = nodes_by_path.get(spec.path)
        if not spec.path and node is None:
            continue
        if node is None:
            if spec.optional and spec.kind in (None, NodeKind.FILE):
                continue
            node = _make_node(spec, max_mtime, place)
        _check_agreement(spec, node, place)
        nodes_by_path[spec.path] = replace(
            node,
            mode=node.mode if spec.mode is None or node.kind is NodeKind.SYMLINK
            else spec.mode.apply(node.mode, directory=node.kind is NodeKind.DIRECTORY),
            uid=node.uid if spec.uid is None else spec.uid,
            gid=node.gid if spec.gid is None else spec.gid,
            mtime=node.mtime if spec.mtime is None else clamp_mtime(spec.mtime, max_mtime),
        )  # fmt: skip
    return tuple(nodes_by_path[path] for path in sorted(nodes_by_path))


def _make_node(spec: Spec, max_mtime: int | None, place: Place) -> Node:
    """Return a node of root for a path that the directory lacks. :raises OverlayError: ``spec`` does not define it."""
    subject = f"line {spec.line}: {printable(spec.path)}"
    if spec.kind in (None, NodeKind.FILE):
        raise OverlayError(f"{subject} is not in the directory", place)
    if spec.kind is NodeKind.SOCKET:
        raise OverlayError(f"{subject} cannot be added: it is a socket", place)
    if spec.kind is NodeKind.SYMLINK and not spec.target:
        raise OverlayError(f"{subject} is a symlink without link=", place)
    if spec.kind in (NodeKind.CHAR, NodeKind.BLOCK) and spec.device is None:
        raise OverlayError(f"{subject} is a device without device=", place)
    modes = {NodeKind.DIRECTORY: 0o755, NodeKind.SYMLINK: 0o777}
    return Node(
        path=spec.path, kind=spec.kind, mode=modes.get(spec.kind, 0o600), target=spec.target or b"",
        rdev=spec.device or (0, 0), mtime=clamp_mtime(default_mtime(max_mtime), None),
    )  # fmt: skip


def _check_agreement(spec: Spec, node: Node, place: Place) -> None:
    """Compare ``spec`` with the ``node`` of the directory. :raises OverlayError: they contradict each other."""
    subject = f"line {spec.line}: {printable(spec.path)}"
    if spec.kind is not None and spec.kind is not node.kind:
        raise OverlayError(f"{subject} is a {spec.kind.noun} here, but a {node.kind.noun} in the directory", place)
    if node.kind is NodeKind.SYMLINK and spec.target not in (None, node.target):
        raise OverlayError(f"{subject} leads to another target in the directory: {printable(node.target)}", place)
    if node.content is not None and spec.size not in (None, node.content.size):
        raise OverlayError(f"{subject} has {node.content.size:,} bytes in the directory, not {spec.size:,}", place)
