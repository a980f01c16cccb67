"""Remasters bootable ISO images: files are added to the root filesystem inside, everything else stays."""

import importlib
from typing import TYPE_CHECKING, Any

from cosremaster.__about__ import __version__
from cosremaster.errors import (
    CorruptError,
    CosremasterError,
    ImageError,
    LayerError,
    OutputError,
    OverlayError,
    ProofError,
    RecipeError,
    SizeError,
    UnsupportedError,
    UsageError,
)

if TYPE_CHECKING:
    from cosremaster.overlay.request import AddPath, Directory, InlineFile, OverlayItem, OwnershipRule, Symlink
    from cosremaster.progress import Progress
    from cosremaster.remastering.image import OpenedImage, open, remaster  # noqa: A004 - as gzip.open
    from cosremaster.remastering.plan import RemasterPlan
    from cosremaster.remastering.request import Request
    from cosremaster.remastering.result import Result

_HOMES = {
    "cosremaster.remastering.image": ("OpenedImage", "open", "remaster"),
    "cosremaster.overlay.request": ("AddPath", "Directory", "InlineFile", "OverlayItem", "OwnershipRule", "Symlink"),
    "cosremaster.remastering.plan": ("RemasterPlan",),
    "cosremaster.progress": ("Progress",),
    "cosremaster.remastering.request": ("Request",),
    "cosremaster.remastering.result": ("Result",),
}


def __getattr__(name: str) -> Any:
    """What is loaded when it is first asked for (PEP 562): commands that only look need none of it."""
    for module, names in _HOMES.items():
        if name in names:
            found = globals()[name] = getattr(importlib.import_module(module), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AddPath",
    "CorruptError",
    "CosremasterError",
    "Directory",
    "ImageError",
    "InlineFile",
    "LayerError",
    "OpenedImage",
    "OutputError",
    "OverlayError",
    "OverlayItem",
    "OwnershipRule",
    "Progress",
    "ProofError",
    "RecipeError",
    "RemasterPlan",
    "Request",
    "Result",
    "SizeError",
    "Symlink",
    "UnsupportedError",
    "UsageError",
    "__version__",
    "open",
    "remaster",
]
