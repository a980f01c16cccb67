"""The seven steps of a remaster and what they pass to each other, for those who want to stand between them.

docs/steps.md goes through them with an example; :mod:`cosremaster.remastering.image` runs them for everybody else.
"""

from cosremaster.boot_config.change import plan_settings
from cosremaster.boot_config.request import Settings, read_settings
from cosremaster.boot_config.values import SettingsPlan
from cosremaster.io.files import FileSource, Spool
from cosremaster.io.output import Output
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan
from cosremaster.iso.model import IsoImage
from cosremaster.layers.address import format_address, parse_address
from cosremaster.layers.cpio.edit import apply_edits
from cosremaster.layers.cpio.newc import MAX_FIELD
from cosremaster.layers.cpio.tree import LayerTree
from cosremaster.layers.find import Found, choose_layer, find_layers
from cosremaster.layers.model import Layer
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.read import Reading, read_additions
from cosremaster.overlay.request import Add, Directory, Inline, Link, Rule
from cosremaster.progress import Progress, Silent
from cosremaster.remastering.iso_tree import Grafts, Rename, plan_grafts
from cosremaster.remastering.pipeline import (
    PackedLayer,
    Packing,
    open_image,
    pack_holders,
    pack_layer,
    plan_overlay,
    plan_result,
    plan_sums,
    size_warnings,
    whole_file,
    with_lists,
    write_image,
)
from cosremaster.tree.nodes import Action, Edits

__all__ = [
    "MAX_FIELD",
    "Action",
    "Add",
    "Directory",
    "Edits",
    "FileSource",
    "Found",
    "Grafts",
    "ImagePlan",
    "Inline",
    "IsoEdits",
    "IsoImage",
    "Layer",
    "LayerTree",
    "Link",
    "Output",
    "PackedLayer",
    "Packing",
    "Pattern",
    "Progress",
    "Reading",
    "Rename",
    "Rule",
    "Settings",
    "SettingsPlan",
    "Silent",
    "Spool",
    "apply_edits",
    "choose_layer",
    "find_layers",
    "format_address",
    "open_image",
    "pack_holders",
    "pack_layer",
    "parse_address",
    "plan_grafts",
    "plan_overlay",
    "plan_result",
    "plan_settings",
    "plan_sums",
    "read_additions",
    "read_settings",
    "size_warnings",
    "whole_file",
    "with_lists",
    "write_image",
]
