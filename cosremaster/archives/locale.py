"""A locale whose text is UTF-8 for the calling thread: libarchive turns names into the current locale's bytes."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CTYPE_MASK = 2 if sys.platform == "darwin" else 1  # LC_CTYPE_MASK of <locale.h>
_NAMES = (b"C.UTF-8", b"C.utf8", b"en_US.UTF-8", b"UTF-8")


@contextmanager
def use_utf8_names() -> Iterator[None]:
    """Sets the thread's character type to UTF-8 (POSIX uselocale) where the system can; restores it at the end."""
    library = ctypes.CDLL(None)
    try:
        new, use, free = library.newlocale, library.uselocale, library.freelocale
    except AttributeError:
        yield
        return
    new.argtypes, new.restype = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p], ctypes.c_void_p
    use.argtypes, use.restype = [ctypes.c_void_p], ctypes.c_void_p
    free.argtypes, free.restype = [ctypes.c_void_p], None
    chosen = next((found for found in (new(_CTYPE_MASK, name, None) for name in _NAMES) if found), None)
    if chosen is None:
        yield
        return
    before = use(chosen)
    try:
        yield
    finally:
        use(before)
        free(chosen)
