"""URLs in the place of a path: which text is such, its parts, and what of it may be shown."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

from cosremaster.errors import ImageError, UsageError, printable
from cosremaster.lazy_path import make_path, path_text
from cosremaster.lazy_regex import lazy_regex

if TYPE_CHECKING:
    from pathlib import Path

_SCHEME = lazy_regex(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # a single letter would be a drive
_UNSAFE = lazy_regex(r"[\x00-\x20\x7f]")
_SAFE = "".join(map(chr, range(0x21, 0x7F)))
"""What stays as it is: escapes in a URL are its own."""

_HOST = lazy_regex(r"(?i)(https?://(?:[^/?#]*@)?)([^/?#@:\[\]]+)")
_DEVIATIONS = frozenset("\u00df\u1e9e\u03c2\u200c\u200d")
"""Letters for which IDNA of 2003 puts others, or nothing: sharp s, final sigma, joiners (UTS 46, 7)."""

HTTP_SCHEMES = frozenset(("http", "https"))


class Url:
    """The URL of an image. As text it is what may be shown: without user, password, query and fragment.

    ``text`` is all of it, and holds what may be secret.
    """

    __slots__ = ("scheme", "text")

    def __init__(self, text: str) -> None:
        """Check the parts. :raises UsageError: it is malformed."""
        from urllib.parse import urlsplit  # noqa: PLC0415 - an image on this machine needs none of it

        if _UNSAFE.search(text):
            shown = printable(_without_user(text))
            raise UsageError(f"{shown}: a URL has neither spaces (write %20) nor control characters")
        try:
            self.text = escape_url(text)
        except ValueError as error:
            raise UsageError(f"{printable(_without_user(text))}: {error}") from error
        try:
            parts = urlsplit(self.text)
            is_whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            is_whole = False
        self.scheme = self.text.partition("://")[0].lower()
        if self.scheme in HTTP_SCHEMES and not is_whole:
            raise UsageError(f"{_without_user(self.text)}: is no URL with a host and a sound port")

    def __str__(self) -> str:
        """Return what may be shown of it."""
        return _without_secrets(self.text)

    def __repr__(self) -> str:
        """Return the class and what may be shown."""
        return f"Url({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        """Return whether ``other`` is the same URL."""
        return isinstance(other, Url) and self.text == other.text

    def __hash__(self) -> int:
        """Return the hash of its text."""
        return hash(self.text)

    def redact(self, text: str) -> str:
        """Return ``text``, of somebody else, without what must not be shown of this URL."""
        from urllib.parse import unquote, urlsplit  # noqa: PLC0415 - as below

        text = text.replace(self.text, str(self))
        parts = urlsplit(self.text)
        user, _, _ = parts.netloc.rpartition("@")
        password = parts.password or ""
        for secret in (parts.query, user, unquote(user), password, unquote(password)):
            text = text.replace(secret, "...") if secret else text
        return text

    @property
    def name(self) -> str:
        """The name of the file: the last part of the path."""
        from urllib.parse import unquote, urlsplit  # noqa: PLC0415 - as above

        return unquote(urlsplit(self.text).path.rpartition("/")[2])

    def beside(self, ending: str) -> Url:
        """Return the URL of the file whose name is longer by ``ending``."""
        from urllib.parse import urlsplit  # noqa: PLC0415 - as above

        parts = urlsplit(self.text)
        return Url(parts._replace(path=parts.path + ending).geturl())


class AbsentFileError(ImageError):
    """There is no file at a URL."""


class ChangedFileError(ImageError):
    """The file at a URL is another than the one that was opened."""


def escape_url(text: str) -> str:
    """Return the URL ``text``, or a part of one behind its host, in ASCII; escapes stay as they are.

    A host is encoded by IDNA. Where the encodings of 2003 and 2008 differ, they name different servers.
    :raises ValueError: it is such a host, or cannot be encoded.
    """
    from urllib.parse import quote  # noqa: PLC0415 - as above

    match = None if text.isascii() else _HOST.match(text)
    if match is not None and not match[2].isascii():
        if not _DEVIATIONS.isdisjoint(match[2]):
            raise ValueError("the name of its host has letters that not all programs encode alike; write it as xn--...")
        try:
            host = match[2].encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ValueError("the name of its host cannot be encoded (IDNA)") from error
        text = f"{match[1]}{host}{text[match.end() :]}"
    return quote(text, safe=_SAFE)


ImagePath: TypeAlias = "str | os.PathLike[str] | Url"
"""Where an image is: a path on this machine, or a URL, also as text."""


def is_url(text: str) -> bool:
    """Return whether ``text`` begins as a URL does. A folder of such a name is ``./http:/``."""
    return "://" in text and _SCHEME.match(text) is not None  # nothing is compiled for most paths


def parse_image_path(path: ImagePath) -> Path | Url:
    """Return ``path`` as a path on this machine, or as a URL.

    :raises UsageError: it is empty, or a URL that is malformed.
    """
    if isinstance(path, Url):
        return path
    text = os.fspath(path)
    if not text:
        raise UsageError("the path of the image is empty")
    if not is_url(text):
        return make_path(text)
    if text[:7].lower() == "file://":
        return _local_path(text)
    return Url(text)


def parse_image_place(path: ImagePath) -> str | Url:
    """Return what :func:`parse_image_path` returns, a path as the text of it; raises as that."""
    if not isinstance(path, Url) and (text := os.fspath(path)) and not is_url(text):
        return path_text(text)
    place = parse_image_path(path)
    return place if isinstance(place, Url) else str(place)


def shown_image_path(path: ImagePath) -> str:
    """Return what may be shown of ``path``: of a URL neither user, nor password, nor query."""
    text = str(path) if isinstance(path, Url) else os.fspath(path)
    return _without_secrets(text) if is_url(text) else text


def split_image_path(text: str) -> tuple[str, str, str]:
    """Split an address into the path or URL of the image, ``::`` and the rest; both are empty where there is no rest.

    >>> split_image_path("http://[::1]:8080/in.iso::live.cgz")
    ('http://[::1]:8080/in.iso', '::', 'live.cgz')
    """
    start = 0
    if is_url(text):
        authority = text.index("://") + 3
        start = text.find("/", authority)
        start = len(text) if start < 0 else start
    place = text.find("::", start)
    return (text, "", "") if place < 0 else (text[:place], "::", text[place + 2 :])


def _without_secrets(text: str) -> str:
    """Return the URL ``text`` without user, password, query and fragment; ``?...`` stands where there is a query."""
    scheme, _, rest = text.partition("://")
    whole, mark, _ = rest.partition("?")
    authority, slash, path = whole.partition("#")[0].partition("/")
    path = path.replace("::", "%3A%3A")  # which would end it in an address
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}{'?...' if mark else ''}"


def _without_user(text: str) -> str:
    """Return what may be shown of the malformed URL ``text``: a password may hold what should end it, as a slash."""
    scheme, mark, rest = text.partition("://")
    return _without_secrets(f"{scheme}{mark}{rest.rpartition('@')[2]}")


def _local_path(text: str) -> Path:
    """Return the path that a ``file:`` URL means. :raises UsageError: it is on another machine."""
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415 - few paths are given so

    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{printable(text)}: is on the machine {parts.netloc}, and a file: URL is read on this one")
    return make_path(unquote(parts.path))
