"""HTML made so that no name gets out of its place: text is escaped unless it is :class:`Markup`."""

from __future__ import annotations

from html import escape
from typing import TypeAlias

from cosremaster.errors import printable

LONGEST = 160
"""Characters of a name before its middle is left out."""


class Markup(str):
    """HTML as it is: only :func:`element` and :func:`joined` make it of what others wrote."""

    __slots__ = ()


Child: TypeAlias = "Markup | str | bytes"


def text(name: str | bytes, longest: int = LONGEST) -> str:
    """A name as people can read it, not longer than ``longest``; not escaped yet."""
    shown = printable(name)
    if len(shown) <= longest:
        return shown
    return f"{shown[: longest // 2]} … {shown[3 - longest // 2 :]}"


def joined(*children: Child) -> Markup:
    """``children`` one after another: sentences and names (those in bytes, made shorter) escaped, markup as it is."""
    return Markup("".join(one if isinstance(one, Markup) else escape(_shown(one)) for one in children))


def _shown(child: str | bytes) -> str:
    return text(child) if isinstance(child, bytes) else printable(child)


def element(name: str, *children: Child, **attributes: str) -> Markup:
    """The element ``name``. A ``_`` behind an attribute's name is dropped (``class_``), others become ``-``."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(printable(value))}"'
        for key, value in attributes.items()
        if value
    )
    return Markup(f"<{name}{told}>{joined(*children)}</{name}>")


def percent(value: float) -> str:
    """A length for CSS, in hundredths of what surrounds it."""
    return f"{value:.3f}".rstrip("0").rstrip(".") + "%"


def table(caption: str, heads: tuple[str, ...], rows: list[tuple[Child, ...]]) -> Markup:
    """A table that scrolls sideways where it must; ``caption`` is for those who cannot see it."""
    head = element("tr", *(element("th", one, scope="col") for one in heads))
    body = joined(*(element("tr", *(element("td", one) for one in row)) for row in rows))
    inner = joined(element("caption", caption), element("thead", head), element("tbody", body))
    return element("div", element("table", inner), class_="wide", tabindex="0", role="region", aria_label=caption)
