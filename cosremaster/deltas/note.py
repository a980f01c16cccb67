"""The file beside a delta that says for which base it is, and what it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cosremaster.errors import CorruptError, ImageError, Place
from cosremaster.records.tuples import NamedTuple

ENDING = ".json"
_LONGEST = 1 << 16  # bytes


class FileDigest(NamedTuple):
    """A file as a note names it: its length in bytes, and its SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


class DeltaNote(NamedTuple):
    """The base of a delta, and what it makes."""

    base: FileDigest
    result: FileDigest

    def encode(self, size: int) -> bytes:
        """Return the text of the note of a delta of ``size`` bytes."""
        values = {
            "schema": 1, "format": "vcdiff", "base": self.base._asdict(), "result": self.result._asdict(),
            "delta": {"size": size},
        }  # fmt: skip
        return json.dumps(values, indent=2).encode() + b"\n"


def note_path(delta: Path) -> Path:
    """Return where the note of ``delta`` is."""
    return Path(f"{delta}{ENDING}")


def read_note(path: Path) -> DeltaNote | None:
    """Return the note at ``path``; None where there is none.

    :raises ImageError: it cannot be read. :raises CorruptError: it is no such note.
    """
    place = Place((str(path),))
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}", place) from error
    try:
        values = json.loads(data)
        if len(data) > _LONGEST or values["schema"] != 1 or values["format"] != "vcdiff":
            raise ValueError
        return DeltaNote(_parse_file(values["base"]), _parse_file(values["result"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptError("is no note of a delta that is known here", place) from error


def _parse_file(values: Any) -> FileDigest:
    """Return the file that ``values`` name. :raises ValueError: they name none."""
    size, digits = values["size"], values["sha256"]
    if type(size) is not int or size < 0 or len(bytes.fromhex(digits)) != 32 or digits != digits.lower():
        raise ValueError(digits)
    return FileDigest(size, digits)
