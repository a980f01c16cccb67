"""What a script prints, as lines that a terminal can show safely."""

from __future__ import annotations

import re

_MAX_LINE = 1 << 13
_ESCAPES = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences (ECMA-48 5.4)
    rb"|\x1b[P\]X^_].*?(?:\x07|\x1b\\|$)"  # strings up to their terminator (ECMA-48 5.6; BEL ends xterm's)
    rb"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)))


def clean_line(data: bytes) -> str:
    """Return a line without what moves the cursor, sets colours, or speaks to the terminal.

    Of a line that was written several times over itself (a progress bar), the last text stays.
    """
    shown = _ESCAPES.sub(b"", data).rstrip(b"\r").rpartition(b"\r")[2]
    return shown.decode("utf-8", "backslashreplace").translate(_CONTROLS)


class LineSplitter:
    """Bytes of a stream, cut into lines; a line without end is cut where it becomes too long."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._rest = b""

    def take(self, data: bytes) -> list[str]:
        """Take the next bytes. Return the lines that are complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        parts = [part for line in lines for part in _cut(line)]
        *long_parts, self._rest = _cut(self._rest)
        return [clean_line(part) for part in (*parts, *long_parts)]

    def finish(self) -> list[str]:
        """Return the last line, if it has no end."""
        rest, self._rest = self._rest, b""
        return [clean_line(rest)] if rest else []


def _cut(line: bytes) -> list[bytes]:
    """Return ``line`` in parts that are not too long; at least a part."""
    return [line[start : start + _MAX_LINE] for start in range(0, max(len(line), 1), _MAX_LINE)]
