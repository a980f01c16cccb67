"""The document of a recipe: the types that validate it and define its JSON Schema (docs/recipe.md).

These types check each value alone. :mod:`cosremaster.recipe.read` checks what needs variables, files or two values.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Strict, Tag

Text: TypeAlias = Annotated[str, Strict()]
Flag: TypeAlias = Annotated[bool, Strict()]

VARIABLE_NAME = "[A-Za-z_][A-Za-z0-9_]*"
VariableName: TypeAlias = Annotated[Text, Field(pattern=f"^{VARIABLE_NAME}$")]
_OR_VARIABLE = r"|\$\{"  # checked once the variable has its value


def _digest(digits: int) -> Any:
    """Return the field for a digest of ``digits`` hexadecimal digits."""
    return Field(
        default=None,
        pattern=f"^[0-9A-Fa-f]{{{digits}}}$" + _OR_VARIABLE,
        description=f"{digits} hexadecimal digits that the input must have; checked before any work.",
    )


class _Table(BaseModel):
    """A table of a recipe. Unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, regex_engine="python-re")


_Owner: TypeAlias = Annotated[Text, Field(description="Who owns it: root, or UID:GID.")]
_OwnerOrSource: TypeAlias = Annotated[
    Text, Field(description="Who owns it: root, source (the numbers found there), or UID:GID.")
]
_Mode: TypeAlias = Annotated[
    Text,
    Field(
        description='Mode as text, as for chmod: "0644", or clauses like "u+x,go-w".',
        pattern="^[0-7]{1,5}$|[-+=]" + _OR_VARIABLE,
    ),
]


class RuleTable(_Table):
    """Owner and mode of the paths that a pattern matches."""

    pattern: Text = Field(
        description="Absolute path; * and ? do not cross /, ** does. The last rule that matches counts."
    )
    owner: _OwnerOrSource | None = None
    mode: _Mode | None = None
    directory_mode: _Mode | None = None


class SourceTable(_Table):
    """A file, or the contents of a directory or an archive."""

    source: Text = Field(description="Where it lies on this machine; - is a tar on standard input.")
    dest: Text | None = Field(
        default=None,
        description="Absolute path. A file goes into it if it ends in / or is a directory there."
        " Without it, contents merge at /.",
    )
    owner: _OwnerOrSource | None = None
    mode: _Mode | None = None
    rules: list[RuleTable] = Field(default=[], description="Owners and modes of single paths.")
    mtree: Text | None = Field(default=None, description="mtree(5) file with owners, modes and nodes of the directory.")
    setuid: Flag | None = Field(
        default=None,
        description="Keep set-user-ID, set-group-ID and sticky bits; else those of an archive whose owners are kept.",
    )
    keep_modes: Flag = Field(default=False, description="Take modes as they are, with what the umask made of them.")
    xattrs: Text = Field(
        default="default",
        description="Extended attributes that are taken over: none, default, all, or names and patterns.",
    )
    unpack: Flag | None = Field(
        default=None, description="Take the file for an archive, or for a mere file; else by its name's ending."
    )
    template: Flag = Field(default=False, description="Put variables into the files; $$ is a dollar in them.")


class FileTable(_Table):
    """A file whose content stands in the recipe."""

    file: Text = Field(description="Absolute path.")
    content: Text = Field(description="What the file holds, as UTF-8.")
    expand: Flag = Field(default=True, description="Put variables into the content; false takes it as it stands.")
    mode: _Mode = "0644"
    owner: _Owner = "root"


class SymlinkTable(_Table):
    """A symlink."""

    symlink: Text = Field(description="Absolute path.")
    target: Text = Field(description="What the symlink says.")
    owner: _Owner = "root"


class DirectoryTable(_Table):
    """A directory; one that is there already keeps its mode and owner."""

    directory: Text = Field(description="Absolute path.")
    mode: _Mode = "0755"
    owner: _Owner = "root"


class ServiceTable(_Table):
    """A systemd unit that starts by itself from now on, as systemctl enable would have it."""

    service: Text = Field(description="The unit's name, as in site.service or getty@tty1.service.")
    wanted_by: Text | None = Field(
        default=None,
        description="Units that want it, separated by spaces. Without it, the [Install] section of the unit counts,"
        " which this recipe must then add from this machine.",
    )
    unit: Text | None = Field(
        default=None,
        description="Absolute path of the unit file in the layer, where this recipe does not add it; else"
        " /lib/systemd/system/NAME.",
    )


ITEMS: dict[str, type[_Table]] = {
    "source": SourceTable,
    "file": FileTable,
    "symlink": SymlinkTable,
    "directory": DirectoryTable,
    "service": ServiceTable,
}
"""The tables that add something to the layer, by the key that only they have."""

ISO_ITEMS = {kind: table for kind, table in ITEMS.items() if table is not ServiceTable}
"""The tables that add something to the ISO's own tree, by their key."""


