"""The seven steps of a remaster and what they pass to each other, for those who want to stand between them.

docs/steps.md goes through them with an example; :mod:`cosremaster.job` runs them for everybody else.
"""

from cosremaster.cpio import MAX_FIELD
from cosremaster.files import FileSource, Spool
from cosremaster.grafts import Grafts, Rename, plan_grafts
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan
from cosremaster.iso.model import Image
from cosremaster.layers.address import format_address, parse_address
from cosremaster.layers.edit import apply_edits
from cosremaster.layers.index import Layer
from cosremaster.layers.tree import LayerTree
from cosremaster.nodes import Action, Edits
from cosremaster.output import Output
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.read import Reading, read_additions
from cosremaster.overlay.request import Add, Directory, Inline, Link, Rule
from cosremaster.pipeline import (
    Found,
    PackedLayer,
    Packing,
    choose_layer,
    find_layers,
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
from cosremaster.progress import Progress, Silent
from cosremaster.settings.change import plan_settings
from cosremaster.settings.request import Settings, read_settings
from cosremaster.settings.values import SettingsPlan

__all__ = [
    "MAX_FIELD",
    "Action",
    "Add",
    "Directory",
    "Edits",
    "FileSource",
    "Found",
    "Grafts",
    "Image",
    "ImagePlan",
    "Inline",
    "IsoEdits",
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
