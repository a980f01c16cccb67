"""Headers of new entries, in the form of the archive: pax, GNU or ustar; and headers of old ones under other names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cosremaster.layers.tar import blocks, pax
from cosremaster.layers.tar.acl import encode_attribute
from cosremaster.layers.tar.blocks import BLOCK
from cosremaster.records import Struct, field
from cosremaster.tree.nodes import Node, NodeKind

_TYPES = {
    NodeKind.FIFO: blocks.FIFO, NodeKind.CHAR: blocks.CHAR, NodeKind.BLOCK: blocks.BLOCK_DEVICE,
    NodeKind.DIRECTORY: blocks.DIRECTORY, NodeKind.SYMLINK: blocks.SYMLINK, NodeKind.FILE: blocks.REGULAR,
}  # fmt: skip
_NAME, _PREFIX, _LINK_NAME, _OWNER_NAME = 100, 155, 100, 32
"""Bytes of these fields."""

_LONG_LINK = b"././@LongLink"
_PAX_FOLDER = b"PaxHeaders/"
_SPARSE_FOLDER = b"GNUSparseFile.0/"


class OwnerNames(Struct, frozen=True):
    """The names of users and of groups by their numbers."""

    users: dict[int, bytes] = field(default_factory=dict)
    groups: dict[int, bytes] = field(default_factory=dict)


class EntryFields(Struct, frozen=True):
    """The values of a new entry's header. ``link``: the name that it is a hard link to, None for no hard link."""

    name: bytes
    node: Node
    size: int
    link: bytes | None = None

    @property
    def type(self) -> bytes:
        """The type letter."""
        return blocks.HARD_LINK if self.link is not None else _TYPES[self.node.kind]

    @property
    def link_name(self) -> bytes:
        """The text of a symlink, or the name that a hard link leads to."""
        return self.node.target if self.link is None else self.link


