"""The seven steps of a remaster and what they pass to each other, for those who want to stand between them.

docs/steps.md goes through them with an example; :mod:`cosremaster.remastering.image` runs them for everybody else.
"""

from cosremaster.boot_config.change import plan_boot_settings
from cosremaster.boot_config.request import BootSettings, read_boot_settings
from cosremaster.boot_config.values import BootSettingsPlan
from cosremaster.io.output import Output
from cosremaster.io.source import open_source
from cosremaster.io.spool import Spool
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan
from cosremaster.iso.model import IsoImage
from cosremaster.layers.address import format_address, parse_address
from cosremaster.layers.cpio.edit import LIMITS, apply_edits
from cosremaster.layers.cpio.tree import LayerTree
from cosremaster.layers.find import ImageLayers, choose_layer, find_layers
from cosremaster.layers.model import Layer
from cosremaster.overlay.items import ReadContext, prepare_items
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.request import AddPath, Directory, InlineFile, OwnershipRule, Symlink
from cosremaster.progress import Progress, SilentProgress
from cosremaster.remastering.iso_tree import IsoTreeRequest, Rename, plan_iso_tree
from cosremaster.remastering.pipeline import (
    PackedLayer,
    Packing,
    open_image,
    pack_layer,
    plan_checksums,
    plan_overlay,
    plan_result,
    rebuilt_file,
    repack_containers,
    size_warnings,
    with_checksum_lists,
    write_image,
)
from cosremaster.tree.nodes import Action, Edits

__all__ = [
    "LIMITS",
    "Action",
    "AddPath",
    "BootSettings",
    "BootSettingsPlan",
    "Directory",
    "Edits",
    "ImageLayers",
    "ImagePlan",
    "InlineFile",
    "IsoEdits",
    "IsoImage",
    "IsoTreeRequest",
    "Layer",
    "LayerTree",
    "Output",
    "OwnershipRule",
    "PackedLayer",
    "Packing",
    "Pattern",
    "Progress",
    "ReadContext",
    "Rename",
    "SilentProgress",
    "Spool",
    "Symlink",
    "apply_edits",
    "choose_layer",
    "find_layers",
    "format_address",
    "open_image",
    "open_source",
    "pack_layer",
    "parse_address",
    "plan_boot_settings",
    "plan_checksums",
    "plan_iso_tree",
    "plan_overlay",
    "plan_result",
    "prepare_items",
    "read_boot_settings",
    "rebuilt_file",
    "repack_containers",
    "size_warnings",
    "with_checksum_lists",
    "write_image",
]
