"""A fleet of recipes over the demo's image, and `cosremaster serve` for it on a free port of loopback."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cosremaster.recipe import build


class Server(NamedTuple):
    """A running server. `log`: its access log."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def port(self) -> int:
        """The port."""
        return int(self.url.rstrip("/").rpartition(":")[2])

    def stop(self) -> int:
        """Ends it as systemd does, and returns its exit code."""
        self.process.terminate()
        return self.process.wait()


def write_recipes(folder: Path, base: Path, count: int) -> list[Path]:
    """Recipes of sites `site-N` that differ in a file of text and one of 10,000 bytes."""
    recipes = []
    for number in range(count):
        name = f"site-{number}"
        (folder / name / "etc").mkdir(parents=True)
        (folder / name / "etc/hostname").write_text(f"{name}\n")
        (folder / name / "etc/key").write_bytes(bytes((index * index + number) % 251 for index in range(10_000)))
        recipes.append(folder / f"{name}.toml")
        text = f'input = "{base}"\noutput = "{name}.iso"\n[[add]]\nsource = "{name}"\n'
        recipes[-1].write_text(text)
    return recipes


def write_images(recipes: list[Path]) -> dict[str, Path]:
    """The image that is written for each recipe, by the site's name."""
    for recipe in recipes:
        build(recipe, sync=False)
    return {recipe.stem: recipe.with_suffix(".iso") for recipe in recipes}


@contextlib.contextmanager
def serve(recipes: list[Path], *options: str, host: str = "127.0.0.1", tokens: str = "") -> Iterator[Server]:
    """Runs the server until the context ends."""
    log = recipes[0].parent / "access.jsonl"
    argv = [sys.executable, "-m", "cosremaster", "serve", *map(str, recipes), "--listen", f"{host}:0", *options]
    with log.open("w") as output:
        process = subprocess.Popen(
            argv, stdout=output, stderr=subprocess.PIPE, text=True, env={**os.environ, "COSREMASTER_TOKENS": tokens}
        )
    with process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert line.startswith("serving "), line + process.stderr.read()
            yield Server(line.split()[-1], process, log)
        finally:
            if process.poll() is None:
                process.kill()