class HeaderWriter:
    """Writes the headers of new entries.

    ``is_gnu``: in GNU's form where that holds what an entry has; else as ustar, with pax records for what does not fit.
    """

    def __init__(self, *, is_gnu: bool, writes_pax: bool, global_records: Mapping[bytes, bytes], owners: OwnerNames):
        """:param writes_pax: the archive has pax headers, so names beyond ASCII go there.
        :param global_records: which count for all entries behind them, and must not for new ones.
        :param owners: to be written beside their numbers.
        """
        self._is_gnu, self._writes_pax, self._owners = is_gnu and not writes_pax, writes_pax, owners
        self._globals = [keyword for keyword in global_records if pax.is_effective(keyword)]

    def encode(self, fields: EntryFields) -> bytes:
        """Return the header of an entry, and the extended ones before it."""
        if self._is_gnu and not fields.node.xattrs:
            return self._encode_gnu(fields)
        return self._encode_ustar(fields)

    def _encode_gnu(self, fields: EntryFields) -> bytes:
        """Return the header in GNU's form, with long names before it."""
        node = fields.node
        longs = b"".join(
            encode_long(kind, text)
            for kind, text, size in (
                (blocks.GNU_LINK, fields.link_name, _LINK_NAME),
                (blocks.GNU_NAME, fields.name, _NAME),
            )
            if len(text) > size
        )
        major, minor = node.rdev if node.kind in (NodeKind.CHAR, NodeKind.BLOCK) else (0, 0)
        numbers = ((node.mode, 8), (node.uid, 8), (node.gid, 8), (fields.size, 12), (node.mtime, 12))
        texts = [_number(value, size) or _base256(value, size) for value, size in numbers]
        devices = [_number(value, 8) or _base256(value, 8) for value in (major, minor)]
        return longs + self._assemble(fields, fields.name[:_NAME], b"", texts, devices, blocks.GNU_MAGIC)

    def _encode_ustar(self, fields: EntryFields) -> bytes:
        """Return the header of ustar, with a pax header before it for what that cannot hold."""
        node = fields.node
        records: dict[bytes, bytes] = dict.fromkeys(self._globals, b"")
        split = split_name(fields.name)
        if split is None or (self._writes_pax and not fields.name.isascii()) or pax.PATH in records:
            records[pax.PATH] = fields.name
        name, prefix = split or (fields.name[:_NAME], b"")
        link = fields.link_name
        if link and (
            len(link) > _LINK_NAME or (self._writes_pax and not link.isascii()) or pax.LINK_PATH in records
        ):  # fmt: skip
            records[pax.LINK_PATH] = link
        major, minor = node.rdev if node.kind in (NodeKind.CHAR, NodeKind.BLOCK) else (0, 0)
        rows = (
            (b"", node.mode, 8), (pax.UID, node.uid, 8), (pax.GID, node.gid, 8), (pax.SIZE, fields.size, 12),
            (pax.MTIME, node.mtime, 12), (pax.DEVICE_MAJOR, major, 8), (pax.DEVICE_MINOR, minor, 8),
        )  # fmt: skip
        texts = []
        for keyword, value, size in rows:
            text = _number(value, size)
            if text is None or keyword in records:
                records[keyword] = b"%d" % value
            texts.append(text or (_number(0, size) if value < 0 else b"7" * (size - 1)) or b"")
        for keyword, owner in zip((pax.USER, pax.GROUP), self._owner_names(node), strict=True):
            if len(owner) > _OWNER_NAME or keyword in records:
                records[keyword] = owner
        if fields.link is None:
            records.update(record for xattr in node.xattrs for record in encode_attribute(*xattr))
        head = encode_pax(_with_charset(records), fields.name, node.mtime) if records else b""
        return head + self._assemble(fields, name, prefix, texts[:5], texts[5:], blocks.USTAR_MAGIC)

    def _owner_names(self, node: Node) -> tuple[bytes, bytes]:
        """Return the names of the owner and the group of ``node``, empty where they are not to be written."""
        return self._owners.users.get(node.uid, b""), self._owners.groups.get(node.gid, b"")

    def _assemble(
        self, fields: EntryFields, name: bytes, prefix: bytes, numbers: list[bytes], devices: list[bytes], magic: bytes
    ) -> bytes:
        """Return a header block; ``numbers``: mode, owner, group, size and time as their fields have them."""
        mode, uid, gid, size, mtime = numbers
        user, group = (
            owner[:_OWNER_NAME] if len(owner) <= _OWNER_NAME else b"" for owner in self._owner_names(fields.node)
        )
        parts = (
            name.ljust(_NAME, b"\0"), mode.ljust(8, b"\0"), uid.ljust(8, b"\0"), gid.ljust(8, b"\0"),
            size.ljust(12, b"\0"), mtime.ljust(12, b"\0"), b" " * 8, fields.type,
            fields.link_name[:_LINK_NAME].ljust(_LINK_NAME, b"\0"), magic, user.ljust(_OWNER_NAME, b"\0"),
            group.ljust(_OWNER_NAME, b"\0"), devices[0].ljust(8, b"\0"), devices[1].ljust(8, b"\0"),
            prefix.ljust(_PREFIX, b"\0"),
        )  # fmt: skip
        return blocks.with_checksum(b"".join(parts).ljust(BLOCK, b"\0"))


def _number(value: int, size: int) -> bytes | None:
    """Return ``value`` in octal digits for a field of ``size`` bytes, the last a NUL; None if it has no room."""
    return b"%0*o" % (size - 1, value) if 0 <= value < 8 ** (size - 1) else None


def _base256(value: int, size: int) -> bytes:
    """Return ``value`` in GNU's binary form for a field of ``size`` bytes."""
    if value < 0:
        return (value + (1 << (8 * size))).to_bytes(size, "big")
    return (value | 1 << (8 * size - 1)).to_bytes(size, "big")


def split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """Return ``name`` as ustar's fields name and prefix; None if it does not fit them."""
    if len(name) <= _NAME:
        return name, b""
    slash = name.find(b"/", max(len(name) - _NAME - 1, 1), -1)
    if slash < 0 or slash > _PREFIX:
        return None
    return name[slash + 1 :], name[:slash]


def encode_long(kind: bytes, text: bytes) -> bytes:
    """Return the blocks of GNU form that hold the long name ``text`` of the next entry."""
    head = b"".join(
        (
            _LONG_LINK.ljust(_NAME, b"\0"), b"0000644\0", b"0000000\0" * 2, b"%011o\0" % (len(text) + 1),
            b"0" * 11 + b"\0", b" " * 8, kind, bytes(_LINK_NAME), blocks.GNU_MAGIC, b"root".ljust(_OWNER_NAME, b"\0"),
            b"root".ljust(_OWNER_NAME, b"\0"),
        )
    )  # fmt: skip
    data = text + b"\0"
    return blocks.with_checksum(head.ljust(BLOCK, b"\0")) + data + bytes(blocks.padding_size(len(data)))


