"""A file under a temporary name that is interrupted while it is made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cosremaster.io import part_files
from cosremaster.io.part_files import PartFile


@pytest.mark.parametrize("step", ["open", "lock", "stat"])
def test_an_interruption_while_it_is_made_leaves_nothing(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, descriptors = os.open, len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None

    def interrupt(*arguments: object) -> bool:
        """Ctrl-C."""
        raise KeyboardInterrupt

    def open_and_interrupt(path: str | Path, flags: int, mode: int = 0o777) -> int:
        """Makes the file; Ctrl-C comes before the descriptor is kept."""
        os.close(real(path, flags, mode))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "open":
            patch.setattr(os, "open", open_and_interrupt)
        else:
            patch.setattr(part_files, "lock_part" if step == "lock" else "_is_at", interrupt)
        with pytest.raises(KeyboardInterrupt):
            PartFile(tmp_path)
    assert list(tmp_path.iterdir()) == []
    if descriptors is not None:
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PartFile(tmp_path / "nowhere")
