"""Tokens: words in a URL, or in an Authorization field, by which a client may have sites."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from cosremaster.errors import UsageError
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records.tuples import NamedTuple

SHORTEST, LONGEST = 16, 128
"""Characters of a token: not to be guessed, and with a site's name within the 255 of a URL that machines take."""

LOOK_INTERVAL = 1.0
"""Seconds for which a file of tokens is not looked at again."""
SETTLED = 500_000_000
"""Nanoseconds since the last change of a file of tokens after which it is read: an editor may be writing it still, and
a line without its last word would open more than it should.
"""

_TOKEN = lazy_regex(rf"[A-Za-z0-9._~-]{{{SHORTEST},{LONGEST}}}", re.ASCII)


class Access(NamedTuple):
    """What a token opens: the sites of these names, None for all."""

    sites: frozenset[str] | None = None

    def allows(self, site: str) -> bool:
        """Return whether it opens ``site``."""
        return self.sites is None or site in self.sites


EVERYTHING = Access()


class Tokens:
    """The tokens that count. Without any, everybody may have everything.

    ``problem``: a sentence about why they are not those that they should be; empty where all is well.
    """

    problem = ""

    def __init__(self, lines: Iterable[str] = (), place: str = "tokens") -> None:
        """Read ``lines``: a token, and behind it the sites that it opens, none for all; ``#`` begins a comment.

        :raises UsageError: a line has no token that counts; ``place`` is where it stands.
        """
        self._take(lines, place)

    def _take(self, lines: Iterable[str], place: str) -> None:
        """Let the tokens in ``lines`` count alone; none of them where that raises UsageError, as the constructor."""
        access: list[tuple[bytes, Access]] = []
        lengths = set[int]()
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if not _TOKEN.fullmatch(words[0]):
                raise UsageError(
                    f"{place}:{number}: a token is {SHORTEST} to {LONGEST} letters, digits and . _ ~ - ("
                    "`openssl rand -hex 16` makes one)"
                )
            access.append((_digest(words[0]), Access(frozenset(words[1:]) if words[1:] else None)))
            lengths.add(len(words[0]))
        self._access, self._lengths = access, sorted(lengths, reverse=True)
        self._digests = frozenset(digest for digest, _ in access)

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._access)

    def renew(self) -> bool:
        """Take over what changed where they come from, and return whether anything did; here nothing ever does."""
        return False

    def find_access(self, token: str) -> Access | None:
        """Return what ``token`` opens; None for nothing. It takes as long for a wrong one as for a right one."""
        digest, opened = _digest(token), None
        for each, access in self._access:
            if hmac.compare_digest(each, digest):
                opened = access
        return opened

    def hide_in(self, text: str) -> str:
        """Return ``text`` with stars in the place of each token that is anywhere in it."""
        for length in self._lengths:  # the longest first: another may be a part of it
            start = 0
            while start + length <= len(text):
                if _digest(text[start : start + length]) in self._digests:
                    text = f"{text[:start]}***{text[start + length :]}"
                start += 1
        return text


class FileTokens(Tokens):
    """The tokens in the file ``path``, which is read again when it changed.

    Where it has faults then, or is gone, they stay what they were, so that it never opens what it closed.
    """

    def __init__(self, path: Path) -> None:
        """Read the file. :raises UsageError: it cannot be read, has no token, or a line that is none."""
        self._path = path
        self._state = _state_of(path)
        self._next_look = time.monotonic() + LOOK_INTERVAL
        super().__init__(_read_file(path), str(path))

    def renew(self) -> bool:
        """Read the file again if it changed, and no more for a moment; return whether other tokens count now."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_INTERVAL
        state = _state_of(self._path)
        if (state == self._state and not self.problem) or _is_being_written(state):
            return False
        try:
            lines = _read_file(self._path)
            if _state_of(self._path) != state:  # it is looked at again
                return False
            self._take(lines, str(self._path))
        except UsageError as error:
            self.problem = f"the tokens stay what they were: {error.message}"
            return False
        self._state, self.problem = state, ""
        return True


def _state_of(path: Path) -> tuple[int, ...] | None:
    """Return what changes with the file ``path``, the time of that last; None where it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_being_written(state: Sequence[int] | None) -> bool:
    """Return whether a file with this ``state`` changed just now."""
    return state is not None and 0 <= time.time_ns() - state[-1] < SETTLED


def _read_file(path: Path) -> tuple[str, ...]:
    """Return the lines of the file ``path``. :raises UsageError: it cannot be read, or has no token."""
    lines = read_token_lines(path)
    if not any(line.partition("#")[0].split() for line in lines):
        raise UsageError(f"--token-file {path}: has no token")
    return lines


def read_token_lines(path: Path) -> tuple[str, ...]:
    """Return the lines of ``path``, of whatever kind it is. :raises UsageError: it cannot be read."""
    try:
        return tuple(path.read_text("utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise UsageError(f"--token-file {path}: {reason}") from error


class TokenList(NamedTuple):
    """Where tokens come from: ``lines`` that were read at ``place``, or else the file ``path``, which may change."""

    lines: tuple[str, ...]
    place: str
    path: str = ""

    def open(self) -> Tokens:
        """Return the tokens. :raises UsageError: a line has no token that counts, or the file none."""
        return FileTokens(Path(self.path)) if self.path else Tokens(self.lines, self.place)


def _digest(token: str) -> bytes:
    """Return what is compared for ``token``: as long for each."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