def _one_of(tables: Mapping[str, type[_Table]]) -> Any:
    """Return the type of a value that is one of ``tables``; the key that only one of them has decides which."""

    def find_kind(value: Any) -> str | None:
        """Return the key that ``value``, a dictionary or a table, has; None without one."""
        keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, _Table) else ()
        return next((kind for kind in tables if kind in keys), None)

    members = (Annotated[table, Tag(kind)] for kind, table in tables.items())
    return Annotated[reduce(operator.or_, members), Discriminator(find_kind)]


if TYPE_CHECKING:
    ItemTable: TypeAlias = _Table
    IsoItemTable: TypeAlias = _Table
else:
    ItemTable = _one_of(ITEMS)
    IsoItemTable = _one_of(ISO_ITEMS)


def _kind_of_duration(value: Any) -> str:
    """Return the tag of a time: a number of seconds, or a text."""
    return "text" if isinstance(value, str) else "number"


_Duration: TypeAlias = Annotated[
    Annotated[Text, Tag("text")] | Annotated[float, Strict(), Field(gt=0), Tag("number")],
    Discriminator(_kind_of_duration),
]


class RunTable(_Table):
    """A script or a command that runs inside the root file system, as what stands above it in the recipe leaves it."""

    script: Text | None = Field(
        default=None, description="The script's path on this machine; empty or /dev/null: none runs."
    )
    command: Text | None = Field(default=None, description="A text for /bin/sh, in place of a script.")
    files: Text | None = Field(
        default=None, description="A folder or file of this machine that the script finds at /run/cosremaster."
    )
    env: dict[VariableName, Text] = Field(default={}, description="Variables for the script.")
    network: Flag = Field(default=False, description="Let the script reach HTTP and HTTPS servers, through a proxy.")
    network_allow: list[Text] = Field(
        default=[], description="Servers on this machine, or at other ports, that it may reach too: localhost:3142."
    )
    timeout: _Duration | None = Field(
        default=None, description='Time after which the script is ended: seconds, or text such as "90s", "30m", "1h".'
    )
    ids: Text = Field(
        default="auto",
        pattern="^(auto|subuid|single)$" + _OR_VARIABLE,
        description="How owners are kept: subuid, single, or auto for the first that works.",
    )
    run_in: Text = Field(
        default="namespace", pattern="^(namespace|vm)$" + _OR_VARIABLE, description="Where it runs: namespace or vm."
    )  # fmt: skip
    clean: Flag = Field(default=False, description="Leave out what builds are known to leave behind.")
    reuse: Flag = Field(
        default=False, description="Take what the script changed the last time it ran in the same file system."
    )


class RenameTable(_Table):
    """Another name for a file or directory of the ISO's own tree."""

    old: Text = Field(description="Its absolute path.")
    new: Text = Field(
        description="The absolute path that it gets; it goes into that, under its own name, if that ends in / or is a"
        " directory."
    )


class VariableTable(_Table):
    """A variable; without a default somebody has to give its value."""

    default: Text | None = None
    help: Text | None = Field(default=None, description="What it is for; told where it has no value.")


def _kind_of_variable(value: Any) -> str:
    """Return the tag of a variable: a table, or the text of its default."""
    return "table" if isinstance(value, dict | VariableTable) else "text"


Variable: TypeAlias = Annotated[
    Annotated[Text, Tag("text")] | Annotated[VariableTable, Tag("table")], Discriminator(_kind_of_variable)
]


def _kind_of_layers(value: Any) -> str:
    """Return the tag of what names layers: an array, or the text of one."""
    return "array" if isinstance(value, list) else "text"


_Layers: TypeAlias = Annotated[
    Annotated[Text, Tag("text")] | Annotated[list[Text], Tag("array")], Discriminator(_kind_of_layers)
]


class ExpectTable(_Table):
    """Digests that the input must have."""

    sha256: Text | None = _digest(64)
    md5: Text | None = _digest(32)


class XzTable(_Table):
    """How xz layers are packed."""

    preset: Annotated[int, Strict()] | None = Field(
        default=None, ge=0, le=9, description="Effort for what has to be encoded; 6 by default."
    )
    always_compress: Flag = Field(default=False, description="Compress also what does not shrink.")


class KernelArgsTable(_Table):
    """Kernel arguments in every boot menu of the image."""

    add: list[Text] = Field(default=[], description="Arguments that each menu gets where it lacks them.")
    remove: list[Text] = Field(default=[], description="Arguments, given whole, that leave.")
    replace: list[Text] = Field(default=[], description="KEY=OLD=NEW: KEY=OLD becomes KEY=NEW.")


class MaasTable(_Table):
    """How MAAS imports the output, a .tar.gz of a root file system."""

    name: Text = Field(description="As in jammy or custom/jammy, without a slash below custom/.")
    title: Text | None = Field(default=None, description="What MAAS shows; the last part of the name by default.")
    architecture: Text | None = Field(
        default=None,
        description="Architecture, as MAAS has it; by default that of its programs, or else amd64/generic.",
    )
    base_image: Text | None = Field(
        default=None,
        description="MAAS' own image that installs it, as in ubuntu/jammy; by default that of an Ubuntu system.",
    )
    profile: Text = Field(default="admin", description="Profile of the maas command.")


