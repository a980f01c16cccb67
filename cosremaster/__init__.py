"""Remaster bootable images: add files to the root file system inside, and leave everything else as it is.

What ``__all__`` lists here, and :mod:`cosremaster.recipe`, is public (docs/api.md); everything else may change at any
time.
"""

from __future__ import annotations

from cosremaster.__about__ import __version__

TYPE_CHECKING = False
"""As in typing, which is not loaded: until the program runs, Ctrl-C ends in a traceback of Python's own."""

if TYPE_CHECKING:
    from typing import Any

    from cosremaster.api.delta import Applied, apply
    from cosremaster.api.functions import diff, export, extract, inspect, ls, read, verify
    from cosremaster.api.image import Image, open  # noqa: A004 - as gzip.open
    from cosremaster.api.info import ArchiveInfo, FilesystemInfo, ImageInfo, LayerInfo
    from cosremaster.api.keywords import RemasterOptions, plan, remaster
    from cosremaster.api.many import BaseOptions, Site, SiteResult, remaster_many
    from cosremaster.api.pack import pack
    from cosremaster.api.results import ChangedLayer, Changes, Plan, Preparation, PreparedLayer, Result
    from cosremaster.api.views import Export, Extraction
    from cosremaster.boot_config.menu_change import MenuChange
    from cosremaster.boot_config.menus.arguments import LineChange
    from cosremaster.boot_memory.estimate import MemoryEstimate
    from cosremaster.boot_memory.live_systems import LiveMemory
    from cosremaster.browse.compare import Difference
    from cosremaster.browse.entry import FileEntry
    from cosremaster.browse.export import MaasResource, RootArchive
    from cosremaster.browse.system_archives import ContainerImage, LxdImage
    from cosremaster.checksums.renew import ListChange
    from cosremaster.errors import (
        CorruptError,
        CosremasterError,
        ImageError,
        LayerError,
        OutputError,
        OverlayError,
        Place,
        ProofError,
        RecipeError,
        SandboxError,
        ScriptError,
        SizeError,
        UnsupportedError,
        UsageError,
    )
    from cosremaster.io.frozen import BaseRange, OriginSizes
    from cosremaster.overlay.leftovers import Leftover
    from cosremaster.overlay.request import (
        AddPath,
        Directory,
        InlineFile,
        OverlayItem,
        OwnershipRule,
        RunScript,
        Symlink,
    )
    from cosremaster.overlay.run_outcome import ScriptOutcome
    from cosremaster.progress import Progress
    from cosremaster.progress.measured import MeasuredProgress
    from cosremaster.remastering.delta import DeltaFacts, EarlyChange
    from cosremaster.remastering.pack import PackedLayer
    from cosremaster.remastering.prepared import Prepared
    from cosremaster.remastering.request import Request
    from cosremaster.remastering.size_files import SizeChange
    from cosremaster.verification.finding import Finding, Level, VerificationReport

_MODULES = {
    "boot_config.menus.arguments": ("LineChange",),
    "boot_config.menu_change": ("MenuChange",),
    "boot_memory.estimate": ("MemoryEstimate",),
    "boot_memory.live_systems": ("LiveMemory",),
    "browse.compare": ("Difference",),
    "browse.entry": ("FileEntry",),
    "browse.export": ("MaasResource", "RootArchive"),
    "browse.system_archives": ("ContainerImage", "LxdImage"),
    "checksums.renew": ("ListChange",),
    "errors": (
        "CorruptError",
        "CosremasterError",
        "ImageError",
        "LayerError",
        "OutputError",
        "OverlayError",
        "Place",
        "ProofError",
        "RecipeError",
        "SandboxError",
        "ScriptError",
        "SizeError",
        "UnsupportedError",
        "UsageError",
    ),
    "api.delta": ("Applied", "apply"),
    "api.functions": ("diff", "export", "extract", "inspect", "ls", "read", "verify"),
    "api.image": ("Image", "open"),
    "api.keywords": ("RemasterOptions", "plan", "remaster"),
    "api.many": ("BaseOptions", "Site", "SiteResult", "remaster_many"),
    "api.pack": ("pack",),
    "io.frozen": ("BaseRange", "OriginSizes"),
    "overlay.leftovers": ("Leftover",),
    "overlay.request": (
        "AddPath",
        "Directory",
        "InlineFile",
        "OverlayItem",
        "OwnershipRule",
        "RunScript",
        "Symlink",
    ),
    "overlay.run_outcome": ("ScriptOutcome",),
    "progress": ("Progress",),
    "progress.measured": ("MeasuredProgress",),
    "remastering.delta": ("DeltaFacts", "EarlyChange"),
    "remastering.pack": ("PackedLayer",),
    "remastering.prepared": ("Prepared",),
    "remastering.request": ("Request",),
    "remastering.size_files": ("SizeChange",),
    "api.info": ("ArchiveInfo", "FilesystemInfo", "ImageInfo", "LayerInfo"),
    "api.results": ("ChangedLayer", "Changes", "Plan", "Preparation", "PreparedLayer", "Result"),
    "verification.finding": ("Finding", "Level", "VerificationReport"),
    "api.views": ("Export", "Extraction"),
}  # fmt: skip
"""The module of each public name that is loaded on first use."""


def __getattr__(name: str) -> Any:
    """Load the public ``name`` (PEP 562): programs that only look at an image need little of the package."""
    from importlib import import_module  # noqa: PLC0415 - as above

    for module, names in _MODULES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"cosremaster.{module}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AddPath",
    "Applied",
    "ArchiveInfo",
    "BaseOptions",
    "BaseRange",
    "ChangedLayer",
    "Changes",
    "ContainerImage",
    "CorruptError",
    "CosremasterError",
    "DeltaFacts",
    "Difference",
    "Directory",
    "EarlyChange",
    "Export",
    "Extraction",
    "FileEntry",
    "FilesystemInfo",
    "Finding",
    "Image",
    "ImageError",
    "ImageInfo",
    "InlineFile",
    "LayerError",
    "LayerInfo",
    "Leftover",
    "Level",
    "LineChange",
    "ListChange",
    "LiveMemory",
    "LxdImage",
    "MaasResource",
    "MeasuredProgress",
    "MemoryEstimate",
    "MenuChange",
    "OriginSizes",
    "OutputError",
    "OverlayError",
    "OverlayItem",
    "OwnershipRule",
    "PackedLayer",
    "Place",
    "Plan",
    "Preparation",
    "Prepared",
    "PreparedLayer",
    "Progress",
    "ProofError",
    "RecipeError",
    "RemasterOptions",
    "Request",
    "Result",
    "RootArchive",
    "RunScript",
    "SandboxError",
    "ScriptError",
    "ScriptOutcome",
    "Site",
    "SiteResult",
    "SizeChange",
    "SizeError",
    "Symlink",
    "UnsupportedError",
    "UsageError",
    "VerificationReport",
    "__version__",
    "apply",
    "diff",
    "export",
    "extract",
    "inspect",
    "ls",
    "open",
    "pack",
    "plan",
    "read",
    "remaster",
    "remaster_many",
    "verify",
]
