"""The page of the sites, in the look of the reports."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from cosremaster import __about__
from cosremaster.records.tuples import NamedTuple
from cosremaster.reports.html.markup import Child, Markup, element, joined, table
from cosremaster.reports.html.page import HEAD
from cosremaster.reports.html.style import STYLE

PAGE_TYPE = "text/html; charset=utf-8"


class SiteRow(NamedTuple):
    """A site on the page. ``size``: bytes of its image, None where it is not planned yet."""

    name: str
    size: int | None
    etag: str


def write_overview_page(title: str, rows: Iterable[SiteRow], problems: Iterable[str] = ()) -> bytes:
    """Return the page of the sites ``rows``, in UTF-8. Its links are relative: they keep a token of the page's URL.

    ``problems``: sentences about what is not served.
    """
    rows = list(rows)
    cells = [_site_cells(row) for row in rows]
    planned = [row.size for row in rows if row.size is not None]
    facts = element(
        "dl",
        _fact("sites", f"{len(rows):,}"),
        _fact("planned", f"{len(planned):,}"),
        _fact("bytes of these images", f"{sum(planned):,}"),
        class_="facts",
    )
    heads = ("site", "image", "bytes", "checksum", "network boot")
    section = element("section", element("h2", "Sites"), table("Sites", heads, cells))
    note = element("p", "An image is planned when it is first asked for; none is written.", class_="note")
    faults = [element("p", f"Not served: {problem}") for problem in problems]
    head = joined(HEAD, element("title", title), Markup(f"<style>{STYLE}</style>\n</head>\n<body>\n"))
    body = joined(
        element("header", element("h1", title), facts), Markup("\n"), element("main", *faults, section, note),
        Markup("\n"), element("footer", f"cosremaster {__about__.__version__}"),
    )  # fmt: skip
    return joined(head, body, Markup("\n</body>\n</html>\n")).encode("utf-8", "backslashreplace")


def _fact(name: str, value: str) -> Markup:
    """Return a fact of the page's head."""
    return element("div", element("dt", name), element("dd", value))


def _site_cells(row: SiteRow) -> tuple[Child, ...]:
    """Return the cells of a site."""
    image = f"{row.name}.iso"
    size = "not planned yet" if row.size is None else f"{row.size:,}"
    script = _link(f"{row.name}/boot.ipxe", "boot.ipxe")
    return (row.name, _link(image, image), size, _link(f"{image}.sha256", "sha256"), script)


def _link(path: str, text: str) -> Markup:
    """Return a link to ``path`` below the page."""
    return element("a", text, href=quote(path))
