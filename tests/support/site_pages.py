"""The documentation site: ``python -m tests.support.site_pages`` lays out its pages and builds it into build/site.

The pages are those of docs/, the README and the pages of the examples, as they are; only their places differ, so links
between them are written anew. A link to any other file of this repository becomes that file's address in the source.
mkdocs.yml has the navigation.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from tests.support.user import REPOSITORY

SOURCE = "https://cosremaster.example/source"
CONFIGURATION = "mkdocs.yml"
PAGES = "build/site-pages"
SITE = "build/site"
_NAMED = {
    "README.md": "index.md",
    "docs/README.md": "contents.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
_ITEM = re.compile(r"(- |\d+\. )")
_FENCE = re.compile(r"^ *(```|~~~)")


class BrokenLinkError(Exception):
    """A page links to a file that is not there."""


def map_pages(repository: Path = REPOSITORY) -> Mapping[str, str]:
    """Return for each page of the repository, by its path there, its path among the site's pages."""
    places = dict(_NAMED)
    for folder in ("docs", "examples"):
        for page in sorted((repository / folder).rglob("*.md")):
            path = page.relative_to(repository)
            places.setdefault(path.as_posix(), _place(PurePosixPath(path)).as_posix())
    return places


def _place(path: PurePosixPath) -> PurePosixPath:
    """Return where a page of docs/ or examples/ goes: an example is a page, and other folders' READMEs are indexes."""
    if path.parts[0] == "examples":
        return PurePosixPath(*path.parts[:-2], f"{path.parent.name}.md") if path.name == "README.md" else path
    below = path.relative_to("docs")
    return below.with_name("index.md") if below.name == "README.md" else below


def move_links(text: str, page: str, places: Mapping[str, str], repository: Path = REPOSITORY) -> str:
    """Return the Markdown ``text`` of ``page`` with the links that it needs at its place on the site."""
    lines = [""]
    is_code = False
    for line in text.split("\n"):
        is_code ^= bool(_FENCE.match(line))
        if is_code or line.startswith("    "):
            lines.append(line)
            continue
        is_list = _ITEM.match(line) and not lines[-1].startswith(" ") and not _ITEM.match(lines[-1])
        if lines[-1] and (is_list or (line.startswith("| ") and not lines[-1].startswith("|"))):
            lines.append("")  # Python-Markdown begins a list or a table after an empty line alone
        lines.append(_LINK.sub(lambda link: _move_link(link, page, places, repository), line))
    return "\n".join(lines[1:])


def _move_link(link: re.Match[str], page: str, places: Mapping[str, str], repository: Path) -> str:
    """Return one link or picture as the site needs it."""
    target = os.path.normpath(os.path.join(os.path.dirname(page), link[1]))
    target = f"{target}/README.md" if f"{target}/README.md" in places else target
    fragment = link[2] or ""
    here = os.path.dirname(places[page])
    if target in places:
        return os.path.relpath(places[target], here or ".") + fragment
    if target.startswith("docs/") and (repository / target).is_file():
        return os.path.relpath(target.removeprefix("docs/"), here or ".") + fragment
    if not (repository / target).exists():
        raise BrokenLinkError(f"{page}: there is no {target}, which the link to {link[0]} names")
    return f"{SOURCE}/{target}"


def lay_out_pages(root: Path, repository: Path = REPOSITORY) -> None:
    """Write the site's configuration and pages into ``root``, where the site is then built."""
    pages = root / PAGES
    shutil.rmtree(pages, ignore_errors=True)
    places = map_pages(repository)
    for page, place in places.items():
        target = pages / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(move_links((repository / page).read_text("utf-8"), page, places, repository), "utf-8")
    for picture in pictures(repository):
        shutil.copy(picture, pages / picture.name)
    if not (root / CONFIGURATION).exists():
        shutil.copy(repository / CONFIGURATION, root)


def pictures(repository: Path = REPOSITORY) -> Iterator[Path]:
    """Give the files of docs/ that are not pages."""
    return (path for path in sorted((repository / "docs").iterdir()) if path.suffix in (".png", ".svg", ".json"))


def build_site(root: Path) -> subprocess.CompletedProcess[str]:
    """Build the pages in ``root`` strictly: a link or an anchor that leads nowhere is a failure."""
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def main() -> int:
    """Lay out and build the site of this repository."""
    if importlib.util.find_spec("zensical") is None:
        sys.exit("the site is built by zensical, which needs Python 3.11 or newer: make site PYTHON=python3.11")
    lay_out_pages(REPOSITORY)
    built = build_site(REPOSITORY)
    print(built.stdout + built.stderr, end="")
    if built.returncode == 0:
        print(f"{SITE}/index.html is the first page")
    return built.returncode


if __name__ == "__main__":
    sys.exit(main())
