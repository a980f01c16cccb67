"""examples/apollo: the auto-build as a recipe, built on the real-tools image and booted under Debian's systemd."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from cosremaster.recipe.schema import shipped_schema
from tests.fixtures import debirf, modules, systemd, tools
from tests.fixtures.debirf import Recipe
from tests.support import qemu
from tests.support.qemu import FINISH
from tests.support.user import ordinary_user

# Starts the installation a second time, as booting a medium that keeps its root would, and ends the machine.
REPORTER = f"""\
[Unit]
After=apollo-install.service
[Service]
Type=oneshot
StandardOutput=journal+console
ExecStart=/bin/sh -c 'echo STATE $(systemctl is-active apollo-install.service)'
ExecStart=/bin/systemctl restart apollo-install.service
ExecStart=/bin/systemctl show -p ConditionResult apollo-install.service
ExecStart=/bin/sh -c 'echo HOST $(hostname); ls -ld /root /root/.ssh /root/.ssh/authorized_keys; {FINISH}'
[Install]
WantedBy=multi-user.target
"""

# The fixture's root filesystem has no modules of its kernel, and that kernel is for virtual machines.
DRIVERS = """\
[Unit]
Before=apollo-install.service
[Service]
Type=oneshot
{}
[Install]
WantedBy=multi-user.target
"""


def test_the_example_installs_once_on_first_boot(example: Path) -> None:
    tools.require(*debirf.TOOLS, *systemd.TOOLS, *modules.TOOLS, *qemu.TOOLS)
    source = debirf.build(recipe=Recipe(systemd=True)).iso
    recipe = example / "apollo.toml"
    # The test's own units, by the recipe's own means.
    drivers = example / "drivers"
    drivers.mkdir()
    loads = []
    for name, data in modules.modules(tools.default_cache(), "virtio_pci", "virtio_blk", "isofs"):
        (drivers / name).write_bytes(data)
        loads.append(f"ExecStart=/bin/busybox insmod /drivers/{name}")
    (example / "drivers.service").write_text(DRIVERS.format("\n".join(loads)))
    (example / "reporter.service").write_text(REPORTER)
    recipe.write_text(
        recipe.read_text() + '\n[[add]]\nsource = "reporter.service"\ndest = "/etc/systemd/system/"\n'
        '\n[[add]]\nservice = "reporter.service"\n'
        '\n[[add]]\nsource = "drivers.service"\ndest = "/etc/systemd/system/"\n'
        '\n[[add]]\nservice = "drivers.service"\n\n[[add]]\nsource = "drivers"\ndest = "/drivers"\n'
    )
    with ordinary_user() as user:
        assert user.run("build", "--schema").stdout == shipped_schema()
        folder = user.home / "apollo"
        shutil.copytree(example, folder)
        shutil.copyfile(source, user.home / "vendor.iso")
        user.own(folder)
        (user.home / "vendor.iso").chmod(0o444)
        environ = {"DEBIRF_ISO": str(user.home / "vendor.iso"), "SITE": "headend-6"}
        done = user.run("build", folder / "apollo.toml", "--set", "SITE=headend-7", env=environ, cwd=Path("/"))
        assert done.returncode == 0, done.stderr
        said = qemu.boot(folder / "apollo-site.iso", firmware="bios", medium="disc", virtio=True)
    digest = hashlib.sha256((example / "apollo-platform.iso").read_bytes()).hexdigest()
    assert said.count(f"apollo-install: installing {digest}") == 1
    assert said.count("apollo-install: 10-show-disks") == said.count("apollo-install: done") == 1
    for line in ("STATE active", "ConditionResult=no", "HOST headend-7"):
        assert line in said
    for mode, path in (("drwx------", "/root"), ("drwx------", "/root/.ssh"), ("-rw-------", "authorized_keys")):
        assert re.search(rf"{mode} +\d+ root +root .*{path}", said), said[-2000:]
