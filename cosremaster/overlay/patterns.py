"""Patterns of paths: ``*`` and ``?`` do not cross ``/``, ``**`` does, a backslash takes what follows as it is."""

from __future__ import annotations

import re

from cosremaster.errors import UsageError, printable
from cosremaster.tree.paths import normal_name

_TOKEN = re.compile(rb"\*\*/|\*\*|\*|\?|\\[^/]|.", re.DOTALL)
_MEANING = {b"**/": b"(?:.*/)?", b"**": b".*", b"*": b"[^/]*", b"?": b"[^/]"}


class Pattern:
    """A pattern of normal paths. A leading slash, ``.`` parts and doubled slashes change nothing.

    ``head``: the parts before the first with a wildcard, taken literally; ``literal``: there are no others.

    :raises UsageError: it holds ``..`` as a part, a NUL, or ends with a lone backslash.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        path = normal_name(text)
        parts = path.split(b"/") if path else []
        if b".." in parts or b"\0" in text or (len(text) - len(text.rstrip(b"\\"))) % 2:
            raise UsageError(
                f"pattern {printable(text)}: a path without .. is wanted, and a \\ must be followed by something"
            )
        tokens = [_TOKEN.findall(part) for part in parts]
        literals = [_literal(part) for part in tokens]
        plain = next((i for i, one in enumerate(literals) if one is None), len(parts))
        self.literal_prefix = b"/".join(one for one in literals[:plain] if one is not None)
        self.is_literal = plain == len(parts)
        self.wildcard_regex = _compiled(b"/".join(parts[plain:]))
        """Matches a whole path from ``head`` on."""
        self._whole = _compiled(path)

    def matches(self, path: bytes) -> bool:
        """True for a normal path that the whole pattern fits."""
        return self._whole.fullmatch(path) is not None


def _literal(tokens: list[bytes]) -> bytes | None:
    """The text that ``tokens`` stand for; None if one is a wildcard."""
    if any(token in _MEANING for token in tokens):
        return None
    return b"".join(token[-1:] for token in tokens)


def _compiled(text: bytes) -> re.Pattern[bytes]:
    meant = (_MEANING.get(token) or re.escape(token[-1:]) for token in _TOKEN.findall(text))
    return re.compile(b"".join(meant), re.DOTALL)
