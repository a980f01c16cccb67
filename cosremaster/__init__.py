"""Remasters bootable ISO images: files are added to the root filesystem inside, everything else stays."""

from cosremaster.errors import (
    CorruptError,
    CosremasterError,
    ImageError,
    LayerError,
    OutputError,
    OverlayError,
    ProofError,
    SizeError,
    UnsupportedError,
    UsageError,
)
from cosremaster.overlay.request import Add
from cosremaster.pipeline import Result, remaster
from cosremaster.progress import Progress

__version__ = "0.1.0"

__all__ = [
    "Add",
    "CorruptError",
    "CosremasterError",
    "ImageError",
    "LayerError",
    "OutputError",
    "OverlayError",
    "Progress",
    "ProofError",
    "Result",
    "SizeError",
    "UnsupportedError",
    "UsageError",
    "remaster",
]
