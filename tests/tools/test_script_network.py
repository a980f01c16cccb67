"""Scripts that fetch: apt, wget and a repository on nginx, through the proxy, on this machine's loopback alone."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from cosremaster.tree.nodes import Node
from tests.fixtures import live, roots
from tests.fixtures.tools import require, run
from tests.support.sandboxed import ScriptResult, busybox_tree, open_runner, read_tree, run_here
from tests.support.user import User

_NGINX = "/usr/sbin/nginx"
_CONFIG = """
user root;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
    uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
    server {{ listen 127.0.0.1:{plain}; root {folder}/www; }}
    server {{ listen 127.0.0.1:{tls} ssl; root {folder}/www;
              ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; }}
}}
"""


class Repository(NamedTuple):
    """An nginx with a repository at /plain and another at /tls; its ports, and the folder of its logs."""

    plain: int
    tls: int
    folder: Path

    @property
    def requests(self) -> str:
        """What it was asked for."""
        return (self.folder / "access.log").read_text()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _make_package(folder: Path, name: str, depends: str = "") -> None:
    """A package with a file and a postinst, and the index of its repository at `folder`."""
    source = folder.parent / f"{name}-source"
    (source / "DEBIAN").mkdir(parents=True)
    (source / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n"
        f"Description: a test\n{f'Depends: {depends}' + chr(10) if depends else ''}"
    )
    (source / "DEBIAN/postinst").write_text(f"#!/bin/sh\nset -e\necho configured > /etc/{name}.conf\n")
    (source / "DEBIAN/postinst").chmod(0o755)
    (source / f"usr/share/{name}").mkdir(parents=True)
    (source / f"usr/share/{name}/data").write_bytes(name.encode() * 100_000)
    folder.mkdir(parents=True)
    archive = folder / f"{name}.deb"
    run(["dpkg-deb", "--root-owner-group", "-b", source, archive])
    data = archive.read_bytes()
    control = (source / "DEBIAN/control").read_text()
    (folder / "Packages").write_text(
        f"{control}Filename: ./{name}.deb\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    roots.require_root()
    require(_NGINX, "openssl", "dpkg-deb")
    folder = tmp_path_factory.mktemp("nginx")
    _make_package(folder / "www/plain", "site-base")
    _make_package(folder / "www/tls", "site-extra", "site-base")
    names = ("-subj", "/CN=localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem")
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *names])
    plain, tls = _free_port(), _free_port()
    (folder / "nginx.conf").write_text(_CONFIG.format(folder=folder, plain=plain, tls=tls))
    command = [_NGINX, "-e", folder / "error.log", "-c", folder / "nginx.conf", "-p", folder]
    with subprocess.Popen([str(argument) for argument in command]) as server:
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if not probe.connect_ex(("127.0.0.1", plain)):
                        break
                time.sleep(0.05)
            yield Repository(plain, tls, folder)
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def debian() -> Mapping[bytes, Node]:
    roots.require_root()
    require(*roots.TOOLS)
    return read_tree(roots.debian_root(live.PACKAGES))


_INSTALL = """
set -e
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] http://{host}:{plain}/plain ./' > /etc/apt/sources.list
echo 'deb [trusted=yes] https://{host}:{tls}/tls ./' >> /etc/apt/sources.list
apt-get -o Acquire::https::Verify-Peer=false -q update
apt-get -o Acquire::https::Verify-Peer=false -q -y install site-extra
! [ -e /etc/apt/apt.conf.d/*proxy* ]
"""


@pytest.mark.parametrize("way", ["root", "single"])
def test_apt_installs_from_a_repository_through_the_proxy(
    way: str, repository: Repository, debian: Mapping[bytes, Node], user: User
) -> None:
    before = len(repository.requests)
    with ExitStack() as stack:
        runner = run_here
        if way == "single":
            require("setpriv", "unshare")
            runner = stack.enter_context(open_runner(user.python, user.home.parent, has_range=False)).run
        servers = (("localhost", repository.plain), ("localhost", repository.tls))
        script = _INSTALL.format(host="localhost", plain=repository.plain, tls=repository.tls)
        result: ScriptResult = runner(debian, script, network=True, network_allow=servers, timeout=200)
    result.check()
    for name in ("site-base", "site-extra"):
        assert result.nodes[f"usr/share/{name}/data".encode()][6] == name.encode() * 100_000
        assert result.nodes[f"etc/{name}.conf".encode()][6] == b"configured\n"
    assert b"site-extra" in result.nodes[b"var/lib/dpkg/status"][6]
    assert "etc/resolv.conf" not in str(result.nodes)
    requests = repository.requests[before:]
    assert "/plain/./site-base.deb" in requests
    assert "/tls/./site-extra.deb" in requests
    (note,) = [note for note in result.report.notes if "reached" in note]
    assert f"localhost:{repository.plain}" in note
    assert f"localhost:{repository.tls}" in note


def test_servers_of_this_machine_need_a_permission(repository: Repository, debian: Mapping[bytes, Node]) -> None:
    before = len(repository.requests)
    script = _INSTALL.format(host="127.0.0.2", plain=repository.plain, tls=repository.tls)
    result = run_here(debian, script, network=True, timeout=200)
    assert (result.error, result.report.exit_code) == ("", 100)
    assert any("belongs to the machine outside" in line for line in result.lines)  # apt shows why
    assert len(repository.requests) == before


def test_without_the_option_there_is_no_network(repository: Repository) -> None:
    require("/bin/busybox")
    script = f"wget -q -O /x http://127.0.0.1:{repository.plain}/plain/Packages; echo end $? $http_proxy"
    result = run_here(busybox_tree(), script).check()
    assert result.lines[-1] == "end 1"
    assert b"x" not in result.nodes


def test_programs_that_start_servers_of_their_own_reach_them(repository: Repository) -> None:
    """With a network, localhost is still the script's own, unless a server there is permitted."""
    require("/bin/busybox")
    script = f"""
        mkdir /www; echo own > /www/page
        httpd -p 127.0.0.1:{repository.plain} -h /www
        page=http://127.0.0.1:{repository.plain}/page
        for i in 1 2 3 4 5; do wget -q -Y off -O /first $page && break; sleep 0.2; done
        [ "$no_proxy" = localhost,127.0.0.1,::1 ]
    """
    result = run_here(busybox_tree(), script, network=True).check()
    assert result.nodes[b"first"][6] == b"own\n"