class Document(_Table):
    """A recipe of cosremaster: what an image is to become. Paths on this machine are relative to the recipe.

    In every string, ${NAME} is the value of a variable and $$ a dollar.
    """

    input: Text = Field(description="The image to start from.")
    output: Text | None = Field(default=None, description="The image to write, unless the command line names another.")
    layer: _Layers | None = Field(
        default=None,
        description="The layer to change, as in live.cgz::rootfs.cxz, a pattern as in **/initrd*, or all; several in an"
        " array. Without it the layer is found by content.",
    )
    as_layer: Text | None = Field(
        default=None,
        description="Name of a new file system with the changes, which the boot mounts over the root. Excludes layer.",
    )
    expect: ExpectTable = ExpectTable()
    sync: Flag = Field(default=True, description="Wait until the output is on the disk.")
    delta: Flag = Field(
        default=False, description="The output is the difference from the input, for `cosremaster apply` and xdelta3."
    )
    remove: list[Text] = Field(
        default=[],
        description="Patterns of paths that leave, directories with what is in them, before anything is added.",
    )
    allow_missing: Flag = Field(
        default=False,
        description="Go on where a pattern of remove or remove_iso, or a kernel argument to remove or replace, finds"
        " nothing.",
    )
    force_type: Flag = Field(default=False, description="Let what is added replace things of another type.")
    maas_clean: Flag = Field(
        default=False,
        description="Remove host keys, cloud-init's state, apt's caches and *.dpkg-old, and empty the machine-id,"
        " before anything is added.",
    )
    maas: MaasTable | None = Field(
        default=None, description="Write OUTPUT.sha256 too, and print the command that imports the output into MAAS."
    )
    remove_iso: list[Text] = Field(
        default=[],
        description="Patterns of paths that leave the ISO's own tree, before anything on it is renamed or added.",
    )
    rename_iso: list[RenameTable] = Field(
        default=[], description="Other names on the ISO's own tree, given in order, before anything is added to it."
    )
    drop_hfsplus: Flag = Field(
        default=False,
        description="Give up an HFS+ file system over the ISO's own tree where that changes; only old Macs use it.",
    )
    repack: Flag = Field(
        default=False,
        description="Move the data of a squashfs together, so that removed files can no longer be read in it.",
    )
    repack_metadata: Flag = Field(
        default=False,
        description="Write all metadata of a squashfs anew, so that no names of removed files stay in it.",
    )
    supersede: Literal["auto", "never", "always"] = Field(
        default="auto",
        description="Whether the old entry of a replaced file stays in a cpio archive, which saves compressing what"
        " stands behind it.",
    )
    align: Annotated[int, Strict()] | None = Field(
        default=None,
        ge=2048,
        le=1 << 20,
        description="Bytes, a power of two such as 4096: data that move on the ISO move by a multiple of so many, so"
        " that file systems that share blocks can share them with the input.",
    )
    gzip: Literal["zlib", "isal"] = Field(
        default="zlib", description="What packs gzip: isal is faster, makes more bytes, and has to be installed."
    )
    keep_sums: Flag = Field(
        default=False,
        description="Leave lists of sums on the ISO, such as md5sum.txt, as they are, though they become wrong.",
    )
    keep_fat_copies: Flag = Field(
        default=False,
        description="Leave copies of changed files in FAT file systems, such as an EFI system partition, as they are.",
    )
    drop_signatures: Flag = Field(
        default=False,
        description="Remove signatures and dm-verity hashes beside files that change, and the kernel arguments that"
        " demand them.",
    )
    source_date_epoch: Annotated[int, Strict()] | None = Field(
        default=None, ge=0, le=0xFFFFFFFF, description="No added file is newer, in seconds since 1970."
    )
    xz: XzTable = XzTable()
    kernel_args: KernelArgsTable = KernelArgsTable()
    volume_id: Text | None = Field(default=None, description="The volume id that the image gets.")
    volume_date: Text | None = Field(
        default=None,
        description="The volume's modification date: ISO 8601 with time zone, or @ and seconds since 1970.",
    )
    retarget: Flag = Field(
        default=False,
        description="Boot menus that look for the volume by its old id or date look for the new one.",
    )
    variables: dict[VariableName, Variable] = Field(
        default={}, description="Names and defaults of variables; --set and the environment overrule the defaults."
    )
    add: list[ItemTable] = Field(
        default=[], description="What is added, in order: of two things at one path the later one stays."
    )
    run: list[RunTable] = Field(
        default=[],
        description="Scripts and commands that run inside the root file system, each after what stands above it.",
    )
    add_iso: list[IsoItemTable] = Field(
        default=[], description="What is added to the ISO's own tree, in order; a file that is there is exchanged."
    )
