"""The commands of the documentation's pages: each is run, or a comment in front of its block says why not.

A block is fenced as sh, bash or console, or indented with a program in front; commands in README.md's table count too::

    <!-- not run: needs the network -->
    <!-- not run: needs the network (https://) -->

The second form is for those commands of the block that contain the words. ``python -m tests.support.page_commands``
lists what is not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.support.user import REPOSITORY

PROGRAMS = frozenset(
    (
        *("cosremaster", "python3", "pip", "cp", "curl", "wget", "git", "maas", "make", "pipx", "uv", "xdelta3"),
        *("qemu-system-x86_64", "qemu-img", "openssl", "sudo", "WORKDIR", "CUSTOMIZE_SCRIPT"),
    )
)
_MARK = re.compile(r"<!-- not run: (.+?)(?: \((.+)\))? -->$")
_FENCE = re.compile(r"```(\w*)")
_SPAN = re.compile(r"`(cosremaster [^`]+)`")


class Block(NamedTuple):
    """Commands that stand together on a page.

    :param page: the page's path in the repository.
    :param line: the number of the first line.
    :param commands: what a shell is given, a command each, with the reason why it is not run; empty where it is.
    """

    page: str
    line: int
    commands: tuple[tuple[str, str], ...]

    @property
    def label(self) -> str:
        """Return the place for people."""
        return f"{self.page}:{self.line}"

    @property
    def run(self) -> tuple[str, ...]:
        """Return the commands that are run."""
        return tuple(command for command, reason in self.commands if not reason)


Marks = list[tuple[str, str]]
"""Reasons, each with the words of the commands that it is for; no words are for all."""


def list_pages() -> list[str]:
    """Return the pages that may have commands."""
    pages = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").rglob("*.md"),
             *(REPOSITORY / "examples").rglob("*.md")]  # fmt: skip
    return sorted(page.relative_to(REPOSITORY).as_posix() for page in pages)


def collect_blocks() -> list[Block]:
    """Return the blocks of all pages."""
    return [block for page in list_pages() for block in read_blocks(page, (REPOSITORY / page).read_text("utf-8"))]


def join_blocks(blocks: list[Block]) -> list[Block]:
    """Return ``blocks`` with those of the tutorial, and of each example, as one: there one goes on from another."""
    joined = list[Block]()
    for block in blocks:
        is_next = block.page == "docs/tutorial.md" or block.page.startswith("examples/")
        if is_next and joined and joined[-1].page == block.page:
            joined[-1] = joined[-1]._replace(commands=joined[-1].commands + block.commands)
        else:
            joined.append(block)
    return joined


def read_blocks(page: str, text: str) -> Iterator[Block]:
    """Give the blocks of the page's ``text``; each command in a table of README.md is a block."""
    for number, lines, kind, marks in _split(text.split("\n")):
        is_table = kind == "table"
        if is_table and page != "README.md":
            continue
        for offset, commands in enumerate(map(_SPAN.findall, lines)) if is_table else [(0, _commands(lines, kind))]:
            if commands:
                yield Block(page, number + offset, tuple((command, _reason(command, marks)) for command in commands))


def _reason(command: str, marks: Marks) -> str:
    """Return why ``command`` is not run."""
    return next((reason for reason, words in marks if words in command), "")


def _split(lines: list[str]) -> Iterator[tuple[int, list[str], str, Marks]]:
    """Give each block of code and each table: its first line's number, its lines, its language, and its marks."""
    at, before, marks = 0, "", Marks()
    while at < len(lines):
        start, kind, body = at, "", list[str]()
        if fence := _FENCE.match(lines[at]):
            kind, at = fence[1] or "text", at + 1
            while not lines[at].startswith("```"):
                body.append(lines[at])
                at += 1
            start, at = start + 1, at + 1
        elif lines[at].startswith("| "):
            kind = "table"
            while lines[at].startswith("|"):
                body.append(lines[at])
                at += 1
        elif lines[at].startswith("    ") and not before.strip():
            while at < len(lines) and lines[at].startswith("    "):
                body.append(lines[at][4:])
                at += 1
        if body:
            yield start + 1, body, kind, marks
            before, marks = "", Marks()
            continue
        if mark := _MARK.match(lines[at]):
            marks.append((mark[1], mark[2] or ""))
        elif lines[at]:
            marks = Marks()
        before = "" if mark else lines[at]
        at += 1


def _commands(lines: list[str], kind: str) -> list[str]:
    """Return the commands in a block of code."""
    joined = re.sub(r"\\\n *", "", "\n".join(lines)).split("\n")
    if any(line.startswith("$ ") for line in joined):
        return [line[2:].strip() for line in joined if line.startswith("$ ")]
    program = re.split("[ =]", joined[0])[0].rpartition("/")[2]
    if kind in ("sh", "bash", "console") or (not kind and program in PROGRAMS):
        return [line.strip() for line in joined if line.strip() and not line.startswith("#")]
    return []


def list_reasons() -> Iterator[str]:
    """Give each command that is not run, with its place and reason."""
    for block in collect_blocks():
        yield from (f"{block.label}: {reason}: {command}" for command, reason in block.commands if reason)


if __name__ == "__main__":
    print("\n".join(list_reasons()))
