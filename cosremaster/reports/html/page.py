"""Assemble the whole page."""

from __future__ import annotations

from cosremaster import __about__
from cosremaster.reports.html.facts import Facts
from cosremaster.reports.html.findings import changes, proof, verdict
from cosremaster.reports.html.markup import Markup, element, joined
from cosremaster.reports.html.sections import blocks, layers, summary, treemap
from cosremaster.reports.html.style import STYLE

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Content Security Policy level 3: nothing is loaded, no script runs, and only the page's own style counts."""

HEAD = Markup(
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
)


def page(facts: Facts) -> bytes:
    """Return the page about ``facts`` in UTF-8:

    one file without a reference to another. Equal facts give equal bytes.
    """
    name = facts.new.name
    head = joined(HEAD, element("title", name), Markup(f"<style>{STYLE}</style>\n</head>\n<body>\n"))
    made = element("footer", f"cosremaster {__about__.__version__}")
    parts = (blocks(facts), layers(facts), treemap(facts), changes(facts), proof(facts))
    main = joined(*(joined(part, Markup("\n")) for part in parts))
    body = joined(
        element("header", element("h1", name), summary(facts), verdict(facts)),
        Markup("\n"),
        element("main", main),
        made,
    )
    return joined(head, body, Markup("\n</body>\n</html>\n")).encode("utf-8", "backslashreplace")
