"""The documentation site: it builds strictly, and its navigation has every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fixtures.tools import require_module
from tests.support.site_pages import (
    CONFIGURATION,
    PAGES,
    SITE,
    SOURCE,
    BrokenLinkError,
    build_site,
    lay_out_pages,
    map_pages,
    move_links,
)
from tests.support.user import REPOSITORY

KINDS = ("Start", "Tutorial", "How-to guides", "Reference", "Explanations", "Project")


def _navigation() -> list[str]:
    """Return the pages of the navigation, in order; read as text: YAML needs a package more."""
    text = (REPOSITORY / CONFIGURATION).read_text("utf-8").partition("\nnav:")[2]
    return re.findall(r"^ +- (?:.*: )?(\S+\.md)$", text, re.MULTILINE)


def test_the_site_is_built_strictly_with_every_page(tmp_path: Path) -> None:
    require_module("zensical", since=(3, 11))
    lay_out_pages(tmp_path)
    built = build_site(tmp_path)
    assert built.returncode == 0, built.stdout + built.stderr
    for page in map_pages().values():
        html = (tmp_path / SITE / page.removesuffix(".md").removesuffix("index") / "index.html").read_text("utf-8")
        text = re.sub(r"<pre.*?</pre>", "", html.partition("<article")[2].partition("</article")[0], flags=re.DOTALL)
        assert not re.search(r"\n- |\n\d\. |\n\| ", text), f"{page} has a list or a table that is none"
    first = (tmp_path / SITE / "index.html").read_text("utf-8")
    assert all(f">{kind}<" in re.sub(r"\s*([<>])\s*", r"\1", first) for kind in KINDS)
    reference = (tmp_path / SITE / "api" / "index.html").read_text("utf-8")
    assert 'id="cosremasterremaster"' in reference, (
        "the reference that tests/support/api_page.py makes of the docstrings"
    )


@pytest.mark.parametrize("link", ["nowhere.md", "index.md#nothing", "#nothing", "#a-page"])
def test_a_link_that_leads_nowhere_fails(tmp_path: Path, link: str) -> None:
    require_module("zensical", since=(3, 11))
    configuration = (REPOSITORY / CONFIGURATION).read_text("utf-8").partition("\nnav:")[0]
    (tmp_path / CONFIGURATION).write_text(configuration + "\n", "utf-8")
    (tmp_path / PAGES).mkdir(parents=True)
    (tmp_path / PAGES / "index.md").write_text(f"# A page\n\n[x]({link})\n", "utf-8")
    built = build_site(tmp_path)
    if link == "#a-page":
        assert built.returncode == 0, built.stderr
    else:
        assert built.returncode != 0
        assert "--strict" in built.stderr


def test_the_navigation_and_the_list_of_contents_have_every_page() -> None:
    places = map_pages()
    navigation = _navigation()
    assert sorted(navigation) == sorted(page for page in places.values() if not re.match(r"decisions/\d", page))
    listed = re.findall(r"^- \[[^]]*\]\(([^)#]+)\)", (REPOSITORY / "docs/README.md").read_text("utf-8"), re.MULTILINE)
    paths = [(REPOSITORY / "docs" / link).resolve().relative_to(REPOSITORY).as_posix() for link in listed]
    shown = [places.get(path) or places[f"{path}/README.md"] for path in paths]
    wanted = [page for page in navigation if page != "contents.md"]
    assert shown == wanted, "docs/README.md lists what mkdocs.yml does, in its order"


def test_links_are_moved_with_the_pages() -> None:
    places = map_pages()
    text = "\n".join(
        (
            "A list:",
            "- [a](docs/run.md#rules) and ![b](docs/html.png)",
            "- [c](examples/apollo), [d](LICENSE), [e](https://example.org/x.md), [f](#here)",
            "```sh",
            "[a](docs/run.md)",
            "```",
            "A table:",
            "| a | b |",
            "| --- | --- |",
        )
    )
    moved = move_links(text, "README.md", places).split("\n")
    assert moved[1:3] == ["", "- [a](run.md#rules) and ![b](html.png)"]
    assert moved[3] == f"- [c](examples/apollo.md), [d]({SOURCE}/LICENSE), [e](https://example.org/x.md), [f](#here)"
    assert moved[5] == "[a](docs/run.md)"
    assert moved[7:] == ["A table:", "", "| a | b |", "| --- | --- |"]
    assert "(../run.md)" in move_links("[x](../../docs/run.md)", "examples/apollo/README.md", places)
    assert "(../serve.md)" in move_links("[x](../serve.md)", "docs/decisions/README.md", places)
    with pytest.raises(BrokenLinkError, match=r"README.md: there is no docs/nowhere.png"):
        move_links("![x](docs/nowhere.png)", "README.md", places)
