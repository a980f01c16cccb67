"""Live systems in the manner of Fedora and of live-build, built whole by dracut and live-build: slow."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.fixtures import live_build, liveos, roots, tools
from tests.support import qemu
from tests.support.live_site import assert_report, edit_image
from tests.support.user import User

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ZONES = "usr/share/zoneinfo"


def test_a_flat_root_of_dracut_boots_after_an_edit(user: User) -> None:
    tools.require(*liveos.TOOLS, *qemu.TOOLS)
    roots.require_root()
    out = edit_image(user, liveos.build("flat"), "flat", ZONES)
    said = qemu.boot(out, firmware="uefi", medium="scsi-disc", timeout=900)
    assert_report(said, ZONES)


def test_a_nested_root_is_refused(user: User) -> None:
    tools.require(*liveos.TOOLS)
    roots.require_root()
    image = liveos.build("nested")
    target = user.home / "nested.iso"
    (user.home / "hello").write_text("hello\n")
    done = user.run(image, target, "--add", f"{user.home}/hello:/etc/")
    assert done.returncode == 6, done.stderr
    assert "rootfs.img" in done.stderr
    assert not target.exists()


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_an_image_of_live_build_boots_after_an_edit(user: User, firmware: Literal["bios", "uefi"]) -> None:
    tools.require(*live_build.TOOLS, *qemu.TOOLS)
    roots.require_root()
    menus = {"/isolinux/isolinux.cfg": live_build.ISOLINUX_CFG, "/boot/grub/config.cfg": live_build.GRUB_CONFIG_CFG}
    options = []
    for number, (path, text) in enumerate(menus.items()):
        (user.home / f"menu-{number}").write_text(text)
        options += ["--add-iso", f"{user.home}/menu-{number}:{path}"]
    out = edit_image(user, live_build.build(), f"live-build-{firmware}", ZONES, *options)
    said = qemu.boot(out, firmware=firmware, medium="scsi-disc", timeout=900)
    assert_report(said, ZONES)
