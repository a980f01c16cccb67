"""Patterns for paths: ``*`` and ``?`` do not cross ``/``, ``**`` does, ``[a-z]`` is one of several bytes."""

from __future__ import annotations

import re

from cosremaster.errors import UsageError


def compile_pattern(pattern: bytes) -> re.Pattern[bytes]:
    """What matches whole paths as ``pattern`` wants. ``**/`` also matches nothing, so ``**/x`` finds ``x`` at the top.

    :raises UsageError: a ``[`` without its ``]``.
    """
    out, at = b"", 0
    pattern = pattern.lstrip(b"/")
    while at < len(pattern):
        if pattern.startswith(b"**/", at):
            out, at = out + b"(?:.*/)?", at + 3
        elif pattern.startswith(b"**", at):
            out, at = out + b".*", at + 2
        elif pattern[at] == ord("["):
            end = pattern.find(b"]", at + 2)
            if end < 0:
                raise UsageError(f"pattern {pattern.decode(errors='backslashreplace')!r}: a [ without its ]")
            body = pattern[at + 1 : end].replace(b"\\", b"\\\\").replace(b"[", b"\\[")
            out += b"[" + (b"^" + body[1:] if body.startswith((b"!", b"^")) else body) + b"]"
            at = end + 1
        else:
            one = pattern[at : at + 1]
            out += {b"*": b"[^/]*", b"?": b"[^/]"}.get(one, re.escape(one))
            at += 1
    try:
        return re.compile(out, re.DOTALL)
    except re.error as error:
        raise UsageError(f"pattern {pattern.decode(errors='backslashreplace')!r}: {error}") from error
