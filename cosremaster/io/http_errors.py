"""Why a web server could not be reached, or its answer broke off, in words."""

from __future__ import annotations

import http.client
import os
import re
import ssl
from collections.abc import Iterable, Iterator

import urllib3.exceptions

from cosremaster.errors import printable

_TUNNEL_REFUSAL = re.compile(r"Tunnel connection failed: (\d{3}[^\r\n']{0,70})")
"""What http.client says of a proxy that answers CONNECT with another status than 200."""

_CUTS = (http.client.RemoteDisconnected, http.client.IncompleteRead)
"""Errors of HTTP that are those of a connection."""


class ConnectionLostError(Exception):
    """A request came to nothing, though the same request may succeed. As text it says why.

    ``lasts``: it will not succeed any sooner when it is sent again at once. ``pause``: seconds for which the server
    asks to wait.
    """

    def __init__(self, message: str, *, lasts: bool = False, pause: int = 0) -> None:
        """Make the error."""
        super().__init__(message)
        self.lasts, self.pause = lasts, pause


def is_lasting(error: ConnectionLostError) -> bool:
    """Return whether it makes no sense to send the request again."""
    return error.lasts


def describe_failure(error: urllib3.exceptions.HTTPError, host: str) -> ConnectionLostError:
    """Return what urllib3's ``error``, of a request to ``host``, means."""
    errors = tuple(_causes(error))
    failure = next((cause for cause in errors if isinstance(cause, ssl.SSLError)), None)
    if failure is not None:
        reason = getattr(failure, "verify_message", "") or failure.reason or "no reason is given"
        return ConnectionLostError(f"TLS fails: {printable(str(reason)).lower().replace('_', ' ')}", lasts=True)
    if any(isinstance(cause, urllib3.exceptions.NameResolutionError) for cause in errors):
        return ConnectionLostError(f"the name {printable(host)} is not known", lasts=True)
    reason = _describe_answer(error, errors)
    if reason:
        return ConnectionLostError(reason, lasts=True)
    who = "the proxy" if isinstance(error, urllib3.exceptions.ProxyError) else "the server"
    is_refused = isinstance(error, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ProxyError))
    if is_refused or isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        number = next((cause.errno for cause in errors if isinstance(cause, OSError) and cause.errno), None)
        reason = os.strerror(number).lower() if number and is_refused else "it does not answer"
        return ConnectionLostError(f"{who} cannot be reached: {reason}", lasts=True)
    if any(isinstance(cause, http.client.HTTPException) and not isinstance(cause, _CUTS) for cause in errors):
        return ConnectionLostError("the server's answer is no HTTP, or its head is too long")
    is_slow = isinstance(error, urllib3.exceptions.ReadTimeoutError)
    return ConnectionLostError("the server stopped sending" if is_slow else "the connection was cut")


def _describe_answer(error: urllib3.exceptions.HTTPError, errors: Iterable[BaseException]) -> str:
    """Return what is wrong with a name or an answer by which no request ever succeeds; empty where nothing is."""
    if isinstance(error, urllib3.exceptions.ProxyError):
        refusal = next((match for cause in errors if (match := _TUNNEL_REFUSAL.search(str(cause)))), None)
        return "" if refusal is None else f"the proxy refuses to connect to the server ({printable(refusal[1])})"
    if isinstance(error, urllib3.exceptions.InvalidHeader):
        return "the server tells of several lengths of an answer"
    is_malformed = isinstance(error, urllib3.exceptions.LocationParseError)
    return "the name of the server is malformed" if is_malformed else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and what it came from, also what urllib3 keeps in arguments."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop(0)
        if cause is None or cause in seen:
            continue
        seen.append(cause)
        yield cause
        inner = [value for value in (*cause.args, getattr(cause, "reason", None)) if isinstance(value, BaseException)]
        waiting += [*inner, cause.__cause__, cause.__context__]
