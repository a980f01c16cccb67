"""What was asked for all commands alike: few words or many, and colours. Nothing here loads click."""

from __future__ import annotations

from typing import ClassVar


class Settings:
    """The settings of this run of the program; :meth:`reset` begins another."""

    is_quiet: ClassVar[bool] = False
    color: ClassVar[str] = "auto"
    """``auto``, ``always`` or ``never``."""
    progress: ClassVar[str] = "auto"
    """``auto``, ``json`` or ``none``."""

    @classmethod
    def reset(cls) -> None:
        """Return to what counts where nothing is asked for."""
        cls.is_quiet = False
        cls.color = "auto"
        cls.progress = "auto"
