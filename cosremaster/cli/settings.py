"""What was asked for all commands alike: few words or many. Nothing here loads click."""

from __future__ import annotations

from typing import ClassVar


class Settings:
    """The settings of this run of the program; :meth:`reset` begins another."""

    is_quiet: ClassVar[bool] = False
    progress: ClassVar[str] = "auto"
    """``auto``, ``json`` or ``none``."""

    @classmethod
    def reset(cls) -> None:
        """Return to what counts where nothing is asked for."""
        cls.is_quiet = False
        cls.progress = "auto"
