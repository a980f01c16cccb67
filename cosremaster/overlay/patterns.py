"""Patterns of paths: ``*`` and ``?`` do not cross ``/``, ``**`` does, a backslash makes the next byte literal."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from cosremaster.errors import UsageError, printable
from cosremaster.lazy_regex import lazy_regex
from cosremaster.tree.paths import SymlinkLoopError, normal_name, resolve_in_root

_TOKEN = lazy_regex(rb"\*\*/|\*\*|\*|\?|\\[^/]|.", re.DOTALL)
_MEANING = {b"**/": b"(?:.*/)?", b"**": b".*", b"*": b"[^/]*", b"?": b"[^/]"}


class Pattern:
    """A pattern of normal paths. A leading slash, ``.`` parts and doubled slashes change nothing.

    ``literal_prefix``: the parts before the first one with a wildcard, unescaped. ``is_literal``: no part has a
    wildcard. ``wildcard_regex`` matches the rest of a whole path, from the first part with a wildcard on.
    """

    def __init__(self, text: bytes) -> None:
        """Parse ``text``. :raises UsageError: it holds ``..`` as a part, a zero byte, or ends with a lone backslash."""
        self.text = text
        path = normal_name(text)
        parts = path.split(b"/") if path else []
        if b".." in parts or b"\0" in text or (len(text) - len(text.rstrip(b"\\"))) % 2:
            raise UsageError(
                f"pattern {printable(text)}: a path without .. is wanted, and a \\ must be followed by something"
            )
        tokens = [_TOKEN.findall(part) for part in parts]
        literals = [_unescape(part) for part in tokens]
        literal_count = next((index for index, part in enumerate(literals) if part is None), len(parts))
        self.literal_prefix = b"/".join(part for part in literals[:literal_count] if part is not None)
        self.is_literal = literal_count == len(parts)
        self.wildcard_regex = _compile(b"/".join(parts[literal_count:]))
        self._whole_regex = _compile(path)

    @property
    def expression(self) -> bytes:
        """The regular expression for the whole pattern."""
        return self._whole_regex.pattern

    def matches(self, path: bytes) -> bool:
        """Return whether the whole pattern matches the normal path ``path``."""
        return self._whole_regex.fullmatch(path) is not None


def parse_inner_pattern(text: bytes) -> Pattern:
    """Return the pattern ``text`` of what lies below the root directory.

    :raises UsageError: it is none, or means the root directory itself, as an empty one does.
    """
    pattern = Pattern(text)
    if pattern.is_literal and not pattern.literal_prefix:
        raise UsageError(f"pattern '{printable(text)}': the path of something below the root directory is wanted")
    return pattern


def join_patterns(
    patterns: Sequence[Pattern], link_target: Callable[[bytes], bytes | None] = lambda path: None
) -> Callable[[bytes], object]:
    """Return what tells of a normal path, in one step, whether one of ``patterns`` matches it: None where none does.

    ``link_target``: returns the text of the symlink at a path, None where there is no symlink. Symlinks before the
    first wildcard are followed as in a chroot, but for a last part.
    """
    return re.compile(b"|".join(_follow_symlinks(pattern, link_target) for pattern in patterns), re.DOTALL).fullmatch


def _follow_symlinks(pattern: Pattern, link_target: Callable[[bytes], bytes | None]) -> bytes:
    """Return the regular expression for ``pattern`` behind the symlinks before its first wildcard.

    That of a pattern whose symlinks lead in a loop matches nothing else than the pattern itself.
    """
    try:
        real = resolve_in_root(pattern.literal_prefix, link_target, follow_last=not pattern.is_literal)
    except SymlinkLoopError:
        return pattern.expression
    if real == pattern.literal_prefix:
        return pattern.expression
    if pattern.is_literal:
        return re.escape(real)
    return (re.escape(real) + b"/" if real else b"") + pattern.wildcard_regex.pattern


def _unescape(tokens: list[bytes]) -> bytes | None:
    """Return the text that ``tokens`` stand for, None if one of them is a wildcard."""
    if any(token in _MEANING for token in tokens):
        return None
    return b"".join(token[-1:] for token in tokens)


def _compile(text: bytes) -> re.Pattern[bytes]:
    """Return the regular expression for the pattern ``text``."""
    expressions = (_MEANING.get(token) or re.escape(token[-1:]) for token in _TOKEN.findall(text))
    return re.compile(b"".join(expressions), re.DOTALL)
