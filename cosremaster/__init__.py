"""Remasters bootable ISO images: files are added to the root filesystem inside, everything else stays."""

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
from cosremaster.job import OpenedImage, Request, Result, open, remaster  # noqa: A004 - as gzip.open
from cosremaster.overlay.request import Add, Directory, Inline, Item, Link, Rule
from cosremaster.pipeline import Plan
from cosremaster.progress import Progress

__all__ = [
    "Add",
    "CorruptError",
    "CosremasterError",
    "Directory",
    "ImageError",
    "Inline",
    "Item",
    "LayerError",
    "Link",
    "OpenedImage",
    "OutputError",
    "OverlayError",
    "Plan",
    "Progress",
    "ProofError",
    "RecipeError",
    "Request",
    "Result",
    "Rule",
    "SizeError",
    "UnsupportedError",
    "UsageError",
    "__version__",
    "open",
    "remaster",
]
