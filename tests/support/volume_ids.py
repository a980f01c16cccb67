"""An image whose boot menu looks for its volume by id and date."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosremaster import remaster
from tests.fixtures import debirf, tools
from tests.fixtures.tools import run

ID = "Site 7 of the ring"


DATE, UUID = "2026-11-26T12:00:00.25+01:00", "2026-11-26-11-00-00-25"


def menu_by_name(uuid: str) -> bytes:
    """A grub.cfg that finds kernel and initramfs by the volume's id and by its date."""
    return f"""\
serial --unit=0 --speed=115200
terminal_output serial
set timeout=0
# search --label DEBIAN_LIVE
search --no-floppy --set=one --label DEBIAN_LIVE
search --no-floppy --set=two --fs-uuid {uuid}
menuentry "DEBIAN_LIVE" {{
    linux ($one)/vmlinuz console=ttyS0 panic=-1 quiet root=live:CDLABEL=DEBIAN_LIVE
    initrd ($two)/{debirf.CGZ}
}}
""".encode()


@pytest.fixture(scope="session")
def by_name(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The debirf image with such a menu."""
    tools.require(*debirf.TOOLS)
    folder, base = tmp_path_factory.mktemp("by-name"), debirf.build().iso
    (folder / "grub.cfg").write_bytes(menu_by_name(blkid(base)["UUID"]))
    remaster(base, folder / "in.iso", add_iso=[f"{folder}/grub.cfg:/boot/grub/grub.cfg"])
    return folder / "in.iso"


def blkid(iso: Path) -> dict[str, str]:
    """What libblkid says of the volume."""
    lines = run(["blkid", "-p", "-o", "export", iso]).decode().splitlines()
    return dict(line.replace("\\", "").split("=", 1) for line in lines if "=" in line)
