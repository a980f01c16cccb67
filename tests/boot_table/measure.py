"""One family: inspected, copied, edited, verified, and booted before and after."""

from __future__ import annotations

import filecmp
from dataclasses import dataclass, field
from pathlib import Path

from cosremaster.cli import main
from cosremaster.io.source import open_source
from cosremaster.iso.read import read_image
from cosremaster.verification.run import verify
from tests.fixtures import families
from tests.fixtures.families import Family, Way
from tests.support import qemu

NEW_WORDS = "COSREMASTER-OTHER-WORDS"
LARGE = 1 << 30
"""A file that is larger is not exchanged here: it would take long and show nothing else."""

TIMEOUT = 60
"""Seconds after which an image has said nothing; those that boot take less than five."""

QUIET: dict[str, tuple[str, tuple[Way, ...]]] = {
    "memtest86+": ("efi_setup() failed", (("uefi", "disc"), ("uefi", "disk"))),
}
"""More ways that a family boots, and what it says there: memtest86+ says on UEFI that it found no screen."""

ALLOWED = {"grub-mkrescue": {"against.gpt"}}
"""What differs on purpose: the HFS+ that is given up was a GPT partition."""


@dataclass
class Row:
    """A family's marks. ``boots``: way -> before, after (None: it could not be edited)."""

    made: str
    inspect: bool = False
    copy: bool = False
    edit: str = ""
    verify: bool = False
    boots: dict[str, tuple[bool, bool | None]] = field(default_factory=dict)


def measure(name: str, folder: Path) -> Row:
    """All marks of one family; ``folder`` is for its copies."""
    row, edited = marks(name, folder)
    family = families.FAMILIES[name]
    for way, (before, after) in ways(family).items():
        now = heard(edited, way, after) if edited else None
        row.boots[" ".join(way)] = heard(families.build(name), way, before), now
    return row


def marks(name: str, folder: Path) -> tuple[Row, Path | None]:
    """The marks that need no boot, and the edited image."""
    family, image = families.FAMILIES[name], families.build(name)
    row = Row(family.made)
    row.inspect = main(["inspect", str(image)]) == 0
    copy = folder / "copy.iso"
    row.copy = main(["--quiet", str(image), str(copy)]) == 0 and filecmp.cmp(image, copy, shallow=False)
    copy.unlink(missing_ok=True)
    row.edit, edited, changed = edit(family, image, folder)
    sound = verify(image).ok
    if edited:
        report = verify(edited, against=image, changed=changed)
        row.verify = sound and {one.check for one in report.findings if one.is_counted} <= ALLOWED.get(name, set())
    else:
        row.verify = sound
    return row, edited


def edit(family: Family, image: Path, folder: Path) -> tuple[str, Path | None, list[bytes]]:
    """What came of exchanging files by longer ones (or, where that is refused, ones as long), the new image, and
    the paths of the files."""
    target = folder / "edited.iso"
    for mark, same in (("yes", False), ("same size", True)):
        arguments, changed = _exchange(family, image, folder, same)
        for extra, suffix in (([], ""), (["--drop-hfsplus"], ", HFS+ given up")):
            if main(["--quiet", str(image), str(target), *arguments, *extra]) == 0:
                return mark + suffix, target, changed
    return "refused", None, []


def _exchange(family: Family, image: Path, folder: Path, same: bool) -> tuple[list[str], list[bytes]]:
    """The options that exchange files of the family, and their paths."""
    arguments, changed = list[str](), list[bytes]()
    with open_source(image) as source:
        opened = read_image(source)
        for file in opened.files:
            path = file.path.decode("utf-8", "replace")
            says = (family.says or {}).get(path)
            if says is not None:
                data = says(NEW_WORDS)
            elif path in family.exchange and file.size < LARGE:
                data = b"".join(opened.bytes_of(file).chunks())
                data = data[:-9] + b"exchanged" if same else data  # longer ones may be needed to boot
            else:
                continue
            data = data.ljust(file.size, b"\n")[: file.size] if same else data.ljust(file.size + 60_000, b"\n")
            made = folder / f"new-{len(changed)}"
            made.write_bytes(data)
            arguments += ["--add-iso", f"{made}:/{path}"]
            changed.append(path.encode())
    return arguments, changed


def ways(family: Family) -> dict[Way, tuple[str, str]]:
    """Every way that the family boots, with what is heard before and after the edit."""
    found = dict.fromkeys(family.boots, (family.hears, NEW_WORDS if family.says else family.hears))
    said, more = QUIET.get(family.name, ("", ()))
    return found | dict.fromkeys(more, (said, said))


def heard(image: Path, way: Way, words: str) -> bool:
    """True when the image prints ``words`` when it is booted."""
    firmware, medium = way
    try:
        qemu.boot(image, firmware=firmware, medium=medium, memory_mb=512, timeout=TIMEOUT, until=words)
    except AssertionError:
        return False
    return True
