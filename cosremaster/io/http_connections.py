"""Connections to web servers: straight or by the proxy that the environment names, each server its own way."""

from __future__ import annotations

import http.client
from urllib.parse import unquote, urlsplit

import urllib3
import urllib3.connection
import urllib3.util
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from cosremaster.errors import ImageError, Place, printable
from cosremaster.io.urls import HTTP_SCHEMES

_MOST_INTERIM = 16
"""Interim answers before the final one. Who sends more has nothing to say."""


class Connections:
    """Connections that are kept, for requests about the file at ``place``."""

    def __init__(self, place: Place) -> None:
        """Begin without connections."""
        self._place = place
        self._pools: dict[str, urllib3.PoolManager] = {}

    def pool_for(self, target: str) -> urllib3.PoolManager:
        """Return the connections to the server of the URL ``target``: each redirect may lead to another.

        :raises ImageError: the environment names a proxy for it whose kind is not known, or that is malformed.
        """
        proxy = _find_proxy(target)
        if proxy not in self._pools:
            try:
                self._pools[proxy] = _make_pool(proxy, self._place)
            except ValueError as error:  # what it names may hold a password
                raise ImageError("the environment names a proxy whose URL is malformed", self._place) from error
        return self._pools[proxy]

    def close(self) -> None:
        """End them."""
        for pool in self._pools.values():
            pool.clear()


class _FinalAnswer(http.client.HTTPResponse):
    """An answer behind interim ones, 102 and 103 for instance, which mean nothing here (RFC 9110, 15.2)."""

    def begin(self) -> None:
        """Read the head, the first that is final. :raises HTTPException: none comes."""
        super().begin()
        for _ in range(_MOST_INTERIM):
            if not 102 <= self.status < 200:
                return
            self.headers = None  # type: ignore[assignment]
            super().begin()
        raise http.client.HTTPException("too many interim answers")


class _Connection(urllib3.connection.HTTPConnection):
    """A connection with such answers."""

    response_class = _FinalAnswer


class _TlsConnection(urllib3.connection.HTTPSConnection):
    """The same over TLS."""

    response_class = _FinalAnswer


class _Pool(HTTPConnectionPool):
    """Connections to a server."""

    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _TlsConnection


_POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _TlsPool}


def _find_proxy(target: str) -> str:
    """Return the proxy that the environment names for the URL ``target``, empty for none."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - only who connects needs it

    parts = urlsplit(target)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    host = parts.hostname or ""
    # An address of IPv6 stands in no_proxy with or without its brackets.
    return "" if not proxy or proxy_bypass(parts.netloc) or proxy_bypass(host) else proxy


def _make_pool(proxy: str, place: Place) -> urllib3.PoolManager:
    """Return connections through ``proxy``, straight ones if that is empty.

    :raises ImageError: it is of a kind that is not known. :raises ValueError: it is malformed.
    """
    pool = _make_proxy_pool(proxy, place) if proxy else urllib3.PoolManager()
    pool.pool_classes_by_scheme = _POOLS
    return pool


def _make_proxy_pool(proxy: str, place: Place) -> urllib3.PoolManager:
    """Return connections through ``proxy``. Raises as :func:`_make_pool`."""
    proxy_parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if proxy_parts.scheme not in HTTP_SCHEMES:
        kind = printable(proxy_parts.scheme)
        raise ImageError(f"the environment names a proxy of the kind {kind}, which is not known", place)
    if not proxy_parts.hostname:
        raise ValueError("a proxy without a host")
    headers = None
    if "@" in proxy_parts.netloc:
        user = f"{unquote(proxy_parts.username or '')}:{unquote(proxy_parts.password or '')}"
        headers = dict(urllib3.util.make_headers(proxy_basic_auth=user))
    address = proxy_parts._replace(netloc=proxy_parts.netloc.rpartition("@")[2], path="", query="", fragment="")
    return urllib3.ProxyManager(address.geturl(), proxy_headers=headers)
