"""Images of the families, with files of them replaced."""

from __future__ import annotations

from pathlib import Path

from cosremaster import remaster
from tests.fixtures import families, tools

HFS = ("grub-mkrescue",)


def image(name: str) -> Path:
    tools.require(*families.TOOLS)
    return families.build(name)


def source(folder: Path, data: bytes) -> Path:
    path = folder / "new-content"
    path.write_bytes(data)
    return path


def exchanged(iso: Path, target: Path, path: str, data: bytes, **options: bool) -> None:
    result = remaster(iso, target, add_iso=[f"{source(target.parent, data)}:/{path}"], **options)  # type: ignore[arg-type]
    assert result.iso_exchanged == (path.encode(),)
