"""What help shows beside click's own: two examples for each command, and options in sections. Loaded for help alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import click

Rows: TypeAlias = list[tuple[str, str]]

MANY = 12
"""Options of a command that can be read in one list."""

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "remaster": (
        ("cosremaster vendor.iso site.iso --add site/", "What is in the folder site/ merges at / of the root."),
        ("cosremaster vendor.iso site.iso --run setup.sh --kernel-arg console=ttyS0",
         "Run a script inside the root, and let every boot menu use the serial console."),
    ),
    "plan": (
        ("cosremaster plan vendor.iso --add site/", "What would be added, replaced and compressed."),
        ("cosremaster plan vendor.iso --remove '/usr/share/doc/**' --json", "The same as JSON, for programs."),
    ),
    "build": (
        ("cosremaster build site.toml", "Make the output that the recipe names."),
        ("cosremaster build site.toml --set HOST=web1 --output web1.iso", "Another value of a variable."),
    ),
    "fleet": (
        ("cosremaster fleet fleet.toml --plan", "Which images are current, and which would be made."),
        ("cosremaster fleet fleet.toml --only web1 --jobs 2", "One site alone."),
    ),
    "shell": (
        ("cosremaster shell vendor.iso site.iso", "Change files by hand; `exit` writes the image, `exit 1` nothing."),
        ("cosremaster shell vendor.iso site.iso --add site/ --network", "The same with files added before."),
    ),
    "prepare": (
        ("cosremaster prepare vendor.iso base.iso", "A base of which each change costs little."),
        ("cosremaster prepare vendor.iso base.iso --block-size 1M", "Smaller blocks: quicker changes, a larger image."),
    ),
    "apply": (
        ("cosremaster vendor.iso site.delta --add site/ --delta", "The difference in place of an image."),
        ("cosremaster apply vendor.iso site.delta site.iso", "The image that it makes."),
    ),
    "pack": (
        ("cosremaster pack root/ root.squashfs", "A squashfs from a folder."),
        ("cosremaster pack root/ site/:/opt initrd.cpio.zst", "A cpio archive from two, under zstd."),
    ),
    "inspect": (
        ("cosremaster inspect vendor.iso --deep", "Boot records, partitions, and each layer with codec and size."),
        ("cosremaster inspect site.iso --against vendor.iso --html site.html", "A page about what changed."),
    ),
    "ls": (
        ("cosremaster ls -lh vendor.iso", "The ISO's own tree, with sizes for people."),
        ("cosremaster ls vendor.iso::live/initrd.img::etc", "A directory of the initramfs in it."),
    ),
    "tree": (
        ("cosremaster tree vendor.iso -L 2", "Two levels of everything, archives entered."),
        ("cosremaster tree vendor.iso::@root::etc/systemd", "A directory of the root file system."),
    ),
    "stat": (
        ("cosremaster stat vendor.iso::vmlinuz", "Mode, size, SHA-256, and the blocks in which the file lies."),
        ("cosremaster stat vendor.iso::@root::etc/passwd --json", "The same of a file in a layer, as JSON."),
    ),
    "cat": (
        ("cosremaster cat vendor.iso::boot/grub/grub.cfg", "A file of the ISO."),
        ("cosremaster cat vendor.iso::@root::etc/os-release", "A file of the root file system, wherever that lies."),
    ),
    "find": (
        ("cosremaster find vendor.iso '**/*.service'", "Units in all layers."),
        ("cosremaster find vendor.iso::@root '/etc/**/*.conf' --json", "Settings of the root file system, as JSON."),
    ),
    "diff": (
        ("cosremaster diff vendor.iso site.iso", "A line for each path that differs, in all layers."),
        ("cosremaster diff --text vendor.iso::@root::etc site.iso::@root::etc", "Two directories, line by line."),
    ),
    "verify": (
        ("cosremaster verify site.iso --against vendor.iso", "What was right in vendor.iso has to be right still."),
        ("cosremaster verify site.iso --deep --digest", "Every layer decoded, and site.iso.sha256 compared."),
    ),
    "extract": (
        ("cosremaster extract vendor.iso::@root root/", "The root file system into a new folder."),
        ("cosremaster extract vendor.iso::@root - --as tar", "The same as a tar archive on standard output."),
    ),
    "export": (
        ("cosremaster export vendor.iso --maas apollo", "The root file system as an archive for MAAS."),
        ("cosremaster export vendor.iso --pxe tftp/", "Kernel, initramfs and an iPXE script."),
    ),
    "serve": (
        ("cosremaster serve fleet.toml", "The images of a fleet at http://127.0.0.1:8080/."),
        ("cosremaster serve recipes/ --listen 0.0.0.0:8080 --token-file tokens", "Recipes, for machines with a token."),
    ),
    "index": (
        ("cosremaster index vendor.iso", "Read all layers once."),
        ("cosremaster index vendor.iso --check-index", "The same; a remembered index counts after a comparison alone."),
    ),
    "cache": (
        ("cosremaster cache list", "What is remembered, of which images."),
        ("cosremaster cache clear", "Remove it all; it costs nothing but time."),
    ),
    "completion": (
        ("cosremaster completion bash --install", "For every new bash of this user."),
        ("cosremaster completion zsh", "Print the script."),
    ),
    "man": (
        ("cosremaster man ~/.local/share/man/man1", "For this user; `man cosremaster-ls` shows one then."),
        ("cosremaster man man1", "Into a folder, for a package."),
    ),
    "demo": (
        ("cosremaster demo", "Build, remaster and prove an image in a temporary folder."),
        ("cosremaster demo --keep demo", "The same, and keep the images in demo/."),
    ),
}  # fmt: skip
"""Of each command: lines as they are typed, and what they do."""

_SECTIONS = {
    "What is added": (
        "add", "add_file", "owner", "mode", "keep_modes", "setuid", "xattrs", "mtree", "force_type",
    ),
    "Scripts": (
        "scripts", "run_files", "run_env", "run_ids", "run_in", "network", "network_allow", "run_dir", "timeout",
        "clean", "reuse_runs",
    ),
    "What is removed": ("remove", "maas_clean", "allow_missing"),
    "The ISO's own tree": (
        "add_iso", "remove_iso", "rename_iso", "drop_hfsplus", "keep_sums", "keep_fat_copies", "drop_signatures",
    ),
    "Boot menus and volume": (
        "kernel_args", "remove_kernel_args", "replace_kernel_args", "volume_id", "volume_date", "retarget",
    ),
    "Layers and compression": (
        "layer", "as_layer", "threads", "xz_preset", "gzip", "always_compress", "repack", "repack_metadata",
        "supersede", "align", "compression", "block_size",
    ),
    "What is read": ("check_index", "max_expand", "expect"),
    "What is written": (
        "digest", "report", "force", "sync", "read_back", "delta", "plain", "output", "output_dir", "progress",
        "as_json", "only_plan",
    ),
}  # fmt: skip
"""Titles, and the parameters of commands with many options that stand below them."""

_COMMON = ("quiet", "verbose", "color", "help")


def write_examples(name: str, formatter: click.HelpFormatter) -> None:
    """Write the examples of the command ``name``, if it has some."""
    if name in EXAMPLES:
        with formatter.section("Examples"):
            for line, text in EXAMPLES[name]:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
                formatter.indent()
                formatter.indent()
                formatter.write_text(text)
                formatter.dedent()
                formatter.dedent()


def sort_options(parameters: Sequence[click.Parameter], ctx: click.Context) -> Iterator[tuple[str, Rows]]:
    """Yield titles, and below each the options among ``parameters``: their names and values, and their help."""
    rows: dict[str, tuple[str, str]] = {}
    for option in parameters:
        row = option.get_help_record(ctx) if isinstance(option, click.Option) else None
        if row is not None:
            rows["help" if "--help" in option.opts else option.name or ""] = row
    own = [name for name in rows if name not in _COMMON]
    sections = _SECTIONS if len(own) > MANY else {}
    named = {name for names in sections.values() for name in names}
    yield "Options", [rows[name] for name in own if name not in named]
    for title, names in sections.items():
        yield title, [rows[name] for name in names if name in own]
    yield "For every command", [rows[name] for name in _COMMON if name in rows]
