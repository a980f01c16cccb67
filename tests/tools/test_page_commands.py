"""Every command of the documentation is run as it stands, or is named here with the reason why not."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cosremaster.cli import main
from tests.fixtures.tools import require
from tests.support.page_commands import Block, collect_blocks, join_blocks, list_reasons, read_blocks
from tests.support.page_files import make_files
from tests.support.user import REPOSITORY

BLOCKS = [block for block in join_blocks(collect_blocks()) if block.run]
_TAKEN = re.compile(r"^cosremaster: (?:.*: )?(\S+?)(?: already)?:? exists|to overwrite .*: (\S+)$", re.MULTILINE)
_OTHERS = {"openssl", "sha256sum", "xdelta3"}
_SHELL = re.compile(r"[|;&<>()]|\$\(|^[A-Z_]+=")


def _words(block: Block) -> list[str]:
    """Return the words of the commands that may be names of files: options' values and parts of addresses too."""
    return [part.strip("/") for command in block.run for word in re.split(r"[\s'\"=;]+", command)
            for part in word.split(":")]  # fmt: skip


def _run(command: str, folder: Path) -> tuple[int, str]:
    """Run ``command`` in ``folder``: in this process where it is ours alone, else by a shell."""
    command = command.removeprefix("venv/bin/")
    words = shlex.split(command, comments=True)
    if words[0] == "cosremaster" and not _SHELL.search(re.sub(r"'[^']*'|\"[^\"]*\"|#.*", "", command)):
        return main(words[1:]), ""
    program = folder.parent / "bin" / "cosremaster"
    if not program.exists():
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cosremaster "$@"\n', "utf-8")
        program.chmod(0o755)
    path = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    ran = subprocess.run(["sh", "-ec", command], cwd=folder, env={**os.environ, **path}, capture_output=True, text=True,
                         stdin=subprocess.DEVNULL, check=False, timeout=60)  # fmt: skip
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{number}-{block.page}" for number, block in enumerate(BLOCKS)])
def test_the_commands_of_a_page_run(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    require("busybox", "cpio", "gzip", "tar", "xz", *_OTHERS & {command.split()[0] for command in block.run})
    make_files(block.page, _words(block), folder)
    monkeypatch.chdir(folder)
    for command in block.run:
        for _ in range(4):  # pages show variants of a command that write the same file
            code, output = _run(command, folder)
            output += "".join(capsys.readouterr())
            old = _TAKEN.search(output)
            if code == 0 or old is None:
                break
            target = folder / (old[1] or old[2]).strip(":")
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        is_told = code == 1 and command.startswith("cosremaster diff")  # the images differ
        assert code == 0 or is_told, f"{block.label}: {command}\n{output}"


def test_what_is_not_run_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = list(list_reasons())
    with capsys.disabled():
        print(f"\n{len(reasons)} commands of pages are not run:", *reasons, sep="\n  ")
    assert all(re.search(r": [a-z].{6,}: ", line) for line in reasons)


PAGE = """\
<!-- not run: needs the network (https://) -->
| task | command |
| --- | --- |
| look | `cosremaster ls a.iso`, `cosremaster ls https://a/b.iso` |

    cosremaster a.iso b.iso \\
        --add c

    $ cosremaster verify b.iso
    b.iso: sound

- a list

    of text

<!-- not run: needs root -->
```sh
# a comment
mount b.iso /mnt
```

```text
cosremaster is not run here
```
"""


def test_commands_are_read_from_pages() -> None:
    blocks = [(block.line, block.commands) for block in read_blocks("README.md", PAGE)]
    assert blocks == [
        (4, (("cosremaster ls a.iso", ""), ("cosremaster ls https://a/b.iso", "needs the network"))),
        (6, (("cosremaster a.iso b.iso --add c", ""),)),
        (9, (("cosremaster verify b.iso", ""),)),
        (18, (("mount b.iso /mnt", "needs root"),)),
    ]
    assert read_blocks("docs/a.md", PAGE).__next__().line == 6, "tables elsewhere name forms of commands"
