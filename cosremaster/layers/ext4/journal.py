"""The journal of ext3 and ext4 (Documentation/filesystems/ext4/journal.rst): what it holds is laid over the blocks.

A file system that was not unmounted cleanly is read as the kernel would show it after a mount. Nothing is written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from cosremaster.layers.ext4.checksums import INITIAL_SEED, crc32c
from cosremaster.records import Struct

_MAGIC = b"\xc0\x3b\x39\x98"
_HEADER_SIZE = 12
_DESCRIPTOR, _COMMIT, _REVOKE = 1, 2, 5
_NOUNS = {_DESCRIPTOR: "a list of blocks", _COMMIT: "a commit", _REVOKE: "a list of revoked blocks"}
_SUPERBLOCK_KINDS = (3, 4)
_BITS64, _CHECKSUM_V2, _CHECKSUM_V3, _FAST_COMMIT = 0x2, 0x8, 0x10, 0x20
_KNOWN = 0x3F
_ESCAPED, _SAME_UUID, _LAST_TAG = 0x1, 0x2, 0x8
_UUID_SIZE = 16
_COMMIT_CHECKSUM = 16
_COMMIT_SIZE = 64
_COMMIT_TIME = slice(48, 56)
_SUPERBLOCK_CHECKSUM = 0xFC
_SUPERBLOCK_SIZE = 1024
_TAIL_SIZE = 4
_FAST_COMMIT_HEAD = 9
_USUAL_FAST_BLOCKS = 256


class DamagedBlockError(ValueError):
    """A block of the journal, whose number is ``block``, has another checksum than it says."""

    def __init__(self, block: int, noun: str) -> None:
        """Say so of the ``noun`` in ``block``."""
        super().__init__(f"the checksum of {noun} in it is wrong")
        self.block = block


class Replay(Struct, frozen=True):
    """A block of the file system and the block of the journal that it is to be read from.

    ``is_escaped``: its first four bytes are the journal's magic, which stand as zeros in the journal. ``checksum``:
    what its tag says; None without one.
    """

    block: int
    journal_block: int
    is_escaped: bool
    checksum: bytes | None


class _Journal(Struct, frozen=True):
    """What the superblock of the journal says; ``first`` and ``end``: the blocks of the ring."""

    block_size: int
    first: int
    end: int
    sequence: int
    start: int
    features: int
    seed: int

    @property
    def has_checksums(self) -> bool:
        """Whether every block of it has a checksum."""
        return bool(self.features & (_CHECKSUM_V2 | _CHECKSUM_V3))


class _Transaction(Struct, frozen=True):
    """The number of a transaction, its blocks in order, and the blocks of the file system that it revokes."""

    sequence: int
    replays: list[Replay]
    revokes: list[int]


def list_replays(read: Callable[[int], bytes], block_size: int, block_count: int) -> tuple[Replay, ...]:
    """Return the blocks of transactions that were committed to the journal, the last state of each.

    :param read: returns a block of the journal's ``block_count`` of ``block_size`` bytes.
    :raises DamagedBlockError: a checksum is wrong. :raises ValueError: the journal is damaged otherwise, or not known.
    """
    journal = _parse_superblock(read(0), block_size, block_count)
    if not journal.start:
        return ()
    _check_no_fast_commits(journal, read)
    transactions = list(_list_transactions(journal, read))
    revoked = {block: transaction.sequence for transaction in transactions for block in transaction.revokes}
    last = {}
    for transaction in transactions:
        for replay in transaction.replays:
            if revoked.get(replay.block, -1) < transaction.sequence:
                _check_replay(replay, transaction.sequence, read, journal)
                last[replay.block] = replay
    return tuple(last.values())


def _check_replay(replay: Replay, sequence: int, read: Callable[[int], bytes], journal: _Journal) -> None:
    """Check the block of ``replay`` in the transaction ``sequence``. :raises DamagedBlockError: it is another."""
    if replay.checksum is None:
        return
    checksum = crc32c(crc32c(journal.seed, sequence.to_bytes(4, "big")), read(replay.journal_block)).to_bytes(4, "big")
    if not checksum.endswith(replay.checksum):
        raise DamagedBlockError(replay.journal_block, "a block")


def _parse_superblock(raw: bytes, block_size: int, block_count: int) -> _Journal:
    """Return what the journal's first block says. :raises ValueError: it is damaged, or not known."""
    kind, _, size, length, first, sequence, start = struct.unpack_from(">7I", raw, 4)
    if raw[:4] != _MAGIC or kind not in _SUPERBLOCK_KINDS:
        raise ValueError("it has no superblock")
    features = int.from_bytes(raw[40:44], "big") if kind == _SUPERBLOCK_KINDS[1] else 0
    if features & ~_KNOWN:
        raise ValueError(f"it has features that are not known (0x{features & ~_KNOWN:x})")
    fast = (int.from_bytes(raw[0x54:0x58], "big") or _USUAL_FAST_BLOCKS) if features & _FAST_COMMIT else 0
    end = length - fast
    if size != block_size or length > block_count or not 0 < first < end or start >= end:
        raise ValueError("its superblock has impossible sizes")
    seed = crc32c(INITIAL_SEED, raw[0x30:0x40])
    if features & (_CHECKSUM_V2 | _CHECKSUM_V3):
        at = _SUPERBLOCK_CHECKSUM
        stated = int.from_bytes(raw[at : at + 4], "big")
        if crc32c(INITIAL_SEED, raw[:at] + bytes(4) + raw[at + 4 : _SUPERBLOCK_SIZE]) != stated:
            raise DamagedBlockError(0, "the superblock")
    return _Journal(size, first, end, sequence, start, features, seed)


