"""A site's overlay on the debirf image, remastered once for a session by an ordinary user."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures import debirf, tools
from tests.fixtures.debirf import DebirfImage, Recipe
from tests.fixtures.tools import EPOCH
from tests.support.user import User, ordinary_user

SITE_LINE = "SITE-SCRIPT-OF-THE-OVERLAY-RAN"
SITE_SCRIPT = f"#!/bin/sh\necho {SITE_LINE}\n/usr/bin/site-tool\n"


SITE_TOOL = "#!/bin/sh\necho SITE-TOOL-FOUND-IN-USR-BIN\n"


PAYLOAD = random.Random(1).randbytes(300_000)


ADDED = {
    b"data": (0o040755, None),
    b"data/platform": (0o040755, None),
    b"data/platform/payload.bin": (0o100600, PAYLOAD),
    b"etc/hostname": (0o100640, b"headend-7\n"),
    b"etc/site-link": (0o120777, b"/data/platform"),
    b"root/site.sh": (0o100755, SITE_SCRIPT.encode()),
    b"usr/bin/site-tool": (0o100755, SITE_TOOL.encode()),
    b"usr/share/zoneinfo/Zulu": (0o100644, b"not linked any more\n"),
}
"""What the overlay puts where: mode, and bytes or link target."""


@dataclass(frozen=True)
class Remastered:
    """The image with an overlay in it, and the overlay's folder."""

    iso: Path
    overlay: Path
    printed: str


@pytest.fixture(scope="session")
def user() -> Iterator[User]:
    """Somebody without root."""
    with ordinary_user() as one:
        yield one


@pytest.fixture(scope="session")
def base(user: User) -> DebirfImage:
    """The real-tools image that lists its tree when it boots, where the user can read it."""
    tools.require(*debirf.TOOLS)
    built = debirf.build(recipe=Recipe(list_tree=True))
    copy = user.home / "in.iso"
    copy.write_bytes(built.iso.read_bytes())
    copy.chmod(0o444)
    return DebirfImage(copy, built.rootfs_cpio)


def write_overlay(folder: Path) -> None:
    """Files of every sort that an overlay has, all with the fixture's time."""
    files: dict[str, tuple[str | bytes, int]] = {
        "root/site.sh": (SITE_SCRIPT, 0o755),
        "bin/site-tool": (SITE_TOOL, 0o755),
        "etc/hostname": ("headend-7\n", 0o640),
        "etc/os-release": ('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n', 0o644),
        "data/platform/payload.bin": (PAYLOAD, 0o600),
        "usr/share/zoneinfo/Zulu": ("not linked any more\n", 0o644),
    }
    for name, (data, mode) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        path.chmod(mode)
    (folder / "etc/site-link").symlink_to("/data/platform")
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


@pytest.fixture(scope="session")
def remastered(user: User, base: DebirfImage) -> Remastered:
    """The main job, as the user, with an empty PATH."""
    overlay, target = user.home / "overlay", user.home / "out.iso"
    write_overlay(overlay)
    user.own(overlay)
    before = hashlib.sha256(base.iso.read_bytes()).digest()
    done = user.run(base.iso, target, "--add", f"{overlay}/")
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(base.iso.read_bytes()).digest() == before
    assert sorted(path.name for path in user.home.iterdir()) == ["in.iso", "out.iso", "overlay"]
    return Remastered(target, overlay, done.stdout)
