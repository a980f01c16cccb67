"""The Containerfiles, built and run where there is something that does: docker, podman or buildah.

Debian trixie with Python, out of its packages, stands in the place of the image that they begin with.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.roots import QUICK, debian_mirror, require_root
from tests.fixtures.tools import cached, default_cache, require, run
from tests.support.small import write_small
from tests.support.user import REPOSITORY

pytestmark = pytest.mark.slow
BASE = "localhost/cosremaster-test-base"
PROGRAM = "/opt/cosremaster/bin/cosremaster"
PACKAGES = ("python3", "python3-venv", "ca-certificates")


class Engine:
    """docker or podman, whose words are the same."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def load(self, archive: Path) -> None:
        """Make the image that the others begin with."""
        run([*self.words, "import", str(archive), BASE])

    def build(self, file: str, name: str) -> None:
        """Build the image ``name`` of a Containerfile."""
        run([*self.words, "build", "--build-arg", f"BASE={BASE}", "-f", file, "-t", name, str(REPOSITORY)])

    def run_program(self, name: str, folder: Path, *arguments: str) -> bytes:
        """Run the program in a container of the image ``name``, with ``folder`` at /work."""
        return run([*self.words, "run", "--rm", "-v", f"{folder}:/work", name, *arguments])

    def settings(self, name: str) -> dict[str, object]:
        """What a container of the image ``name`` begins with."""
        (image,) = json.loads(run([*self.words, "image", "inspect", name]))
        return dict(image["Config"])

    def drop(self, *names: str) -> None:
        """Remove the images."""
        subprocess.run([*self.words, "rmi", "--force", *names], capture_output=True, check=False)


class Buildah(Engine):
    """buildah, with a store of its own and without a runtime of containers."""

    def load(self, archive: Path) -> None:
        container = run([*self.words, "from", "scratch"]).decode().strip()
        run([*self.words, "add", container, str(archive), "/"])
        run([*self.words, "commit", "--rm", container, BASE])

    def build(self, file: str, name: str) -> None:
        words = ("bud", "--isolation", "chroot", "--build-arg", f"BASE={BASE}")
        run([*self.words, *words, "-f", file, "-t", name, str(REPOSITORY)])

    def run_program(self, name: str, folder: Path, *arguments: str) -> bytes:
        container = run([*self.words, "from", name]).decode().strip()
        words = ("run", "--isolation", "chroot", "--volume", f"{folder}:/work", container)
        return run([*self.words, *words, "--", PROGRAM, *arguments])

    def settings(self, name: str) -> dict[str, object]:
        return dict(json.loads(run([*self.words, "inspect", "--type", "image", name]))["OCIv1"]["config"])

    def drop(self, *names: str) -> None:
        """Remove nothing: the store is in a folder of the test."""


def find_engine(folder: Path) -> Engine:
    """Return what builds images here, in ``folder``; leaves the test out by name where nothing does, in CI too."""
    store = ("--storage-driver", "vfs", "--root", str(folder / "store"), "--runroot", str(folder / "run"))
    for engine in (Engine("docker"), Engine("podman", *store), Buildah("buildah", *store)):
        if shutil.which(engine.words[0]) is None:
            continue
        if subprocess.run([*engine.words, "info"], capture_output=True, check=False).returncode == 0:
            return engine
    pytest.skip("This test needs docker, podman or buildah, and none of them works here.")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """What builds and runs images, with the image that the Containerfiles begin with."""
    folder = tmp_path_factory.mktemp("engine")
    builder = find_engine(folder)
    require_root()
    require("mmdebstrap", "tar")

    def fill(made: Path) -> None:
        words = ["mmdebstrap", *QUICK, f"--include={','.join(PACKAGES)}", "trixie"]
        run([*words, str(made / "root.tar"), debian_mirror()])
        run(["tar", "-rhf", str(made / "root.tar"), "-C", "/", "etc/ssl/certs"])  # it trusts whom this machine trusts

    builder.load(cached(default_cache(), "container-base", [*QUICK, *PACKAGES], fill) / "root.tar")
    yield builder
    builder.drop("localhost/cosremaster-test", "localhost/cosremaster-test-serve", BASE)
    shutil.rmtree(folder, ignore_errors=True)  # files of containers, a gigabyte of them


def test_the_image_remasters_in_a_folder_of_the_host(engine: Engine, tmp_path: Path) -> None:
    name = "localhost/cosremaster-test"
    engine.build(str(REPOSITORY / "packaging/Containerfile"), name)
    write_small(tmp_path)
    (tmp_path / "motd").write_text("hello\n")
    engine.run_program(name, tmp_path, "in.iso", "out.iso", "--add", "motd:/etc/motd")
    assert engine.run_program(name, tmp_path, "cat", "out.iso::@root::etc/motd") == b"hello\n"
    settings = engine.settings(name)
    assert (settings["Entrypoint"], settings["WorkingDir"]) == ([PROGRAM], "/work")


def test_the_image_of_the_server_is_nobodys(engine: Engine, tmp_path: Path) -> None:
    name = "localhost/cosremaster-test-serve"
    engine.build(str(REPOSITORY / "examples/serve/Containerfile"), name)
    settings = engine.settings(name)
    assert settings["User"] == "65534:65534"
    assert settings["Entrypoint"] == [PROGRAM, "serve", "/fleet/fleet.toml", "--listen", "0.0.0.0:8080"]
    assert settings["Volumes"] == {"/cache": {}}
