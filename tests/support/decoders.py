"""Which decoders of xz streams were begun."""

from typing import Any

import pytest

from cosremaster.codecs.xz.codec import XzCodec
from cosremaster.codecs.xz.repack import XzParameters


def note_xz_decoders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets a name for each decoder: ``decode`` from a front on, ``decode_from`` at some place."""
    begun: list[str] = []

    def note(owner: type, name: str) -> None:
        work = getattr(owner, name)

        def noted(*args: Any) -> Any:
            begun.append(name)
            return work(*args)

        monkeypatch.setattr(owner, name, noted)

    note(XzCodec, "decode")
    note(XzParameters, "decode_from")
    return begun
