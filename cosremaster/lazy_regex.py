"""Regular expressions that are compiled when they are first used.

Compiling one takes as long as loading a small module, and a run uses few of those that its modules have.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr, cast


class _LazyRegex:
    """Attributes of a compiled regular expression, each of which is looked up once."""

    def __init__(self, source: str | bytes, flags: int) -> None:
        """Remember what to compile."""
        self._arguments = (source, flags)

    def __getattr__(self, name: str) -> Any:
        """Return the attribute ``name`` of the compiled expression, and keep it."""
        compiled: re.Pattern[Any] = re.compile(*self._arguments)
        value = getattr(compiled, name)
        setattr(self, name, value)
        return value


def lazy_regex(source: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """Return the regular expression ``source``; ``flags`` as for :func:`re.compile`, which runs on its first use."""
    return cast("re.Pattern[AnyStr]", _LazyRegex(source, flags))
