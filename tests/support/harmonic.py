"""A copy of examples/harmonic-installer, and what it takes to deploy its image as MAAS does."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.user import REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "harmonic-installer"

CURTIN_EXTRACTION = ("--xattrs", "--xattrs-include=*", "-Sxpzf", "{archive}", "--numeric-owner")
"""What curtin gives tar behind ``-C TARGET`` (curtin/commands/extract.py: extract_root_tgz_url, tar_xattr_opts)."""

_CONTROL = """\
Package: vendor-tool
Version: 1.0
Architecture: all
Maintainer: Vendor <vendor@example.org>
Description: stands for the vendor's packages
"""


@pytest.fixture
def harmonic(tmp_path: Path) -> Path:
    """A copy of the example."""
    folder = tmp_path / "harmonic-installer"
    shutil.copytree(EXAMPLE, folder)
    return folder


def extract_as_curtin(archive: Path, target: Path) -> None:
    """Extract ``archive`` to ``target`` by the command of MAAS' installer."""
    run(["tar", "-C", target, *(word.format(archive=archive) for word in CURTIN_EXTRACTION)])


def make_package(folder: Path, scratch: Path) -> None:
    """Make a .deb in ``folder`` whose script after the installation leaves a file behind."""
    tools.require("dpkg-deb")
    debian = scratch / "vendor-tool" / "DEBIAN"
    debian.mkdir(parents=True)
    (debian / "control").write_text(_CONTROL)
    (debian / "postinst").write_text("#!/bin/sh\necho configured > /var/lib/vendor-tool\n")
    (debian / "postinst").chmod(0o755)
    program = scratch / "vendor-tool/usr/bin/vendor-tool"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho the vendor\n")
    program.chmod(0o755)
    run(["dpkg-deb", "--root-owner-group", "--build", scratch / "vendor-tool", folder])


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[tuple[int, list[str]]]:
    """Serve ``files`` by HTTP on this machine alone; give the port, and the paths that were asked for."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        """Answers with a file."""

        def do_GET(self) -> None:
            """Send the file, or the answer that there is none."""
            requests.append(self.path)
            data = files.get(self.path)
            if data is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
