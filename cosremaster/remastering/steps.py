"""The steps of a remaster and the values that they pass on, for programs that call them one by one.

docs/steps.md goes through them with an example. They are the functions that
:func:`cosremaster.remastering.plan.plan_remaster` calls, in the same order.
"""

from cosremaster.io.output import Output
from cosremaster.io.source import open_source
from cosremaster.layers.address import format_address, parse_address
from cosremaster.layers.find import find_layers
from cosremaster.remastering.context import RemasterContext
from cosremaster.remastering.fat_changes import plan_fat_overlays, plan_fats
from cosremaster.remastering.iso_tree import plan_iso_tree
from cosremaster.remastering.open import open_image
from cosremaster.remastering.pack import Packing, pack_layer, rebuilt_file, repack_containers
from cosremaster.remastering.plan import plan_checksums, plan_new_image, plan_settings, with_checksum_lists
from cosremaster.remastering.plan_layers import layer_warnings, plan_overlay, prepare_overlay, replace_layer_file
from cosremaster.remastering.request import Request, normalize_request
from cosremaster.remastering.select_layers import select_layers
from cosremaster.remastering.write import write_image
from cosremaster.tree.nodes import Action

__all__ = [
    "Action",
    "Output",
    "Packing",
    "RemasterContext",
    "Request",
    "find_layers",
    "format_address",
    "layer_warnings",
    "normalize_request",
    "open_image",
    "open_source",
    "pack_layer",
    "parse_address",
    "plan_checksums",
    "plan_fat_overlays",
    "plan_fats",
    "plan_iso_tree",
    "plan_new_image",
    "plan_overlay",
    "plan_settings",
    "prepare_overlay",
    "rebuilt_file",
    "repack_containers",
    "replace_layer_file",
    "select_layers",
    "with_checksum_lists",
    "write_image",
]
