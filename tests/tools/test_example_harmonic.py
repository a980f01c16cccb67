"""examples/harmonic-installer: what the recipe makes, as MAAS and its installer curtin take it."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.busybox_roots import make_busybox_root, pack_tar
from tests.support.harmonic import extract_as_curtin, make_package

VARIABLES = (
    "SERIES",
    "WORKDIR",
    "ROOT",
    "PACKAGES",
    "KERNEL",
    "USERNAME",
    "PASSWORD",
    "PACKER_LOG",
    "TIMEOUT",
    "CUSTOMIZE_SCRIPT",
)
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
SEED_EXTRACTION = ("--xattrs", "--xattrs-include=*", "--selinux", "--acls", "-xpzf")
"""How the image was unpacked to look into it, with every attribute that tar knows."""

# Stands for curtin, which Debian 12 does not have: notes what its hooks are called with.
CURTIN = {
    "__init__.py": "",
    "commands/__init__.py": "",
    "commands/curthooks.py": "def builtin_curthooks(config, target, state):\n    print('hooks', config, target)\n",
    "config.py": "def load_command_config(args, state):\n    return {'kernel': {'mapping': {}}}\n",
    "util.py": "def load_command_environment():\n    return {'target': '/target'}\n",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what a variable of the recipe might get its value from."""
    for name in (*VARIABLES, *PROXIES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with what tar has to keep: owners, modes, links, attributes, capabilities."""
    tools.require("setfattr", "setfacl", "setcap")
    root = tmp_path / "root"
    for folder in ("etc/ssh", "usr/bin", "usr/sbin", "var/lib/cloud/data", "srv"):
        (root / folder).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "etc/machine-id").write_text("0" * 32)
    (root / "etc/ssh/ssh_host_ed25519_key").write_text("secret")
    (root / "usr/bin/ping").write_text("ping")
    (root / "usr/bin/hard").hardlink_to(root / "usr/bin/ping")
    (root / "usr/bin/su").write_text("su")
    (root / "usr/bin/su").chmod(0o4755)
    run(["setfacl", "-m", "u:1000:rwx", root / "srv"])
    if os.geteuid() == 0:
        run(["setcap", "cap_net_raw+ep", root / "usr/bin/ping"])
        os.chown(root / "srv", 33, 44)
    return root


def _build(harmonic: Path, *options: str) -> list[str]:
    """Build the recipe and return nothing but the arguments."""
    arguments = ["build", str(harmonic / "harmonic-installer.toml"), *options]
    assert main(arguments) == 0
    return arguments


def test_one_command_makes_the_archive_its_sum_and_the_import(
    harmonic: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tools.require("tar", "xz", "sha256sum", "getfattr", "getfacl")
    assert main(["build", str(harmonic / "harmonic-installer.toml")]) == 2
    assert f"there is no file {harmonic}/jammy-server-cloudimg-amd64-root.tar.xz" in capsys.readouterr().err
    base = harmonic / "noble-server-cloudimg-amd64-root.tar.xz"
    run(["tar", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-cJf", base, "-C", root, "."])
    monkeypatch.setenv("PACKER_LOG", "1")
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    _build(harmonic, "--set", "SERIES=noble", "--set", "PASSWORD=a:b$c", "--set", "TIMEOUT=2h")
    made = harmonic / "harmonic-installer.tar.gz"
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    assert shlex.split(capsys.readouterr().out.splitlines()[-1]) == [
        "maas", "admin", "boot-resources", "create", "name=custom/harmonic-installer", "title=Harmonic Installer",
        "architecture=amd64/generic", "base_image=ubuntu/noble", "filetype=tgz", f"sha256={digest}",
        f"size={made.stat().st_size}", f"content@={made}",
    ]  # fmt: skip
    assert run(["sha256sum", "-c", f"{made.name}.sha256"], cwd=harmonic) == f"{made.name}: OK\n".encode()
    for number, extract in enumerate((extract_as_curtin, _extract_with_all_attributes)):
        target = tmp_path / f"target-{number}"
        target.mkdir()
        extract(made, target)
        _check_target(target, root)


def _extract_with_all_attributes(archive: Path, target: Path) -> None:
    """Extract ``archive`` to ``target`` as the page before did."""
    run(["tar", *SEED_EXTRACTION, archive, "-C", target])


def _check_target(target: Path, root: Path) -> None:
    """Check what was extracted to ``target`` from the image whose input had the tree ``root``."""
    modes = {
        "curtin/curtin-hooks": 0o755, "usr/local/bin/harmonic-installer.sh": 0o755,
        "usr/local/sbin/setup-harmonic-installer.sh": 0o755, "etc/systemd/system/harmonic-install.service": 0o644,
        "etc/harmonic-installer/credentials": 0o600, "usr/bin/su": 0o4755,
    }  # fmt: skip
    for name, mode in modes.items():
        assert (target / name).stat().st_mode & 0o7777 == mode, name
    link = target / "etc/systemd/system/multi-user.target.wants/harmonic-install.service"
    assert link.readlink() == Path("/etc/systemd/system/harmonic-install.service")
    assert (target / "etc/harmonic-installer/credentials").read_text() == "root:a:b$c\n"
    assert 'http_proxy="http://proxy:3128"\n' in (target / "etc/default/harmonic-installer").read_text()
    assert (target / "etc/machine-id").read_bytes() == b""
    assert not list((target / "etc/ssh").iterdir())
    assert (target / "usr/bin/hard").samefile(target / "usr/bin/ping")
    acl = ["getfacl", "--numeric", "--omit-header", "srv"]
    assert run(acl, cwd=target) == run(acl, cwd=root)
    if os.geteuid() == 0:
        assert os.getxattr(target / "usr/bin/ping", "security.capability")
        status = (target / "srv").stat()
        assert (status.st_uid, status.st_gid) == (33, 44)


@pytest.mark.parametrize("kernel", ["", "linux-generic-hwe-22.04"])
def test_curtin_runs_the_hooks_and_nothing_of_them_stays(kernel: str, harmonic: Path, tmp_path: Path) -> None:
    for name, text in CURTIN.items():
        path = tmp_path / "site" / "curtin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    hooks = tmp_path / "target/curtin"
    hooks.mkdir(parents=True)
    (harmonic / "curtin-hooks").rename(hooks / "curtin-hooks")
    (hooks / "CUSTOM_KERNEL").write_text(f"{kernel}\n")
    environ = {"PYTHONPATH": str(tmp_path / "site"), "PATH": os.path.dirname(sys.executable)}
    done = subprocess.run(
        [sys.executable, hooks / "curtin-hooks"], env=environ, capture_output=True, text=True, check=True
    )
    package = {"package": kernel} if kernel else {}
    assert done.stdout == f"hooks { ({'kernel': {'mapping': {}, **package}}) } /target\n"
    assert not hooks.exists()


def test_the_scripts_are_shell_scripts_that_refuse_what_they_cannot_do(harmonic: Path, tmp_path: Path) -> None:
    tools.require("bash", "dpkg-deb", "dpkg-query")
    installer, setup = harmonic / "harmonic-installer.sh", harmonic / "setup-harmonic-installer.sh"
    run(["bash", "-n", installer])
    run(["sh", "-n", setup])
    assert subprocess.run(["bash", installer], capture_output=True, check=False).returncode == 1
    assert b"must be given" in run(["bash", installer, "-h"])
    environ = {
        "PATH": os.environ["PATH"],
        "apolloURL": "http://127.0.0.1:9/latest",
        "physicalDisk": "/dev/no-such-disk",
    }
    done = subprocess.run(["bash", installer, "-i"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there is no disk /dev/no-such-disk" in done.stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(["sh", setup, empty, empty / "no-credentials"]) == b""
    make_package(empty, tmp_path)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "dpkg").write_text('#!/bin/sh\necho dpkg "$@"\n')
    (programs / "dpkg").chmod(0o755)
    said = subprocess.run(
        ["sh", setup, empty, empty / "none"], env={"PATH": f"{programs}:{os.environ['PATH']}"}, capture_output=True,
        text=True, check=True,
    ).stdout  # fmt: skip
    assert f"dpkg --install {empty}/vendor-tool_1.0_all.deb" in said


CUSTOMIZE = """#!/bin/sh
set -e
echo "$SERIES $DEBIAN_FRONTEND" > /etc/customized
cat /run/cosremaster/note >> /etc/customized
chown 33:33 /etc/customized
[ -x /usr/local/bin/harmonic-installer.sh ]
"""


def test_the_script_of_the_user_runs_in_the_root(
    harmonic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = pack_tar(make_busybox_root(tmp_path / "busybox"), tmp_path / "root.tar")
    script = tmp_path / "customize.sh"
    script.write_text(CUSTOMIZE)
    (harmonic / "packages/note").write_text("a file of the folder\n")
    monkeypatch.setenv("CUSTOMIZE_SCRIPT", str(script))
    _build(harmonic, "--set", f"ROOT={base}", "--set", "TIMEOUT=5m")
    capsys.readouterr()
    listed = run(["tar", "--numeric-owner", "-tvzf", harmonic / "harmonic-installer.tar.gz", "./etc/customized"])
    assert listed.split()[1] == b"33/33"
    assert cosremaster.read(f"{harmonic}/harmonic-installer.tar.gz::etc/customized") == (
        b"jammy noninteractive\na file of the folder\n"
    )
    script.write_text("#!/bin/sh\nsleep 100\n")
    assert main(["build", str(harmonic / "harmonic-installer.toml"), "--set", f"ROOT={base}", "--set", "TIMEOUT=1s",
                 "--force"]) == 11  # fmt: skip
    assert "took longer than 1 second" in capsys.readouterr().err
    assert main(["build", str(harmonic / "harmonic-installer.toml"), "--set", "TIMEOUT=soon"]) == 2
    assert "run[0].timeout: 'soon' is no time" in capsys.readouterr().err
