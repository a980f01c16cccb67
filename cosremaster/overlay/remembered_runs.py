"""What scripts changed, remembered for later runs of the same script in the same file system (``--reuse-runs``).

A file holds its CRC64, a line of JSON, and the contents of files. It is found by the SHA-256 of all that a script sees:
every node of the file system with the digest of its bytes, the script, its files, its variables and its options, how
owners are kept, and the kernel. It is believed as an index is (:mod:`cosremaster.layers.cache_folder`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from io import FileIO
from typing import Annotated, Any

from cosremaster import __about__
from cosremaster.crc import crc64_xz
from cosremaster.errors import CosremasterError
from cosremaster.io.pieces import PieceTable
from cosremaster.io.spool import Spool
from cosremaster.io.streams import CHUNK, sha256_of
from cosremaster.layers.cache_folder import MAX_RUN_BYTES, RUN_SUFFIX, open_remembered, write_index
from cosremaster.overlay.scan import scan_source
from cosremaster.records import NumberRange, Struct
from cosremaster.records.json import MismatchError, decode_json, encode_json
from cosremaster.sandbox.model import ScriptChanges, ScriptReport, ScriptRun, Way
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Content, Node, NodeKind

RUN_FORMAT = 1
_SUM_LINE = 17
"""Bytes of the first line: a CRC64 in hexadecimal digits, and its end."""

_Count = Annotated[int, NumberRange(ge=0, le=(1 << 63) - 1)]


class _NodeValues(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A node as values: paths, texts and attributes in hexadecimal digits; ``link``: a number that names share.

    ``size`` and ``sha256`` of a content, which stands among the others; that of further names is not written again.
    """

    path: str
    kind: _Count
    mode: _Count
    uid: _Count = 0
    gid: _Count = 0
    mtime: int = 0
    target: str = ""
    rdev: tuple[_Count, _Count] = (0, 0)
    xattrs: tuple[tuple[str, str], ...] = ()
    link: _Count | None = None
    size: _Count | None = None
    sha256: str = ""


class _RunValues(Struct, frozen=True, forbid_unknown_fields=True):
    """What a script changed, as values; ``key``: what the file is found by."""

    key: str
    nodes: tuple[_NodeValues, ...]
    removed: tuple[str, ...]
    report: ScriptReport


def sum_run(tree: Mapping[bytes, Node], run: ScriptRun, way: Way, kernel: PieceTable | tuple[str, ...]) -> str:
    """Return the SHA-256 of all that ``run`` sees in the file system ``tree``, in hexadecimal digits.

    Contents are read whose digests no index has. ``way``: how owners are kept. ``kernel``: that of the machine which
    boots for the run, or what this machine's says of itself.

    :raises OverlayError: the user's files cannot be read.
    """
    options = (
        RUN_FORMAT, __about__.__version__, way, run.program, run.name, run.environment, run.network,
        run.network_allow, run.ids, run.max_mtime,
        sha256_of(kernel.chunks()) if isinstance(kernel, PieceTable) else kernel,
    )  # fmt: skip
    total = hashlib.sha256(repr(options).encode())
    for facts in _list_facts(tree[path] for path in sorted(tree)):
        total.update(repr(facts).encode())
    if run.files is not None:
        scan = scan_source(os.fsencode(run.files), None)
        total.update(repr([scan.is_single_file, *_list_facts(scan.nodes)]).encode())
    return total.hexdigest()


def _list_facts(nodes: Any) -> Iterator[tuple[Any, ...]]:
    """Yield all that counts about each of ``nodes``, as plain values."""
    links: dict[object, int] = {}
    for node in nodes:
        link = None if node.link is None else links.setdefault(node.link, len(links))
        digest = None if node.content is None else node.content.digest()
        yield (
            node.path, int(node.kind), node.mode, node.uid, node.gid, node.mtime, node.target, node.rdev, node.xattrs,
            link, digest,
        )  # fmt: skip


