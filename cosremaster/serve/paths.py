"""What the paths of requests mean, and what of them may be in a log."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

from cosremaster.lazy_regex import lazy_regex
from cosremaster.records.tuples import NamedTuple
from cosremaster.serve.tokens import SHORTEST, Tokens

LONGEST_LOGGED = 300
"""Characters of a path in the log."""
REMEMBERED = 1024
"""Paths whose meaning is remembered. Machines ask for the same thousands of times, in small ranges."""

_OWN_PAGES = {"": "index", "healthz": "health", "metrics": "metrics"}
_SUFFIXES = ((".iso", "image"), (".iso.sha256", "digest"), (".sha256", "digest"))
_TOKEN_PART = lazy_regex(r"(/s/+)[^/]+", re.IGNORECASE)
_TOKEN_WORD = lazy_regex(rf"[A-Za-z0-9._~-]{{{SHORTEST},}}", re.ASCII)


class ServedPath(NamedTuple):
    """What a path means. ``kind``: ``index``, ``image``, ``digest``, ``boot``, ``health``, ``metrics``, or nothing.

    ``other_site``: that which is meant where there is no ``site``.
    """

    kind: str
    site: str = ""
    file: str = ""
    token: str | None = None
    other_site: str = ""


class PathReader:
    """Reads paths, and remembers the last ones. None of the ``tokens`` gets into a log."""

    def __init__(self, tokens: Tokens) -> None:
        """Begin without paths."""
        self._tokens = tokens
        self._read_remembered = lru_cache(REMEMBERED)(self._read)

    def read(self, path: str) -> tuple[ServedPath, str]:
        """Return what ``path`` means, and how the log shows it. Long ones are not remembered."""
        return self._read_remembered(path) if len(path) <= LONGEST_LOGGED else self._read(path)

    def forget(self) -> None:
        """Forget the paths: other tokens count."""
        self._read_remembered.cache_clear()

    def _read(self, path: str) -> tuple[ServedPath, str]:
        """Return what :meth:`read` does."""
        return parse_path(path), hide_tokens(path, self._tokens)


def parse_path(path: str) -> ServedPath:
    """Return what ``path``, decoded, means; no kind is nothing. No part of it becomes a path of this machine."""
    empty, *parts = path.split("/")
    token = None
    if len(parts) > 2 and parts[0] == "s":
        token, parts = parts[1], parts[2:]
    if empty or not 0 < len(parts) <= 2:
        return ServedPath("", token=token)
    if len(parts) == 2:
        return ServedPath("boot" if all(parts) else "", parts[0], parts[1], token)
    name = parts[0]
    if name in _OWN_PAGES:
        return ServedPath(_OWN_PAGES[name], token=token)
    for suffix, kind in _SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            other = name.removesuffix(".sha256") if suffix == ".iso.sha256" else ""  # of a site that is called a.iso
            return ServedPath(kind, name.removesuffix(suffix), token=token, other_site=other)
    return ServedPath("", token=token)


def hide_tokens(path: str, tokens: Tokens) -> str:
    """Return ``path`` for the log, without what stands where a token does, and without ``tokens`` anywhere.

    Where one is behind escapes of escapes, the path is shown without these.
    """
    if len(path) > LONGEST_LOGGED:  # what may be part of a token goes
        path = path[:LONGEST_LOGGED].rpartition("/")[0] + "/..."
    shown = path = _hide_plain(path, tokens)
    while (decoded := unquote(path)) != path:
        path = _hide_plain(decoded, tokens)
        if path != decoded:
            shown = path
    return shown


def _hide_plain(path: str, tokens: Tokens) -> str:
    """Return ``path`` without the tokens that are written plainly in it."""
    path = _TOKEN_PART.sub(r"\1***", path)
    return _TOKEN_WORD.sub(lambda match: tokens.hide_in(match.group()), path)
