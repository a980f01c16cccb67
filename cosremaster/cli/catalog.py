"""Which commands there are, in the sections in which help shows them. Nothing here loads click."""

from __future__ import annotations

DEFAULT = "remaster"
"""The command that is meant where the first word is none: ``cosremaster IN OUT``."""

SECTIONS = (
    ("Make images", {
        "remaster": ("commands", "remaster_command", "Write IN to OUT with changes. This word may be left out."),
        "plan": ("commands", "plan_command", "Tell what a remaster would do, without writing it."),
        "build": ("build", "build_command", "Make the image that a recipe (TOML) describes."),
        "fleet": ("fleet", "fleet_command", "Make the images of many sites from one base."),
        "shell": ("shell", "shell_command", "Change the root file system by hand, in a shell inside it."),
        "prepare": ("prepare", "prepare_command", "Make a base of which later changes cost little."),
        "apply": ("apply", "apply_command", "Make an image from its base and a delta."),
        "pack": ("pack", "pack_command", "Make an archive or a file system from folders."),
    }),
    ("Look into images", {
        "inspect": ("inspect", "inspect_command", "Show what an image is made of, also as a page."),
        "ls": ("look", "ls_command", "List a directory, an image or an archive in it."),
        "tree": ("look", "tree_command", "Show everything below as a tree, through all layers."),
        "stat": ("look", "stat_command", "Show all that is known about an entry, and where its bytes lie."),
        "cat": ("look", "cat_command", "Write the bytes of a file to standard output."),
        "find": ("look", "find_command", "Find paths by a pattern, in all layers."),
        "diff": ("diff", "diff_command", "Compare two images, or anything in them."),
        "verify": ("verify", "verify_command", "Check every pointer of an image, and where it leads."),
    }),
    ("Take out and hand on", {
        "extract": ("look", "extract_command", "Take files out, into a folder or a tar archive."),
        "export": ("export", "export_command", "Write a root file system or a boot for MAAS, LXD, Docker or PXE."),
        "serve": ("serve", "serve_command", "Serve the images of sites over HTTP, without writing them."),
    }),
    ("Around it", {
        "index": ("commands", "index_command", "Read an image once, so that later runs need not."),
        "cache": ("cache", "cache_command", "List, remove or locate remembered indexes."),
        "completion": ("completion", "completion_command", "Let bash, zsh or fish complete, also inside images."),
        "man": ("man", "man_command", "Write the man pages."),
        "demo": ("commands", "demo_command", "Build a small image and remaster it."),
    }),
)  # fmt: skip
"""Each section's title, and its commands: module, function and a line about it."""

COMMANDS = {name: entry for _, entries in SECTIONS for name, entry in entries.items()}
"""Module, function and line of each command; anything else is the image that is to be remastered."""
