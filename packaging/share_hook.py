"""Man pages and completion scripts in the wheel, made while it is built from the definitions of the commands."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPLETIONS = {
    "bash": "share/bash-completion/completions/cosremaster",
    "zsh": "share/zsh/site-functions/_cosremaster",
    "fish": "share/fish/vendor_completions.d/cosremaster.fish",
}


class ShareHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds what belongs under share/; a wheel that only points at this folder (editable) goes without."""

    PLUGIN_NAME = "custom"
    folder: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the files and name them to the builder; without the packages that commands import, say so."""
        if version == "editable":
            return
        sys.dont_write_bytecode = True
        sys.path.insert(0, self.root)
        self.folder = Path(tempfile.mkdtemp())
        try:
            from cosremaster.cli.man_pages import write_pages  # noqa: PLC0415 - of the folder that is built
            from cosremaster.cli.shell_completion import SHELLS  # noqa: PLC0415 - the same

            pages = list(write_pages(self.folder / "man1"))
        except ImportError as error:
            self.app.display_warning(f"no man pages and completions: {error}")
            return
        finally:
            sys.path.remove(self.root)
        for page in pages:
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"
        for name, shell in SHELLS.items():
            script = self.folder / name
            script.write_text(shell.script, "utf-8")
            build_data["shared_data"][str(script)] = COMPLETIONS[name]

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the files."""
        if self.folder is not None:
            shutil.rmtree(self.folder)