def _check_no_fast_commits(journal: _Journal, read: Callable[[int], bytes]) -> None:
    """Check that the area of fast commits is not in use. :raises ValueError: it is."""
    if journal.features & _FAST_COMMIT and int.from_bytes(read(journal.end)[:2], "little") == _FAST_COMMIT_HEAD:
        raise ValueError("it has fast commits, which are not known here; mount the image once")


def _list_transactions(journal: _Journal, read: Callable[[int], bytes]) -> Iterator[_Transaction]:
    """Yield the transactions that were committed.

    Blocks of an earlier life of the journal may follow the last one with the next number. Their time tells: a commit
    that is older than the one before it is none of this life (jbd2's recovery.c).

    :raises DamagedBlockError: a checksum in a transaction is wrong.
    """
    position, sequence, last_time = journal.start, journal.sequence, 0
    replays: list[Replay] = []
    revokes: list[int] = []
    damage: DamagedBlockError | None = None
    for _ in range(journal.end - journal.first):
        block = read(position)
        kind, number = struct.unpack_from(">II", block, 4)
        if block[:4] != _MAGIC or number != sequence or kind not in (_DESCRIPTOR, _REVOKE, _COMMIT):
            return
        if not _has_valid_checksum(block, kind, journal):
            damage = damage or DamagedBlockError(position, _NOUNS[kind])
        if kind == _DESCRIPTOR:
            for target, flags, checksum in _parse_tags(block, journal.features):
                position = _next(journal, position)
                replays.append(Replay(target, position, bool(flags & _ESCAPED), checksum))
        elif kind == _REVOKE:
            revokes += _parse_revokes(block, journal.features)
        else:
            time = int.from_bytes(block[_COMMIT_TIME], "big")
            if damage is not None and time < last_time:
                return
            if damage is not None:
                raise damage
            yield _Transaction(sequence, replays, revokes)
            sequence, replays, revokes, last_time = (sequence + 1) & 0xFFFFFFFF, [], [], time
        position = _next(journal, position)


def _next(journal: _Journal, position: int) -> int:
    """Return the block of the ring behind ``position``."""
    return position + 1 if position + 1 < journal.end else journal.first


def _parse_tags(block: bytes, features: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield the target, the flags and the checksum, if it has one, of each tag of a descriptor block."""
    at = _HEADER_SIZE
    while at + 8 <= len(block):
        checksum = None
        if features & _CHECKSUM_V3:
            if at + 16 > len(block):
                return
            target, flags, high = struct.unpack_from(">III", block, at)
            size, checksum = 16, block[at + 12 : at + 16]
        else:
            target, low, flags = struct.unpack_from(">I2sH", block, at)
            has_high = features & _BITS64 and at + 12 <= len(block)
            high = int.from_bytes(block[at + 8 : at + 12], "big") if has_high else 0
            size = (12 if features & _BITS64 else 8) + (2 if features & _CHECKSUM_V2 else 0)
            checksum = low if features & _CHECKSUM_V2 else None
        yield target | (high << 32 if features & _BITS64 else 0), flags, checksum
        at += size + (0 if flags & _SAME_UUID else _UUID_SIZE)
        if flags & _LAST_TAG:
            return


def _parse_revokes(block: bytes, features: int) -> list[int]:
    """Return the blocks that a revoke block names."""
    size = 8 if features & _BITS64 else 4
    end = min(int.from_bytes(block[12:16], "big"), len(block))
    return [int.from_bytes(block[at : at + size], "big") for at in range(16, end - size + 1, size)]


def _has_valid_checksum(block: bytes, kind: int, journal: _Journal) -> bool:
    """Return whether the checksum of a commit block, or of another ``kind`` at its end, is right, where it has one."""
    if not journal.has_checksums:
        return True
    if kind == _COMMIT:  # what is behind its fields does not count
        block = block[:_COMMIT_SIZE] + bytes(len(block) - _COMMIT_SIZE)
    at = _COMMIT_CHECKSUM if kind == _COMMIT else len(block) - _TAIL_SIZE
    blank = block[:at] + bytes(4) + block[at + 4 :]
    return crc32c(journal.seed, blank) == int.from_bytes(block[at : at + 4], "big")
