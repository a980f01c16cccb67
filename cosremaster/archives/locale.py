"""Set a UTF-8 locale for the calling thread: libarchive converts names to the bytes of the current locale."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CTYPE_MASK = 2 if sys.platform == "darwin" else 1  # LC_CTYPE_MASK of <locale.h>
_NAMES = (b"C.UTF-8", b"C.utf8", b"en_US.UTF-8", b"UTF-8")


@contextmanager
def use_utf8_names() -> Iterator[None]:
    """Set the character type of this thread to UTF-8 (POSIX uselocale) where possible, and restore it afterwards."""
    library = ctypes.CDLL(None)
    try:
        new_locale, use_locale, free_locale = library.newlocale, library.uselocale, library.freelocale
    except AttributeError:
        yield
        return
    new_locale.argtypes, new_locale.restype = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p], ctypes.c_void_p
    use_locale.argtypes, use_locale.restype = [ctypes.c_void_p], ctypes.c_void_p
    free_locale.argtypes, free_locale.restype = [ctypes.c_void_p], None
    utf8 = next((locale for locale in (new_locale(_CTYPE_MASK, name, None) for name in _NAMES) if locale), None)
    if utf8 is None:
        yield
        return
    previous = use_locale(utf8)
    try:
        yield
    finally:
        use_locale(previous)
        free_locale(utf8)
