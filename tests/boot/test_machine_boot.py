"""Scripts in a virtual machine: they change what they change in namespaces, and nothing else gets out of there."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from cosremaster.errors import ScriptError
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.spool import Spool
from cosremaster.progress import SilentProgress
from cosremaster.sandbox import emulator
from cosremaster.sandbox.machine import run_in_machine
from cosremaster.sandbox.machine_boot import MachineBoot
from cosremaster.sandbox.model import ScriptChanges, ScriptRun
from cosremaster.sandbox.session import run_script
from cosremaster.tree.nodes import Node, NodeKind
from tests.fixtures import modules, tools
from tests.support.c_programs import compile_program
from tests.support.sandboxed import busybox_tree, file_node
from tests.support.web_servers import serve_web


@pytest.fixture(scope="module")
def kernel() -> MachineBoot:
    """Debian's cloud kernel, with modules for virtio-serial."""
    tools.require(*modules.TOOLS, "qemu-system-x86_64", "/bin/busybox")
    cache = tools.default_cache()
    place = f"lib/modules/{modules.version(cache)}/kernel/drivers"
    names = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_console")
    files = [file_node(f"{place}/{name}".encode(), data) for name, data in modules.modules(cache, *names)]
    table = PieceTable([Literal(tools.cloud_kernel(cache).read_bytes())])
    return MachineBoot(table, ({node.path: node for node in files},))


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulates the processor: what /dev/kvm does on a machine of CI is luck."""
    monkeypatch.setattr(emulator, "list_accelerators", lambda: ["tcg"])


def _make_root() -> Mapping[bytes, Node]:
    """A root with something of every kind."""
    able = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service+ep (linux/capability.h)
    nodes = [
        *(Node(path=path, kind=NodeKind.DIRECTORY, mode=0o755) for path in (b"usr", b"usr/share", b"usr/share/doc")),
        file_node(b"etc/shadow", b"root:*::::::\n", 0o640, gid=42),
        file_node(b"usr/share/doc/large", b"0123456789abcdef" * 20_000),
        file_node(b"usr/share/doc/able", b"able", 0o755, xattrs=((b"security.capability", able),)),
        file_node(b"usr/share/first", b"linked", link=1),
        file_node(b"usr/share/second", b"linked", link=1),
        file_node(b"usr/share/\xff\xfe", b"no UTF-8"),
        file_node(b"bin/mapped", compile_program("mapped"), 0o755),
        *(file_node(path, b"old" + bytes(5000)) for path in (b"srv/mapped", b"srv/protected")),
        Node(path=b"dev/sda", kind=NodeKind.BLOCK, mode=0o660, gid=6, rdev=(8, 0)),
        Node(path=b"usr/share/pipe", kind=NodeKind.FIFO, mode=0o600),
    ]
    return busybox_tree(**{str(number): node for number, node in enumerate(nodes)})


def _describe(changes: ScriptChanges) -> tuple[object, ...]:
    """Everything but times that the clock set, with links by the names that they join."""
    links: dict[object, list[bytes]] = {}
    for node in changes.nodes:
        if node.link is not None:
            links.setdefault(node.link, []).append(node.path)
    nodes = [
        (node.path, node.kind, node.mode, node.uid, node.gid, node.target, node.rdev, node.xattrs,
         node.content and node.content.digest(), node.mtime if node.mtime < 1_500_000_000 else "now")
        for node in changes.nodes
    ]  # fmt: skip
    return nodes, sorted(links.values()), changes.removed


FILES = """#!/bin/sh
set -e
mapped
echo new > /etc/new
chown 33:34 /etc/passwd && chmod 4750 /etc/passwd
rm /usr/share/first
mv /usr/share/doc /usr/share/docs
mkdir -p /srv/a/b && chmod 2775 /srv/a && mkfifo -m 640 /srv/a/p
ln /etc/new /srv/a/new && ln -s ../nowhere /srv/a/dangling
touch -d @1000000000 /srv/a/b && touch -d @1000000000 /etc/shadow
echo tmp > /tmp/x
"""
DEVICES = """
mknod -m 640 /srv-null c 1 3 && chown 0:6 /srv-null
mknod /srv-disk b 259 70
rm -r /usr/share/doc && mkdir -m 700 /usr/share/doc
dd if=/dev/zero of=/sparse bs=1 count=1 seek=3000000 2>/dev/null
cp -a /usr/share/pipe /usr/share/pipe2
cat /etc/hostname 2>/dev/null; echo $HOME $LANG $SITE >/etc/environment
cat /run/cosremaster/note > /etc/note
"""
NETWORK = """
wget -q -O /etc/fetched http://127.0.0.1:{port}/chunked
wget -q -O /etc/large http://127.0.0.1:{port}/large
wget -q -O /dev/null http://127.0.0.1:9/ || echo "this one is refused"
"""


@pytest.mark.parametrize("name", ["files", "devices", "network"])
def test_a_machine_and_namespaces_give_the_same_changes(kernel: MachineBoot, tmp_path: Path, name: str) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "note").write_text("from outside")
    with serve_web() as web, Spool(tmp_path) as spool:
        program = {"files": FILES, "devices": DEVICES, "network": NETWORK.format(port=web.port)}[name]
        run = ScriptRun(
            program=program.encode(), name=name, files=shown, environment=(("SITE", "x"),), timeout=300,
            network=name == "network", network_allow=(web,) if name == "network" else (), size_limit=100 << 20,
        )  # fmt: skip
        lines: list[list[str]] = [[], []]
        tree = _make_root()
        inside = run_in_machine(tree, run, spool, SilentProgress(), lines[0].append, kernel)
        outside = run_script(tree, run, spool, SilentProgress(), lines[1].append)
        assert _describe(inside) == _describe(outside)
        assert inside.nodes
        written = {node.path for node in inside.nodes} & {b"srv/mapped", b"srv/protected"}
        assert len(written) == (2 if name == "files" else 0)
        assert lines[0] == lines[1]
        assert (inside.report.way, inside.report.notes) == ("vm", outside.report.notes)


def test_a_script_that_takes_too_long_is_ended_with_its_machine(kernel: MachineBoot, tmp_path: Path) -> None:
    run = ScriptRun(program=b"echo begun; while :; do :; done", name="endless", timeout=2)
    lines: list[str] = []
    start = time.monotonic()
    with Spool(tmp_path) as spool, pytest.raises(ScriptError, match="longer than 2 seconds"):
        run_in_machine(_make_root(), run, spool, SilentProgress(), lines.append, kernel)
    assert lines == ["begun"]
    assert time.monotonic() - start < 250
    own = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [pid for pid in own if b"qemu" in Path(f"/proc/{pid}/cmdline").read_bytes()]