def store_run(key: str, changes: ScriptChanges) -> None:
    """Remember ``changes`` as those of the run with the sum ``key``; where that cannot be done it harms nothing."""
    links: dict[object, int] = {}
    values, contents = [], list[Content]()
    for node in changes.nodes:
        is_further_name = node.link in links if node.link is not None else False
        link = None if node.link is None else links.setdefault(node.link, len(links))
        if node.content is not None and not is_further_name:
            contents.append(node.content)
        values.append(_dump_node(node, link))
    if sum(content.size for content in contents) > MAX_RUN_BYTES // 4:
        return
    removed = tuple(path.hex() for path in changes.removed)
    line = encode_json(_RunValues(key, tuple(values), removed, changes.report)) + b"\n"

    def chunks() -> Iterator[bytes]:
        """Yield the bytes behind the sum."""
        yield line
        for content in contents:
            yield from content.table().chunks()

    total = 0
    for chunk in chunks():
        total = crc64_xz(chunk, total)
    with suppress(OSError, CosremasterError):
        write_index(key + RUN_SUFFIX, _after(b"%016x\n" % total, chunks))


def _after(head: bytes, chunks: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    """Yield ``head`` and what ``chunks`` yields."""
    yield head
    yield from chunks()


def _dump_node(node: Node, link: int | None) -> _NodeValues:
    """Return ``node`` as values; ``link``: the number of its file."""
    content = node.content
    return _NodeValues(
        path=node.path.hex(), kind=int(node.kind), mode=node.mode, uid=node.uid, gid=node.gid, mtime=node.mtime,
        target=node.target.hex(), rdev=node.rdev,
        xattrs=tuple((name.hex(), value.hex()) for name, value in node.xattrs), link=link,
        size=None if content is None else content.size, sha256="" if content is None else content.digest().hex(),
    )  # fmt: skip


def find_run(key: str, spool: Spool) -> ScriptChanges | None:
    """Return what the run with the sum ``key`` changed, with its contents in ``spool``; None where nobody knows."""
    file = open_remembered(key + RUN_SUFFIX)
    if file is None:
        return None
    with file:
        try:
            return _read_run(file, key, spool)
        except (OSError, ValueError, MismatchError, LookupError):
            return None


def _read_run(file: FileIO, key: str, spool: Spool) -> ScriptChanges | None:
    """Return what ``file`` remembers of the run ``key``; None where it was damaged, or is of another run.

    :raises ValueError, LookupError, OSError: it was.
    """
    expected, total = file.read(_SUM_LINE), 0
    while chunk := file.read(CHUNK):
        total = crc64_xz(chunk, total)
    if expected != b"%016x\n" % total:
        return None
    file.seek(_SUM_LINE)
    with open(os.dup(file.fileno()), "rb") as reader:
        values = decode_json(reader.readline(), _RunValues)
        if values.key != key:
            return None
        loaded: dict[int, Content] = {}
        nodes = []
        for node in values.nodes:
            content = None if node.link is None else loaded.get(node.link)
            if content is None and node.size is not None:
                chunks = _read_chunks(reader.read, node.size)
                pieces = (spool.append(chunks, packed=False),) if node.size else ()
                content = PieceContent(pieces, bytes.fromhex(node.sha256))
                if node.link is not None:
                    loaded[node.link] = content
            nodes.append(_load_node(node, content))
        os.utime(file.fileno())
    return ScriptChanges(tuple(nodes), tuple(bytes.fromhex(path) for path in values.removed), values.report)


def _read_chunks(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes. :raises ValueError: there are less."""
    while size:
        chunk = read(min(size, CHUNK))
        if not chunk:
            raise ValueError("less bytes than there should be")
        yield chunk
        size -= len(chunk)


def _load_node(values: _NodeValues, content: Content | None) -> Node:
    """Return the node that :func:`_dump_node` made ``values`` of."""
    return Node(
        path=bytes.fromhex(values.path), kind=NodeKind(values.kind), mode=values.mode, uid=values.uid, gid=values.gid,
        mtime=values.mtime, target=bytes.fromhex(values.target), rdev=values.rdev, content=content, link=values.link,
        xattrs=tuple((bytes.fromhex(name), bytes.fromhex(value)) for name, value in values.xattrs),
    )  # fmt: skip
