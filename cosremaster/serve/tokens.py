"""Tokens: words in a URL, or in an Authorization field, by which a client may have sites."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable

from cosremaster.errors import UsageError
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records.tuples import NamedTuple

SHORTEST, LONGEST = 16, 128
"""Characters of a token: not to be guessed, and with a site's name within the 255 of a URL that machines take."""

_TOKEN = lazy_regex(rf"[A-Za-z0-9._~-]{{{SHORTEST},{LONGEST}}}", re.ASCII)


class Access(NamedTuple):
    """What a token opens: the sites of these names, None for all."""

    sites: frozenset[str] | None = None

    def allows(self, site: str) -> bool:
        """Return whether it opens ``site``."""
        return self.sites is None or site in self.sites


EVERYTHING = Access()


class Tokens:
    """The tokens that count. Without any, everybody may have everything."""

    def __init__(self, lines: Iterable[str] = (), place: str = "tokens") -> None:
        """Read ``lines``: a token, and behind it the sites that it opens, none for all; ``#`` begins a comment.

        :raises UsageError: a line has no token that counts; ``place`` is where it stands.
        """
        self._access: list[tuple[bytes, Access]] = []
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if not _TOKEN.fullmatch(words[0]):
                raise UsageError(
                    f"{place}:{number}: a token is {SHORTEST} to {LONGEST} letters, digits and . _ ~ - ("
                    "`openssl rand -hex 16` makes one)"
                )
            self._access.append((_digest(words[0]), Access(frozenset(words[1:]) if words[1:] else None)))

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._access)

    def find_access(self, token: str) -> Access | None:
        """Return what ``token`` opens; None for nothing. It takes as long for a wrong one as for a right one."""
        digest, opened = _digest(token), None
        for known, access in self._access:
            if hmac.compare_digest(known, digest):
                opened = access
        return opened


class TokenList(NamedTuple):
    """Tokens as they were read: the ``lines`` that :class:`Tokens` takes, and their ``place``."""

    lines: tuple[str, ...]
    place: str

    def open(self) -> Tokens:
        """Return the tokens. :raises UsageError: a line has no token that counts."""
        return Tokens(self.lines, self.place)


def _digest(token: str) -> bytes:
    """Return what is compared for ``token``: as long for each."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