def encode_pax(records: Iterable[tuple[bytes, bytes]], name: bytes, mtime: int) -> bytes:
    """Return a pax header with ``records`` for the entry ``name``, whose time it takes."""
    data = pax.encode_records(records)
    base = name.rstrip(b"/").rpartition(b"/")[2]
    head = b"".join(
        (
            (_PAX_FOLDER + base)[:_NAME].ljust(_NAME, b"\0"), b"0000644\0", b"0000000\0" * 2,
            b"%011o\0" % len(data), (_number(mtime, 12) or b"0" * 11) + b"\0", b" " * 8, blocks.PAX, bytes(_LINK_NAME),
            blocks.USTAR_MAGIC,
        )
    )  # fmt: skip
    return blocks.with_checksum(head.ljust(BLOCK, b"\0")) + data + bytes(blocks.padding_size(len(data)))


def _with_charset(records: Mapping[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield ``records``, with the mark before them that names are no UTF-8 where one is none."""
    names = (records.get(keyword, b"") for keyword in (pax.PATH, pax.LINK_PATH, pax.USER, pax.GROUP))
    if not all(map(_is_utf8, names)):
        yield pax.CHARSET, b"BINARY"
    for record in records.items():
        if record[0] != pax.CHARSET:
            yield record


def _is_utf8(text: bytes) -> bool:
    """Return whether ``text`` is UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


class OldHead(Struct):
    """The headers of an entry, taken apart: its own ``block``; pax ``records`` in order; a long name of a link
    (``link``); and ``others`` as they are.
    """

    block: bytes
    records: pax.Records
    link: bytes
    others: bytes

    @classmethod
    def parse(cls, raw: bytes) -> OldHead:
        """Take ``raw`` apart, whose last block is the entry's own header."""
        records: pax.Records = []
        others: list[bytes] = []
        link, at = b"", 0
        while at + BLOCK < len(raw):
            header = blocks.parse_header(raw[at : at + BLOCK])
            begin = at + BLOCK
            size = blocks.parse_number(header.size, "the size")
            end = begin + size + blocks.padding_size(size)
            data = raw[begin : begin + size]
            if header.type in (blocks.PAX, blocks.SUN_PAX):
                records += pax.parse_records(data)
            elif header.type == blocks.GNU_LINK:
                link = data.partition(b"\0")[0]
            elif header.type != blocks.GNU_NAME:
                others.append(raw[at:end])
            at = end
        return cls(raw[at:], records, link, b"".join(others))


def rename_head(raw: bytes, name: bytes, link: bytes | None) -> bytes:
    """Return the headers ``raw`` of an entry, extended ones first, with another name.

    ``link``: the name that it is a hard link to; None leaves what there is.
    """
    old = OldHead.parse(raw)
    header = blocks.parse_header(old.block)
    if link is None:
        link = dict(old.records).get(pax.LINK_PATH) or old.link or header.link_name.partition(b"\0")[0]
    is_sparse = any(keyword == pax.SPARSE_NAME for keyword, _ in old.records)
    records = [record for record in old.records if record[0] not in (pax.PATH, pax.LINK_PATH, pax.SPARSE_NAME)]
    fields = split_name(name) if header.is_ustar else (name, b"") if len(name) <= _NAME else None
    longs = b""
    if is_sparse:
        records.append((pax.SPARSE_NAME, name))
        fields = ((_SPARSE_FOLDER + name)[:_NAME], b"")
    elif fields is None and header.is_gnu:
        longs = encode_long(blocks.GNU_NAME, name)
    elif fields is None or (records and not name.isascii()):
        records.append((pax.PATH, name))
    if len(link) > _LINK_NAME and header.is_gnu:
        longs = encode_long(blocks.GNU_LINK, link) + longs
    elif len(link) > _LINK_NAME:
        records.append((pax.LINK_PATH, link))
    head = encode_pax(records, name, 0) if records else b""
    return old.others + head + longs + _rename_block(old.block, header, fields or (name[:_NAME], b""), link)


def _rename_block(block: bytes, header: blocks.TarHeader, name: tuple[bytes, bytes], link: bytes) -> bytes:
    """Return the header ``block`` with ``name`` (the name, and ustar's prefix) and with the name of a link."""
    short, prefix = name
    text = link[:_LINK_NAME].ljust(_LINK_NAME, b"\0")
    block = short.ljust(_NAME, b"\0") + block[_NAME:157] + text + block[257:]
    if header.is_ustar:
        block = block[:345] + prefix.ljust(_PREFIX, b"\0") + block[345 + _PREFIX :]
    return blocks.with_checksum(block)
